/**
 * What has come of the next unit.
 *
 * @module
 */

import { type Bytes, copyOf, viewOf } from "../bytes.ts";

/** Bytes that wait to be sent, in memory that can be moved. */
export interface Gathering {
  readonly length: number;
  /** Adds bytes; their memory is the caller's again, unless it was given away. */
  add(bytes: Bytes): void;
  /** Takes `length` bytes off the front, of which it has as many. */
  take(length: number): Bytes[];
  /** Forgets all. */
  wipe(): void;
}

/** Where the bytes lie in their memory: after each run of them there is a gap. */
export interface Layout {
  readonly run: number;
  readonly gap: number;
}

const LEAST = 16 * 1024;

/** Copies, in one piece. */
export class Copies implements Gathering {
  #memory: Bytes = new Uint8Array(0);
  #start: number;
  /** Bytes, with those that are as if in front. */
  #end: number;
  readonly #lend: (least: number) => Bytes;
  readonly #layout: Layout | undefined;

  /**
   * @param lend Gives memory of at least so many bytes.
   * @param front So many bytes of the first run are left free in front.
   */
  constructor(lend: (least: number) => Bytes, layout: Layout | undefined, front: number) {
    this.#lend = lend;
    this.#layout = layout;
    this.#start = front;
    this.#end = front;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  add(bytes: Bytes): void {
    this.#reserve(this.#end + bytes.length);
    for (let at = 0; at < bytes.length;) {
      const run = this.#layout ? this.#layout.run - this.#end % this.#layout.run : Infinity;
      const length = Math.min(bytes.length - at, run);
      this.#memory.set(viewOf(bytes, at, at + length), this.#offset(this.#end));
      this.#end += length;
      at += length;
    }
  }

  take(length: number): Bytes[] {
    const end = this.#start + length;
    this.#reserve(end);
    const [memory, size] = [this.#memory, this.#size(end)];
    // What is behind a unit is in one run.
    const rest = memory.slice(this.#offset(end), this.#offset(end) + this.#end - end);
    this.#start = this.#end = 0;
    // Where it comes out again, nothing of another stream is to be behind it.
    if (this.#layout) memory.fill(0, size);
    // Little is sent as a copy: it is not to keep large memory alive.
    const isLarge = size > memory.length / 2;
    const taken = isLarge ? memory.subarray(0, size) : memory.slice(0, size);
    if (isLarge) this.#memory = new Uint8Array(0);
    this.add(rest);
    return size === 0 ? [] : [taken];
  }

  wipe(): void {
    this.#memory.fill(0);
    this.#memory = new Uint8Array(0);
    this.#end = this.#start;
  }

  #offset(at: number): number {
    return this.#layout ? at + Math.floor(at / this.#layout.run) * this.#layout.gap : at;
  }

  #size(end: number): number {
    return this.#layout ? end + Math.max(1, Math.ceil(end / this.#layout.run)) * this.#layout.gap : end;
  }

  /** Four times as much each time, so that little is copied again. */
  #reserve(end: number): void {
    const size = this.#size(end);
    if (size <= this.#memory.length) return;
    const grown = this.#lend(
      this.#memory.length === 0 ? Math.max(size, LEAST) : Math.max(size, 4 * this.#memory.length),
    );
    grown.set(this.#memory);
    this.#memory.fill(0);
    this.#memory = grown;
  }
}

/** Chunks that were given away, as they are; of those that are a part of their memory, copies. */
export class Moves implements Gathering {
  length = 0;
  #list: Bytes[] = [];

  add(bytes: Bytes): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    this.#list.push(isWhole(bytes) ? viewOf(bytes, 0, bytes.length) : copyOf(bytes));
  }

  take(length: number): Bytes[] {
    const taken: Bytes[] = [];
    for (let missing = length; missing > 0;) {
      const piece = this.#list.shift()!;
      taken.push(piece.length > missing ? piece.subarray(0, missing) : piece);
      // What is left of a piece is copied: its memory goes.
      if (piece.length > missing) this.#list.unshift(piece.slice(missing));
      missing -= Math.min(piece.length, missing);
    }
    this.length -= length;
    return taken;
  }

  wipe(): void {
    this.#list = [];
    this.length = 0;
  }
}

/** Whether moving the memory of a chunk takes nothing else with it. */
function isWhole({ byteOffset, length, buffer }: Bytes): boolean {
  return byteOffset === 0 && length === buffer.byteLength;
}
