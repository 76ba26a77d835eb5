/** Searches the memory of another process, as root or as its parent. */
import { Buffer } from "node:buffer";
import { closeSync, openSync, readFileSync, readSync } from "node:fs";

const PAGE = 4096;
/** The bits "page present" and "page swapped", in the last byte (Documentation/admin-guide/mm/pagemap.rst). */
const IS_THERE = 0b1100_0000;
const STEP = 256 * PAGE;

/**
 * Counts the 16-byte pieces of `needle` in the readable memory of a process, and returns the number of searched bytes.
 * Skips pages that were never touched, because a runtime may reserve gigabytes of them.
 */
export function findInMemory(pid: number, needle: Uint8Array): { found: number; searched: number } {
  const pieces = Array.from({ length: needle.length / 16 }, (_, i) => needle.subarray(16 * i, 16 * i + 16));
  const { places, searched } = search(pid, pieces);
  return { found: places.flat().length, searched };
}

/** Finds the addresses of each piece, all of the same length, in the memory of a process. */
export function findEach(pid: number, pieces: readonly Uint8Array[]): number[][] {
  return search(pid, pieces).places;
}

/** Finds the addresses of each piece, and counts the searched bytes. */
function search(pid: number, pieces: readonly Uint8Array[]): { places: number[][]; searched: number } {
  const places: number[][] = pieces.map(() => []);
  const byStart = groupByStart(pieces);
  const [memory, pagemap] = ["mem", "pagemap"].map((file) => openSync(`/proc/${pid}/${file}`, "r")) as [number, number];
  const chunk = Buffer.alloc(STEP + pieces[0]!.length - 1); // Chunks overlap, to find a piece across two.
  let searched = 0;
  try {
    for (const [start, end] of runs(pid, pagemap)) {
      for (let at = start; at < end; at += STEP) {
        const length = readAt(memory, chunk, Math.min(chunk.length, end - at), at);
        searched += Math.min(length, STEP);
        for (const [offset, i] of matches(chunk.subarray(0, length), pieces, byStart)) places[i]!.push(at + offset);
      }
    }
  } finally {
    closeSync(memory);
    closeSync(pagemap);
  }
  return { places, searched };
}

/** The numbers of the pieces, by their first two bytes. One pass with it takes less time than a search for each. */
function groupByStart(pieces: readonly Uint8Array[]): (number[] | undefined)[] {
  const byStart = new Array<number[] | undefined>(65536).fill(undefined);
  pieces.forEach((piece, i) => (byStart[piece[0]! | piece[1]! << 8] ??= []).push(i));
  return byStart;
}

function matches(
  bytes: Buffer,
  pieces: readonly Uint8Array[],
  byStart: readonly (number[] | undefined)[],
): [offset: number, piece: number][] {
  const found: [number, number][] = [];
  const last = bytes.length - pieces[0]!.length;
  for (let at = 0; at <= last; at++) {
    const numbers = byStart[bytes[at]! | bytes[at + 1]! << 8];
    if (numbers === undefined) continue;
    for (const i of numbers) {
      const piece = pieces[i]!;
      if (bytes.compare(piece, 0, piece.length, at, at + piece.length) === 0) found.push([at, i]);
    }
  }
  return found;
}

/** Yields the ranges of existing pages in all readable mappings. */
function* runs(pid: number, pagemap: number): Generator<[start: number, end: number]> {
  const entries = Buffer.alloc(8 * 65536);
  for (const line of readFileSync(`/proc/${pid}/maps`, "utf8").split("\n")) {
    const [, from, to] = /^([0-9a-f]{1,12})-([0-9a-f]+) r(?!.*\[v(?:var|sys))/.exec(line) ?? [];
    if (!from || !to) continue;
    const last = parseInt(to, 16) / PAGE;
    let start: number | undefined;
    for (let page = parseInt(from, 16) / PAGE; page < last;) {
      const count = readSync(pagemap, entries, 0, 8 * Math.min(65536, last - page), 8 * page) / 8;
      if (count === 0) break;
      for (let i = 0; i < count; i++, page++) {
        const isThere = (entries[8 * i + 7]! & IS_THERE) !== 0;
        if (isThere) start ??= page;
        if (isThere || start === undefined) continue;
        yield [start * PAGE, page * PAGE];
        start = undefined;
      }
    }
    if (start !== undefined) yield [start * PAGE, last * PAGE];
  }
}

/** Returns 0 for pages that the kernel does not allow to read, such as those of a device. */
function readAt(file: number, chunk: Buffer, length: number, position: number): number {
  try {
    return readSync(file, chunk, 0, length, position);
  } catch {
    return 0;
  }
}
