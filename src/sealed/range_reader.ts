/**
 * {@linkcode RangeReader}: random access to an encrypted file, whatever its format.
 *
 * @module
 */

import { onAbort, type WeakAbortListener } from "../abort.ts";
import { type Bytes, toUint8Array, wrongType } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Session } from "../executors/executor.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { allocUnsafe } from "../runtime/web.ts";
import { TimeSlice } from "../time_slice.ts";
import type { SegmentSide } from "./format.ts";
import { sliceOf } from "./slice.ts";
import type { AnySource } from "./source.ts";

/** Options of `stream()` of a {@linkcode RangeReader}. */
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

/** What the constructor of a reader takes: only this module opens one. */
export const CONSTRUCT = Symbol("construct");

/** An encrypted file that is open for random access. Any number of reads may run at once. */
export class RangeReader implements Disposable {
  /** The size of the plaintext in bytes, verified. */
  readonly size: number;
  /** The engine that runs the cipher. */
  readonly engine: EngineName;
  readonly #reader: SegmentReader;

  /**
   * Use a function that opens a file.
   *
   * @ignore
   */
  constructor(token: symbol, reader: SegmentReader) {
    if (token !== CONSTRUCT) throw new TypeError("A reader has no public constructor: use openSealed() or openGcm()");
    this.#reader = reader;
    this.size = reader.opened.plaintextSize;
    this.engine = reader.opened.session.engine;
  }

  /**
   * Reads a range of the plaintext. Positions are those of `Blob.slice()`: limited to the file, and negative ones count
   * from its end.
   *
   * @param start The first byte, 0 by default.
   * @param end The byte after the last one; the end of the file by default.
   * @returns The bytes.
   * @throws {KcapiError} EBADMSG if bytes of the range cannot be verified; EBADF after {@linkcode close}; ECANCELED
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
    if (typeof close !== "boolean") throw wrongType("close", "a boolean", close);
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

// WebKitGTK 2.50 has no Symbol.dispose: esbuild and Bun compile `using` to this symbol there.
if (Symbol.dispose === undefined) {
  Object.assign(RangeReader.prototype, { [Symbol.for("Symbol.dispose")]: RangeReader.prototype.close });
}

function createClosedError(): KcapiError {
  return new KcapiError("EBADF", "read", "the file is closed");
}

/** What an opening has found out: where the segments are, and what decrypts them. */
interface Opened {
  readonly session: Session;
  /** Positions in the source. */
  readonly stored: SegmentSide;
  readonly plaintext: SegmentSide;
  readonly segments: number;
  /** Where the last segment ends in the source. */
  readonly end: number;
  readonly plaintextSize: number;
}

interface Decrypted {
  readonly bytes: Bytes;
  readonly error: unknown;
}

/** Reads batches of segments from a source, and decrypts them in a session. */
export class SegmentReader {
  readonly #source: AnySource;
  /** Of the source, in bytes. */
  readonly size: number;
  readonly #listener: WeakAbortListener<SegmentReader> | undefined;
  /** The reject functions of the calls that wait for the source or for a batch. */
  readonly #waiting = new Set<(reason: unknown) => void>();
  readonly #slice = new TimeSlice();
  readonly #closing = new AbortController();
  /** The next turn of the event loop, which all reads share. */
  #turn: Promise<void> | undefined;
  #opened: Opened | undefined;
  /** Streams and calls of `bytes()` that have not ended. */
  #uses = 0;
  #closesWhenUnused = false;
  #closed: { readonly reason: unknown; readonly later: unknown } | undefined;

  /** @param signals Each closes the reader. */
  constructor(source: AnySource, signals: readonly AbortSignal[]) {
    this.#source = source;
    this.size = source.size();
    this.#listener = onAbort(signals, this, SegmentReader.#abort);
  }

  static #abort(reader: SegmentReader, reason: unknown): void {
    reader.close(reason);
  }

  /** Set by {@linkcode open}. */
  get opened(): Opened {
    return this.#opened!;
  }

  /** @param opened Its session is closed with the reader. */
  open(opened: Opened): void {
    this.#opened = opened;
  }

  /**
   * Reads a range of the plaintext in chunks, in memory that the caller then owns. It keeps as many batches pending as
   * the session allows: in this thread one batch of one segment.
   */
  pieces(from: number, to: number): () => Promise<Bytes> {
    const { session, plaintext } = this.opened;
    const most = Math.max(1, plaintext.countOf(1, session.batchSize));
    const underWay: Promise<Decrypted>[] = [];
    let next = plaintext.indexAt(from);
    const end = plaintext.indexAt(to - 1) + 1;
    let failure: { readonly error: unknown } | undefined;
    const piece = async (index: number, count: number): Promise<Decrypted> => {
      const start = plaintext.start(index);
      const { bytes, error } = await this.decrypt(index, count);
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
    this.#opened?.session.close();
    this.#closing.abort(reason);
    for (const reject of this.#waiting) reject(reason);
  }

  /** @throws The reason, if the reader is closed. */
  check(): void {
    if (this.#closed) throw this.#closed.later;
  }

  /** Reads and decrypts `count` segments. On EBADMSG, returns the plaintext of the segments before the bad one. */
  async decrypt(index: number, count: number): Promise<Decrypted> {
    const { session, stored, segments, end } = this.opened;
    const input = await this.read(stored.start(index), Math.min(stored.start(index + count), end));
    const list = [session.isSynchronous ? input : copyTo(session, input)];
    const running = session.run(list, { index, isLast: index + count === segments }, false);
    const { outputs, error } = running instanceof Promise ? await this.wait(running) : running;
    const bytes = outputs[0] ?? new Uint8Array(0);
    if (error === undefined || error instanceof KcapiError && error.code === "EBADMSG") return { bytes, error };
    this.close(error); // the cipher may still have output of this read, which the next one would get
    throw error;
  }

  /** Reads the source, and gives the event loop its turns. */
  async read(start: number, end: number): Promise<Bytes> {
    this.check();
    const answer = await this.wait(this.#source.read(start, end, { signal: this.#closing.signal }));
    // A source in memory answers within one turn of the event loop, and does so for any number of reads.
    while (this.#slice.over) await this.wait(this.#takeTurn());
    return this.#checkAnswer(answer, end - start);
  }

  #checkAnswer(answer: unknown, length: number): Bytes {
    const bytes = toUint8Array("source", answer);
    const size = this.#source.size();
    // The source may have closed the file. Its keys are zero then, and anyone can seal data with a zero key.
    if (this.#closed) throw this.#closed.reason;
    if (size !== this.size) {
      throw new KcapiError("EIO", "read", `the source had ${this.size} bytes when it was opened, and has ${size} now`);
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
  async wait<T>(answer: Promise<T>): Promise<T> {
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
