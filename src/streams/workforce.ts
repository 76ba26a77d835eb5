/**
 * Work that is done elsewhere: the one thing that streams know of Workers.
 *
 * @module
 */

import { describe } from "../bytes.ts";
import type { TransformFactory } from "./transform.ts";

/** Who does the work of streams in other threads: an instance of `WorkerPool`. */
export interface StreamWorkers {
  /** How many there are. */
  readonly size: number;
}

/**
 * How a pool does the work of a stream: what it gives is opened instead of `factory`. It refers to the pool, which lives as long
 * as its streams.
 */
type TakeOver = (factory: TransformFactory, work: object, pool: StreamWorkers) => TransformFactory;

const pools = new WeakMap<object, TakeOver>();

/** Lets a pool do the work of the streams that it is given to. */
export function enlist(pool: StreamWorkers, takeOver: TakeOver): void {
  pools.set(pool, takeOver);
}

/** The pool asked for, if there is one. */
export function checkWorkers(pool: unknown): StreamWorkers | undefined {
  if (pool === undefined) return undefined;
  if (typeof pool === "object" && pool !== null && pools.has(pool)) return pool as StreamWorkers;
  throw new TypeError(`"pool" expected a WorkerPool, got ${describe(pool)}`);
}

/**
 * `factory` as it is; or with a pool, done there.
 *
 * @param work What that takes, in the words of the room that it comes from.
 */
export function doneBy(pool: StreamWorkers | undefined, factory: TransformFactory, work: object): TransformFactory {
  return pool ? pools.get(pool)!(factory, work, pool) : factory;
}
