/**
 * Sealing as a {@linkcode Transform}: a segment a step.
 *
 * @module
 */

import { type Bytes, Scatter } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { doneBy } from "../streams/workforce.ts";
import { type Format, MOST_SEGMENTS, PREFIX_SIZE } from "./format.ts";
import { Held } from "./held.ts";
import type { SealPlan } from "./options.ts";
import { deriveKeys, type Header, openSegments, type Place, type Segments } from "./segments.ts";

/**
 * A sealing that is ready to be opened.
 *
 * @param header Of a stream that is known already: for tests, as nobody else may choose a salt.
 */
export function prepareSeal(plan: SealPlan, header?: Header): TransformFactory {
  const { key, signals, inPlace, pool } = plan;
  const ownHeader = header ?? randomHeader(plan.format);
  const prepared: TransformFactory = {
    signals,
    inPlace,
    open() {
      using _ = key;
      return new Sealer(plan, ownHeader);
    },
    discard: () => key.dispose(),
  };
  const work: SealWork = { of: "seal", plan, header: ownHeader };
  return doneBy(pool, prepared, work);
}

/** One sealing as others can do it. */
export interface SealWork {
  readonly of: "seal";
  readonly plan: SealPlan;
  readonly header: Header;
}

function randomHeader({ keySize }: Format): Header {
  return {
    salt: crypto.getRandomValues(new Uint8Array(keySize)),
    prefix: crypto.getRandomValues(new Uint8Array(PREFIX_SIZE)),
  };
}

/** The header as it stands in front. */
export function headerBytes({ headerSize }: Format, { salt, prefix }: Header): Bytes {
  return Uint8Array.of(headerSize, ...salt, ...prefix);
}

/** No number is used twice. */
export function overflow(): KcapiError {
  return new KcapiError("EOVERFLOW", "seal", `a sealed stream ends here, after ${MOST_SEGMENTS} segments`, {
    hint: "take a format with larger segments",
  });
}

/**
 * Seals one stream. A segment is not begun before it is known whether it is the last, for its nonce tells: so a whole one
 * is held until a byte more has come, or the end.
 */
export class Sealer implements Transform {
  readonly engine: EngineName;
  readonly #format: Format;
  readonly #segments: Segments;
  /** Plaintext of a whole segment. */
  readonly #stride: number;
  readonly #held: Held;
  /** What stands in front of the first segment. */
  #header: Bytes;
  #input: Scatter | undefined;
  #isEnding = false;
  #index: number;
  #isClosed = false;

  /** @param index Of the first segment: for tests of the last ones. */
  constructor({ format, key, associatedData, engine }: SealPlan, header: Header, index = 0) {
    this.#index = index;
    this.#format = format;
    this.#segments = openSegments(format, deriveKeys(format, key, header, associatedData), header, engine);
    this.#header = headerBytes(format, header);
    this.#stride = format.segmentSize - format.tagSize;
    this.#held = new Held(this.#stride);
    this.engine = this.#segments.engine;
  }

  get pending(): boolean {
    return this.#input !== undefined;
  }

  pass(bytes: Bytes): Bytes | undefined {
    const rest = this.#held.length + bytes.length - this.#room;
    if (rest <= 0 || rest > this.#stride) return undefined;
    this.write([bytes]);
    return this.read();
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
      if (this.#isEnding) return this.#sealLast(input);
      const output = this.#isMore(input) ? this.#seal(input, this.#room, false) : undefined;
      // What is left is held in the same step, so that no write waits for another.
      if (!this.#isMore(input)) this.#hold(input);
      return output;
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
    this.#segments.close();
  }

  /** How much of the plaintext the next segment takes. */
  get #room(): number {
    return this.#stride - this.#header.length;
  }

  #isMore(input: Scatter): boolean {
    return this.#held.length + input.remaining > this.#room;
  }

  #hold(input: Scatter): void {
    this.#held.take(input, input.remaining);
    this.#input = undefined;
  }

  #sealLast(input: Scatter): Bytes {
    this.#input = undefined;
    const output = this.#seal(input, this.#held.length, true);
    this.close();
    return output;
  }

  /** Seals what is held and `input` up to `length` bytes. */
  #seal(input: Scatter, length: number, isLast: boolean): Bytes {
    if (this.#index === MOST_SEGMENTS) throw overflow();
    const held = this.#held;
    const rest = length - held.length;
    const list = held.length > 0 ? [held.bytes, ...input.peek(rest)] : input.peek(rest);
    const place = { index: this.#index++, isLast };
    const output = this.#header.length > 0 ? this.#sealFirst(list, length, place) : this.#segments.seal(list, place);
    input.advance(rest);
    held.clear();
    return output;
  }

  /** With the header in front. */
  #sealFirst(list: readonly Bytes[], length: number, place: Place): Bytes {
    const header = this.#header;
    const output = new Uint8Array(header.length + length + this.#format.tagSize);
    output.set(header);
    this.#segments.seal(list, place, output.subarray(header.length));
    this.#header = NO_HEADER;
    return output;
  }
}

const NO_HEADER: Bytes = new Uint8Array(0);
