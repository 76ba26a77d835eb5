/**
 * {@linkcode encrypt} and {@linkcode decrypt}: the functions for bytes, iterables and streams.
 *
 * @module
 */

import { describe } from "../bytes.ts";
import type { Direction, EngineName } from "../engines/engine.ts";
import { TransformIterator } from "../streams/iterate.ts";
import { type ByteSource, openerOf } from "../streams/source.ts";
import { type CipherStreamOptions, prepare } from "./prepare.ts";

/** The output of {@linkcode encrypt} or {@linkcode decrypt}: iterable once. */
export interface CipherIterable extends AsyncIterableIterator<Uint8Array<ArrayBuffer>>, AsyncDisposable {
  /** The engine that runs the cipher. Reading this property opens the cipher. */
  readonly engine: EngineName;
  /**
   * The tag, when all is encrypted with `gcm(aes)`: the same bytes as those in the output. Undefined for other ciphers
   * and for decryption. Rejects with ECANCELED if the encryption ends early.
   */
  readonly tag?: Promise<Uint8Array<ArrayBuffer>>;
  /** Releases the cipher, and calls `return()` or `cancel()` of the source. */
  return(): Promise<IteratorResult<Uint8Array<ArrayBuffer>, undefined>>;
  /** The iterable is its own iterator. */
  [Symbol.asyncIterator](): this;
}

/**
 * Encrypts bytes.
 *
 * The call checks and copies the options. The first `next()` opens the cipher. The end, `break`, and an error of the
 * source or the consumer release it.
 *
 * @param algorithm The kernel's name of the algorithm, such as `"cbc(aes)"`, or the name of a driver.
 * @param options The key, the IV, and how to use them.
 * @param source Bytes, or an iterable or stream of bytes.
 * @returns The ciphertext, in chunks of at most 212,992 bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key, the IV or a size is of a wrong length.
 *
 * @example Usage
 * ```ts
 * import { decrypt, encrypt } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: new Uint8Array(16).fill(1), iv: new Uint8Array(16).fill(2) };
 * const ciphertext = encrypt("ctr(aes)", options, new Uint8Array([1, 2, 3]));
 * const plaintext = decrypt("ctr(aes)", options, ciphertext);
 * assertEquals(await Array.fromAsync(plaintext), [new Uint8Array([1, 2, 3])]);
 * ```
 */
export function encrypt(algorithm: string, options: CipherStreamOptions, source: ByteSource): CipherIterable {
  return crypt("encrypt", algorithm, options, source);
}

/**
 * Decrypts bytes: the inverse of {@linkcode encrypt}. Bare ciphers do not authenticate: the output is unverified.
 * `gcm(aes)` verifies the message before anything comes out, as {@linkcode DecryptionStream} does.
 *
 * @param algorithm The kernel's name of the algorithm, such as `"cbc(aes)"`, or the name of a driver.
 * @param options The key and the IV that the data was encrypted with.
 * @param source Bytes, or an iterable or stream of bytes.
 * @returns The plaintext, in chunks of at most 212,992 bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key, the IV or a size is of a wrong length.
 *
 * @example Usage
 * ```ts
 * import { decrypt } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * // NIST SP 800-38A, F.1.2
 * const key = Uint8Array.fromHex("2b7e151628aed2a6abf7158809cf4f3c");
 * const ciphertext = Uint8Array.fromHex("3ad77bb40d7a3660a89ecaf32466ef97");
 * for await (const chunk of decrypt("ecb(aes)", { key, padding: "none" }, ciphertext)) {
 *   assertEquals(chunk.toHex(), "6bc1bee22e409f96e93d7e117393172a");
 * }
 * ```
 *
 * @example A part of a ciphertext, in a counter mode
 * ```ts
 * import { decrypt, encrypt } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: new Uint8Array(32).fill(1), iv: new Uint8Array(16).fill(2) };
 * const plaintext = new TextEncoder().encode("attack at dawn");
 * const ciphertext = new Blob(await Array.fromAsync(encrypt("ctr(aes)", options, plaintext)));
 *
 * const part = ciphertext.slice(10).stream();
 * for await (const chunk of decrypt("ctr(aes)", { ...options, position: 10 }, part)) {
 *   assertEquals(new TextDecoder().decode(chunk), "dawn");
 * }
 * ```
 */
export function decrypt(algorithm: string, options: CipherStreamOptions, source: ByteSource): CipherIterable {
  return crypt("decrypt", algorithm, options, source);
}

function crypt(
  direction: Direction,
  algorithm: string,
  options: CipherStreamOptions,
  source: ByteSource,
): CipherIterable {
  const open = openerOf(source);
  if (typeof algorithm !== "string") {
    throw new TypeError(`"algorithm" expected a string, got ${describe(algorithm)}`);
  }
  return new TransformIterator(prepare(direction, algorithm, options), open);
}
