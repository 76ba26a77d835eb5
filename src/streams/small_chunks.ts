/**
 * {@linkcode SmallChunks}: small chunks that wait to be processed together.
 *
 * @module
 */

import { type Bytes, totalLength } from "../bytes.ts";

const FIRST_SIZE = 1024;

/** Small chunks: copies in one buffer, or with `inPlace` the chunks themselves. */
export class SmallChunks {
  /** The number of bytes. */
  length = 0;
  readonly #limit: number;
  readonly #list: Bytes[] | undefined;
  /** The buffer of the copies. It grows, because most streams gather little. */
  #buffer: Bytes = new Uint8Array(0);

  /** @param limit The most bytes that may be added before {@linkcode take}. */
  constructor(limit: number, inPlace: boolean) {
    this.#limit = limit;
    if (inPlace) this.#list = [];
  }

  add(chunk: Bytes): void {
    const length = this.length + chunk.length;
    if (this.#list) {
      this.#list.push(chunk);
    } else {
      if (length > this.#buffer.length) this.#grow(length);
      this.#buffer.set(chunk, this.length);
    }
    this.length = length;
  }

  /**
   * Removes and returns all chunks. Copies are valid until the next {@linkcode add}.
   *
   * @throws {TypeError} If a chunk was detached.
   */
  take(): readonly Bytes[] {
    const { length } = this;
    this.length = 0;
    if (!this.#list) return [this.#buffer.subarray(0, length)];
    const list = this.#list.splice(0);
    if (totalLength(list) !== length) throw new TypeError("A chunk was detached before its output was read");
    return list;
  }

  /** Removes all chunks, and zeroes the copies. */
  wipe(): void {
    this.length = 0;
    this.#buffer.fill(0);
    if (this.#list) this.#list.length = 0;
  }

  #grow(length: number): void {
    const grown = new Uint8Array(Math.min(this.#limit, Math.max(length, 2 * this.#buffer.length, FIRST_SIZE)));
    grown.set(this.#buffer.subarray(0, this.length));
    this.#buffer.fill(0);
    this.#buffer = grown;
  }
}
