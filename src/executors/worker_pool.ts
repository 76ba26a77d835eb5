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

/** Tasks per Worker: one runs, and one waits, so that the Worker is never idle. */
const TASKS_PER_WORKER = 2;

/** The size of a batch: 0.5 ms of work or more. To send a batch to a Worker and back takes 0.05 ms. */
const BATCH_SIZE = 1024 * 1024;

/** Ends the Workers of a dropped pool. It has no streams, because each of them refers to it. */
const poolFinalizer = new FinalizationRegistry<Scheduler>((scheduler) => scheduler.close(createClosedError()));

const sessionFinalizer = new FinalizationRegistry<() => void>((close) => close());

/**
 * A pool of Workers that processes streams on several cores, so that the event loop of this thread stays free.
 *
 * Pass it as the option `pool` to any stream, to `encrypt()`, `decrypt()`, `seal()`, `unseal()` or `openSealed()`. The
 * output is the same, in the same order. Sealed data comes out in pieces of up to 1 MiB. Any number of streams share a
 * pool, and each gets an equal share. If the mode allows it (ctr, chacha20, ecb, sectors, cbc decryption, sealed
 * segments), all Workers process batches of one stream at once. Streams of other modes use one Worker each. While a
 * reader waits, a stream reads ahead: at most two batches of 1 MiB for each Worker.
 *
 * A pool pays off if a chunk takes about 0.5 ms or more. Ciphers that are as fast as a copy (AES in Bun) are slower in
 * Workers. Chunks are copied. With `inPlace`, a chunk is moved, and so detached, if it has 16 KiB or more, is a whole
 * ArrayBuffer, and lies within one batch. A segment is unsealed when the next one begins, or the stream ends.
 *
 * Workers start on demand, one per turn of the event loop. They do not keep the process alive. In Deno, to start one
 * blocks this thread for 60 ms or more, so call `await pool.ready()` when the program starts. Close the pool, or
 * declare it with `using`. Then its streams fail with KcapiError ECANCELED. A dropped pool is closed when it is
 * garbage-collected.
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
  /**
   * Not in the scheduler, to which the Workers refer: the signal refers to each stream whose reader or writer waits,
   * and would keep it alive.
   */
  readonly #closing = new AbortController();

  /**
   * Creates a pool. It starts no Worker yet.
   *
   * @param size The most Workers. By default the number of processors.
   * @throws {TypeError} If it is not a number.
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
    // Node 22 prints a warning from eleven listeners on. Each stream adds one.
    process.getBuiltinModule("node:events").setMaxListeners(0, signal);
    registerExecutor(this, {
      signal,
      open: (job, key) => new PoolSession(this, scheduler, job, key),
    });
  }

  /**
   * Starts all Workers, one per turn of the event loop.
   *
   * @returns A promise that resolves when all of them are ready.
   * @throws {KcapiError} EACCES, EMFILE or ENOENT if a Worker cannot start. ECANCELED if the pool is closed.
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
    this.#scheduler.close(reason); // before the abort, because a listener may use the pool
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

/** The session of one stream in a pool. */
class PoolSession implements Session {
  readonly isSynchronous = false;
  readonly ownsInput = true;
  readonly batchSize = BATCH_SIZE;
  readonly engine: EngineName;
  readonly limit: number;
  readonly memory: BufferPool;
  /** Keeps the pool alive, because a dropped pool is closed. */
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

/** The queue of tasks, and the Workers that run them. It does not refer to its pool. */
class Scheduler {
  readonly buffers = new SharedBufferPool();
  readonly #size: number;
  #workers: PoolWorker[] = [];
  #queue: Task[] = [];
  #streams = 0;
  /** The number of streams that have tasks. */
  #busy = 0;
  /** A Worker was started in this turn of the event loop, or failed to start. */
  #hasStarted = false;
  #startError: unknown;
  #closed: KcapiError | undefined;

  constructor(size: number) {
    this.#size = size;
  }

  /** The most tasks of one stream: the most tasks of all Workers, divided by the number of streams that have tasks. */
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

  /** Passes tasks to Workers, in the order of the queue. */
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
      // An earlier task of the stream must run first.
      if (this.#queue.findIndex((task) => task.stream === stream) < i) return undefined;
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

  /** Starts a Worker, one per turn of the event loop. Waiting tasks are passed on in the next turn. */
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
