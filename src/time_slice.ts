/**
 * Turns of the event loop for work that never waits for anything.
 *
 * @module
 */

import { setImmediate } from "./runtime/mod.ts";

/** So long may such work keep the event loop, in milliseconds. */
const LENGTH = 4;

/**
 * The time since the event loop had its last turn. Work that goes from one microtask to the next, as over a large
 * chunk in memory, would keep timers and sockets from theirs.
 */
export class TimeSlice {
  #start = performance.now();

  /** Whether it is the event loop's turn. */
  get over(): boolean {
    return performance.now() - this.#start > LENGTH;
  }

  /** Gives the event loop its turn. */
  async next(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.#start = performance.now();
  }
}
