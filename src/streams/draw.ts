/**
 * Iterables over a {@linkcode Transform}: bytes are drawn from a source as they are asked for.
 *
 * @module
 */

import { type AbortListener, onAbort } from "../abort.ts";
import { type Bytes, type BytesLike, bytesOf, describe, isBuffer } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { TimeSlice } from "../time_slice.ts";
import { ByteIterator } from "./byte_iterator.ts";
import type { Transform, TransformFactory } from "./transform.ts";

/** What {@linkcode encrypt} and {@linkcode decrypt} take bytes from. */
export type ByteSource = BytesLike | Iterable<BytesLike> | AsyncIterable<BytesLike> | ReadableStream<BytesLike>;

/** Where input comes from. */
export interface Input {
  next(): Promise<IteratorResult<unknown>> | IteratorResult<unknown>;
  /** Tells the source that no more is wanted. */
  end(): unknown;
  /** Lets go of a source that has ended. */
  release?(): void;
}

/** What is under way elsewhere has come on. */
const NEWS = Symbol("news");

/** What a {@linkcode Draw} gives: iterable once. */
export class DrawIterator extends ByteIterator {
  readonly #draw: Draw;

  constructor(draw: Draw) {
    super(() => draw.receive(), () => draw.end());
    this.#draw = draw;
  }

  /** The engine that really runs; asking for it opens the transform. */
  get engine(): EngineName {
    return this.#draw.opened().engine;
  }
}

/** The bytes of one source, drawn through a transform. */
export class Draw {
  readonly #factory: TransformFactory;
  readonly #open: () => Input;
  #input: Input | undefined;
  #transform: Transform | undefined;
  #inputEnded = false;
  /** What the source was asked for, and has not given yet. */
  #drawing: Promise<IteratorResult<unknown>> | undefined;
  /** Why no more comes of the source, other than its end: told when what is under way has come out. */
  #failure: { readonly reason: unknown } | undefined;
  #over = false;
  /** The signal was aborted, and nobody has been told. */
  #aborted: { readonly reason: unknown } | undefined;
  /** Ends the wait for the source, or for what is under way. */
  #interrupt: (() => void) | undefined;
  readonly #listener: AbortListener<Draw> | undefined;
  readonly #slice = new TimeSlice();

  constructor(factory: TransformFactory, open: () => Input) {
    this.#factory = factory;
    this.#open = open;
    this.#listener = onAbort(factory.signals, this, Draw.#abort);
  }

  static #abort(draw: Draw, reason: unknown): void {
    if (draw.#over) return;
    draw.#aborted = { reason };
    draw.#leave();
  }

  /** The next output, or undefined at the end. */
  async receive(): Promise<Bytes | undefined> {
    try {
      while (!this.#over) {
        const transform = this.opened();
        if (this.#slice.over) await this.#slice.next();
        else if (transform.pending) {
          const output = transform.read();
          if (output) return output;
          if (transform.pending && transform.progress) await this.#wait(transform.progress);
        } else if (this.#failure) {
          if (!transform.progress) throw this.#failure.reason;
          await this.#wait(transform.progress);
        } else if (this.#inputEnded && !this.#drawing) this.#release(); // else its error is still to be told
        else await this.#refill(transform);
      }
    } catch (error) {
      this.#leave();
      throw error;
    }
    const aborted = this.#aborted;
    this.#aborted = undefined;
    if (aborted) throw aborted.reason;
    return undefined;
  }

  /** Releases the transform, and ends the source. */
  async end(): Promise<void> {
    const isWaiting = this.#drawing !== undefined;
    this.#aborted = undefined;
    let ended: unknown;
    try {
      ended = this.#release() && this.#endInput();
    } finally {
      this.#interrupt?.();
    }
    if (!isWaiting) await ended;
    // A source that is asked for bytes may answer this only afterwards, which may be never: nobody waits for it.
    else Promise.resolve(ended).catch(() => {});
  }

  opened(): Transform {
    if (!this.#transform) {
      if (this.#over) throw new KcapiError("EBADF", "engine", "the iterable was closed before it was opened");
      this.#transform = this.#factory.open();
      this.#input = this.#open();
    }
    return this.#transform;
  }

  /** Hands on what the source gives; or gives up for now, when what is under way comes first. */
  async #refill(transform: Transform): Promise<void> {
    this.#drawing ??= this.#nextInput();
    const { progress } = transform;
    try {
      const result = await this.#wait(
        progress ? Promise.race([this.#drawing, progress.then((): typeof NEWS => NEWS)]) : this.#drawing,
      );
      if (this.#over || result === NEWS) return;
      this.#drawing = undefined;
      this.#handOn(result, transform);
    } catch (reason) {
      if (!progress) throw reason;
      this.#drawing = undefined;
      this.#failure = { reason };
    }
  }

  #handOn(result: IteratorResult<unknown> | undefined, transform: Transform): void {
    if (typeof result !== "object" || result === null) {
      throw new TypeError(`"source" expected an iterator that gives objects, got ${describe(result)}`);
    }
    if (result.done) {
      this.#endsInput();
      transform.end();
    } else {
      transform.write([bytesOf("source", result.value)]);
    }
  }

  /** Gives undefined where somebody ends the wait. */
  #wait<T>(promise: Promise<T>): Promise<T | undefined> {
    return new Promise<T | undefined>((resolve, reject) => {
      this.#interrupt = () => resolve(undefined);
      if (this.#listener) this.#listener.held = this;
      promise.then(resolve, reject);
    }).finally(() => {
      this.#interrupt = undefined;
      if (this.#listener) this.#listener.held = undefined;
    });
  }

  async #nextInput(): Promise<IteratorResult<unknown>> {
    try {
      return await this.#input!.next();
    } catch (error) {
      this.#endsInput();
      throw error;
    }
  }

  /** The source has ended by itself. */
  #endsInput(): void {
    this.#inputEnded = true;
    this.#input!.release?.();
  }

  /** Releases the transform. Returns whether there is a source that has more, and is to be told. */
  #release(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#listener?.stop();
    this.#factory.discard();
    this.#transform?.close();
    return !this.#inputEnded;
  }

  #endInput(): unknown {
    this.#input ??= this.#open();
    return this.#input.end();
  }

  /** Ends all for a reason that matters more than what the source says to its end. */
  #leave(): void {
    if (this.#release()) (async () => await this.#endInput())().catch(() => {});
    this.#interrupt?.();
  }
}

/** How to read `source`, once it is time to. */
export function inputOf(source: ByteSource): () => Input {
  if (ArrayBuffer.isView(source) || isBuffer(source)) {
    const bytes = bytesOf("source", source);
    return () => iterate([bytes][Symbol.iterator]());
  }
  if (source instanceof ReadableStream) {
    if (source.locked) throw new TypeError('"source" is a ReadableStream that is locked');
    return () => {
      const reader = source.getReader();
      return {
        next: () => reader.read() as Promise<IteratorResult<unknown>>,
        end() {
          const cancelled = reader.cancel();
          reader.releaseLock();
          return cancelled;
        },
        release: () => reader.releaseLock(),
      };
    };
  }
  if (typeof source === "object" && source !== null) {
    if (Symbol.asyncIterator in source) return () => iterate(source[Symbol.asyncIterator]());
    if (Symbol.iterator in source) return () => iterate(source[Symbol.iterator]());
  }
  throw new TypeError(`"source" expected bytes, or an iterable or a ReadableStream of them, got ${describe(source)}`);
}

function iterate(iterator: Iterator<unknown> | AsyncIterator<unknown>): Input {
  return { next: () => iterator.next(), end: () => iterator.return?.() };
}
