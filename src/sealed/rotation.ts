/**
 * Key rotation: finds the key that opens a stream. Each key is tried on the first segment.
 *
 * @module
 */

import { ByteQueue } from "../byte_queue.ts";
import { type Bytes, IovCursor } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { createBadMessageError, parseDamagedHeader, parseHeader, SegmentLayout } from "./format.ts";
import type { SealPlan } from "./options.ts";
import type { SegmentReader } from "./range_reader.ts";
import { unsealFactory } from "./rules.ts";

/** A stream that unseals with the first of several keys that fits. */
export function rotatingFactory(plans: readonly SealPlan[]): TransformFactory {
  const [first] = plans as [SealPlan];
  if (plans.length === 1) return unsealFactory(first);
  return {
    signals: first.signals,
    inPlace: first.inPlace,
    open: () => new RotatingUnsealer(plans),
    discard: () => dispose(plans),
  };
}

/** The bytes at the front of a stream that determine the key: the first segment, and one byte more. */
export function trialSize(plans: readonly SealPlan[]): number {
  return Math.max(...plans.map(({ format }) => new SegmentLayout(format).sealed.start(1))) + 1;
}

/**
 * Finds the plan whose key opens the first segment, at the cost of one derivation for each key. The other keys are
 * disposed of.
 *
 * @param start The first {@linkcode trialSize} bytes of the stream, or all of it.
 * @throws {KcapiError} EBADMSG if none fits.
 */
export async function choosePlan(plans: readonly SealPlan[], start: Bytes): Promise<SealPlan> {
  for (const plan of plans) {
    if (!await opensFirstSegment(plan, start)) continue;
    dispose(plans.filter((other) => other !== plan));
    return plan;
  }
  dispose(plans);
  throw createBadMessageError();
}

async function opensFirstSegment(plan: SealPlan, start: Bytes): Promise<boolean> {
  const { headerSize, tagSize } = plan.format;
  const end = new SegmentLayout(plan.format).sealed.start(1);
  const segment = start.slice(headerSize, end);
  if (segment.length < tagSize || start[0] !== headerSize) return false;
  const header = parseHeader(plan.format, start.subarray(0, headerSize));
  const session = plan.engines.open("unseal", { ...plan, key: plan.key.clone(), executor: undefined }, header);
  try {
    const { outputs, error } = await session.run([segment], { index: 0, isLast: start.length <= end }, false);
    for (const output of outputs) output.fill(0);
    if (error !== undefined && !(error instanceof KcapiError && error.code === "EBADMSG")) throw error;
    // If the stream was truncated after its first segment, that segment is authentic, and is returned with the error.
    return error === undefined || outputs.length > 0;
  } finally {
    session.close();
  }
}

/**
 * Finds the plan whose key opens any segment of a file that may be damaged. The other keys are disposed of.
 *
 * @param head The bytes of the file's header, at least.
 * @param reader Reads the file.
 * @throws {KcapiError} EBADMSG if none fits.
 */
export async function choosePlanOfDamaged(
  plans: readonly SealPlan[],
  head: Bytes,
  reader: SegmentReader,
): Promise<SealPlan> {
  const trials = plans.map((plan) => {
    const layout = new SegmentLayout(plan.format);
    const copy = { ...plan, key: plan.key.clone(), executor: undefined };
    const session = plan.engines.open("unseal", copy, parseDamagedHeader(plan.format, head));
    return { plan, layout, session, ...layout.measureDamaged(reader.size)! };
  });
  try {
    for (let index = 0; index < Math.max(...trials.map(({ segments }) => segments)); index++) {
      for (const { plan, layout, session, segments, end } of trials) {
        if (index >= segments) continue;
        const segment = await reader.read(layout.sealed.start(index), Math.min(layout.sealed.start(index + 1), end));
        const { outputs, error } = await session.run([segment], { index, isLast: true }, false);
        for (const output of outputs) output.fill(0);
        if (error !== undefined && outputs.length === 0) continue;
        dispose(plans.filter((other) => other !== plan));
        return plan;
      }
    }
  } finally {
    for (const { session } of trials) session.close();
  }
  dispose(plans);
  throw createBadMessageError();
}

function dispose(plans: readonly SealPlan[]): void {
  for (const { key } of plans) key.dispose();
}

/** Collects the front of a stream, chooses the key, and passes all input to the stream of that key. */
class RotatingUnsealer implements Transform {
  readonly engine: EngineName;
  readonly #plans: readonly SealPlan[];
  readonly #size: number;
  readonly #front: ByteQueue;
  #input: IovCursor | undefined;
  #isEnding = false;
  /** Settles when the keys were tried. Then there is an inner stream, or an error. */
  #trial: Promise<void> | undefined;
  #inner: Transform | undefined;
  #failure: { readonly error: unknown } | undefined;
  #isClosed = false;

  constructor(plans: readonly SealPlan[]) {
    this.#plans = plans;
    this.#size = trialSize(plans);
    this.#front = new ByteQueue(this.#size);
    this.engine = plans[0]!.engines.engineFor(plans[0]!);
  }

  get pending(): boolean {
    if (this.#isClosed) return false;
    return this.#input !== undefined || this.#isEnding || this.#trial !== undefined || this.#failure !== undefined ||
      (this.#inner?.pending ?? false);
  }

  get progress(): Promise<void> | undefined {
    return this.#inner ? this.#inner.progress : this.#trial;
  }

  write(list: readonly Bytes[]): void {
    if (this.#inner) this.#inner.write(list);
    else this.#input = new IovCursor(list);
  }

  end(): void {
    if (this.#inner) this.#inner.end();
    else this.#isEnding = true;
  }

  read(): Bytes | undefined {
    try {
      if (this.#failure) throw this.#failure.error;
      if (!this.#inner && !this.#trial) this.#collect();
      return this.#inner ? this.#readInner(this.#inner) : undefined;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#input = undefined;
    this.#front.wipe();
    dispose(this.#plans);
    this.#inner?.close();
  }

  #collect(): void {
    const input = this.#input;
    if (input) {
      input.verify();
      const length = Math.min(input.remaining, this.#size - this.#front.length);
      this.#front.add(input, length);
      if (input.remaining === 0) this.#input = undefined;
    }
    if (this.#front.length < this.#size && !this.#isEnding) return;
    const [start = new Uint8Array(0)] = this.#front.take(this.#front.length);
    this.#trial = this.#choose(start);
  }

  async #choose(start: Bytes): Promise<void> {
    try {
      const plan = await choosePlan(this.#plans, start);
      if (this.#isClosed) return;
      this.#inner = unsealFactory(plan).open();
      this.#inner.write([start]);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#trial = undefined;
    }
  }

  /** The front comes first, then the input that waited, then the end. */
  #readInner(inner: Transform): Bytes | undefined {
    for (;;) {
      if (inner.pending) {
        const output = inner.read();
        if (output || inner.pending) return output;
      } else if (this.#input) {
        const input = this.#input;
        this.#input = undefined;
        inner.write(input.peek(input.remaining));
      } else if (this.#isEnding) {
        this.#isEnding = false;
        inner.end();
      } else {
        return undefined;
      }
    }
  }
}
