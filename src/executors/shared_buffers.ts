/**
 * Memory for the input of batches that Workers run. It is shared with the Workers, and reused.
 *
 * A moved batch is new memory each time. Its pages are cold, and the garbage collectors of both threads count it. A
 * shared buffer is sent to a Worker once, and then named by its number. To send the buffer with each batch gains
 * nothing. Results are new memory that is moved, so that readers get it without a copy.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { BufferPool } from "../byte_queue.ts";
import { allocUnsafe } from "../runtime/web.ts";

/** The size of a buffer, for a batch of 1 MiB and a byte. Batches of less than half of it do not gain from sharing. */
const SIZE = 17 * 64 * 1024;

/**
 * The most buffers of a pool, for any number of Workers and streams, because the pool keeps them until it is closed.
 */
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
   * Takes memory back. A shared buffer is zeroed when the pool has no streams. Other memory is zeroed now, unless it
   * was moved.
   */
  release(bytes: Bytes): void {
    const shared = this.#buffers.find(({ memory }) => memory === bytes.buffer);
    if (!shared) return void (bytes.length > 0 && bytes.fill(0));
    shared.isFree = true;
    if (this.#streams === 0) this.#wipe();
  }

  /** Called when a stream begins. */
  join(): void {
    this.#streams++;
  }

  /** Called when a stream has ended. */
  leave(): void {
    if (--this.#streams === 0) this.#wipe();
  }

  #free(): SharedBuffer | undefined {
    const found = this.#buffers.find(({ isFree }) => isFree);
    if (found || this.#buffers.length === MOST) return found;
    const added = { memory: new SharedArrayBuffer(SIZE) as unknown as ArrayBuffer, isFree: true, isWritten: false };
    this.#buffers.push(added);
    return added;
  }

  #wipe(): void {
    for (const shared of this.#buffers) {
      if (!shared.isFree || !shared.isWritten) continue;
      new Float64Array(shared.memory).fill(0); // as bytes, V8 takes four times as long
      shared.isWritten = false;
    }
  }
}

/**
 * Bytes as they are sent: moved memory or the number of a shared buffer, the offset and the length. Not a view, because
 * Bun copies views element by element.
 */
export type TransferredView = readonly [memory: ArrayBuffer | number, offset: number, length: number];

/** The shared buffers that one Worker knows, by number. Both sides keep the same list. */
export class SharedBufferTable {
  readonly #known: ArrayBuffer[] = [];

  /** Adds the shared buffers of a list that the other side does not know yet, and returns them to be sent. */
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

/** The memory of a list that is moved with it: the buffers that are not shared. */
export function movable(list: readonly Bytes[]): ArrayBuffer[] {
  return memoriesOf(list).filter((memory) => !isShared(memory));
}

/** Whether memory is one of the pool's shared buffers. Shared memory of a caller was refused. */
function isShared(memory: ArrayBuffer): boolean {
  return memory instanceof SharedArrayBuffer;
}

/** The buffers of a list, each once. */
function memoriesOf(list: readonly Bytes[]): ArrayBuffer[] {
  return [...new Set(list.map(({ buffer }) => buffer))];
}
