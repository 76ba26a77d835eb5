/**
 * Wraps the library's functions for tests: a watch that throws before a call breaks a flow rule (instead of a hang,
 * lost data or a crash), or injected faults that cannot be provoked.
 */
import { readFileSync } from "node:fs";
import type { Address, Calls } from "../../ffi/adapter.ts";
import { load } from "../../ffi/mod.ts";
import type { Bytes } from "./support.ts";

/** Replaces functions of the library, for every engine that is opened until this is disposed. */
export function interpose(wrap: (real: Calls) => Partial<Calls>): Disposable {
  const library = load() as { call: Calls };
  const real = library.call;
  library.call = { ...real, ...wrap(real) };
  return { [Symbol.dispose]: () => void (library.call = real) };
}

/** One entry of a `struct iovec` array. */
export interface Entry {
  readonly base: bigint;
  readonly length: number;
}

/** Reads a `struct iovec` array from memory. */
export function entriesAt(address: Address, count: Address): Entry[] {
  const cells = new BigUint64Array(new ArrayBuffer(16 * Number(count)));
  const { call, word } = load();
  if (cells.length > 0) call.memmove(new Uint8Array(cells.buffer), address, word(cells.byteLength));
  return Array.from({ length: Number(count) }, (_, i) => ({ base: cells[2 * i]!, length: Number(cells[2 * i + 1]) }));
}

/** Creates a `struct iovec` array of the first `length` bytes of a list. Its memory must outlive the call. */
export function arrayOf(entries: readonly Entry[], length: number): { memory: Bytes; address: Address } {
  const memory = new Uint8Array(new ArrayBuffer(16 * entries.length));
  const cells = new BigUint64Array(memory.buffer);
  entries.forEach((entry, i) => {
    const step = Math.min(entry.length, length);
    cells[2 * i] = entry.base;
    cells[2 * i + 1] = BigInt(step);
    length -= step;
  });
  const { call, word } = load();
  return { memory, address: call.memmove(memory, word(0), word(0)) };
}

/** The address of the first byte. */
export function addressOf(bytes: Bytes): bigint {
  const { call, word } = load();
  return BigInt(call.memmove(bytes, word(0), word(0)));
}

export const lengthOf = (entries: readonly Entry[]): number => entries.reduce((sum, { length }) => sum + length, 0);

/** Returns the kernel's chunk size of an algorithm that is in use, from /proc/crypto. */
export function kernelChunkSize(algorithm: string): number {
  const entry = readFileSync("/proc/crypto", "utf8").split("\n\n")
    .find((text) => [...text.matchAll(/^(?:name|driver) +: (.*)$/gm)].some(([, name]) => name === algorithm));
  const size = (field: string) => entry?.match(new RegExp(`^${field} +: (\\d+)$`, "m"))?.[1];
  const found = size("chunksize") ?? size("blocksize");
  if (!found) throw new Error(`/proc/crypto does not list ${algorithm}`);
  return Number(found);
}

/** A recorded call of the stream functions. */
export interface StreamCall {
  readonly name: keyof Calls;
  /** The entries with a length. */
  readonly entries: readonly Entry[];
  readonly length: number;
}

export interface Watch extends Disposable {
  /** The names of all calls except memmove, in order. */
  readonly names: (keyof Calls)[];
  /** The updates and operations, in order. */
  readonly streamCalls: StreamCall[];
  /** The handles that were created and not destroyed. */
  readonly live: number;
}

/** The kernel's state of a handle's stream (crypto/af_alg.c, `struct af_alg_ctx`, and its socket). */
interface Stream {
  readonly algorithm: string;
  chunkSize: number;
  window: number;
  used: number;
  /** The offset of the next byte in the last page. 0 starts a new page. */
  merge: number;
  started: boolean;
  last: boolean;
}

/**
 * Watches the real library. It checks each call before it is made, and throws if the call would break a rule. Disposal
 * throws again, because the code under test may have handled the error as one of the kernel.
 */
export function watchCalls(): Watch {
  const streams = new Map<bigint, Stream>();
  const names: (keyof Calls)[] = [];
  const streamCalls: StreamCall[] = [];
  const violations: Error[] = [];
  const page = load().call.getpagesize();

  function rule(holds: boolean, what: string): void {
    if (holds) return;
    const error = new Error(what);
    violations.push(error);
    throw error;
  }

  function streamOf(handle: Address): Stream {
    const stream = streams.get(BigInt(handle));
    rule(stream !== undefined, "F7: a call on a handle that is destroyed");
    return stream!;
  }

  function made(cell: Uint8Array | null, algorithm: string): void {
    const handle = new DataView(cell!.buffer, cell!.byteOffset).getBigUint64(0, true);
    streams.set(handle, { algorithm, chunkSize: 0, window: 0, used: 0, merge: 0, started: false, last: false });
  }

  function start(handle: Address): void {
    const stream = streamOf(handle);
    rule(stream.used === 0, "F5: a stream is started over bytes that were not received");
    const buffer = Number(readFileSync("/proc/sys/net/core/wmem_default", "utf8"));
    // The first stream creates the socket, which keeps its buffer size.
    stream.window ||= Math.max(page, buffer - buffer % page);
    stream.chunkSize ||= kernelChunkSize(stream.algorithm);
    Object.assign(stream, { started: true, last: false, used: 0, merge: 0 });
  }

  /** af_alg_sendmsg() fills the last page, then waits for a whole free page before it starts each new one. */
  function send(name: keyof Calls, handle: Address, address: Address, count: Address, last: boolean): void {
    const entries = entriesAt(address, count);
    const stream = streamOf(handle);
    rule(stream.started && !stream.last, `${name} without a stream in progress`);
    rule(entries.length > 16, `F4: a list of ${entries.length} entries goes through the pipe`);
    let length = lengthOf(entries);
    streamCalls.push({ name, entries: entries.filter(({ length }) => length > 0), length });
    const { used, window } = stream;
    const completed = stream.merge > 0 ? Math.min(length, page - stream.merge) : 0;
    stream.used += completed;
    stream.merge = (stream.merge + completed) % page;
    length -= completed;
    while (length > 0) {
      const room = window - stream.used;
      rule(
        room >= page,
        `F2: a send of ${lengthOf(entries)} bytes over ${used} blocks: the kernel's buffer is ${window}`,
      );
      const step = Math.min(length, room);
      stream.used += step;
      stream.merge = step % page;
      length -= step;
    }
    stream.last = last;
  }

  function receive(handle: Address, address: Address, count: Address): void {
    const entries = entriesAt(address, count);
    const length = lengthOf(entries);
    const stream = streamOf(handle);
    const { used, chunkSize, last } = stream;
    rule(stream.started, "F1: an op without a stream sleeps");
    rule(length > 0, "F1: an op for nothing");
    const whole = used - used % chunkSize;
    rule(last || used === whole, `F3: ${used} bytes were sent before an op, which are no whole chunks of ${chunkSize}`);
    rule(length <= (last ? used : whole), `F1: an op for ${length} bytes sleeps, for there are ${used}`);
    rule(length === used || length % chunkSize === 0, `F1: an op for ${length} bytes, in chunks of ${chunkSize}`);
    streamCalls.push({ name: "kcapi_cipher_stream_op", entries: entries.filter(({ length }) => length > 0), length });
    stream.used -= length;
    if (stream.used === 0) stream.merge = 0;
  }

  const library = interpose((real) => {
    const watched: Partial<Calls> = {
      kcapi_cipher_init(cell, name, flags) {
        const result = real.kcapi_cipher_init(cell, name, flags);
        if (result === 0) made(cell, new TextDecoder().decode(name!).replace("\0", ""));
        return result;
      },
      kcapi_handle_reinit(cell, handle, flags) {
        const { algorithm } = streamOf(handle);
        const result = real.kcapi_handle_reinit(cell, handle, flags);
        if (result === 0) made(cell, algorithm);
        return result;
      },
      kcapi_cipher_destroy(handle) {
        rule(streams.delete(BigInt(handle)), "F7: a handle is destroyed twice");
        real.kcapi_cipher_destroy(handle);
      },
      kcapi_cipher_setkey(handle, key, length) {
        streamOf(handle);
        return real.kcapi_cipher_setkey(handle, key, length);
      },
      kcapi_cipher_stream_init_enc(handle, ...rest) {
        start(handle);
        return real.kcapi_cipher_stream_init_enc(handle, ...rest);
      },
      kcapi_cipher_stream_init_dec(handle, ...rest) {
        start(handle);
        return real.kcapi_cipher_stream_init_dec(handle, ...rest);
      },
      kcapi_cipher_stream_update(handle, list, count) {
        send("kcapi_cipher_stream_update", handle, list, count, false);
        return real.kcapi_cipher_stream_update(handle, list, count);
      },
      kcapi_cipher_stream_update_last(handle, list, count) {
        send("kcapi_cipher_stream_update_last", handle, list, count, true);
        return real.kcapi_cipher_stream_update_last(handle, list, count);
      },
      kcapi_cipher_stream_op(handle, list, count) {
        receive(handle, list, count);
        return real.kcapi_cipher_stream_op(handle, list, count);
      },
    };
    const counted = { ...real, ...watched } as Record<string, (...args: unknown[]) => unknown>;
    for (const [name, call] of Object.entries(counted)) {
      if (name === "memmove") continue;
      counted[name] = (...args) => {
        names.push(name as keyof Calls);
        const result = call(...args);
        rule(!(result instanceof Promise), `F7: ${name} runs in another thread`);
        return result;
      };
    }
    return counted as Partial<Calls>;
  });

  return {
    names,
    streamCalls,
    get live() {
      return streams.size;
    },
    [Symbol.dispose]() {
      library[Symbol.dispose]();
      if (violations.length > 0) throw violations[0];
    },
  };
}
