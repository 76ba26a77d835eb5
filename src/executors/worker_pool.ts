/**
 * {@linkcode WorkerPool}: the executor that runs batches on all cores.
 *
 * @module
 */

import { type Bytes, describe } from "../bytes.ts";
import type { BufferPool } from "../byte_queue.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { disposeKey, type Key } from "../keyring/kernel_key.ts";
import { requireServer } from "../runtime/mod.ts";
import { setImmediate } from "../runtime/web.ts";
import { type BatchPosition, type BatchResult, type Job, registerExecutor, type Session } from "./executor.ts";
import { PoolWorker, type StreamRegistration, type Task } from "./pool_worker.ts";
import { SharedBufferPool } from "./shared_buffers.ts";

const MOST_WORKERS = 1024;

/** Tasks at one Worker: one that it runs, and one that waits, so that it is never idle. */
const TASKS_PER_WORKER = 2;

/**
 * Some 0.5 ms of work and more. Sending a batch to a Worker and back takes 0.05 ms.
 */
const BATCH_SIZE = 1024 * 1024;

/** Ends the Workers of a pool that nobody holds. It has no streams: each of them holds it. */
const poolFinalizer = new FinalizationRegistry<Scheduler>((scheduler) => scheduler.close(createClosedError()));

const sessionFinalizer = new FinalizationRegistry<() => void>((close) => close());

/**
 * A pool of Workers that does the work of streams, on as many cores as there are, and leaves the event loop of this
 * thread free.
 *
 * Give it as `pool` to any stream or iterable, to `seal()`, `unseal()` and `openSealed()`. The output is the same, in
 * order; sealed data comes out in pieces of up to 1 MiB. Any number of streams share a pool, fairly. Where the mode
 * allows it (ctr, chacha20, ecb, sectors, cbc decryption, sealed segments), all Workers run parts of one stream. Other
 * streams are run by one Worker at a time. While a reader waits, a stream takes input ahead of the reader: at most two
 * batches of 1 MiB for each Worker. An error does not wait for a source that was asked for more.
 *
 * A pool pays off from about 0.5 ms of work for a chunk. What runs at the speed of memory (AES in Bun) is slower in
 * Workers. Chunks are copied; with `inPlace`, those of 16 KiB or more that are a whole ArrayBuffer, and do not cross
 * the border of a batch, are moved, and so detached. A segment is unsealed when the next one begins, or the stream
 * ends.
 *
 * Workers start when they are needed, one in a turn of the event loop, and do not keep a process from ending. Starting
 * one takes this thread 60 ms and more in Deno: `await pool.ready()` when the program starts. Close the pool, or
 * declare it with `using`. Its streams then fail with KcapiError ECANCELED. A pool that is no longer referenced is
 * closed, too.
 *
 * @example Usage
 * ```ts
 * import { SealStream, UnsealStream, WorkerPool } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * using pool = new WorkerPool();
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const text = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new SealStream({ key, pool }))
 *   .pipeThrough(new UnsealStream({ key, pool }));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 */
export class WorkerPool implements Disposable {
  /** The number of Workers that the pool may start. */
  readonly size: number;
  readonly #scheduler: Scheduler;
  /** Not of the scheduler, which its Workers hold: the signal holds each stream whose writer or reader waits. */
  readonly #closing = new AbortController();

  /**
   * Makes a pool. No Worker is started yet.
   *
   * @param size The number of Workers, by default that of processors.
   * @throws {TypeError} If it is no number.
   * @throws {RangeError} If it is not an integer from 1 to 1024.
   * @throws {KcapiError} ENOSYS in a browser.
   */
  constructor(size: number = processorCount()) {
    requireServer("WorkerPool");
    if (typeof size !== "number") throw new TypeError(`"size" expected a number, got ${describe(size)}`);
    if (!Number.isInteger(size) || size < 1 || size > MOST_WORKERS) {
      throw new RangeError(`"size" expected an integer from 1 to ${MOST_WORKERS}, got ${size}`);
    }
    this.size = size;
    const scheduler = new Scheduler(size);
    this.#scheduler = scheduler;
    poolFinalizer.register(this, scheduler, this);
    const { signal } = this.#closing;
    // Node 22 warns of eleven listeners. Each stream is one.
    process.getBuiltinModule("node:events").setMaxListeners(0, signal);
    registerExecutor(this, {
      signal,
      open: (job, key) => new PoolSession(this, scheduler, job, key),
    });
  }

  /**
   * Starts all Workers, one in a turn of the event loop.
   *
   * @returns A promise that resolves when all of them are ready.
   * @throws {KcapiError} If one cannot be started: EACCES, EMFILE, ENOENT; ECANCELED if the pool is closed.
   *
   * @example Start all Workers before the first request
   * ```ts
   * import { WorkerPool } from "@kcapi/streams";
   *
   * using pool = new WorkerPool(2);
   * await pool.ready();
   * ```
   */
  async ready(): Promise<void> {
    await this.#scheduler.ready();
  }

  /** Ends the Workers. Streams that have not ended fail with KcapiError ECANCELED. Closing again does nothing. */
  close(): void {
    poolFinalizer.unregister(this);
    const reason = createClosedError();
    this.#scheduler.close(reason); // which listeners of the signal may not use any more
    this.#closing.abort(reason);
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function createClosedError(): KcapiError {
  return new KcapiError("ECANCELED", "close", "the pool of Workers was closed");
}

/** Node has no `navigator` with `--no-experimental-global-navigator`. */
function processorCount(): number {
  requireServer("WorkerPool");
  return globalThis.navigator?.hardwareConcurrency ?? process.getBuiltinModule("node:os").availableParallelism();
}

/** A stream at a pool. */
class PoolSession implements Session {
  readonly isSynchronous = false;
  readonly batchSize = BATCH_SIZE;
  readonly engine: EngineName;
  readonly limit: number;
  readonly memory: BufferPool;
  /** The stream keeps its pool, which would be closed if nobody held it. */
  readonly owner: WorkerPool;
  readonly #scheduler: Scheduler;
  readonly #stream: StreamRegistration;

  constructor(owner: WorkerPool, scheduler: Scheduler, job: Job, key: Key) {
    this.owner = owner;
    this.engine = job.engine;
    this.limit = TASKS_PER_WORKER * owner.size;
    this.memory = scheduler.buffers;
    this.#scheduler = scheduler;
    const stream = scheduler.join(job, key);
    this.#stream = stream;
    sessionFinalizer.register(this, () => scheduler.leave(stream), this);
  }

  get hasRoom(): boolean {
    return this.#stream.tasks < this.#scheduler.share;
  }

  run(list: readonly Bytes[], position: BatchPosition): Promise<BatchResult> {
    return this.#scheduler.run(this.#stream, list, position);
  }

  close(): void {
    sessionFinalizer.unregister(this);
    this.#scheduler.leave(this.#stream);
  }
}

/** The queue of tasks, and the Workers that run them. Does not refer to its pool. */
class Scheduler {
  readonly buffers = new SharedBufferPool();
  readonly #size: number;
  #workers: PoolWorker[] = [];
  #queue: Task[] = [];
  #streams = 0;
  /** Streams that have tasks. */
  #busy = 0;
  /** A Worker was started, or could not be, in this turn of the event loop. */
  #hasStarted = false;
  #startError: unknown;
  #closed: KcapiError | undefined;

  constructor(size: number) {
    this.#size = size;
  }

  /** Tasks that one stream may have: all there can be at Workers, divided by the streams that have some. */
  get share(): number {
    return Math.max(1, Math.floor(TASKS_PER_WORKER * this.#size / Math.max(1, this.#busy)));
  }

  join(job: Job, key: Key): StreamRegistration {
    if (this.#closed) {
      disposeKey(key);
      throw this.#closed;
    }
    this.buffers.join();
    return { id: this.#streams++, job, key, workers: [], tasks: 0, isClosed: false };
  }

  leave(stream: StreamRegistration): void {
    if (stream.isClosed) return;
    stream.isClosed = true;
    this.#drop((task) => task.stream === stream, undefined);
    for (const worker of stream.workers) worker.forget(stream.id);
    disposeKey(stream.key);
    this.buffers.leave();
  }

  run(stream: StreamRegistration, list: readonly Bytes[], position: BatchPosition): Promise<BatchResult> {
    return new Promise((resolve) => {
      if (stream.tasks++ === 0) this.#busy++;
      const settle = (result: BatchResult) => {
        if (--stream.tasks === 0) this.#busy--;
        resolve(result);
      };
      this.#queue.push({ stream, list, position, settle });
      this.#dispatch();
    });
  }

  async ready(): Promise<void> {
    let failure: { readonly error: unknown } | undefined;
    const wait = (worker: PoolWorker) => worker.started().catch((error) => void (failure ??= { error }));
    while (!failure && this.#workers.length < this.#size) {
      if (this.#closed) throw this.#closed;
      const worker = this.#start();
      if (worker) void wait(worker);
      else if (this.#startError) throw this.#startError;
      await new Promise<void>(setImmediate);
    }
    await Promise.all(this.#workers.map(wait));
    if (failure) throw failure.error;
  }

  changed(worker: PoolWorker): void {
    if (worker.hasEnded) this.#workers = this.#workers.filter((each) => each !== worker);
    this.#dispatch();
  }

  close(reason: KcapiError): void {
    if (this.#closed) return;
    this.#closed = reason;
    this.#drop(() => true, reason);
    for (const worker of this.#workers.splice(0)) worker.quit(reason);
  }

  /** Removes tasks from the queue. */
  #drop(isDropped: (task: Task) => boolean, error: unknown): void {
    const dropped = this.#queue.filter(isDropped);
    this.#queue = this.#queue.filter((task) => !dropped.includes(task));
    for (const { list, settle } of dropped) {
      settle({ outputs: [], error });
      for (const bytes of list) this.buffers.release(bytes);
    }
  }

  /** Gives tasks to Workers, first come, first served. */
  #dispatch(): void {
    for (let i = 0; i < this.#queue.length;) {
      const task = this.#queue[i]!;
      const worker = this.#workerFor(task, i);
      if (!worker) i++;
      else {
        this.#queue.splice(i, 1);
        worker.run(task);
      }
    }
    if (this.#queue.length > 0 && this.#workers.length === 0 && this.#startError) {
      this.#drop(() => true, this.#startError);
    }
  }

  #workerFor({ stream }: Task, i: number): PoolWorker | undefined {
    if (stream.job.isChain) {
      const [bound] = stream.workers;
      if (bound) return bound.hasEnded || bound.load < TASKS_PER_WORKER ? bound : undefined;
      if (this.#queue.findIndex((task) => task.stream === stream) < i) return undefined; // an earlier one goes first
    }
    let best: PoolWorker | undefined;
    for (const worker of this.#workers) if (!best || worker.load < best.load) best = worker;
    if (best?.load === 0) return best;
    if (this.#workers.length < this.#size) {
      const started = this.#start();
      if (started || !this.#startError) return started;
    }
    return best && best.load < TASKS_PER_WORKER ? best : undefined;
  }

  /** Starts a Worker, one in a turn of the event loop: the tasks that wait are given out in the next one. */
  #start(): PoolWorker | undefined {
    const isRetry = this.#startError !== undefined && this.#workers.length === 0;
    if (this.#hasStarted && !isRetry) return undefined;
    this.#hasStarted = true;
    this.#startError = undefined;
    setImmediate(() => {
      this.#hasStarted = false;
      this.#dispatch();
    });
    try {
      const worker = new PoolWorker(this);
      this.#workers.push(worker);
      return worker;
    } catch (error) {
      this.#startError = error;
      return undefined;
    }
  }
}
