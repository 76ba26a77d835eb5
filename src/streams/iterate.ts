/**
 * {@linkcode TransformIterator}: the output of a {@linkcode Driver} that draws its input from a source.
 *
 * @module
 */

import { type Bytes, describe, toUint8Array } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { ByteIterator } from "./byte_iterator.ts";
import { Driver, type InputSide } from "./driver.ts";
import type { Source } from "./source.ts";
import type { TransformFactory } from "./transform.ts";

/** Iterable once. The first `next()` opens the transform and the source. */
export class TransformIterator extends ByteIterator {
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
        isOver = true; // an error is told once
        throw error;
      }
    };
    const end = async (): Promise<void> => {
      isOver = true;
      const { isAsked } = input;
      reader.cancel().catch(() => {}); // it may have failed already
      const ended = input.end();
      // A source that is asked for bytes may answer this only afterwards, which may be never.
      if (isAsked) Promise.resolve(ended).catch(() => {});
      else await ended;
    };
    super(receive, end);
    this.#driver = driver;
  }

  /** The engine that runs; opens the transform. */
  get engine(): EngineName {
    return this.#driver.engine;
  }
}

/** Reads a source while the driver's reader waits. */
class SourceInput implements InputSide {
  /** The source was asked for a chunk, and has not answered. */
  isAsked = false;
  readonly #open: () => Source;
  #source: Source | undefined;
  /** It has ended or failed, or was told to end. */
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

  /** The driver has ended: nobody waits for what the source says to that. */
  error(): void {
    (async () => await this.end())().catch(() => {});
  }

  /** Tells the source that no more is wanted, if it has more. */
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
      throw new TypeError(`"source" expected an iterator that gives objects, got ${describe(result)}`);
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
