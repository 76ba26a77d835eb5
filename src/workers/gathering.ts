/**
 * What has come of the next unit.
 *
 * @module
 */

import { unfilled } from "../../ffi/mod.ts";
import { type Bytes, copyOf, viewOf } from "../bytes.ts";
import type { Blocks } from "./blocks.ts";

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

/** Copies, in pieces that have their memory for themselves. */
export class Copies implements Gathering {
  length = 0;
  /** Complete pieces, and how many of the bytes that came are in them. */
  #list: { readonly memory: Bytes; readonly length: number }[] = [];
  /** The piece that is being filled. */
  #memory: Bytes = new Uint8Array(0);
  /** Its bytes, with those that are as if in front. */
  #end: number;
  #front: number;
  readonly #blocks: Blocks;
  readonly #piece: number;
  readonly #layout: Layout | undefined;
  /** How much to reserve at least when there are bytes to add: all of a piece, where the one before was large. */
  #usual = LEAST;

  /**
   * @param blocks Where pieces are gathered, if they are large.
   * @param piece So many bytes are in a piece, at most.
   * @param front So many bytes of the first run are left free in front.
   */
  constructor(blocks: Blocks, piece: number, layout: Layout | undefined, front: number) {
    this.#blocks = blocks;
    this.#piece = piece;
    this.#layout = layout;
    this.#front = front;
    this.#end = front;
  }

  add(bytes: Bytes): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#end === this.#piece) {
        const length = this.#end - this.#front;
        this.#list.push({ memory: this.#cut(this.#end), length });
      }
      const ofPiece = Math.min(bytes.length - at, this.#piece - this.#end);
      this.#reserve(this.#end + ofPiece);
      const run = this.#layout ? this.#layout.run - this.#end % this.#layout.run : Infinity;
      const length = Math.min(ofPiece, run);
      this.#memory.set(viewOf(bytes, at, at + length), this.#offset(this.#end));
      this.#end += length;
      this.length += length;
      at += length;
    }
  }

  take(length: number): Bytes[] {
    this.length -= length;
    const taken: Bytes[] = [];
    while (this.#list.length > 0 && length > 0) {
      const { memory, length: ofPiece } = this.#list.shift()!;
      taken.push(ofPiece > length ? memory.subarray(0, length) : memory);
      // Only without a layout: with one, a piece is a unit.
      if (ofPiece > length) this.#list.unshift({ memory: memory.slice(length), length: ofPiece - length });
      length -= Math.min(length, ofPiece);
    }
    if (length > 0 || this.#front > 0) taken.push(this.#cut(this.#front + length));
    return taken;
  }

  wipe(): void {
    for (const { memory } of this.#list) this.#forget(memory);
    this.#forget(this.#memory);
    this.#list = [];
    this.#memory = new Uint8Array(0);
    this.#end = this.#front;
    this.length = 0;
  }

  /** Takes the first `end` bytes of the piece that is being filled. */
  #cut(end: number): Bytes {
    this.#reserve(end);
    const [memory, size] = [this.#memory, this.#size(end)];
    // What is behind them is in one run.
    const rest = memory.slice(this.#offset(end), this.#offset(end) + this.#end - end);
    // Little is sent as a copy: it is not to keep large memory alive.
    const isLarge = size > memory.length / 2;
    const taken = isLarge ? memory.subarray(0, size) : memory.slice(0, size);
    if (isLarge) this.#memory = rest;
    else memory.set(rest);
    this.#usual = size > this.#size(this.#piece) / 2 ? this.#size(this.#piece) : LEAST;
    this.#front = 0;
    this.#end = rest.length;
    return taken;
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
    const likely = Math.max(this.#usual, 4 * this.#memory.length);
    const length = Math.max(size, Math.min(likely, this.#size(this.#piece)));
    const grown = this.#blocks.take(length) ?? unfilled(length);
    grown.set(this.#memory);
    this.#forget(this.#memory);
    this.#memory = grown;
  }

  #forget(memory: Bytes): void {
    memory.fill(0);
    this.#blocks.give(memory);
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
