/**
 * Executors: where the batches of a stream run.
 *
 * A stream cuts its input into batches, hands each to an executor, and gives the results in order. An executor opens
 * a stream's keys ({@linkcode Executor.open}), runs its batches ({@linkcode Session.run}) and closes
 * them. There are three:
 *
 * - This thread. `run` returns the result at once, without a promise. A batch is one segment. Bare ciphers use no
 *   batches here (`src/cipher/cipher_transform.ts`).
 * - `WorkerPool`. `run` returns a promise. The pool is a FIFO queue of tasks, with at most two tasks per Worker. A
 *   batch is about 1 MiB.
 * - WebCrypto (`src/sealed/webcrypto.ts`), for sealed streams only. `run` returns a promise. A batch is one segment. It
 *   derives the keys itself, because they may come from a CryptoKey. So it has no {@linkcode Executor} object.
 *
 * These rules hold for all of them:
 *
 * - `BatchTransform` (batch_transform.ts) is the stream's side. It alone knows the order of the batches, the output
 *   that waits for a reader, and the input that waits for more. The {@linkcode SplitRule} of the mode or format says
 *   where the input is cut.
 * - A stream has at most {@linkcode Session.limit} batches that are running, or done and not read. This bounds its
 *   memory.
 * - {@linkcode Session.hasRoom} makes the executor fair. Each stream that has batches there gets an equal share. A
 *   stream whose reader has stopped has no batches there, and does not slow down the others.
 * - The executor returns only verified bytes.
 *
 * @module
 */

import type { BufferPool } from "../byte_queue.ts";
import { type Bytes, describe } from "../bytes.ts";
import type { CipherEngineName, EngineName } from "../engines/engine.ts";
import type { Key } from "../keyring/kernel_key.ts";

/** What an executor opens for a stream, besides the key: plain values, which may be sent to another thread. */
export interface Job {
  /** Which code runs the batches. */
  readonly kind: string;
  readonly engine: CipherEngineName;
  /** Whether each batch continues the one before. One Worker runs all of them, in order. */
  readonly isChain?: boolean;
}

/** Where a batch begins in its stream: plain values. */
export interface BatchPosition {
  readonly isLast: boolean;
  /** The IV of the batch, in modes that have one. */
  readonly iv?: Bytes | undefined;
  /** The bytes of the keystream in front of the batch. */
  readonly position?: number | undefined;
  /** The number of the first sector. */
  readonly sector?: bigint | undefined;
  /** The number of the first segment. */
  readonly index?: number | undefined;
}

/** The outputs of a batch. With an error: the outputs before it. */
export interface BatchResult {
  readonly outputs: Bytes[];
  readonly error?: unknown;
}

/** The keys of one stream, opened where its batches run. */
export interface Session {
  readonly engine: EngineName;
  /** `run` returns results, not promises. */
  readonly isSynchronous: boolean;
  /** Whether the session becomes the owner of a batch's memory. Otherwise `run` does not use it after it returned. */
  readonly ownsInput: boolean;
  /**
   * The size of a batch in bytes. One unit, if that is larger. The last batch, and batches of a slow source, are
   * smaller.
   */
  readonly batchSize: number;
  /** The most batches of the stream that are running, or done and not read. */
  readonly limit: number;
  /** Whether the stream may hand over another batch now. */
  readonly hasRoom: boolean;
  /** Memory for the input of batches, if the executor provides it. */
  readonly memory?: BufferPool | undefined;
  /**
   * Runs a batch. Does not reject: errors are results.
   *
   * @param list The input. An executor that is not synchronous becomes the owner of its memory.
   * @param mayOverwrite For a synchronous executor: output may go into the memory of the input.
   */
  run(list: readonly Bytes[], position: BatchPosition, mayOverwrite: boolean): BatchResult | Promise<BatchResult>;
  /** Releases everything and zeroes the keys. Running batches are dropped. Closing again does nothing. */
  close(): void;
}

/** A session that is synchronous. */
export interface LocalSession extends Session {
  run(list: readonly Bytes[], position: BatchPosition, mayOverwrite: boolean): BatchResult;
}

/**
 * A session of this thread.
 *
 * @param run Adds the outputs of a batch to `outputs`, also if it throws.
 */
export function localSession(
  engine: EngineName,
  run: (list: readonly Bytes[], position: BatchPosition, outputs: Bytes[], mayOverwrite: boolean) => void,
  close: () => void,
): LocalSession {
  return {
    engine,
    isSynchronous: true,
    ownsInput: false,
    batchSize: 0,
    limit: 1,
    hasRoom: true,
    run(list, position, mayOverwrite) {
      const outputs: Bytes[] = [];
      try {
        run(list, position, outputs, mayOverwrite);
        return { outputs };
      } catch (error) {
        return { outputs, error };
      }
    },
    close,
  };
}

/** Opens the keys of streams. */
export interface Executor {
  /** Aborted when the executor is closed. Its streams end with the reason. */
  readonly signal: AbortSignal;
  /** @param key Owned by the session, also if this fails. */
  open(job: Job, key: Key): Session;
}

/**
 * How the input of one stream is cut into batches, each of which is a number of whole units: segments, sectors, blocks.
 */
export interface SplitRule {
  /** The engine that will run, if there is a head. */
  readonly engine: EngineName | undefined;
  /** Bytes in front of the first unit, which {@linkcode open} reads. */
  readonly headSize: number;
  /** The number of the first unit. */
  readonly first: number;
  /** The number of bytes that must follow a batch to show that it is not the last one. */
  readonly lookahead: 0 | 1;
  /**
   * Whether a whole batch runs as a non-final one before the lookahead is there, in a synchronous session. If that
   * fails with EBADMSG, the batch runs again when the lookahead is there or the input has ended.
   */
  readonly isEager: boolean;
  /** Whether the end of the input needs a batch even if no byte is left for it. */
  readonly hasEnd: boolean;
  /** Whether a synchronous executor needs each unit in one piece. */
  readonly isContiguous: boolean;
  /** The bytes of `count` whole units from number `index` on. */
  lengthOf(index: number, count: number): number;
  /** The number of whole units from number `index` on in `length` bytes. */
  countOf(index: number, length: number): number;
  /** The position of the batch whose first unit is number `index`. Called once for each batch, in order. */
  positionOf(index: number, isLast: boolean, list: readonly Bytes[]): BatchPosition;
  /**
   * Opens the keys.
   *
   * @param head The head, shorter than `headSize` if the input ended in it.
   */
  open(head: Bytes): Session;
  /** Zeroes the key, if the session was not opened. */
  discard(): void;
}

/** The executor of each `WorkerPool`. Streams find it here, and so do not import the code of the pool. */
const executors = new WeakMap<object, Executor>();

/** Makes `owner` acceptable as the option `pool`. */
export function registerExecutor(owner: object, executor: Executor): void {
  executors.set(owner, executor);
}

/**
 * The executor of the option `pool`.
 *
 * @throws {TypeError} If it is no `WorkerPool`.
 */
export function checkPool(pool: unknown): Executor | undefined {
  if (pool === undefined) return undefined;
  const executor = typeof pool === "object" && pool !== null ? executors.get(pool) : undefined;
  if (executor) return executor;
  throw new TypeError(`"pool" expected a WorkerPool, got ${describe(pool)}`);
}
