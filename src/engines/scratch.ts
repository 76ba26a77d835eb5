/**
 * Memory for intermediate bytes, which all ciphers of a thread share: no call interrupts another. And whose the memory is
 * that `node:crypto` gives.
 *
 * @module
 */

import { hasFastBigInts } from "../runtime/mod.ts";
import type { Bytes } from "../bytes.ts";
import { MAX_WINDOW } from "./engine.ts";

/** The garbage collector frees fewer bytes than these, in one piece, at less than the call would cost. */
const LEAST_FREED = 4096;

/** Makes it when it is first asked for. */
export function once<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => made ??= make();
}

/** Memory as 32-bit words. */
export type Words = Int32Array;

/** The same memory, as bytes and as words. */
export interface Memory {
  readonly bytes: Bytes;
  readonly words: Words;
}

/** Fresh memory. */
export function memory(length: number): Memory {
  const buffer = new ArrayBuffer(length);
  return { bytes: new Uint8Array(buffer), words: new Int32Array(buffer) };
}

const made: Memory[] = [];

function shared(length: number): () => Memory {
  return once(() => {
    const scratch = memory(length);
    made.push(scratch);
    return scratch;
  });
}

const gathered = shared(MAX_WINDOW);
/** Input made ready for a cipher. */
export const masked = shared(MAX_WINDOW);
/** Key stream, masks, counter blocks: a block more than a window, for what is a block ahead. */
export const masks = shared(MAX_WINDOW + 16);

/** Forgets what was in it, key stream and plaintext: for the end of a stream. */
export function wipeScratch(): void {
  for (const { bytes } of made) bytes.fill(0);
}

/** A scatter list in one piece, so that the cipher is called once and its output is in one piece, too. */
export function gather(list: readonly Bytes[]): Bytes {
  if (list.length === 1) return list[0]!;
  const { bytes } = gathered();
  let length = 0;
  for (const entry of list) {
    bytes.set(entry, length);
    length += entry.length;
  }
  return bytes.subarray(0, length);
}

/** From so many bytes on, a copy costs less than to go by bytes. */
const LEAST_ALIGNED = 64;

/** `target ^= source`, for as many bytes as `target` has, by words; `source` is copied where it is not aligned to them. */
export function xor(target: Uint8Array, source: Uint8Array): void {
  if (source.byteOffset % 4 !== 0 && target.byteOffset % 4 === 0 && target.length >= LEAST_ALIGNED) {
    const { bytes } = masked();
    bytes.set(source.length > target.length ? source.subarray(0, target.length) : source);
    source = bytes;
  }
  const words = (target.byteOffset | source.byteOffset) % 4 === 0 ? target.length >>> 2 : 0;
  if (words > 0) xorWords(wordsOf(target, words), wordsOf(source, words), words);
  for (let i = 4 * words; i < target.length; i++) target[i]! ^= source[i]!;
}

/** From so many words on, views of them as longs cost less than they gain. */
const LEAST_LONG = 256;

const byLongs = once(hasFastBigInts);

/**
 * `target ^= source`. Eight words a step take a third of the time of one a step. Not generic: code that sees two types of arrays is
 * several times slower in one runtime.
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

/** In half the time of the words, where the compiler knows that no more than 64 bits are asked for. */
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

/** `output` as a plain array: without a copy, where nobody else has its memory. */
export function owned(output: Uint8Array): Bytes {
  if (!isAlone(output)) return new Uint8Array(output);
  const { buffer, length } = output;
  if (length < buffer.byteLength) new Uint8Array(buffer).fill(0, length);
  return new Uint8Array(buffer, 0, length);
}

/** Frees the memory of `output` at once. Megabytes of it pile up where that is left to the garbage collector. */
export function discard(output: Uint8Array): void {
  if (output.length >= LEAST_FREED && isAlone(output)) output.buffer.transfer(0);
}

/**
 * Whether `output` has its memory for itself, and is no slice of a pool. One runtime leaves room for one more block
 * behind it, holding whatever the heap held before.
 */
function isAlone(output: Uint8Array): output is Bytes {
  return output.byteOffset === 0 && output.buffer.byteLength - output.length <= 16;
}
