/**
 * Recipients and identities: the keys that wrap a file's key, and the keys that unwrap it.
 *
 * @module
 */

import { importJWK, type JWK as JoseJWK } from "jose";
import { fromBase64Url } from "../base64url.ts";
import { type Bytes, type BytesLike, describe } from "../bytes.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { Secret } from "../secret.ts";
import { MOST_ITERATIONS } from "./header.ts";

/** A JSON Web Key (RFC 7517): of the kind OKP (X25519), EC (P-256, P-384, P-521), RSA, or oct (32 bytes, for AES). */
export interface JWK {
  /** The kind of key. */
  readonly kty?: string | undefined;
  /** A public name for the key. It is stored in the file and tells which recipient is which. */
  readonly kid?: string | undefined;
  /** The members of its kind. */
  readonly [member: string]: unknown;
}

/** A passphrase. */
export interface Passphrase {
  /** The text. Anyone who gets the file can try to guess it, without limit. */
  readonly passphrase: string;
  /** PBKDF2 iterations for sealing, 600,000 by default and at least. To open, the file tells the number. */
  readonly iterations?: number | undefined;
}

/**
 * Who can open a file: a passphrase, a public key as a JWK or a CryptoKey, or a symmetric key (a JWK of the kind
 * `oct`). Of a JWK with a private part, only the public part is used.
 */
export type Recipient = Passphrase | JWK | CryptoKey;

/** A private RSA key that a service keeps to itself, such as a KMS. It opens files for its public key. */
export interface RemoteKey {
  /**
   * Asks the service to decrypt with RSA-OAEP and SHA-256.
   *
   * @param encryptedKey What the service decrypts.
   * @returns What it decrypted. The bytes are zeroed. If it rejects, the next identity is tried, and the error is the
   * `cause` if none fits.
   */
  readonly unwrap: (encryptedKey: Uint8Array<ArrayBuffer>) => BytesLike | Promise<BytesLike>;
  /** The name of the key. Recipients with another name are passed over. */
  readonly kid?: string | undefined;
}

/**
 * Who opens a file: a passphrase, a private key as a JWK, a CryptoKey or a RemoteKey, or a symmetric key (a JWK of the
 * kind `oct`).
 */
export type Identity = Passphrase | JWK | CryptoKey | RemoteKey;

/** A JWE algorithm that wraps the key of a file (RFC 7518, RFC 8037). */
type KeyAlgorithm = "PBES2-HS512+A256KW" | "ECDH-ES+A256KW" | "RSA-OAEP-256" | "A256KW";

/** A key that JOSE can use, and its algorithm. */
export interface JoseKey {
  readonly algorithm: KeyAlgorithm;
  readonly kid: string | undefined;
  /** Bytes for a passphrase and a symmetric key. Empty if there is `unwrap`. */
  readonly key: CryptoKey | Secret;
  /** Takes the place of `key`. */
  readonly unwrap?: RemoteKey["unwrap"] | undefined;
  /** PBKDF2 iterations, for a passphrase. */
  readonly iterations: number | undefined;
}

/** OWASP's figure for PBKDF2-HMAC-SHA-256; it asks for 210,000 with SHA-512. */
const LEAST_ITERATIONS = 600_000;

const PUBLIC_MEMBERS: Readonly<Record<string, readonly string[]>> = {
  OKP: ["kty", "crv", "x"],
  EC: ["kty", "crv", "x", "y"],
  RSA: ["kty", "n", "e"],
};
const PRIVATE_MEMBERS: Readonly<Record<string, readonly string[]>> = {
  OKP: ["d"],
  EC: ["d"],
  RSA: ["d", "p", "q", "dp", "dq", "qi"],
};
/** Bytes of a coordinate, by curve. */
const COORDINATES: Readonly<Record<string, number>> = { "X25519": 32, "P-256": 32, "P-384": 48, "P-521": 66 };
const EC_CURVES = ["P-256", "P-384", "P-521"];
const LEAST_RSA = 2048;
/** Bytes of a symmetric key. */
const AES_KEY = 32;

/**
 * Checks a list of recipients or identities, and copies it.
 *
 * @throws {TypeError} or {RangeError} for mistakes that show before keys are imported.
 */
export function checkList<T extends Recipient | Identity>(name: string, list: readonly T[]): readonly T[] {
  if (!Array.isArray(list)) throw new TypeError(`"${name}" expected an array, got ${describe(list)}`);
  if (list.length === 0) throw new TypeError(`"${name}" expected at least one entry, got an empty array`);
  return list.map((each: T, i) => {
    if (typeof each !== "object" || each === null) {
      throw new TypeError(`"${name}[${i}]" expected a passphrase, a JWK or a CryptoKey, got ${describe(each)}`);
    }
    if (each instanceof CryptoKey) return each;
    if ("passphrase" in each) checkPassphrase(`${name}[${i}]`, each as Passphrase);
    if (name === "identities" && "unwrap" in each) checkRemoteKey(`${name}[${i}]`, each as RemoteKey);
    return { ...each };
  });
}

const REMOTE_NAMES: OptionNames<RemoteKey> = { unwrap: true, kid: true };

function checkRemoteKey(name: string, value: RemoteKey): void {
  checkOptions(name, value, REMOTE_NAMES);
  if (typeof value.unwrap !== "function") {
    throw new TypeError(`"${name}.unwrap" expected a function, got ${describe(value.unwrap)}`);
  }
}

const PASSPHRASE_NAMES: OptionNames<Passphrase> = { passphrase: true, iterations: true };

function checkPassphrase(name: string, value: Passphrase): void {
  checkOptions(name, value, PASSPHRASE_NAMES);
  const { passphrase, iterations = LEAST_ITERATIONS } = value;
  if (typeof passphrase !== "string") {
    throw new TypeError(`"${name}.passphrase" expected a string, got ${describe(passphrase)}`);
  }
  if (passphrase === "" || !passphrase.isWellFormed()) {
    throw new RangeError(`"${name}.passphrase" expected text that is not empty and has no lone surrogates`);
  }
  if (!Number.isInteger(iterations) || iterations < LEAST_ITERATIONS || iterations > MOST_ITERATIONS) {
    throw new RangeError(
      `"${name}.iterations" expected an integer from ${LEAST_ITERATIONS} to ${MOST_ITERATIONS}, got ${
        typeof iterations === "number" ? iterations : describe(iterations)
      }`,
    );
  }
}

/** Imports the keys of a checked list. The caller disposes of them. */
export async function importKeys(
  name: "recipients" | "identities",
  list: readonly (Recipient | Identity)[],
): Promise<readonly JoseKey[]> {
  const keys: JoseKey[] = [];
  try {
    for (const [i, each] of list.entries()) {
      keys.push(await importKey(`${name}[${i}]`, each, name === "recipients"));
    }
    return keys;
  } catch (error) {
    disposeKeys(keys);
    throw error;
  }
}

export function disposeKeys(keys: readonly JoseKey[]): void {
  for (const { key } of keys) if (key instanceof Secret) key.dispose();
}

function importKey(name: string, value: Recipient | Identity, isRecipient: boolean): Promise<JoseKey> | JoseKey {
  if (value instanceof CryptoKey) return fromCryptoKey(name, value, isRecipient);
  if ("passphrase" in value) return fromPassphrase(value as Passphrase);
  if (!isRecipient && "unwrap" in value) {
    const { unwrap, kid } = value as RemoteKey;
    return { algorithm: "RSA-OAEP-256", kid, key: Secret.alloc(0), unwrap, iterations: undefined };
  }
  return fromJWK(name, value as JWK, isRecipient);
}

function fromPassphrase({ passphrase, iterations = LEAST_ITERATIONS }: Passphrase): JoseKey {
  const key = secretOf(new TextEncoder().encode(passphrase));
  return { algorithm: "PBES2-HS512+A256KW", kid: undefined, key, iterations };
}

async function fromJWK(name: string, jwk: JWK, isRecipient: boolean): Promise<JoseKey> {
  const { kty, crv, kid, d } = jwk;
  const algorithm = algorithmOf(name, jwk);
  if (kid !== undefined && typeof kid !== "string") {
    throw new TypeError(`"${name}.kid" expected a string, got ${describe(kid)}`);
  }
  if (!isRecipient && kty !== "oct" && d === undefined) {
    throw new TypeError(`"${name}" expected a private key, got a public one`);
  }
  if (kty === "oct") return { algorithm, kid, key: symmetricKey(name, jwk), iterations: undefined };
  checkCoordinates(name, jwk);
  // WebCrypto would refuse others: the key_ops of a JWK are those of JOSE, and not what ECDH or RSA does.
  const members = [...PUBLIC_MEMBERS[kty!]!, ...isRecipient ? [] : PRIVATE_MEMBERS[kty!]!];
  const used = Object.fromEntries(members.map((member) => [member, jwk[member]]));
  let key: CryptoKey | Uint8Array;
  try {
    key = await importJWK({ ...used, ext: false } as JoseJWK, algorithm) as CryptoKey | Uint8Array;
  } catch (cause) {
    const kind = crv === undefined ? kty : `${kty} ${crv}`;
    throw new TypeError(`"${name}" expected a JWK that can be imported as ${kind}`, { cause });
  }
  if (kty === "RSA") checkModulus(name, key as CryptoKey);
  return { algorithm, kid, key: key as CryptoKey, iterations: undefined };
}

/** The key of a JWK of the kind oct. */
function symmetricKey(name: string, { k }: JWK): Secret {
  const bytes = typeof k === "string" ? fromBase64Url(k) : undefined;
  if (!bytes) {
    throw new TypeError(`"${name}.k" expected base64url, got ${typeof k === "string" ? "other text" : describe(k)}`);
  }
  const key = secretOf(bytes);
  if (key.length === AES_KEY && key.bytes.some((byte) => byte !== 0)) return key;
  const got = key.length === AES_KEY ? "nothing but zero bytes" : `${key.length} bytes`;
  key.dispose();
  throw new RangeError(`"${name}.k" expected ${AES_KEY} random bytes, got ${got}`);
}

/** A copy of `bytes`, which are zeroed. */
function secretOf(bytes: Bytes): Secret {
  const secret = Secret.from(bytes);
  bytes.fill(0);
  return secret;
}

/** Deno 2.9 imports coordinates of a wrong length, and fails when they are used. */
function checkCoordinates(name: string, jwk: JWK): void {
  const size = COORDINATES[jwk.crv as string];
  if (size === undefined) return;
  for (const member of jwk.kty === "EC" ? ["x", "y"] : ["x"]) {
    const value = jwk[member];
    if (typeof value === "string" && value.length === Math.ceil(size * 4 / 3)) continue;
    throw new TypeError(`"${name}.${member}" expected ${size} bytes in base64url`);
  }
}

function algorithmOf(name: string, { kty, crv, alg, use }: JWK): KeyAlgorithm {
  const algorithm = kty === "OKP" && crv === "X25519" || kty === "EC" && EC_CURVES.includes(crv as string)
    ? "ECDH-ES+A256KW"
    : kty === "RSA"
    ? "RSA-OAEP-256"
    : kty === "oct"
    ? "A256KW"
    : undefined;
  if (!algorithm) {
    throw new TypeError(`"${name}" expected a JWK of X25519, P-256, P-384, P-521, RSA or oct`);
  }
  if (use !== undefined && use !== "enc") throw new TypeError(`"${name}.use" expected "enc" or none, got another use`);
  if (alg !== undefined && alg !== algorithm) {
    throw new TypeError(`"${name}.alg" expected ${algorithm} or none, got another algorithm`);
  }
  return algorithm;
}

const CRYPTO_KEY_ALGORITHMS: Readonly<Record<string, KeyAlgorithm>> = {
  "X25519": "ECDH-ES+A256KW",
  "ECDH": "ECDH-ES+A256KW",
  "RSA-OAEP": "RSA-OAEP-256",
  "AES-KW": "A256KW",
};

function fromCryptoKey(name: string, key: CryptoKey, isRecipient: boolean): JoseKey {
  const { algorithm: { name: algorithm }, type } = key;
  const found = CRYPTO_KEY_ALGORITHMS[algorithm];
  if (!found) {
    throw new TypeError(`"${name}" expected a CryptoKey of X25519, ECDH, RSA-OAEP or AES-KW, got one of ${algorithm}`);
  }
  const expected = found === "A256KW" ? "secret" : isRecipient ? "public" : "private";
  if (type !== expected) throw new TypeError(`"${name}" expected a ${expected} CryptoKey, got a ${type} one`);
  checkUsage(name, key, USAGES[found]![isRecipient ? 0 : 1]);
  if (found === "RSA-OAEP-256") checkHash(name, key);
  if (found === "A256KW") checkLength(name, key);
  return { algorithm: found, kid: undefined, key, iterations: undefined };
}

/** What jose does with a CryptoKey to wrap, and to unwrap. */
const USAGES: Readonly<Record<string, readonly [KeyUsage | undefined, KeyUsage]>> = {
  "ECDH-ES+A256KW": [undefined, "deriveBits"],
  "RSA-OAEP-256": ["encrypt", "decrypt"],
  "A256KW": ["wrapKey", "unwrapKey"],
};

function checkUsage(name: string, { usages }: CryptoKey, usage: KeyUsage | undefined): void {
  if (usage === undefined || usages.includes(usage)) return;
  throw new TypeError(`"${name}" expected a CryptoKey with the usage ${usage}, got ${usages.join(", ") || "none"}`);
}

function checkHash(name: string, key: CryptoKey): void {
  const { hash } = key.algorithm as RsaHashedKeyAlgorithm;
  if (hash.name !== "SHA-256") throw new TypeError(`"${name}" expected RSA-OAEP with SHA-256, got ${hash.name}`);
  checkModulus(name, key);
}

function checkLength(name: string, { algorithm }: CryptoKey): void {
  const { length } = algorithm as AesKeyAlgorithm;
  if (length !== 8 * AES_KEY) throw new RangeError(`"${name}" expected an AES key of 256 bits, got ${length}`);
}

function checkModulus(name: string, { algorithm }: CryptoKey): void {
  const { modulusLength } = algorithm as RsaHashedKeyAlgorithm;
  if (modulusLength >= LEAST_RSA) return;
  throw new RangeError(`"${name}" expected an RSA key of at least ${LEAST_RSA} bits, got ${modulusLength}`);
}
