/**
 * {@linkcode KernelKey}: a key that stays in the kernel, by its name there.
 *
 * @module
 */

import { describe, isBuffer } from "./bytes.ts";
import { Secret } from "./secret.ts";

const TYPES = ["logon", "user", "encrypted", "trusted"] as const;

/**
 * A key in the kernel's keyring, used instead of the key's bytes: by key type and description, as request_key(2) finds it
 * from this process, or by serial number. The kernel copies the key from its keyring, so it never enters this process.
 * Needs Linux 6.2 or later and the kernel engine.
 */
export type KernelKey =
  | {
    readonly type: "logon" | "user" | "encrypted" | "trusted";
    readonly description: string;
    readonly serial?: undefined;
  }
  | { readonly serial: number; readonly type?: undefined; readonly description?: undefined };

/** The key of a cipher: its bytes, owned by whoever holds them, or the name of a key in the kernel. */
export type Key = Secret | KernelKey;

/** A key of its own, to be disposed of separately. */
export function cloneKey(key: Key): Key {
  return key instanceof Secret ? key.clone() : key;
}

/** Zeroes the bytes, if the key has any. */
export function disposeKey(key: Key): void {
  if (key instanceof Secret) key.dispose();
}

/** The longest description that the kernel takes, in bytes (KEY_MAX_DESC_SIZE, with the NUL behind it). */
const LONGEST = 4095;

/**
 * A checked copy of a kernel key.
 *
 * @returns Undefined if `value` is something else, such as bytes (whatever properties they have) or a CryptoKey, whose
 * `type` is none of the kernel's.
 * @throws {TypeError} or {RangeError} If it is a kernel key with a wrong type, description or serial.
 */
export function checkKernelKey(value: unknown): KernelKey | undefined {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || isBuffer(value)) return undefined;
  const { type, description, serial } = value as Record<string, unknown>;
  if (serial === undefined) {
    return description === undefined && !isKeyType(type) ? undefined : checkNamed(type, description);
  }
  if (type !== undefined || description !== undefined) {
    throw new TypeError('"key" expected "type" and "description", or "serial", got both');
  }
  return { serial: checkSerial(serial) };
}

function isKeyType(type: unknown): type is typeof TYPES[number] {
  return TYPES.includes(type as typeof TYPES[number]);
}

function checkNamed(type: unknown, description: unknown): KernelKey {
  if (!isKeyType(type)) {
    const got = typeof type === "string" ? "another string" : describe(type);
    throw new TypeError(`"key.type" expected ${TYPES.map((type) => `"${type}"`).join(" or ")}, got ${got}`);
  }
  if (typeof description !== "string") {
    throw new TypeError(`"key.description" expected a string, got ${describe(description)}`);
  }
  // What the encoder would replace, or C takes for the end, would be the description of another key.
  if (description.includes("\0") || !description.isWellFormed()) {
    throw new TypeError('"key.description" expected text without NUL and lone surrogates');
  }
  const { length } = new TextEncoder().encode(description);
  if (length === 0 || length > LONGEST) {
    throw new RangeError(`"key.description" expected 1 to ${LONGEST} bytes, got ${length}`);
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
