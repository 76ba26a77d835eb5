/**
 * The ciphers of one segment, under keys derived for one stream.
 *
 * @module
 */

import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, IovCursor, subarray, totalLength } from "../bytes.ts";
import { EngineStream } from "../cipher/engine_stream.ts";
import type { EngineName } from "../engines/engine.ts";
import { type EngineChoice, openEngine } from "../engines/mod.ts";
import { discard, toOwned } from "../engines/scratch.ts";
import { nodeCrypto } from "../runtime/mod.ts";
import { Secret } from "../secret.ts";
import { derivedSize, type Format, type Header, PREFIX_SIZE } from "./format.ts";

/** The position of a segment in its stream. It is part of the nonce. The segment does not contain it. */
interface SegmentPosition {
  readonly index: number;
  readonly isLast: boolean;
}

/**
 * Seals and opens the segments of one stream. All calls are synchronous, so any number of readers may share one.
 */
export interface SegmentCipher {
  readonly engine: EngineName;
  /**
   * Encrypts a segment and computes its tag.
   *
   * @param plaintext The input buffers.
   * @param target The output buffer, of exactly the size of the result. By default new memory.
   * @returns The ciphertext and the tag.
   */
  seal(plaintext: readonly Bytes[], position: SegmentPosition, target?: Bytes): Bytes;
  /**
   * Verifies and decrypts a segment.
   *
   * @param target The output buffer, which may be the memory of the ciphertext. By default new memory.
   * @returns The plaintext. Undefined if the segment is not the one that was sealed at this position: then nothing was
   * written.
   */
  open(sealed: Bytes, position: SegmentPosition, target?: Bytes): Bytes | undefined;
  /** Forgets the keys. */
  close(): void;
}

/** `node:crypto`'s name of a hash. */
function hashName(hash: string): string {
  return hash.replace("-", "").toLowerCase();
}

/**
 * HKDF (RFC 5869), built on the HMAC of `node:crypto`. Its `hkdfSync()` takes at most 1,024 bytes of `info`, and in
 * Tink's format the `info` is the associated data, of any length.
 */
function hkdf(hash: string, key: Secret, salt: Bytes, info: Bytes, length: number): Secret {
  const name = hashName(hash);
  const { createHmac } = nodeCrypto();
  using pseudorandom = secretDigest(createHmac(name, salt).update(key.bytes));
  const derived = Secret.alloc(length);
  let block = Secret.alloc(0);
  for (let at = 0, i = 1; at < length; i++) {
    const mac = createHmac(name, pseudorandom.bytes).update(block.bytes).update(info).update(Uint8Array.of(i));
    block.dispose();
    block = secretDigest(mac);
    derived.bytes.set(block.bytes.subarray(0, length - at), at);
    at += block.length;
  }
  block.dispose();
  return derived;
}

/**
 * Moves a digest that is key material into a secret. Only `set()` and `fill()` may use the short array that `digest()`
 * returns (see `Secret`).
 */
function secretDigest(mac: { digest(): Uint8Array }): Secret {
  const digest = mac.digest();
  const secret = Secret.from(digest);
  digest.fill(0);
  return secret;
}

/**
 * Derives the keys of one stream from the user's key, the salt of the stream and the associated data.
 *
 * @param key Read only.
 */
export function deriveKeys(format: Format, key: Secret, { salt }: Header, associatedData: Bytes): Secret {
  return hkdf(format.hkdfHash, key, salt, associatedData, derivedSize(format));
}

/**
 * Opens the cipher of one stream.
 *
 * @param derived The result of {@linkcode deriveKeys}. This function owns it, also when it throws.
 */
export function openSegmentCipher(
  format: Format,
  derived: Secret,
  { prefix }: Header,
  choice: EngineChoice,
): SegmentCipher {
  if (format.cipher === "AES-GCM-HKDF") return new GcmSegmentCipher(format, derived, prefix);
  using _ = derived;
  return new CtrHmacCipher(format, derived, prefix, choice);
}

/** Writes bytes 7 to 11 of the nonce: the index, big-endian, and 1 for the last segment. The rest stays zero. */
function setPosition(nonce: Bytes, { index, isLast }: SegmentPosition): void {
  for (let i = 0; i < 4; i++) nonce[PREFIX_SIZE + i] = index >>> (24 - 8 * i);
  nonce[PREFIX_SIZE + 4] = Number(isLast);
}

function nonceOf(prefix: Bytes, length: number): Bytes {
  const nonce = new Uint8Array(length);
  nonce.set(prefix);
  return nonce;
}

/** AES-CTR and HMAC over the nonce and the ciphertext. */
class CtrHmacCipher implements SegmentCipher {
  readonly engine: EngineName;
  readonly #stream: EngineStream;
  readonly #macKey: Secret;
  readonly #macName: string;
  /** An input buffer of the size of a tag: {@linkcode seal} reserves space for the tag with it. */
  readonly #tagSpace: Bytes;
  readonly #nonce: Bytes;

  /** @param derived Read only. */
  constructor(format: Format, derived: Secret, prefix: Bytes, choice: EngineChoice) {
    const { keySize, macHash, tagSize } = format;
    const algorithm = parseAlgorithm("ctr(aes)");
    this.#stream = new EngineStream(openEngine(algorithm, derived.clone(0, keySize), choice), algorithm);
    this.engine = this.#stream.engine.name;
    this.#macKey = derived.clone(keySize);
    this.#macName = hashName(macHash!);
    this.#tagSpace = new Uint8Array(tagSize);
    this.#nonce = nonceOf(prefix, 16);
  }

  seal(plaintext: readonly Bytes[], position: SegmentPosition, target?: Bytes): Bytes {
    setPosition(this.#nonce, position);
    // For new memory, the cipher also outputs the space for the tag. The tag overwrites it.
    const sealed = target ?? this.#crypt("encrypt", [...plaintext, this.#tagSpace]);
    const ciphertext = sealed.subarray(0, sealed.length - this.#tagSpace.length);
    if (target) this.#crypt("encrypt", plaintext, ciphertext);
    sealed.set(this.#tagOf(ciphertext), ciphertext.length);
    return sealed;
  }

  open(sealed: Bytes, position: SegmentPosition, target?: Bytes): Bytes | undefined {
    setPosition(this.#nonce, position);
    const length = sealed.length - this.#tagSpace.length;
    const ciphertext = subarray(sealed, 0, length);
    const tag = subarray(sealed, length, sealed.length);
    if (!nodeCrypto().timingSafeEqual(this.#tagOf(ciphertext), tag)) return undefined;
    return this.#crypt("decrypt", [ciphertext], target);
  }

  close(): void {
    this.#macKey.dispose();
    this.#stream.close();
  }

  #tagOf(ciphertext: Bytes): Uint8Array {
    const mac = nodeCrypto().createHmac(this.#macName, this.#macKey.bytes).update(this.#nonce).update(ciphertext);
    return mac.digest().subarray(0, this.#tagSpace.length);
  }

  /** Encrypts or decrypts a segment as a stream of its own, in windows. */
  #crypt(direction: "encrypt" | "decrypt", list: readonly Bytes[], target?: Bytes): Bytes {
    const stream = this.#stream;
    const input = new IovCursor(list);
    const length = input.remaining;
    if (length === 0) return target ?? new Uint8Array(0);
    stream.start({ direction, iv: this.#nonce });
    if (stream.send(input, true) && !target) return stream.take(length);
    const output = target ?? new Uint8Array(length);
    for (let at = 0;;) {
      const { ready } = stream;
      stream.receive([output.subarray(at, at += ready)]);
      if (at === length) return output;
      stream.send(input, true);
    }
  }
}

/** AES-GCM of `node:crypto`. */
class GcmSegmentCipher implements SegmentCipher {
  readonly engine = "userspace";
  readonly #name: "aes-128-gcm" | "aes-256-gcm";
  readonly #key: Secret;
  readonly #tagSize: number;
  readonly #nonce: Bytes;

  constructor({ keySize, tagSize }: Format, derived: Secret, prefix: Bytes) {
    this.#name = keySize === 16 ? "aes-128-gcm" : "aes-256-gcm";
    this.#key = derived;
    this.#tagSize = tagSize;
    this.#nonce = nonceOf(prefix, 12);
  }

  seal(plaintext: readonly Bytes[], position: SegmentPosition, target?: Bytes): Bytes {
    setPosition(this.#nonce, position);
    const sealed = target ?? new Uint8Array(totalLength(plaintext) + this.#tagSize);
    const cipher = nodeCrypto().createCipheriv(this.#name, this.#key.bytes, this.#nonce);
    let at = 0;
    for (const bytes of plaintext) {
      const ciphertext = cipher.update(bytes);
      sealed.set(ciphertext, at);
      discard(ciphertext);
      at += bytes.length;
    }
    cipher.final();
    sealed.set(cipher.getAuthTag(), at);
    return sealed;
  }

  open(sealed: Bytes, position: SegmentPosition, target?: Bytes): Bytes | undefined {
    setPosition(this.#nonce, position);
    const length = sealed.length - this.#tagSize;
    const decipher = nodeCrypto().createDecipheriv(this.#name, this.#key.bytes, this.#nonce);
    decipher.setAuthTag(subarray(sealed, length, sealed.length));
    const plaintext = decipher.update(subarray(sealed, 0, length));
    try {
      decipher.final();
    } catch {
      plaintext.fill(0); // unverified plaintext must not leave this function
      return undefined;
    }
    if (!target) return toOwned(plaintext);
    target.set(plaintext);
    discard(plaintext);
    return target;
  }

  close(): void {
    this.#key.dispose();
  }
}
