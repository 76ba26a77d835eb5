/**
 * The kernel engine: AF_ALG through libkcapi.
 *
 * @module
 */

import type { Address, Calls, Library } from "../../ffi/adapter.ts";
import type { Algorithm } from "../algorithms.ts";
import { type Bytes, scatter, totalLength } from "../bytes.ts";
import { ERRNO } from "../errno.ts";
import { type ErrorCode, KcapiError } from "../errors.ts";
import type { Key } from "../keyring/kernel_key.ts";
import { setKernelKey } from "../keyring/syscalls.ts";
import { Secret } from "../secret.ts";
import { withHint } from "../system/hints.ts";
import { AF_ALG, closeOnExec, descriptorsOf, socketOption, streamSocketOf } from "./descriptors.ts";
import { type Direction, type Engine, MAX_WINDOW } from "./engine.ts";

// linux/socket.h, asm-generic/socket.h, linux/fs.h, linux/uio.h
const SOCK_SEQPACKET = 5;
const SOCK_CLOEXEC = 0o2000000;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const UIO_MAXIOV = 1024;

/**
 * Rule F4. libkcapi sends a list of more than 16 entries by sendmsg, a shorter one through a pipe by vmsplice:
 * slower, refused in some containers, and corrupted by unaligned buffers. Entries of length 0 count.
 */
const SENDMSG_ENTRIES = 17;

/**
 * The most output buffers of one op. Each takes memory of net.core.optmem_max. With the smallest limit that the sysctl
 * accepts, 27 buffers fail (measured on Linux 6.1, a window over unaligned buffers; af_alg_get_rsgl in
 * crypto/af_alg.c).
 */
const OP_ENTRIES = 16;

/** The most pages that one op maps at a time into its output buffers (ALG_MAX_PAGES). */
const PAGES_PER_STEP = 16;

/** A libkcapi handle that is not destroyed. The finalizer refers to it, so it must not refer to its engine. */
interface Native {
  readonly call: Calls;
  readonly handle: Address;
}

const finalizer = new FinalizationRegistry<Native>(({ call, handle }) => call.kcapi_cipher_destroy(handle));

/**
 * Opens a cipher of the kernel and sets its key.
 *
 * @param key The caller still owns it.
 * @throws {KcapiError} Without a hint. To find one takes milliseconds, and `engine: "auto"` does not need it.
 */
export function openKernel(library: Library, algorithm: Algorithm, key: Key): Engine {
  const { call } = library;
  const cell = new Uint8Array(new ArrayBuffer(8));
  const name = new TextEncoder().encode(`${algorithm.name}\0`);
  check(call.kcapi_cipher_init(cell, name, 0), "kcapi_cipher_init", algorithm.name);
  const native = { call, handle: library.cells(cell.buffer).get(0) };
  try {
    if (!(key instanceof Secret)) {
      setKernelKey(library, descriptorsOf(library, native.handle)?.keySocket, algorithm, key);
    } else check(call.kcapi_cipher_setkey(native.handle, key.bytes, key.length), "kcapi_cipher_setkey", algorithm.name);
    return new KernelEngine(library, algorithm, native);
  } catch (error) {
    call.kcapi_cipher_destroy(native.handle);
    throw error;
  }
}

class KernelEngine implements Engine {
  readonly name = "kernel";
  readonly blockSize: number;
  readonly ivSize: number;
  window: number;
  readonly #library: Library;
  readonly #call: Calls;
  readonly #algorithm: Algorithm;
  /** Undefined after it was destroyed. */
  #native: Native | undefined;
  readonly #iovecs: Iovecs;
  #limits: Limits;
  #isUsed = false;
  /** The first stream of a handle opens its socket. */
  #hasStreamSocket = false;

  constructor(library: Library, algorithm: Algorithm, native: Native) {
    this.#library = library;
    this.#call = library.call;
    this.#algorithm = algorithm;
    this.#native = native;
    this.#iovecs = iovecsOf(library);
    this.#limits = measureLimits(library.call);
    this.window = this.#limits.window;
    this.blockSize = library.call.kcapi_cipher_blocksize(native.handle);
    this.ivSize = library.call.kcapi_cipher_ivsize(native.handle);
    // libkcapi 1.4.0 can return success without the sizes when its NETLINK_CRYPTO request fails.
    if (this.blockSize === 0) throw systemError("EPROTONOSUPPORT", "kcapi_cipher_init", algorithm.name);
    const found = descriptorsOf(library, native.handle);
    if (found) closeOnExec(library, [found.keySocket, ...found.pipe]);
    finalizer.register(this, native, this);
  }

  init(direction: Direction, iv: Bytes | null): void {
    if (this.#isUsed && this.#algorithm.oneStreamPerKey) throw this.#createUsedUpError("stream_init");
    const handle = this.#handle;
    const none = this.#library.word(0);
    if (direction === "encrypt") {
      this.#check(this.#call.kcapi_cipher_stream_init_enc(handle, iv, none, none), "kcapi_cipher_stream_init_enc");
    } else {
      this.#check(this.#call.kcapi_cipher_stream_init_dec(handle, iv, none, none), "kcapi_cipher_stream_init_dec");
    }
    this.#isUsed = true;
    if (this.#hasStreamSocket) return;
    const socket = streamSocketOf(this.#library, handle);
    closeOnExec(this.#library, [socket]);
    // Rule F2: a sysctl may have changed since the handle was opened. This socket keeps the buffers that it has now.
    this.#limits = measureLimits(this.#call, socket);
    this.window = this.#limits.window;
    this.#hasStreamSocket = true;
  }

  /**
   * Rule F2: while bytes are queued, a page stays free. The kernel needs a whole free page each time it begins one,
   * whatever the number of bytes, and sleeps if there is none (af_alg_writable in crypto/af_alg.c).
   */
  capacity(queued: number): number {
    return queued === 0 ? this.window : Math.max(0, this.window - this.#limits.page - queued);
  }

  update(list: readonly Bytes[], last: boolean): void {
    const most = UIO_MAXIOV;
    for (; list.length > most; list = list.slice(most)) this.#send(list.slice(0, most), false);
    this.#send(list, last);
  }

  #send(list: readonly Bytes[], last: boolean): void {
    const handle = this.#handle;
    this.#iovecs.fill(list);
    this.#sendFilled(handle, list.length, last);
    this.#iovecs.clear();
  }

  /** Sends all bytes of the list, in several calls if needed. Several calls use up the list. */
  #sendFilled(handle: Address, length: number, last: boolean): void {
    const iovecs = this.#iovecs;
    const entries = iovecs.word(Math.max(length, SENDMSG_ENTRIES));
    for (;;) {
      const sent = last
        ? this.#call.kcapi_cipher_stream_update_last(handle, iovecs.address, entries)
        : this.#call.kcapi_cipher_stream_update(handle, iovecs.address, entries);
      if (sent === iovecs.left) return;
      // Rule F6: a signal interrupted the call before any byte was sent, or after a part of them.
      if (sent === -ERRNO.EINTR) continue;
      const operation = last ? "kcapi_cipher_stream_update_last" : "kcapi_cipher_stream_update";
      if (this.#check(sent, operation) === 0) throw this.#createCountError(operation, sent);
      iovecs.advance(sent);
    }
  }

  op(list: readonly Bytes[]): void {
    if (!this.#isOneOp(list)) return this.#opCopied(list);
    const handle = this.#handle;
    this.#iovecs.fill(list);
    this.#opFilled(handle, list.length);
    this.#iovecs.clear();
  }

  pass(bytes: Bytes, inPlace: boolean): Bytes {
    const handle = this.#handle;
    const iovecs = this.#iovecs;
    const output = inPlace ? bytes : this.#library.allocUnsafe(bytes.length);
    iovecs.fillOne(bytes);
    this.#sendFilled(handle, 1, false);
    // In place, the list is unchanged unless sending used it up.
    if (!inPlace || iovecs.left !== output.length) iovecs.fillOne(output);
    this.#opFilled(handle, 1);
    iovecs.clear();
    return output;
  }

  /**
   * Whether one op fills `list`.
   *
   * The kernel begins another output buffer only while a page of the receive buffer is free. Otherwise it processes
   * the buffers that it has so far, cut to blocks, and leaves a gap up to the next one. So lists stay below that limit.
   * A copy costs less than a second op, for buffers of any length.
   */
  #isOneOp(list: readonly Bytes[]): boolean {
    return list.length === 1 || list.length <= OP_ENTRIES && totalLength(list) <= this.#limits.severalBuffersLimit;
  }

  #opCopied(list: readonly Bytes[]): void {
    const whole = this.#iovecs.scratch(totalLength(list));
    try {
      this.op([whole]);
      scatter(whole, list);
    } finally {
      whole.fill(0); // it outlives the stream, and may be plaintext
    }
  }

  /** Fills all of the list, of `length` entries. */
  #opFilled(handle: Address, length: number): void {
    const iovecs = this.#iovecs;
    const entries = iovecs.word(length);
    for (;;) {
      const got = this.#call.kcapi_cipher_stream_op(handle, iovecs.address, entries);
      if (got === iovecs.left) return;
      // Rule F6: another op must not continue a mode that restarts at every op.
      if (got === -ERRNO.EINTR) continue;
      this.#check(got, "kcapi_cipher_stream_op");
      if (got === 0 || this.#algorithm.kind !== "stream") throw this.#createCountError("kcapi_cipher_stream_op", got);
      iovecs.advance(got);
    }
  }

  take(length: number): Bytes {
    const bytes = this.#library.allocUnsafe(length);
    if (length > 0) this.op([bytes]);
    return bytes;
  }

  reinit(): Engine {
    if (this.#algorithm.oneStreamPerKey) throw this.#createUsedUpError("kcapi_handle_reinit");
    const cell = new Uint8Array(new ArrayBuffer(8));
    this.#check(this.#call.kcapi_handle_reinit(cell, this.#handle, 0), "kcapi_handle_reinit");
    const native = { call: this.#call, handle: this.#library.cells(cell.buffer).get(0) };
    try {
      return new KernelEngine(this.#library, this.#algorithm, native);
    } catch (error) {
      this.#call.kcapi_cipher_destroy(native.handle);
      throw error;
    }
  }

  close(): void {
    const handle = this.#handle;
    finalizer.unregister(this);
    this.#native = undefined;
    this.#call.kcapi_cipher_destroy(handle);
  }

  /** Rule F7: after close(), libkcapi would use freed memory. */
  get #handle(): Address {
    if (!this.#native) throw new KcapiError("EBADF", "kcapi", "the cipher is closed");
    return this.#native.handle;
  }

  #createUsedUpError(operation: string): KcapiError {
    const { name } = this.#algorithm;
    return new KcapiError("EOPNOTSUPP", operation, `${name} has one stream per key`, {
      hint: "open another handle, because the kernel keeps the state of the keystream with the key",
    });
  }

  #createCountError(operation: string, count: number): KcapiError {
    const { left } = this.#iovecs;
    this.#iovecs.clear();
    return new KcapiError("EIO", operation, `the kernel processed ${count} bytes, expected ${left}`);
  }

  #check(result: number, operation: string): number {
    if (result >= 0) return result;
    this.#iovecs.clear();
    throw withHint(systemError(-result, operation, this.#algorithm.name), this.#algorithm.name);
  }
}

function check(result: number, operation: string, algorithm: string): void {
  if (result < 0) throw systemError(-result, operation, algorithm);
}

function systemError(errno: ErrorCode | number, operation: string, algorithm: string): KcapiError {
  return new KcapiError(errno, operation, `${algorithm} failed`);
}

/** How many bytes the sockets can buffer (rules F1 and F2). */
export interface Limits {
  readonly page: number;
  /** SO_SNDBUF, in bytes. */
  readonly sendBuffer: number;
  readonly window: number;
  /** The most bytes that one op may return in several output buffers. */
  readonly severalBuffersLimit: number;
}

/**
 * Measures the buffers of a socket.
 *
 * @param streamSocket A stream's socket, which keeps the buffers that it was opened with. Without it, a new socket is
 * measured, whose buffers have the size of the sysctls net.core.wmem_default and rmem_default.
 */
export function measureLimits(call: Calls, streamSocket?: number): Limits {
  const page = call.getpagesize();
  const socket = streamSocket ?? call.socket(AF_ALG, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
  if (socket < 0) throw systemError("EMFILE", "socket", "AF_ALG");
  try {
    const send = Math.max(page, bufferSize(call, socket, SO_SNDBUF));
    const receive = Math.max(page, bufferSize(call, socket, SO_RCVBUF));
    const pages = Math.floor(Math.min(send, receive, MAX_WINDOW) / page);
    // An unaligned output of whole steps of pages touches one page more than its size. If the receive buffer has no
    // room for it, the op returns less than it was asked for.
    const spare = pages % PAGES_PER_STEP === 0 && pages > 1 ? 1 : 0;
    return { page, sendBuffer: send, window: (pages - spare) * page, severalBuffersLimit: (pages - spare - 1) * page };
  } finally {
    if (streamSocket === undefined) call.close(socket);
  }
}

function bufferSize(call: Calls, socket: number, option: number): number {
  const size = socketOption(call, socket, option);
  if (size === undefined) throw systemError("ENOPROTOOPT", "getsockopt", "AF_ALG");
  return size;
}

/** The array of struct iovec of one thread. All its engines share it, because calls are synchronous (rule F7). */
class Iovecs {
  readonly address: Address;
  /** Bytes in the list that were not used up. */
  left = 0;
  #used = 0;
  #first = 0;
  #scratch: Bytes | undefined;
  readonly #library: Library;
  readonly #words = new Uint32Array(new ArrayBuffer(16 * UIO_MAXIOV));
  readonly #cells;
  readonly #small: readonly Address[];
  readonly #memmove: Calls["memmove"];
  readonly #zero: Address;

  constructor(library: Library) {
    this.#library = library;
    this.#cells = library.cells(this.#words.buffer);
    this.#memmove = library.call.memmove;
    this.#zero = library.word(0);
    this.address = this.#memmove(new Uint8Array(this.#words.buffer), this.#zero, this.#zero);
    this.#small = Array.from({ length: SENDMSG_ENTRIES + 1 }, (_, n) => library.word(n));
  }

  /** Memory for the output of a list that is too long for one op. All engines of the thread share it and zero it. */
  scratch(length: number): Bytes {
    this.#scratch ??= new Uint8Array(MAX_WINDOW);
    return this.#scratch.subarray(0, length);
  }

  /** `n` as a size_t. The usual values are prepared, because creating a bigint costs more than the native call. */
  word(n: number): Address {
    return this.#small[n] ?? this.#library.word(n);
  }

  /** Writes the addresses and lengths of `list` into the array. The entries after them stay empty. */
  fill(list: readonly Bytes[]): void {
    let total = 0;
    for (let i = 0; i < list.length; i++) {
      const bytes = list[i]!;
      const { length } = bytes;
      this.#cells.set(2 * i, this.#memmove(bytes, this.#zero, this.#zero));
      this.#words[4 * i + 2] = length;
      total += length;
    }
    this.left = total;
    this.#used = list.length;
    this.#first = 0;
  }

  /** {@linkcode fill} for one buffer. */
  fillOne(bytes: Bytes): void {
    this.#cells.set(0, this.#memmove(bytes, this.#zero, this.#zero));
    this.left = this.#words[2] = bytes.length;
    this.#used = 1;
    this.#first = 0;
  }

  /** Removes `count` bytes from the front. Used entries stay, with length 0. */
  advance(count: number): void {
    this.left -= count;
    while (count > 0) {
      const length = this.#words[4 * this.#first + 2]!;
      const step = Math.min(count, length);
      this.#cells.set(2 * this.#first, add(this.#cells.get(2 * this.#first), step));
      this.#words[4 * this.#first + 2] = length - step;
      count -= step;
      if (step === length) this.#first++;
    }
  }

  /** Clears the list, so that no address of the caller's memory outlives the call. */
  clear(): void {
    const words = this.#words;
    // For the usual short list, this is faster than TypedArray.fill().
    for (let i = 4 * this.#used - 1; i >= 0; i--) words[i] = 0;
    this.#used = 0;
  }
}

function add(address: Address, offset: number): Address {
  return typeof address === "bigint" ? address + BigInt(offset) : address + offset;
}

let iovecs: Iovecs | undefined;

function iovecsOf(library: Library): Iovecs {
  return iovecs ??= new Iovecs(library);
}
