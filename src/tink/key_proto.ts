/**
 * Tink's messages of a streaming AEAD key: parameters and key material.
 *
 *     AesCtrHmacStreamingKey  { version = 1, params = 2, key_value = 3 }
 *       params  { ciphertext_segment_size = 1, derived_key_size = 2, hkdf_hash_type = 3, hmac_params = 4 }
 *       hmac_params  { hash = 1, tag_size = 2 }
 *     AesGcmHkdfStreamingKey  { version = 1, params = 2, key_value = 3 }
 *       params  { ciphertext_segment_size = 1, derived_key_size = 2, hkdf_hash_type = 3 }
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { Secret } from "../secret.ts";
import { checkFormat, type Format, type SealedHash, type SealedParameters } from "../sealed/format.ts";
import { type FieldValue, readMessage, writeFields } from "./protobuf.ts";

const PREFIX = "type.googleapis.com/google.crypto.tink.";
const TYPES: Readonly<Record<SealedParameters["cipher"], string>> = {
  "AES-CTR-HMAC": `${PREFIX}AesCtrHmacStreamingKey`,
  "AES-GCM-HKDF": `${PREFIX}AesGcmHkdfStreamingKey`,
};

/** `HashType` of Tink. */
const HASHES: readonly (readonly [number, string])[] = [
  [1, "SHA-1"],
  [2, "SHA-384"],
  [3, "SHA-256"],
  [4, "SHA-512"],
  [5, "SHA-224"],
];

/** The least length of key material that Tink accepts. */
const LEAST_KEY = 16;

/** The type URL of a format's keys. */
export function typeUrlOf({ cipher }: Format): string {
  return TYPES[cipher];
}

/** A key as its message. */
export function encodeKey(format: Format, key: Bytes): Bytes {
  const { cipher, segmentSize, keySize, hkdfHash, macHash, tagSize } = format;
  const params: Record<number, FieldValue> = { 1: segmentSize, 2: keySize, 3: numberOf(hkdfHash) };
  if (cipher === "AES-CTR-HMAC") params[4] = writeFields({ 1: numberOf(macHash!), 2: tagSize });
  return writeFields({ 2: writeFields(params), 3: key });
}

/**
 * Reads a key's message.
 *
 * @param name What the key is called in errors.
 * @returns The key, in memory of its own, and its format.
 * @throws {TypeError} or {RangeError} if it is not a key that sealed streams can use.
 */
export function decodeKey(name: string, typeUrl: string, value: Bytes): { format: Format; key: Secret } {
  const cipher = (Object.keys(TYPES) as (keyof typeof TYPES)[]).find((each) => TYPES[each] === typeUrl);
  if (!cipher) {
    const type = JSON.stringify(typeUrl.slice(0, 80));
    throw new TypeError(`${name} expected a streaming AEAD key (${Object.values(TYPES).join(" or ")}), got ${type}`);
  }
  const message = readMessage(name, value, [1, 2, 3]);
  const version = message.number(1);
  if (version !== 0) throw new RangeError(`${name} expected version 0, got ${version}`);
  const params = readMessage(
    `the parameters of ${name}`,
    message.bytes(2),
    cipher === "AES-CTR-HMAC" ? [1, 2, 3, 4] : [1, 2, 3],
  );
  const mac = cipher === "AES-CTR-HMAC" && readMessage(`the HMAC parameters of ${name}`, params.bytes(4), [1, 2]);
  const parameters = {
    cipher,
    segmentSize: params.number(1),
    keySize: params.number(2),
    hkdfHash: hashOf(name, params.number(3)),
    ...(mac && { macHash: hashOf(name, mac.number(1)), tagSize: mac.number(2) }),
  };
  const format = checkFormat(parameters as SealedParameters);
  const key = message.bytes(3);
  const least = Math.max(LEAST_KEY, format.keySize);
  if (key.length < least) throw new RangeError(`${name} expected at least ${least} bytes of key, got ${key.length}`);
  if (key.every((byte) => byte === 0)) throw new RangeError(`${name} expected a random key, got zero bytes only`);
  return { format, key: Secret.from(key) };
}

function numberOf(hash: SealedHash): number {
  return HASHES.find(([, name]) => name === hash)![0];
}

function hashOf(name: string, number: number): SealedHash {
  const hash = HASHES.find(([each]) => each === number)?.[1];
  if (hash === "SHA-1" || hash === "SHA-256" || hash === "SHA-512") return hash;
  throw new RangeError(`${name} expected the hash SHA-1, SHA-256 or SHA-512, got ${hash ?? `number ${number}`}`);
}
