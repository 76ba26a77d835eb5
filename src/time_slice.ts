/**
 * Yields to the event loop in work that otherwise never waits.
 *
 * @module
 */

import { setImmediate } from "./runtime/web.ts";

/** The work yields after this many milliseconds. */
const SLICE_LENGTH = 4;

/** Reading the clock takes as long as a small chunk. Fast calls read it once in up to this many calls. */
const MAX_INTERVAL = 64;
const FAST_INTERVAL = SLICE_LENGTH / 16;

/** Captured at import, because a test may replace the clock of its runtime. */
const now: () => number = performance.now.bind(performance);

/**
 * Measures the time since the last turn of the event loop. Work that runs from microtask to microtask, for example over
 * bytes in memory, would otherwise block timers and sockets.
 */
export class TimeSlice {
  readonly #seesTurns: boolean;
  /** Undefined until there is work. */
  #start: number | undefined;
  #seen = 0;
  /** The clock is read once in `#interval` calls, next after `#unseen` more. */
  #interval = 1;
  #unseen = 1;

  /** @param seesTurns Whether each turn of the event loop ends the slice, not only those that the work yields for. */
  constructor(seesTurns = false) {
    this.#seesTurns = seesTurns;
  }

  /** Whether the work must yield. Ask after each small piece of work. */
  get over(): boolean {
    if (--this.#unseen > 0) return false;
    const time = now();
    if (this.#start === undefined) {
      this.#start = this.#seen = time;
      if (this.#seesTurns) setImmediate(() => this.restart());
    }
    this.#interval = time - this.#seen < FAST_INTERVAL ? Math.min(2 * this.#interval, MAX_INTERVAL) : 1;
    this.#seen = time;
    const isOver = time - this.#start > SLICE_LENGTH;
    this.#unseen = isOver ? 1 : this.#interval;
    return isOver;
  }

  /** Ends the slice, because the event loop had a turn or has one soon. The next one starts with the next work. */
  restart(): void {
    this.#start = undefined;
    this.#interval = this.#unseen = 1;
  }

  /** Yields to the event loop, then starts a new slice. */
  async next(): Promise<void> {
    await new Promise<void>((resolve) => setImmediate(resolve));
    this.restart();
  }
}
