/**
 * {@linkcode SealStream} and {@linkcode UnsealStream}.
 *
 * @module
 */

import { CipherStream } from "../streams/cipher_stream.ts";
import { sealFactory } from "./batches.ts";
import { checkSealOptions, checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { rotatingFactory } from "./rotation.ts";

/**
 * Seals what is written to it: encrypts and authenticates, in Tink's format of streaming AEAD.
 *
 * A TransformStream like the others. Output comes a segment at a time, 64 KiB by default, and a whole one is held until
 * it is known whether it is the last. The same key may seal any number of streams: each has a salt of its own.
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
   * @param options The key, and what to bind the data to.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} If the engine cannot open the cipher. In writing: EOVERFLOW after 2^32 - 1 segments.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(sealFactory(checkSealOptions(options)));
  }
}

/**
 * Unseals what is written to it: what comes out is verified, segment by segment, and in order.
 *
 * Anything wrong is a KcapiError EBADMSG, one for all causes: a wrong key, other associated data, a byte that is
 * changed, missing, added, repeated or out of its place. What came out before it is true all the same, but only the end
 * tells **that there is no more**: who must not act on the beginning of something that was cut, waits for the end
 * (writes to a temporary file, say), or opens it with `openSealed()`, which verifies the end first.
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
   * Finds out which engine runs. The keys are derived when the header has come.
   *
   * @param options The key, and what the data is bound to.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
   * @throws {KcapiError} If the engine cannot open the cipher. In reading: EBADMSG if anything is wrong with the data.
   */
  constructor(options: SealOptions | KeysetSealOptions) {
    super(rotatingFactory(checkUnsealOptions(options)));
  }
}
