/**
 * What has come of the next unit.
 *
 * @module
 */

import { allocUnsafe } from "../runtime/mod.ts";
import { type Bytes, copyOf, viewOf } from "../bytes.ts";
import type { Blocks } from "./blocks.ts";

/** Bytes that wait to be sent, in memory that can be. */
export interface Gathering {
  readonly length: number;
  /** Adds bytes; their memory is the caller's again, unless it was given away. */
  add(bytes: Bytes): void;
  /** Takes `length` bytes off the front, of which it has as many. */
  take(length: number): Bytes[];
  /** Forgets all. */
  wipe(): void;
}

const LEAST = 16 * 1024;

/** Copies, in one piece that has its memory for itself. */
export class Copies implements Gathering {
  length = 0;
  #memory: Bytes = new Uint8Array(0);
  readonly #blocks: Blocks;
  readonly #most: number;
  /** How much to reserve at least when there are bytes to add: all there may be, where the last piece was large. */
  #usual = LEAST;

  /**
   * @param blocks Where much is gathered.
   * @param most So many bytes there may be.
   */
  constructor(blocks: Blocks, most: number) {
    this.#blocks = blocks;
    this.#most = most;
  }

  add(bytes: Bytes): void {
    const length = this.length + bytes.length;
    if (length > this.#memory.length) this.#reserve(length);
    this.#memory.set(viewOf(bytes, 0, bytes.length), this.length);
    this.length = length;
  }

  take(length: number): Bytes[] {
    if (length === 0) return [];
    const memory = this.#memory;
    const rest = memory.slice(length, this.length);
    // Little is sent as a copy: it is not to keep large memory in use.
    const isLarge = length > memory.length / 2;
    const taken = isLarge ? memory.subarray(0, length) : memory.slice(0, length);
    if (isLarge) this.#memory = rest;
    else memory.set(rest);
    this.#usual = length > this.#most / 2 ? this.#most : LEAST;
    this.length = rest.length;
    return [taken];
  }

  wipe(): void {
    this.#blocks.give(this.#memory);
    this.#memory = new Uint8Array(0);
    this.length = 0;
  }

  /** Four times as much each time, so that little is copied again. */
  #reserve(length: number): void {
    const likely = Math.max(this.#usual, 4 * this.#memory.length);
    const reserved = Math.max(length, Math.min(likely, this.#most));
    const grown = this.#blocks.take(reserved) ?? allocUnsafe(reserved);
    grown.set(this.#memory);
    this.#blocks.give(this.#memory);
    this.#memory = grown;
  }
}

/** Chunks that were given away, whose memory is taken over at once; of those that are a part of theirs, copies. */
export class Moves implements Gathering {
  length = 0;
  #list: Bytes[] = [];

  add(bytes: Bytes): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    this.#list.push(moved(bytes) ?? copyOf(bytes));
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
    for (const piece of this.#list) piece.fill(0);
    this.#list = [];
    this.length = 0;
  }
}

/** Undefined where moving the memory of a chunk would take something else with it, or where it cannot be moved. */
function moved(bytes: Bytes): Bytes | undefined {
  const { buffer, byteOffset, length } = viewOf(bytes, 0, bytes.length);
  if (byteOffset !== 0 || length !== buffer.byteLength) return undefined;
  try {
    return new Uint8Array(buffer.transfer());
  } catch {
    return undefined; // it is WebAssembly's, or was marked as untransferable
  }
}
