/**
 * The options of AES-GCM, checked and copied before anything is opened.
 *
 * @module
 */

import { signalsOf } from "../abort.ts";
import { type Bytes, type BytesLike, cloneBytes, describe, toUint8Array } from "../bytes.ts";
import type { Direction } from "../engines/engine.ts";
import { checkKernelKey } from "../keyring/kernel_key.ts";
import { checkBoolean, oneOf } from "../options.ts";
import { Secret } from "../secret.ts";

/** The name of the one AEAD of this module. */
export const GCM = "gcm(aes)";

/** Options of `gcm(aes)` alone. */
export interface GcmOptions {
  /** Data that is authenticated and not stored. Default: empty. */
  associatedData?: BytesLike | undefined;
  /** Bytes of the tag: 16, the default; or 4, 8 or 12 to 15 for formats that cut it. Short tags are easier to guess. */
  tagSize?: number | undefined;
  /**
   * Where the tag is. `"end"`, the default: after the ciphertext. `"start"`: before the ciphertext, after the IV of
   * `ivPrefix`; encryption then holds the message in memory. If the tag is stored separately: `"detached"` for
   * encryption, which returns it as `tag` of the stream, and the bytes of the tag for decryption.
   */
  tag?: "end" | "start" | "detached" | BytesLike | undefined;
  /**
   * The most bytes of a message that is held in memory: to verify it, to write the tag first, or for WebCrypto. A
   * larger message fails with EMSGSIZE. Default: 64 MiB.
   */
  maxSize?: number | undefined;
  /**
   * Decryption returns bytes before the tag is verified. **They may be forged**: do not act on them before the stream
   * has ended. If the message is not authentic, the stream fails at its end with EBADMSG. Default: false.
   */
  releaseUnverified?: boolean | undefined;
}

/** The checked options of one message. */
export interface GcmPlan {
  readonly direction: Direction;
  readonly key: Secret;
  /** Undefined where it is in front of the ciphertext. */
  readonly iv: Bytes | undefined;
  readonly associatedData: Bytes;
  readonly tagSize: number;
  /** Where the tag is; for decryption, perhaps the tag. */
  readonly tag: "end" | "start" | "detached" | Bytes;
  readonly maxSize: number;
  readonly releaseUnverified: boolean;
  readonly engine: "auto" | "userspace" | "webcrypto";
  readonly signals: readonly AbortSignal[];
  /** The most bytes of a message. */
  readonly limit: number;
}

/** SP 800-38D: 2^32 - 2 blocks, because the counter has 32 bits and two of its blocks have other uses. */
const LIMIT = 2 ** 36 - 32;

const DEFAULT_MAX_SIZE = 64 * 1024 * 1024;
const KEY_SIZES = [16, 24, 32];
const TAG_SIZES = [4, 8, 12, 13, 14, 15, 16];

/** The size of a random IV, which SP 800-38D recommends. */
export const IV_SIZE = 12;
/** OpenSSL's limit, and so that of Node and Bun. */
const LONGEST_IV = 128;

/** Options of other ciphers, with why GCM does not have them. */
const REFUSED: Readonly<Record<string, string>> = {
  padding: "takes any length",
  inPlace: "puts its output into new memory",
  pool: "is one chain from block to block, which Workers cannot share",
  sectorSize: "encrypts one message",
  sector: "encrypts one message",
  ivLargeSectors: "encrypts one message",
  ivMode: "encrypts one message",
  position: "is verified as a whole: openGcm() gives ranges",
  counterBits: "counts in 32 bits",
};

/** Values that change nothing. */
const NEUTRAL: readonly unknown[] = [undefined, false, "none"];

/** @throws {TypeError} If an option is set that `gcm(aes)` does not have. */
export function refuseOthers(options: Readonly<Record<string, unknown>>): void {
  for (const [name, why] of Object.entries(REFUSED)) {
    if (!NEUTRAL.includes(options[name])) throw new TypeError(`"${name}" is not for ${GCM}, which ${why}`);
  }
}

/**
 * Checks that no option of `gcm(aes)` is set for another algorithm.
 *
 * @throws {TypeError} If one is.
 */
export function refuseGcmOptions(options: GcmOptions, algorithm: string): void {
  const { associatedData, tagSize, tag, maxSize, releaseUnverified } = options;
  for (const [name, value] of Object.entries({ associatedData, tagSize, tag, maxSize, releaseUnverified })) {
    if (value !== undefined) throw new TypeError(`"${name}" is for ${GCM}, not for ${algorithm}, which has no tag`);
  }
}

/** What {@linkcode checkGcm} takes. */
type Given = GcmOptions & { key?: unknown; iv?: unknown; ivPrefix?: unknown; engine?: unknown; signal?: unknown };

/**
 * Checks and copies the options.
 *
 * @throws {TypeError} or {RangeError}, before anything is opened.
 */
export function checkGcm(direction: Direction, options: Given): GcmPlan {
  const { key, iv, ivPrefix = false, associatedData = new Uint8Array(0), engine, signal } = options;
  const { tag = "end", tagSize, maxSize = DEFAULT_MAX_SIZE, releaseUnverified = false } = options;
  checkBoolean("ivPrefix", ivPrefix);
  checkBoolean("releaseUnverified", releaseUnverified);
  if (ivPrefix && iv !== undefined) throw new TypeError('"ivPrefix" takes the place of "iv": give one of them');
  const checkedTag = checkTag(direction, tag);
  const plan = {
    direction,
    iv: ivPrefix ? undefined : checkIV(iv),
    associatedData: cloneBytes(toUint8Array("associatedData", associatedData)),
    tag: checkedTag,
    tagSize: checkTagSize(tagSize, checkedTag),
    maxSize: checkMaxSize(maxSize),
    releaseUnverified,
    engine: checkGcmEngine(engine, direction === "decrypt" && releaseUnverified),
    signals: signalsOf(signal),
    limit: LIMIT,
  };
  return { ...plan, key: ownKey(key) };
}

function ownKey(value: unknown): Secret {
  if (checkKernelKey(value)) {
    throw new TypeError(`"key" expected bytes for ${GCM}, which the kernel does not run, got a key of its keyring`);
  }
  const key = toUint8Array("key", value);
  if (KEY_SIZES.includes(key.length)) return Secret.from(key);
  throw new RangeError(`"key" expected ${KEY_SIZES.join(" or ")} bytes for ${GCM}, got ${key.length}`);
}

function checkIV(value: unknown): Bytes {
  if (value === undefined || value === null) {
    throw new TypeError(`"iv" expected a BufferSource for ${GCM}, usually of ${IV_SIZE} bytes, got ${value}`);
  }
  const iv = toUint8Array("iv", value);
  if (iv.length >= 1 && iv.length <= LONGEST_IV) return cloneBytes(iv);
  throw new RangeError(
    `"iv" expected 1 to ${LONGEST_IV} bytes for ${GCM}, and usually has ${IV_SIZE}, got ${iv.length}`,
  );
}

function checkTag(direction: Direction, value: unknown): GcmPlan["tag"] {
  if (value === "end" || value === "start") return value;
  if (direction === "encrypt") {
    if (value === "detached") return value;
    throw new TypeError(`"tag" expected "end", "start" or "detached" for encryption, got ${shown(value)}`);
  }
  if (typeof value !== "string") return cloneBytes(toUint8Array("tag", value));
  throw new TypeError(`"tag" expected "end", "start" or the bytes of the tag for decryption, got ${shown(value)}`);
}

function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value.slice(0, 20)) : describe(value);
}

function checkTagSize(value: unknown, tag: GcmPlan["tag"]): number {
  const known = typeof tag === "string" ? undefined : tag.length;
  const size = value ?? known ?? 16;
  if (typeof size !== "number") throw new TypeError(`"tagSize" expected a number, got ${describe(size)}`);
  if (!TAG_SIZES.includes(size)) {
    const name = value === undefined ? "tag" : "tagSize";
    throw new RangeError(`"${name}" expected ${TAG_SIZES.join(" or ")} bytes for ${GCM}, got ${size}`);
  }
  if (known !== undefined && known !== size) {
    throw new RangeError(`"tag" expected the ${size} bytes of "tagSize", got ${known}`);
  }
  return size;
}

function checkMaxSize(value: unknown): number {
  if (typeof value !== "number") throw new TypeError(`"maxSize" expected a number, got ${describe(value)}`);
  if (Number.isSafeInteger(value) && value >= 0) return value;
  throw new RangeError(`"maxSize" expected a number of bytes, got ${value}`);
}

function checkGcmEngine(value: unknown, releases: boolean): GcmPlan["engine"] {
  if (value === "kernel") {
    throw new TypeError(
      `"engine" expected "auto", "userspace" or "webcrypto" for ${GCM}, got "kernel": AF_ALG takes an AEAD's message ` +
        "and associated data in one piece, and cannot stream them",
    );
  }
  const engine = oneOf("engine", value === undefined ? "auto" : value, ["auto", "userspace", "webcrypto"]);
  if (engine === "webcrypto" && releases) {
    throw new TypeError('"releaseUnverified" expected false with WebCrypto, which gives nothing before it is verified');
  }
  return engine;
}
