/**
 * {@linkcode SealedReader}: random access to a sealed file.
 *
 * @module
 */

import { parseHeader, SegmentLayout } from "./format.ts";
import type { SealPlan } from "./options.ts";
import { CONSTRUCT, RangeReader, SegmentReader } from "./range_reader.ts";
import { choosePlan, trialSize } from "./rotation.ts";
import { anySource, rejectSize, type SealedSource } from "./source.ts";

/** A sealed file that `openSealed()` opened for random access. Any number of reads may run at once. */
export class SealedReader extends RangeReader {
  /** The key that opened the file: its position in the list of the option `key`, or in the keyset. */
  readonly keyIndex: number;

  /**
   * Use `openSealed()`.
   *
   * @ignore
   */
  constructor(token: symbol, reader: SegmentReader, keyIndex: number) {
    super(token, reader);
    this.keyIndex = keyIndex;
  }
}

/**
 * Opens a sealed file for random access.
 *
 * @param plans One for each key to try. Their keys are disposed of.
 */
export async function openReader(
  source: SealedSource,
  plans: readonly [SealPlan, ...SealPlan[]],
): Promise<SealedReader> {
  try {
    const range = anySource(source);
    await range.learnSize(1, { signal: new AbortController().signal });
    const reader = new SegmentReader(range, plans[0].signals);
    try {
      return new SealedReader(CONSTRUCT, reader, await open(reader, plans, source));
    } catch (error) {
      reader.close(error);
      throw error;
    }
  } finally {
    for (const { key } of plans) key.dispose();
  }
}

/**
 * Chooses the key, reads the header, and verifies the end.
 *
 * @returns The position of the key.
 */
async function open(reader: SegmentReader, plans: readonly SealPlan[], source: SealedSource): Promise<number> {
  const { size } = reader;
  const possible = plans.filter(({ format }) => new SegmentLayout(format).measure(size));
  if (possible.length === 0) await reader.wait(rejectSize(source, size));
  const plan = possible.length === 1 ? possible[0]! : await choose(reader, possible);
  const { format, index } = plan;
  const layout = new SegmentLayout(format);
  const { segments, plaintextSize } = layout.measure(size)!;
  const header = parseHeader(format, await reader.read(0, format.headerSize));
  const session = plan.engines.open("unseal", plan, header);
  const { sealed: stored, plaintext } = layout;
  reader.open({ session, stored, plaintext, segments, end: size, plaintextSize });
  const { error } = await reader.decrypt(segments - 1, 1);
  if (error !== undefined) throw error;
  return index;
}

async function choose(reader: SegmentReader, plans: readonly SealPlan[]): Promise<SealPlan> {
  const start = await reader.read(0, Math.min(trialSize(plans), reader.size));
  return await reader.wait(choosePlan(plans, start));
}
