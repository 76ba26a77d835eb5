/**
 * The pair of web streams around a {@linkcode Processor}.
 *
 * @module
 */

import { nextTurn } from "../../ffi/mod.ts";
import { onAbort } from "../abort.ts";
import { type Bytes, bytesOf, sizeOf } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { TimeSlice } from "../time_slice.ts";
import type { Prepared, Processor } from "./processor.ts";

/** Chunks below this size are gathered, up to the limit, before the engine is called: a call costs more than a copy. */
const SMALL = 16 * 1024;
const GATHER_LIMIT = 64 * 1024;

/**
 * The two ends of a stream and the processor between them.
 *
 * A pair of our own, because a Transformer has no pull: it would have to enqueue all the output of a large chunk at
 * once. Here each piece of at most a window is made when the reader asks for it.
 *
 * Only this is referred to by both ends; the stream object may be gone before them.
 */
export class Duct {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Uint8Array>;
  readonly #processor: Processor;
  readonly #inPlace: boolean;
  readonly #gatherLimit: number;
  #stopListening = (): void => {};
  #reader!: ReadableStreamDefaultController<Bytes>;
  #writer!: WritableStreamDefaultController;
  /** The reader has asked, and nothing was enqueued since. */
  #demand = false;
  /** The write whose output was not asked for yet. */
  #waiting: { readonly resolve: () => void; readonly reject: (reason: unknown) => void } | undefined;
  /** Output is being made, or the event loop has its turn before it goes on. */
  #busy = false;
  /** Small chunks: copies in one buffer, or with `inPlace` the chunks themselves. */
  #gathered: Bytes[] = [];
  #gatheredLength = 0;
  #buffer: Bytes | undefined;
  #drain: "idle" | "scheduled" | "due" = "idle";
  /** Since when a chunk of many pieces has been worked on without a turn of the event loop. */
  #slice: TimeSlice | undefined;
  #over = false;
  /** Why it ended, other than by a close. */
  #reason: unknown;

  constructor(prepared: Prepared) {
    const processor = prepared.open();
    this.#processor = processor;
    this.#inPlace = prepared.inPlace;
    this.#gatherLimit = Math.min(GATHER_LIMIT, processor.window);
    this.readable = new ReadableStream<Bytes>({
      start: (controller) => void (this.#reader = controller),
      pull: () => this.#pull(),
      cancel: (reason) => this.#fail(reason),
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#writer = controller;
        // The sink's abort() comes only after the write in progress, which may wait for a reader.
        controller.signal.addEventListener("abort", () => this.#aborted(controller.signal.reason));
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#close(),
      abort: (reason) => this.#aborted(reason),
    });
    this.#stopListening = onAbort(prepared.signal, this, Duct.#abort);
  }

  /** The engine that really runs. */
  get engine(): EngineName {
    return this.#processor.engine;
  }

  static #abort(duct: Duct, reason: unknown): void {
    duct.#fail(reason);
  }

  #write(chunk: unknown): void | Promise<void> {
    try {
      const bytes = bytesOf("chunk", chunk);
      if (bytes.length < SMALL && this.#gatheredLength + bytes.length <= this.#gatherLimit) return this.#gather(bytes);
      if (this.#gatheredLength === 0) {
        const output = this.#demand ? this.#processor.pass(bytes) : undefined;
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

  #close(): void {
    try {
      // What is left is less than a window: enqueued whether it was asked for or not.
      if (this.#gatheredLength > 0) this.#processor.write(this.#takeGathered());
      this.#enqueueAll();
      this.#processor.end();
      this.#enqueueAll();
      this.#finish();
      this.#reader.close();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** Makes output of `list` while the reader asks for it, and waits where it does not. */
  #produce(list: readonly Bytes[]): void | Promise<void> {
    this.#processor.write(list);
    this.#answerDemand();
    if (!this.#processor.pending) return;
    return new Promise((resolve, reject) => this.#waiting = { resolve, reject });
  }

  #pull(): void {
    this.#demand = true;
    if (!this.#busy) this.#resume();
  }

  #resume(): void {
    try {
      if (this.#waiting) {
        this.#answerDemand();
        if (this.#processor.pending) return;
        const { resolve } = this.#waiting;
        this.#waiting = undefined;
        resolve();
      } else if (this.#drain === "due") {
        this.#drainNow();
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** One piece for each time the reader asks. Enqueuing one can make it ask again, from within the call. */
  #answerDemand(): void {
    const processor = this.#processor;
    this.#busy = true;
    while (this.#demand && processor.pending) {
      if (this.#slice && !processor.hasOutput && this.#slice.over) return this.#resumeNextTurn(this.#slice);
      const output = processor.read();
      if (output) this.#enqueue(output);
      if (processor.pending && !processor.hasOutput) this.#slice ??= new TimeSlice();
    }
    this.#busy = false;
    if (!processor.pending) this.#slice = undefined;
  }

  #resumeNextTurn(slice: TimeSlice): void {
    void slice.next().then(() => {
      this.#busy = false;
      if (!this.#over) this.#resume();
    });
  }

  #enqueue(output: Bytes): void {
    this.#demand = false;
    this.#reader.enqueue(output);
  }

  #enqueueAll(): void {
    while (this.#processor.pending) {
      const output = this.#processor.read();
      if (output) this.#enqueue(output);
    }
  }

  #gather(bytes: Bytes): void {
    if (bytes.length === 0) return;
    if (this.#inPlace) {
      this.#gathered.push(bytes);
    } else {
      this.#buffer ??= new Uint8Array(this.#gatherLimit);
      this.#buffer.set(bytes, this.#gatheredLength);
    }
    this.#gatheredLength += bytes.length;
    if (this.#drain !== "idle") return;
    this.#drain = "scheduled";
    nextTurn(() => {
      this.#drain = "due";
      if (this.#demand) this.#resume();
    });
  }

  #drainNow(): void {
    this.#drain = "idle";
    if (this.#gatheredLength === 0) return;
    this.#processor.write(this.#takeGathered());
    this.#enqueueAll();
  }

  #takeGathered(): Bytes[] {
    const list = this.#inPlace ? this.#gathered : [this.#buffer!.subarray(0, this.#gatheredLength)];
    const length = this.#gatheredLength;
    this.#gathered = [];
    this.#gatheredLength = 0;
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
    this.#reader.error(reason);
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
  }

  #finish(): void {
    this.#over = true;
    this.#gathered = [];
    this.#gatheredLength = 0;
    this.#buffer?.fill(0);
    this.#stopListening();
    this.#processor.close();
  }
}
