/**
 * The options of `openSealed()` that say how it reads its source.
 *
 * @module
 */

import { wrongType } from "../bytes.ts";
import type { OptionNames } from "../options.ts";

/** How `openSealed()` reads its source. The defaults suit a store with some 30 ms of latency, and a local file. */
export interface SealedReadOptions {
  /**
   * The most bytes to read at once: so many neighboring segments are one call of `read()`, or one segment if that is
   * larger. Default: 1,048,576.
   */
  readSize?: number | undefined;
  /**
   * Reads that `stream()` and `bytes()` have under way, besides the one that they wait for. One call holds at most
   * `(readAhead + 1) * readSize` bytes of the source, and about as many bytes of plaintext. Default: 3.
   */
  readAhead?: number | undefined;
  /**
   * Segments whose plaintext is kept: those that were opened last. They are zeroed when others take their place, and
   * when the file is closed. Default: 1, so that small reads in sequence open each segment once.
   */
  cacheSize?: number | undefined;
  /**
   * Opens the file also if its end does not verify, to rescue what is intact. Then `isSizeVerified` is false, and
   * `size` is not authenticated: someone may have cut the file. Damaged segments are EBADMSG as always, the others can
   * be read. Default: false.
   */
  allowDamage?: boolean | undefined;
}

/** The same, checked and with the defaults. */
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
  if (typeof allowDamage !== "boolean") throw wrongType("allowDamage", "a boolean", allowDamage);
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
