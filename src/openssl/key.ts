/**
 * {@linkcode opensslKey}: key and IV from a passphrase, as `openssl enc` derives them.
 *
 * @module
 */

import { type Bytes, type BytesLike, describe, toUint8Array } from "../bytes.ts";
import { SALT_SIZE } from "./header.ts";
import { nodeCrypto, requireServer } from "../runtime/mod.ts";
import { checkOptions, oneOf, type OptionNames } from "../options.ts";
import { Secret } from "../secret.ts";

/** A hash by OpenSSL's name. */
export type OpenSSLDigest =
  | "md5"
  | "sha1"
  | "sha224"
  | "sha256"
  | "sha384"
  | "sha512"
  | "sha512-224"
  | "sha512-256"
  | "sha3-224"
  | "sha3-256"
  | "sha3-384"
  | "sha3-512"
  | "ripemd160";

/** How a passphrase becomes a key. */
export interface OpenSSLDerivation {
  /**
   * `"pbkdf2"`, the default, is `openssl enc -pbkdf2`. `"evp"` is EVP_BytesToKey with one iteration, which OpenSSL uses
   * without `-pbkdf2`, and CryptoJS and gibberish-aes always use: **one hash per guess**, for old files only.
   */
  kdf?: "pbkdf2" | "evp" | undefined;
  /** The hash: `"sha256"` by default, as since OpenSSL 1.1.0. Before, and in CryptoJS, it is `"md5"`. */
  digest?: OpenSSLDigest | undefined;
  /** Iterations of PBKDF2: 10,000 by default, as OpenSSL's. Files do not record the number. */
  iterations?: number | undefined;
}

/** Options of {@linkcode opensslKey}. */
export interface OpenSSLKeyOptions extends OpenSSLDerivation {
  /** The salt: 8 bytes from the file's header, or none for files made with `-nosalt`. */
  salt?: BytesLike | undefined;
  /** Bytes of the key to derive. */
  keySize: number;
  /** Bytes of the IV to derive, 0 by default. */
  ivSize?: number | undefined;
}

const DERIVATION_NAMES: OptionNames<OpenSSLDerivation> = { kdf: true, digest: true, iterations: true };
const KEY_NAMES: OptionNames<OpenSSLKeyOptions> = { ...DERIVATION_NAMES, salt: true, keySize: true, ivSize: true };

/** The hashes that every runtime has. */
export const DIGESTS: readonly OpenSSLDigest[] = [
  ...["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha512-224", "sha512-256"] as const,
  ...["sha3-224", "sha3-256", "sha3-384", "sha3-512", "ripemd160"] as const,
];
const DEFAULT_ITERATIONS = 10_000;
const MOST_ITERATIONS = 2 ** 31 - 1;
const MOST_BYTES = 512;

/** The usual derivations: what a file was probably made with, if the passphrase does not fit. */
const USUAL: readonly (Derivation & { readonly by: string })[] = [
  { kdf: "pbkdf2", digest: "sha256", iterations: DEFAULT_ITERATIONS, by: "openssl enc -pbkdf2" },
  { kdf: "evp", digest: "sha256", iterations: 1, by: "openssl enc without -pbkdf2" },
  { kdf: "evp", digest: "md5", iterations: 1, by: "OpenSSL before 1.1.0, CryptoJS and gibberish-aes" },
];

/** Checked options of a derivation. */
export interface Derivation {
  readonly kdf: "pbkdf2" | "evp";
  readonly digest: OpenSSLDigest;
  readonly iterations: number;
}

/**
 * Derives key and IV from a passphrase, as `openssl enc` does.
 *
 * @param passphrase The text, or its bytes. OpenSSL takes the bytes of the terminal's encoding; text is UTF-8 here.
 * @param options Salt, derivation and sizes.
 * @returns The key and the IV, in memory of their own.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If a size or the number of iterations is out of range.
 *
 * @example Usage
 * ```ts
 * import { opensslKey } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const salt = new Uint8Array(8);
 * const { key, iv } = await opensslKey("hunter2", { salt, keySize: 32, ivSize: 16 });
 * assertEquals([key.length, iv.length], [32, 16]);
 * ```
 */
export async function opensslKey(
  passphrase: string | BytesLike,
  options: OpenSSLKeyOptions,
): Promise<{ key: Uint8Array<ArrayBuffer>; iv: Uint8Array<ArrayBuffer> }> {
  checkOptions("options", options, KEY_NAMES);
  const { salt = new Uint8Array(0), keySize, ivSize = 0 } = options;
  const derivation = checkDerivation(options);
  const saltBytes = checkSalt(salt);
  for (const [name, size, least] of [["keySize", keySize, 1], ["ivSize", ivSize, 0]] as const) {
    if (typeof size !== "number") throw new TypeError(`"${name}" expected a number, got ${describe(size)}`);
    if (!Number.isInteger(size) || size < least || size > MOST_BYTES) {
      throw new RangeError(`"${name}" expected an integer from ${least} to ${MOST_BYTES}, got ${size}`);
    }
  }
  requireServer("opensslKey");
  using secret = passphraseSecret(passphrase);
  using derived = await derive(secret, saltBytes, derivation, keySize + ivSize);
  return { key: copyOf(derived.bytes.subarray(0, keySize)), iv: copyOf(derived.bytes.subarray(keySize)) };
}

/** Checks the options of a derivation. */
export function checkDerivation(options: OpenSSLDerivation): Derivation {
  const { iterations } = options;
  const kdf = oneOf("kdf", options.kdf ?? "pbkdf2", ["pbkdf2", "evp"]);
  const digest = oneOf("digest", options.digest ?? "sha256", DIGESTS);
  if (kdf === "evp") {
    if (iterations !== undefined) throw new TypeError('"iterations" is for "pbkdf2": "evp" always has one');
    return { kdf, digest, iterations: 1 };
  }
  const checked = iterations ?? DEFAULT_ITERATIONS;
  if (typeof checked !== "number") throw new TypeError(`"iterations" expected a number, got ${describe(checked)}`);
  if (!Number.isInteger(checked) || checked < 1 || checked > MOST_ITERATIONS) {
    throw new RangeError(`"iterations" expected an integer from 1 to ${MOST_ITERATIONS}, got ${checked}`);
  }
  return { kdf, digest, iterations: checked };
}

/** The usual derivations, without the one that was used. */
export function otherDerivations(used: Derivation): typeof USUAL {
  return USUAL.filter(({ kdf, digest, iterations }) =>
    kdf !== used.kdf || digest !== used.digest || iterations !== used.iterations
  );
}

/** The salt, of 8 bytes or none. */
export function checkSalt(value: unknown): Bytes {
  const salt = toUint8Array("salt", value);
  if (salt.length === 0 || salt.length === SALT_SIZE) return salt.slice();
  throw new RangeError(`"salt" expected ${SALT_SIZE} bytes or none, got ${salt.length}`);
}

/** A copy of the passphrase. OpenSSL ends it at a zero byte, so that one cannot be meant. */
export function passphraseSecret(value: unknown): Secret {
  const bytes = typeof value === "string" ? encode(value) : toUint8Array("passphrase", value);
  if (bytes.length === 0) throw new RangeError('"passphrase" expected at least one byte, got none');
  if (bytes.includes(0)) throw new RangeError('"passphrase" expected no zero byte: OpenSSL would end it there');
  const secret = Secret.from(bytes);
  if (typeof value === "string") bytes.fill(0);
  return secret;
}

function encode(text: string): Bytes {
  if (!text.isWellFormed()) throw new TypeError('"passphrase" expected text without lone surrogates');
  return new TextEncoder().encode(text);
}

/** The derived bytes: the key, and behind it the IV. */
export async function derive(passphrase: Secret, salt: Bytes, derivation: Derivation, length: number): Promise<Secret> {
  const { kdf, digest, iterations } = derivation;
  const { createHash, pbkdf2 } = nodeCrypto();
  const derived = Secret.alloc(length);
  if (kdf === "pbkdf2") {
    const bytes = await new Promise<Uint8Array>((resolve, reject) => {
      pbkdf2(passphrase.bytes, salt, iterations, length, digest, (error, key) => error ? reject(error) : resolve(key));
    });
    derived.bytes.set(bytes);
    bytes.fill(0);
    return derived;
  }
  // EVP_BytesToKey(3): each hash is over the one before, the passphrase and the salt.
  let previous: Uint8Array = new Uint8Array(0);
  for (let at = 0; at < length; at += previous.length) {
    const next = createHash(digest).update(previous).update(passphrase.bytes).update(salt).digest();
    previous.fill(0);
    previous = next;
    derived.bytes.set(previous.subarray(0, length - at), at);
  }
  previous.fill(0);
  return derived;
}

function copyOf(bytes: Uint8Array): Bytes {
  const copy = new Uint8Array(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}
