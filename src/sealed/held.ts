/**
 * The part of a segment that has come.
 *
 * @module
 */

import type { Bytes, Scatter } from "../bytes.ts";

/** Bytes that wait for the rest of their segment, at most so many. */
export class Held {
  readonly #most: number;
  #memory: Bytes = new Uint8Array(0);
  #length = 0;

  constructor(most: number) {
    this.#most = most;
  }

  get length(): number {
    return this.#length;
  }

  /** What has come, in memory that stays this one's. */
  get bytes(): Bytes {
    return this.#memory.subarray(0, this.#length);
  }

  /** Takes `length` bytes more from the front of `input`. */
  take(input: Scatter, length: number): void {
    this.#reserve(this.#length + length);
    for (const bytes of input.peek(length)) {
      this.#memory.set(bytes, this.#length);
      this.#length += bytes.length;
    }
    input.advance(length);
  }

  clear(): void {
    this.#length = 0;
  }

  /** Forgets all, for good. */
  wipe(): void {
    this.#length = 0;
    this.#memory.fill(0);
  }

  /** Memory grows with what comes: most streams are shorter than the largest segment. */
  #reserve(length: number): void {
    if (length <= this.#memory.length) return;
    const grown = new Uint8Array(Math.min(this.#most, Math.max(length, 2 * this.#memory.length, 1024)));
    grown.set(this.bytes);
    this.#memory.fill(0);
    this.#memory = grown;
  }
}
