/**
 * Encryption of streams, for Deno, Bun and Node, and for browsers as far as sealed streams go.
 *
 * For new data, use sealed streams: {@linkcode SealStream} and {@linkcode UnsealStream}, {@linkcode seal} and
 * {@linkcode unseal}, and {@linkcode openSealed} for random access. They encrypt and authenticate, in the format of
 * Tink's streaming AEAD.
 *
 * For existing formats, use bare ciphers, such as `"cbc(aes)"` and `"xts(aes)"`: {@linkcode EncryptionStream},
 * {@linkcode encrypt} and {@linkcode CipherHandle}. They do not authenticate. {@linkcode OpenSSLDecryptionStream} reads
 * the files of `openssl enc`.
 *
 * The ciphers run in the Linux kernel (AF_ALG, through libkcapi), in `node:crypto` of the runtime, or in WebCrypto.
 *
 * @example Seal a stream and unseal it
 * ```ts
 * import { SealStream, UnsealStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32)); // store it: it opens the data again
 * const sealed = new Blob(["attack at dawn"]).stream().pipeThrough(new SealStream({ key }));
 * const text = sealed.pipeThrough(new UnsealStream({ key }));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 *
 * @example Encrypt a stream with a bare cipher
 * ```ts
 * import { EncryptionStream } from "@kcapi/streams";
 *
 * const encryption = new EncryptionStream("ctr(aes)", {
 *   key: crypto.getRandomValues(new Uint8Array(32)),
 *   iv: crypto.getRandomValues(new Uint8Array(16)),
 * });
 * const ciphertext = new Blob(["attack at dawn"]).stream().pipeThrough(encryption);
 * console.log((await new Response(ciphertext).bytes()).length, "bytes by the engine", encryption.engine);
 * ```
 *
 * @module
 */

import "./src/runtime/oldest.ts"; // first: it refuses runtimes that are too old

export { CipherHandle, type CipherHandleOptions, type StreamOpOptions } from "./src/cipher/handle.ts";
export { DecryptionStream, EncryptionStream } from "./src/cipher/streams.ts";
export { CipherStream } from "./src/streams/cipher_stream.ts";
export { type CipherIterable, decrypt, encrypt } from "./src/cipher/iterables.ts";
export type { ByteSource } from "./src/streams/source.ts";
export { type CipherInfo, listCiphers, probe, type ProbeReport, type Problem } from "./src/probe/probe.ts";
export type { CipherParameters, CipherStreamOptions } from "./src/cipher/prepare.ts";
export type { BytesLike } from "./src/bytes.ts";
export type { KernelKey } from "./src/keyring/kernel_key.ts";
export type { IVMode } from "./src/position.ts";
export type { Padding, StreamPosition } from "./src/cipher/options.ts";
export type { EngineChoice } from "./src/engines/mod.ts";
export type { CipherEngineName, EngineName } from "./src/engines/engine.ts";
export { type ErrorCode, KcapiError, type KcapiErrorOptions } from "./src/errors.ts";
export { SealStream, UnsealStream } from "./src/sealed/streams.ts";
export { seal, unseal } from "./src/sealed/iterables.ts";
export { openGcm, type OpenGcmOptions } from "./src/gcm/reader.ts";
export type { GcmOptions } from "./src/cipher/gcm_options.ts";
export { openSealed } from "./src/sealed/open.ts";
export { SealedReader } from "./src/sealed/reader.ts";
export { RangeReader, type SealedStreamOptions } from "./src/sealed/range_reader.ts";
export type { SealedReadOptions } from "./src/sealed/read_options.ts";
export type { SealedVerification, VerifyOptions } from "./src/sealed/verify.ts";
export type { RangeSource, SealedSource, SourceEnds, SourceReadOptions } from "./src/sealed/source.ts";
export {
  type HttpHeaders,
  type HttpReadOptions,
  type HttpRetry,
  type HttpSource,
  httpSource,
  type HttpSourceOptions,
} from "./src/sources/http.ts";
export {
  type ByteRange,
  type SealedFormat,
  type SealedFormatName,
  type SealedHash,
  type SealedParameters,
  sealedRange,
  sealedSize,
  unsealedSize,
} from "./src/sealed/format.ts";
export type { KeysetSealOptions, SealOptions, SealStreamOptions } from "./src/sealed/options.ts";
export type { KeySource } from "./src/sealed/key_source.ts";
export { WorkerPool } from "./src/executors/worker_pool.ts";
export {
  OpenSSLDecryptionStream,
  type OpenSSLDerivation,
  type OpenSSLDigest,
  OpenSSLEncryptionStream,
  opensslKey,
  type OpenSSLKeyOptions,
  type OpenSSLOptions,
} from "./src/openssl/mod.ts";
