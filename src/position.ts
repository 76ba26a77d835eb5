/**
 * The IV at a position of a stream: sector numbers and block counters.
 *
 * @module
 */

import type { Algorithm } from "./algorithms.ts";
import type { Bytes } from "./bytes.ts";
import { KcapiError } from "./errors.ts";

/** dm-crypt numbers its sectors in units of this size, whatever their own size is. */
const SECTOR_UNIT = 512;
const MAX_SECTOR = 1n << 64n;
const MAX_COUNTER = 2 ** 32;

/** How a stream is cut into sectors. */
export interface Sectors {
  /** Bytes per sector. */
  readonly sectorSize: number;
  /** The IV's number for the first sector. */
  readonly sector: bigint;
  /** By how much the number grows with each sector. */
  readonly ivStep: bigint;
}

/**
 * By how much the IV grows with each sector: dm-crypt's plain64 counts units of 512 bytes, and sectors with
 * `iv_large_sectors` (crypt_iv_plain64_gen in drivers/md/dm-crypt.c). Sizes that dm-crypt does not have count sectors.
 */
export function ivStepOf(sectorSize: number, largeSectors: boolean): bigint {
  return largeSectors || sectorSize % SECTOR_UNIT > 0 ? 1n : BigInt(sectorSize / SECTOR_UNIT);
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

/** A sector's number as its IV: dm-crypt's plain64, 64 bits little-endian, the rest zeros. */
export function ivOfSector(number: bigint, ivSize: number): Bytes {
  const iv = new Uint8Array(ivSize);
  new DataView(iv.buffer).setBigUint64(0, number, true);
  return iv;
}

/**
 * The IV with which a stream continues at `position`, a multiple of its chunk size, in ctr and in modes of the kind
 * `counter`.
 *
 * @throws {KcapiError} EOVERFLOW at the end of a 32-bit counter.
 */
export function ivAt(algorithm: Algorithm, iv: Bytes, position: number): Bytes {
  const blocks = position / algorithm.chunkSize;
  const counter = iv.slice();
  if (algorithm.kind !== "counter") addBlocks(counter, blocks);
  else new DataView(counter.buffer).setUint32(algorithm.counterOffset, counterAt(algorithm, iv, blocks), true);
  return counter;
}

/** Adds to a counter block, which is one big-endian number (SP 800-38A). It wraps around. */
export function addBlocks(counter: Uint8Array, blocks: number): void {
  for (let i = counter.length - 1; i >= 0 && blocks > 0; i--) {
    const sum = counter[i]! + blocks % 256;
    counter[i] = sum;
    blocks = Math.floor(blocks / 256) + (sum >> 8);
  }
}

function counterAt(algorithm: Algorithm, iv: Bytes, blocks: number): number {
  const counter = firstBlock(algorithm, iv) + blocks;
  if (counter >= MAX_COUNTER) throw createCounterError(algorithm);
  return counter;
}

/**
 * Checks that `end` bytes of a stream fit its 32-bit block counter. In the kernel it wraps around, into keystream that
 * was used before.
 */
export function checkCounter(algorithm: Algorithm, iv: Bytes, end: number): void {
  const blocks = Math.ceil(end / algorithm.chunkSize);
  if (firstBlock(algorithm, iv) + blocks > MAX_COUNTER) throw createCounterError(algorithm);
}

function firstBlock({ counterOffset }: Algorithm, { buffer, byteOffset }: Bytes): number {
  return new DataView(buffer, byteOffset).getUint32(counterOffset, true);
}

function createCounterError({ name }: Algorithm): KcapiError {
  return new KcapiError("EOVERFLOW", "stream", `the block counter of ${name} ends here, after 2^32 blocks`, {
    hint: "use another nonce for what follows",
  });
}
