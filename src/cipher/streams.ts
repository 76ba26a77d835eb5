/**
 * {@linkcode EncryptionStream} and {@linkcode DecryptionStream}.
 *
 * @module
 */

import { CipherStream } from "../streams/cipher_stream.ts";
import { type CipherParameters, type CipherStreamOptions, prepare } from "./prepare.ts";
import type { CipherHandle } from "./handle.ts";

/**
 * Encrypts what is written to it.
 *
 * A pair of web streams. It accepts ArrayBuffers and views of any kind, in chunks of any size. The output is plain
 * Uint8Arrays. Their boundaries differ from those of the input. A large chunk is processed in pieces when the reader
 * asks for them. Chunks of less than 16 KiB are gathered for at most one turn of the event loop. The stream releases
 * its cipher when it ends, fails, or is cancelled.
 *
 * Start to read before you await `writer.write()`. Without a reader, it resolves only for chunks of less than 16 KiB.
 *
 * @example Usage
 * ```ts
 * import { DecryptionStream, EncryptionStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = {
 *   key: crypto.getRandomValues(new Uint8Array(32)),
 *   iv: crypto.getRandomValues(new Uint8Array(16)),
 * };
 * const text = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new EncryptionStream("cbc(aes)", options))
 *   .pipeThrough(new DecryptionStream("cbc(aes)", options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 *
 * @example AES-GCM, as other programs write it: IV, ciphertext, tag
 * ```ts
 * import { DecryptionStream, EncryptionStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: crypto.getRandomValues(new Uint8Array(32)), ivPrefix: true };
 * const ciphertext = new Blob(["attack at dawn"]).stream().pipeThrough(new EncryptionStream("gcm(aes)", options));
 * const bytes = await new Response(ciphertext).blob();
 * assertEquals(bytes.size, 12 + 14 + 16);
 * const text = bytes.stream().pipeThrough(new DecryptionStream("gcm(aes)", options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 *
 * @example A random IV in front of the ciphertext
 * ```ts
 * import { DecryptionStream, EncryptionStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: crypto.getRandomValues(new Uint8Array(32)), ivPrefix: true };
 * const ciphertext = new Blob(["attack at dawn"]).stream().pipeThrough(new EncryptionStream("ctr(aes)", options));
 * const bytes = await new Response(ciphertext).blob();
 * assertEquals(bytes.size, 16 + 14);
 * const text = bytes.stream().pipeThrough(new DecryptionStream("ctr(aes)", options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 */
export class EncryptionStream extends CipherStream {
  /**
   * The tag, when all is encrypted with `gcm(aes)`: the same bytes as those in the output. Undefined for other ciphers.
   * Rejects with ECANCELED if the stream ends early.
   */
  declare readonly tag?: Promise<Uint8Array<ArrayBuffer>>;

  /**
   * Opens the cipher.
   *
   * @param algorithm The kernel's name of the algorithm, such as `"cbc(aes)"`, or the name of a driver.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher. `hint` says what to do.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle (`kcapi_handle_reinit`). The handle itself is unchanged.
   *
   * @param handle A handle. It can serve any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options: Partial<CipherStreamOptions> = {}) {
    const factory = prepare("encrypt", source, options);
    super(factory);
    if (factory.tag) this.tag = factory.tag;
  }
}

/**
 * Decrypts what is written to it.
 *
 * Bare ciphers do not authenticate: all output is unverified. With padding, the stream fails with EBADMSG if the end of
 * the ciphertext is missing or damaged. The error is the same for each cause.
 *
 * `gcm(aes)` authenticates. Nothing comes out before the whole message is verified: it is held in memory, up to
 * `maxSize`. For larger messages, use {@linkcode openGcm}, or `releaseUnverified: true` for bytes that may be forged.
 *
 * Start to read before you await `writer.write()`. Without a reader, it resolves only for chunks of less than 16 KiB.
 *
 * @example Usage
 * ```ts
 * import { DecryptionStream, KcapiError } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const truncated = new Blob([new Uint8Array(20)]).stream()
 *   .pipeThrough(new DecryptionStream("cbc(aes)", { key: new Uint8Array(16), iv: new Uint8Array(16) }));
 * const error = await new Response(truncated).arrayBuffer().catch((error) => error);
 * assertEquals((error as KcapiError).code, "EBADMSG");
 * ```
 */
export class DecryptionStream extends CipherStream {
  /**
   * Opens the cipher.
   *
   * @param algorithm The kernel's name of the algorithm, such as `"cbc(aes)"`, or the name of a driver.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher. `hint` says what to do.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle (`kcapi_handle_reinit`). The handle itself is unchanged.
   *
   * @param handle A handle. It can serve any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options: Partial<CipherStreamOptions> = {}) {
    super(prepare("decrypt", source, options));
  }
}
