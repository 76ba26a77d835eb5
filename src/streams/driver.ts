/**
 * {@linkcode Driver}: moves bytes from whoever writes, through a {@linkcode Transform}, to a ReadableStream.
 *
 * @module
 */

import { onAbort, type WeakAbortListener } from "../abort.ts";
import type { Bytes } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { setImmediate } from "../runtime/web.ts";
import { TimeSlice } from "../time_slice.ts";
import { SmallChunks } from "./small_chunks.ts";
import type { Transform, TransformFactory } from "./transform.ts";

/** Smaller chunks are gathered, up to the limit, before the transform gets them: a call costs more than a copy. */
const SMALL = 16 * 1024;
const GATHER_LIMIT = 64 * 1024;

/** The side that writes to a {@linkcode Driver}: a WritableStream, or an iterator with its source. */
export interface InputSide {
  /** The stream ended with `reason`, and this side did not end it. */
  error(reason: unknown): void;
  /** The reader waits, and there is no input. May be called again before there is some. */
  pull?(driver: Driver): void;
}

/**
 * The state machine of a stream.
 *
 * A TransformStream of the platform has no pull hook: it would enqueue all the output of a large chunk at once. Here
 * each output is made when the reader asks for it.
 *
 * The state is what the driver waits for. "Demand" means that the reader asked and got nothing since; then "output"
 * goes to the reader, else the driver waits for a pull. While it closes, it needs no demand.
 *
 * | State     | holds                   | write           | pull     | turn       | progress | close            |
 * | --------- | ----------------------- | --------------- | -------- | ---------- | -------- | ---------------- |
 * | idle      | nothing                 | small: gather;  | pull the | –          | output   | end, → closed    |
 * |           |                         | else output     | input    |            |          |                  |
 * | gathering | small chunks            | gather; if full | pull the | → due      | output   | output, end,     |
 * |           |                         | output first    | input    |            |          | → closed         |
 * | due       | small chunks, for a     | as above        | output   | –          | output   | as above         |
 * |           | turn of the event loop  |                 |          |            |          |                  |
 * | reader    | input of the transform  | –               | output   | –          | –        | –                |
 * | pool      | batches in other        | if one is       | output   | –          | output   | output, end,     |
 * |           | threads                 | accepted        |          |            |          | → closed         |
 * | resting   | anything, for a turn of | –               | –        | go on      | –        | –                |
 * |           | the event loop          |                 |          |            |          |                  |
 * | closed    | nothing; outputs may    | throw           | held     | –          | –        | –                |
 * |           | wait for the reader     |                 | error    |            |          |                  |
 *
 * "–": the event cannot come, or changes nothing but the flags that it sets. A write or a close is answered on return
 * to idle, gathering or due, so no other one comes before that. abort() by the writer, cancel() by the reader, a
 * signal, and an error lead from each state to closed, with two exceptions, as in a native TransformStream: they
 * change nothing once the stream is closed, and abort() and cancel() do not stop a close that has begun.
 */
export class Driver {
  readonly readable: ReadableStream<Bytes>;
  readonly #factory: TransformFactory;
  readonly #input: InputSide;
  readonly #listener: WeakAbortListener<Driver> | undefined;
  readonly #slice = new TimeSlice();
  readonly #gathered: SmallChunks;
  #output!: ReadableStreamDefaultController<Bytes>;
  #transform: Transform | undefined;
  #demand = false;
  /** The event loop had a turn since something was gathered. */
  #isDue = false;
  /** What was written, before the transform or the gathering has it. */
  #chunk: Bytes | undefined;
  /** The input has ended: the transform is to be told, or was; or an error comes after the output. */
  #closing: "requested" | "ended" | { readonly error: unknown } | undefined;
  /** A write or a close was not answered yet; and how to, if its caller waits. */
  #isBusy = false;
  #caller: { readonly resolve: () => void; readonly reject: (reason: unknown) => void } | undefined;
  #isStepping = false;
  #isResting = false;
  #isTurnRequested = false;
  /** The transform's progress that a step follows. */
  #awaited: Promise<void> | undefined;
  /** What abort(), close() and cancel() answer, whichever came first: as in a native TransformStream. */
  #finish: Promise<void> | undefined;
  #isClosed = false;
  /** Why it closed, if not by close(). */
  #failure: { readonly reason: unknown } | undefined;
  /** Of a close that goes on nothing is enqueued any more. */
  #isReaderGone = false;
  /** The reader gets the reason after the output in front of it. */
  #isErrorHeld = false;

  /** @param transform Opened already; else the factory opens it when the reader first asks. */
  constructor(factory: TransformFactory, input: InputSide, transform?: Transform) {
    this.#factory = factory;
    this.#input = input;
    this.#transform = transform;
    this.#gathered = new SmallChunks(GATHER_LIMIT, factory.inPlace);
    this.readable = new ReadableStream<Bytes>({
      start: (controller) => void (this.#output = controller),
      pull: () => this.#pull(),
      cancel: (reason) => this.#cancel(reason),
    }, { highWaterMark: 0 });
    this.#listener = onAbort(factory.signals, this, Driver.#abort);
  }

  static #abort(driver: Driver, reason: unknown): void {
    driver.#endBoth(reason);
  }

  /** The engine that runs; opens the transform. */
  get engine(): EngineName {
    if (!this.#transform && this.#isClosed) {
      throw new KcapiError("EBADF", "engine", "the iterable was closed before it was opened");
    }
    try {
      return (this.#transform ??= this.#factory.open()).engine;
    } catch (error) {
      this.fail(error);
      throw error;
    }
  }

  /** Whether the reader waits, and got nothing since it asked. */
  get hasDemand(): boolean {
    return this.#demand && !this.#isClosed;
  }

  // ---- events ----

  /**
   * @returns A promise if the transform, the reader or the event loop comes first. The bytes are in use until then.
   * @throws Why the stream ended.
   */
  write(bytes: Bytes): void | Promise<void> {
    // The reader left in this tick, and the writer is not told yet: nobody wants the bytes.
    if (this.#finish) return undefined;
    if (this.#failure) throw this.#failure.reason; // by a getter of the chunk
    this.#chunk = bytes;
    return this.#answer();
  }

  /** The input has ended. What is left is enqueued, whether the reader asked for it or not. */
  close(): void | Promise<void> {
    return this.#end("requested");
  }

  /** The input has failed: the reader gets the error after the output of what came before. */
  closeWith(error: unknown): void {
    (async () => await this.#end({ error }))().catch(() => {});
  }

  /** The writer gives up. */
  abort(reason: unknown): Promise<void> {
    return this.#finish ??= this.#leave(reason, () => this.#output.error(reason));
  }

  /** The writer is about to give up: {@linkcode abort} comes when the write that waits is answered. */
  interrupt(reason: unknown): void {
    if (!this.#closing) this.#releaseEarly(reason);
  }

  #cancel(reason: unknown): Promise<void> {
    this.#isReaderGone = true;
    return this.#finish ??= this.#leave(reason, () => this.#input.error(reason));
  }

  #pull(): void {
    this.#demand = true;
    if (this.#isErrorHeld) this.#output.error(this.#failure!.reason);
    else this.#step();
  }

  #turn(): void {
    this.#isTurnRequested = false;
    this.#isResting = false;
    this.#slice.restart();
    this.#isDue = this.#gathered.length > 0;
    this.#step();
  }

  // ---- the step ----

  /** Does all that can be done now. */
  #step(): void {
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      while (!this.#isClosed && !this.#isResting && this.#advance());
    } catch (error) {
      this.fail(error);
    }
    this.#isStepping = false;
    if (this.#listener) this.#hold();
    if (this.#demand && !this.#isBusy && !this.#isClosed) this.#input.pull?.(this);
  }

  /** One transition of the table. Returns whether another may follow at once. */
  #advance(): boolean {
    const transform = this.#transform ??= this.#factory.open();
    if (transform.pending) return this.#produce(transform);
    const gathered = this.#gathered.length;
    const chunk = this.#chunk;
    if (chunk) {
      if (chunk.length < SMALL && gathered + chunk.length <= GATHER_LIMIT) {
        this.#chunk = undefined;
        this.#gather(chunk);
        return this.#settle(transform);
      }
      if (gathered > 0) return this.#drain(transform);
      this.#chunk = undefined;
      const output = this.#demand ? transform.pass?.(chunk) : undefined;
      if (!output) return this.#transformLater(transform, [chunk]);
      this.#enqueue(output);
      return this.#settle(transform);
    }
    if (gathered > 0 && (this.#closing || this.#isDue && this.#demand)) return this.#drain(transform);
    return this.#closing ? this.#close(transform) : this.#settle(transform);
  }

  #gather(chunk: Bytes): void {
    if (chunk.length === 0) return;
    this.#gathered.add(chunk);
    if (this.#isTurnRequested) return;
    this.#slice.restart(); // the time since the last chunk is not ours, and a rest would cut the gathering short
    this.#requestTurn();
  }

  #drain(transform: Transform): true {
    this.#isDue = false;
    return this.#transformLater(transform, this.#gathered.take());
  }

  #transformLater(transform: Transform, list: readonly Bytes[]): true {
    transform.write(list);
    return true;
  }

  #produce(transform: Transform): boolean {
    if (!this.#demand && !this.#closing) return false;
    const output = transform.read();
    if (output) this.#enqueue(output);
    if (!transform.pending) return true;
    if (!output && transform.progress) return this.#await(transform.progress);
    return !this.#mustRest();
  }

  #close(transform: Transform): boolean {
    if (typeof this.#closing === "object") {
      if (transform.progress) return this.#await(transform.progress);
      throw this.#closing.error;
    }
    if (this.#closing === "requested") {
      this.#closing = "ended";
      transform.end();
      return true;
    }
    this.#release();
    if (!this.#isReaderGone) this.#output.close();
    this.#caller?.resolve();
    return false;
  }

  /** Nothing is left to do: answers the write. */
  #settle(transform: Transform): boolean {
    if (this.#isBusy && this.#mustRest()) return false;
    this.#isBusy = false;
    this.#caller?.resolve();
    this.#caller = undefined;
    if (this.#demand) this.#await(transform.progress);
    return false;
  }

  // ---- what it waits for ----

  #await(progress: Promise<void> | undefined): false {
    if (progress && this.#awaited !== progress) {
      this.#awaited = progress;
      void progress.then(() => this.#step());
    }
    return false;
  }

  /** Memory may feed a stream from one microtask to the next: timers and sockets get their turn all the same. */
  #mustRest(): boolean {
    if (!this.#slice.over) return false;
    this.#isResting = true;
    this.#requestTurn();
    return true;
  }

  #requestTurn(): void {
    if (this.#isTurnRequested) return;
    this.#isTurnRequested = true;
    setImmediate(() => this.#turn());
  }

  /** A step, and its answer to who writes or closes. */
  #answer(): void | Promise<void> {
    this.#isBusy = true;
    this.#step();
    if (this.#failure) throw this.#failure.reason;
    if (!this.#isBusy) return;
    return new Promise((resolve, reject) => {
      this.#caller = { resolve, reject };
      this.#hold();
    });
  }

  /** Retains this while a caller waits: a reader, or a writer. The source of an iterator is not a waiting caller. */
  #hold(): void {
    if (!this.#listener) return;
    const isAwaited = this.#demand || this.#isBusy && !this.#input.pull;
    if (isAwaited && !this.#isClosed) this.#listener.retain(this);
    else this.#listener.release();
  }

  // ---- the ends ----

  #enqueue(output: Bytes): void {
    this.#demand = false;
    if (!this.#isReaderGone) this.#output.enqueue(output);
  }

  #end(closing: "requested" | { readonly error: unknown }): void | Promise<void> {
    if (this.#finish || this.#isClosed) return this.#finish;
    this.#closing = closing;
    const answer = this.#answer();
    if (answer) this.#finish = answer;
    return answer;
  }

  /** One side gives up. The other is told a microtask later, so that both may be left in one tick. */
  async #leave(reason: unknown, tellOther: () => void): Promise<void> {
    if (this.#isClosed && !this.#failure) return;
    this.#releaseEarly(reason);
    await undefined;
    tellOther();
  }

  /** Something failed here. What the reader did not get yet is valid, and comes first. */
  fail(reason: unknown): void {
    this.#isErrorHeld = !this.#isClosed && this.#output.desiredSize! < 0;
    this.#endBoth(reason);
  }

  #endBoth(reason: unknown): void {
    if (this.#isClosed) return;
    this.#release({ reason });
    this.#input.error(reason);
    if (!this.#isErrorHeld) this.#output.error(reason);
  }

  /** A write of which nothing is left waits for the event loop alone, and is fulfilled. */
  #releaseEarly(reason: unknown): void {
    if (!this.#chunk && !this.#closing && !this.#transform?.pending) this.#caller?.resolve();
    this.#release({ reason });
  }

  #release(failure?: { readonly reason: unknown }): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#failure = failure;
    this.#isBusy = false;
    this.#chunk = undefined;
    this.#gathered.wipe();
    this.#listener?.stop();
    this.#transform?.close();
    this.#factory.discard();
    if (failure) this.#caller?.reject(failure.reason);
  }
}
