/**
 * The files of `openssl enc`.
 *
 * @module
 */

export { type OpenSSLDerivation, type OpenSSLDigest, opensslKey, type OpenSSLKeyOptions } from "./key.ts";
export { OpenSSLDecryptionStream, OpenSSLEncryptionStream, type OpenSSLOptions } from "./streams.ts";
