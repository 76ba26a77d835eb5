/**
 * {@linkcode RangeReader}: random access to an encrypted file, whatever its format.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Session } from "../executors/executor.ts";
import { checkBoolean, checkOptions, type OptionNames } from "../options.ts";
import { disposeByClose } from "../runtime/web.ts";
import type { SegmentSide } from "./format.ts";
import { Lifetime } from "./lifetime.ts";
import { partOf, ReadAhead, type ReadContext, type ReadPlan, Turns } from "./read_ahead.ts";
import { type CheckedReadOptions, checkReadOptions } from "./read_options.ts";
import { SealedReads } from "./sealed_reads.ts";
import { SegmentCache } from "./segment_cache.ts";
import { SegmentOpener } from "./segment_opener.ts";
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
    const [from, to] = sliceOf(this.size, start, end);
    return await this.#reader.bytes(from, to);
  }

  /**
   * Reads a range of the plaintext as a stream. The first read of the source is small. If the stream is read on, the
   * reads grow to `readSize`, and `readAhead` of them are under way. To cancel the stream ends them.
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
    checkBoolean("close", close);
    const [from, to] = sliceOf(this.size, start, end);
    return this.#reader.stream(from, to, close);
  }

  /**
   * Zeroes the keys and the segments that are kept, and releases the cipher. Pending reads reject with KcapiError
   * ECANCELED.
   */
  close(): void {
    this.#reader.close(new KcapiError("ECANCELED", "close", "the file was closed"), createClosedError());
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }
}

disposeByClose(RangeReader);

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

/** Bytes of the first read of a stream. */
const FIRST_READ = 64 * 1024;

/** Calls of `bytes()` that follow one another read ahead this part of what they have read. */
const SEQUENTIAL_PART = 1 / 16;

/** What is behind a {@linkcode RangeReader}: it is made, reads what tells where the segments are, and is opened. */
export class SegmentReader {
  readonly #source: AnySource;
  readonly #lifetime: Lifetime;
  readonly #options: CheckedReadOptions;
  readonly #turns = new Turns();
  #opened: Opened | undefined;
  #context: ReadContext | undefined;
  /** Streams and calls that have not ended. */
  #uses = 0;
  #closesWhenUnused = false;
  /** The end of the last call of `bytes()`, and the bytes of the calls that lead to it without a gap. */
  #sequenceEnd = 0;
  #sequenceLength = 0;

  /**
   * @param signals Each closes the reader.
   * @param options How to read the source. By default, the defaults.
   */
  constructor(source: AnySource, signals: readonly AbortSignal[], options?: CheckedReadOptions) {
    this.#source = source;
    this.#lifetime = new Lifetime(signals);
    this.#options = options ?? checkReadOptions({});
  }

  /** Of the source, in bytes. */
  get size(): number {
    return this.#source.size!;
  }

  /** Whether {@linkcode size} is known before a source was read. */
  get knowsSize(): boolean {
    return this.#source.size !== undefined;
  }

  /** Set by {@linkcode open}. */
  get opened(): Opened {
    return this.#opened!;
  }

  /** Set by {@linkcode open}. */
  get context(): ReadContext {
    return this.#context!;
  }

  /** Reads the source, for an opening. */
  async read(start: number, end: number): Promise<Bytes> {
    this.#lifetime.check();
    const bytes = await this.#lifetime.read((options) => this.#source.read(start, end, options));
    // A source in memory answers within one turn of the event loop, and does so for any number of reads.
    while (this.#turns.isDue) await this.wait(this.#turns.next());
    return bytes;
  }

  /** Reads the first and the last bytes of the source, for an opening. */
  async readEnds(head: number, tail: number): Promise<{ readonly head: Bytes; readonly tail: Bytes }> {
    this.#lifetime.check();
    return await this.#lifetime.read((options) => this.#source.readEnds(head, tail, options));
  }

  /** Waits for `answer` or for the reader to be closed. */
  async wait<T>(answer: Promise<T>): Promise<T> {
    return await this.#lifetime.wait(answer);
  }

  /** @param opened Its session is closed with the reader. */
  open(opened: Opened): void {
    const { session, stored, plaintext, segments, end } = opened;
    const [source, lifetime] = [this.#source, this.#lifetime];
    const { readSize, readAhead, cacheSize, allowDamage } = this.#options;
    const cache = new SegmentCache(cacheSize);
    // What may be read at once is enough for all batches that may run at once.
    const batch = allowDamage ? 0 : Math.min(session.batchSize, (readAhead + 1) * readSize / session.limit);
    this.#opened = opened;
    this.#context = {
      source,
      lifetime,
      stored,
      plaintext,
      segments,
      opener: new SegmentOpener(session, lifetime, segments, allowDamage),
      reads: new SealedReads(source, lifetime, stored, end),
      cache,
      turns: this.#turns,
      readSize,
      readAhead,
      batch: Math.max(1, plaintext.countOf(1, batch)),
    };
    lifetime.atClose(() => cache.close());
  }

  async bytes(from: number, to: number): Promise<Bytes> {
    const { cache } = this.context;
    this.check();
    this.begin();
    const range = this.#range(from, to, { extra: this.#extraOf(from, to) });
    try {
      const bytes = new Uint8Array(to - from);
      for (let at = 0; at < bytes.length;) {
        const opened = await range.next();
        const part = partOf(this.context, opened, from, to);
        bytes.set(part, at);
        at += part.length;
        cache.release(opened);
        if (opened.result.error !== undefined) throw opened.result.error;
      }
      return bytes;
    } finally {
      range.cancel(undefined);
      this.end();
    }
  }

  stream(from: number, to: number, close: boolean): ReadableStream<Bytes> {
    const { cache } = this.context;
    const range = this.#range(from, to, { firstSize: FIRST_READ });
    let left = to - from;
    let failure: { readonly error: unknown } | undefined;
    /** The next piece, in memory of its own. */
    const next = async (): Promise<Bytes> => {
      if (failure) throw failure.error;
      const opened = await range.next();
      const { bytes, error } = opened.result;
      const part = partOf(this.context, opened, from, to);
      const isGiven = part.length === bytes.length && cache.give(opened);
      const piece = isGiven ? bytes : part.slice();
      if (!isGiven) cache.release(opened);
      if (error !== undefined) {
        if (part.length === 0) throw error;
        failure = { error }; // reported after the verified bytes before it
      }
      return piece;
    };
    const end = (reason?: unknown) => {
      range.cancel(reason);
      this.end(close);
    };
    this.begin();
    return new ReadableStream<Bytes>({
      pull: async (controller) => {
        try {
          if (left === 0) {
            this.check();
            controller.close();
            return end();
          }
          const piece = await next();
          left -= piece.length;
          controller.enqueue(piece);
        } catch (error) {
          end(error);
          throw error;
        }
      },
      cancel: end,
    }, { highWaterMark: 0 });
  }

  /** Pending calls reject with `reason`, later ones with `later`. */
  close(reason: unknown, later = reason): void {
    this.#lifetime.close(reason, later);
  }

  /** @throws The reason, if the reader is closed. */
  check(): void {
    this.#lifetime.check();
  }

  /** A stream or another call begins. */
  begin(): void {
    this.#uses++;
  }

  /** A stream or another call ends. The last one closes the reader if one of the streams requested that. */
  end(close = false): void {
    this.#uses--;
    this.#closesWhenUnused ||= close;
    if (this.#closesWhenUnused && this.#uses === 0) this.close(createClosedError());
  }

  #range(from: number, to: number, plan: Partial<ReadPlan>): ReadAhead {
    const { plaintext } = this.context;
    const end = plaintext.indexAt(to - 1) + 1;
    const isLastPartial = Math.min(plaintext.start(end), this.opened.plaintextSize) !== to;
    return new ReadAhead(this.context, { first: plaintext.indexAt(from), end, isLastPartial, ...plan });
  }

  /** Bytes to read beyond a call of `bytes()`, so that calls in sequence need fewer and fewer reads. */
  #extraOf(from: number, to: number): number {
    if (from !== this.#sequenceEnd) this.#sequenceLength = 0;
    const extra = this.#sequenceLength * SEQUENTIAL_PART;
    this.#sequenceLength += to - from;
    this.#sequenceEnd = to;
    return Math.floor(extra);
  }
}
