/**
 * {@linkcode SealedReader}: random access to a sealed file.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { parseDamagedHeader, parseHeader, SegmentLayout } from "./format.ts";
import type { SealPlan } from "./options.ts";
import { CONSTRUCT, RangeReader, SegmentReader } from "./range_reader.ts";
import type { CheckedReadOptions } from "./read_options.ts";
import { choosePlan, choosePlanOfDamaged, trialSize } from "./rotation.ts";
import { anySource, rejectSize, type SealedSource } from "./source.ts";
import { checkVerifyOptions, type SealedVerification, type VerifyOptions, verifySegments } from "./verify.ts";

/** What opening a sealed file found out besides its segments. */
interface Found {
  /** The position of the key. */
  readonly keyIndex: number;
  /** Whether the last segment was verified as the last one. */
  readonly isSizeVerified: boolean;
  /** Whether there is nothing wrong with the header, the size and the end. */
  readonly isFrameIntact: boolean;
}

/** A sealed file that `openSealed()` opened for random access. Any number of reads may run at once. */
export class SealedReader extends RangeReader {
  /** The key that opened the file: its position in the list of the option `key`, or in the keyset. */
  readonly keyIndex: number;
  /**
   * Whether the end of the file, and with it `size`, is verified. False only with `allowDamage`: then someone may have
   * cut the file.
   */
  readonly isSizeVerified: boolean;
  readonly #segments: SegmentReader;
  readonly #isFrameIntact: boolean;

  /**
   * Use `openSealed()`.
   *
   * @ignore
   */
  constructor(token: symbol, reader: SegmentReader, { keyIndex, isSizeVerified, isFrameIntact }: Found) {
    super(token, reader);
    this.keyIndex = keyIndex;
    this.isSizeVerified = isSizeVerified;
    this.#segments = reader;
    this.#isFrameIntact = isFrameIntact;
  }

  /**
   * Reads the whole file and verifies each segment, to find the damaged ranges. If the end of the file may be damaged,
   * too, open it with `allowDamage`.
   *
   * @param options A signal, and a function that is called on progress.
   * @returns Whether the file is intact, and the ranges of the plaintext that are damaged.
   * @throws {TypeError} If an option is of a wrong type.
   * @throws {KcapiError} EBADF after {@linkcode close}; the errors of the source. Damage is not thrown.
   *
   * @example Usage
   * ```ts
   * import { openSealed, seal } from "@kcapi/streams";
   * import { assertEquals } from "@std/assert";
   *
   * const [key, format] = [crypto.getRandomValues(new Uint8Array(32)), "AES256_GCM_HKDF_4KB"] as const;
   * const sealed = await new Blob(await Array.fromAsync(seal({ key, format }, new Uint8Array(10_000)))).bytes();
   * sealed[5000]! ^= 1; // in the second segment
   * using file = await openSealed(new Blob([sealed]), { key, format, allowDamage: true });
   * const { isIntact, damaged } = await file.verify();
   * assertEquals(isIntact, false);
   * assertEquals(damaged, [{ start: 4040, end: 8120 }]);
   * assertEquals((await file.bytes(8120)).length, 1880);
   * ```
   */
  async verify(options: VerifyOptions = {}): Promise<SealedVerification> {
    const checked = checkVerifyOptions(options);
    const reader = this.#segments;
    reader.check();
    reader.begin();
    try {
      const damaged = await verifySegments(reader.context, this.size, checked);
      return { isIntact: this.#isFrameIntact && damaged.length === 0, damaged };
    } finally {
      reader.end();
    }
  }
}

/**
 * Opens a sealed file for random access.
 *
 * @param plans One for each key to try. Their keys are disposed of.
 * @param options How to read the source.
 */
export async function openReader(
  source: SealedSource,
  plans: readonly [SealPlan, ...SealPlan[]],
  options: CheckedReadOptions,
): Promise<SealedReader> {
  try {
    const any = anySource(source);
    const reader = new SegmentReader(any, plans[0].signals, options);
    try {
      const ends = await readEnds(reader, any.size, plans, options, (size) => rejectSize(source, size));
      return new SealedReader(CONSTRUCT, reader, await open(reader, ends, options));
    } catch (error) {
      reader.close(error);
      throw error;
    }
  } finally {
    for (const { key } of plans) key.dispose();
  }
}

/** A file of at most this many segments is read at once, if it is not larger than a read. */
const FEW_SEGMENTS = 4;

/** The result of the first round trip to the source. */
interface Ends {
  /** From the start of the file to the end of the header, or of the first segment if there are several keys. */
  readonly head: Bytes;
  /** From the start of the last segment to the end of the file, or more. */
  readonly tail: Bytes;
  /** The plans whose format has files of this size. */
  readonly plans: readonly SealPlan[];
}

/**
 * Reads the ends of a file.
 *
 * @param size Undefined if the source does not know it.
 * @param reject Throws because no sealed file has this size.
 */
async function readEnds(
  reader: SegmentReader,
  size: number | undefined,
  plans: readonly SealPlan[],
  { allowDamage, readSize }: CheckedReadOptions,
  reject: (size: number) => Promise<never>,
): Promise<Ends> {
  const measure = ({ format }: SealPlan, size: number) => {
    const layout = new SegmentLayout(format);
    const measured = layout.measureDamaged(size);
    if (!measured || !allowDamage && measured.end !== size) return undefined;
    return { segments: measured.segments, lastSize: size - layout.sealed.start(measured.segments - 1) };
  };
  const possibleOf = async (size: number) => {
    const possible = plans.filter((plan) => measure(plan, size));
    return possible.length > 0 ? possible : await reader.wait(reject(size));
  };
  const front = (plans: readonly SealPlan[]) => plans.length === 1 ? plans[0]!.format.headerSize : trialSize(plans);
  if (size === undefined) {
    const tail = Math.max(...plans.map(({ format }) => format.segmentSize + (allowDamage ? format.tagSize : 0)));
    const ends = await reader.readEnds(front(plans), tail);
    return { ...ends, plans: await possibleOf(reader.size) };
  }
  const possible = await possibleOf(size);
  const measured = possible.map((plan) => measure(plan, size)!);
  const isSmall = size <= readSize && measured.every(({ segments }) => segments <= FEW_SEGMENTS);
  const tail = Math.max(...measured.map(({ lastSize }) => lastSize));
  return { ...await reader.readEnds(isSmall ? size : Math.min(front(possible), size), tail), plans: possible };
}

/** Chooses the key, parses the header, and verifies the end. */
async function open(
  reader: SegmentReader,
  { head, tail, plans }: Ends,
  { allowDamage }: CheckedReadOptions,
): Promise<Found> {
  const { size } = reader;
  const plan = plans.length === 1
    ? plans[0]!
    : allowDamage
    ? await choosePlanOfDamaged(plans, head, reader)
    : await reader.wait(choosePlan(plans, head));
  const { format, index } = plan;
  const header = allowDamage
    ? parseDamagedHeader(format, head)
    : parseHeader(format, head.subarray(0, format.headerSize));
  const layout = new SegmentLayout(format);
  const { sealed: stored, plaintext } = layout;
  const { segments, plaintextSize, end } = layout.measureDamaged(size)!;
  reader.check();
  reader.open({ session: plan.engines.open("unseal", plan, header), stored, plaintext, segments, end, plaintextSize });
  const tailStart = size - tail.length;
  const segment = tail.subarray(stored.start(segments - 1) - tailStart, end - tailStart);
  const { opener, cache, reads } = reader.context;
  const running = opener.run(segments - 1, segment, true);
  const last = running instanceof Promise ? await reader.wait(running) : running;
  const isSizeVerified = last.error === undefined;
  if (!isSizeVerified && !allowDamage) throw last.error;
  cache.keep(segments - 1, last);
  const all = head.length === size ? head : tail.length === size ? tail : undefined;
  if (all && segments > 1) reads.adopt(segments, all.subarray(stored.start(0), end));
  const isFrameIntact = isSizeVerified && end === size && head[0] === format.headerSize;
  return { keyIndex: index, isSizeVerified, isFrameIntact };
}
