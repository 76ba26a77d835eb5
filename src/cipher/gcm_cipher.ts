/**
 * AES-GCM of `node:crypto`, for one message.
 *
 * @module
 */

import type { CipherGCM, DecipherGCM } from "node:crypto";
import type { Bytes } from "../bytes.ts";
import type { Direction } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { nodeCrypto } from "../runtime/mod.ts";
import type { Secret } from "../secret.ts";
import { GCM, type GcmPlan } from "./gcm_options.ts";

type Name = "aes-128-gcm" | "aes-192-gcm" | "aes-256-gcm";

const nameOf = (keySize: number) => `aes-${8 * keySize}-gcm` as Name;

const works = new Map<string, boolean>();

/** Whether `node:crypto` has AES-GCM with keys of this size: Deno's has none of 24 bytes. */
export function userspaceHasGcm(keySize: number): boolean {
  return hasSizes(keySize, 16);
}

/** Deno 2.5 refuses tags of less than 16 bytes in decryption, with the error for a wrong tag. Deno 2.9 takes them. */
function hasSizes(keySize: number, tagSize: number): boolean {
  const id = `${keySize} ${tagSize}`;
  const isSupported = works.get(id) ?? trySizes(keySize, tagSize);
  works.set(id, isSupported);
  return isSupported;
}

/** Tries an empty message. */
function trySizes(keySize: number, tagSize: number): boolean {
  const { createCipheriv, createDecipheriv } = nodeCrypto();
  const options = { authTagLength: tagSize };
  const [name, key, iv] = [nameOf(keySize), new Uint8Array(keySize), new Uint8Array(12)];
  try {
    const cipher = createCipheriv(name, key, iv, options);
    cipher.final();
    const decipher = createDecipheriv(name, key, iv, options);
    decipher.setAuthTag(cipher.getAuthTag().subarray(0, tagSize));
    decipher.final();
    return true;
  } catch {
    return false;
  }
}

/** @throws {KcapiError} ENOENT if `node:crypto` of this runtime has no keys or no tags of these sizes. */
export function checkUserspaceGcm(keySize: number, tagSize: number): void {
  if (!userspaceHasGcm(keySize)) {
    throw new KcapiError("ENOENT", "createCipheriv", `node:crypto of this runtime has no ${nameOf(keySize)}`, {
      hint: 'engine "auto" of EncryptionStream and DecryptionStream runs it over WebCrypto, which holds the message',
    });
  }
  if (hasSizes(keySize, tagSize)) return;
  throw new KcapiError("ENOENT", "createCipheriv", `node:crypto of this runtime has no tags of ${tagSize} bytes`, {
    hint: "a later release of the runtime may have them: Deno 2.9 has, Deno 2.5 has not",
  });
}

/** One message. All calls are synchronous. */
export class GcmCipher {
  readonly #tagSize: number;
  #encryption: CipherGCM | undefined;
  #decryption: DecipherGCM | undefined;

  /**
   * @param key Read only: `node:crypto` has a copy then.
   * @throws {KcapiError} EINVAL if this runtime refuses the IV.
   */
  constructor(direction: Direction, key: Secret, iv: Bytes, { associatedData, tagSize }: GcmPlan) {
    this.#tagSize = tagSize;
    const { createCipheriv, createDecipheriv } = nodeCrypto();
    const name = nameOf(key.length);
    const options = { authTagLength: tagSize };
    try {
      if (direction === "encrypt") this.#encryption = createCipheriv(name, key.bytes, iv, options);
      else this.#decryption = createDecipheriv(name, key.bytes, iv, options);
    } catch (cause) {
      throw new KcapiError("EINVAL", "createCipheriv", `${GCM} of this runtime refuses an IV of ${iv.length} bytes`, {
        cause,
      });
    }
    // Once: in Deno, a second call does not give the same tag as one call with both parts.
    if (associatedData.length > 0) this.#cipher.setAAD(associatedData);
  }

  /** Encrypts or decrypts. The result is new memory, which may be a Buffer. */
  update(bytes: Bytes): Uint8Array {
    return this.#cipher.update(bytes);
  }

  /** Ends an encryption. */
  tag(): Bytes {
    const cipher = this.#encryption!;
    this.#encryption = undefined;
    cipher.final();
    return new Uint8Array(cipher.getAuthTag()).slice(0, this.#tagSize);
  }

  /** Ends a decryption. Returns whether the message is authentic. */
  verify(tag: Bytes): boolean {
    const cipher = this.#decryption!;
    this.#decryption = undefined;
    try {
      cipher.setAuthTag(tag);
      cipher.final();
      return true;
    } catch {
      return false;
    }
  }

  /** Without final(), Deno keeps the cipher and its key forever. Closing again does nothing. */
  close(): void {
    if (this.#encryption) this.tag();
    if (this.#decryption) this.verify(new Uint8Array(this.#tagSize));
  }

  get #cipher(): CipherGCM | DecipherGCM {
    return this.#encryption ?? this.#decryption!;
  }
}
