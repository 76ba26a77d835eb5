/**
 * {@linkcode SealedReads}: the reads of a source, each of neighboring segments, which several callers may share.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { SegmentSide } from "./format.ts";
import type { Lifetime } from "./lifetime.ts";
import type { AnySource } from "./source.ts";

/** The segments from `first` to before `end`, as they are in the source. */
export interface SealedRead {
  readonly first: number;
  readonly end: number;
  /** Rejects also when the read is aborted, whether or not the source answers. */
  readonly answer: Promise<Bytes>;
  /** The answer, once it is there. */
  bytes: Bytes | undefined;
  /** Callers that use it. If none is left while it is pending, it is aborted. */
  users: number;
  isPending: boolean;
  readonly abort: (reason: unknown) => void;
}

/**
 * A read is pending, then done or failed. While it is pending, callers that need one of its segments join it. When it
 * is done, its users keep it. The last read that went beyond its caller's request is kept longer. It has sealed bytes
 * only.
 */
export class SealedReads {
  readonly #source: AnySource;
  readonly #lifetime: Lifetime;
  readonly #sealed: SegmentSide;
  readonly #size: number;
  /** The pending reads, by each segment in them. */
  readonly #pending = new Map<number, SealedRead>();
  #ahead: SealedRead | undefined;
  /** A small file, which was read when it was opened. */
  #whole: SealedRead | undefined;

  /** @param size The end of the last segment. */
  constructor(source: AnySource, lifetime: Lifetime, sealed: SegmentSide, size: number) {
    this.#source = source;
    this.#lifetime = lifetime;
    this.#sealed = sealed;
    this.#size = size;
  }

  /** Whether segment `index` needs no new read. */
  has(index: number): boolean {
    return this.#find(index) !== undefined;
  }

  /** Joins the read that has segment `index`, for the segments to before `end`. The caller must release it. */
  join(index: number, end: number): SealedRead | undefined {
    const read = this.#find(index);
    if (!read) return undefined;
    read.users++;
    if (read === this.#ahead && end >= read.end) this.#ahead = undefined;
    return read;
  }

  /**
   * Starts a read. The caller must release it.
   *
   * @param isShared Whether others may join it.
   */
  start(first: number, end: number, isShared: boolean): SealedRead {
    const controller = new AbortController();
    const { promise: answer, resolve, reject } = Promise.withResolvers<Bytes>();
    answer.catch(() => {}); // reported when its turn comes
    const read: SealedRead = { first, end, answer, bytes: undefined, users: 1, isPending: true, abort };
    const forget = this.#lifetime.atClose(abort);
    const settle = () => {
      read.isPending = false;
      forget();
      for (let i = first; i < end; i++) if (this.#pending.get(i) === read) this.#pending.delete(i);
    };
    function abort(reason: unknown): void {
      settle();
      reject(reason);
      controller.abort(reason);
    }
    for (let i = first; i < end && isShared; i++) this.#pending.set(i, read);
    const { signal } = controller;
    this.#source.read(this.#startOf(first), this.#startOf(end), { signal }).then((bytes) => {
      settle();
      read.bytes = bytes;
      resolve(bytes);
    }, (error) => {
      settle();
      if (this.#ahead === read) this.#ahead = undefined;
      reject(error);
    });
    return read;
  }

  /** Keeps a read in place of the previous one, for segments that were not requested yet. */
  keep(read: SealedRead): void {
    const before = this.#ahead;
    this.#ahead = read;
    if (before && before.users === 0) abortPending(before);
  }

  /** Takes all segments, to before `end`, of a file that was read as a whole. There are no other reads then. */
  adopt(end: number, bytes: Bytes): void {
    const answer = Promise.resolve(bytes);
    this.#whole = { first: 0, end, answer, bytes, users: 0, isPending: false, abort: () => {} };
  }

  release(read: SealedRead): void {
    if (--read.users === 0 && read !== this.#ahead) abortPending(read);
  }

  /** The sealed bytes of the segments from `first` to before `end` of a read that is done. */
  segmentsOf(read: SealedRead, first: number, end: number): Bytes {
    const start = this.#startOf(read.first);
    return read.bytes!.subarray(this.#startOf(first) - start, this.#startOf(end) - start);
  }

  #find(index: number): SealedRead | undefined {
    const ahead = this.#ahead;
    if (ahead && index >= ahead.first && index < ahead.end) return ahead;
    return this.#whole ?? this.#pending.get(index);
  }

  #startOf(index: number): number {
    return Math.min(this.#sealed.start(index), this.#size);
  }
}

function abortPending(read: SealedRead): void {
  if (read.isPending) read.abort(new KcapiError("ECANCELED", "read", "the bytes are no longer needed"));
}
