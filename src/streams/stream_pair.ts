/**
 * The pair of web streams around a {@linkcode Transform}.
 *
 * @module
 */

import { setImmediate } from "../runtime/mod.ts";
import { type AbortListener, onAbort } from "../abort.ts";
import { type Bytes, type BytesLike, bytesOf, sizeOf } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { TimeSlice } from "../time_slice.ts";
import type { Transform, TransformFactory } from "./transform.ts";

/** Chunks below this size are gathered, up to the limit, before the transform is called: a call costs more than a copy. */
const SMALL = 16 * 1024;
const GATHER_LIMIT = 64 * 1024;

/** Small chunks that wait to be processed together: copies in one buffer, or with `inPlace` the chunks themselves. */
interface Gathering {
  readonly list: Bytes[];
  length: number;
  /** The event loop has had its turn since the first of them. */
  isDue: boolean;
}

/**
 * The two ends of a stream and the transform between them.
 *
 * A pair of our own, because a Transformer has no pull: it would have to enqueue all the output of a large chunk at
 * once. Here each piece of at most a window is made when the reader asks for it.
 *
 * Only this is referred to by both ends; the stream object may be gone before them.
 */
export class StreamPair {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<BytesLike>;
  readonly #transform: Transform;
  readonly #inPlace: boolean;
  readonly #listener: AbortListener<StreamPair> | undefined;
  #reader!: ReadableStreamDefaultController<Bytes>;
  #writer!: WritableStreamDefaultController;
  /** The reader has asked, and nothing was enqueued since. */
  #demand = false;
  /** The write that waits until nothing is pending. */
  #waiting: { readonly resolve: () => void; readonly reject: (reason: unknown) => void } | undefined;
  /** Output is being made, or the event loop has its turn before it goes on. */
  #busy = false;
  #gathering: Gathering | undefined;
  #buffer: Bytes | undefined;
  /** What is under way elsewhere, once somebody waits for it. */
  #awaited: Promise<void> | undefined;
  /** Since when output has been made without a turn of the event loop. */
  #slice: TimeSlice | undefined;
  #over = false;
  /** The error of a close, which waits until what was enqueued before it has been read. */
  #heldError: { readonly error: unknown } | undefined;
  /** Why it ended, other than by a close. */
  #reason: unknown;

  /** Opens the transform. */
  constructor(factory: TransformFactory) {
    const transform = factory.open();
    this.#transform = transform;
    this.#inPlace = factory.inPlace;
    this.readable = new ReadableStream<Bytes>({
      start: (controller) => void (this.#reader = controller),
      pull: () => this.#pull(),
      cancel: (reason) => this.#fail(reason),
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<BytesLike>({
      start: (controller) => {
        this.#writer = controller;
        // Bun has no signal here before 1.4: abort() then waits for the write in progress.
        // The sink's abort() comes only after the write in progress, which may wait for a reader.
        controller.signal?.addEventListener("abort", () => this.#aborted(controller.signal.reason));
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#close(),
      abort: (reason) => this.#aborted(reason),
    });
    this.#listener = onAbort(factory.signals, this, StreamPair.#abort);
  }

  /** The engine that really runs. */
  get engine(): EngineName {
    return this.#transform.engine;
  }

  static #abort(pair: StreamPair, reason: unknown): void {
    pair.#fail(reason);
  }

  #write(chunk: unknown): void | Promise<void> {
    try {
      const bytes = bytesOf("chunk", chunk);
      if (this.#over) throw this.#reason; // by a getter of the chunk
      if (this.#transform.pending) return this.#wait().then(() => this.#writeUnlessOver(bytes));
      const gathered = this.#gathering?.length ?? 0;
      if (bytes.length < SMALL && gathered + bytes.length <= GATHER_LIMIT) return this.#gather(bytes);
      if (gathered === 0) {
        const output = this.#demand ? this.#transform.pass?.(bytes) : undefined;
        return output ? this.#enqueue(output) : this.#produce([bytes]);
      }
      const drained = this.#produce(this.#takeGathered());
      return drained ? drained.then(() => this.#writeUnlessOver(bytes)) : this.#write(bytes);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** For a write that waited: the stream may have ended between the end of the wait and its news. */
  #writeUnlessOver(bytes: Bytes): void | Promise<void> {
    if (this.#over) throw this.#reason;
    return this.#write(bytes);
  }

  /** What is left is enqueued whether it was asked for or not. */
  async #close(): Promise<void> {
    try {
      await this.#enqueueAll(() => this.#gathering && this.#transform.write(this.#takeGathered()));
      await this.#enqueueAll(() => this.#transform.end());
      await this.#enqueueAll(() => {
        this.#finish();
        this.#reader.close();
      });
    } catch (error) {
      // What is enqueued was verified: it is read before the error.
      if (!this.#over && this.#reader.desiredSize! < 0) this.#heldError = { error };
      this.#fail(error);
      throw error;
    }
  }

  /**
   * Enqueues all that is pending, and goes on with `next` before the reader can do anything.
   *
   * @throws Why the stream ended meanwhile, if it did.
   */
  async #enqueueAll(next: () => void): Promise<void> {
    const slice = new TimeSlice();
    for (;;) {
      if (this.#over) throw this.#reason;
      if (!this.#transform.pending) return next();
      const output = this.#transform.read();
      if (output) this.#enqueue(output);
      else if (this.#transform.progress) await this.#transform.progress;
      if (slice.over && this.#transform.pending) await slice.next();
    }
  }

  /** Makes output of `list` while the reader asks for it, and waits where it does not. */
  #produce(list: readonly Bytes[]): void | Promise<void> {
    this.#transform.write(list);
    this.#answerDemand();
    if (this.#transform.pending) return this.#wait();
  }

  /** Until nothing is pending. */
  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting = { resolve, reject };
      this.#hold();
    });
  }

  #pull(): void {
    if (this.#heldError) return this.#reader.error(this.#heldError.error);
    this.#demand = true;
    this.#hold();
    this.#resume();
  }

  /** Goes on with what the reader asks for. */
  #resume(): void {
    if (this.#busy || this.#over) return;
    this.#letWrite();
    if (!this.#demand) return;
    try {
      if (this.#transform.pending) this.#answerDemand();
      else if (this.#gathering?.isDue) this.#drain();
      else this.#await();
    } catch (error) {
      this.#fail(error);
    }
  }

  #drain(): void {
    this.#transform.write(this.#takeGathered());
    this.#answerDemand();
  }

  /** One piece for each time the reader asks. Enqueuing one can make it ask again, from within the call. */
  #answerDemand(): void {
    const transform = this.#transform;
    this.#busy = true;
    while (this.#demand && transform.pending && !this.#over) {
      if (this.#slice?.over) return this.#rest(this.#slice);
      const output = transform.read();
      if (output) this.#enqueue(output);
      else if (transform.progress) break;
      if (transform.pending) this.#slice ??= new TimeSlice();
    }
    this.#busy = false;
    if (this.#demand) this.#await();
    this.#letWrite();
  }

  /** Lets a write that waits go on, where nothing is pending: what it waits for may have been taken over elsewhere. */
  #letWrite(): void {
    if (this.#transform.pending) return;
    this.#slice = undefined;
    this.#waiting?.resolve();
    this.#waiting = undefined;
    this.#hold();
  }

  /** Goes on when something that is done elsewhere is: that may be no turn of the event loop, where news comes in a row. */
  #await(): void {
    const { progress } = this.#transform;
    if (!progress || this.#awaited === progress) return;
    this.#awaited = progress;
    void progress.then(() => this.#resume());
  }

  #rest(slice: TimeSlice): void {
    void slice.next().then(() => {
      this.#busy = false;
      this.#resume();
    });
  }

  #enqueue(output: Bytes): void {
    this.#demand = false;
    this.#hold();
    this.#reader.enqueue(output);
  }

  /** Lets the signal keep this while somebody waits for it. */
  #hold(): void {
    if (this.#listener) this.#listener.held = this.#demand || this.#waiting ? this : undefined;
  }

  #gather(bytes: Bytes): void {
    if (bytes.length === 0) return;
    const gathering = this.#gathering ??= this.#beginGathering();
    if (this.#inPlace) {
      gathering.list.push(bytes);
    } else {
      this.#buffer ??= new Uint8Array(GATHER_LIMIT);
      this.#buffer.set(bytes, gathering.length);
    }
    gathering.length += bytes.length;
  }

  #beginGathering(): Gathering {
    const gathering: Gathering = { list: [], length: 0, isDue: false };
    setImmediate(() => {
      gathering.isDue = true;
      this.#resume();
    });
    return gathering;
  }

  #takeGathered(): readonly Bytes[] {
    const { list, length } = this.#gathering!;
    this.#gathering = undefined;
    if (!this.#inPlace) return [this.#buffer!.subarray(0, length)];
    if (sizeOf(list) !== length) throw new TypeError("A chunk was detached before its output was read");
    return list;
  }

  /** Both sides end with `reason`; everything is released. */
  #fail(reason: unknown): void {
    if (this.#over) return;
    this.#writer.error(reason);
    this.#aborted(reason);
  }

  /** The same where the writable side ends by itself. */
  #aborted(reason: unknown): void {
    if (this.#over) return;
    this.#reason = reason;
    this.#finish();
    if (!this.#heldError) this.#reader.error(reason);
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
  }

  #finish(): void {
    this.#over = true;
    this.#gathering = undefined;
    this.#buffer?.fill(0);
    this.#listener?.stop();
    this.#transform.close();
  }
}
