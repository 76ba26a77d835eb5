/**
 * Memory in which batches go to Workers: shared with them, and used again.
 *
 * A batch that is moved is new memory each time, whose pages are cold and which the garbage collectors of both threads
 * count. A Worker is told of a shared buffer once, and of its number from then on; sending the buffer itself with each
 * batch gains nothing. Results are new memory that is moved, so that readers get it as it is.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { BufferPool } from "../byte_queue.ts";
import { allocUnsafe } from "../runtime/web.ts";

/** Holds a batch of 1 MiB and a byte more. A buffer for less than half of that is not worth it. */
const SIZE = 17 * 64 * 1024;

/** However many Workers and streams: buffers are kept as long as the pool. */
const MOST = 16;

interface SharedBuffer {
  readonly memory: ArrayBuffer;
  isFree: boolean;
  isWritten: boolean;
}

/** The shared memory of one pool. */
export class SharedBufferPool implements BufferPool {
  readonly #buffers: SharedBuffer[] = [];
  #streams = 0;

  /** Memory of `length` bytes, with any content: a shared buffer, if one of this size pays off and is free. */
  acquire(length: number): Bytes {
    const shared = length <= SIZE && length >= SIZE / 2 ? this.#free() : undefined;
    if (!shared) return allocUnsafe(length);
    shared.isFree = false;
    shared.isWritten = true;
    return new Uint8Array(shared.memory, 0, length);
  }

  /**
   * Takes memory back. A shared buffer is zeroed when the pool has no stream, other memory now, unless it was moved.
   */
  release(bytes: Bytes): void {
    const shared = this.#buffers.find(({ memory }) => memory === bytes.buffer);
    if (!shared) return void (bytes.length > 0 && bytes.fill(0));
    shared.isFree = true;
    if (this.#streams === 0) this.#wipe();
  }

  /** A stream begins. */
  join(): void {
    this.#streams++;
  }

  /** A stream has ended. */
  leave(): void {
    if (--this.#streams === 0) this.#wipe();
  }

  #free(): SharedBuffer | undefined {
    const found = this.#buffers.find(({ isFree }) => isFree);
    if (found || this.#buffers.length === MOST) return found;
    const made = { memory: new SharedArrayBuffer(SIZE) as unknown as ArrayBuffer, isFree: true, isWritten: false };
    this.#buffers.push(made);
    return made;
  }

  #wipe(): void {
    for (const shared of this.#buffers) {
      if (!shared.isFree || !shared.isWritten) continue;
      new Float64Array(shared.memory).fill(0); // by bytes it takes V8 four times as long
      shared.isWritten = false;
    }
  }
}

/**
 * Bytes as they are sent: memory that is moved, or the number of a shared buffer; offset and length. Not as views,
 * which Bun copies element by element.
 */
export type TransferredView = readonly [memory: ArrayBuffer | number, offset: number, length: number];

/** The shared buffers that one Worker knows, by number. Both sides keep the same list. */
export class SharedBufferTable {
  readonly #known: ArrayBuffer[] = [];

  /** The shared buffers of a list that the other side does not know yet. From now on it does. */
  learn(list: readonly Bytes[]): ArrayBuffer[] {
    const fresh = memoriesOf(list).filter((memory) => isShared(memory) && !this.#known.includes(memory));
    this.add(fresh);
    return fresh;
  }

  add(buffers: readonly ArrayBuffer[]): void {
    this.#known.push(...buffers);
  }

  piecesOf(list: readonly Bytes[]): TransferredView[] {
    return list.map(({ buffer, byteOffset, length }) => {
      return [isShared(buffer) ? this.#known.indexOf(buffer) : buffer, byteOffset, length];
    });
  }

  bytesOf(pieces: readonly TransferredView[]): Bytes[] {
    return pieces.map(([memory, offset, length]) => {
      return new Uint8Array(typeof memory === "number" ? this.#known[memory]! : memory, offset, length);
    });
  }
}

/** The memory of a list that is moved with it: all that is not shared. */
export function movable(list: readonly Bytes[]): ArrayBuffer[] {
  return memoriesOf(list).filter((memory) => !isShared(memory));
}

/** Shared memory here is always one of the pool's buffers: a caller's own was refused. */
function isShared(memory: ArrayBuffer): boolean {
  return memory instanceof SharedArrayBuffer;
}

/** Each once. */
function memoriesOf(list: readonly Bytes[]): ArrayBuffer[] {
  return [...new Set(list.map(({ buffer }) => buffer))];
}
