/**
 * Runs all code that passes memory to libkcapi with `tests/native/checking_kcapi.c`, which checks the memory. Between
 * taking an address and the call that uses it, this program collects garbage and overwrites the freed memory. The
 * argument is a fault to inject, which the check must find. Prints the number of checked calls.
 */
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { Address, Calls } from "../../ffi/adapter.ts";
import { load } from "../../ffi/mod.ts";
import { symbols } from "../../ffi/symbols.ts";
import { CipherHandle, decrypt, DecryptionStream, encrypt, EncryptionStream } from "../../mod.ts";
import { type Bytes, bytes, collect, concat, cut, streamOf } from "../support/bytes.ts";

const fault = process.argv[2];

const SMALL = [1, 15, 16, 17, 0, 3, 63, 64, 65, 1, 100, 1000, 1001, 7, 4095, 4096, 4097];
const LARGE = [65_536, 1, 65_535, 300_000, 212_992, 212_993];

// ---- the library and its checks ---------------------------------------------------------------------------------

interface Checks {
  kcapi_check_announce(memory: Uint8Array, length: Address): void;
  kcapi_check_announce_lists(memory: Uint8Array, length: Address): void;
  kcapi_check_calls(): number;
}

function loadChecks(path: string): Checks {
  const announce = ["buffer", "usize"] as const;
  if ("Deno" in globalThis) {
    return Deno.dlopen(path, {
      kcapi_check_announce: { parameters: announce, result: "void" },
      kcapi_check_announce_lists: { parameters: announce, result: "void" },
      kcapi_check_calls: { parameters: [], result: "u32" },
    }).symbols as unknown as Checks;
  }
  if (!("Bun" in globalThis)) {
    const { functions } = process.getBuiltinModule("node:ffi").dlopen(path, {
      kcapi_check_announce: { arguments: ["buffer", "u64"], return: "void" },
      kcapi_check_announce_lists: { arguments: ["buffer", "u64"], return: "void" },
      kcapi_check_calls: { arguments: [], return: "u32" },
    });
    return functions as unknown as Checks;
  }
  const ffi = process.getBuiltinModule("bun:ffi" as "fs") as unknown as typeof import("bun:ffi");
  return ffi.dlopen(path, {
    kcapi_check_announce: { args: ["ptr", "usize"], returns: "void" },
    kcapi_check_announce_lists: { args: ["ptr", "usize"], returns: "void" },
    kcapi_check_calls: { args: [], returns: "u32" },
  }).symbols as unknown as Checks;
}

const library = load() as { path: string; call: Calls; word(value: number): Address };
const checks = loadChecks(library.path);
const real = library.call;

setFlagsFromString("--expose-gc");
const bun = (globalThis as { Bun?: { gc(force: boolean): void } }).Bun;
const collectNow: () => void = bun ? () => bun.gc(true) : runInNewContext("gc");

/** The sizes of the memory announced for the next calls, which a collection could free. */
let sizes: number[] = [];
let wasCalled = false;
/** Memory that may have been freed too early. Nothing may write to it. */
let graves: Bytes[] = [];

function announce(memory: Uint8Array): void {
  checks.kcapi_check_announce(memory, library.word(memory.byteLength));
  if (wasCalled) sizes = [];
  wasCalled = false;
  sizes.push(memory.byteLength);
}

function collectGarbage(): void {
  collectNow();
  graves = sizes.flatMap((size) => Array.from({ length: 3 }, () => new Uint8Array(size).fill(0xee)));
}

function exhume(name: string): void {
  if (graves.some((grave) => grave.some((byte) => byte !== 0xee))) {
    throw new Error(`${name} wrote to freed memory`);
  }
}

/** Memory that a fault frees between an update and the operation. */
let held: Bytes[] = [];

/** The memory of the `struct iovec` arrays. */
let lists: ArrayBuffer | undefined;

/** Changes a correct list as the fault requires. */
function tamper(name: string, args: unknown[]): void {
  if (fault === "few entries" && name === "kcapi_cipher_stream_update") args[2] = library.word(1);
  if (fault === "too long" && name === "kcapi_cipher_stream_op") new BigUint64Array(lists!)[1]! += 1n;
}

const calls: Record<string, (...args: unknown[]) => unknown> = {};
for (const [name, { parameters }] of Object.entries(symbols)) {
  const call = real[name as keyof Calls] as (...args: unknown[]) => unknown;
  calls[name] = (...args) => {
    if (name === "memmove") {
      const memory = args[0] as Uint8Array;
      if (!lists) {
        lists = memory.buffer as ArrayBuffer; // The first address is that of the iovec arrays.
        checks.kcapi_check_announce_lists(memory, library.word(memory.byteLength));
        return call(...args);
      }
      // One list sends and receives the first large chunk.
      const isHeld = fault === "freed after the update" && memory.byteLength === LARGE[0];
      if (fault === "freed" || isHeld) args[0] = memory.slice();
      if (isHeld) held.push(args[0] as Bytes);
      announce(args[0] as Uint8Array);
      return call(...args);
    }
    parameters.forEach((type, i) => {
      if (type !== "buffer" || args[i] === null) return;
      if (fault === "short IV" && name.startsWith("kcapi_cipher_stream_init")) args[i] = (args[i] as Bytes).slice(1);
      announce(args[i] as Uint8Array);
    });
    const isSlow = name.startsWith("kcapi_cipher_stream") || name === "kcapi_cipher_setkey";
    if (isSlow) collectGarbage();
    tamper(name, args);
    const result = call(...args);
    wasCalled = true;
    if (name.startsWith("kcapi_cipher_stream_update")) held = [];
    if (isSlow) exhume(name);
    return result;
  };
}
library.call = calls as unknown as Calls;

// ---- work -------------------------------------------------------------------------------------------------------

const engine = "kernel";
const key = bytes(32, 2);
const iv = bytes(16, 3);

function assertInverted(what: string, output: Bytes, input: Bytes): void {
  if (output.length !== input.length) throw new Error(`${what}: ${output.length} bytes, not ${input.length}`);
  for (let i = 0; i < input.length; i++) {
    if (output[i] !== (~input[i]! & 0xff)) throw new Error(`${what}: wrong byte at ${i}`);
  }
}

/**
 * Chunks in each kind of memory: small ones (a runtime may keep them on its heap), parts of a large one, a whole
 * buffer.
 */
function chunks(sizes: readonly number[]): Bytes[] {
  return sizes.map((size, i) => {
    const chunk = bytes(size, i);
    if (i % 3 === 0) return Uint8Array.from(chunk);
    if (i % 3 === 1) return chunk;
    const large = new Uint8Array(size + 100);
    large.set(chunk, i % 100);
    return large.subarray(i % 100, i % 100 + size);
  });
}

async function handles(): Promise<void> {
  for (const algorithm of ["ctr(aes)", "cbc(aes)", "ecb(aes)"]) {
    using handle = CipherHandle.open(algorithm, { key: key.slice(), engine });
    using other = handle.reinit();
    for (const on of [handle, other]) {
      for (const list of [chunks(SMALL), chunks(LARGE), chunks(Array(40).fill(3)), chunks(Array(1500).fill(16))]) {
        if (algorithm === "ecb(aes)") on.streamInitEnc();
        else on.streamInitDec(iv.slice());
        const whole = concat(list);
        const input = algorithm === "ctr(aes)" ? whole : whole.subarray(0, whole.length - whole.length % 16);
        const send = async () => {
          const pieces = input.length === whole.length ? list : [input];
          await on.streamUpdate(...pieces);
          await on.streamUpdateLast();
        };
        const receive = async () => {
          const output: Bytes[] = [];
          for (let i = 0;; i++) {
            const memory = chunks(
              [[64, 100, 4096], [16, 16, 16, 200, 16, 1000, 16, 16, 16, 70_000], Array<number>(20).fill(4096)][i % 3]!,
            );
            const length = await on.streamOpInto(...memory);
            if (length === 0) return concat(output);
            output.push(concat(memory).subarray(0, length));
          }
        };
        const isInto = list.length < 20;
        const [output] = await Promise.all([isInto ? receive() : collect(on.streamOp({ maxBytes: 999 * 16 })), send()]);
        assertInverted(algorithm, output, input);
      }
    }
  }
}

async function streams(inPlaceOnly: boolean): Promise<void> {
  for (const inPlace of inPlaceOnly ? [true] : [false, true]) {
    for (const sizes of [SMALL, LARGE, Array(300).fill(33), Array(40).fill(4096)]) {
      const list = chunks(sizes);
      const input = concat(list);
      const options = { key, iv, engine, inPlace } as const;
      const stream = new EncryptionStream("ctr(aes)", options);
      assertInverted("EncryptionStream", await collect(streamOf(list).pipeThrough(stream)), input);

      const padded = await collect(streamOf([input.slice()]).pipeThrough(new EncryptionStream("cbc(aes)", options)));
      const there = cut(padded, [17, 65_536]);
      const back = await collect(streamOf(there).pipeThrough(new DecryptionStream("cbc(aes)", options)));
      assertInverted("DecryptionStream", back.map((byte) => ~byte), input);

      const sectors = { key: bytes(64, 2), sectorSize: 4096, sector: 7, engine, inPlace } as const;
      const whole = new Uint8Array(40_960).fill(sizes.length);
      assertInverted("sectors", await collect(encrypt("xts(aes)", sectors, whole.slice())), whole);
    }
  }
  const input = bytes(500_000);
  const output = await collect(encrypt("cbc(aes)", { key, iv, engine }, streamOf(cut(input, [9, 70_001]))));
  assertInverted("decrypt", (await collect(decrypt("cbc(aes)", { key, iv, engine }, output))).map((b) => ~b), input);
}

if (fault !== "freed after the update") await handles(); // Only a stream with inPlace uses one list twice.
await streams(fault !== undefined);
console.log(checks.kcapi_check_calls());
