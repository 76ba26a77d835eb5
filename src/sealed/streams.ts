/**
 * {@linkcode SealStream} and {@linkcode UnsealStream}.
 *
 * @module
 */

import { CipherStream } from "../streams/cipher_stream.ts";
import { ENGINES } from "./engines.ts";
import { checkSealOptions, checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { rotatingFactory } from "./rotation.ts";
import { sealFactory } from "./rules.ts";

/**
 * A TransformStream that seals: it encrypts and authenticates, in the format of Tink's streaming AEAD.
 *
 * The output comes in segments, of 64 KiB by default. The last segment is marked, so the stream keeps a full segment
 * until more input or the end comes. One key may seal any number of streams: each stream has its own random salt.
 *
 * Start to read before you await `writer.write()`: without a reader it resolves only for chunks of less than 16 KiB.
 *
 * @example Usage
 * ```ts
 * import { SealStream, UnsealStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = {
 *   key: crypto.getRandomValues(new Uint8Array(32)),
 *   associatedData: new TextEncoder().encode("plans.txt"),
 * };
 * const text = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new SealStream(options))
 *   .pipeThrough(new UnsealStream(options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 */
export class SealStream extends CipherStream {
  /**
   * Derives the keys of this stream, and opens the cipher.
   *
   * @param options The key, the associated data and the format.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} If the engine cannot open the cipher. Writes fail with EOVERFLOW after 2^32 - 1 segments.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(sealFactory(checkSealOptions(options, ENGINES)));
  }
}

/**
 * A TransformStream that unseals: it decrypts and verifies. Every byte of the output is authentic and in its place.
 *
 * Both sides fail with KcapiError EBADMSG if the key or the associated data is wrong, or if a byte was changed,
 * removed, added, repeated or moved. The error does not tell which. Output from before the error is authentic, but
 * **truncation is only detected at the end** of the stream. A program that must not use the beginning of truncated data
 * waits for the end, for example by writing to a temporary file, or calls `openSealed()`, which verifies the end first.
 *
 * Start to read before you await `writer.write()`: without a reader it resolves only for chunks of less than 16 KiB.
 *
 * @example Usage
 * ```ts
 * import { KcapiError, seal, UnsealStream } from "@kcapi/streams";
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
   * Chooses the engine. The keys are derived when the header arrives.
   *
   * @param options The key, the associated data and the format that the data was sealed with.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} If the engine cannot open the cipher. Reads fail with EBADMSG for bad data.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(rotatingFactory(checkUnsealOptions(options, ENGINES)));
  }
}
