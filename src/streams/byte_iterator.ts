/**
 * The iterators of this module, written by hand: an async generator's `return()` would wait for a `next()` that is
 * pending, perhaps for ever.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** An async iterator over pieces of bytes. */
export class ByteIterator implements AsyncIterableIterator<Bytes>, AsyncDisposable {
  readonly #receive: () => Promise<Bytes | undefined>;
  readonly #end: () => unknown;
  /** Calls of next() that are not answered yet. */
  #calls = 0;
  #previous: Promise<unknown> = Promise.resolve();

  /**
   * @param receive Gives the next piece, or undefined at the end; called again only after it has.
   * @param end Called by whoever leaves early: makes a pending `receive` give undefined. May be a promise.
   */
  constructor(receive: () => Promise<Bytes | undefined>, end: () => unknown) {
    this.#receive = receive;
    this.#end = end;
  }

  /** Calls are answered in their order; one that finds no other pending starts at once. */
  next(): Promise<IteratorResult<Bytes, undefined>> {
    const next = () => this.#next();
    const result = this.#calls++ === 0 ? next() : this.#previous.then(next, next);
    this.#previous = result;
    return result;
  }

  async return(): Promise<IteratorResult<Bytes, undefined>> {
    await this.#end();
    return { done: true, value: undefined };
  }

  async throw(error?: unknown): Promise<IteratorResult<Bytes, undefined>> {
    await this.#end();
    throw error;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#end();
  }

  async #next(): Promise<IteratorResult<Bytes, undefined>> {
    try {
      const value = await this.#receive();
      return value ? { done: false, value } : { done: true, value };
    } finally {
      this.#calls--;
    }
  }
}
