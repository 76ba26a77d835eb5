/**
 * {@linkcode KernelKey}: a key that stays in the kernel, by its name there.
 *
 * @module
 */

import { type Bytes, copyOf, describe, isBuffer } from "./bytes.ts";

const TYPES = ["logon", "user", "encrypted", "trusted"] as const;

/**
 * A key of the kernel's keyring, which takes the place of its bytes: by type and description, as request_key(2) finds it
 * from this process, or by its serial number. The kernel copies it from there, so that it never enters this process.
 * From Linux 6.2 on, on the kernel engine alone.
 */
export type KernelKey =
  | { readonly keyring: "logon" | "user" | "encrypted" | "trusted"; readonly description: string }
  | { readonly serial: number };

/** A key as what opens ciphers takes it: its bytes, in a copy that is zeroed at the end, or one of the kernel's. */
export type Key = Bytes | KernelKey;

/** A copy, to be forgotten for itself. */
export function copyOfKey(key: Key): Key {
  return "length" in key ? copyOf(key) : key;
}

/** Zeroes it, where it is here. */
export function forgetKey(key: Key): void {
  if ("length" in key) key.fill(0);
}

/** The longest description that the kernel takes, in bytes (KEY_MAX_DESC_SIZE, with the NUL behind it). */
const LONGEST = 4095;

/**
 * A copy of a key of the kernel's.
 *
 * @returns Undefined for whatever else may be a key, or none: bytes are bytes, whatever properties they have.
 * @throws {TypeError} or {RangeError}, if it is one that cannot be.
 */
export function checkKernelKey(value: unknown): KernelKey | undefined {
  if (typeof value !== "object" || value === null || ArrayBuffer.isView(value) || isBuffer(value)) return undefined;
  const { keyring, description, serial } = value as Record<string, unknown>;
  if (serial === undefined) {
    return keyring === undefined && description === undefined ? undefined : named(keyring, description);
  }
  if (keyring !== undefined || description !== undefined) {
    throw new TypeError('"key" expected "keyring" and "description", or "serial", got both');
  }
  return { serial: checkSerial(serial) };
}

function named(keyring: unknown, description: unknown): KernelKey {
  const type = TYPES.find((type) => type === keyring);
  if (type === undefined) {
    const got = typeof keyring === "string" ? "another string" : describe(keyring);
    throw new TypeError(`"key.keyring" expected ${TYPES.map((type) => `"${type}"`).join(" or ")}, got ${got}`);
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
  return { keyring: type, description };
}

function checkSerial(serial: unknown): number {
  if (typeof serial !== "number") throw new TypeError(`"key.serial" expected a number, got ${describe(serial)}`);
  if (!Number.isInteger(serial) || serial < 1 || serial >= 2 ** 31) {
    throw new RangeError(`"key.serial" expected an integer from 1 to 2^31 - 1, got ${serial}`);
  }
  return serial;
}
