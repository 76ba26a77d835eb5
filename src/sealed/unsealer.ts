/**
 * Unsealing as a {@linkcode Transform}: a segment a step.
 *
 * @module
 */

import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, Scatter, viewOf } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { openEngine } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { doneBy } from "../streams/workforce.ts";
import { type Format, MOST_SEGMENTS, PREFIX_SIZE } from "./format.ts";
import { Held } from "./held.ts";
import type { SealPlan } from "./options.ts";
import { deriveKeys, type Header, openSegments, type Segments } from "./segments.ts";

/** An unsealing that is ready to be opened. */
export function prepareUnseal(plan: SealPlan): TransformFactory {
  const { key, signals, inPlace, pool } = plan;
  const prepared: TransformFactory = {
    signals,
    inPlace,
    open() {
      try {
        return new Unsealer(plan);
      } catch (error) {
        key.dispose();
        throw error;
      }
    },
    discard: () => key.dispose(),
  };
  const work: UnsealWork = { of: "unseal", plan };
  return doneBy(pool, prepared, work);
}

/** One unsealing as others can do it. */
export interface UnsealWork {
  readonly of: "unseal";
  readonly plan: SealPlan;
}

/** One error for all that can be wrong: telling the cases apart would help who forges them. */
export function badMessage(): KcapiError {
  return new KcapiError(
    "EBADMSG",
    "unseal",
    "what was sealed is damaged or cut, or the key or associated data is wrong",
  );
}

/** The engine that will run: which one has AES-CTR here is found out before there is a key for it. */
export function engineFor({ format, engine }: SealPlan): EngineName {
  if (format.cipher === "AES-GCM-HKDF") return "userspace";
  const trial = openEngine(parseAlgorithm("ctr(aes)"), Secret.alloc(format.keySize), engine);
  trial.close();
  return trial.name;
}

/** The header at the front of `bytes`; undefined where there is none. */
export function parseHeader({ headerSize, keySize }: Format, bytes: Bytes): Header | undefined {
  if (bytes[0] !== headerSize) return undefined;
  return { salt: bytes.slice(1, 1 + keySize), prefix: bytes.slice(1 + keySize, 1 + keySize + PREFIX_SIZE) };
}

/**
 * Unseals one stream. A whole segment is opened at once, as one that is not the last: its tag tells whether it is. If it is
 * not right as that, it is held: only at the end it may be right as the last.
 */
export class Unsealer implements Transform {
  readonly engine: EngineName;
  readonly #plan: SealPlan;
  readonly #held: Held;
  /** Undefined before the header has come. */
  #segments: Segments | undefined;
  #input: Scatter | undefined;
  #isEnding = false;
  #index: number;
  /** What is held is a whole segment, and not one that others follow. */
  #isLast = false;
  #isClosed = false;

  /** @param index Of the first segment: for tests of the last ones. */
  constructor(plan: SealPlan, index = 0) {
    this.#index = index;
    this.#plan = plan;
    this.#held = new Held(plan.format.segmentSize);
    this.engine = engineFor(plan);
  }

  get pending(): boolean {
    return this.#input !== undefined;
  }

  write(list: readonly Bytes[]): void {
    this.#input = new Scatter(list);
  }

  end(): void {
    this.#input = new Scatter([]);
    this.#isEnding = true;
  }

  read(): Bytes | undefined {
    const input = this.#input;
    if (!input) return undefined;
    try {
      input.verify();
      const output = this.#read(input);
      return output && output.length > 0 ? output : undefined;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#input = undefined;
    this.#held.wipe();
    this.#plan.key.dispose();
    this.#segments?.close();
  }

  #read(input: Scatter): Bytes | undefined {
    const segments = this.#segments ??= this.#readHeader(input);
    if (this.#isEnding) return this.#end(segments);
    if (!segments) return this.#wait(input);
    const { segmentSize, headerSize } = this.#plan.format;
    const size = this.#index === 0 ? segmentSize - headerSize : segmentSize;
    if (this.#held.length + input.remaining < size) return this.#wait(input);
    if (this.#isLast) {
      if (input.remaining > 0) throw badMessage();
      return this.#wait(input);
    }
    return this.#openWhole(segments, input, size);
  }

  /** All that has come is held until there is more. */
  #wait(input: Scatter): undefined {
    this.#held.take(input, input.remaining);
    this.#input = undefined;
  }

  #readHeader(input: Scatter): Segments | undefined {
    const { format, key, associatedData } = this.#plan;
    const held = this.#held;
    held.take(input, Math.min(input.remaining, format.headerSize - held.length));
    if (held.length < format.headerSize) return undefined;
    const header = parseHeader(format, held.bytes);
    held.clear();
    if (!header) throw badMessage();
    using _ = key;
    return openSegments(format, deriveKeys(format, key, header, associatedData), header, this.engine);
  }

  /** A segment in one piece: where a chunk has all of it, in the chunk's own memory. */
  #openWhole(segments: Segments, input: Scatter, size: number): Bytes | undefined {
    if (this.#index >= MOST_SEGMENTS) throw badMessage();
    const held = this.#held;
    const place = { index: this.#index, isLast: false };
    const [first] = held.length === 0 ? input.peek(size) : [];
    if (first?.length === size) {
      const whole = viewOf(first, 0, size);
      const { inPlace, format: { tagSize } } = this.#plan;
      const target = inPlace ? whole.subarray(0, size - tagSize) : undefined;
      const output = segments.open(whole, place, target);
      if (!output) return this.#holdLast(input, size);
      input.advance(size);
      return this.#opened(input, output);
    }
    held.take(input, size - held.length);
    const output = segments.open(held.bytes, place);
    if (!output) return this.#holdLast(input, 0);
    held.clear();
    return this.#opened(input, output);
  }

  #opened(input: Scatter, output: Bytes): Bytes {
    this.#index++;
    // What is left is held in the same step, so that no write waits for another.
    if (input.remaining < this.#plan.format.segmentSize) this.#wait(input);
    return output;
  }

  #holdLast(input: Scatter, length: number): undefined {
    this.#held.take(input, length);
    this.#isLast = true;
    if (input.remaining > 0) throw badMessage();
    this.#input = undefined;
  }

  #end(segments: Segments | undefined): Bytes {
    this.#input = undefined;
    const { format: { tagSize } } = this.#plan;
    const last = this.#held.bytes;
    const place = { index: this.#index, isLast: true };
    const isOne = last.length >= tagSize && this.#index < MOST_SEGMENTS;
    const output = isOne ? segments?.open(last, place) : undefined;
    if (!output) throw badMessage();
    this.close();
    return output;
  }
}
