/**
 * {@linkcode SealedSource}: where `openSealed()` reads from.
 *
 * @module
 */

import { type BytesLike, describe } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { createBadMessageError } from "./format.ts";

/**
 * Where `openSealed()` reads from: a Blob, or an object that reads ranges of bytes.
 *
 * Node's `openAsBlob()` reports a wrong size for files of 4 GiB and more (nodejs/node#52585). Bun does not know the
 * size of a slice of a `Bun.file()` whose own `size` was not read before. Use a source over a file descriptor there.
 */
export type SealedSource = Blob | RangeSource;

/** An object that reads ranges of bytes, of a file, an object in a store or anything else. */
export interface RangeSource {
  /**
   * Bytes in all, which stay the same. If they are not known before the first answer, as over HTTP, this is undefined
   * until then, and the source has `readEnds`.
   */
  readonly size: number | undefined;
  /**
   * Reads the bytes from `start` to before `end`, all of them. It may be called again before an earlier call has
   * settled. If it rejects, the pending call of the reader rejects with the same reason.
   *
   * Fill new memory at each call, and leave it unchanged: the reader may use it after this promise has settled.
   *
   * @param options The signal aborts when the bytes are no longer needed. A source need not listen to it.
   */
  read(start: number, end: number, options: SourceReadOptions): Promise<BytesLike>;
  /**
   * Reads the beginning and the end, in one round trip if the store can. If `size` is undefined, this is the first call
   * that the source gets. Afterwards `size` is a number.
   *
   * @param head Bytes to read from the beginning, or all if there are fewer.
   * @param tail Bytes to read before the end, or all if there are fewer. 0 for none.
   * @param options As for `read`.
   */
  readEnds?(head: number, tail: number, options: SourceReadOptions): Promise<SourceEnds>;
}

/** Options of each read of a source. */
export interface SourceReadOptions {
  /** Aborts when the bytes are no longer needed. */
  readonly signal: AbortSignal;
}

/** The beginning and the end of a source. */
export interface SourceEnds {
  /** Bytes in all. */
  readonly size: number;
  /** The first bytes. */
  readonly head: BytesLike;
  /** The last bytes. They may overlap the first ones. */
  readonly tail: BytesLike;
}

/** A source of any kind, with one interface. */
export interface AnySource {
  readonly size: () => number;
  readonly read: (start: number, end: number, options: SourceReadOptions) => Promise<unknown>;
  /** Reads the ends of a source that does not know its size. */
  readonly learnSize: (head: number, options: SourceReadOptions) => Promise<void>;
}

export function anySource(source: SealedSource): AnySource {
  if (source instanceof Blob) {
    return {
      size: () => sizeOf(source),
      read: (start, end) => source.slice(start, end).arrayBuffer(),
      learnSize: () => Promise.resolve(),
    };
  }
  if (typeof source !== "object" || source === null || typeof source.read !== "function") {
    throw new TypeError(
      `"source" expected a Blob, or an object with size and read(start, end), got ${describe(source)}`,
    );
  }
  return {
    size: () => sizeOf(source),
    read: async (start, end, options) => await source.read(start, end, options),
    async learnSize(head, options) {
      if (source.size === undefined && typeof source.readEnds === "function") await source.readEnds(head, 0, options);
    },
  };
}

/** A Blob may have no size: in Bun 1.4, that of `Bun.stdin` is Infinity, and that of a file on S3 is NaN. */
function sizeOf({ size }: SealedSource): number {
  if (Number.isSafeInteger(size) && size! >= 0) return size!;
  const got = typeof size === "number" ? size : describe(size);
  throw new TypeError(`"source" expected a size that is a number of bytes, got ${got}`);
}

/** Larger than any file on Linux. If Bun has not read the size of a file, a slice of it has 2^52 - 1 less the start. */
const LARGEST_SIZE = 2 ** 50;

/** @throws Always: the error of reading the Blob, or an error that tells why its size is impossible. */
export async function rejectSize(
  source: SealedSource,
  size: number,
  error = createBadMessageError(),
): Promise<never> {
  if (source instanceof Blob && (size === 0 || size > LARGEST_SIZE)) {
    // In Bun, a missing file has a size, and reading it rejects. A stream, because a file such as /dev/zero has no end.
    const reader = source.stream().getReader();
    await reader.read();
    await reader.cancel();
  }
  if (size === 0) throw new KcapiError("EBADMSG", error.operation, "the source is empty: its size is 0");
  if (size > LARGEST_SIZE) {
    throw new TypeError(
      `"source" expected a size that is known, got ${size}: in Bun, read a file's size before its slice()`,
    );
  }
  throw error;
}
