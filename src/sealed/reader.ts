/**
 * {@linkcode openSealed}: random access to a sealed file.
 *
 * @module
 */

import { onAbort, type WeakAbortListener } from "../abort.ts";
import { type Bytes, describe, toUint8Array } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { allocUnsafe } from "../runtime/mod.ts";
import { TimeSlice } from "../time_slice.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import type { Session } from "../executors/executor.ts";
import { openSession } from "./batches.ts";
import { parseHeader, SegmentLayout } from "./format.ts";
import { type AnySource, anySource, rejectSize, type SealedSource, withSizeHint } from "./source.ts";
import { checkUnsealOptions, type KeysetSealOptions, type SealOptions, type SealPlan } from "./options.ts";
import { choosePlan, trialSize } from "./rotation.ts";
import { sliceOf } from "./slice.ts";

/** Options of `stream()` of a {@linkcode SealedReader}. */
export interface SealedStreamOptions {
  /** The first byte, as for `bytes()`: 0 by default. */
  start?: number | undefined;
  /** The byte after the last one; the file's end by default. */
  end?: number | undefined;
  /**
   * Closes the file when this stream has ended, failed, or been cancelled, and no other stream or call of `bytes()` is
   * pending. A stream that is neither read to its end nor cancelled leaves the file open. Default: false.
   */
  close?: boolean | undefined;
}

const STREAM_NAMES: OptionNames<SealedStreamOptions> = { start: true, end: true, close: true };

const CONSTRUCT = Symbol("construct");

/** A sealed file that {@linkcode openSealed} opened for random access. Any number of reads may run at once. */
export class SealedReader implements Disposable {
  /** The size of the plaintext in bytes, verified. */
  readonly size: number;
  /** The engine that runs the cipher. */
  readonly engine: EngineName;
  /** The key that opened the file: its position in the list of the option `key`, or in the keyset. */
  readonly keyIndex: number;
  readonly #reader: Reader;

  /**
   * Use {@linkcode openSealed}.
   *
   * @ignore
   */
  constructor(token: symbol, reader: Reader) {
    if (token !== CONSTRUCT) throw new TypeError("SealedReader has no public constructor: use openSealed()");
    this.#reader = reader;
    this.size = reader.plaintextSize;
    this.engine = reader.engine;
    this.keyIndex = reader.keyIndex;
  }

  /**
   * Reads a range of the plaintext. Positions are those of `Blob.slice()`: limited to the file, and negative ones count
   * from its end.
   *
   * @param start The first byte, 0 by default.
   * @param end The byte after the last one; the end of the file by default.
   * @returns The bytes.
   * @throws {KcapiError} EBADMSG if a segment of the range cannot be verified; EBADF after {@linkcode close}; ECANCELED
   * if the file is closed during the call; EIO if the source returns another number of bytes. If the cipher fails, the
   * file is closed.
   */
  async bytes(start?: number, end?: number): Promise<Uint8Array<ArrayBuffer>> {
    const [from, to] = this.#range(start, end);
    const reader = this.#reader;
    reader.check();
    reader.begin();
    try {
      const bytes = new Uint8Array(to - from);
      const next = reader.pieces(from, to);
      for (let at = 0; at < bytes.length;) {
        const piece = await next();
        bytes.set(piece, at);
        at += piece.length;
      }
      return bytes;
    } finally {
      reader.end();
    }
  }

  /**
   * Reads a range of the plaintext as a stream. Each read of the stream reads and verifies a segment. With a pool, the
   * stream reads some batches of segments ahead.
   *
   * If a function returns the stream, for example in a Response, do not open the file with `using`: that closes the
   * file when the function returns, before the stream is read. Let the stream close the file.
   *
   * @param options The range, and whether to close the file at the end.
   * @returns The stream. It fails with the errors of {@linkcode bytes}.
   * @throws {TypeError} If an option is of a wrong type.
   *
   * @example A response that closes the file
   * ```ts
   * import { openSealed, seal } from "@kcapi/streams";
   * import { assertEquals } from "@std/assert";
   *
   * const key = crypto.getRandomValues(new Uint8Array(32));
   * const sealed = new Blob(await Array.fromAsync(seal({ key }, new TextEncoder().encode("attack at dawn"))));
   *
   * async function respond(): Promise<Response> {
   *   const file = await openSealed(sealed, { key });
   *   return new Response(file.stream({ start: -4, close: true }));
   * }
   * assertEquals(await (await respond()).text(), "dawn");
   * ```
   */
  stream(options: SealedStreamOptions = {}): ReadableStream<Uint8Array<ArrayBuffer>> {
    checkOptions("options", options, STREAM_NAMES);
    const { start, end, close = false } = options;
    if (typeof close !== "boolean") throw new TypeError(`"close" expected a boolean, got ${describe(close)}`);
    const [from, to] = this.#range(start, end);
    const reader = this.#reader;
    const next = reader.pieces(from, to);
    let left = to - from;
    reader.begin();
    return new ReadableStream<Bytes>({
      start: () => new Promise((resolve) => resolve(reader.check())),
      async pull(controller) {
        try {
          if (left === 0) {
            controller.close();
            return reader.end(close);
          }
          const piece = await next();
          left -= piece.length;
          controller.enqueue(piece);
        } catch (error) {
          reader.end(close);
          throw error;
        }
      },
      cancel: () => reader.end(close),
    }, { highWaterMark: 0 });
  }

  /** Zeroes the keys, and releases the cipher. Pending reads reject with KcapiError ECANCELED. */
  close(): void {
    this.#reader.close(new KcapiError("ECANCELED", "close", "the file was closed"), createClosedError());
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #range(start: number | undefined, end: number | undefined): [from: number, to: number] {
    return sliceOf(this.size, start, end);
  }
}

/**
 * Opens a sealed file for random access.
 *
 * The promise resolves when the last segment is verified. So the size is authentic: a file that was truncated or
 * extended does not open. Other segments are verified when they are read.
 *
 * @param source A Blob (`Bun.file()`, `openAsBlob()` of Node), or an object with `size` and `read(start, end)`, as in
 * the second example. The second example works for files of any size.
 * @param options The key, the associated data and the format that the file was sealed with. The signal closes the file.
 * @returns The open file.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 * @throws {KcapiError} EBADMSG if the data cannot be verified. EIO if the source returns another number of bytes than
 * requested, or changes its size.
 *
 * @example Usage
 * ```ts
 * import { openSealed, seal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = new Blob(await Array.fromAsync(seal({ key }, new TextEncoder().encode("attack at dawn"))));
 * using file = await openSealed(sealed, { key });
 * assertEquals(file.size, 14);
 * assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * ```
 *
 * @example A file, in Deno, Bun and Node
 * ```ts
 * import { openSealed, seal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 * import { mkdtemp, open, writeFile } from "node:fs/promises";
 * import { tmpdir } from "node:os";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const path = `${await mkdtemp(`${tmpdir()}/`)}/data.sealed`;
 * await writeFile(path, seal({ key }, new TextEncoder().encode("attack at dawn")));
 *
 * const handle = await open(path);
 * const source = {
 *   size: (await handle.stat()).size,
 *   async read(start: number, end: number) {
 *     const bytes = new Uint8Array(end - start);
 *     for (let at = 0; at < bytes.length;) {
 *       const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at);
 *       if (bytesRead === 0) throw new Error("the file has become shorter");
 *       at += bytesRead;
 *     }
 *     return bytes;
 *   },
 * };
 * const file = await openSealed(source, { key });
 * assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * file.close();
 * await handle.close();
 * ```
 */
export async function openSealed(
  source: SealedSource,
  options: SealOptions | KeysetSealOptions,
): Promise<SealedReader> {
  const range = anySource(source);
  const plans = checkUnsealOptions(options);
  try {
    await range.learnSize(1, { signal: new AbortController().signal });
    const size = range.size();
    const reader = new Reader(range, plans, size, () => rejectSize(source, size));
    try {
      await reader.open();
    } catch (error) {
      reader.close(error);
      throw error;
    }
    return new SealedReader(CONSTRUCT, reader);
  } catch (error) {
    throw withSizeHint(source, error);
  } finally {
    for (const { key } of plans) key.dispose();
  }
}

function createClosedError(): KcapiError {
  return new KcapiError("EBADF", "read", "the file is closed");
}

interface Unsealed {
  readonly bytes: Bytes;
  readonly error: unknown;
}

/** Reads batches of segments from a source, and unseals them in a session. */
class Reader {
  readonly #source: AnySource;
  readonly #plans: readonly SealPlan[];
  readonly #size: number;
  readonly #rejectSize: () => Promise<never>;
  readonly #listener: WeakAbortListener<Reader> | undefined;
  /** The reject functions of the calls that wait for the source or for a batch. */
  readonly #waiting = new Set<(reason: unknown) => void>();
  readonly #slice = new TimeSlice();
  readonly #closing = new AbortController();
  /** The next turn of the event loop, which all reads share. */
  #turn: Promise<void> | undefined;
  /** These are set by {@linkcode open}. */
  #plan!: SealPlan;
  #layout!: SegmentLayout;
  #segments!: number;
  #plaintextSize!: number;
  #session: Session | undefined;
  /** Streams and calls of `bytes()` that have not ended. */
  #uses = 0;
  #closesWhenUnused = false;
  #closed: { readonly reason: unknown; readonly later: unknown } | undefined;

  /**
   * @param plans One for each key to try.
   * @param rejectSize Throws because the source has a size that no sealed stream has.
   */
  constructor(source: AnySource, plans: readonly SealPlan[], size: number, rejectSize: () => Promise<never>) {
    this.#source = source;
    this.#plans = plans;
    this.#size = size;
    this.#rejectSize = rejectSize;
    this.#listener = onAbort(plans[0]!.signals, this, Reader.#abort);
  }

  static #abort(reader: Reader, reason: unknown): void {
    reader.close(reason);
  }

  get engine(): EngineName {
    return this.#session!.engine;
  }

  get plaintextSize(): number {
    return this.#plaintextSize;
  }

  /** The position of the key that opened the file. */
  get keyIndex(): number {
    return this.#plan.index;
  }

  /** Chooses the key, reads the header, and verifies the end. */
  async open(): Promise<void> {
    const measured = this.#plans.map(({ format }) => new SegmentLayout(format).measure(this.#size));
    const plans = this.#plans.filter((_, i) => measured[i]);
    if (plans.length === 0) await this.#rejectSize();
    const plan = plans.length === 1 ? plans[0]! : await this.#choosePlan(plans);
    const { format } = plan;
    this.#plan = plan;
    this.#layout = new SegmentLayout(format);
    const { segments, plaintextSize } = this.#layout.measure(this.#size)!;
    this.#segments = segments;
    this.#plaintextSize = plaintextSize;
    const header = parseHeader(format, this.#checkAnswer(await this.#read(0, format.headerSize), format.headerSize));
    this.#session = openSession("unseal", plan, header);
    const { error } = await this.#unseal(segments - 1, 1);
    if (error !== undefined) throw error;
  }

  async #choosePlan(plans: readonly SealPlan[]): Promise<SealPlan> {
    const length = Math.min(trialSize(plans), this.#size);
    const start = this.#checkAnswer(await this.#read(0, length), length);
    return await this.#wait(choosePlan(plans, start));
  }

  /**
   * Reads a range of the plaintext in chunks, in memory that the caller then owns. It keeps as many batches pending as
   * the session allows: in this thread one batch of one segment.
   */
  pieces(from: number, to: number): () => Promise<Bytes> {
    const session = this.#session!;
    const { plaintext } = this.#layout;
    const most = Math.max(1, plaintext.countOf(1, session.batchSize));
    const underWay: Promise<Unsealed>[] = [];
    let next = plaintext.indexAt(from);
    const end = plaintext.indexAt(to - 1) + 1;
    let failure: { readonly error: unknown } | undefined;
    const piece = async (index: number, count: number): Promise<Unsealed> => {
      const start = plaintext.start(index);
      const { bytes, error } = await this.#unseal(index, count);
      const isWhole = start >= from && start + bytes.length <= to;
      return { bytes: isWhole ? bytes : bytes.slice(Math.max(0, from - start), to - start), error };
    };
    return async () => {
      while (next < end && underWay.length < session.limit && (underWay.length === 0 || session.hasRoom)) {
        const count = Math.min(most, end - next);
        const promise = piece(next, count);
        promise.catch(() => {}); // reported when its turn comes
        underWay.push(promise);
        next += count;
      }
      if (failure) throw failure.error;
      const { bytes, error } = await underWay.shift()!;
      if (error === undefined) return bytes;
      if (bytes.length === 0) throw error;
      failure = { error }; // reported after the verified bytes before it
      return bytes;
    };
  }

  /** A stream or `bytes()` begins. */
  begin(): void {
    this.#uses++;
  }

  /** A stream or `bytes()` ends. The last one closes the reader if one of them requested that. */
  end(close = false): void {
    this.#uses--;
    this.#closesWhenUnused ||= close;
    if (this.#closesWhenUnused && this.#uses === 0) this.close(createClosedError());
  }

  /** Pending reads reject with `reason`, later ones with `later`. */
  close(reason: unknown, later = reason): void {
    if (this.#closed) return;
    this.#closed = { reason, later };
    this.#listener?.stop();
    this.#session?.close();
    this.#closing.abort(reason);
    for (const reject of this.#waiting) reject(reason);
  }

  /** @throws The reason, if the reader is closed. */
  check(): void {
    if (this.#closed) throw this.#closed.later;
  }

  /** Reads and unseals `count` segments. On EBADMSG, returns the plaintext of the segments before the bad one. */
  async #unseal(index: number, count: number): Promise<Unsealed> {
    const { sealed } = this.#layout;
    const start = sealed.start(index);
    const end = Math.min(sealed.start(index + count), this.#size);
    const answer = await this.#read(start, end);
    // A source in memory answers within one turn of the event loop, and does so for any number of reads.
    while (this.#slice.over) await this.#wait(this.#takeTurn());
    const input = this.#checkAnswer(answer, end - start);
    const session = this.#session!;
    const list = [session.isSynchronous ? input : copyTo(session, input)];
    const running = session.run(list, { index, isLast: index + count === this.#segments }, false);
    const { outputs, error } = running instanceof Promise ? await this.#wait(running) : running;
    const bytes = outputs[0] ?? new Uint8Array(0);
    if (error === undefined || error instanceof KcapiError && error.code === "EBADMSG") return { bytes, error };
    this.close(error); // the cipher may still have output of this read, which the next one would get
    throw error;
  }

  #read(start: number, end: number): Promise<unknown> {
    this.check();
    return this.#wait(this.#source.read(start, end, { signal: this.#closing.signal }));
  }

  #checkAnswer(answer: unknown, length: number): Bytes {
    const bytes = toUint8Array("source", answer);
    const size = this.#source.size();
    // The source may have closed the file. Its keys are zero then, and anyone can seal data with a zero key.
    if (this.#closed) throw this.#closed.reason;
    if (size !== this.#size) {
      throw new KcapiError("EIO", "read", `the source had ${this.#size} bytes when it was opened, and has ${size} now`);
    }
    if (bytes.length !== length) {
      throw new KcapiError("EIO", "read", `the source was asked for ${length} bytes, and gave ${bytes.length}`);
    }
    return bytes;
  }

  #takeTurn(): Promise<void> {
    return this.#turn ??= this.#slice.next().finally(() => this.#turn = undefined);
  }

  /** Waits for `answer` or for the reader to be closed: a source may never answer. */
  async #wait<T>(answer: Promise<T>): Promise<T> {
    let give: ((reason: unknown) => void) | undefined;
    const closed = new Promise<never>((_, reject) => give = reject);
    this.#waiting.add(give!);
    this.#listener?.retain(this);
    try {
      const value = await Promise.race([answer, closed]);
      if (this.#closed) throw this.#closed.reason;
      return value;
    } finally {
      this.#waiting.delete(give!);
      if (this.#waiting.size === 0) this.#listener?.release();
    }
  }
}

/** Copies bytes of the source into memory that the session may own. */
function copyTo({ memory }: Session, bytes: Bytes): Bytes {
  const copy = memory?.acquire(bytes.length) ?? allocUnsafe(bytes.length);
  copy.set(bytes);
  return copy;
}
