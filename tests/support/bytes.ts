/** Bytes and streams of them: what also the programs in `children/` use, which may have no permission at all. */
import { Buffer } from "node:buffer";

export type Bytes = Uint8Array<ArrayBuffer>;

// ---- bytes ------------------------------------------------------------------------------------------------------

/** The bytes of hexadecimal digits; white space between them is ignored. */
export function fromHex(digits: string): Bytes {
  return new Uint8Array(Buffer.from(digits.replace(/\s/g, ""), "hex"));
}

/** `length` bytes without a pattern that a cut could hide behind, always the same for the same `seed`. */
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

/** `whole` in pieces of the given sizes, again and again: views of it, copies with `copied`. */
export function* cut(whole: Bytes, sizes: readonly number[], { copied = false } = {}): Generator<Bytes> {
  for (let start = 0, i = 0; start < whole.length; i++) {
    const end = Math.min(whole.length, start + sizes[i % sizes.length]!);
    yield copied ? whole.slice(start, end) : whole.subarray(start, end);
    start = end;
  }
}

// ---- streams ----------------------------------------------------------------------------------------------------

/** All bytes of a stream or an iterable. */
export async function collect(source: AsyncIterable<Uint8Array>): Promise<Bytes> {
  const pieces: Uint8Array[] = [];
  for await (const piece of source) pieces.push(piece);
  return concat(pieces);
}

/** A stream that asks its chunks of `chunks` when it is asked for them, and no sooner. */
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
