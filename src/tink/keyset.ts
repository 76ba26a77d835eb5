/**
 * {@linkcode Keyset}: Tink's keysets of streaming AEAD keys, as JSON.
 *
 * @module
 */

import { fromBase64Url, toBase64 } from "../base64url.ts";
import { type Bytes, type BytesLike, describe, toUint8Array } from "../bytes.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { disposeByClose } from "../runtime/web.ts";
import { Secret } from "../secret.ts";
import { checkFormat, type Format, type SealedFormat, type SealedParameters } from "../sealed/format.ts";
import { type KeySource, registerKeySource, type SourceKey } from "../sealed/key_source.ts";
import { decodeKey, encodeKey, typeUrlOf } from "./key_proto.ts";
import {
  decodeKeyset,
  encodeKeyset,
  type KeyRecord,
  type KeysetRecord,
  type KeyStatus,
  STATUSES,
} from "./keyset_proto.ts";

/** A key of a {@linkcode Keyset}, without its secret. */
export interface KeysetKey {
  /** Tink's number of the key, which identifies it in its keyset. */
  readonly id: number;
  /** `"DESTROYED"` keys have no secret any more. */
  readonly status: KeyStatus;
  /** Whether this key seals. */
  readonly isPrimary: boolean;
  /** The format of its streams; undefined once it is destroyed. */
  readonly format: SealedParameters | undefined;
}

/** A keyset as Tink writes it: JSON of the protobuf `google.crypto.tink.Keyset`. */
export interface KeysetJSON {
  /** The id of the key that seals. */
  readonly primaryKeyId: number;
  /** The keys. `keyData.value` is secret. */
  readonly key: readonly {
    readonly keyData?: { readonly typeUrl: string; readonly value: string; readonly keyMaterialType: string };
    readonly status: KeyStatus;
    readonly keyId: number;
    readonly outputPrefixType: string;
  }[];
}

/** An encrypted keyset as Tink writes it: JSON of the protobuf `google.crypto.tink.EncryptedKeyset`. */
export interface EncryptedKeysetJSON {
  /** The keyset, serialized and encrypted, in base64. */
  readonly encryptedKeyset: string;
  /** Its keys without their secrets. Not authenticated. */
  readonly keysetInfo: {
    readonly primaryKeyId: number;
    readonly keyInfo: readonly {
      readonly typeUrl: string;
      readonly status: KeyStatus;
      readonly keyId: number;
      readonly outputPrefixType: string;
    }[];
  };
}

/** What encrypts or decrypts a serialized keyset: usually a call to a KMS. */
export type KeysetCipher = (bytes: Uint8Array<ArrayBuffer>) => BytesLike | Promise<BytesLike>;

interface Entry {
  readonly id: number;
  status: KeyStatus;
  /** Undefined once the key is destroyed. */
  readonly format: Format | undefined;
  readonly key: Secret | undefined;
}

const CONSTRUCT = Symbol("construct");

/** Both directions take the same object, such as the client of a KMS. */
const CIPHER_NAMES: OptionNames<{ encrypt: KeysetCipher; decrypt: KeysetCipher }> = { encrypt: true, decrypt: true };

/**
 * A list of keys for sealed streams. One of them is primary: it seals new data. All enabled keys open old data.
 *
 * Get one from {@linkcode createKeyset} or {@linkcode parseKeyset}, and pass it as `keyset` to sealed streams. To
 * rotate, add a key, distribute the keyset to all readers, and then promote the new key.
 *
 * @example Rotation
 * ```ts
 * import { createKeyset, parseKeyset } from "@kcapi/streams/tink";
 * import { assertEquals } from "@std/assert";
 *
 * using keyset = createKeyset("AES256_GCM_HKDF_4KB");
 * keyset.promote(keyset.add("AES256_GCM_HKDF_1MB"));
 * using copy = parseKeyset(JSON.stringify(keyset)); // secret: store it like a key
 * assertEquals(copy.keys.map(({ isPrimary }) => isPrimary), [false, true]);
 * ```
 */
export class Keyset implements KeySource, Disposable {
  readonly #entries: Entry[];
  #primaryKeyId: number;

  /**
   * Use {@linkcode createKeyset} or {@linkcode parseKeyset}.
   *
   * @ignore
   */
  constructor(token: symbol, entries: Entry[], primaryKeyId: number) {
    if (token !== CONSTRUCT) {
      throw new TypeError("Keyset has no public constructor: use createKeyset() or parseKeyset()");
    }
    this.#entries = entries;
    this.#primaryKeyId = primaryKeyId;
    registerKeySource(this, () => this.#enabledKeys());
  }

  /** The id of the key that seals. */
  get primaryKeyId(): number {
    return this.#primaryKeyId;
  }

  /** The keys in their order, without their secrets. */
  get keys(): readonly KeysetKey[] {
    return this.#entries.map(({ id, status, format }) => ({
      id,
      status,
      isPrimary: id === this.#primaryKeyId,
      format: format && parametersOf(format),
    }));
  }

  /**
   * Adds a new random key. It does not seal before it is promoted.
   *
   * @param format The format of its streams.
   * @returns Its id.
   * @throws {TypeError} or {RangeError} if there is no such format.
   */
  add(format: SealedFormat): number {
    const checked = checkFormat(format);
    const taken = new Set(this.#entries.map(({ id }) => id));
    let id: number;
    do id = crypto.getRandomValues(new Uint32Array(1))[0]!; while (id === 0 || taken.has(id));
    this.#entries.push({ id, status: "ENABLED", format: checked, key: Secret.random(checked.keySize) });
    return id;
  }

  /**
   * Makes a key the primary one: it seals from now on.
   *
   * @param id The key's id.
   * @throws {RangeError} If there is no such key, or it is not enabled.
   */
  promote(id: number): void {
    const { status } = this.#entry(id);
    if (status !== "ENABLED") throw new RangeError(`"id" expected an enabled key, got key ${id}, which is ${status}`);
    this.#primaryKeyId = id;
  }

  /**
   * Disables a key: it opens nothing until it is enabled again.
   *
   * @param id The key's id.
   * @throws {RangeError} If there is no such key, or it is the primary one or destroyed.
   */
  disable(id: number): void {
    this.#changeable(id).status = "DISABLED";
  }

  /**
   * Enables a key that was disabled.
   *
   * @param id The key's id.
   * @throws {RangeError} If there is no such key, or it is destroyed.
   */
  enable(id: number): void {
    const entry = this.#entry(id);
    if (entry.status === "DESTROYED") {
      throw new RangeError(`"id" expected a key with a secret, got key ${id}, destroyed`);
    }
    entry.status = "ENABLED";
  }

  /**
   * Removes a key and zeroes its secret. What only this key opens is lost.
   *
   * @param id The key's id.
   * @throws {RangeError} If there is no such key, or it is the primary one.
   */
  remove(id: number): void {
    const entry = this.#entry(id);
    if (id === this.#primaryKeyId) throw new RangeError(`"id" expected a key that is not primary, got key ${id}`);
    entry.key?.dispose();
    this.#entries.splice(this.#entries.indexOf(entry), 1);
  }

  /**
   * The keyset as Tink's libraries read it, **with its secrets**. `JSON.stringify(keyset)` calls this.
   *
   * @returns A plain object.
   */
  toJSON(): KeysetJSON {
    const { primaryKeyId, keys } = this.#record();
    return {
      primaryKeyId,
      key: keys.map(({ typeUrl, value, status, id }) => {
        const keyData = value && { typeUrl: typeUrl!, value: toBase64(value), keyMaterialType: "SYMMETRIC" };
        value?.fill(0);
        return { ...(keyData && { keyData }), status, keyId: id, outputPrefixType: "RAW" };
      }),
    };
  }

  /**
   * The keyset encrypted by a function of yours, usually a KMS.
   *
   * @param options `encrypt` gets the serialized keyset and returns its ciphertext. Its input is zeroed when its
   * promise settles.
   * @returns A plain object for `JSON.stringify`. It has no secrets but the ciphertext.
   * @throws {TypeError} If `encrypt` is no function, or returns no bytes.
   */
  async toEncryptedJSON(options: { encrypt: KeysetCipher }): Promise<EncryptedKeysetJSON> {
    checkOptions("options", options, CIPHER_NAMES);
    const { encrypt } = options;
    if (typeof encrypt !== "function") throw new TypeError(`"encrypt" expected a function, got ${describe(encrypt)}`);
    const record = this.#record();
    const plain = encodeKeyset(record);
    try {
      const ciphertext = toUint8Array("encrypt", await encrypt(plain));
      return {
        encryptedKeyset: toBase64(ciphertext),
        keysetInfo: {
          primaryKeyId: record.primaryKeyId,
          keyInfo: record.keys.map(({ typeUrl = "", status, id }) => ({
            typeUrl,
            status,
            keyId: id,
            outputPrefixType: "RAW",
          })),
        },
      };
    } finally {
      plain.fill(0);
      for (const { value } of record.keys) value?.fill(0);
    }
  }

  /** Zeroes all secrets. Then the keyset cannot be used. Streams that were made with it continue. */
  close(): void {
    for (const { key } of this.#entries) key?.dispose();
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Copies of the enabled keys, the primary one first. */
  #enabledKeys(): readonly SourceKey[] {
    const enabled = this.#entries.flatMap(({ id, status, format, key }, index) =>
      status === "ENABLED" ? [{ id, index, format: format!, key: key! }] : []
    );
    enabled.sort((a, b) => Number(b.id === this.#primaryKeyId) - Number(a.id === this.#primaryKeyId));
    return enabled.map(({ index, format, key }) => ({ index, format, key: key.clone() }));
  }

  #entry(id: number): Entry {
    if (typeof id !== "number") throw new TypeError(`"id" expected a number, got ${describe(id)}`);
    const entry = this.#entries.find((each) => each.id === id);
    if (!entry) throw new RangeError(`"id" expected the id of a key of this keyset, got ${id}`);
    return entry;
  }

  /** A key that may lose its use. */
  #changeable(id: number): Entry {
    const entry = this.#entry(id);
    if (id === this.#primaryKeyId) throw new RangeError(`"id" expected a key that is not primary, got key ${id}`);
    if (entry.status === "DESTROYED") {
      throw new RangeError(`"id" expected a key with a secret, got key ${id}, destroyed`);
    }
    return entry;
  }

  #record(): KeysetRecord {
    return {
      primaryKeyId: this.#primaryKeyId,
      keys: this.#entries.map(({ id, status, format, key }): KeyRecord =>
        format && key
          ? { id, status, typeUrl: typeUrlOf(format), value: encodeKey(format, key.bytes) }
          : { id, status, typeUrl: undefined, value: undefined }
      ),
    };
  }
}

disposeByClose(Keyset);

/**
 * Makes a keyset with one new random key, the primary one.
 *
 * @param format The format of its streams, such as `"AES256_GCM_HKDF_4KB"`.
 * @returns The keyset.
 * @throws {TypeError} or {RangeError} if there is no such format.
 */
export function createKeyset(format: SealedFormat): Keyset {
  const keyset = new Keyset(CONSTRUCT, [], 0);
  keyset.promote(keyset.add(format));
  return keyset;
}

/**
 * Reads a keyset in the JSON that Tink's libraries and `tinkey` write.
 *
 * @param json The text, or the object that `JSON.parse` gave.
 * @returns The keyset.
 * @throws {SyntaxError} If the text is not JSON.
 * @throws {TypeError} or {RangeError} if it is not a keyset of streaming AEAD keys that this module can use. The
 * message names the key by its id, and never contains a secret.
 */
export function parseKeyset(json: string | object, options?: { decrypt?: undefined }): Keyset;
/**
 * Reads an encrypted keyset.
 *
 * @param json The text, or the object that `JSON.parse` gave.
 * @param options `decrypt` gets the ciphertext and returns the serialized keyset: usually a call to a KMS. The bytes it
 * returns are zeroed.
 * @returns A promise of the keyset.
 */
export function parseKeyset(json: string | object, options: { decrypt: KeysetCipher }): Promise<Keyset>;
export function parseKeyset(
  json: string | object,
  options: { decrypt?: KeysetCipher | undefined } = {},
): Keyset | Promise<Keyset> {
  checkOptions("options", options, CIPHER_NAMES);
  const { decrypt } = options;
  if (decrypt !== undefined) return parseEncrypted(json, decrypt);
  const object = objectOf("keyset", parse(json));
  if ("encryptedKeyset" in object) {
    throw new TypeError('"keyset" is encrypted: pass { decrypt } with a function that decrypts it');
  }
  return fromRecord(recordOf(object));
}

async function parseEncrypted(json: string | object, decrypt: KeysetCipher): Promise<Keyset> {
  if (typeof decrypt !== "function") throw new TypeError(`"decrypt" expected a function, got ${describe(decrypt)}`);
  const object = objectOf("keyset", parse(json));
  if (!("encryptedKeyset" in object)) throw new TypeError('"keyset" is not encrypted: leave out "decrypt"');
  checkMembers("keyset", object, ["encryptedKeyset", "keysetInfo"]);
  const plain = toUint8Array("decrypt", await decrypt(fromBase64("encryptedKeyset", object.encryptedKeyset)));
  try {
    return fromRecord(decodeKeyset(plain));
  } finally {
    plain.fill(0);
  }
}

function parse(json: unknown): unknown {
  if (typeof json !== "string") return json;
  try {
    return JSON.parse(json);
  } catch {
    // The runtime's message quotes the text, which has secrets.
    throw new SyntaxError('"keyset" expected JSON, got other text');
  }
}

function recordOf(object: Record<string, unknown>): KeysetRecord {
  checkMembers("keyset", object, ["primaryKeyId", "key"]);
  if (!Array.isArray(object.key)) throw new TypeError(`"keyset.key" expected an array, got ${describe(object.key)}`);
  return {
    primaryKeyId: uint32("keyset.primaryKeyId", object.primaryKeyId),
    keys: object.key.map((value: unknown, i) => keyRecordOf(`keyset.key[${i}]`, objectOf(`keyset.key[${i}]`, value))),
  };
}

function keyRecordOf(name: string, object: Record<string, unknown>): KeyRecord {
  checkMembers(name, object, ["keyData", "status", "keyId", "outputPrefixType"]);
  const status = STATUSES.find((each) => each === object.status);
  if (!status) throw new TypeError(`"${name}.status" expected ${STATUSES.join(" or ")}`);
  if (object.outputPrefixType !== "RAW") throw new TypeError(`"${name}.outputPrefixType" expected RAW`);
  const id = uint32(`${name}.keyId`, object.keyId);
  if (object.keyData === undefined) return { id, status, typeUrl: undefined, value: undefined };
  const data = objectOf(`${name}.keyData`, object.keyData);
  checkMembers(`${name}.keyData`, data, ["typeUrl", "value", "keyMaterialType"]);
  if (data.keyMaterialType !== "SYMMETRIC") throw new TypeError(`"${name}.keyData.keyMaterialType" expected SYMMETRIC`);
  if (typeof data.typeUrl !== "string") throw new TypeError(`"${name}.keyData.typeUrl" expected a string`);
  return { id, status, typeUrl: data.typeUrl, value: fromBase64(`${name}.keyData.value`, data.value) };
}

/** Checks what a keyset must be, and takes its secrets over. The values of `record` are zeroed. */
function fromRecord({ primaryKeyId, keys }: KeysetRecord): Keyset {
  const entries: Entry[] = [];
  try {
    for (const { id, status, typeUrl, value } of keys) {
      if (entries.some((each) => each.id === id)) {
        throw new TypeError(`"keyset" expected each key id once, got ${id} twice`);
      }
      if (value === undefined) {
        if (status !== "DESTROYED") throw new TypeError(`"keyset" expected a secret for key ${id}, which is ${status}`);
        entries.push({ id, status, format: undefined, key: undefined });
      } else if (status === "DESTROYED") {
        throw new TypeError(`"keyset" expected no secret for key ${id}, which is DESTROYED`);
      } else {
        entries.push({ id, status, ...decodeKey(`key ${id}`, typeUrl!, value) });
      }
    }
    const primary = entries.find(({ id }) => id === primaryKeyId);
    if (!primary) throw new TypeError(`"keyset" expected its primary key, ${primaryKeyId}, among its keys`);
    if (primary.status !== "ENABLED") {
      throw new TypeError(
        `"keyset" expected an enabled primary key, got key ${primaryKeyId}, which is ${primary.status}`,
      );
    }
    return new Keyset(CONSTRUCT, entries, primaryKeyId);
  } catch (error) {
    for (const { key } of entries) key?.dispose();
    throw error;
  } finally {
    for (const { value } of keys) value?.fill(0);
  }
}

function parametersOf({ headerSize: _, ...parameters }: Format): SealedParameters {
  return parameters;
}

// ---- JSON of protobufs ----

function objectOf(name: string, value: unknown): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw new TypeError(`"${name}" expected an object, got ${describe(value)}`);
}

function checkMembers(name: string, object: object, known: readonly string[]): void {
  for (const member of Object.keys(object)) {
    if (!known.includes(member)) {
      throw new TypeError(
        `"${name}" expected ${known.join(", ")}, got the member ${JSON.stringify(member.slice(0, 40))}`,
      );
    }
  }
}

/** A uint32 as proto3's JSON has it: a number, or its decimal digits. */
function uint32(name: string, value: unknown): number {
  const number = typeof value === "string" && /^\d{1,10}$/.test(value) ? Number(value) : value;
  if (typeof number !== "number") throw new TypeError(`"${name}" expected a number, got ${describe(value)}`);
  if (Number.isInteger(number) && number >= 0 && number < 2 ** 32) return number;
  throw new RangeError(`"${name}" expected an integer from 0 to 2^32 - 1, got ${number}`);
}

/** Standard or URL-safe base64, with or without padding, as proto3's JSON allows. */
function fromBase64(name: string, value: unknown): Bytes {
  if (typeof value !== "string") throw new TypeError(`"${name}" expected base64, got ${describe(value)}`);
  const bytes = fromBase64Url(value.replaceAll("+", "-").replaceAll("/", "_").replace(/={1,2}$/, ""));
  if (!bytes) throw new TypeError(`"${name}" expected base64, got other text`);
  return bytes;
}
