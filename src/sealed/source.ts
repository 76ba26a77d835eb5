/**
 * {@linkcode SealedSource}: where `openSealed()` reads from.
 *
 * @module
 */

import { type BytesLike, describe } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { platformInfo } from "../runtime/mod.ts";
import { createBadMessageError } from "./format.ts";

/**
 * Where `openSealed()` reads from: a Blob, or an object that reads ranges of bytes.
 *
 * Node's `openAsBlob()` reports a wrong size for files of 4 GiB and more (nodejs/node#52585). Bun does not know the
 * size of a slice of a `Bun.file()` whose own `size` was not read before. Use a source over a file descriptor there.
 */
export type SealedSource = Blob | {
  /** Bytes in all, which stay the same. */
  readonly size: number;
  /**
   * Reads the bytes from `start` to before `end`, all of them. It may be called again before an earlier call has
   * settled.
   *
   * The bytes must stay unchanged until the `bytes()` or the `read()` of a stream that asked for them has settled: they
   * may be used some turns of the event loop after this promise. Fill new memory at each call.
   */
  read(start: number, end: number): Promise<BytesLike>;
};

/** A source, whatever it is. */
export interface AnySource {
  readonly size: () => number;
  readonly read: (start: number, end: number) => Promise<unknown>;
}

export function anySource(source: SealedSource): AnySource {
  if (source instanceof Blob) {
    return { size: () => sizeOf(source), read: (start, end) => source.slice(start, end).arrayBuffer() };
  }
  if (typeof source !== "object" || source === null || typeof source.read !== "function") {
    throw new TypeError(
      `"source" expected a Blob, or an object with size and read(start, end), got ${describe(source)}`,
    );
  }
  return { size: () => sizeOf(source), read: async (start, end) => await source.read(start, end) };
}

/** A Blob may have no size: in Bun 1.4, that of `Bun.stdin` is Infinity, and that of a file on S3 is NaN. */
function sizeOf({ size }: SealedSource): number {
  if (Number.isSafeInteger(size) && size >= 0) return size;
  const got = typeof size === "number" ? size : describe(size);
  throw new TypeError(`"source" expected a size that is a number of bytes, got ${got}`);
}

/** Larger than any file on Linux. If Bun has not read the size of a file, a slice of it has 2^52 - 1 less the start. */
const LARGEST_SIZE = 2 ** 50;

/** @throws Always: the error of reading the Blob, or an error that tells why its size is impossible. */
export async function rejectSize(source: SealedSource, size: number): Promise<never> {
  if (source instanceof Blob && (size === 0 || size > LARGEST_SIZE)) {
    // In Bun, a missing file has a size, and reading it rejects. A stream, because a file such as /dev/zero has no end.
    const reader = source.stream().getReader();
    await reader.read();
    await reader.cancel();
  }
  if (size === 0) throw new KcapiError("EBADMSG", "unseal", "the source is empty: its size is 0");
  if (size > LARGEST_SIZE) {
    throw new TypeError(
      `"source" expected a size that is known, got ${size}: in Bun, read a file's size before its slice()`,
    );
  }
  throw createBadMessageError();
}

/** Adds a hint where a Blob may have a wrong size. */
export function withSizeHint(source: SealedSource, error: unknown): unknown {
  const isUnsure = error instanceof KcapiError && (error.code === "EBADMSG" || error.code === "EIO") &&
    source instanceof Blob && platformInfo().runtime.name === "node";
  if (!isUnsure) return error;
  const hint = "for a file of 4 GiB or more, whose size Node's openAsBlob() gets wrong (nodejs/node#52585), " +
    "give an object with size and read(start, end)";
  return new KcapiError(error.code, error.operation, error.detail, { hint, cause: error.cause });
}
