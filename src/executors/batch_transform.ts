/**
 * {@linkcode BatchTransform}: a stream whose batches are run by an executor.
 *
 * @module
 */

import { ByteQueue } from "../byte_queue.ts";
import { type Bytes, IovCursor } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { setImmediate } from "../runtime/mod.ts";
import type { Transform } from "../streams/transform.ts";
import type { BatchResult, Position, Session, SplitRule } from "./executor.ts";

/** A batch that is under way, or done and not read. */
interface Batch {
  result?: BatchResult;
}

/**
 * Wipes the input of a stream that nobody closed. Keys and sessions have finalizers of their own. They may not be held
 * here: the rule refers to the signals of the stream, and those to the stream while a write waits.
 */
const finalizer = new FinalizationRegistry<{ readonly queue: ByteQueue }>(({ queue }) => queue.wipe());

/**
 * Cuts its input into batches, has them run by the session of an executor, and gives their outputs in order.
 *
 * Input is taken over only while another batch may be handed over, so that what a stream holds is bounded. A session
 * that is synchronous reads whole batches where the caller has them, and only what is left of a chunk is copied. Other
 * sessions become the owner of their input: it is copied, or with `inPlace` moved.
 *
 * A whole batch is run when {@linkcode SplitRule.hold} bytes follow it. A smaller one is run at the end of the input;
 * and of a slow source, when none is under way and the event loop has had a turn, as Nagle's algorithm has it.
 *
 * A synchronous session does not wait for the byte that follows a batch. If the batch is refused as one that is not the
 * last, it waits for that byte after all, and is run again as what it is.
 */
export class BatchTransform implements Transform {
  readonly engine: EngineName;
  readonly #rule: SplitRule;
  readonly #inPlace: boolean;
  /** What the finalizer wipes. */
  readonly #held: { queue: ByteQueue };
  #queue: ByteQueue;
  #session: Session | undefined;
  #input: IovCursor | undefined;
  /** The number of the first unit that no batch has. */
  #index: number;
  #unitsPerBatch = 1;
  readonly #batches: Batch[] = [];
  #underWay = 0;
  #isEnding = false;
  #isEndSent = false;
  /** The batch that waits was refused as one that is not the last. */
  #isRefused = false;
  /** A batch that is not whole is run in the next turn. */
  #isFlushing = false;
  #failure: { readonly error: unknown } | undefined;
  #progress: PromiseWithResolvers<void> | undefined;
  #isClosed = false;

  constructor(rule: SplitRule, inPlace: boolean) {
    this.#rule = rule;
    this.#inPlace = inPlace;
    this.#index = rule.first;
    this.#queue = new ByteQueue(rule.headSize);
    this.#held = { queue: this.#queue };
    finalizer.register(this, this.#held, this);
    if (rule.headSize === 0) this.#open(new Uint8Array(0));
    this.engine = this.#session?.engine ?? rule.engine!;
  }

  get pending(): boolean {
    if (this.#isClosed) return false;
    return this.#input !== undefined || this.#batches[0]?.result !== undefined || this.#failure !== undefined ||
      this.#isEnding;
  }

  get progress(): Promise<void> | undefined {
    if (this.#isClosed || this.#underWay === 0 && !this.#isFlushing) return undefined;
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
      this.#batches.length = 0; // nothing comes out behind it
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

  /** Nothing is left to be read: the end, or why there is none. */
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

  /** Hands over batches while there is room, and takes over the rest of the input. */
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
    const { first, hold } = this.#rule;
    const session = this.#rule.open(head);
    this.#session = session;
    this.#unitsPerBatch = Math.max(1, this.#rule.countOf(first + 1, session.batchSize));
    const most = this.#rule.lengthOf(first + 1, this.#unitsPerBatch) + hold;
    // Output in place goes into memory that is moved, never into shared memory.
    const moves = this.#inPlace && !session.isSynchronous;
    this.#queue = this.#held.queue = new ByteQueue(most, { moves, memory: moves ? undefined : session.memory });
  }

  /** Runs the next batch, if it is whole or the last one. Returns whether there may be another. */
  #runNext(input: IovCursor): boolean {
    const total = this.#queue.length + input.remaining;
    const whole = this.#rule.lengthOf(this.#index, this.#unitsPerBatch);
    if (this.#isEnding && total <= whole) {
      const isNeeded = total > 0 || this.#rule.hasEnd || this.#index === this.#rule.first;
      if (isNeeded && !this.#isEndSent) this.#run(input, total, true);
      this.#isEndSent = true;
      return false;
    }
    return total >= whole + this.#hold && this.#run(input, whole, false);
  }

  /** Bytes that must follow the next batch before it is run. */
  get #hold(): number {
    return this.#rule.isEager && !this.#isRefused ? 0 : this.#rule.hold;
  }

  /** Whole units in `length` bytes that may be run before the end of the input. */
  #runnable(length: number): number {
    return this.#rule.countOf(this.#index, length - this.#hold);
  }

  /** Returns whether the batch was handed over. */
  #run(input: IovCursor, length: number, isLast: boolean): boolean {
    const session = this.#session!;
    const mayOverwrite = this.#inPlace && this.#queue.length === 0;
    const list = session.isSynchronous ? this.#peek(input, length) : this.#take(input, length);
    const result = session.run(list, this.#positionOf(list, isLast), mayOverwrite);
    const batch: Batch = {};
    if (result instanceof Promise) {
      this.#underWay++;
      void result.then((result) => this.#finish(batch, result));
    } else {
      const { error } = result;
      const isUnsure = this.#rule.isEager && !isLast && length === this.#queue.length + input.remaining;
      if (isUnsure && !this.#isRefused && error instanceof KcapiError && error.code === "EBADMSG") {
        this.#isRefused = true;
        return false;
      }
      batch.result = result;
      input.advance(length - this.#queue.length);
      this.#queue.clear();
    }
    this.#batches.push(batch);
    this.#index += this.#rule.countOf(this.#index, length);
    this.#isRefused = false;
    return true;
  }

  #positionOf(list: readonly Bytes[], isLast: boolean): Position {
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
    const missing = length - queue.length;
    if (queue.length === 0) return input.peek(missing);
    if (!this.#rule.isContiguous) return [queue.bytes, ...input.peek(missing)];
    queue.add(input, missing);
    return [queue.bytes];
  }

  #take(input: IovCursor, length: number): readonly Bytes[] {
    this.#queue.add(input, Math.max(0, length - this.#queue.length));
    return this.#queue.take(length);
  }

  #finish(batch: Batch, result: BatchResult): void {
    if (this.#isClosed) return;
    this.#underWay--;
    batch.result = result;
    const index = this.#batches.indexOf(batch);
    if (result.error !== undefined) this.#fail(result.error);
    else if (result.outputs.length === 0 && index >= 0) this.#batches.splice(index, 1);
    this.#advance();
    this.#flush();
    this.#tellProgress();
  }

  /** Takes over what is left of the input, unless it makes a batch for which there is no room yet. */
  #takeRest(input: IovCursor): void {
    if (this.#isEnding) {
      if (this.#isEndSent) this.#input = undefined;
      return;
    }
    if (!this.#hasRoom && this.#runnable(this.#queue.length + input.remaining) > 0) return;
    this.#queue.add(input, input.remaining);
    this.#input = undefined;
    this.#flushLater();
  }

  /** Runs what waits in the next turn of the event loop, if it makes a batch and none is under way. */
  #flushLater(): void {
    if (this.#isFlushing || !this.#mayFlush) return;
    this.#isFlushing = true;
    setImmediate(() => {
      this.#isFlushing = false;
      this.#flush();
      if (this.#underWay === 0) this.#tellProgress();
    });
  }

  get #mayFlush(): boolean {
    const session = this.#session;
    if (!session || session.isSynchronous || this.#isClosed || this.#failure || this.#input || this.#isEndSent) {
      return false;
    }
    return this.#underWay === 0 && this.#hasRoom && this.#runnable(this.#queue.length) > 0;
  }

  #flush(): void {
    if (!this.#mayFlush) return;
    const length = this.#rule.lengthOf(this.#index, this.#runnable(this.#queue.length));
    try {
      this.#run(NO_INPUT, length, false);
    } catch (error) {
      this.#fail(error);
    }
  }

  /** The error comes out after what was handed over before it. */
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
