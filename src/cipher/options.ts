/**
 * Checks of arguments. They run before any native call, if the algorithm's name determines the sizes.
 *
 * @module
 */

import { type Algorithm, hasSectors, padsByDefault } from "../algorithms.ts";
import { type Bytes, describe, toUint8Array } from "../bytes.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import { checkKernelKey, type Key } from "../keyring/kernel_key.ts";
import { oneOf } from "../options.ts";
import { ivStepOf, type Sectors } from "../position.ts";
import { Secret } from "../secret.ts";

/** PKCS#7 (RFC 5652), or no padding. */
export type Padding = "pkcs7" | "none";

/** The chosen engine, `"auto"` by default. */
export function checkEngine(engine: unknown = "auto"): EngineChoice {
  if (engine === "webcrypto") {
    throw new TypeError(
      '"engine" expected "auto", "kernel" or "userspace", got "webcrypto", which runs sealed streams only',
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
  options: { iv?: unknown; sectorSize?: unknown; sector?: unknown; ivLargeSectors?: unknown },
): Sectors | undefined {
  const { iv, sectorSize, sector, ivLargeSectors = false } = options;
  if (typeof ivLargeSectors !== "boolean") {
    throw new TypeError(`"ivLargeSectors" expected a boolean, got ${describe(ivLargeSectors)}`);
  }
  if (sector !== undefined && iv !== undefined) {
    throw new TypeError('"sector" and "iv" exclude each other: give one of them');
  }
  if (sectorSize === undefined) {
    if (sector !== undefined) throw new TypeError('"sector" needs a "sectorSize"');
    if (ivLargeSectors) throw new TypeError('"ivLargeSectors" needs a "sectorSize"');
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
  return { sectorSize, sector: checkSector(sector), ivStep: ivStepOf(sectorSize, ivLargeSectors) };
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
