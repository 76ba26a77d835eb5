/**
 * The header of a file of `openssl enc`: `Salted__`, and the salt.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

const MAGIC: Bytes = new TextEncoder().encode("Salted__");
/** `Salted__` as base64, without the character in which the salt begins. */
const MAGIC_AS_BASE64 = "U2FsdGVkX1";

/** Bytes of the salt. */
export const SALT_SIZE = 8;
/** Bytes of the header. */
export const HEADER_SIZE: number = MAGIC.length + SALT_SIZE;

/** A salt for a new file. */
export function randomSalt(): Bytes {
  return crypto.getRandomValues(new Uint8Array(SALT_SIZE));
}

/** The header with this salt. */
export function headerOf(salt: Bytes): Bytes {
  return new Uint8Array([...MAGIC, ...salt]);
}

/** The salt of a header. */
export function saltOf(header: Bytes): Bytes {
  return header.slice(MAGIC.length);
}

/** Whether a file that starts with these bytes may have a header. */
export function maybeHeader(start: Bytes): boolean {
  return MAGIC.every((byte, i) => i >= start.length || byte === start[i]);
}

/** Whether a file that starts with these bytes may have a header in base64. */
export function maybeBase64(start: Bytes): boolean {
  const text = String.fromCharCode(...start.subarray(0, HEADER_SIZE)).trimStart();
  return MAGIC_AS_BASE64.startsWith(text.slice(0, MAGIC_AS_BASE64.length));
}
