/**
 * Memory for intermediate bytes, XOR, and the ownership of the memory that `node:crypto` returns. All ciphers of a
 * thread share the memory, because calls are synchronous.
 *
 * @module
 */

import { hasFastBigInts } from "../runtime/mod.ts";
import type { Bytes } from "../bytes.ts";
import { MAX_WINDOW } from "./engine.ts";

/** For fewer bytes, freeing the memory at once costs more than garbage collection. */
const LEAST_FREED = 4096;

/** Calls `make` on the first call, and keeps the result. */
export function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => made ??= make();
}

/** Memory as 32-bit words. */
export type Words = Int32Array;

/** The same memory, as bytes and as words. */
export interface ScratchMemory {
  readonly bytes: Bytes;
  readonly words: Words;
}

/** Fresh memory. */
export function memory(length: number): ScratchMemory {
  const buffer = new ArrayBuffer(length);
  return { bytes: new Uint8Array(buffer), words: new Int32Array(buffer) };
}

const allScratch: ScratchMemory[] = [];

function createScratch(length: number): () => ScratchMemory {
  return once(() => {
    const scratch = memory(length);
    allScratch.push(scratch);
    return scratch;
  });
}

const gatherMemory = createScratch(MAX_WINDOW);
/** Input that was prepared for a cipher. */
export const inputMemory = createScratch(MAX_WINDOW);
/** Keystream, masks and counter blocks: one block more than a window. */
export const maskMemory = createScratch(MAX_WINDOW + 16);

/** Zeroes the memory, which has held keystream and plaintext. Called at the end of a stream. */
export function wipeScratch(): void {
  for (const { bytes } of allScratch) bytes.fill(0);
}

/** Joins the input buffers, so that one call of the cipher returns the output in one piece. */
export function gather(list: readonly Bytes[]): Bytes {
  if (list.length === 1) return list[0]!;
  const { bytes } = gatherMemory();
  let length = 0;
  for (const entry of list) {
    bytes.set(entry, length);
    length += entry.length;
  }
  return bytes.subarray(0, length);
}

/** From this length on, a copy costs less than an XOR by bytes. */
const LEAST_ALIGNED = 64;

/** `target ^= source`, for the length of `target`, by words. Copies `source` if it is not aligned to words. */
export function xor(target: Uint8Array, source: Uint8Array): void {
  if (source.byteOffset % 4 !== 0 && target.byteOffset % 4 === 0 && target.length >= LEAST_ALIGNED) {
    const { bytes } = inputMemory();
    bytes.set(source.length > target.length ? source.subarray(0, target.length) : source);
    source = bytes;
  }
  const words = (target.byteOffset | source.byteOffset) % 4 === 0 ? target.length >>> 2 : 0;
  if (words > 0) xorWords(wordsOf(target, words), wordsOf(source, words), words);
  for (let i = 4 * words; i < target.length; i++) target[i]! ^= source[i]!;
}

/** From this length on, the gain of 64-bit words exceeds the cost of their views. */
const LEAST_LONG = 256;

const byLongs = once(hasFastBigInts);

/**
 * `target ^= source`. Eight words per step: with one, xts(aes) on Bun takes 16 % longer. Not generic, because code that
 * sees two types of arrays is several times slower in JavaScriptCore.
 */
export function xorWords(target: Words, source: Words, count: number): void {
  let i = 0;
  if (count >= LEAST_LONG && (target.byteOffset | source.byteOffset) % 8 === 0 && byLongs()) {
    i = 2 * xorLongs(longsOf(target, count), longsOf(source, count));
  }
  for (; i + 8 <= count; i += 8) {
    target[i]! ^= source[i]!;
    target[i + 1]! ^= source[i + 1]!;
    target[i + 2]! ^= source[i + 2]!;
    target[i + 3]! ^= source[i + 3]!;
    target[i + 4]! ^= source[i + 4]!;
    target[i + 5]! ^= source[i + 5]!;
    target[i + 6]! ^= source[i + 6]!;
    target[i + 7]! ^= source[i + 7]!;
  }
  for (; i < count; i++) target[i]! ^= source[i]!;
}

/** V8 compiles this to 64-bit words. Without it, cbc decryption and xts on Deno take 15 to 20 % longer. */
function xorLongs(target: BigUint64Array, source: BigUint64Array): number {
  const { length } = target;
  let i = 0;
  for (; i + 4 <= length; i += 4) {
    target[i] = BigInt.asUintN(64, target[i]! ^ source[i]!);
    target[i + 1] = BigInt.asUintN(64, target[i + 1]! ^ source[i + 1]!);
    target[i + 2] = BigInt.asUintN(64, target[i + 2]! ^ source[i + 2]!);
    target[i + 3] = BigInt.asUintN(64, target[i + 3]! ^ source[i + 3]!);
  }
  return i;
}

function longsOf({ buffer, byteOffset }: Words, count: number): BigUint64Array {
  return new BigUint64Array(buffer, byteOffset, count >>> 1);
}

export function wordsOf({ buffer, byteOffset }: Uint8Array, count: number): Words {
  return new Int32Array(buffer, byteOffset, count);
}

/** `output` as a plain Uint8Array, without a copy if nothing else uses its memory. */
export function toOwned(output: Uint8Array): Bytes {
  if (!isAlone(output)) return new Uint8Array(output);
  const { buffer, length } = output;
  if (length < buffer.byteLength) new Uint8Array(buffer).fill(0, length);
  return new Uint8Array(buffer, 0, length);
}

/** Frees the memory of `output` at once. Until garbage collection, megabytes of it would accumulate. */
export function discard(output: Uint8Array): void {
  if (output.length >= LEAST_FREED && isAlone(output)) output.buffer.transfer(0);
}

/**
 * Whether nothing else uses the memory of `output`, as a slice of Node's Buffer pool would. Runtimes allocate up to a
 * block more than they return, and do not initialize it.
 */
function isAlone(output: Uint8Array): output is Bytes {
  return output.byteOffset === 0 && output.buffer.byteLength - output.length <= 16;
}
