/**
 * Checks of arguments. They run before any native call, if the algorithm's name determines the sizes.
 *
 * @module
 */

import { type Algorithm, countingIn, hasPositions, hasSectors, padsByDefault } from "../algorithms.ts";
import { type Bytes, describe, toUint8Array } from "../bytes.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import { checkKernelKey, type Key } from "../keyring/kernel_key.ts";
import { checkBoolean, oneOf } from "../options.ts";
import { IV_MODES, ivAt, ivStepOf, type Sectors } from "../position.ts";
import { Secret } from "../secret.ts";

/** PKCS#7 (RFC 5652), or no padding. */
export type Padding = "pkcs7" | "none";

/** The chosen engine, `"auto"` by default. */
export function checkEngine(engine: unknown = "auto"): EngineChoice {
  if (engine === "webcrypto") {
    throw new TypeError(
      '"engine" expected "auto", "kernel" or "userspace", got "webcrypto", which runs sealed streams only' +
        " and gcm(aes)",
    );
  }
  return oneOf("engine", engine, ["auto", "kernel", "userspace"]);
}

/** A copy of the key, which the caller owns. Or the kernel key, if the chosen engine can use it. */
export function ownKey(algorithm: Algorithm, value: unknown, engine: EngineChoice): Key {
  const kernelKey = checkKernelKey(value);
  if (!kernelKey) return Secret.from(checkKey(algorithm, value));
  if (engine === "userspace") {
    throw new TypeError(
      '"engine" expected "auto" or "kernel" for a key of the kernel\'s keyring, got "userspace"',
    );
  }
  return kernelKey;
}

/** The key's bytes, if the algorithm accepts their length. */
function checkKey({ name, mode, keySizes }: Algorithm, value: unknown): Bytes {
  const key = toUint8Array("key", value);
  if (keySizes && !keySizes.includes(key.length)) {
    throw new RangeError(`"key" expected ${keySizes.join(" or ")} bytes for ${name}, got ${key.length}`);
  }
  if (mode === "xts" && hasEqualHalves(key)) {
    throw new RangeError(`"key" expected two different halves for ${name}, got equal ones`);
  }
  return key;
}

/** Without `subarray()`: V8 would move a short array's bytes out of its heap, and leave the key in the old place. */
function hasEqualHalves(key: Bytes): boolean {
  const half = key.length / 2;
  for (let i = 0; i < half; i++) if (key[i] !== key[half + i]) return false;
  return true;
}

/** The IV, if it has the right length. Null if the algorithm has no IV. */
export function checkIV(algorithm: Algorithm, value: unknown, ivSize: number, operation: string): Bytes | null {
  const { name } = algorithm;
  if (value === undefined || value === null) {
    if (ivSize === 0) return null;
    throw new TypeError(`"iv" expected a BufferSource of ${ivSize} bytes for ${name}, got ${value}`);
  }
  const iv = toUint8Array("iv", value);
  if (iv.length !== ivSize) {
    const message = `"iv" expected ${ivSize} bytes for ${name}, got ${iv.length}`;
    throw algorithm.ivSize === undefined ? new KcapiError("EINVAL", operation, message) : new RangeError(message);
  }
  return ivSize === 0 ? null : iv;
}

/** The chosen padding, or the mode's default. */
export function checkPadding(algorithm: Algorithm, padding: unknown): Padding {
  if (padding === undefined) return padsByDefault(algorithm) ? "pkcs7" : "none";
  const checked = oneOf("padding", padding, ["pkcs7", "none"]);
  const { name, kind, blockSize } = algorithm;
  if (checked === "pkcs7" && (kind !== "stream" || blockSize === 1)) {
    throw new TypeError(`"padding" expected "none" for ${name}, which takes any length, got "pkcs7"`);
  }
  return checked;
}

/** How the stream is split into sectors, if it is. */
export function checkSectors(
  algorithm: Algorithm,
  options: { iv?: unknown; sectorSize?: unknown; sector?: unknown; ivLargeSectors?: unknown; ivMode?: unknown },
): Sectors | undefined {
  const { iv, sectorSize, sector, ivLargeSectors = false, ivMode } = options;
  checkBoolean("ivLargeSectors", ivLargeSectors);
  if (sector !== undefined && iv !== undefined) {
    throw new TypeError('"sector" and "iv" exclude each other: give one of them');
  }
  if (sectorSize === undefined) {
    if (sector !== undefined) throw new TypeError('"sector" needs a "sectorSize"');
    if (ivLargeSectors) throw new TypeError('"ivLargeSectors" needs a "sectorSize"');
    if (ivMode !== undefined) throw new TypeError('"ivMode" needs a "sectorSize"');
    return undefined;
  }
  if (!hasSectors(algorithm)) {
    throw new TypeError(
      `"sectorSize" is for cbc and modes that encrypt sectors, such as xts(aes), not for ${algorithm.name}`,
    );
  }
  if (iv !== undefined) throw new TypeError('"iv" and "sectorSize" exclude each other: the IV is the sector\'s number');
  if (typeof sectorSize !== "number") {
    throw new TypeError(`"sectorSize" expected a number, got ${describe(sectorSize)}`);
  }
  if (!Number.isSafeInteger(sectorSize) || sectorSize < 16 || sectorSize % 16 !== 0) {
    throw new RangeError(`"sectorSize" expected a positive multiple of 16 bytes, got ${sectorSize}`);
  }
  return {
    sectorSize,
    sector: checkSector(sector),
    ivStep: ivStepOf(sectorSize, ivLargeSectors),
    ivMode: oneOf("ivMode", ivMode === undefined ? "plain64" : ivMode, IV_MODES),
  };
}

function checkSector(sector: unknown = 0): bigint {
  if (typeof sector !== "number" && typeof sector !== "bigint") {
    throw new TypeError(`"sector" expected a number or a bigint, got ${describe(sector)}`);
  }
  if ((typeof sector === "number" && !Number.isSafeInteger(sector)) || sector < 0 || BigInt(sector) >= 1n << 64n) {
    throw new RangeError(`"sector" expected an integer from 0 to 2^64 - 1 (a bigint above 2^53), got ${sector}`);
  }
  return BigInt(sector);
}

/** Where a stream starts in the keystream, and how that counts. */
export interface StreamPosition {
  /**
   * For ctr, chacha20, xchacha20, xchacha12, xctr and rfc3686: where the stream starts, in bytes of the keystream, from
   * 0 to 2^53 − 1. It may be within a block. To read a part of a ciphertext, decrypt its bytes from `position` on.
   * Never encrypt two texts at the same position under one key and IV. Default: 0.
   */
  position?: number | undefined;
  /**
   * For ctr: how many of the last bits of the IV are the counter: 32 as in GCM, 64 or 128. It wraps around without a
   * carry into the bits in front of it, as WebCrypto's AES-CTR with that `length`. Default: all bits of the IV.
   */
  counterBits?: 32 | 64 | 128 | undefined;
}

const COUNTER_BITS: readonly unknown[] = [32, 64, 128];

/**
 * The position in the keystream, and the algorithm with the counter asked for.
 *
 * @param iv Of the right length; null if it is not known yet.
 * @throws {KcapiError} EOVERFLOW if the counter ends before the position.
 */
export function checkPosition(
  algorithm: Algorithm,
  iv: Bytes | null,
  { position, counterBits }: StreamPosition,
): { position: number; algorithm: Algorithm } {
  const counting = counterBits === undefined ? algorithm : withCounterBits(algorithm, iv, counterBits);
  if (position === undefined) return { position: 0, algorithm: counting };
  if (!hasPositions(algorithm)) {
    throw new TypeError(
      `"position" is for counter modes, such as ctr(aes) and chacha20, not for ${algorithm.name}: ` +
        otherThanPosition(algorithm),
    );
  }
  if (typeof position !== "number") throw new TypeError(`"position" expected a number, got ${describe(position)}`);
  if (!Number.isSafeInteger(position) || position < 0) {
    throw new RangeError(`"position" expected an integer from 0 to 2^53 - 1, got ${position}`);
  }
  if (iv && counting.counter) ivAt(counting, iv, position - position % counting.chunkSize);
  return { position, algorithm: counting };
}

function withCounterBits(algorithm: Algorithm, iv: Bytes | null, bits: unknown): Algorithm {
  const { name, mode, ivSize = iv?.length ?? 16 } = algorithm;
  if (mode !== "ctr") throw new TypeError(`"counterBits" is for ctr, such as ctr(aes), not for ${name}`);
  if (typeof bits !== "number") throw new TypeError(`"counterBits" expected a number, got ${describe(bits)}`);
  if (!COUNTER_BITS.includes(bits) || bits > 8 * ivSize) {
    const known = COUNTER_BITS.filter((each) => each as number <= 8 * ivSize).join(" or ");
    throw new RangeError(`"counterBits" expected ${known} for ${name}, got ${bits}`);
  }
  return countingIn(algorithm, bits, ivSize);
}

/** What to use in a mode without positions. */
function otherThanPosition(algorithm: Algorithm): string {
  const { mode } = algorithm;
  if (algorithm.kind === "sector") return 'give "sectorSize", and the first "sector"';
  if (mode === "ecb") return "start at any block";
  if (mode === "cbc") return 'give "sectorSize" and "sector" for a disk; to decrypt, give the block before as "iv"';
  if (mode === "cfb") return 'to decrypt, give the block before as "iv"';
  return "start at the beginning";
}

/** The most bytes of a chunk: whole chunk sizes fit. */
export function checkMaxBytes(maxBytes: unknown, chunkSize: number): void {
  if (typeof maxBytes !== "number") throw new TypeError(`"maxBytes" expected a number, got ${typeof maxBytes}`);
  if (maxBytes !== Infinity && !Number.isSafeInteger(maxBytes) || maxBytes < chunkSize) {
    throw new RangeError(`"maxBytes" expected an integer of at least ${chunkSize}, got ${maxBytes}`);
  }
}
