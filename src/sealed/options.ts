/**
 * The options of sealed streams, checked and copied before anything is opened.
 *
 * @module
 */

import { type Bytes, type BytesLike, bytesOf, copyOf, describe } from "../bytes.ts";
import { checkEngine, signalsOf } from "../cipher/options.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { checkKernelKey } from "../kernel_key.ts";
import { Secret } from "../secret.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { checkPool, type Executor } from "../executors/executor.ts";
import type { WorkerPool } from "../executors/worker_pool.ts";
import { checkFormat, type Format, type SealedFormat } from "./format.ts";

/** Options of the streams that seal and unseal, of `seal()`, `unseal()` and `openSealed()`. */
export interface SealOptions {
  /**
   * The key, from which those of each stream are derived: at least 16 bytes, or 32 for a format of AES-256; 32 random
   * ones are advised. A copy is taken, and zeroed once it is of no more use.
   */
  key: BytesLike;
  /** What is authenticated together with the data, and not stored: a name, say, so that no file passes for another. */
  associatedData?: BytesLike | undefined;
  /** The format, which is not stored either; `"AES256_CTR_HMAC_SHA256_64KB"` by default. */
  format?: SealedFormat | undefined;
  /** Which engine runs AES-CTR, `"auto"` by default. AES-GCM is always the runtime's own. */
  engine?: EngineChoice | undefined;
  /** Aborts both sides. */
  signal?: AbortSignal | undefined;
  /**
   * Whoever writes a chunk gives it away: it is kept without a copy, and whole segments in it are unsealed in its own
   * memory. Default: false.
   */
  inPlace?: boolean | undefined;
  /** The Workers that seal or unseal the segments, off this thread. */
  pool?: WorkerPool | undefined;
}

/** The checked options. */
export interface SealPlan {
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
  associatedData: true,
  format: true,
  engine: true,
  signal: true,
  inPlace: true,
  pool: true,
};

/** @throws {TypeError} or {RangeError}, before anything is opened. */
export function checkSealOptions(options: SealOptions): SealPlan {
  checkOptions("options", options, NAMES);
  const { key, associatedData = new Uint8Array(0), format, engine, signal, inPlace = false, pool } = options;
  if (typeof inPlace !== "boolean") throw new TypeError(`"inPlace" expected a boolean, got ${describe(inPlace)}`);
  const checked = checkFormat(format);
  const choice = checkEngine(engine);
  if (choice === "kernel" && checked.cipher === "AES-GCM-HKDF") {
    throw new TypeError(
      '"engine" expected "auto" or "userspace" for AES-GCM-HKDF, which is the runtime\'s own, got "kernel": ' +
        "take a format of AES-CTR-HMAC",
    );
  }
  const executor = checkPool(pool);
  return {
    format: checked,
    engine: choice,
    signals: executor ? [...signalsOf(signal), executor.signal] : signalsOf(signal),
    inPlace,
    executor,
    associatedData: copyOf(bytesOf("associatedData", associatedData)),
    key: Secret.from(checkKey(key, checked)),
  };
}

function isZero(key: Bytes): boolean {
  for (let i = 0; i < key.length; i++) if (key[i] !== 0) return false;
  return key.length > 0;
}

function checkKey(value: unknown, { keySize }: Format): Bytes {
  if (checkKernelKey(value)) {
    throw new TypeError(
      '"key" expected bytes: sealed streams derive keys from theirs in this process, which never has one of the kernel\'s',
    );
  }
  const key = bytesOf("key", value);
  const least = Math.max(LEAST_KEY, keySize);
  if (isZero(key)) {
    throw new RangeError(
      '"key" expected a random key, got nothing but zero bytes: was the array zeroed before this call?',
    );
  }
  if (key.length < least) throw new RangeError(`"key" expected at least ${least} bytes, got ${key.length}`);
  return key;
}
