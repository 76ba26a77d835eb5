/**
 * The options of sealed streams, checked and copied before anything is opened.
 *
 * @module
 */

import { type Bytes, type BytesLike, bytesOf, copyOf, describe } from "../bytes.ts";
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
  /** Which engine runs AES-CTR, `"auto"` by default. AES-GCM is always the runtime's own. */
  engine?: EngineChoice | undefined;
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
   * A list has several keys, for rotation: the first one seals. To open, each is tried on the first segment.
   */
  key: BytesLike | readonly BytesLike[];
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
  readonly key: Secret;
  readonly associatedData: Bytes;
  readonly format: Format;
  readonly engine: EngineChoice;
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
  const choice = checkEngine(engine);
  const executor = checkPool(pool);
  const rest = {
    engine: choice,
    signals: executor ? [...signalsOf(signal), executor.signal] : signalsOf(signal),
    inPlace,
    executor,
    associatedData: copyOf(bytesOf("associatedData", associatedData)),
  };
  const keys = checkKeys(options);
  try {
    for (const { format } of keys) checkEngineFor(format, choice);
  } catch (error) {
    for (const { key } of keys) key.dispose();
    throw error;
  }
  return keys.map((key) => ({ ...key, ...rest })) as [SealPlan, ...SealPlan[]];
}

function isZero(key: Bytes): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== 0) return false;
  return key.length > 0;
}

function checkEngineFor({ cipher }: Format, choice: EngineChoice): void {
  if (choice !== "kernel" || cipher !== "AES-GCM-HKDF") return;
  throw new TypeError(
    '"engine" expected "auto" or "userspace" for AES-GCM-HKDF, which is the runtime\'s own, got "kernel": ' +
      "take a format of AES-CTR-HMAC",
  );
}

function checkKeys({ key, format, keyset }: SealOptions | KeysetSealOptions): readonly SourceKey[] {
  if (keyset !== undefined) {
    if (key !== undefined || format !== undefined) {
      throw new TypeError('"keyset" takes the place of "key" and "format": give one of them');
    }
    return keysOfSource(keyset);
  }
  const checked = checkFormat(format);
  if (!Array.isArray(key)) return [{ index: 0, format: checked, key: Secret.from(checkKey("key", key, checked)) }];
  if (key.length === 0) throw new TypeError('"key" expected at least one key, got an empty array');
  const list = key.map((each, i) => checkKey(`key[${i}]`, each, checked));
  return list.map((bytes, index) => ({ index, format: checked, key: Secret.from(bytes) }));
}

function checkKey(name: string, value: unknown, { keySize }: Format): Bytes {
  if (checkKernelKey(value)) {
    throw new TypeError(
      `"${name}" expected bytes: sealed streams derive their keys in this process, which never has a key of the kernel's`,
    );
  }
  const key = bytesOf(name, value);
  const least = Math.max(LEAST_KEY, keySize);
  if (isZero(key)) {
    throw new RangeError(
      `"${name}" expected a random key, got nothing but zero bytes: was the array zeroed before this call?`,
    );
  }
  if (key.length < least) throw new RangeError(`"${name}" expected at least ${least} bytes, got ${key.length}`);
  return key;
}
