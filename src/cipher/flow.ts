/**
 * Flow control: one stream over one engine, in calls that never sleep.
 *
 * The rules of the kernel hold here by construction, for every user of the engines:
 *
 * - F1 Only bytes that are there are asked for: {@linkcode Flow.ready} counts them.
 * - F2 Only bytes that fit are sent: {@linkcode Engine.capacity} counts the room.
 * - F3 Only whole chunks are sent before the end; what is left of one is the tail, kept here.
 * - F5 What does not carry on from one op to the next is cut into rounds: an init, its bytes, and one op for all.
 *
 * (F4 and F6 are the kernel engine's, F7 is that every call is synchronous.)
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import type { Direction, Engine } from "../engines/engine.ts";
import { type Bytes, type Scatter, scatter, sizeOf } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { checkCounter, ivAt, ivOfSector, sectorAt, type Sectors } from "../position.ts";

/** How a stream is laid out; all fields but `direction` and `iv` are for the streams of `cryptor.ts`. */
export interface StreamLayout {
  readonly direction: Direction;
  /** `ivSize` bytes; null where there is none, and with sectors. */
  readonly iv: Bytes | null;
  /** Makes the IV of each sector its number. */
  readonly sectors?: Sectors | undefined;
  /** Hold back at least so many bytes until the end: 1 for the block of PKCS#7. */
  readonly hold?: 0 | 1 | undefined;
}

/** One stream at a time over one engine. */
export class Flow {
  readonly engine: Engine;
  readonly algorithm: Algorithm;
  /** Input goes to the engine in multiples of this, but for the end. */
  unit: number;
  #layout: StreamLayout | undefined;
  #tail: Bytes = new Uint8Array(0);
  #tailLength = 0;
  /** Bytes in the engine, not yet received. */
  #queued = 0;
  /** Output of a round that its receiver had no room for, and how much of it is gone. */
  #held: Bytes | undefined;
  #heldOffset = 0;
  /** Rounds: bytes (sectors: sectors) of the rounds that are over, and whether one is begun. */
  #position = 0;
  #roundOpen = false;
  #ended = false;

  constructor(engine: Engine, algorithm: Algorithm) {
    this.engine = engine;
    this.algorithm = algorithm;
    this.unit = algorithm.chunkSize;
  }

  /** Whether a stream has been started and not everything of it been received. */
  get busy(): boolean {
    return this.#layout !== undefined && !this.done;
  }

  /** Whether a stream has been started. */
  get started(): boolean {
    return this.#layout !== undefined;
  }

  /** Whether everything has been sent and received. */
  get done(): boolean {
    return this.#ended && this.#queued === 0 && this.#held === undefined;
  }

  /** Input bytes kept back here. */
  get tailLength(): number {
    return this.#tailLength;
  }

  /** The most bytes that are ever in the engine: whole units of its window. */
  get window(): number {
    return wholeUnits(this.engine.window, this.unit);
  }

  /** Bytes that can be received now (rule F1). */
  get ready(): number {
    return this.#heldLength + this.#queued;
  }

  /**
   * Starts a stream, and its first round, which settles the engine's window. The caller has checked that none is in
   * progress.
   */
  start(layout: StreamLayout): void {
    this.#layout = layout;
    this.unit = layout.sectors?.sectorSize ?? this.algorithm.chunkSize;
    this.#tailLength = 0;
    this.#position = 0;
    this.#ended = false;
    this.#openRound();
  }

  /**
   * Sends what fits of `input`, and keeps what is left of a unit.
   *
   * @returns Whether all of `input` was taken, and with `last` the stream ended.
   * @throws {KcapiError} EMSGSIZE where a message is too long for one op, EOVERFLOW at the end of a counter; both
   * before any byte of `input` is sent.
   */
  send(input: Scatter, last: boolean): boolean {
    const hold = last ? 0 : this.#layout!.hold ?? 0;
    for (;;) {
      const total = this.#tailLength + input.remaining;
      const room = this.#room(total, last);
      if (last && total <= room) {
        this.#deliver(total, input, true);
        this.#ended = true;
        return true;
      }
      const length = wholeUnits(Math.min(total - hold, room), this.unit);
      if (length <= 0) break;
      this.#deliver(length, input, false);
    }
    if (last || (!this.isMessage && this.#tailLength + input.remaining >= this.unit + hold)) return false;
    this.#keep(input);
    return true;
  }

  /**
   * Sends `bytes` and receives their output: what `send` and `take` would do, for the most frequent case.
   *
   * @returns Undefined, and nothing is done, unless they are whole units that carry on, with nothing in front of them.
   */
  pass(bytes: Bytes, inPlace: boolean): Bytes | undefined {
    const { length } = bytes;
    const isUsual = this.#tailLength === 0 && this.#queued === 0 && length % this.unit === 0 && length > 0 &&
      length <= this.engine.window && this.algorithm.kind === "stream" && this.#layout!.hold !== 1;
    return isUsual ? this.engine.pass(bytes, inPlace) : undefined;
  }

  /**
   * How many bytes a gather list of `room` bytes receives now: whole chunks, but for the stream's last ones.
   */
  fit(room: number): number {
    const length = Math.min(room, this.ready);
    const isRest = this.#ended && length === this.ready;
    return isRest ? length : wholeUnits(length, this.algorithm.chunkSize);
  }

  /** Receives bytes into all of `list`, whose size is one that {@linkcode fit} gave. */
  receive(list: readonly Bytes[]): void {
    const length = sizeOf(list);
    if (this.#mayOp(length)) {
      this.engine.op(list);
      this.#received(length);
    } else {
      scatter(this.#fromHeld(length), list);
    }
  }

  /** Receives `length` bytes, one that {@linkcode fit} gave, into new memory. */
  take(length: number): Bytes {
    if (!this.#mayOp(length)) return this.#fromHeld(length).slice();
    const bytes = this.engine.take(length);
    this.#received(length);
    return bytes;
  }

  /** Ends the use of the engine. */
  close(): void {
    this.#tail.fill(0);
    this.engine.close();
  }

  /** Whether the stream is one op: nothing is ready before its end. */
  get isMessage(): boolean {
    const { kind } = this.algorithm;
    return kind === "message" || (kind === "sector" && this.#layout!.sectors === undefined);
  }

  /** How many bytes may be sent now, of `total` at hand (rules F2 and F5). */
  #room(total: number, last: boolean): number {
    const { engine } = this;
    if (this.algorithm.kind === "stream") return engine.capacity(this.#queued);
    if (this.isMessage) {
      if (total > engine.window) throw this.#tooLong();
      return last ? total : 0;
    }
    if (this.algorithm.kind === "counter") return engine.capacity(this.ready);
    return this.ready > 0 ? 0 : this.unit;
  }

  #deliver(length: number, input: Scatter, last: boolean): void {
    const { kind } = this.algorithm;
    const fromInput = length - this.#tailLength;
    const rest = input.peek(fromInput);
    const list = this.#tailLength > 0 ? [this.#tail.subarray(0, this.#tailLength), ...rest] : rest;
    if (kind === "stream") {
      this.engine.update(list, last);
    } else if (length > 0) {
      if (kind === "counter") {
        checkCounter(this.algorithm, this.#layout!.iv!, this.#position + this.#queued + length);
      }
      if (!this.#roundOpen) this.#openRound();
      this.engine.update(list, last || kind === "sector");
    }
    this.#queued += length;
    this.#tailLength = 0;
    input.advance(fromInput);
  }

  #openRound(): void {
    this.engine.init(this.#layout!.direction, this.#roundIV());
    this.#roundOpen = true;
  }

  #keep(input: Scatter): void {
    const { remaining } = input;
    const needed = this.#tailLength + remaining;
    if (needed > this.#tail.length) {
      const grown = new Uint8Array(Math.min(Math.max(2 * needed, 64), Math.max(needed, this.engine.window)));
      grown.set(this.#tail.subarray(0, this.#tailLength));
      this.#tail.fill(0);
      this.#tail = grown;
    }
    for (const bytes of input.peek(remaining)) {
      this.#tail.set(bytes, this.#tailLength);
      this.#tailLength += bytes.length;
    }
    input.advance(remaining);
  }

  /** Whether one op gives exactly what is asked for: a round is never cut in two (rule F5). */
  #mayOp(length: number): boolean {
    return this.#held === undefined && (this.algorithm.kind === "stream" || length === this.#queued);
  }

  #received(length: number): void {
    this.#queued -= length;
    if (this.algorithm.kind === "stream") return;
    this.#position += this.#layout!.sectors === undefined ? length : 1;
    this.#roundOpen = false;
  }

  #fromHeld(length: number): Bytes {
    if (length > this.#heldLength) this.#holdRound();
    const held = this.#held!;
    const bytes = held.subarray(this.#heldOffset, this.#heldOffset + length);
    this.#heldOffset += length;
    if (this.#heldOffset === held.length) this.#held = undefined;
    return bytes;
  }

  /** Takes the round from the engine, behind what is left of the ones before. */
  #holdRound(): void {
    const rest = this.#held?.subarray(this.#heldOffset);
    const queued = this.#queued;
    const round = this.engine.take(queued);
    this.#received(queued);
    this.#heldOffset = 0;
    this.#held = round;
    if (!rest) return;
    this.#held = new Uint8Array(rest.length + queued);
    this.#held.set(rest);
    this.#held.set(round, rest.length);
  }

  get #heldLength(): number {
    return this.#held ? this.#held.length - this.#heldOffset : 0;
  }

  /** The IV with which the next round continues the stream. */
  #roundIV(): Bytes | null {
    const { iv, sectors } = this.#layout!;
    if (sectors) return ivOfSector(sectorAt(sectors, this.#position), this.engine.ivSize);
    if (this.algorithm.kind !== "counter" || this.#position === 0) return iv;
    return ivAt(this.algorithm, iv!, this.#position);
  }

  #tooLong(): KcapiError {
    const { name, kind } = this.algorithm;
    return new KcapiError(
      "EMSGSIZE",
      "stream",
      `${name} takes a message in one piece, of at most ${this.engine.window} bytes`,
      {
        hint: kind === "sector"
          ? "give a sectorSize to cut it into sectors"
          : "use a mode that streams, such as ctr(aes)",
      },
    );
  }
}

function wholeUnits(length: number, unit: number): number {
  return length - length % unit;
}
