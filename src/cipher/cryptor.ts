/**
 * One whole encryption or decryption in memory-sized steps: padding, sectors and buffers in place over a flow.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import { type Bytes, Scatter } from "../bytes.ts";
import type { Direction, Engine, EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Sectors } from "../position.ts";
import { Flow } from "./flow.ts";
import type { Transform } from "../streams/transform.ts";
import { checkIV, type Padding } from "./options.ts";
import { pad, unpad } from "./padding.ts";

/** The most sectors of one output. A window of the smallest ones would take the thread for tens of milliseconds. */
const ROUNDS_AT_ONCE = 64;

/** The checked options of one encryption or decryption. */
export interface CipherPlan {
  readonly direction: Direction;
  readonly algorithm: Algorithm;
  readonly iv: Bytes | undefined;
  readonly padding: Padding;
  readonly sectors: Sectors | undefined;
  readonly inPlace: boolean;
}

interface Plan extends CipherPlan {
  readonly open: () => Engine;
}

/** One encryption or decryption: `write` input, `read` until there is nothing, …, `end`, `read` until there is nothing. */
export class Cryptor implements Transform {
  readonly engine: EngineName;
  readonly #plan: Plan;
  readonly #flow: Flow;
  readonly #blockSize: number;
  readonly #hold: 0 | 1;
  #input: Scatter | undefined;
  #last = false;
  /** Outputs of the last round, and which of them comes next. */
  #outputs: readonly Bytes[] = [];
  #nextOutput = 0;
  #closed = false;

  constructor(plan: Plan) {
    const { algorithm, direction, iv, padding, sectors } = plan;
    const engine = plan.open();
    this.engine = engine.name;
    this.#plan = plan;
    this.#flow = new Flow(engine, algorithm);
    this.#blockSize = algorithm.blockSize ?? engine.blockSize;
    this.#hold = padding === "pkcs7" && direction === "decrypt" ? 1 : 0;
    try {
      const checkedIV = sectors ? null : checkIV(algorithm, iv, engine.ivSize, "stream_init");
      this.#flow.start({ direction, iv: checkedIV, hold: this.#hold, sectors });
      if (sectors && sectors.sectorSize > engine.window) {
        throw new RangeError(`"sectorSize" expected at most ${engine.window} bytes, got ${sectors.sectorSize}`);
      }
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** Whether {@linkcode read} has more to give, or more input to take. */
  get pending(): boolean {
    return this.#input !== undefined || this.#nextOutput < this.#outputs.length;
  }

  /**
   * The output of `bytes`, for the most frequent case: only when nothing is {@linkcode pending}.
   *
   * @returns Undefined, and nothing is done, where it takes {@linkcode write} and {@linkcode read}.
   */
  pass(bytes: Bytes): Bytes | undefined {
    try {
      return this.#flow.pass(bytes, this.#plan.inPlace);
    } catch (error) {
      throw this.#closeWith(error);
    }
  }

  /** Hands over input; only when nothing is {@linkcode pending}. The memory is in use until that is so again. */
  write(list: readonly Bytes[]): void {
    this.#input = new Scatter(list);
  }

  /**
   * Hands over the end.
   *
   * @throws {RangeError} If an encryption is left with a partial block.
   * @throws {KcapiError} EBADMSG if a decryption is.
   */
  end(): void {
    const { direction, padding, sectors } = this.#plan;
    const tail = this.#flow.tailLength;
    const rest = tail % this.#blockSize;
    const isPadded = padding === "pkcs7";
    if (sectors) this.#checkLastSector(tail);
    else if (direction === "encrypt" && !isPadded && this.#needsBlocks && rest > 0) {
      throw this.#closeWith(
        new RangeError(`The input expected whole blocks of ${this.#blockSize} bytes, got ${rest} bytes too many`),
      );
    } else if (direction === "decrypt" && (isPadded && tail === 0 || this.#needsBlocks && rest > 0)) {
      throw this.#closeWith(badMessage());
    }
    this.#input = new Scatter(isPadded && direction === "encrypt" ? [pad(this.#blockSize, rest)] : []);
    this.#last = true;
  }

  /**
   * The next output, of at most a window.
   *
   * @returns Undefined where more input is needed, or after the end.
   */
  read(): Bytes | undefined {
    if (this.#nextOutput < this.#outputs.length) return this.#outputs[this.#nextOutput++];
    if (!this.#input) return undefined;
    try {
      this.#input.verify();
      const { inPlace, sectors } = this.#plan;
      const output = sectors || inPlace && !this.#flow.isMessage ? this.#readLists() : this.#readFresh();
      if (this.#flow.done) this.close();
      return output;
    } catch (error) {
      throw this.#closeWith(this.#last && this.#isRefusal(error) ? badMessage() : error);
    }
  }

  /** Releases the engine, now. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#flow.close();
  }

  get #needsBlocks(): boolean {
    return this.#plan.algorithm.kind === "stream" && this.#blockSize > 1;
  }

  #checkLastSector(tail: number): void {
    const { algorithm: { shortestSector, name }, direction } = this.#plan;
    if (tail === 0 || (shortestSector > 0 && tail >= shortestSector)) return;
    if (direction === "decrypt") throw this.#closeWith(badMessage());
    const least = shortestSector > 0 ? `at least ${shortestSector} bytes` : "no less";
    throw this.#closeWith(new RangeError(`The last sector expected ${least} for ${name}, got ${tail} bytes`));
  }

  /** The engine refuses a ciphertext of a length it cannot have. */
  #isRefusal(error: unknown): boolean {
    return this.#plan.direction === "decrypt" && error instanceof KcapiError && error.code === "EINVAL";
  }

  #closeWith(error: unknown): unknown {
    this.close();
    return error;
  }

  #readFresh(): Bytes | undefined {
    const flow = this.#flow;
    if (flow.send(this.#input!, this.#last)) this.#input = undefined;
    const length = flow.ready;
    return length > 0 ? this.#unpadded(flow.take(length)) : undefined;
  }

  /** Output into memory of our choice: in place, or one buffer for many sectors. */
  #readLists(): Bytes | undefined {
    const flow = this.#flow;
    const input = this.#input!;
    const length = this.#roundLength(input);
    const outputs = length === 0 ? [] : this.#outputMemory(length, input);
    if (flow.send(input, this.#last)) this.#input = undefined;
    if (flow.ready === length) {
      if (length > 0) flow.receive(outputs);
    } else {
      this.#receiveRounds(outputs, input);
    }
    this.#outputs = outputs;
    this.#nextOutput = 1;
    return outputs[0] && this.#unpadded(outputs[0]);
  }

  /** Sectors: several rounds fill one output. */
  #receiveRounds(outputs: readonly Bytes[], input: Scatter): void {
    const flow = this.#flow;
    const memory = new Scatter(outputs);
    for (;;) {
      const { ready } = flow;
      flow.receive(memory.peek(ready));
      memory.advance(ready);
      if (memory.remaining === 0) return;
      if (flow.send(input, this.#last)) this.#input = undefined;
    }
  }

  #roundLength(input: Scatter): number {
    const { unit, window, tailLength } = this.#flow;
    const most = this.#plan.sectors ? Math.min(ROUNDS_AT_ONCE * unit, window) : window;
    const total = tailLength + input.remaining;
    if (this.#last && total <= most) return total;
    const length = Math.min(total - (this.#last ? 0 : this.#hold), most);
    return length > 0 ? length - length % unit : 0;
  }

  /**
   * In place, each output byte goes where its input byte was. The unit that completes the tail has no such place: it
   * gets a buffer of its own, in front, so that no output ever passes input that was not read.
   */
  #outputMemory(length: number, input: Scatter): readonly Bytes[] {
    if (!this.#plan.inPlace) return [new Uint8Array(length)];
    const { unit, tailLength } = this.#flow;
    if (tailLength === 0) return input.peek(length);
    const first = new Uint8Array(Math.min(unit, length));
    return [first, ...input.peek(length - first.length, first.length - tailLength)];
  }

  #unpadded(output: Bytes): Bytes | undefined {
    if (this.#hold === 0 || !this.#flow.done) return output;
    const length = unpad(output, this.#blockSize);
    if (length === undefined) throw badMessage();
    return length > 0 ? output.subarray(0, length) : undefined;
  }
}

/** One error for all that can be wrong with a ciphertext: telling the cases apart would help who forges them. */
export function badMessage(): KcapiError {
  return new KcapiError("EBADMSG", "decrypt", "the ciphertext is damaged, or the key or the IV is wrong");
}
