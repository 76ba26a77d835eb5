/**
 * {@linkcode KernelKey}: the name of a key in the kernel's keyring.
 *
 * @module
 */

import { describe, isBuffer } from "../bytes.ts";
import { Secret } from "../secret.ts";

const TYPES = ["logon", "user", "encrypted", "trusted"] as const;

/**
 * A key in the kernel's keyring, used instead of the key's bytes: by key type and description, as request_key(2) finds
 * it from this process, or by serial number. The kernel copies the key from its keyring, so it never enters this
 * process. Needs Linux 6.2 or later and the kernel engine.
 */
export type KernelKey =
  | {
    readonly type: "logon" | "user" | "encrypted" | "trusted";
    readonly description: string;
    readonly serial?: undefined;
  }
  | { readonly serial: number; readonly type?: undefined; readonly description?: undefined };

/** The key of a cipher: its bytes, or the name of a key in the kernel. */
export type Key = Secret | KernelKey;

/** A copy of a key. Both must be disposed of. */
export function cloneKey(key: Key): Key {
  return key instanceof Secret ? key.clone() : key;
}

/** Zeroes the bytes of a key, if it has any. */
export function disposeKey(key: Key): void {
  if (key instanceof Secret) key.dispose();
}

/** The most bytes of a description (KEY_MAX_DESC_SIZE, less the NUL at its end). */
const MAX_DESCRIPTION = 4095;

/**
 * A checked copy of a kernel key.
 *
 * @returns Undefined if `value` is something else, such as bytes with any properties, or a CryptoKey, whose `type` is
 * not one of the kernel's.
 * @throws {TypeError} or {RangeError} If it is a kernel key with a wrong type, description or serial.
 */
export function checkKernelKey(value: unknown): KernelKey | undefined {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || isBuffer(value)) return undefined;
  const { type, description, serial } = value as Record<string, unknown>;
  if (serial === undefined) {
    return description === undefined && !isKeyType(type) ? undefined : checkDescription(type, description);
  }
  if (type !== undefined || description !== undefined) {
    throw new TypeError('"key" expected "type" and "description", or "serial", got both');
  }
  return { serial: checkSerial(serial) };
}

function isKeyType(type: unknown): type is typeof TYPES[number] {
  return TYPES.includes(type as typeof TYPES[number]);
}

function checkDescription(type: unknown, description: unknown): KernelKey {
  if (!isKeyType(type)) {
    const got = typeof type === "string" ? "another string" : describe(type);
    throw new TypeError(`"key.type" expected ${TYPES.map((type) => `"${type}"`).join(" or ")}, got ${got}`);
  }
  if (typeof description !== "string") {
    throw new TypeError(`"key.description" expected a string, got ${describe(description)}`);
  }
  // The encoder replaces a lone surrogate, and a C string ends at a NUL. Both could name another key.
  if (description.includes("\0") || !description.isWellFormed()) {
    throw new TypeError('"key.description" expected text without NUL and lone surrogates');
  }
  const { length } = new TextEncoder().encode(description);
  if (length === 0 || length > MAX_DESCRIPTION) {
    throw new RangeError(`"key.description" expected 1 to ${MAX_DESCRIPTION} bytes, got ${length}`);
  }
  return { type, description };
}

function checkSerial(serial: unknown): number {
  if (typeof serial !== "number") throw new TypeError(`"key.serial" expected a number, got ${describe(serial)}`);
  if (!Number.isInteger(serial) || serial < 1 || serial >= 2 ** 31) {
    throw new RangeError(`"key.serial" expected an integer from 1 to 2^31 - 1, got ${serial}`);
  }
  return serial;
}
