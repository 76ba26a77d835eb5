/**
 * Sealed streams for every JavaScript runtime: browsers, Deno, Bun, Node and Cloudflare Workers.
 *
 * This entry has the API of `@kcapi/streams` for sealed streams, with the same format. WebCrypto runs all ciphers, in
 * the threads of the browser or runtime. The entry does not depend on a runtime or a native library, and is small.
 *
 * Besides bytes, `key` may be a CryptoKey that no script can read. The option `engine` may be `"auto"` or
 * `"webcrypto"`, which is the same here. There is no `pool`.
 *
 * @example Usage
 * ```ts
 * import { SealStream, UnsealStream } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32)); // store it: it opens the data again
 * const sealed = new Blob(["attack at dawn"]).stream().pipeThrough(new SealStream({ key }));
 * const text = sealed.pipeThrough(new UnsealStream({ key }));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 *
 * @module
 */

import type { CipherIterable } from "../cipher/iterables.ts";
import { CipherStream } from "../streams/cipher_stream.ts";
import { TransformIterator } from "../streams/iterate.ts";
import { type ByteSource, openerOf } from "../streams/source.ts";
import { checkSealOptions, checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { checkReadOptions, READ_NAMES, type SealedReadOptions } from "./read_options.ts";
import type { SealedReader } from "./reader.ts";
import { rotatingFactory } from "./rotation.ts";
import { sealFactory } from "./rules.ts";
import type { SealedSource } from "./source.ts";
import { WEBCRYPTO } from "./webcrypto.ts";

export type { BytesLike } from "../bytes.ts";
export type { CipherIterable } from "../cipher/iterables.ts";
export { type ErrorCode, KcapiError, type KcapiErrorOptions } from "../errors.ts";
export { CipherStream } from "../streams/cipher_stream.ts";
export type { ByteSource } from "../streams/source.ts";
export {
  type ByteRange,
  type SealedFormat,
  type SealedFormatName,
  type SealedHash,
  type SealedParameters,
  sealedRange,
  sealedSize,
  unsealedSize,
} from "./format.ts";
export type { KeySource } from "./key_source.ts";
export type { KeysetSealOptions, SealOptions, SealStreamOptions } from "./options.ts";
export type { RangeReader, SealedStreamOptions } from "./range_reader.ts";
export type { SealedReadOptions } from "./read_options.ts";
export type { SealedReader } from "./reader.ts";
export {
  type HttpHeaders,
  type HttpReadOptions,
  type HttpRetry,
  type HttpSource,
  httpSource,
  type HttpSourceOptions,
} from "../sources/http.ts";
export type { RangeSource, SealedSource, SourceEnds, SourceReadOptions } from "./source.ts";
export type { SealedVerification, VerifyOptions } from "./verify.ts";

/**
 * A TransformStream that seals, as `SealStream` of `@kcapi/streams` does: it encrypts and authenticates.
 *
 * @example Seal a file and upload it in parts
 * ```ts
 * import { SealStream } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const reader = new Blob(["attack at dawn"]).stream().pipeThrough(new SealStream({ key })).getReader();
 * let size = 0;
 * for (let part; (part = await reader.read()).value;) size += part.value.length; // or upload it
 * assertEquals(size, 86);
 * ```
 */
export class SealStream extends CipherStream {
  /**
   * Derives the keys of this stream.
   *
   * @param options The key, the associated data and the format.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} ENOSYS if there is no WebCrypto, as in a page that was not served over HTTPS.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(sealFactory(checkSealOptions(options, WEBCRYPTO)));
  }
}

/**
 * A TransformStream that unseals, as `UnsealStream` of `@kcapi/streams` does: it decrypts and verifies. Every byte of
 * the output is authentic and in its place, but **truncation is only detected at the end**.
 *
 * @example Usage
 * ```ts
 * import { KcapiError, seal, UnsealStream } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = await new Blob(await Array.fromAsync(seal({ key }, new Uint8Array(1000)))).bytes();
 * sealed[500]! ^= 1;
 * const unsealed = new Blob([sealed]).stream().pipeThrough(new UnsealStream({ key }));
 * const error = await new Response(unsealed).arrayBuffer().catch((error) => error);
 * assertEquals((error as KcapiError).code, "EBADMSG");
 * ```
 */
export class UnsealStream extends CipherStream {
  /**
   * Checks the options. The keys are derived when the header arrives.
   *
   * @param options The key, the associated data and the format that the data was sealed with.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} ENOSYS if there is no WebCrypto. Reads fail with EBADMSG for bad data.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(rotatingFactory(checkUnsealOptions(options, WEBCRYPTO)));
  }
}

/**
 * Seals bytes, as `seal()` of `@kcapi/streams` does.
 *
 * @param options The key, the associated data and the format.
 * @param source Bytes, a Blob or File, or an iterable or stream of bytes.
 * @returns The sealed bytes, in segments.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 *
 * @example Seal a Blob
 * ```ts
 * import { seal, sealedSize } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = new Blob(await Array.fromAsync(seal({ key }, new Blob(["attack at dawn"]))));
 * assertEquals(sealed.size, sealedSize(14));
 * ```
 */
export function seal(options: SealOptions | KeysetSealOptions, source: ByteSource): CipherIterable {
  const open = openerOf(source);
  return new TransformIterator(sealFactory(checkSealOptions(options, WEBCRYPTO)), open);
}

/**
 * Unseals bytes, as `unseal()` of `@kcapi/streams` does: decrypts and verifies.
 *
 * @param options The key, the associated data and the format that the data was sealed with.
 * @param source Bytes, a Blob or File, or an iterable or stream of bytes.
 * @returns The plaintext, in segments.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 *
 * @example Usage
 * ```ts
 * import { seal, unseal } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const text = unseal({ key }, seal({ key }, new Blob(["attack at dawn"])));
 * assertEquals(await new Blob(await Array.fromAsync(text)).text(), "attack at dawn");
 * ```
 */
export function unseal(options: SealOptions | KeysetSealOptions, source: ByteSource): CipherIterable {
  const open = openerOf(source);
  return new TransformIterator(rotatingFactory(checkUnsealOptions(options, WEBCRYPTO)), open);
}

/**
 * Opens a sealed file for random access, as `openSealed()` of `@kcapi/streams` does.
 *
 * @param source A Blob or File, or an object with `size` and `read(start, end)`.
 * @param options The key, the associated data and the format that the file was sealed with. How to read
 * the source. The signal closes the file.
 * @returns The open file.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 * @throws {KcapiError} EBADMSG if the data cannot be verified. EIO if the source returns another number of bytes than
 * requested, or changes its size. ENOSYS if there is no WebCrypto.
 *
 * @example Usage
 * ```ts
 * import { openSealed, seal } from "@kcapi/streams/sealed";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = new Blob(await Array.fromAsync(seal({ key }, new Blob(["attack at dawn"]))));
 * const file = await openSealed(sealed, { key });
 * assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * file.close();
 * ```
 */
export async function openSealed(
  source: SealedSource,
  options: (SealOptions | KeysetSealOptions) & SealedReadOptions,
): Promise<SealedReader> {
  const readOptions = checkReadOptions(options);
  const plans = checkUnsealOptions(options, WEBCRYPTO, READ_NAMES);
  const { openReader } = await import("./reader.ts"); // which a bundler may load only where it is used
  return await openReader(source, plans, readOptions);
}
