/**
 * {@linkcode SealedSource}: where `openSealed()` reads from.
 *
 * @module
 */

import { type Bytes, type BytesLike, describe, toUint8Array } from "../bytes.ts";
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

/** Checked {@linkcode SourceEnds}. */
interface CheckedEnds {
  readonly head: Bytes;
  readonly tail: Bytes;
}

/** @throws {TypeError} If it is no source. */
export function anySource(source: SealedSource): AnySource {
  return new AnySource(source);
}

/** Any source, whose answers are checked: their types, their lengths, and that the size stays the same. */
export class AnySource {
  readonly #source: RangeSource;
  #size: number | undefined;

  /** @throws {TypeError} If it is no source. */
  constructor(source: SealedSource) {
    this.#source = source instanceof Blob ? blobSource(source) : source;
    if (typeof source !== "object" || source === null || typeof this.#source.read !== "function") {
      throw new TypeError(
        `"source" expected a Blob, or an object with size and read(start, end), got ${describe(source)}`,
      );
    }
    const isUnknown = this.#source.size === undefined && typeof this.#source.readEnds === "function";
    this.#size = isUnknown ? undefined : sizeOf(this.#source);
  }

  /** Undefined before {@linkcode readEnds}, if the source does not know it. */
  get size(): number | undefined {
    return this.#size;
  }

  /** @throws {KcapiError} EIO if the source has another size than at first. */
  checkSize(): void {
    const size = sizeOf(this.#source);
    if (size === this.#size) return;
    throw new KcapiError("EIO", "read", `the source had ${this.#size} bytes when it was opened, and has ${size} now`);
  }

  /** Reads the bytes from `start` to before `end`. */
  async read(start: number, end: number, options: SourceReadOptions): Promise<Bytes> {
    const bytes = toUint8Array("source", await this.#source.read(start, end, options));
    this.checkSize();
    return this.#checkLength(bytes, end - start);
  }

  /** Reads the first `head` and the last `tail` bytes: at once, and in one read if there are no others. */
  async readEnds(head: number, tail: number, options: SourceReadOptions): Promise<CheckedEnds> {
    const size = this.#size;
    if (size === undefined) return await this.#learnSize(head, tail, options);
    if (head + tail < size && tail > 0) {
      const ends = [this.read(0, head, options), this.read(size - tail, size, options)] as const;
      const [first, last] = await Promise.all(ends);
      return { head: first, tail: last };
    }
    const all = await this.read(0, head + tail < size ? head : size, options);
    return { head: all.subarray(0, head), tail: all.subarray(Math.max(0, all.length - tail)) };
  }

  async #learnSize(head: number, tail: number, options: SourceReadOptions): Promise<CheckedEnds> {
    const ends = await this.#source.readEnds!(head, tail, options);
    const size = this.#size = sizeOf(ends);
    return {
      head: this.#checkLength(toUint8Array("source", ends.head), Math.min(head, size)),
      tail: this.#checkLength(toUint8Array("source", ends.tail), Math.min(tail, size)),
    };
  }

  #checkLength(bytes: Bytes, length: number): Bytes {
    if (bytes.length === length) return bytes;
    throw new KcapiError("EIO", "read", `the source was asked for ${length} bytes, and gave ${bytes.length}`);
  }
}

/** What follows the first `offset` bytes of a source whose size is known. */
export function sourceAfter(source: SealedSource, offset: number): SealedSource {
  if (source instanceof Blob) return source.slice(offset);
  return {
    get size() {
      return source.size! - offset;
    },
    read: (start, end, options) => source.read(offset + start, offset + end, options),
  };
}

function blobSource(blob: Blob): RangeSource {
  return {
    get size() {
      return blob.size;
    },
    read: (start, end) => blob.slice(start, end).arrayBuffer(),
  };
}

/** A Blob may have no size: in Bun 1.4, that of `Bun.stdin` is Infinity, and that of a file on S3 is NaN. */
function sizeOf({ size }: Pick<RangeSource, "size">): number {
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
