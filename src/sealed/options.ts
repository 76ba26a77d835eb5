/**
 * The options of sealed streams, checked and copied before anything is opened.
 *
 * @module
 */

import { type Bytes, type BytesLike, cloneBytes, describe, toUint8Array } from "../bytes.ts";
import { checkEngine, signalsOf } from "../cipher/options.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { checkKernelKey } from "../keyring/kernel_key.ts";
import { Secret } from "../secret.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { checkPool, type Executor } from "../executors/executor.ts";
import type { WorkerPool } from "../executors/worker_pool.ts";
import { checkFormat, type Format, type SealedFormat } from "./format.ts";
import { keysOfSource, type KeySource, type SourceKey } from "./key_source.ts";

/** Options of sealed streams besides the key. */
export interface SealStreamOptions {
  /** Data to authenticate and not to store, such as the name of a file: then one file cannot replace another. */
  associatedData?: BytesLike | undefined;
  /**
   * Which engine runs, `"auto"` by default. `"kernel"` and `"userspace"` run AES-CTR; AES-GCM runs in userspace only.
   * `"webcrypto"` runs both, several segments at once.
   */
  engine?: EngineChoice | "webcrypto" | undefined;
  /** Aborts both sides. */
  signal?: AbortSignal | undefined;
  /**
   * The stream takes ownership of the memory of each chunk: it makes no copy, and unseals full segments in place.
   * Default: false.
   */
  inPlace?: boolean | undefined;
  /** A pool whose Workers seal or unseal the segments. By default, this thread does. */
  pool?: WorkerPool | undefined;
}

/** Options of the streams that seal and unseal, of `seal()`, `unseal()` and `openSealed()`. */
export interface SealOptions extends SealStreamOptions {
  /**
   * The key, from which each stream derives its own: at least 16 bytes, or 32 for an AES-256 format; 32 random bytes
   * are recommended. A copy is taken, and zeroed when it is no longer needed.
   *
   * Or a CryptoKey of the algorithm HKDF with the usage deriveBits or deriveKey. If it is not extractable, no script
   * can read it. WebCrypto runs the stream.
   *
   * A list has several keys, for rotation: the first one seals. To open, each is tried on the first segment.
   */
  key: BytesLike | CryptoKey | readonly (BytesLike | CryptoKey)[];
  /** The format, which is not stored in the stream; `"AES256_CTR_HMAC_SHA256_64KB"` by default. */
  format?: SealedFormat | undefined;
  /** Not with a `key`. */
  keyset?: undefined;
}

/** The same with a keyset, which has both keys and formats. */
export interface KeysetSealOptions extends SealStreamOptions {
  /**
   * A keyset of `@kcapi/streams/tink`. Its primary key seals. To open, each enabled key is tried on the first segment.
   */
  keyset: KeySource;
  /** Not with a `keyset`. */
  key?: undefined;
  /** Not with a `keyset`. */
  format?: undefined;
}

/** The checked options, for one key. */
export interface SealPlan {
  /** The position of the key in the list or the keyset. */
  readonly index: number;
  /** Empty if there is a {@linkcode cryptoKey}. */
  readonly key: Secret;
  /** Then `engine` is `"webcrypto"`. */
  readonly cryptoKey?: CryptoKey | undefined;
  readonly associatedData: Bytes;
  readonly format: Format;
  readonly engine: EngineChoice | "webcrypto";
  readonly signals: readonly AbortSignal[];
  readonly inPlace: boolean;
  /** Undefined for this thread. */
  readonly executor: Executor | undefined;
}

const LEAST_KEY = 16;

const NAMES: OptionNames<SealOptions> = {
  key: true,
  keyset: true,
  associatedData: true,
  format: true,
  engine: true,
  signal: true,
  inPlace: true,
  pool: true,
};

/**
 * Checks and copies the options of a sealing. Of several keys, the first one is used.
 *
 * @throws {TypeError} or {RangeError}, before anything is opened.
 */
export function checkSealOptions(options: SealOptions | KeysetSealOptions): SealPlan {
  const [first, ...others] = checkUnsealOptions(options);
  for (const { key } of others) key.dispose();
  return first;
}

/**
 * Checks and copies the options of an unsealing.
 *
 * @returns A plan for each key, in the order in which they are tried.
 * @throws {TypeError} or {RangeError}, before anything is opened.
 */
export function checkUnsealOptions(options: SealOptions | KeysetSealOptions): readonly [SealPlan, ...SealPlan[]] {
  checkOptions("options", options, NAMES);
  const { associatedData = new Uint8Array(0), engine, signal, inPlace = false, pool } = options;
  if (typeof inPlace !== "boolean") throw new TypeError(`"inPlace" expected a boolean, got ${describe(inPlace)}`);
  const choice = checkEngine(engine, ["webcrypto"]);
  const executor = checkPool(pool);
  const rest = {
    signals: executor ? [...signalsOf(signal), executor.signal] : signalsOf(signal),
    inPlace,
    executor,
    associatedData: cloneBytes(toUint8Array("associatedData", associatedData)),
  };
  const keys = checkKeys(options);
  try {
    const checked = checkEngineFor(keys, choice, pool);
    return keys.map((key) => ({ ...key, ...rest, engine: checked })) as [SealPlan, ...SealPlan[]];
  } catch (error) {
    for (const { key } of keys) key.dispose();
    throw error;
  }
}

function isZero(key: Bytes): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== 0) return false;
  return key.length > 0;
}

/** One CryptoKey has WebCrypto run all of a list, so that a stream knows its engine before it has chosen a key. */
function checkEngineFor(
  keys: readonly SourceKey[],
  choice: SealPlan["engine"],
  pool: unknown,
): SealPlan["engine"] {
  if (choice === "kernel" && keys.some(({ format }) => format.cipher === "AES-GCM-HKDF")) {
    throw new TypeError(
      '"engine" expected "auto", "userspace" or "webcrypto" for AES-GCM-HKDF, got "kernel": take a format of AES-CTR-HMAC',
    );
  }
  const hasCryptoKey = keys.some(({ cryptoKey }) => cryptoKey);
  if (hasCryptoKey && choice !== "auto" && choice !== "webcrypto") {
    throw new TypeError(`"engine" expected "auto" or "webcrypto" for a CryptoKey, got "${choice}"`);
  }
  const engine = hasCryptoKey ? "webcrypto" : choice;
  if (engine === "webcrypto" && pool !== undefined) {
    throw new TypeError('"pool" expected undefined with WebCrypto, which runs in threads of its own, got a WorkerPool');
  }
  return engine;
}

function checkKeys({ key, format, keyset }: SealOptions | KeysetSealOptions): readonly SourceKey[] {
  if (keyset !== undefined) {
    if (key !== undefined || format !== undefined) {
      throw new TypeError('"keyset" takes the place of "key" and "format": give one of them');
    }
    return keysOfSource(keyset);
  }
  const checked = checkFormat(format);
  if (!Array.isArray(key)) return [copyOfKey(checkKey("key", key, checked), 0, checked)];
  if (key.length === 0) throw new TypeError('"key" expected at least one key, got an empty array');
  const list = key.map((each, i) => checkKey(`key[${i}]`, each, checked));
  return list.map((each, index) => copyOfKey(each, index, checked));
}

function copyOfKey(key: Bytes | CryptoKey, index: number, format: Format): SourceKey {
  if (isCryptoKey(key)) return { index, format, key: Secret.alloc(0), cryptoKey: key };
  return { index, format, key: Secret.from(key) };
}

function isCryptoKey(value: unknown): value is CryptoKey {
  return typeof CryptoKey !== "undefined" && value instanceof CryptoKey;
}

/** @throws {TypeError} If HKDF cannot use it. */
function checkCryptoKey(name: string, { algorithm, usages }: CryptoKey): void {
  const isUsable = usages.includes("deriveBits") || usages.includes("deriveKey");
  if (algorithm.name === "HKDF" && isUsable) return;
  throw new TypeError(
    `"${name}" expected a CryptoKey of the algorithm HKDF with the usage deriveBits or deriveKey, got one of ` +
      `${algorithm.name} with ${usages.join(", ") || "none"}`,
  );
}

function checkKey(name: string, value: unknown, { keySize }: Format): Bytes | CryptoKey {
  if (isCryptoKey(value)) {
    checkCryptoKey(name, value);
    return value;
  }
  if (checkKernelKey(value)) {
    throw new TypeError(
      `"${name}" expected bytes: sealed streams derive their keys in this process, which never has a key of the kernel's`,
    );
  }
  const key = toUint8Array(name, value);
  const least = Math.max(LEAST_KEY, keySize);
  if (isZero(key)) {
    throw new RangeError(
      `"${name}" expected a random key, got nothing but zero bytes: was the array zeroed before this call?`,
    );
  }
  if (key.length < least) throw new RangeError(`"${name}" expected at least ${least} bytes, got ${key.length}`);
  return key;
}
