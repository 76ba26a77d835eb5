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
 * A TransformStream: ArrayBuffers and views of any kind go in, plain Uint8Arrays come out, as whole blocks and not in the boundaries of
 * the input; a chunk of any size is worked on in pieces, as the reader asks for them. Chunks of less than 16 KiB are
 * gathered for at most a turn of the event loop. The stream releases its cipher when it ends, in whatever way.
 *
 * Start to read before you await `writer.write()`: without a reader it resolves only for chunks of less than 16 KiB.
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
   * Opens the cipher.
   *
   * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher; `hint` tells what would change that.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle, which is left as it is: `kcapi_handle_reinit`.
   *
   * @param handle A handle with its key, for any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options: Partial<CipherStreamOptions> = {}) {
    super(prepare("encrypt", source, options));
  }
}

/**
 * Decrypts what is written to it.
 *
 * Nothing is authenticated: output is unverified, that of before an error too. With padding, a ciphertext whose end is
 * missing or damaged is an error (EBADMSG) at the end, the same one for every cause.
 *
 * Start to read before you await `writer.write()`: without a reader it resolves only for chunks of less than 16 KiB.
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
   * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher; `hint` tells what would change that.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle, which is left as it is: `kcapi_handle_reinit`.
   *
   * @param handle A handle with its key, for any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options: Partial<CipherStreamOptions> = {}) {
    super(prepare("decrypt", source, options));
  }
}
