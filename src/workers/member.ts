/**
 * One Worker of a pool.
 *
 * @module
 */

import type { Worker } from "node:worker_threads";
import type { Bytes } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { memoryOf, type Order, piecesOf, type Place, type Reply, type Request, type Result } from "./messages.ts";

/** Units that one Worker has at most, with those that it was promised: one to do, one that waits. */
export const DEPTH = 2;

/** Who hears of a Worker. */
export interface Employer {
  /** A unit is done. */
  done(member: Member): void;
  /** It is no more. */
  died(member: Member): void;
}

/** What a unit's sender is told. */
type Answer = (result: Result) => void;

/** One Worker, and what it has to do. */
export class Member {
  /** Who has a slot, and has not sent its unit. */
  readonly holders = new Set<{ idle(): void }>();
  readonly #worker: Worker;
  readonly #employer: Employer;
  readonly #answers = new Map<number, Answer>();
  readonly #opened = new Set<number>();
  #units = 0;
  #isReady = false;
  /** Why it does nothing any more. */
  #end: Error | undefined;

  /** @throws {KcapiError} EACCES where the runtime does not permit it. */
  constructor(employer: Employer) {
    this.#employer = employer;
    this.#worker = start();
    this.#worker.on("message", (reply: Reply) => this.#hear(reply));
    this.#worker.on("error", (error: unknown) => this.#ends(error));
    this.#worker.on("exit", () => this.#ends(undefined));
    this.#worker.unref();
  }

  get load(): number {
    return this.#answers.size + this.holders.size;
  }

  get isIdle(): boolean {
    return this.#answers.size === 0;
  }

  get isDead(): boolean {
    return this.#end !== undefined;
  }

  /**
   * Sends a unit, whose memory is moved.
   *
   * @param order What its stream is, made where the Worker does not know it yet.
   */
  send(
    sender: { readonly id: number; idle(): void },
    order: () => Order,
    list: readonly Bytes[],
    place: Place,
    answer: Answer,
  ): void {
    this.holders.delete(sender);
    if (this.#end) return answer({ pieces: [], failure: this.#end });
    const unit = this.#units++;
    this.#answers.set(unit, answer);
    this.#worker.ref(); // the process is not done
    if (!this.#opened.has(sender.id)) this.#open(sender.id, order());
    const pieces = piecesOf(list);
    this.#post({ unit, of: sender.id, pieces, place }, memoryOf(pieces));
  }

  /** A stream has ended. */
  forget(id: number): void {
    if (this.#opened.delete(id) && !this.#end) this.#worker.postMessage({ close: id } satisfies Request);
  }

  /** Lets it close its ciphers; then it ends. */
  quit(reason: Error): void {
    if (this.#end) return;
    this.#end = reason;
    this.#worker.postMessage({ quit: true } satisfies Request);
    this.#fail(reason);
  }

  #open(id: number, order: Order): void {
    this.#opened.add(id);
    this.#post({ open: id, order }, "buffer" in order.key ? [order.key.buffer] : []);
  }

  #post(request: Request, memory: ArrayBuffer[]): void {
    try {
      this.#worker.postMessage(request, memory);
    } catch {
      this.#worker.postMessage(request); // some memory cannot be moved: that of WebAssembly
    }
  }

  #hear(reply: Reply): void {
    if ("ready" in reply) this.#isReady = true;
    else if ("quit" in reply) void this.#worker.terminate();
    else {
      const answer = this.#answers.get(reply.unit);
      this.#answers.delete(reply.unit);
      if (this.#answers.size === 0) this.#worker.unref();
      answer?.(reply.result);
      this.#employer.done(this);
      if (this.isIdle) { for (const holder of [...this.holders]) holder.idle(); }
    }
  }

  #ends(cause: unknown): void {
    if (this.#end) return;
    this.#end = this.#isReady ? gone(cause) : neverStarted(cause);
    this.#employer.died(this);
    this.#fail(this.#end);
  }

  #fail(reason: Error): void {
    for (const answer of [...this.#answers.values()]) answer({ pieces: [], failure: reason });
    this.#answers.clear();
    this.#worker.unref();
    for (const holder of [...this.holders]) holder.idle();
  }
}

function start(): Worker {
  const { Worker } = process.getBuiltinModule("node:worker_threads");
  // As a bundler writes it, or the npm package has it, this is JavaScript.
  const name = import.meta.url.endsWith(".ts") ? "./cipher_worker.ts" : "./cipher_worker.js";
  try {
    return new Worker(loadable(new URL(name, import.meta.url)), { name: "kcapi" });
  } catch (cause) {
    throw new KcapiError("EACCES", "Worker", "this program may start no Worker", {
      cause,
      hint: "permit it: in Deno with --allow-read=PATH of this module, in Node with --allow-worker",
    });
  }
}

/** Deno's takes no address of the network, as those of a registry's modules, but a module that imports one. */
function loadable(url: URL): URL {
  if (!url.protocol.startsWith("http")) return url;
  return new URL(`data:text/javascript,${encodeURIComponent(`import ${JSON.stringify(url.href)};`)}`);
}

function gone(cause: unknown): KcapiError {
  return new KcapiError("EIO", "Worker", "a Worker ended before its work was done", { cause });
}

function neverStarted(cause: unknown): KcapiError {
  return new KcapiError("ENOENT", "Worker", "the module of the Workers cannot be loaded", {
    cause,
    hint: 'in a bundle, make it an entry of its own: a file cipher_worker.js with import "@kcapi/streams/worker"',
  });
}
