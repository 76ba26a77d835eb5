/**
 * {@linkcode ByteQueue}: bytes that wait for more.
 *
 * @module
 */

import { type Bytes, type IovCursor, subarray } from "./bytes.ts";
import { allocUnsafe } from "./runtime/web.ts";

const LEAST = 1024;

/** Smaller chunks are copied even with `moves`, because many small pieces cost more than one copy. */
const SMALL = 16 * 1024;

const EMPTY: Bytes = new Uint8Array(0);

/** The source of a queue's memory. */
export interface BufferPool {
  /** Returns `length` bytes of memory, with any content. */
  acquire(length: number): Bytes;
  /** Takes back memory. Its content must not be seen again. */
  release(bytes: Bytes): void;
}

const OWN_MEMORY: BufferPool = { acquire: allocUnsafe, release: (bytes) => void bytes.fill(0) };

/**
 * Bytes that wait for more bytes. They are copies in one buffer. With `moves`, large chunks are not copied: their
 * memory is moved (`ArrayBuffer.transfer`).
 */
export class ByteQueue {
  readonly #most: number;
  readonly #moves: boolean;
  readonly #source: BufferPool;
  /** Moved chunks, and the copies before them. */
  #pieces: Bytes[] = [];
  #piecesLength = 0;
  /** The copies after the pieces. */
  #memory = EMPTY;
  #used = 0;
  /** The least memory to allocate: enough for all bytes if the last batch was large. */
  #usual = LEAST;

  /** @param most The most bytes in the queue. */
  constructor(
    most: number,
    { moves = false, memory = OWN_MEMORY }: { moves?: boolean; memory?: BufferPool | undefined } = {},
  ) {
    this.#most = most;
    this.#moves = moves;
    this.#source = memory;
  }

  get length(): number {
    return this.#piecesLength + this.#used;
  }

  /** The bytes, which stay in the queue. Only without `moves`. */
  get bytes(): Bytes {
    return this.#memory.subarray(0, this.#used);
  }

  /**
   * Takes `length` bytes from the front of `input`.
   *
   * @throws {TypeError} If a chunk was given away twice.
   */
  add(input: IovCursor, length: number): void {
    const total = this.length + length;
    const list = input.peek(length);
    input.advance(length); // before the move, because moved memory has no length
    for (const bytes of list) {
      const moved = this.#moves ? move(bytes) : undefined;
      if (moved) this.#push(moved);
      else this.#copy(bytes);
    }
    if (this.length !== total) throw new TypeError("A chunk was given away twice");
  }

  /** Removes the first `length` bytes, in memory that becomes the caller's. */
  take(length: number): Bytes[] {
    const taken: Bytes[] = [];
    let missing = length;
    let count = 0;
    for (; count < this.#pieces.length && missing > 0; count++) {
      const piece = this.#pieces[count]!;
      if (piece.length > missing) {
        taken.push(piece.subarray(0, missing));
        this.#pieces[count] = piece.slice(missing); // the caller becomes the owner of the memory, so the rest is copied
        missing = 0;
        break;
      }
      taken.push(piece);
      missing -= piece.length;
    }
    this.#pieces.splice(0, count);
    this.#piecesLength -= length - missing;
    if (missing > 0) taken.push(this.#takeCopies(missing));
    this.#usual = length > this.#most / 2 ? this.#most : LEAST;
    return taken;
  }

  /** Removes the first `length` bytes. The memory is used again. Only without `moves`. */
  drop(length: number): void {
    this.#memory.copyWithin(0, length, this.#used);
    this.#used -= length;
  }

  /** Removes all bytes, and zeroes them. */
  wipe(): void {
    for (const piece of [...this.#pieces, this.#memory]) this.#source.release(piece);
    this.#pieces = [];
    this.#piecesLength = this.#used = 0;
    this.#memory = EMPTY;
  }

  #push(piece: Bytes): void {
    if (this.#used > 0) {
      this.#pieces.push(this.bytes);
      this.#piecesLength += this.#used;
      this.#memory = EMPTY;
      this.#used = 0;
    }
    this.#pieces.push(piece);
    this.#piecesLength += piece.length;
  }

  #copy(bytes: Bytes): void {
    const length = this.#used + bytes.length;
    if (length > this.#memory.length) this.#grow(length);
    this.#memory.set(subarray(bytes, 0, bytes.length), this.#used);
    this.#used = length;
  }

  /** Grows the buffer to four times its size, so that few bytes are copied again. */
  #grow(length: number): void {
    const likely = Math.max(this.#usual, 4 * this.#memory.length);
    const grown = this.#source.acquire(Math.max(length, Math.min(likely, this.#most)));
    grown.set(this.bytes);
    this.#source.release(this.#memory);
    this.#memory = grown;
  }

  #takeCopies(length: number): Bytes {
    const memory = this.#memory;
    const rest = memory.slice(length, this.#used);
    this.#used = rest.length;
    if (length > memory.length / 2) {
      this.#memory = rest;
      return memory.subarray(0, length);
    }
    // Few bytes are returned as a copy, so that they do not keep a large buffer in memory.
    const taken = memory.slice(0, length);
    memory.set(rest);
    return taken;
  }
}

/**
 * Moves the memory of a chunk. Undefined if the chunk is small, or only a part of its buffer, or cannot be moved.
 */
function move(bytes: Bytes): Bytes | undefined {
  const { buffer, byteOffset, length } = subarray(bytes, 0, bytes.length);
  if (length < SMALL || byteOffset !== 0 || length !== buffer.byteLength) return undefined;
  try {
    return new Uint8Array(buffer.transfer());
  } catch {
    return undefined; // it belongs to WebAssembly, or was marked as untransferable
  }
}
