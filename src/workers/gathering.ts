/**
 * The beginning of the next unit: chunks that are moved, and copies of the others.
 *
 * @module
 */

import { type Bytes, copyOf, viewOf } from "../bytes.ts";

/** Copies of less are put together: each piece that is sent costs something. */
const SMALL = 16 * 1024;
const BLOCK = 64 * 1024;

/** Bytes that wait to be sent, in memory of their own. */
export class Gathering {
  length = 0;
  #list: Bytes[] = [];
  /** How much of the last piece is filled, where that is a block for small pieces. */
  #filled: number | undefined;

  /** @param isOwn The memory is ours, all of it, and may be moved. */
  add(bytes: Bytes, isOwn: boolean): void {
    if (bytes.length === 0) return;
    this.length += bytes.length;
    if (isOwn) this.#push(viewOf(bytes, 0, bytes.length));
    else if (bytes.length >= SMALL) this.#push(copyOf(bytes));
    else this.#copySmall(bytes);
  }

  /** Takes `length` bytes off the front, of which it has as many; what is left of a piece is copied. */
  take(length: number): Bytes[] {
    this.#close();
    const taken: Bytes[] = [];
    for (let missing = length; missing > 0;) {
      const piece = this.#list.shift()!;
      if (piece.length > missing) {
        this.#list.unshift(piece.slice(missing));
        taken.push(piece.subarray(0, missing));
        break;
      }
      taken.push(piece);
      missing -= piece.length;
    }
    this.length -= length;
    return taken;
  }

  /** Forgets all. */
  wipe(): void {
    for (const piece of this.#list) piece.fill(0);
    this.#list = [];
    this.length = 0;
    this.#filled = undefined;
  }

  #push(piece: Bytes): void {
    this.#close();
    this.#list.push(piece);
  }

  #copySmall(bytes: Bytes): void {
    const room = this.#filled === undefined ? 0 : BLOCK - this.#filled;
    if (bytes.length > room) {
      this.#push(new Uint8Array(BLOCK));
      this.#filled = 0;
    }
    this.#list.at(-1)!.set(bytes, this.#filled);
    this.#filled! += bytes.length;
  }

  /** Cuts the block of small pieces to what is in it. */
  #close(): void {
    if (this.#filled === undefined) return;
    const block = this.#list.pop()!;
    this.#list.push(block.slice(0, this.#filled));
    this.#filled = undefined;
  }
}
