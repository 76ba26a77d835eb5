/**
 * The options of sealed streams, checked and copied before anything is opened.
 *
 * @module
 */

import { signalsOf } from "../abort.ts";
import { type Bytes, type BytesLike, cloneBytes, toUint8Array } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { Secret } from "../secret.ts";
import { checkBoolean, checkOptions, type OptionNames } from "../options.ts";
import type { Executor, Session } from "../executors/executor.ts";
import type { WorkerPool } from "../executors/worker_pool.ts";
import { checkFormat, type Format, type Header, type SealedFormat } from "./format.ts";
import { keysOfSource, type KeySource, type SourceKey } from "./key_source.ts";

/** Options of sealed streams besides the key. */
export interface SealStreamOptions {
  /** Data to authenticate and not to store, such as the name of a file: then one file cannot replace another. */
  associatedData?: BytesLike | undefined;
  /**
   * Which engine runs, `"auto"` by default. `"kernel"` and `"userspace"` run AES-CTR; AES-GCM runs in userspace only.
   * `"webcrypto"` runs both, several segments at once: browsers have no other, nor does `@kcapi/streams/sealed`.
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
  readonly engines: Engines;
  readonly signals: readonly AbortSignal[];
  readonly inPlace: boolean;
  /** Undefined for this thread. */
  readonly executor: Executor | undefined;
}

/** The engines that an entry of the package has for sealed streams. */
export interface Engines {
  /** The options that there are. */
  readonly optionNames: Readonly<Record<string, true>>;
  /** @throws {TypeError} If a key is of a kind that other streams take. */
  refuseKey?(name: string, key: unknown): void;
  /**
   * Checks the options `engine` and `pool`.
   *
   * @throws {TypeError} If one is wrong, or does not fit the keys.
   */
  choose(options: SealOptions | KeysetSealOptions, keys: readonly SourceKey[]): Pick<SealPlan, "engine" | "executor">;
  /**
   * The engine that runs, known before there is a key for it.
   *
   * @throws {KcapiError} If the engine asked for cannot run here.
   */
  engineFor(plan: SealPlan): EngineName;
  /**
   * Derives the keys of one stream, and opens them where the plan says.
   *
   * @param plan Its key is owned by the session, also if this fails.
   */
  open(kind: "seal" | "unseal", plan: SealPlan, header: Header): Session;
}

const LEAST_KEY = 16;

/** The options of every entry. */
export const COMMON_OPTIONS: OptionNames<Omit<SealOptions, "pool">> = {
  key: true,
  keyset: true,
  associatedData: true,
  format: true,
  engine: true,
  signal: true,
  inPlace: true,
};

/**
 * Checks and copies the options of a sealing. Of several keys, the first one is used.
 *
 * @throws {TypeError} or {RangeError}, before anything is opened.
 */
export function checkSealOptions(options: SealOptions | KeysetSealOptions, engines: Engines): SealPlan {
  const [first, ...others] = checkUnsealOptions(options, engines);
  for (const { key } of others) key.dispose();
  return first;
}

/**
 * Checks and copies the options of an unsealing.
 *
 * @param others The names of options that are checked elsewhere.
 * @returns A plan for each key, in the order in which they are tried.
 * @throws {TypeError} or {RangeError}, before anything is opened.
 */
export function checkUnsealOptions(
  options: SealOptions | KeysetSealOptions,
  engines: Engines,
  others: Readonly<Record<string, true>> = {},
): readonly [SealPlan, ...SealPlan[]] {
  checkOptions("options", options, { ...engines.optionNames, ...others });
  const { associatedData = new Uint8Array(0), signal, inPlace = false } = options;
  checkBoolean("inPlace", inPlace);
  const signals = signalsOf(signal);
  const rest = { inPlace, engines, associatedData: cloneBytes(toUint8Array("associatedData", associatedData)) };
  const keys = checkKeys(options, engines);
  try {
    const choice = engines.choose(options, keys);
    const all = choice.executor ? [...signals, choice.executor.signal] : signals;
    return keys.map((key) => ({ ...key, ...rest, ...choice, signals: all })) as [SealPlan, ...SealPlan[]];
  } catch (error) {
    for (const { key } of keys) key.dispose();
    throw error;
  }
}

function isZero(key: Bytes): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== 0) return false;
  return key.length > 0;
}

function checkKeys(
  { key, format, keyset }: SealOptions | KeysetSealOptions,
  engines: Engines,
): readonly SourceKey[] {
  if (keyset !== undefined) {
    if (key !== undefined || format !== undefined) {
      throw new TypeError('"keyset" takes the place of "key" and "format": give one of them');
    }
    return keysOfSource(keyset);
  }
  const checked = checkFormat(format);
  const check = (name: string, value: unknown) => checkKey(name, value, checked, engines);
  if (!Array.isArray(key)) return [copyOfKey(check("key", key), 0, checked)];
  if (key.length === 0) throw new TypeError('"key" expected at least one key, got an empty array');
  const list = key.map((each, i) => check(`key[${i}]`, each));
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

function checkKey(name: string, value: unknown, { keySize }: Format, engines: Engines): Bytes | CryptoKey {
  if (isCryptoKey(value)) {
    checkCryptoKey(name, value);
    return value;
  }
  engines.refuseKey?.(name, value);
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
