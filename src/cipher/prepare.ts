/**
 * The options of the cipher streams, checked and copied before anything is opened.
 *
 * @module
 */

import { signalsOf } from "../abort.ts";
import { type Algorithm, inSectors, parseAlgorithm } from "../algorithms.ts";
import { type Bytes, type BytesLike, cloneBytes, toUint8Array } from "../bytes.ts";
import type { Direction, Engine } from "../engines/engine.ts";
import { type EngineChoice, openEngine } from "../engines/mod.ts";
import { BatchTransform } from "../executors/batch_transform.ts";
import { checkPool, type Executor } from "../executors/executor.ts";
import type { WorkerPool } from "../executors/worker_pool.ts";
import { disposeKey, type KernelKey, type Key } from "../keyring/kernel_key.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { checkBoolean, checkOptions, type OptionNames } from "../options.ts";
import type { IVMode } from "../position.ts";
import { cipherRule, tryCipher } from "./batches.ts";
import { type CipherPlan, CipherTransform } from "./cipher_transform.ts";
import { prepareGcm } from "./gcm.ts";
import { GCM, type GcmOptions, refuseGcmOptions } from "./gcm_options.ts";
import { CipherHandle, engineOf } from "./handle.ts";
import { checkIVPrefix, withIVPrefix } from "./iv_prefix.ts";
import {
  checkEngine,
  checkIV,
  checkPadding,
  checkPosition,
  checkSectors,
  ownKey,
  type Padding,
  type StreamPosition,
} from "./options.ts";

/** The options of a stream, without its key. */
export interface CipherParameters extends StreamPosition {
  /** The IV, if the algorithm has one. Never reuse an IV with the same key. */
  iv?: BytesLike | undefined;
  /**
   * Puts the IV in front of the ciphertext. Encryption generates a random IV and writes it first, and decryption reads
   * it from there. It replaces `iv`. A block counter in the IV (chacha20) starts at 0. Default: false.
   */
  ivPrefix?: boolean | undefined;
  /** The padding of the last block. Default: `"pkcs7"` for cbc, ecb and pcbc, otherwise `"none"`. */
  padding?: Padding | undefined;
  /** Aborts both sides of the stream. */
  signal?: AbortSignal | undefined;
  /**
   * Writes output into the memory of the input chunks. The caller gives a chunk away by writing it, and must not use
   * its memory before the output was read. Default: false.
   */
  inPlace?: boolean | undefined;
  /**
   * For modes that encrypt sectors (xts, adiantum, hctr2, essiv) and for cbc: bytes per sector, a multiple of 16. Each
   * sector is one message without padding. Its IV is its number, in 64 bits little-endian (dm-crypt's plain64). If
   * `sectorSize` is a multiple of 512, the number counts sectors of 512 bytes as in dm-crypt.
   */
  sectorSize?: number | undefined;
  /** The number of the first sector, counted in the same way. Default: 0. */
  sector?: number | bigint | undefined;
  /** Counts sectors of `sectorSize` instead of 512 bytes: dm-crypt's `iv_large_sectors`. Default: false. */
  ivLargeSectors?: boolean | undefined;
  /**
   * How the sector's number is its IV, by dm-crypt's names: `"plain64"` (64 bits little-endian at the start),
   * `"plain64be"` (64 bits big-endian at the end), or `"plain"` (the low 32 bits little-endian at the start). Default:
   * `"plain64"`.
   */
  ivMode?: IVMode | undefined;
}

/** Options of the streams, and of `encrypt()` and `decrypt()`. */
export interface CipherStreamOptions extends CipherParameters, GcmOptions {
  /**
   * The key. It is copied, and the copy is zeroed when the stream ends. Or a key of the kernel's keyring, which never
   * enters this process.
   */
  key: BytesLike | KernelKey;
  /**
   * The engine. `"auto"`, the default, uses the kernel if it supports the algorithm. `"webcrypto"` is for `gcm(aes)`
   * only.
   */
  engine?: EngineChoice | "webcrypto" | undefined;
  /** The pool of Workers that processes the stream, off this thread. */
  pool?: WorkerPool | undefined;
}

const NAMES: OptionNames<CipherStreamOptions> = {
  key: true,
  iv: true,
  ivPrefix: true,
  position: true,
  counterBits: true,
  padding: true,
  engine: true,
  signal: true,
  inPlace: true,
  sectorSize: true,
  sector: true,
  ivLargeSectors: true,
  ivMode: true,
  pool: true,
  associatedData: true,
  tagSize: true,
  tag: true,
  maxSize: true,
  releaseUnverified: true,
};

/**
 * Checks and copies the options.
 *
 * @param source The algorithm's name, or a handle whose key is used.
 */
export function prepare(
  direction: Direction,
  source: string | CipherHandle,
  options: Partial<CipherStreamOptions>,
): TransformFactory {
  checkOptions("options", options, NAMES);
  if (source === GCM) return prepareGcm(direction, options);
  // Reads all options before it uses the handle, because a getter of the options may close the handle.
  const { key, engine, iv, ivPrefix, padding, signal, inPlace = false, pool } = options;
  const { sectorSize, sector, ivLargeSectors, ivMode, position, counterBits } = options;
  const handle = source instanceof CipherHandle ? engineOf(source) : undefined;
  const parsed = handle?.algorithm ?? parseAlgorithm(source as string);
  refuseGcmOptions(options, parsed.name);
  const hasIVPrefix = checkIVPrefix(parsed, { ivPrefix, iv, sectorSize, sector, position });
  const sectors = checkSectors(parsed, { iv, sectorSize, sector, ivLargeSectors, ivMode });
  const bare = sectors ? inSectors(parsed) : parsed;
  checkBoolean("inPlace", inPlace);
  const checkedPadding = checkPadding(bare, padding);
  const ownedIV = sectors === undefined && !hasIVPrefix ? ownIV(bare, iv) : undefined;
  const start = checkPosition(bare, ownedIV ?? null, { position, counterBits });
  const plan: CipherPlan = { direction, padding: checkedPadding, sectors, iv: ownedIV, inPlace, ...start };
  const { algorithm } = start;
  if (handle) {
    if (key !== undefined || engine !== undefined) {
      throw new TypeError('"options" expected no "key" and no "engine" with a CipherHandle, which has both');
    }
    if (pool !== undefined) {
      throw new TypeError(
        '"options" expected no "pool" with a CipherHandle, which belongs to its thread: pass the key instead',
      );
    }
    return {
      signals: signalsOf(signal),
      inPlace,
      open: () => openHere(plan, hasIVPrefix, () => handle.engine.reinit()),
      discard() {},
    };
  }
  const choice = checkEngine(engine);
  const signals = signalsOf(signal);
  const executor = checkPool(pool);
  const own = ownKey(algorithm, key, choice);
  return {
    signals: executor ? [...signals, executor.signal] : signals,
    inPlace,
    open: () =>
      executor
        ? openInPool(plan, hasIVPrefix, executor, own, choice)
        : openHere(plan, hasIVPrefix, () => openEngine(algorithm, own, choice)),
    discard: () => disposeKey(own),
  };
}

/** Opens a stream in this thread. */
function openHere(plan: CipherPlan, hasIVPrefix: boolean, open: () => Engine): Transform {
  if (!hasIVPrefix) return new CipherTransform({ ...plan, open });
  const engine = open();
  return withIVPrefix(plan, {
    engine: engine.name,
    ivSize: engine.ivSize,
    start: (iv) => new CipherTransform({ ...plan, iv, open: () => engine }),
    close: () => engine.close(),
  });
}

/**
 * Opens a stream whose batches run in the Workers of a pool.
 *
 * @param key Owned by the stream, also if this fails.
 */
function openInPool(
  plan: CipherPlan,
  hasIVPrefix: boolean,
  executor: Executor,
  key: Key,
  choice: EngineChoice,
): Transform {
  const start = (plan: CipherPlan) => new BatchTransform(cipherRule(plan, key, choice, executor), plan.inPlace);
  if (!hasIVPrefix) return start(plan);
  return withIVPrefix(plan, {
    ...tryCipher(plan.algorithm, key, choice),
    start: (iv) => start({ ...plan, iv }),
    close: () => disposeKey(key),
  });
}

/** A copy of the IV, if there is one. Its length is checked here if the name determines it. */
function ownIV(algorithm: Algorithm, iv: BytesLike | undefined): Bytes | undefined {
  const checked = algorithm.ivSize === undefined
    ? iv !== undefined && toUint8Array("iv", iv)
    : checkIV(algorithm, iv, algorithm.ivSize, "stream_init");
  return checked ? cloneBytes(checked) : undefined;
}
