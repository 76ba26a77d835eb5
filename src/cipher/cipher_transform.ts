/**
 * One encryption or decryption, in outputs of at most a window: padding, sectors and output in place.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import { type Bytes, IovCursor } from "../bytes.ts";
import type { CipherEngineName, Direction, Engine } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Sectors } from "../position.ts";
import { EngineStream } from "./engine_stream.ts";
import type { Transform } from "../streams/transform.ts";
import { checkIV, type Padding } from "./options.ts";
import { pad, unpad } from "./padding.ts";

/** The most sectors of one output. A window of the smallest sectors would block the thread for tens of milliseconds. */
const MAX_SECTORS = 64;

/** The checked options of one encryption or decryption. */
export interface CipherPlan {
  readonly direction: Direction;
  readonly algorithm: Algorithm;
  readonly iv: Bytes | undefined;
  readonly padding: Padding;
  readonly sectors: Sectors | undefined;
  readonly inPlace: boolean;
  /** The bytes of the keystream in front of the stream. */
  readonly position?: number | undefined;
}

interface TransformPlan extends CipherPlan {
  readonly open: () => Engine;
}

/** One encryption or decryption: `write`, `read` until nothing is pending, repeat; then `end`, and `read` again. */
export class CipherTransform implements Transform {
  readonly engine: CipherEngineName;
  readonly #plan: TransformPlan;
  readonly #stream: EngineStream;
  readonly #blockSize: number;
  readonly #reserve: 0 | 1;
  #input: IovCursor | undefined;
  #last = false;
  /** The outputs of the last round, and the index of the next one. */
  #outputs: readonly Bytes[] = [];
  #nextOutput = 0;
  #closed = false;

  constructor(plan: TransformPlan) {
    const { algorithm, direction, iv, padding, sectors, position } = plan;
    const engine = plan.open();
    this.engine = engine.name;
    this.#plan = plan;
    this.#stream = new EngineStream(engine, algorithm);
    this.#blockSize = algorithm.blockSize ?? engine.blockSize;
    this.#reserve = padding === "pkcs7" && direction === "decrypt" ? 1 : 0;
    try {
      const checkedIV = sectors ? null : checkIV(algorithm, iv, engine.ivSize, "stream_init");
      this.#stream.start({ direction, iv: checkedIV, reserve: this.#reserve, sectors, position });
      if (sectors && sectors.sectorSize > engine.window) {
        throw new RangeError(`"sectorSize" expected at most ${engine.window} bytes, got ${sectors.sectorSize}`);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether {@linkcode read} has more output, or input that it has not processed. */
  get pending(): boolean {
    return this.#input !== undefined || this.#nextOutput < this.#outputs.length;
  }

  /**
   * The output of `bytes`: a shortcut for {@linkcode write} and {@linkcode read}. Only if nothing is
   * {@linkcode pending}.
   *
   * @returns Undefined, without any effect, if the shortcut does not apply.
   */
  pass(bytes: Bytes): Bytes | undefined {
    try {
      return this.#stream.pass(bytes, this.#plan.inPlace);
    } catch (error) {
      throw this.#closeWith(error);
    }
  }

  /** Takes input. Only if nothing is {@linkcode pending}. The memory is in use until nothing is pending again. */
  write(list: readonly Bytes[]): void {
    this.#input = new IovCursor(list);
  }

  /**
   * Ends the input.
   *
   * @throws {RangeError} If the input of an encryption ends with a partial block.
   * @throws {KcapiError} EBADMSG if the input of a decryption does.
   */
  end(): void {
    const { direction, padding, sectors } = this.#plan;
    const tail = this.#stream.tailLength;
    const rest = tail % this.#blockSize;
    const isPadded = padding === "pkcs7";
    if (sectors) this.#checkLastSector(tail);
    else if (direction === "encrypt" && !isPadded && this.#needsBlocks && rest > 0) {
      throw this.#closeWith(
        new RangeError(`The input expected whole blocks of ${this.#blockSize} bytes, got ${rest} bytes too many`),
      );
    } else if (direction === "decrypt" && (isPadded && tail === 0 || this.#needsBlocks && rest > 0)) {
      throw this.#closeWith(createBadMessageError());
    }
    this.#input = new IovCursor(isPadded && direction === "encrypt" ? [pad(this.#blockSize, rest)] : []);
    this.#last = true;
  }

  /**
   * The next output, of at most a window.
   *
   * @returns Undefined if more input is needed, and after the end.
   */
  read(): Bytes | undefined {
    if (this.#nextOutput < this.#outputs.length) return this.#outputs[this.#nextOutput++];
    if (!this.#input) return undefined;
    try {
      this.#input.verify();
      const { inPlace, sectors } = this.#plan;
      const isInPlace = inPlace && !this.#stream.isMessage && !this.#stream.isSkipping;
      const output = sectors || isInPlace ? this.#readIntoBuffers() : this.#readNew();
      if (this.#stream.done) this.close();
      return output;
    } catch (error) {
      throw this.#closeWith(this.#last && this.#isLengthError(error) ? createBadMessageError() : error);
    }
  }

  /** Closes the engine. Closing again does nothing. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#stream.close();
  }

  get #needsBlocks(): boolean {
    return this.#plan.algorithm.kind === "stream" && this.#blockSize > 1;
  }

  #checkLastSector(tail: number): void {
    const { algorithm: { shortestSector, name }, direction, sectors } = this.#plan;
    if (tail === 0 || (shortestSector > 0 && tail >= shortestSector)) return;
    if (direction === "decrypt") throw this.#closeWith(createBadMessageError());
    const expected = shortestSector > 0 ? `at least ${shortestSector}` : sectors!.sectorSize;
    throw this.#closeWith(new RangeError(`The last sector expected ${expected} bytes for ${name}, got ${tail}`));
  }

  /** Whether the engine refused a ciphertext because of its length. */
  #isLengthError(error: unknown): boolean {
    return this.#plan.direction === "decrypt" && error instanceof KcapiError && error.code === "EINVAL";
  }

  #closeWith(error: unknown): unknown {
    this.close();
    return error;
  }

  #readNew(): Bytes | undefined {
    const stream = this.#stream;
    if (stream.send(this.#input!, this.#last)) this.#input = undefined;
    const length = stream.ready;
    return length > 0 ? this.#removePadding(stream.take(length)) : undefined;
  }

  /** Output in place, or in one buffer for many sectors. */
  #readIntoBuffers(): Bytes | undefined {
    const stream = this.#stream;
    const input = this.#input!;
    const length = this.#roundLength(input);
    const outputs = length === 0 ? [] : this.#outputBuffers(length, input);
    if (stream.send(input, this.#last)) this.#input = undefined;
    if (stream.ready === length) {
      if (length > 0) stream.receive(outputs);
    } else {
      this.#receiveRounds(outputs, input);
    }
    this.#outputs = outputs;
    this.#nextOutput = 1;
    return outputs[0] && this.#removePadding(outputs[0]);
  }

  /** Fills one output from several rounds, one for each sector. */
  #receiveRounds(outputs: readonly Bytes[], input: IovCursor): void {
    const stream = this.#stream;
    const memory = new IovCursor(outputs);
    for (;;) {
      const { ready } = stream;
      stream.receive(memory.peek(ready));
      memory.advance(ready);
      if (memory.remaining === 0) return;
      if (stream.send(input, this.#last)) this.#input = undefined;
    }
  }

  #roundLength(input: IovCursor): number {
    const { unit, window, tailLength, roundRoom } = this.#stream;
    const most = this.#plan.sectors ? Math.min(MAX_SECTORS * unit, window) : Math.min(window, roundRoom);
    const total = tailLength + input.remaining;
    if (this.#last && total <= most) return total;
    const length = Math.min(total - (this.#last ? 0 : this.#reserve), most);
    return length > 0 ? length - length % unit : 0;
  }

  /**
   * In place, each output byte replaces its input byte. The unit that begins with the tail gets a new buffer in front,
   * so that output never overwrites input that was not read.
   */
  #outputBuffers(length: number, input: IovCursor): readonly Bytes[] {
    if (!this.#plan.inPlace) return [new Uint8Array(length)];
    const { unit, tailLength } = this.#stream;
    if (tailLength === 0) return input.peek(length);
    const first = new Uint8Array(Math.min(unit, length));
    return [first, ...input.peek(length - first.length, first.length - tailLength)];
  }

  #removePadding(output: Bytes): Bytes | undefined {
    if (this.#reserve === 0 || !this.#stream.done) return output;
    const length = unpad(output, this.#blockSize);
    if (length === undefined) throw createBadMessageError();
    return length > 0 ? output.subarray(0, length) : undefined;
  }
}

/** The same error for each defect of a ciphertext, because different errors would help an attacker. */
export function createBadMessageError(): KcapiError {
  return new KcapiError("EBADMSG", "decrypt", "the ciphertext is damaged, or the key or the IV is wrong");
}
