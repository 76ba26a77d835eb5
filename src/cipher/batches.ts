/**
 * Bare ciphers in batches: how the mode splits a stream (rule F5), and how a batch is run.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import type { Bytes } from "../bytes.ts";
import type { CipherEngineName, Direction, Engine } from "../engines/engine.ts";
import { resolveKernelKey } from "../keyring/syscalls.ts";
import { chooseEngine, type EngineChoice, openEngine } from "../engines/mod.ts";
import {
  type BatchPosition,
  type Executor,
  type Job,
  type LocalSession,
  localSession,
  type SplitRule,
} from "../executors/executor.ts";
import { cloneKey, disposeKey, type Key } from "../keyring/kernel_key.ts";
import { sectorAt, type Sectors } from "../position.ts";
import { Secret } from "../secret.ts";
import { type CipherPlan, CipherTransform } from "./cipher_transform.ts";
import type { Padding } from "./options.ts";

/** What an executor opens for a stream of a bare cipher, as plain values. */
export interface CipherJob extends Job {
  readonly kind: "cipher";
  readonly isChain: boolean;
  readonly algorithm: Algorithm;
  readonly direction: Direction;
  readonly padding: Padding;
  readonly sectors: Sectors | undefined;
  readonly inPlace: boolean;
  /** The IV of the stream. */
  readonly iv: Bytes | undefined;
  /** Bytes of the keystream in front of the stream. */
  readonly position: number;
}

/**
 * The rule by which a cipher's stream is split into batches for `executor`.
 *
 * @param key Owned by the rule, also if this fails.
 */
export function cipherRule(plan: CipherPlan, key: Key, choice: EngineChoice, executor: Executor): SplitRule {
  const { algorithm, direction, iv, padding, sectors, inPlace, position = 0 } = plan;
  const engine = engineFor(plan, key, choice);
  const startOf = batchStarts(plan);
  const isChain = startOf === undefined;
  const unit = isChain ? 1 : sectors?.sectorSize ?? algorithm.chunkSize;
  const isPadded = padding === "pkcs7";
  // The first unit lacks the bytes in front of the position.
  const missing = (index: number) => isChain || index > 0 ? 0 : position % unit;
  const job: CipherJob = {
    kind: "cipher",
    isChain,
    algorithm,
    direction,
    engine,
    padding,
    sectors,
    inPlace,
    iv,
    position,
  };
  return {
    engine,
    headSize: 0,
    first: 0,
    lookahead: isPadded && direction === "decrypt" && !isChain ? 1 : 0,
    isEager: false,
    hasEnd: isChain || isPadded && direction === "encrypt",
    isContiguous: false,
    lengthOf: (index, count) => count * unit - missing(index),
    countOf: (index, length) => Math.max(0, Math.floor((length + missing(index)) / unit)),
    positionOf: (index, isLast, list) => ({ isLast, ...startOf?.(index, list) }),
    // A key of the kernel's keyring is searched once for all Workers.
    open: () => executor.open(job, key instanceof Secret ? key : { serial: resolveKernelKey(key) }),
    discard: () => disposeKey(key),
  };
}

/**
 * Opens a cipher in this thread and closes it again, to learn the engine and the IV's length, or the error.
 *
 * @param key Not disposed of, unless this fails.
 */
export function tryCipher(
  algorithm: Algorithm,
  key: Key,
  choice: EngineChoice,
): { engine: CipherEngineName; ivSize: number } {
  try {
    const engine = openEngine(algorithm, cloneKey(key), choice);
    const { name, ivSize } = engine;
    engine.close();
    return { engine: name, ivSize };
  } catch (error) {
    disposeKey(key);
    throw error;
  }
}

/**
 * The engine that will run. If only the engine can check the key, the IV or the sector size, a cipher is opened and
 * closed here, so that the stream's constructor throws the error.
 */
function engineFor(plan: CipherPlan, key: Key, choice: EngineChoice): CipherEngineName {
  const { algorithm, sectors } = plan;
  try {
    const isChecked = algorithm.keySizes && algorithm.ivSize !== undefined && !sectors;
    if (isChecked && key instanceof Secret) return chooseEngine(algorithm, key.length, choice);
    const trial = new CipherTransform({ ...plan, open: () => openEngine(algorithm, cloneKey(key), choice) });
    trial.close();
    return trial.engine;
  } catch (error) {
    disposeKey(key);
    throw error;
  }
}

/** Where the batch begins whose first unit is number `index`: its IV, its sector, or its position in the keystream. */
type BatchStarts = (index: number, list: readonly Bytes[]) => Omit<BatchPosition, "isLast">;

/** Undefined if each batch continues the state of the previous one. */
function batchStarts({ algorithm, direction, iv, sectors, position = 0 }: CipherPlan): BatchStarts | undefined {
  if (sectors) return (index) => ({ sector: sectorAt(sectors, index) });
  if (algorithm.oneStreamPerKey || !iv && algorithm.mode !== "ecb") return undefined;
  if (algorithm.counter) {
    const { chunkSize } = algorithm;
    const first = position - position % chunkSize;
    return (index) => ({ position: index === 0 ? position : first + index * chunkSize });
  }
  if (algorithm.kind !== "stream") return undefined;
  if (algorithm.mode === "ecb") return () => ({});
  return isFedByCiphertext(algorithm, direction) ? ciphertextIVs(iv!) : undefined;
}

/** Decryption in these modes needs only the previous ciphertext block. */
function isFedByCiphertext({ mode }: Algorithm, direction: Direction): boolean {
  return direction === "decrypt" && (mode === "cbc" || mode === "cfb");
}

function ciphertextIVs(iv: Bytes): BatchStarts {
  let previous = iv;
  return (_, list) => {
    const position = { iv: previous };
    previous = endOf(list, iv.length);
    return position;
  };
}

/** The last `length` bytes of a list. */
function endOf(list: readonly Bytes[], length: number): Bytes {
  const end = new Uint8Array(length);
  for (let i = list.length - 1, at = length; i >= 0 && at > 0; i--) {
    const part = list[i]!.subarray(-at);
    end.set(part, at -= part.length);
  }
  return end;
}

/**
 * Opens a cipher in this thread.
 *
 * @param key Owned by the session, also if this fails.
 */
export function openCipher(job: CipherJob, key: Key): LocalSession {
  const { isChain, direction, engine: name, padding, sectors, inPlace, algorithm } = job;
  const plan = { direction, algorithm, inPlace };
  if (isChain) {
    const open = () => openEngine(algorithm, key, name);
    const { iv, position } = job;
    const transform = new CipherTransform({ ...plan, iv, position, padding, sectors: undefined, open });
    return localSession(
      name,
      (list, { isLast }, outputs) => runThrough(transform, list, isLast, outputs),
      () => transform.close(),
    );
  }
  const engine = openEngine(algorithm, key, name);
  return localSession(name, (list, { isLast, iv = job.iv, sector, position }, outputs) => {
    const transform = new CipherTransform({
      ...plan,
      iv,
      position,
      padding: isLast ? padding : "none",
      sectors: sectors && { ...sectors, sector: sector! },
      open: () => withoutClose(engine),
    });
    runThrough(transform, list, true, outputs);
  }, () => engine.close());
}

/** Writes `list` to a cipher and adds its output to `outputs`. */
function runThrough(transform: CipherTransform, list: readonly Bytes[], isEnd: boolean, outputs: Bytes[]): void {
  const read = () => {
    while (transform.pending) {
      const output = transform.read();
      if (output) addOutput(outputs, output);
    }
  };
  if (list.length > 0) transform.write(list);
  read();
  if (!isEnd) return;
  transform.end();
  read();
}

/** Adds an output. Joins it to the previous one if it follows it in memory. */
function addOutput(outputs: Bytes[], output: Bytes): void {
  const last = outputs.at(-1);
  if (last?.buffer === output.buffer && last.byteOffset + last.length === output.byteOffset) {
    outputs[outputs.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + output.length);
  } else {
    outputs.push(output);
  }
}

/** The engine without `close()`: a batch's transform closes its engine, but the next batch needs it. */
function withoutClose(engine: Engine): Engine {
  return {
    name: engine.name,
    blockSize: engine.blockSize,
    ivSize: engine.ivSize,
    get window() {
      return engine.window;
    },
    init: (direction, iv) => engine.init(direction, iv),
    update: (list, last) => engine.update(list, last),
    op: (list) => engine.op(list),
    take: (length) => engine.take(length),
    pass: (bytes, inPlace) => engine.pass(bytes, inPlace),
    capacity: (queued) => engine.capacity(queued),
    reinit: () => engine.reinit(),
    close() {},
  };
}
