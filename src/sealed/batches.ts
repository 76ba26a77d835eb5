/**
 * Runs batches of segments in this thread, or in that of a Worker, on the kernel or in `node:crypto`.
 *
 * @module
 */

import { type Bytes, inOnePiece, IovCursor, totalLength } from "../bytes.ts";
import type { EngineChoice } from "../engines/mod.ts";
import { type BatchPosition, type Job, type LocalSession, localSession } from "../executors/executor.ts";
import { allocUnsafe } from "../runtime/web.ts";
import type { Secret } from "../secret.ts";
import {
  checkIndex,
  createBadMessageError,
  type Format,
  type Header,
  headerBytes,
  MOST_SEGMENTS,
  SegmentLayout,
} from "./format.ts";
import { openSegmentCipher, type SegmentCipher } from "./segment_cipher.ts";

/** Sealing or unsealing under the keys that were derived for one stream, as plain values. */
export interface SealedJob extends Omit<Job, "engine"> {
  readonly kind: "seal" | "unseal";
  readonly format: Format;
  readonly header: Header;
  readonly engine: EngineChoice;
}

/**
 * Opens the keys of a stream in this thread.
 *
 * @param key Derived. Owned by the session, also if this fails.
 */
export function openSegments({ kind, format, header, engine }: SealedJob, key: Secret): LocalSession {
  const cipher = openSegmentCipher(format, key, header, engine);
  const layout = new SegmentLayout(format);
  const { tagSize } = format;
  const segments = { cipher, layout, tagSize, front: headerBytes(format, header) };
  const run = kind === "seal" ? sealBatch : unsealBatch;
  return localSession(
    cipher.engine,
    (list, position, outputs, mayOverwrite) => run(segments, list, position, outputs, mayOverwrite),
    () => cipher.close(),
  );
}

interface Segments {
  readonly cipher: SegmentCipher;
  readonly layout: SegmentLayout;
  readonly tagSize: number;
  /** The header of the stream. */
  readonly front: Bytes;
}

/** Seals full segments, and a shorter one at the end of the stream. */
function sealBatch(
  { cipher, layout, tagSize, front }: Segments,
  list: readonly Bytes[],
  { index: first = 0, isLast }: BatchPosition,
  outputs: Bytes[],
): void {
  const size = totalLength(list);
  if (first > 0 && size <= layout.plaintext.lengthOf(first, 1)) {
    return void outputs.push(cipher.seal(list, { index: checkIndex(first), isLast }));
  }
  const input = new IovCursor(list);
  const count = layout.plaintext.countOf(first, size - 1) + 1;
  const start = first === 0 ? front.length : 0;
  const sealed = allocUnsafe(start + input.remaining + count * tagSize);
  if (start > 0) sealed.set(front);
  let end = start;
  try {
    for (let i = 0; i < count; i++) {
      const index = checkIndex(first + i);
      const length = Math.min(layout.plaintext.lengthOf(index, 1), input.remaining);
      const target = sealed.subarray(end, end + length + tagSize);
      cipher.seal(input.peek(length), { index, isLast: isLast && i === count - 1 }, target);
      input.advance(length);
      end += target.length;
    }
  } finally {
    addWritten(outputs, sealed, end === start ? 0 : end);
  }
}

/** Unseals full segments, and a shorter one at the end of the stream. Returns the verified output before an error. */
function unsealBatch(
  { cipher, layout, tagSize }: Segments,
  list: readonly Bytes[],
  { index: first = 0, isLast }: BatchPosition,
  outputs: Bytes[],
  mayOverwrite: boolean,
): void {
  if (!isLast && !mayOverwrite && list.length === 1 && list[0]!.length === layout.sealed.lengthOf(first, 1)) {
    const opened = cipher.open(list[0]!, { index: first, isLast });
    if (!opened) throw createBadMessageError();
    return void outputs.push(opened);
  }
  const sealed = inOnePiece(list);
  const count = layout.sealed.countOf(first, sealed.length - 1) + 1;
  const isOne = count === 1;
  const lastLength = sealed.length - (isOne ? 0 : layout.sealed.lengthOf(first, count - 1));
  const opened = isOne ? sealed : allocUnsafe(sealed.length - (count - 1) * tagSize - Math.min(lastLength, tagSize));
  let [at, end] = [0, 0];
  try {
    for (let i = 0; i < count; i++) {
      const index = first + i;
      const segment = sealed.subarray(at, at + layout.sealed.lengthOf(index, 1));
      at += segment.length;
      const length = segment.length - tagSize;
      if (length < 0 || index >= MOST_SEGMENTS) throw createBadMessageError();
      const target = isOne && !mayOverwrite ? undefined : opened.subarray(end, end + length);
      const isEnd = isLast && i === count - 1;
      const output = cipher.open(segment, { index, isLast: isEnd }, target);
      // A stream that was truncated after a full segment: the segment is authentic, but not the last one.
      const isWhole = segment.length === layout.sealed.lengthOf(index, 1);
      const beginning = output || !isEnd || !isWhole ? output : cipher.open(segment, { index, isLast: false }, target);
      if (beginning && isOne && length > 0) outputs.push(beginning);
      if (beginning) end += length;
      if (!output) throw createBadMessageError();
    }
  } finally {
    if (!isOne) addWritten(outputs, opened, end);
  }
}

/** Adds the first `length` bytes of new memory. Copies them if other bytes follow, which are not initialized. */
function addWritten(outputs: Bytes[], memory: Bytes, length: number): void {
  if (length > 0) outputs.push(length === memory.length ? memory : memory.slice(0, length));
}
