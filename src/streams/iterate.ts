/**
 * {@linkcode TransformIterator}: the output of a {@linkcode Driver} that draws its input from a source.
 *
 * @module
 */

import { type Bytes, toUint8Array, wrongType } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { ByteIterator } from "./byte_iterator.ts";
import { Driver, type InputSide } from "./driver.ts";
import type { Source } from "./source.ts";
import type { TransformFactory } from "./transform.ts";

/** An iterator over the output, iterable once. The first `next()` opens the transform and the source. */
export class TransformIterator extends ByteIterator {
  /** The tag of what is encrypted, with an AEAD. */
  readonly tag?: Promise<Bytes>;
  readonly #driver: Driver;

  constructor(factory: TransformFactory, open: () => Source) {
    const input = new SourceInput(open);
    const driver = new Driver(factory, input);
    const reader = driver.readable.getReader();
    let isOver = false;

    const receive = async (): Promise<Bytes | undefined> => {
      if (isOver) return undefined;
      try {
        const { value } = await reader.read();
        isOver = value === undefined;
        return value;
      } catch (error) {
        isOver = true; // the error is thrown once
        throw error;
      }
    };
    const end = async (): Promise<void> => {
      isOver = true;
      const { isAsked } = input;
      reader.cancel().catch(() => {}); // the stream may have failed already
      const ended = input.end();
      // A source may settle this only after its pending next(), which may never settle.
      if (isAsked) Promise.resolve(ended).catch(() => {});
      else await ended;
    };
    super(receive, end);
    if (factory.tag) this.tag = factory.tag;
    this.#driver = driver;
  }

  /** The engine that runs. Reading it opens the transform. */
  get engine(): EngineName {
    return this.#driver.engine;
  }
}

/** Reads a source while the driver's reader waits. */
class SourceInput implements InputSide {
  /** A `next()` of the source is pending. */
  isAsked = false;
  readonly #open: () => Source;
  #source: Source | undefined;
  /** The source has ended or failed, or its `end()` was called. */
  #isOver = false;
  #isReading = false;

  constructor(open: () => Source) {
    this.#open = open;
  }

  async pull(driver: Driver): Promise<void> {
    if (this.#isReading || this.#isOver) return;
    this.#isReading = true;
    try {
      while (driver.hasDemand && !this.#isOver) {
        const answer = this.#ask();
        const result = isPromise(answer) ? await answer : answer;
        this.isAsked = false;
        const written = this.#isOver ? undefined : this.#handOn(result, driver);
        if (written) await written;
      }
    } catch (error) {
      if (this.isAsked) this.#endsByItself();
      driver.closeWith(error);
      this.error();
    }
    this.#isReading = false;
  }

  /** The driver has failed. Ends the source, and ignores its errors. */
  error(): void {
    (async () => await this.end())().catch(() => {});
  }

  /** Ends the source, unless it has ended. */
  end(): unknown {
    if (this.#isOver) return undefined;
    this.#isOver = true;
    return (this.#source ?? this.#open()).end();
  }

  #ask(): ReturnType<Source["next"]> {
    this.isAsked = true;
    this.#source ??= this.#open();
    return this.#source.next();
  }

  #handOn(result: IteratorResult<unknown>, driver: Driver): void | Promise<void> {
    if (typeof result !== "object" || result === null) {
      throw wrongType("source", "an iterator that returns objects", result);
    }
    if (!result.done) return driver.write(toUint8Array("source", result.value));
    this.#endsByItself();
    return driver.close();
  }

  #endsByItself(): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#source?.release?.();
  }
}

function isPromise<T extends object>(value: T | PromiseLike<T>): value is PromiseLike<T> {
  return typeof (value as Partial<PromiseLike<T>> | undefined | null)?.then === "function";
}
