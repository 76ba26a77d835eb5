/** Helpers for bytes and streams. Programs in `children/` also use them, so they need no permissions. */
import { Buffer } from "node:buffer";

export type Bytes = Uint8Array<ArrayBuffer>;

// ---- bytes ------------------------------------------------------------------------------------------------------

/** Parses hexadecimal digits. White space is ignored. */
export function fromHex(digits: string): Bytes {
  return new Uint8Array(Buffer.from(digits.replace(/\s/g, ""), "hex"));
}

/** Returns `length` bytes that depend only on `seed`, without a repeating pattern that could hide wrong offsets. */
export function bytes(length: number, seed = 1): Bytes {
  const result = new Uint8Array(length);
  let state = Math.imul(seed, 0x9e3779b1) | 1;
  for (let i = 0; i < length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    result[i] = state;
  }
  return result;
}

export function concat(pieces: readonly Uint8Array[]): Bytes {
  return new Uint8Array(Buffer.concat(pieces));
}

/** Splits `whole` into chunks, and repeats the sizes. The chunks are views, or copies with `copied`. */
export function* cut(whole: Bytes, sizes: readonly number[], { copied = false } = {}): Generator<Bytes> {
  for (let start = 0, i = 0; start < whole.length; i++) {
    const end = Math.min(whole.length, start + sizes[i % sizes.length]!);
    yield copied ? whole.slice(start, end) : whole.subarray(start, end);
    start = end;
  }
}

// ---- streams ----------------------------------------------------------------------------------------------------

/** Reads a stream or an iterable to its end, and returns all bytes. */
export async function collect(source: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const pieces: Uint8Array[] = [];
  for await (const piece of Symbol.asyncIterator in source ? source : piecesOf(source)) pieces.push(piece);
  return concat(pieces);
}

/** The chunks of a stream, in WebKit, too, whose streams are not iterable. */
export async function* piecesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = stream.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    yield value;
  }
}

/** Creates a stream that reads `chunks` only on demand. */
export function streamOf<T>(chunks: Iterable<T>): ReadableStream<T> {
  const iterator = chunks[Symbol.iterator]();
  return new ReadableStream<T>({
    pull(controller) {
      const { done, value } = iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  }, { highWaterMark: 0 });
}
