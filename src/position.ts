/**
 * The IV at a position of a stream: sector numbers and block counters.
 *
 * @module
 */

import type { Algorithm } from "./algorithms.ts";
import type { Bytes } from "./bytes.ts";
import { KcapiError } from "./errors.ts";

/** dm-crypt counts sectors of this size, for any sector size. */
const COUNTED_SECTOR = 512;
const MAX_SECTOR = 1n << 64n;

/**
 * How a sector's number is the IV of the sector, by dm-crypt's names: `plain64` has 64 bits little-endian at the start,
 * `plain64be` 64 bits big-endian at the end, `plain` the low 32 bits little-endian at the start. The rest is zeros.
 */
export type IVMode = "plain64" | "plain64be" | "plain";

export const IV_MODES: readonly IVMode[] = ["plain64", "plain64be", "plain"];

/** How a stream is split into sectors. */
export interface Sectors {
  /** Bytes per sector. */
  readonly sectorSize: number;
  /** The number of the first sector, which is its IV. */
  readonly sector: bigint;
  /** The difference between the numbers of two successive sectors. */
  readonly ivStep: bigint;
  /** How the number is written into the IV. */
  readonly ivMode: IVMode;
}

/**
 * The difference between the IVs of two successive sectors. dm-crypt's plain64 counts sectors of 512 bytes, or sectors
 * with `iv_large_sectors` (crypt_iv_plain64_gen in drivers/md/dm-crypt.c). Sizes that dm-crypt does not have count
 * sectors.
 */
export function ivStepOf(sectorSize: number, largeSectors: boolean): bigint {
  return largeSectors || sectorSize % COUNTED_SECTOR > 0 ? 1n : BigInt(sectorSize / COUNTED_SECTOR);
}

/**
 * The number in the IV of the sector at `index`.
 *
 * @throws {KcapiError} EOVERFLOW if it has more than 64 bits.
 */
export function sectorAt({ sector, ivStep }: Sectors, index: number): bigint {
  const number = sector + BigInt(index) * ivStep;
  if (number < MAX_SECTOR) return number;
  throw new KcapiError("EOVERFLOW", "stream", "the sector numbers end here: the next would be 2^64 or more");
}

/** A sector's number as its IV (crypt_iv_plain_gen and its neighbors in drivers/md/dm-crypt.c). */
export function ivOfSector(number: bigint, ivSize: number, mode: IVMode): Bytes {
  const iv = new Uint8Array(ivSize);
  const view = new DataView(iv.buffer);
  if (mode === "plain64be") view.setBigUint64(ivSize - 8, number);
  else view.setBigUint64(0, mode === "plain" ? BigInt.asUintN(32, number) : number, true);
  return iv;
}

/**
 * The IV with which a stream continues at `position`, a multiple of its chunk size, in modes with a block counter.
 *
 * @throws {KcapiError} EOVERFLOW at the end of the counter.
 */
export function ivAt(algorithm: Algorithm, iv: Bytes, position: number): Bytes {
  const blocks = position / blockSizeOf(algorithm, iv);
  if (blocks >= blocksOf(algorithm, iv)) throw createCounterError(algorithm);
  const result = iv.slice();
  const field = fieldOf(algorithm, result);
  if (algorithm.counter!.isLittleEndian) field.reverse();
  addBlocks(field, blocks);
  if (algorithm.counter!.isLittleEndian) field.reverse();
  return result;
}

/** Adds to a counter, which is one big-endian number. It wraps around. */
export function addBlocks(counter: Uint8Array, blocks: number): void {
  for (let i = counter.length - 1; i >= 0 && blocks > 0; i--) {
    const sum = counter[i]! + blocks % 256;
    counter[i] = sum;
    blocks = Math.floor(blocks / 256) + (sum >> 8);
  }
}

/**
 * Checks that the first `end` bytes of the keystream do not repeat. In the kernel a counter wraps around, into
 * keystream that was used before.
 *
 * @throws {KcapiError} EOVERFLOW if they do.
 */
export function checkCounter(algorithm: Algorithm, iv: Bytes, end: number): void {
  if (Math.ceil(end / blockSizeOf(algorithm, iv)) > blocksOf(algorithm, iv)) throw createCounterError(algorithm);
}

/**
 * The bytes from `position` on that fit into one op: up to the wrap of a counter that is shorter than the IV. There,
 * the engine would carry into the rest of the IV.
 */
export function bytesToWrap(algorithm: Algorithm, iv: Bytes, position: number): number {
  if (!algorithm.counter!.wraps) return Infinity;
  const blockSize = blockSizeOf(algorithm, iv);
  const field = fieldOf(algorithm, iv);
  const all = 1n << BigInt(8 * field.length);
  const rest = all - (numberOf(field) + BigInt(position / blockSize)) % all;
  return Number(rest) * blockSize;
}

/** The most blocks of a stream. No stream reaches the end of a counter that is the whole IV. */
function blocksOf(algorithm: Algorithm, iv: Bytes): number {
  const { size, wraps } = algorithm.counter!;
  if (size === undefined) return Infinity;
  const all = 2 ** (8 * size);
  return wraps ? all : all - Number(numberOf(fieldOf(algorithm, iv).slice().reverse()));
}

/** The counter in the IV. */
function fieldOf({ counter }: Algorithm, iv: Bytes): Bytes {
  const { offset, size = iv.length } = counter!;
  return iv.subarray(offset, offset + size);
}

/** The value of a big-endian number. */
function numberOf(field: Bytes): bigint {
  return field.reduce((number, byte) => number << 8n | BigInt(byte), 0n);
}

/** The bytes that the counter counts. In ctr, the IV is one block. */
function blockSizeOf({ mode, chunkSize }: Algorithm, iv: Bytes): number {
  return mode === "ctr" ? iv.length : chunkSize;
}

function createCounterError(algorithm: Algorithm): KcapiError {
  return new KcapiError("EOVERFLOW", "stream", `the block counter of ${algorithm.name} ends here, after 2^32 blocks`, {
    hint: "use another IV for the rest of the data",
  });
}
