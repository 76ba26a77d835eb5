/**
 * One Worker of a pool.
 *
 * @module
 */

import type { Worker } from "node:worker_threads";
import type { Bytes } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { type Blocks, KnownBlocks, movable } from "./blocks.ts";
import type { Order, Place, Reply, Request, Result } from "./messages.ts";

/** Units that one Worker has at most, with those that it was promised: one to do, one that waits. */
export const DEPTH = 2;

/** Who hears of a Worker. */
export interface Employer {
  /** A unit is done. */
  done(member: Member): void;
  /** It is no more. */
  died(member: Member): void;
}

/** A unit that is with the Worker. */
interface Sent {
  readonly unit: number;
  /** Where it was. */
  readonly list: readonly Bytes[];
  /** What its sender is told. */
  readonly answer: (result: Result) => void;
}

/** What a pool has to know of a stream, while there is one and when it is gone. May not refer to it. */
export interface Enrolment {
  readonly id: number;
  /** The Workers that know of it. */
  readonly known: Member[];
  /** Whether it has units under way. */
  isBusy: boolean;
}

/** Who sends units: a stream. */
export interface Sender {
  readonly enrolment: Enrolment;
  /** The Worker whose room this has is idle. */
  idle(): void;
}

/**
 * One Worker, and what it has to do.
 *
 * What lives as long as a pool, and changes with each unit, is in arrays here: a Set or a Map that has grown old gets its new tables among what is
 * old, and with each V8 looks whether it is time to mark all of that. Memory that comes and goes makes it so: eight streams at
 * once took 1.25 times as long in Node.
 */
export class Member {
  /** Who has a slot, and has not sent its unit. */
  #holders: Sender[] = [];
  readonly #worker: Worker;
  readonly #employer: Employer;
  readonly #blocks: Blocks;
  readonly #known = new KnownBlocks();
  #sent: Sent[] = [];
  #units = 0;
  #isReady = false;
  /** Why it does nothing any more. */
  #end: Error | undefined;

  /** @throws {KcapiError} EACCES where the runtime does not permit it. */
  constructor(employer: Employer, blocks: Blocks) {
    this.#employer = employer;
    this.#blocks = blocks;
    this.#worker = start();
    this.#worker.on("message", (reply: Reply) => this.#hear(reply));
    this.#worker.on("error", (error: unknown) => this.#ends(error));
    this.#worker.on("exit", () => this.#ends(undefined));
    this.#worker.unref();
  }

  get load(): number {
    return this.#sent.length + this.#holders.length;
  }

  get isIdle(): boolean {
    return this.#sent.length === 0;
  }

  get isDead(): boolean {
    return this.#end !== undefined;
  }

  /** Keeps room for one unit of `sender`. */
  promise(sender: Sender): void {
    this.#holders.push(sender);
  }

  /** `sender` does not need it. */
  release(sender: Sender): void {
    this.#holders = this.#holders.filter((each) => each !== sender);
  }

  /**
   * Sends a unit, whose memory is moved, or is a block: that is free again once it is answered. If it throws, no unit was sent.
   *
   * @param order What its stream is, made where the Worker does not know it yet.
   */
  send(sender: Sender, order: () => Order, list: readonly Bytes[], place: Place, answer: Sent["answer"]): void {
    this.release(sender);
    const sent = { unit: this.#units++, list, answer };
    if (!this.#end) this.#post(sent, sender.enrolment, order, place);
    // Before, or just now: one runtime tells of the end of a Worker within the call that ends it.
    if (this.#end) return this.#answer(sent, { outputs: [], failure: this.#end });
    this.#sent.push(sent);
    this.#worker.ref(); // the process is not done
  }

  /** A stream has ended. */
  forget(id: number): void {
    if (!this.#end) this.#worker.postMessage({ close: id } satisfies Request);
  }

  /** Lets it close its ciphers; then it ends. */
  quit(reason: Error): void {
    if (this.#end) return;
    this.#end = reason;
    this.#worker.postMessage({ quit: true } satisfies Request);
    this.#fail(reason);
  }

  #post({ unit, list }: Sent, { id, known }: Enrolment, order: () => Order, place: Place): void {
    if (!known.includes(this)) {
      this.#open(id, order());
      known.push(this);
    }
    const blocks = this.#known.newIn(list);
    this.#known.add(blocks);
    const request: Request = { unit, of: id, blocks, pieces: this.#known.piecesOf(list), place };
    this.#worker.postMessage(request, movable(list));
  }

  #open(id: number, order: Order): void {
    const request: Request = { open: id, order };
    this.#worker.postMessage(request, order.key instanceof ArrayBuffer ? [order.key] : []);
  }

  #hear(reply: Reply): void {
    if ("ready" in reply) this.#isReady = true;
    else if ("quit" in reply) void this.#worker.terminate();
    else {
      const sent = this.#sent.find(({ unit }) => unit === reply.unit);
      this.#sent = this.#sent.filter((each) => each !== sent);
      if (this.isIdle) this.#worker.unref();
      if (sent) this.#answer(sent, { outputs: this.#known.bytesOf(reply.pieces), failure: reply.failure });
      this.#employer.done(this);
      if (this.isIdle) { for (const holder of [...this.#holders]) holder.idle(); }
    }
  }

  #ends(cause: unknown): void {
    if (this.#end) return;
    this.#end = this.#isReady ? gone(cause) : neverStarted(cause);
    this.#employer.died(this);
    this.#fail(this.#end);
  }

  #answer({ list, answer }: Sent, result: Result): void {
    answer(result);
    for (const bytes of list) this.#blocks.give(bytes);
  }

  #fail(reason: Error): void {
    for (const sent of this.#sent.splice(0)) this.#answer(sent, { outputs: [], failure: reason });
    this.#worker.unref();
    for (const holder of [...this.#holders]) holder.idle();
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

/**
 * Deno's takes no address of the network, as those of a registry's modules, but a module that imports one. Nor does Node's take
 * a file where the program was started with `--input-type`, and so is none.
 */
function loadable(url: URL): URL {
  const isFile = !url.protocol.startsWith("http");
  if (isFile && !process.execArgv.some((argument) => argument.startsWith("--input-type"))) return url;
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
