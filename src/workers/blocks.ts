/**
 * Memory in which units go to Workers and come back: shared with them, and used again.
 *
 * A unit that is moved is new memory each time, to the garbage collectors of both threads, and its pages are cold. With shared memory, that
 * the Worker was told of once, a pool of two seals 1.25 times as fast in Bun; to tell of it with each unit gains nothing. In V8,
 * to whose collector moved memory is nothing until it is dropped, the second copy makes it some percent slower.
 *
 * @module
 */

import { prefersSharedMemory } from "../../ffi/mod.ts";
import type { Bytes } from "../bytes.ts";
import type { Piece } from "./messages.ts";

/** What fits a unit of 1 MiB, with tags. Smaller memory than half of that is not worth it. */
const SIZE = 17 * 64 * 1024;

/** However many Workers: it is kept as long as the pool. */
const MOST = 16;

/** The shared memory of one pool. To who works in it, it is memory as any other. */
export class Blocks {
  /** Streams that there are. Where there are none, nothing is to be left of them. */
  #streams = 0;
  readonly #most: number;
  #made = 0;
  readonly #free: ArrayBuffer[] = [];
  /** Those with something in them. */
  readonly #written = new Set<ArrayBuffer>();

  constructor(units: number) {
    this.#most = prefersSharedMemory() ? Math.min(units, MOST) : 0;
  }

  /** Memory of so many bytes, with anything in it; undefined where it has to be other memory. */
  take(length: number): Bytes | undefined {
    if (length > SIZE || length < SIZE / 2) return undefined;
    const block = this.#free.pop() ?? this.#make();
    if (!block) return undefined;
    this.#written.add(block);
    return new Uint8Array(block, 0, length);
  }

  /** It is free again; memory that is not shared is nothing to this. */
  give({ buffer }: Bytes): void {
    if (!isBlock(buffer)) return;
    this.#free.push(buffer);
    if (this.#streams === 0) this.#wipe();
  }

  /** Nobody gets it again: a Worker that has ended may still be at it. Another one takes its place. */
  lose({ buffer }: Bytes): void {
    if (isBlock(buffer)) this.#made--;
    this.#written.delete(buffer);
  }

  /** A stream begins. */
  join(): void {
    this.#streams++;
  }

  /** One has ended. */
  leave(): void {
    if (--this.#streams === 0) this.#wipe();
  }

  #wipe(): void {
    for (const block of this.#free) {
      if (this.#written.delete(block)) new Uint8Array(block).fill(0);
    }
  }

  #make(): ArrayBuffer | undefined {
    if (this.#made === this.#most) return undefined;
    this.#made++;
    return new SharedArrayBuffer(SIZE) as unknown as ArrayBuffer;
  }
}

/** Bytes for whoever gets them: a copy, where their memory is shared. */
export function unshared(bytes: Bytes): Bytes {
  return isBlock(bytes.buffer) ? new Uint8Array(bytes) : bytes;
}

/** The blocks that one Worker was told of, by number: it has the same list, and neither says more of them than that. */
export class KnownBlocks {
  readonly #blocks: ArrayBuffer[] = [];

  /** Those of a list that are new. */
  newIn(list: readonly Bytes[]): ArrayBuffer[] {
    return memoriesOf(list).filter((memory) => isBlock(memory) && !this.#blocks.includes(memory));
  }

  add(blocks: readonly ArrayBuffer[]): void {
    this.#blocks.push(...blocks);
  }

  piecesOf(list: readonly Bytes[]): Piece[] {
    return list.map(({ buffer, byteOffset, length }) => {
      return [isBlock(buffer) ? this.#blocks.indexOf(buffer) : buffer, byteOffset, length];
    });
  }

  bytesOf(pieces: readonly Piece[]): Bytes[] {
    return pieces.map(([memory, offset, length]) => {
      return new Uint8Array(typeof memory === "number" ? this.#blocks[memory]! : memory, offset, length);
    });
  }
}

/** What is moved with a list: all its memory that is not shared. */
export function movable(list: readonly Bytes[]): ArrayBuffer[] {
  return memoriesOf(list).filter((memory) => !isBlock(memory));
}

/** All shared memory that is seen here is a block: a caller's own is refused before. */
export function isBlock(memory: ArrayBuffer): boolean {
  return memory instanceof SharedArrayBuffer;
}

/** Each once. */
function memoriesOf(list: readonly Bytes[]): ArrayBuffer[] {
  return [...new Set(list.map(({ buffer }) => buffer))];
}
