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
  /** Bytes, with those that are as if in front. */
  #end: number;
  #start: number;
  readonly #most: number;
  readonly #layout: Layout | undefined;

  /**
   * @param most So many bytes will be gathered at most.
   * @param front So many bytes of the first run are left free in front.
   */
  constructor(most: number, layout: Layout | undefined, front: number) {
    this.#most = most;
    this.#layout = layout;
    this.#start = front;
    this.#end = front;
  }

  get length(): number {
    return this.#end - this.#start;
  }

  add(bytes: Bytes): void {
    this.#reserve(this.#end + bytes.length);
    const run = this.#layout?.run ?? Infinity;
    for (let at = 0; at < bytes.length;) {
      const length = Math.min(bytes.length - at, run - (this.#layout ? this.#end % run : 0));
      this.#memory.set(viewOf(bytes, at, at + length), this.#offset(this.#end));
      this.#end += length;
      at += length;
    }
  }

  take(length: number): Bytes[] {
    const end = this.#start + length;
    this.#reserve(end);
    const size = this.#size(end);
    const [memory, rest] = [this.#memory, this.#rest(end)];
    this.#memory = new Uint8Array(0);
    this.#start = this.#end = 0;
    if (rest) this.add(rest);
    if (size === 0) return [];
    // Memory is not to be kept alive for a few bytes in it.
    return [size > memory.length / 2 ? memory.subarray(0, size) : memory.slice(0, size)];
  }

  wipe(): void {
    this.#memory.fill(0);
    this.#end = this.#start;
  }

  /** What is behind a unit is in one run. */
  #rest(end: number): Bytes | undefined {
    return end === this.#end ? undefined : this.#memory.slice(this.#offset(end), this.#offset(end) + this.#end - end);
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
    const grown = new Uint8Array(Math.max(size, Math.min(this.#size(this.#most), 4 * this.#memory.length, LEAST)));
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
