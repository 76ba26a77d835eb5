/**
 * Turns of the event loop for work that never waits for anything.
 *
 * @module
 */

import { setImmediate } from "./runtime/mod.ts";

/** For so many milliseconds such work may keep the event loop. */
const LENGTH = 4;

/** The clock takes as long as a small chunk does: it is read at most once in so many calls, if they follow fast. */
const MOST_UNSEEN = 64;
const FAST = LENGTH / 16;

/** Taken once: a test may replace the timers of its runtime, and the clock. */
const now: () => number = performance.now.bind(performance);

/**
 * The time since the event loop had its last turn. Work that goes from one microtask to the next, as over bytes in
 * memory, would keep timers and sockets from theirs.
 */
export class TimeSlice {
  /** Undefined until there is work. */
  #start: number | undefined;
  #seen = 0;
  /** The clock is read at each of so many calls, and next at the end of so many. */
  #interval = 1;
  #unseen = 1;

  /** Whether it is the event loop's turn. To be asked after each small piece of work. */
  get over(): boolean {
    if (--this.#unseen > 0) return false;
    const time = now();
    if (this.#start === undefined) this.#start = this.#seen = time;
    this.#interval = time - this.#seen < FAST ? Math.min(2 * this.#interval, MOST_UNSEEN) : 1;
    this.#seen = time;
    const isOver = time - this.#start > LENGTH;
    this.#unseen = isOver ? 1 : this.#interval;
    return isOver;
  }

  /** The event loop had a turn, or has one soon. The time counts from the next piece of work. */
  restart(): void {
    this.#start = undefined;
    this.#interval = this.#unseen = 1;
  }

  /** Gives the event loop its turn. */
  async next(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.restart();
  }
}
