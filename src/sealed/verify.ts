/**
 * {@linkcode verifyFile}: checks every segment of a sealed file.
 *
 * @module
 */

import { onAbort, signalsOf } from "../abort.ts";
import { wrongType } from "../bytes.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import type { ByteRange } from "./format.ts";
import { ReadAhead, type ReadContext } from "./read_ahead.ts";
import { isBadMessage } from "./segment_opener.ts";

/** Options of `verify()` of a {@linkcode SealedReader}. */
export interface VerifyOptions {
  /** Ends the verification, not the reader. */
  signal?: AbortSignal | undefined;
  /**
   * Called again and again.
   *
   * @param checked Bytes of the plaintext that were checked, damaged ones included.
   * @param size Bytes of the plaintext in all.
   */
  onProgress?: ((checked: number, size: number) => void) | undefined;
}

/** What `verify()` of a {@linkcode SealedReader} found. */
export interface SealedVerification {
  /**
   * Whether nothing is damaged: neither a segment nor the header, and nothing was cut off or added. If this is true,
   * `unseal()` gives the whole file.
   */
  readonly isIntact: boolean;
  /**
   * The ranges of the plaintext that cannot be read, in order; neighboring ones as one. A range is empty if nothing but
   * a tag is damaged, as in an empty file.
   */
  readonly damaged: readonly ByteRange[];
}

const VERIFY_NAMES: OptionNames<VerifyOptions> = { signal: true, onProgress: true };

/** Checks the options of a verification. */
export function checkVerifyOptions(options: VerifyOptions): VerifyOptions & { signals: readonly AbortSignal[] } {
  checkOptions("options", options, VERIFY_NAMES);
  const { signal, onProgress } = options;
  if (onProgress !== undefined && typeof onProgress !== "function") {
    throw wrongType("onProgress", "a function", onProgress);
  }
  return { signals: signalsOf(signal), onProgress };
}

/**
 * Reads and verifies all segments, also those that the reader has kept.
 *
 * @param size Bytes of the plaintext.
 * @returns The damaged ranges.
 */
export async function verifySegments(
  context: ReadContext,
  size: number,
  { signals, onProgress }: VerifyOptions & { readonly signals: readonly AbortSignal[] },
): Promise<readonly ByteRange[]> {
  const { plaintext, segments } = context;
  const verification = { range: new ReadAhead(context, { first: 0, end: segments, isFresh: true }) };
  const listener = onAbort(signals, verification, ({ range }, reason) => range.cancel(reason));
  listener?.retain(verification);
  const damaged: ByteRange[] = [];
  const positionOf = (index: number) => Math.min(plaintext.start(index), size);
  try {
    for (let next = 0; next < segments;) {
      const { first, end, result: { bytes, error } } = await verification.range.next();
      bytes.fill(0);
      next = end;
      if (error !== undefined) {
        if (!isBadMessage(error)) throw error;
        // A batch ends at its first damaged segment. The rest is read again, segment by segment.
        const bad = plaintext.indexAt(plaintext.start(first) + bytes.length);
        addRange(damaged, { start: positionOf(bad), end: positionOf(bad + 1) });
        next = bad + 1;
        if (end - first > 1) {
          verification.range.cancel(error);
          verification.range = new ReadAhead(context, { first: next, end: segments, isFresh: true, batch: 1 });
        }
      }
      onProgress?.(positionOf(next), size);
    }
  } finally {
    listener?.stop();
    verification.range.cancel(undefined);
  }
  return damaged;
}

/** Adds a range, as one with the one before if they are neighbors. */
function addRange(ranges: ByteRange[], { start, end }: ByteRange): void {
  const last = ranges.at(-1);
  if (last?.end === start) ranges[ranges.length - 1] = { start: last.start, end };
  else ranges.push({ start, end });
}
