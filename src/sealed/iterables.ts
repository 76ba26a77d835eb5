/**
 * {@linkcode seal} and {@linkcode unseal}: the functions for bytes, iterables and streams.
 *
 * @module
 */

import type { CipherIterable } from "../cipher/iterables.ts";
import { TransformIterator } from "../streams/iterate.ts";
import { type ByteSource, openerOf } from "../streams/source.ts";
import { ENGINES } from "./engines.ts";
import { checkSealOptions, checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { rotatingFactory } from "./rotation.ts";
import { sealFactory } from "./rules.ts";

/**
 * Seals bytes: encrypts and authenticates, in the format of Tink's streaming AEAD.
 *
 * The call checks and copies the options. The first `next()` opens the cipher. The end, `break`, and an error of the
 * source or the consumer release it.
 *
 * @param options The key, the associated data and the format.
 * @param source Bytes, or an iterable or stream of bytes.
 * @returns The sealed bytes, in segments.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 *
 * @example Usage
 * ```ts
 * import { seal, sealedSize, unseal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: crypto.getRandomValues(new Uint8Array(32)) };
 * const sealed = await new Blob(await Array.fromAsync(seal(options, new Uint8Array([1, 2, 3])))).bytes();
 * assertEquals(sealed.length, sealedSize(3));
 * assertEquals(await Array.fromAsync(unseal(options, sealed)), [new Uint8Array([1, 2, 3])]);
 * ```
 */
export function seal(options: SealOptions | KeysetSealOptions, source: ByteSource): CipherIterable {
  const open = openerOf(source);
  return new TransformIterator(sealFactory(checkSealOptions(options, ENGINES)), open);
}

/**
 * Unseals bytes: decrypts and verifies. Every byte of the output is authentic and in its place. If the data cannot be
 * verified, the iteration rejects with KcapiError EBADMSG. Truncation is only detected at the end of the iteration.
 *
 * @param options The key, the associated data and the format that the data was sealed with.
 * @param source Bytes, or an iterable or stream of bytes.
 * @returns The plaintext, in segments.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 *
 * @example Usage
 * ```ts
 * import { KcapiError, seal, unseal } from "@kcapi/streams";
 * import { assertEquals, assertRejects } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = await new Blob(await Array.fromAsync(seal({ key }, new Uint8Array(1000)))).bytes();
 * await assertRejects(() => Array.fromAsync(unseal({ key }, sealed.subarray(0, -1))), KcapiError, "EBADMSG");
 * ```
 */
export function unseal(options: SealOptions | KeysetSealOptions, source: ByteSource): CipherIterable {
  const open = openerOf(source);
  return new TransformIterator(rotatingFactory(checkUnsealOptions(options, ENGINES)), open);
}
