/**
 * The options of the cipher streams, checked and copied before anything is opened.
 *
 * @module
 */

import { type Algorithm, inSectors, parseAlgorithm } from "../algorithms.ts";
import { type Bytes, type BytesLike, cloneBytes, describe, toUint8Array } from "../bytes.ts";
import type { Direction, Engine } from "../engines/engine.ts";
import { type EngineChoice, openEngine } from "../engines/mod.ts";
import { BatchTransform } from "../executors/batch_transform.ts";
import { checkPool, type Executor } from "../executors/executor.ts";
import type { WorkerPool } from "../executors/worker_pool.ts";
import { disposeKey, type KernelKey, type Key } from "../keyring/kernel_key.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { cipherRule, tryCipher } from "./batches.ts";
import { type CipherPlan, CipherTransform } from "./cipher_transform.ts";
import { CipherHandle, engineOf } from "./handle.ts";
import { checkIVPrefix, withIVPrefix } from "./iv_prefix.ts";
import { checkEngine, checkIV, checkPadding, checkSectors, ownKey, type Padding, signalsOf } from "./options.ts";

/** What a stream needs besides its key. */
export interface CipherParameters {
  /** The IV, where the algorithm has one. Never use one twice with the same key. */
  iv?: BytesLike | undefined;
  /**
   * The IV is in front of the ciphertext: encryption makes a random one and puts it there, decryption reads it from
   * there. It takes the place of `iv`. A block counter in the IV (chacha20) starts at 0. Default: false.
   */
  ivPrefix?: boolean | undefined;
  /** `"pkcs7"` by default for cbc, ecb and pcbc, `"none"` elsewhere. */
  padding?: Padding | undefined;
  /** Aborts both sides of the stream. */
  signal?: AbortSignal | undefined;
  /**
   * Output goes into the memory of the chunks that come in: whoever writes a chunk gives it away, and must not write
   * the same memory again before its output was read. Default: false.
   */
  inPlace?: boolean | undefined;
  /**
   * For modes that encrypt sectors (xts, adiantum, hctr2, essiv) and for cbc: bytes per sector, a multiple of 16. Each
   * sector is a message of its own without padding. Its IV is its number: 64 bits little-endian, as dm-crypt's plain64.
   * As there, the number counts units of 512 bytes if `sectorSize` is a multiple of 512, and else sectors.
   */
  sectorSize?: number | undefined;
  /** The number of the first sector in the same units, 0 by default. */
  sector?: number | bigint | undefined;
  /** The number counts sectors, whatever their size: dm-crypt's `iv_large_sectors`. Default: false. */
  ivLargeSectors?: boolean | undefined;
}

/** Options of the streams, and of `encrypt()` and `decrypt()`. */
export interface CipherStreamOptions extends CipherParameters {
  /**
   * The key: a copy is taken, and zeroed once it is of no more use. Or one in the kernel's keyring, which never enters
   * this process.
   */
  key: BytesLike | KernelKey;
  /** Which engine to use; `"auto"`, the default, takes the kernel where it can serve the algorithm. */
  engine?: EngineChoice | undefined;
  /** The Workers that do the work, off this thread. */
  pool?: WorkerPool | undefined;
}

const NAMES: OptionNames<CipherStreamOptions> = {
  key: true,
  iv: true,
  ivPrefix: true,
  padding: true,
  engine: true,
  signal: true,
  inPlace: true,
  sectorSize: true,
  sector: true,
  ivLargeSectors: true,
  pool: true,
};

/**
 * Checks and copies the options.
 *
 * @param source The algorithm's name; or a handle, whose key is used.
 */
export function prepare(
  direction: Direction,
  source: string | CipherHandle,
  options: Partial<CipherStreamOptions>,
): TransformFactory {
  checkOptions("options", options, NAMES);
  // All of them, before the handle is asked for anything: a getter may do what it likes with that.
  const { key, engine, iv, ivPrefix, padding, signal, inPlace = false, pool } = options;
  const { sectorSize, sector, ivLargeSectors } = options;
  const handle = source instanceof CipherHandle ? engineOf(source) : undefined;
  const parsed = handle?.algorithm ?? parseAlgorithm(source as string);
  const hasIVPrefix = checkIVPrefix(parsed, { ivPrefix, iv, sectorSize, sector });
  const sectors = checkSectors(parsed, { iv, sectorSize, sector, ivLargeSectors });
  const algorithm = sectors ? inSectors(parsed) : parsed;
  if (typeof inPlace !== "boolean") throw new TypeError(`"inPlace" expected a boolean, got ${describe(inPlace)}`);
  const plan: CipherPlan = {
    direction,
    algorithm,
    padding: checkPadding(algorithm, padding),
    sectors,
    iv: sectors === undefined && !hasIVPrefix ? ownIV(algorithm, iv) : undefined,
    inPlace,
  };
  if (handle) {
    if (key !== undefined || engine !== undefined) {
      throw new TypeError('"options" expected no "key" and no "engine" with a CipherHandle, which has both');
    }
    if (pool !== undefined) {
      throw new TypeError(
        '"options" expected no "pool" with a CipherHandle, which belongs to its thread: give the key',
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

/** A copy of the IV, if there is one; its length is checked where the name tells it. */
function ownIV(algorithm: Algorithm, iv: BytesLike | undefined): Bytes | undefined {
  const checked = algorithm.ivSize === undefined
    ? iv !== undefined && toUint8Array("iv", iv)
    : checkIV(algorithm, iv, algorithm.ivSize, "stream_init");
  return checked ? cloneBytes(checked) : undefined;
}
