/**
 * {@linkcode Driver}: moves bytes from an input, through a {@linkcode Transform}, to a ReadableStream.
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

/** Smaller chunks are gathered up to the limit, because a call of the transform takes longer than a copy. */
const SMALL = 16 * 1024;
const GATHER_LIMIT = 64 * 1024;

/** The side that writes to a {@linkcode Driver}: a WritableStream, or the source of an iterator. */
export interface InputSide {
  /** Called when the stream failed with `reason`, unless this side ended it. */
  error(reason: unknown): void;
  /** Called while the reader waits and there is no input. May be called again before input comes. */
  pull?(driver: Driver): void;
}

/**
 * The state machine of a stream.
 *
 * A native TransformStream has no pull hook: it would enqueue all the output of a large chunk at once. The driver
 * produces each output when the reader asks for it.
 *
 * A state is named after the event that the driver waits for. The stream has "demand" if the reader has asked and has
 * got nothing since. In the table, "output" means: enqueue an output if there is demand, otherwise wait for a pull.
 * While the driver closes, it needs no demand.
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
 * "–": the event cannot come, or only sets a flag. The promise of a write or a close settles on return to idle,
 * gathering or due, so no other one comes before that. abort() by the writer, cancel() by the reader, a signal, and an
 * error lead from each state to closed. There are two exceptions, as in a native TransformStream: in closed, they have
 * no effect, and abort() and cancel() do not stop a close that has begun.
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
  /** The event loop has had a turn since the first chunk was gathered. */
  #isDue = false;
  /** The chunk of the last write, until it is gathered or passed to the transform. */
  #chunk: Bytes | undefined;
  /** The input has ended: `transform.end()` must be called, or was called. Or an error must follow the output. */
  #closing: "requested" | "ended" | { readonly error: unknown } | undefined;
  /** A write or a close is in progress. `#caller` settles its promise, if its caller waits. */
  #isBusy = false;
  #caller: { readonly resolve: () => void; readonly reject: (reason: unknown) => void } | undefined;
  #isStepping = false;
  #isResting = false;
  #isTurnRequested = false;
  /** The promise of the transform's progress after which the next step runs. */
  #awaited: Promise<void> | undefined;
  /** The promise of the first abort(), close() or cancel(). Later ones return it, as in a native TransformStream. */
  #finish: Promise<void> | undefined;
  #isClosed = false;
  /** The reason if it was closed by an abort, a cancel or an error. */
  #failure: { readonly reason: unknown } | undefined;
  /** The reader has cancelled: a close in progress continues, but enqueues nothing. */
  #isReaderGone = false;
  /** The reader gets the error after the outputs that are enqueued. */
  #isErrorHeld = false;

  /** @param transform The open transform. Without it, the factory opens one when the reader first asks. */
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

  /** The engine that runs. Reading it opens the transform. */
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

  /** Whether the reader has asked and has got nothing since. */
  get hasDemand(): boolean {
    return this.#demand && !this.#isClosed;
  }

  // ---- events ----

  /**
   * @returns A promise if the write must wait for the transform, the reader or the event loop. The bytes are in use
   * until it settles.
   * @throws The reason with which the stream ended.
   */
  write(bytes: Bytes): void | Promise<void> {
    // The reader cancelled in this tick, and the writer does not know that yet. The bytes are dropped.
    if (this.#finish) return undefined;
    if (this.#failure) throw this.#failure.reason; // a getter of the chunk ended the stream
    this.#chunk = bytes;
    return this.#answer();
  }

  /** Ends the input. The rest of the output is enqueued, also without demand. */
  close(): void | Promise<void> {
    return this.#end("requested");
  }

  /** Ends the input with an error. The reader gets it after the output of the input before it. */
  closeWith(error: unknown): void {
    (async () => await this.#end({ error }))().catch(() => {});
  }

  /** Aborts the stream: the writer gives up. */
  abort(reason: unknown): Promise<void> {
    return this.#finish ??= this.#leave(reason, () => this.#output.error(reason));
  }

  /** Called before {@linkcode abort}, which follows when the pending write has settled. */
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

  /** Makes transitions until one must wait. */
  #step(): void {
    if (this.#isStepping) return;
    this.#isStepping = true;
    try {
      while (!this.#isClosed && !this.#isResting && this.#advance());
    } catch (error) {
      this.fail(error);
    }
    this.#isStepping = false;
    if (this.#listener) this.#updateListener();
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
    this.#slice.restart(); // the event loop had turns since the last chunk, and a rest would end the gathering early
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

  /** Nothing is left to do: settles the write. */
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

  /**
   * Whether the event loop must have a turn. Otherwise a stream over bytes in memory would block timers and sockets.
   */
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

  /** Runs a step for a write or a close, and returns its promise if it must wait. */
  #answer(): void | Promise<void> {
    this.#isBusy = true;
    this.#step();
    if (this.#failure) throw this.#failure.reason;
    if (!this.#isBusy) return;
    return new Promise((resolve, reject) => {
      this.#caller = { resolve, reject };
      this.#updateListener();
    });
  }

  /** Keeps this alive while a reader or a writer waits. The source of an iterator is not a waiting caller. */
  #updateListener(): void {
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

  /** One side gives up. The other one gets the error a microtask later, so that a caller may end both in one tick. */
  async #leave(reason: unknown, tellOther: () => void): Promise<void> {
    if (this.#isClosed && !this.#failure) return;
    this.#releaseEarly(reason);
    await undefined;
    tellOther();
  }

  /** Ends both sides with an error of the transform. The enqueued outputs are valid, and the reader gets them first. */
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

  /** Closes early. A write whose bytes are all processed only waits for the event loop, and is fulfilled. */
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
