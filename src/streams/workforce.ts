/**
 * Work that is done elsewhere: the one thing that streams know of Workers.
 *
 * @module
 */

import { describe } from "../bytes.ts";
import type { TransformFactory } from "./transform.ts";

/** Who does the work of streams in other threads: an instance of `CipherWorkers`. */
export interface StreamWorkers {
  /** How many there are. */
  readonly size: number;
}

/**
 * How a pool does the work of a stream: what it gives is opened instead of `factory`. It refers to the pool, which lives as long
 * as its streams.
 */
type TakeOver = (factory: TransformFactory, work: object, workers: StreamWorkers) => TransformFactory;

const pools = new WeakMap<object, TakeOver>();

/** Lets a pool do the work of the streams that it is given to. */
export function enlist(workers: StreamWorkers, takeOver: TakeOver): void {
  pools.set(workers, takeOver);
}

/** The pool asked for, if there is one. */
export function checkWorkers(workers: unknown): StreamWorkers | undefined {
  if (workers === undefined) return undefined;
  if (typeof workers === "object" && workers !== null && pools.has(workers)) return workers as StreamWorkers;
  throw new TypeError(`"workers" expected a CipherWorkers, got ${describe(workers)}`);
}

/**
 * `factory` as it is; or with a pool, done there.
 *
 * @param work What that takes, in the words of the room that it comes from.
 */
export function doneBy(workers: StreamWorkers | undefined, factory: TransformFactory, work: object): TransformFactory {
  return workers ? pools.get(workers)!(factory, work, workers) : factory;
}
