/**
 * {@linkcode PoolWorker}: one Worker of a pool.
 *
 * @module
 */

import type { Worker } from "node:worker_threads";
import type { Bytes } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { Key } from "../keyring/kernel_key.ts";
import { Secret } from "../secret.ts";
import type { BatchPosition, BatchResult, Job } from "./executor.ts";
import { deserializeError, type Reply, type Request } from "./messages.ts";
import { movable, type SharedBufferPool, SharedBufferTable } from "./shared_buffers.ts";

/** The pool's state of a stream. It does not refer to the stream, so that a dropped stream is garbage-collected. */
export interface StreamRegistration {
  readonly id: number;
  readonly job: Job;
  readonly key: Key;
  /** The Workers in which the stream is open. */
  readonly workers: PoolWorker[];
  /** The number of batches that wait for a Worker, or that a Worker has. */
  tasks: number;
  isClosed: boolean;
}

/** One batch. */
export interface Task {
  readonly stream: StreamRegistration;
  readonly list: readonly Bytes[];
  readonly position: BatchPosition;
  readonly settle: (result: BatchResult) => void;
}

/** The scheduler, to which a Worker reports. */
interface Owner {
  readonly buffers: SharedBufferPool;
  /** Called when the Worker has room for another task, or has ended. */
  changed(worker: PoolWorker): void;
}

/**
 * One Worker, and its tasks.
 *
 * Tasks are in arrays. An old Set or Map allocates new tables in V8's old space when it changes, which can start a
 * major garbage collection. With eight streams, Node was 1.25 times as slow.
 */
export class PoolWorker {
  readonly #owner: Owner;
  readonly #worker: Worker;
  readonly #known = new SharedBufferTable();
  readonly #started = Promise.withResolvers<void>();
  #tasks: { readonly batch: number; readonly task: Task }[] = [];
  #batches = 0;
  #isReady = false;
  /** The reason why it has ended. */
  #end: Error | undefined;

  /** @throws {KcapiError} EACCES if the runtime does not permit Workers. */
  constructor(owner: Owner) {
    this.#owner = owner;
    this.#worker = startWorker();
    this.#worker.on("message", (reply: Reply) => this.#receive(reply));
    this.#worker.on("error", (error: unknown) => this.#finish(error));
    this.#worker.on("exit", () => this.#finish(undefined));
    this.#worker.unref();
    this.#started.promise.catch(() => {});
  }

  /** The number of its tasks. */
  get load(): number {
    return this.#tasks.length;
  }

  get hasEnded(): boolean {
    return this.#end !== undefined;
  }

  /** Resolves when its module is loaded. Keeps the process alive until then. */
  async started(): Promise<void> {
    if (!this.#isReady && !this.#end) this.#worker.ref();
    await this.#started.promise;
    this.#unrefIfIdle();
  }

  /** Runs a task, whose memory is moved or shared. The result comes later, or at once if the Worker has ended. */
  run(task: Task): void {
    const batch = this.#batches++;
    try {
      if (!this.#end) this.#post(batch, task);
    } catch (error) {
      return this.#settle(task, { outputs: [], error });
    }
    // It had ended before, or ended in this call: Bun reports the end of a Worker from within postMessage().
    if (this.#end) return this.#settle(task, { outputs: [], error: this.#end });
    this.#tasks.push({ batch, task });
    this.#worker.ref();
  }

  /** Closes a stream. */
  forget(id: number): void {
    if (!this.#end) this.#worker.postMessage({ close: id } satisfies Request);
  }

  /** Closes its streams, then ends it. */
  quit(reason: Error): void {
    if (this.#end) return;
    this.#worker.postMessage({ quit: true } satisfies Request);
    this.#fail(reason);
  }

  #post(batch: number, { stream, list, position }: Task): void {
    const { id, job, key, workers } = stream;
    if (!workers.includes(this)) {
      const sent = key instanceof Secret ? key.clone().release() : key;
      this.#worker.postMessage(
        { open: id, job, key: sent } satisfies Request,
        sent instanceof ArrayBuffer ? [sent] : [],
      );
      workers.push(this);
    }
    const buffers = this.#known.learn(list);
    const request: Request = { batch, of: id, buffers, pieces: this.#known.piecesOf(list), position };
    this.#worker.postMessage(request, movable(list));
  }

  #receive(reply: Reply): void {
    if ("ready" in reply) {
      this.#isReady = true;
      this.#started.resolve();
    } else if ("quit" in reply) {
      void this.#worker.terminate();
    } else {
      const found = this.#tasks.findIndex(({ batch }) => batch === reply.batch);
      const [entry] = found < 0 ? [] : this.#tasks.splice(found, 1);
      this.#unrefIfIdle();
      const error = reply.failure && deserializeError(reply.failure);
      if (entry) this.#settle(entry.task, { outputs: this.#known.bytesOf(reply.pieces), error });
      this.#owner.changed(this);
    }
  }

  #settle({ list, settle }: Task, result: BatchResult): void {
    settle(result);
    for (const bytes of list) this.#owner.buffers.release(bytes);
  }

  #unrefIfIdle(): void {
    if (this.load === 0) this.#worker.unref();
  }

  #finish(cause: unknown): void {
    if (this.#end) return;
    this.#fail(this.#isReady ? createEndedError(cause) : createStartError(cause));
    this.#owner.changed(this);
  }

  #fail(reason: Error): void {
    this.#end = reason;
    this.#started.reject(reason);
    for (const { task } of this.#tasks.splice(0)) this.#settle(task, { outputs: [], error: reason });
    this.#worker.unref();
  }
}

function startWorker(): Worker {
  const { Worker } = process.getBuiltinModule("node:worker_threads");
  const url = moduleURL();
  checkDescriptors(url);
  try {
    return new Worker(loadable(url), { name: "kcapi" });
  } catch (cause) {
    throw new KcapiError("EACCES", "Worker", "this program is not permitted to start a Worker", {
      cause,
      hint: "permit it: in Deno with --allow-read=PATH of this module, in Node with --allow-worker",
    });
  }
}

/** More descriptors than a Worker uses while it starts. */
const DESCRIPTORS = 32;

/**
 * Checks that there are enough descriptors to start a Worker. Otherwise Node reports that the module cannot be loaded,
 * and Deno and Bun end the process. The check opens the module itself, which this process may read.
 *
 * @throws {KcapiError} EMFILE or ENFILE if descriptors are short.
 */
function checkDescriptors(url: URL): void {
  if (url.protocol !== "file:") return;
  const { openSync, closeSync } = process.getBuiltinModule("node:fs");
  const open: number[] = [];
  try {
    while (open.length < DESCRIPTORS) open.push(openSync(url, "r"));
  } catch (cause) {
    const { code } = cause as NodeJS.ErrnoException;
    if (code === "EMFILE" || code === "ENFILE") throw descriptorError(code, cause);
  } finally {
    for (const descriptor of open) closeSync(descriptor);
  }
}

function descriptorError(code: "EMFILE" | "ENFILE", cause: unknown): KcapiError {
  return new KcapiError(code, "Worker", `a Worker starts only while ${DESCRIPTORS} descriptors are free`, {
    cause,
    hint: "close files, or raise the limit (ulimit -n)",
  });
}

/** The URL of the module that Workers run. In a bundle, the module is beside the bundle. */
function moduleURL(): URL {
  // Not as the argument of new URL(), from which webpack would take that it has to bundle the module.
  const own = import.meta.url;
  const [, extension] = /\/executors\/pool_worker\.(ts|js)$/.exec(own) ?? [];
  return new URL(extension ? `../workers/cipher_worker.${extension}` : "./cipher_worker.js", own);
}

/**
 * Deno does not start a Worker from an `https:` URL, as modules of a registry have. Node does not start a file as
 * Worker if the program was started with `--input-type`. Both start a `data:` URL that imports the module.
 */
function loadable(url: URL): URL {
  const isFile = !url.protocol.startsWith("http");
  if (isFile && !process.execArgv.some((argument) => argument.startsWith("--input-type"))) return url;
  return new URL(`data:text/javascript,${encodeURIComponent(`import ${JSON.stringify(url.href)};`)}`);
}

function createEndedError(cause: unknown): KcapiError {
  return new KcapiError("EIO", "Worker", "a Worker ended before its work was done", { cause });
}

function createStartError(cause: unknown): KcapiError {
  const [short] = /\bE[MN]FILE\b/.exec(String(cause)) ?? [];
  if (short) return descriptorError(short as "EMFILE", cause);
  return new KcapiError("ENOENT", "Worker", "the module of the Workers cannot be loaded", {
    cause,
    hint: 'in a bundle, add an entry point cipher_worker.js that contains import "@kcapi/streams/worker"',
  });
}
