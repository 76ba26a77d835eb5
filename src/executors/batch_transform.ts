/**
 * {@linkcode BatchTransform}: a stream whose batches are run by an executor.
 *
 * @module
 */

import { ByteQueue } from "../byte_queue.ts";
import { type Bytes, IovCursor } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { setImmediate } from "../runtime/web.ts";
import type { Transform } from "../streams/transform.ts";
import type { BatchPosition, BatchResult, Session, SplitRule } from "./executor.ts";

/** A batch that is running, or done and not read. */
interface Batch {
  result?: BatchResult;
}

/**
 * Zeroes the queued input of a stream that was garbage collected without being closed. Keys and sessions have their own
 * finalizers. This one must not refer to them: the rule refers to the stream's signals, and a signal refers to the
 * stream while a write waits.
 */
const finalizer = new FinalizationRegistry<{ readonly queue: ByteQueue }>(({ queue }) => queue.wipe());

/**
 * Cuts its input into batches, runs them in the session of an executor, and returns their outputs in order.
 *
 * It takes input only while it may run another batch. This bounds its memory. Whole batches are read in the caller's
 * memory, and only the rest of a chunk is copied. If the session becomes the owner of its input
 * ({@linkcode Session.ownsInput}), all input is copied, or with `inPlace` moved.
 *
 * A whole batch runs when {@linkcode SplitRule.lookahead} bytes follow it. A smaller batch runs at the end of the
 * input. If the source is slow, a smaller batch also runs when no other is running and the event loop has had a turn,
 * as in Nagle's algorithm.
 *
 * With {@linkcode SplitRule.isEager}, a synchronous session runs a whole batch as a non-final one without its
 * lookahead. If that fails, the batch waits and runs again when the lookahead is there or the input has ended.
 */
export class BatchTransform implements Transform {
  readonly engine: EngineName;
  readonly #rule: SplitRule;
  readonly #inPlace: boolean;
  /** The queue that the finalizer zeroes. */
  readonly #finalizerState: { queue: ByteQueue };
  #queue: ByteQueue;
  #session: Session | undefined;
  #input: IovCursor | undefined;
  /** The number of the first unit of the next batch. */
  #index: number;
  #unitsPerBatch = 1;
  /** Whether the session gets the memory of its batches. */
  #givesInput = false;
  readonly #batches: Batch[] = [];
  #running = 0;
  #isEnding = false;
  #isEndSent = false;
  /** The next batch failed as a non-final one, and waits for its lookahead. */
  #isRefused = false;
  /** A partial batch runs in the next turn of the event loop. */
  #isFlushing = false;
  #failure: { readonly error: unknown } | undefined;
  #progress: PromiseWithResolvers<void> | undefined;
  #isClosed = false;

  constructor(rule: SplitRule, inPlace: boolean) {
    this.#rule = rule;
    this.#inPlace = inPlace;
    this.#index = rule.first;
    this.#queue = new ByteQueue(rule.headSize);
    this.#finalizerState = { queue: this.#queue };
    finalizer.register(this, this.#finalizerState, this);
    if (rule.headSize === 0) this.#open(new Uint8Array(0));
    this.engine = this.#session?.engine ?? rule.engine!;
  }

  get pending(): boolean {
    if (this.#isClosed) return false;
    return this.#input !== undefined || this.#batches[0]?.result !== undefined || this.#failure !== undefined ||
      this.#isEnding;
  }

  get progress(): Promise<void> | undefined {
    if (this.#isClosed || this.#running === 0 && !this.#isFlushing) return undefined;
    return (this.#progress ??= Promise.withResolvers()).promise;
  }

  write(list: readonly Bytes[]): void {
    this.#input = new IovCursor(list);
  }

  end(): void {
    this.#input = new IovCursor([]);
    this.#isEnding = true;
  }

  read(): Bytes | undefined {
    if (this.#isClosed) return undefined;
    this.#advance();
    const result = this.#batches[0]?.result;
    if (!result) return this.#batches.length === 0 ? this.#atEnd() : undefined;
    const { outputs, error } = result;
    const output = outputs.shift();
    if (outputs.length > 0) return output;
    this.#batches.shift();
    if (error !== undefined) {
      this.#batches.length = 0; // no output follows an error
      this.#failure = { error };
    }
    this.#flushLater();
    return output ?? (this.#batches.length === 0 ? this.#atEnd() : undefined);
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    finalizer.unregister(this);
    this.#input = undefined;
    this.#batches.length = 0;
    this.#queue.wipe();
    if (this.#session) this.#session.close();
    else this.#rule.discard();
    this.#tellProgress();
  }

  /** No output is left: throws the error, or closes at the end. */
  #atEnd(): undefined {
    if (this.#failure) {
      this.close();
      throw this.#failure.error;
    }
    if (this.#isEndSent) this.close();
  }

  get #hasRoom(): boolean {
    const session = this.#session!;
    return this.#batches.length < session.limit && session.hasRoom;
  }

  /** Runs batches while there is room, and takes the rest of the input. */
  #advance(): void {
    const input = this.#input;
    if (!input || this.#failure) return;
    try {
      input.verify();
      if (!this.#session && !this.#readHead(input)) return;
      while (this.#hasRoom && this.#runNext(input));
      this.#takeRest(input);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** Reads the head, and opens the session. Returns whether it is open. */
  #readHead(input: IovCursor): boolean {
    const { headSize } = this.#rule;
    this.#queue.add(input, Math.min(headSize - this.#queue.length, input.remaining));
    if (this.#queue.length < headSize && !this.#isEnding) {
      this.#input = undefined;
      return false;
    }
    this.#open(this.#queue.bytes);
    return true;
  }

  #open(head: Bytes): void {
    const { first, lookahead } = this.#rule;
    const session = this.#rule.open(head);
    this.#session = session;
    this.#unitsPerBatch = Math.max(1, this.#rule.countOf(first + 1, session.batchSize));
    const most = this.#rule.lengthOf(first + 1, this.#unitsPerBatch) + lookahead;
    // With inPlace, output goes into memory that is moved, never into shared memory.
    const moves = this.#inPlace && !session.isSynchronous;
    this.#givesInput = moves || session.ownsInput;
    this.#queue = this.#finalizerState.queue = new ByteQueue(most, {
      moves,
      memory: moves ? undefined : session.memory,
    });
  }

  /** Runs the next batch if it is whole, or the last one. Returns whether another batch may follow. */
  #runNext(input: IovCursor): boolean {
    const total = this.#queue.length + input.remaining;
    const whole = this.#rule.lengthOf(this.#index, this.#unitsPerBatch);
    if (this.#isEnding && total <= whole) {
      const isNeeded = total > 0 || this.#rule.hasEnd || this.#index === this.#rule.first;
      if (isNeeded && !this.#isEndSent) this.#run(input, total, true);
      this.#isEndSent = true;
      return false;
    }
    return total >= whole + this.#lookahead && this.#run(input, whole, false);
  }

  /** The number of bytes that must follow the next batch before it runs. */
  get #lookahead(): number {
    return this.#rule.isEager && !this.#isRefused ? 0 : this.#rule.lookahead;
  }

  /** The number of whole units in `length` bytes that may run before the end of the input. */
  #runnableUnits(length: number): number {
    return this.#rule.countOf(this.#index, length - this.#lookahead);
  }

  /** Runs a batch. Returns false if it must wait for its lookahead. */
  #run(input: IovCursor, length: number, isLast: boolean): boolean {
    const session = this.#session!;
    const mayOverwrite = this.#inPlace && this.#queue.length === 0;
    const list = this.#givesInput ? this.#take(input, length) : this.#peek(input, length);
    const result = session.run(list, this.#positionOf(list, isLast), mayOverwrite);
    if (result instanceof Promise) {
      const batch: Batch = {};
      this.#running++;
      this.#batches.push(batch);
      void result.then((result) => this.#finish(batch, result));
    } else {
      const { error } = result;
      const isUnsure = this.#rule.isEager && !isLast && length === this.#queue.length + input.remaining;
      if (isUnsure && !this.#isRefused && error instanceof KcapiError && error.code === "EBADMSG") {
        this.#isRefused = true;
        return false;
      }
      this.#batches.push({ result });
    }
    if (!this.#givesInput) this.#drop(input, length);
    this.#index += isLast ? 1 : this.#rule.countOf(this.#index, length);
    this.#isRefused = false;
    return true;
  }

  #positionOf(list: readonly Bytes[], isLast: boolean): BatchPosition {
    try {
      return this.#rule.positionOf(this.#index, isLast, list);
    } catch (error) {
      for (const bytes of list) this.#session!.memory?.release(bytes);
      throw error;
    }
  }

  /** The next `length` bytes, which stay in the queue and in the caller's memory. */
  #peek(input: IovCursor, length: number): readonly Bytes[] {
    const queue = this.#queue;
    const missing = Math.max(0, length - queue.length);
    if (queue.length === 0) return input.peek(missing);
    const takesList = this.#session!.isSynchronous && !this.#rule.isContiguous;
    if (takesList) return [queue.bytes, ...input.peek(missing)];
    queue.add(input, missing);
    return [queue.bytes.subarray(0, length)];
  }

  /** Removes what {@linkcode #peek} returned. */
  #drop(input: IovCursor, length: number): void {
    const queued = Math.min(length, this.#queue.length);
    input.advance(length - queued);
    this.#queue.drop(queued);
  }

  #take(input: IovCursor, length: number): readonly Bytes[] {
    this.#queue.add(input, Math.max(0, length - this.#queue.length));
    return this.#queue.take(length);
  }

  #finish(batch: Batch, result: BatchResult): void {
    if (this.#isClosed) return;
    this.#running--;
    batch.result = result;
    const index = this.#batches.indexOf(batch);
    if (result.error !== undefined) this.#fail(result.error);
    else if (result.outputs.length === 0 && index >= 0) this.#batches.splice(index, 1);
    this.#advance();
    this.#flush();
    this.#tellProgress();
  }

  /** Takes the rest of the input, unless it makes a batch for which there is no room yet. */
  #takeRest(input: IovCursor): void {
    if (this.#isEnding) {
      if (this.#isEndSent) this.#input = undefined;
      return;
    }
    if (!this.#hasRoom && this.#runnableUnits(this.#queue.length + input.remaining) > 0) return;
    this.#queue.add(input, input.remaining);
    this.#input = undefined;
    this.#flushLater();
  }

  /** Runs the queued input in the next turn of the event loop, if it makes a batch and no other is running. */
  #flushLater(): void {
    if (this.#isFlushing || !this.#mayFlush) return;
    this.#isFlushing = true;
    setImmediate(() => {
      this.#isFlushing = false;
      this.#flush();
      if (this.#running === 0) this.#tellProgress();
    });
  }

  get #mayFlush(): boolean {
    const session = this.#session;
    if (!session || session.isSynchronous || this.#isClosed || this.#failure || this.#input || this.#isEndSent) {
      return false;
    }
    return this.#running === 0 && this.#hasRoom && this.#runnableUnits(this.#queue.length) > 0;
  }

  #flush(): void {
    if (!this.#mayFlush) return;
    const length = this.#rule.lengthOf(this.#index, this.#runnableUnits(this.#queue.length));
    try {
      this.#run(NO_INPUT, length, false);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The error follows the outputs of the batches that were started before it. */
  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#input = undefined;
    this.#queue.wipe();
  }

  #tellProgress(): void {
    this.#progress?.resolve();
    this.#progress = undefined;
  }
}

const NO_INPUT = new IovCursor([]);
