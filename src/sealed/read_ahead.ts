/**
 * {@linkcode ReadAhead}: reads and opens a range of segments in order, some of them ahead.
 *
 * The way of a segment through a reader:
 *
 *     source ── SealedRead ──> sealed bytes ── SegmentOpener ──> OpenedSegments ──> the caller's memory
 *               (SealedReads)                                    (SegmentCache)
 *
 * A range is split into *runs*. A run is a read of neighboring segments that this range starts or joins, or a segment
 * of the cache. Runs are planned, opened and delivered in order:
 *
 *     segments:   delivered | opened, or being opened | to be opened | not planned
 *                           ^ #opened[0].first        ^ #nextOpened  ^ #nextRun
 *
 * These rules hold:
 *
 * - At most `readAhead + 1` runs are planned and not delivered, each with a read of at most `readSize` bytes, or of one
 *   segment. At most `session.limit` batches of them are opened and not delivered. This bounds the memory.
 * - A read is started only for segments that are neither in the cache nor in a pending read.
 * - Each range that uses a read or an opened segment is counted as its user until it has finished, failed or been
 *   cancelled. A read without users is aborted, and an opened segment without users is kept or zeroed.
 * - A segment is returned only after the session has verified it. Before bytes are used or decrypted, the code checks
 *   that the reader is open, because `close()` zeroes the segments and the keys.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { Session } from "../executors/executor.ts";
import { TimeSlice } from "../time_slice.ts";
import type { SegmentSide } from "./format.ts";
import type { Lifetime } from "./lifetime.ts";
import type { SealedRead, SealedReads } from "./sealed_reads.ts";
import type { Decrypted, OpenedSegments, SegmentCache } from "./segment_cache.ts";
import type { AnySource } from "./source.ts";
import type { SegmentOpener } from "./segment_opener.ts";

/** The state that all ranges of a file share. */
export interface ReadContext {
  readonly source: AnySource;
  readonly lifetime: Lifetime;
  /** Positions in the source. */
  readonly stored: SegmentSide;
  readonly plaintext: SegmentSide;
  /** The number of segments. */
  readonly segments: number;
  readonly opener: SegmentOpener;
  readonly reads: SealedReads;
  readonly cache: SegmentCache;
  readonly turns: Turns;
  readonly readSize: number;
  readonly readAhead: number;
  /** The most segments that are opened as one batch. */
  readonly batch: number;
}

/** Which segments to read, and how. */
export interface ReadPlan {
  readonly first: number;
  readonly end: number;
  /** Whether only a part of the last segment is wanted. It is then a batch of its own, which can be kept. */
  readonly isLastPartial?: boolean;
  /** Bytes of the first read, if it is to be smaller than `readSize`. Reading ahead begins after it. */
  readonly firstSize?: number;
  /** Bytes to read beyond the range, for calls that may follow. */
  readonly extra?: number;
  /** Reads everything anew, and shares nothing. */
  readonly isFresh?: boolean;
  /** Overrides the batch of the context. */
  readonly batch?: number;
}

/** Opened segments whose result is there. */
export type DeliveredSegments = OpenedSegments & { readonly result: Decrypted };

interface Run {
  readonly first: number;
  readonly end: number;
  readonly read?: SealedRead;
  /** The segment of the cache. */
  readonly opened?: OpenedSegments;
}

/** While a range is read, each of its reads is this many times as large as the one before. */
const GROWTH = 4;

/** A range of segments that is being read. One call of {@linkcode next} at a time. */
export class ReadAhead {
  readonly #context: ReadContext;
  readonly #plan: ReadPlan;
  readonly #session: Session;
  readonly #runs: Run[] = [];
  readonly #opened: OpenedSegments[] = [];
  #nextRun: number;
  #nextOpened: number;
  /** Bytes of the next read. */
  #readSize: number;
  #readAhead: number;
  #cancelled: { readonly reason: unknown } | undefined;
  /** Rejects the pending call. */
  #interrupt: ((reason: unknown) => void) | undefined;

  constructor(context: ReadContext, plan: ReadPlan) {
    this.#context = context;
    this.#plan = plan;
    this.#session = context.opener.session;
    this.#nextRun = this.#nextOpened = plan.first;
    this.#readSize = Math.min(context.readSize, plan.firstSize ?? context.readSize);
    this.#readAhead = plan.firstSize === undefined ? context.readAhead : 0;
  }

  /**
   * The next segments, in order. The caller releases them to the cache, and must not ask for more than there are.
   *
   * @throws The error of the source, or why the reader is closed. If segments do not verify, that is their result.
   */
  async next(): Promise<DeliveredSegments> {
    const { source, lifetime, turns } = this.#context;
    for (;;) {
      lifetime.check();
      source.checkSize();
      lifetime.checkPending();
      if (this.#cancelled) throw this.#cancelled.reason;
      this.#advance();
      const [opened] = this.#opened;
      if (!opened) await this.#wait(this.#runs[0]!.read!.answer);
      else if (!opened.result) await this.#wait(opened.opening!);
      else if (turns.isDue) await this.#wait(turns.next()); // a source in memory never waits for anything else
      else return this.#deliver() as DeliveredSegments;
    }
  }

  /** Ends the reads and batches of this range. A pending call rejects. */
  cancel(reason: unknown): void {
    if (this.#cancelled) return;
    this.#cancelled = { reason };
    this.#interrupt?.(reason);
    const { cache, reads } = this.#context;
    for (const opened of this.#opened.splice(0)) cache.release(opened);
    for (const { first, read, opened } of this.#runs.splice(0)) {
      if (read) reads.release(read);
      if (opened && first >= this.#nextOpened) cache.release(opened);
    }
  }

  async #wait(answer: Promise<unknown>): Promise<void> {
    try {
      await this.#context.lifetime.wait(answer, (reject) => this.#interrupt = reject);
    } finally {
      this.#interrupt = undefined;
    }
  }

  #deliver(): OpenedSegments {
    const opened = this.#opened.shift()!;
    if (opened.end === this.#runs[0]!.end) {
      const { read } = this.#runs.shift()!;
      if (read) this.#context.reads.release(read);
    }
    this.#readAhead = this.#context.readAhead;
    return opened;
  }

  #advance(): void {
    const session = this.#session;
    while (this.#nextRun < this.#plan.end && this.#runs.length <= this.#readAhead) this.#planRun();
    while (this.#opened.length < session.limit && (this.#opened.length === 0 || session.hasRoom)) {
      if (!this.#openNext()) return;
    }
  }

  #planRun(): void {
    const { cache, reads } = this.#context;
    const { end, isFresh = false } = this.#plan;
    const first = this.#nextRun;
    const opened = isFresh ? undefined : cache.use(first);
    const read = opened ? undefined : (isFresh ? undefined : reads.join(first, end)) ?? this.#startRead(first);
    const run = read ? { first, end: Math.min(read.end, end), read } : { first, end: first + 1, opened: opened! };
    this.#runs.push(run);
    this.#nextRun = run.end;
    if (read && !this.#session.isSynchronous) read.answer.then(() => this.#advanceLater(), () => {});
  }

  /** When a read is done, an executor that is not synchronous gets its segments, without a call of `next()`. */
  #advanceLater(): void {
    if (!this.#cancelled && !this.#context.lifetime.isClosed) this.#advance();
  }

  #startRead(first: number): SealedRead {
    const { cache, reads, readSize, segments, stored } = this.#context;
    const { end: wanted, extra = 0, isFresh = false } = this.#plan;
    const most = first + Math.max(1, stored.countOf(first, this.#readSize));
    this.#readSize = Math.min(readSize, GROWTH * this.#readSize);
    const isEnough = most >= wanted;
    let end = isEnough ? Math.min(most, segments, wanted + stored.countOf(1, extra)) : most;
    if (!isFresh) {
      for (let i = first + 1; i < end; i++) if (cache.has(i) || reads.has(i)) end = i;
    }
    const read = reads.start(first, end, !isFresh);
    if (end > wanted) reads.keep(read);
    return read;
  }

  /** Begins to open the next segments, if they are there. */
  #openNext(): boolean {
    const { cache } = this.#context;
    const first = this.#nextOpened;
    const run = this.#runs.find(({ end }) => end > first);
    if (!run) return false;
    const { read } = run;
    if (read && !read.bytes) return false;
    const kept = read && !this.#plan.isFresh ? cache.use(first) : run.opened;
    const opened = kept ?? this.#open(read!, first, run.end);
    this.#opened.push(opened);
    this.#nextOpened = opened.end;
    return true;
  }

  /** Unseals a batch of segments of a read. */
  #open(read: SealedRead, first: number, runEnd: number): OpenedSegments {
    const { cache, lifetime, reads, opener } = this.#context;
    const { batch = this.#context.batch, end: wanted, isLastPartial = false, isFresh = false } = this.#plan;
    const most = Math.min(first + batch, runEnd);
    const end = isLastPartial && most === wanted ? Math.max(first + 1, most - 1) : most;
    const result = opener.open(first, end, reads.segmentsOf(read, first, end));
    const opened: OpenedSegments = { first, end, result: undefined, opening: undefined, users: 1, isKept: false };
    if (result instanceof Promise) {
      opened.opening = result.then((decrypted) => {
        opened.result = decrypted;
        if (lifetime.isClosed) decrypted.bytes.fill(0);
      });
      opened.opening.catch(() => {}); // the reader is closed, and its callers get that error
    } else {
      opened.result = result;
    }
    if (!isFresh) cache.add(opened);
    return opened;
  }
}

/** The turns of the event loop that all ranges of a file share. */
export class Turns {
  readonly #slice = new TimeSlice();
  #turn: Promise<void> | undefined;

  /** Whether the event loop must have a turn now. */
  get isDue(): boolean {
    return this.#turn !== undefined || this.#slice.over;
  }

  /** The next turn. */
  next(): Promise<void> {
    return this.#turn ??= this.#slice.next().finally(() => this.#turn = undefined);
  }
}

/** The part of opened segments that belongs to a range of the plaintext. */
export function partOf(
  { plaintext }: ReadContext,
  { first, result }: DeliveredSegments,
  from: number,
  to: number,
): Bytes {
  const start = plaintext.start(first);
  return result.bytes.subarray(Math.max(0, from - start), Math.max(0, to - start));
}
