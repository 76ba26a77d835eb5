/**
 * The options of `openSealed()` that say how it reads its source.
 *
 * @module
 */

import { wrongType } from "../bytes.ts";
import { checkBoolean, type OptionNames } from "../options.ts";

/** How `openSealed()` reads its source. The defaults suit a store with some 30 ms of latency, and a local file. */
export interface SealedReadOptions {
  /**
   * The most bytes of one `read()` of the source. It reads that many neighboring segments, at least one. Default:
   * 1,048,576.
   */
  readSize?: number | undefined;
  /**
   * The number of reads that `stream()` and `bytes()` start ahead of the one that they wait for. One call holds at most
   * `(readAhead + 1) * readSize` bytes of the source, and about as many bytes of plaintext. Default: 3.
   */
  readAhead?: number | undefined;
  /**
   * The number of opened segments whose plaintext is kept. They are zeroed when later ones replace them, and when the
   * file is closed. Default: 1, so that small reads in sequence open each segment once.
   */
  cacheSize?: number | undefined;
  /**
   * Opens the file also if its end cannot be verified, to rescue the intact segments. Then `isSizeVerified` is false,
   * and `size` is not authenticated: the file may be truncated. Damaged segments are EBADMSG, and the others can be
   * read. Default: false.
   */
  allowDamage?: boolean | undefined;
}

/** The checked options, with the defaults. */
export interface CheckedReadOptions {
  readonly readSize: number;
  readonly readAhead: number;
  readonly cacheSize: number;
  readonly allowDamage: boolean;
}

/** The names of the options. */
export const READ_NAMES: OptionNames<SealedReadOptions> = {
  readSize: true,
  readAhead: true,
  cacheSize: true,
  allowDamage: true,
};

const DEFAULT_READ_SIZE = 1024 * 1024;
const DEFAULT_READ_AHEAD = 3;
const DEFAULT_CACHE_SIZE = 1;

/**
 * Checks the options, and sets the defaults.
 *
 * @throws {TypeError} or {RangeError} if one is wrong.
 */
export function checkReadOptions(options: SealedReadOptions): CheckedReadOptions {
  const { readSize, readAhead, cacheSize, allowDamage = false } = options;
  checkBoolean("allowDamage", allowDamage);
  return {
    readSize: checkCount("readSize", readSize, DEFAULT_READ_SIZE, 1),
    readAhead: checkCount("readAhead", readAhead, DEFAULT_READ_AHEAD, 0),
    cacheSize: checkCount("cacheSize", cacheSize, DEFAULT_CACHE_SIZE, 0),
    allowDamage,
  };
}

function checkCount(name: string, value: unknown, byDefault: number, least: number): number {
  if (value === undefined) return byDefault;
  if (typeof value !== "number") throw wrongType(name, "a number", value);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new RangeError(`"${name}" expected an integer of at least ${least}, got ${value}`);
}
