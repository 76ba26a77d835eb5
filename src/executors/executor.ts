/**
 * Executors: where the work of a stream is done.
 *
 * A stream cuts its input into batches, hands each to an executor, and gives the results in order. An executor opens
 * a stream's keys ({@linkcode Executor.open}), runs its batches ({@linkcode Session.run}) and closes
 * them. There are three:
 *
 * - This thread. `run` returns the result at once: no promise is on the path of a chunk. A batch is one segment.
 *   (Bare ciphers do without batches here: `src/cipher/cipher_transform.ts`.)
 * - `WorkerPool`. `run` returns a promise. The pool is a queue of tasks, first come, first served, with at most two
 *   tasks at each Worker. A batch is about 1 MiB.
 * - WebCrypto (`src/sealed/webcrypto.ts`), for sealed streams only. `run` returns a promise. A batch is one segment. It
 *   derives the keys itself, so that they may come from a CryptoKey: there is no {@linkcode Executor} object.
 *
 * What holds for all of them:
 *
 * - `BatchTransform` (batch_transform.ts) is the stream's side. It alone knows the order of batches, what waits for a
 *   reader, and what waits for more input. How input is cut is the {@linkcode SplitRule} of the mode or format.
 * - A stream has at most {@linkcode Session.limit} batches: under way, or done and not read. That bounds its memory.
 * - {@linkcode Session.hasRoom} makes it fair: a stream has at most its share of the executor under way. Only streams
 *   count that have batches there. A stream whose reader stands still has none, and costs the others nothing.
 * - The executor verifies what is to be verified before it returns a byte of it.
 *
 * @module
 */

import type { Memory } from "../byte_queue.ts";
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
export interface Position {
  readonly isLast: boolean;
  /** The IV of the batch, in modes that have one. */
  readonly iv?: Bytes | undefined;
  /** The number of the first sector. */
  readonly sector?: bigint | undefined;
  /** The number of the first segment. */
  readonly index?: number | undefined;
}

/** What came out of a batch. With an error: what came out in front of it. */
export interface BatchResult {
  readonly outputs: Bytes[];
  readonly error?: unknown;
}

/** One stream's keys, open where its batches run. */
export interface Session {
  readonly engine: EngineName;
  /** `run` returns results, not promises, and uses the memory of a batch only until it returns. */
  readonly isSynchronous: boolean;
  /** Bytes that make a batch, or one unit if that is more. The last batch, and those of a slow source, are smaller. */
  readonly batchSize: number;
  /** Batches that the stream may have at once: under way, or done and not read. */
  readonly limit: number;
  /** Whether the stream may hand over another batch now. */
  readonly hasRoom: boolean;
  /** Where batches are to be gathered. */
  readonly memory?: Memory | undefined;
  /**
   * Runs a batch. Does not reject: errors are results.
   *
   * @param list The input. An executor that is not synchronous becomes the owner of its memory.
   * @param mayOverwrite For a synchronous executor: output may go into the memory of the input.
   */
  run(list: readonly Bytes[], position: Position, mayOverwrite: boolean): BatchResult | Promise<BatchResult>;
  /** Releases everything, and zeroes the keys. Batches under way are dropped. Closing again does nothing. */
  close(): void;
}

/** A session that is synchronous. */
export interface LocalSession extends Session {
  run(list: readonly Bytes[], position: Position, mayOverwrite: boolean): BatchResult;
}

/**
 * A session of this thread.
 *
 * @param run Adds what comes out of a batch to `outputs`, also if it throws.
 */
export function localSession(
  engine: EngineName,
  run: (list: readonly Bytes[], position: Position, outputs: Bytes[], mayOverwrite: boolean) => void,
  close: () => void,
): LocalSession {
  return {
    engine,
    isSynchronous: true,
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
  /** Bytes that must follow a batch before it is known not to be the last one. */
  readonly hold: 0 | 1;
  /**
   * A synchronous session does not wait for them: a whole batch is run as one that is not the last. If it is refused
   * (EBADMSG), it waits for them after all, and is run again as what it is.
   */
  readonly isEager: boolean;
  /** Whether the end takes a batch even if no byte is left for it. */
  readonly hasEnd: boolean;
  /** Whether a synchronous executor needs each unit in one piece. */
  readonly isContiguous: boolean;
  /** The bytes of `count` whole units from number `index` on. */
  lengthOf(index: number, count: number): number;
  /** The number of whole units from number `index` on that `length` bytes have. */
  countOf(index: number, length: number): number;
  /** Where the batch begins whose first unit is number `index`. Called once for each batch, in order. */
  positionOf(index: number, isLast: boolean, list: readonly Bytes[]): Position;
  /**
   * Opens the keys.
   *
   * @param head The head, shorter than `headSize` if the input ended in it.
   */
  open(head: Bytes): Session;
  /** Zeroes the key, if the session was not opened. */
  discard(): void;
}

/** The executor behind each `WorkerPool`. Streams find it here, so that they need not load the code of the pool. */
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
