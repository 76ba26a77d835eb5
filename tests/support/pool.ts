/**
 * Workers for tests. This file records each started Worker and its pending work. It also has the contract of the suites
 * that run with a pool.
 */
import process from "node:process";
import type { Worker } from "node:worker_threads";
import { encrypt, WorkerPool } from "../../mod.ts";
import { type Contract, plainContract, testWith, turnsBeside, webCryptoContract } from "./contract.ts";
import { assert, assertEquals, openFiles, takes } from "./deps.ts";
import { bytes, collect, collectGarbage } from "./support.ts";

// ---- every Worker -----------------------------------------------------------------------------------------------

/** A Worker that a pool has started. */
export interface Started {
  readonly worker: Worker;
  /** The kinds of the messages to and from it, in order. */
  readonly sent: string[];
  readonly heard: string[];
  hasExited: boolean;
}

/** All Workers that any pool of this process started. */
export const started: Started[] = [];

/** Hooks of a test: change a message to a Worker, observe that it was sent, and delay an answer. */
export const hooks: {
  change?: (kind: string, to: Started, message: object) => void;
  sent?: (kind: string, to: Started) => void;
  deliver?: (kind: string, deliver: () => void, from: Started) => void;
} = {};

const kindOf = (message: object) => Object.keys(message)[0]!;

const threads = process.getBuiltinModule("node:worker_threads") as { Worker: typeof Worker };

/** Replaces the runtime's Worker, which src/executors/pool_worker.ts looks up at each start. */
class Watched extends threads.Worker {
  readonly #started: Started = { worker: this, sent: [], heard: [], hasExited: false };

  constructor(...parameters: ConstructorParameters<typeof Worker>) {
    super(...parameters);
    started.push(this.#started);
    super.on("message", (message: object) => void this.#started.heard.push(kindOf(message)));
    super.on("exit", () => void (this.#started.hasExited = true));
  }

  // deno-lint-ignore no-explicit-any
  override on(event: any, listener: (...values: any[]) => void): this {
    if (event !== "message") return super.on(event, listener);
    return super.on("message", (message: object) => {
      const deliver = () => listener(message);
      if (hooks.deliver) hooks.deliver(kindOf(message), deliver, this.#started);
      else deliver();
    });
  }

  override postMessage(message: unknown, memory?: Parameters<Worker["postMessage"]>[1]): void {
    if (typeof message !== "object") return super.postMessage(message); // A message of a test.
    hooks.change?.(kindOf(message!), this.#started, message!);
    super.postMessage(message, memory);
    this.#started.sent.push(kindOf(message as object));
    hooks.sent?.(kindOf(message as object), this.#started);
  }
}
threads.Worker = Watched;

const count = (kinds: readonly string[], kind: string) => kinds.filter((each) => each === kind).length;

/** Units that are with Workers. */
export function underWay(): number {
  return started.filter(({ hasExited }) => !hasExited)
    .reduce((sum, { sent, heard }) => sum + count(sent, "batch") - count(heard, "batch"), 0);
}

/** Waits for a condition that depends on other threads or the garbage collector. */
export async function until(isSo: () => boolean, what: string): Promise<void> {
  for (const begin = performance.now(); !isSo();) {
    assert(performance.now() - begin < 60_000, `not within a minute: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Creates a pool and waits until all its Workers have started. */
export async function warm(size: number): Promise<WorkerPool> {
  const pool = new WorkerPool(size);
  const before = started.length;
  await pool.ready();
  const options = { key: bytes(16), iv: bytes(16), engine: "userspace", pool } as const;
  await Promise.all(Array.from({ length: size }, () => collect(encrypt("cbc(aes)", options, bytes(16)))));
  assertEquals(started.length - before, size);
  await until(() => started.slice(before).every(({ heard }) => heard.includes("ready")), "Workers have started");
  return pool;
}

let contractPool: Promise<WorkerPool> | undefined;
let contractStarted: readonly Started[] = [];

/** The pool of the second run of the contract's suites. */
function poolOfContract(): Promise<WorkerPool> {
  const before = started.length;
  return contractPool ??= warm(2).then((pool) => {
    contractStarted = started.slice(before);
    return pool;
  });
}

/** Closes the pool. Resolves when its Workers have closed their handles and ended. */
export async function closePoolOfContract(): Promise<void> {
  (await poolOfContract()).close();
  await until(() => contractStarted.every(({ hasExited }) => hasExited), "Workers have ended");
  await collectGarbage(); // Finalizers must run before the test file ends.
}

// ---- the contract, twice ----------------------------------------------------------------------------------------

/** Returns the contract for the module at `url`: its query is `pool`, `webcrypto` or empty. */
export async function contractOf(url: string): Promise<Contract> {
  const { searchParams } = new URL(url);
  if (searchParams.has("webcrypto")) return webCryptoContract("WebCrypto: ");
  return searchParams.has("pool") ? await poolContract() : plainContract();
}

async function poolContract(): Promise<Contract> {
  let count = 0;
  return {
    ...plainContract(),
    test: testWith("pool: ", { sanitize: false }, () => takes(count++)),
    once() {},
    pool: await poolOfContract(),
    ...turnsBeside(underWay, () => until(() => underWay() === 0, "Workers have done all")),
    assertReleased: (files, message = "") =>
      until(() => openFiles() <= files, `${message} descriptors are back at ${files}`),
  };
}
