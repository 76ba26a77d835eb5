/**
 * {@linkcode WorkerPool}: the work of streams on all cores.
 *
 * @module
 */

import { describe } from "../bytes.ts";
import type { TransformFactory } from "../streams/transform.ts";
import { enlist, type StreamWorkers } from "../streams/workforce.ts";
import { Crew } from "./crew.ts";
import { cutOf, type Work } from "./cuts.ts";
import { Units } from "./units.ts";

const MOST = 1024;

/** Does not refer to the pool itself, but what it gives does. */
const takeOver = (crew: Crew) => (prepared: TransformFactory, work: object, pool: StreamWorkers): TransformFactory => ({
  ...prepared,
  signals: [...prepared.signals, crew.signal],
  open() {
    try {
      crew.signal.throwIfAborted();
      return new Units(crew, pool, cutOf(work as Work), prepared.inPlace);
    } catch (error) {
      prepared.discard();
      throw error;
    }
  },
});

/** A pool that nobody holds any more is closed. */
const finalizer = new FinalizationRegistry<Crew>((crew) => crew.close());

/**
 * A pool of Workers that does the work of streams, on as many cores as there are, and leaves the event loop of this thread free.
 *
 * Given as `pool` to any stream or iterable, also to those that seal and unseal: the same bytes come out, in order; what is
 * sealed in pieces of up to 1 MiB. Any number of streams share a pool, in turn. Where the mode lets parts of a stream be done
 * for themselves (ctr, chacha20, ecb, sectors, cbc decryption, sealed segments), all Workers do them; another stream is one
 * Worker's at a time. While a reader waits, a stream takes input ahead of him: its share of two units of 1 MiB for each
 * Worker. What ends a stream does not wait for a source that was asked for more.
 *
 * It pays from some 0.5 ms of work for a chunk on; what runs at memory's speed (AES in Bun) is slower in Workers. Chunks are
 * copied; with `inPlace` those that are a whole ArrayBuffer, and do not cross the border of a unit, are moved, and so detached.
 * A segment is unsealed when the next one begins, or the stream ends.
 *
 * Workers start when they are needed and do not keep a process from ending. Close the pool, or declare it with `using`: its streams
 * then fail with KcapiError ECANCELED. A pool that is no longer referenced is closed, too.
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
export class WorkerPool implements StreamWorkers, Disposable {
  /** How many Workers there are at most. */
  readonly size: number;
  readonly #crew: Crew;

  /**
   * Makes a pool. No Worker is started yet.
   *
   * @param size How many Workers; by default as many as there are processors.
   * @throws {TypeError} If it is no number.
   * @throws {RangeError} If it is not an integer from 1 to 1024.
   */
  constructor(size: number = navigator.hardwareConcurrency) {
    if (typeof size !== "number") throw new TypeError(`"size" expected a number, got ${describe(size)}`);
    if (!Number.isInteger(size) || size < 1 || size > MOST) {
      throw new RangeError(`"size" expected an integer from 1 to ${MOST}, got ${size}`);
    }
    this.size = size;
    const crew = new Crew(size);
    this.#crew = crew;
    finalizer.register(this, crew, this);
    enlist(this, takeOver(crew));
  }

  /** Ends the Workers. Streams that are not at their end fail with KcapiError ECANCELED. Closing again does nothing. */
  close(): void {
    finalizer.unregister(this);
    this.#crew.close();
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}
