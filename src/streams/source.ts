/**
 * The sources of `encrypt()`, `decrypt()`, `seal()` and `unseal()`.
 *
 * @module
 */

import { type BytesLike, isBuffer, toUint8Array, wrongType } from "../bytes.ts";

/** A source of bytes for {@linkcode encrypt}, {@linkcode decrypt}, {@linkcode seal} and {@linkcode unseal}. */
export type ByteSource =
  | BytesLike
  | Blob
  | Iterable<BytesLike>
  | AsyncIterable<BytesLike>
  | ReadableStream<BytesLike>;

/** An opened source. */
export interface Source {
  next(): Promise<IteratorResult<unknown>> | IteratorResult<unknown>;
  /** Stops reading before the end. */
  end(): unknown;
  /** Releases the source after its end. */
  release?(): void;
}

/**
 * Checks `source` without opening it.
 *
 * @returns A function that opens it.
 */
export function openerOf(source: ByteSource): () => Source {
  if (ArrayBuffer.isView(source) || isBuffer(source)) {
    const bytes = toUint8Array("source", source);
    return () => fromIterator([bytes][Symbol.iterator]());
  }
  if (source instanceof Blob) return () => fromStream(source.stream());
  if (source instanceof ReadableStream) {
    checkUnlocked(source);
    return () => fromStream(source);
  }
  if (typeof source === "object" && source !== null) {
    if (Symbol.asyncIterator in source) return () => fromIterator(source[Symbol.asyncIterator]());
    if (Symbol.iterator in source) return () => fromIterator(source[Symbol.iterator]());
  }
  throw wrongType("source", "bytes, a Blob, or an iterable or a ReadableStream of bytes", source);
}

function fromIterator(iterator: Iterator<unknown> | AsyncIterator<unknown>): Source {
  return { next: () => iterator.next(), end: () => iterator.return?.() };
}

function fromStream(stream: ReadableStream<BytesLike>): Source {
  checkUnlocked(stream);
  const reader = stream.getReader();
  return {
    next: () => reader.read() as Promise<IteratorResult<unknown>>,
    end() {
      const cancelled = reader.cancel();
      reader.releaseLock();
      return cancelled;
    },
    release: () => reader.releaseLock(),
  };
}

function checkUnlocked(stream: ReadableStream): void {
  if (stream.locked) throw new TypeError('"source" is a ReadableStream that is locked');
}
