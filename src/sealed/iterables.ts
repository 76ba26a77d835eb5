/**
 * {@linkcode seal} and {@linkcode unseal}: one call for bytes in hand, and for anything iterable.
 *
 * @module
 */

import type { CipherIterable } from "../cipher/iterables.ts";
import { TransformIterator } from "../streams/iterate.ts";
import { type ByteSource, openerOf } from "../streams/source.ts";
import { sealFactory } from "./batches.ts";
import { checkSealOptions, checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { rotatingFactory } from "./rotation.ts";

/**
 * Seals bytes: encrypts and authenticates, in Tink's format of streaming AEAD.
 *
 * The options are checked and copied at once; the cipher is opened by the first `next()` and released at the end, by
 * `break`, and by an error on either side.
 *
 * @param options The key, and what to bind the data to.
 * @param source Bytes, or something that yields them.
 * @returns What is sealed, a segment at a time.
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
  return new TransformIterator(sealFactory(checkSealOptions(options)), open);
}

/**
 * Unseals bytes: what comes out is verified, segment by segment, and in order. That there is no more is known only at
 * the end of the iteration: one that was cut rejects there, with KcapiError EBADMSG, as anything else that is wrong
 * does.
 *
 * @param options The key, and what the data is bound to.
 * @param source Bytes, or something that yields them.
 * @returns The plaintext, a segment at a time.
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
  return new TransformIterator(rotatingFactory(checkUnsealOptions(options)), open);
}
