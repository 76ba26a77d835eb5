/**
 * {@linkcode SegmentCache}: the opened segments that are in use, and those that were opened last.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** What came out of neighboring segments. With an error: what came out before it. */
export interface Decrypted {
  readonly bytes: Bytes;
  readonly error?: unknown;
}

/** The segments from `first` to before `end`, opened or being opened. */
export interface OpenedSegments {
  readonly first: number;
  readonly end: number;
  /** Undefined until {@linkcode opening} has settled. */
  result: Decrypted | undefined;
  opening: Promise<void> | undefined;
  /** Callers that use it. */
  users: number;
  /** It was kept for later callers, so none of them owns its memory. */
  isKept: boolean;
}

/**
 * A segment is in use until its last user releases it. Then it is kept until later ones replace it. It is zeroed when
 * it is dropped, because no one uses it then. A caller that needs a segment in use, or one that is being opened, shares
 * it. Segments that were opened several at once, and those that failed, are neither shared nor kept.
 */
export class SegmentCache {
  readonly #limit: number;
  readonly #inUse = new Map<number, OpenedSegments>();
  /** From the one that was released first. */
  readonly #kept = new Map<number, OpenedSegments>();
  #isClosed = false;

  /** @param limit The number of segments to keep. */
  constructor(limit: number) {
    this.#limit = limit;
  }

  has(index: number): boolean {
    return this.#inUse.has(index) || this.#kept.has(index);
  }

  /** The segment, if it is there. The caller must release it. */
  use(index: number): OpenedSegments | undefined {
    const opened = this.#inUse.get(index) ?? this.#kept.get(index);
    if (!opened) return undefined;
    opened.users++;
    this.#kept.delete(index);
    this.#inUse.set(index, opened);
    return opened;
  }

  /** Keeps a segment that was opened. */
  keep(index: number, result: Decrypted): void {
    const opened: OpenedSegments = {
      first: index,
      end: index + 1,
      result,
      opening: undefined,
      users: 1,
      isKept: false,
    };
    this.add(opened);
    this.release(opened);
  }

  /** Shares a segment, which must be released. */
  add(opened: OpenedSegments): void {
    if (opened.end - opened.first === 1) this.#inUse.set(opened.first, opened);
  }

  release(opened: OpenedSegments): void {
    if (--opened.users > 0) return;
    const { first, result } = opened;
    if (this.#inUse.get(first) !== opened) return;
    this.#inUse.delete(first);
    if (!result || result.error !== undefined || this.#isClosed) return wipe(opened);
    opened.isKept = true;
    this.#kept.set(first, opened);
    if (this.#kept.size <= this.#limit) return;
    const [oldest] = this.#kept.values();
    this.#kept.delete(oldest!.first);
    wipe(oldest!);
  }

  /** Releases a segment and gives its memory to the caller, if it has no other user. */
  give(opened: OpenedSegments): boolean {
    if (opened.users > 1 || opened.isKept) return false;
    opened.users = 0;
    if (this.#inUse.get(opened.first) === opened) this.#inUse.delete(opened.first);
    return true;
  }

  /** Zeroes all segments. Users of a segment then find the reader closed. */
  close(): void {
    this.#isClosed = true;
    for (const opened of [...this.#inUse.values(), ...this.#kept.values()]) wipe(opened);
    this.#inUse.clear();
    this.#kept.clear();
  }
}

function wipe({ result }: OpenedSegments): void {
  result?.bytes.fill(0);
}
