/**
 * {@linkcode ByteIterator}: the async iterator of the public iterables.
 *
 * It is not an async generator: the `return()` of a generator waits for a pending `next()`, which may never settle
 * (ECMA-262, AsyncGeneratorEnqueue).
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** An async iterator over chunks of bytes. */
export class ByteIterator implements AsyncIterableIterator<Bytes>, AsyncDisposable {
  readonly #receive: () => Promise<Bytes | undefined>;
  readonly #end: () => unknown;
  /** The number of calls of next() that have not settled. */
  #calls = 0;
  #previous: Promise<unknown> = Promise.resolve();

  /**
   * @param receive Resolves to the next chunk, or to undefined at the end. No two calls run at once.
   * @param end Called when the consumer stops early. Makes a pending `receive` resolve to undefined. May return a
   * promise.
   */
  constructor(receive: () => Promise<Bytes | undefined>, end: () => unknown) {
    this.#receive = receive;
    this.#end = end;
  }

  /** Calls settle in order. A call starts synchronously if no other is pending. */
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
