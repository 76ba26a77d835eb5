/**
 * Flow control: one stream over one engine, in calls that never sleep.
 *
 * The rules of the kernel that this class keeps for every user of an engine:
 *
 * - F1 It asks only for bytes that are there: {@linkcode EngineStream.ready} counts them.
 * - F2 It sends only bytes that fit: {@linkcode Engine.capacity} counts the room.
 * - F3 It sends only whole units before the end, and keeps the rest: the tail.
 * - F5 A mode that does not continue from one op to the next is cut into rounds: an init, the bytes, and one op for all
 *   of them.
 *
 * The kernel engine keeps F4 and F6. F7 is that every call is synchronous.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import type { Direction, Engine } from "../engines/engine.ts";
import { type Bytes, IovCursor, scatter, totalLength } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { bytesToWrap, checkCounter, ivAt, ivOfSector, sectorAt, type Sectors } from "../position.ts";

/** How a stream is processed. */
export interface StreamLayout {
  readonly direction: Direction;
  /** `ivSize` bytes; null if the mode has no IV, and with sectors. */
  readonly iv: Bytes | null;
  /** The stream consists of sectors. The IV of each is its number. */
  readonly sectors?: Sectors | undefined;
  /** The bytes of the keystream in front of the stream, in modes that have positions. */
  readonly position?: number | undefined;
  /** Bytes to keep back until the end: 1 for decryption with PKCS#7, whose last block needs its padding removed. */
  readonly reserve?: 0 | 1 | undefined;
}

/** One stream at a time over one engine. */
export class EngineStream {
  readonly engine: Engine;
  algorithm: Algorithm;
  /** Input goes to the engine in multiples of this many bytes, except at the end. */
  unit: number;
  #layout: StreamLayout | undefined;
  #tail: Bytes = new Uint8Array(0);
  #tailLength = 0;
  /** Bytes in the engine, not yet received. */
  #queued = 0;
  /** Output of a round that was larger than its receiver, and how much of it was received. */
  #leftoverOutput: Bytes | undefined;
  #leftoverOffset = 0;
  /** Bytes of output that are not the caller's: the keystream's from the start of the first op to the position. */
  #skip = 0;
  /** The bytes, or the sectors, of the rounds that are complete; and whether a round was begun. */
  #position = 0;
  #roundOpen = false;
  #ended = false;

  constructor(engine: Engine, algorithm: Algorithm) {
    this.engine = engine;
    this.algorithm = algorithm;
    this.unit = algorithm.chunkSize;
  }

  /** Whether a stream was started and not yet received to its end. */
  get busy(): boolean {
    return this.#layout !== undefined && !this.done;
  }

  /** Whether a stream was started. */
  get started(): boolean {
    return this.#layout !== undefined;
  }

  /** Whether everything was sent and received. */
  get done(): boolean {
    return this.#ended && this.#queued === 0 && this.#leftoverOutput === undefined;
  }

  /** The bytes of the tail. */
  get tailLength(): number {
    return this.#tailLength;
  }

  /** Whether the next output lacks the bytes in front of the position. */
  get isSkipping(): boolean {
    return this.#skip > 0;
  }

  /** The most bytes that may be in the engine: whole units of its window. */
  get window(): number {
    return wholeUnits(this.engine.window, this.unit);
  }

  /** Bytes that still fit into the round in progress, up to the wrap of its counter. */
  get roundRoom(): number {
    const { algorithm } = this;
    if (algorithm.kind !== "counter") return Infinity;
    return bytesToWrap(algorithm, this.#layout!.iv!, this.#position) - this.#queued;
  }

  /** Bytes that can be received now (rule F1). */
  get ready(): number {
    return this.#leftoverLength + Math.max(0, this.#queued - this.#skip);
  }

  /**
   * Starts a stream and its first round, which determines the engine's window. The caller checks that none is in
   * progress. If this fails, none is.
   *
   * @param algorithm The engine's, or one that counts otherwise.
   */
  start(layout: StreamLayout, algorithm: Algorithm = this.algorithm): void {
    const before = [this.#layout, this.algorithm] as const;
    this.#layout = layout;
    this.algorithm = algorithm;
    const { position = 0 } = layout;
    this.#skip = this.isMessage ? position : position % algorithm.chunkSize;
    this.#position = position - this.#skip;
    try {
      this.#openRound();
      if (this.#skip > this.engine.window) throw this.#createTooLongError();
    } catch (error) {
      [this.#layout, this.algorithm] = before;
      throw error;
    }
    this.unit = layout.sectors?.sectorSize ?? algorithm.chunkSize;
    this.#tailLength = 0;
    this.#ended = false;
    // Zeros take the place of the bytes in front of the position.
    if (this.#skip > 0) this.#saveTail(new IovCursor([new Uint8Array(this.#skip)]));
  }

  /** Drops the stream in progress. Takes the bytes in the engine, because no other stream can start before that. */
  abandon(): void {
    if (this.algorithm.kind === "stream" && !this.#ended) this.engine.update([], true);
    if (this.#queued > 0) this.engine.take(this.#queued).fill(0);
    this.#queued = 0;
    this.#leftoverOutput?.fill(0);
    this.#leftoverOutput = undefined;
    this.#tail.fill(0);
    this.#layout = undefined;
  }

  /**
   * Sends as much of `input` as fits, and keeps the tail.
   *
   * @param last Whether `input` ends the stream.
   * @returns Whether all of `input` was taken.
   * @throws {KcapiError} EMSGSIZE if a message is too long for one op, EOVERFLOW at the end of a counter. Both come
   * before any byte of `input` is sent.
   */
  send(input: IovCursor, last: boolean): boolean {
    const reserve = last ? 0 : this.#layout!.reserve ?? 0;
    if (last && this.#queued === 0 && this.#tailLength === this.#skip && input.remaining === 0) this.#dropSkipped();
    for (;;) {
      const total = this.#tailLength + input.remaining;
      const room = this.#room(total, last);
      if (last && total <= room) {
        this.#deliver(total, input, true);
        this.#ended = true;
        return true;
      }
      const length = wholeUnits(Math.min(total - reserve, room), this.unit);
      if (length <= 0) break;
      this.#deliver(length, input, false);
    }
    if (last || (!this.isMessage && this.#tailLength + input.remaining >= this.unit + reserve)) return false;
    this.#saveTail(input);
    return true;
  }

  /**
   * Sends `bytes` and receives their output, as `send` and `take` do, in fewer steps.
   *
   * @returns Undefined, without any effect, unless `bytes` are whole units of a mode that continues, and no bytes
   * precede them.
   */
  pass(bytes: Bytes, inPlace: boolean): Bytes | undefined {
    const { length } = bytes;
    const isUsual = this.#tailLength === 0 && this.#queued === 0 && length % this.unit === 0 && length > 0 &&
      length <= this.engine.window && this.algorithm.kind === "stream" && this.#layout!.reserve !== 1;
    return isUsual ? this.engine.pass(bytes, inPlace) : undefined;
  }

  /**
   * The number of bytes that output buffers of `room` bytes receive now: whole chunks, except at the end.
   */
  fit(room: number): number {
    const length = Math.min(room, this.ready);
    const isEnd = this.#ended && length === this.ready;
    const skip = this.isMessage ? 0 : this.#skip;
    return isEnd ? length : wholeUnits(length + skip, this.algorithm.chunkSize) - skip;
  }

  /** Fills the output buffers, whose total length {@linkcode fit} returned. */
  receive(list: readonly Bytes[]): void {
    const length = totalLength(list);
    if (this.#mayOp(length)) {
      this.engine.op(list);
      this.#received(length);
    } else {
      this.#moveLeftover(length, list);
    }
  }

  /** Receives `length` bytes, which {@linkcode fit} returned, in new memory. */
  take(length: number): Bytes {
    if (!this.#mayOp(length)) {
      const bytes = new Uint8Array(length);
      this.#moveLeftover(length, [bytes]);
      return bytes;
    }
    const bytes = this.engine.take(length);
    this.#received(length);
    return bytes;
  }

  /** Zeroes the tail and closes the engine. */
  close(): void {
    this.#tail.fill(0);
    this.#leftoverOutput?.fill(0);
    this.engine.close();
  }

  /** Whether the stream is one op, so that nothing is ready before its end. */
  get isMessage(): boolean {
    const { kind } = this.algorithm;
    return kind === "message" || (kind === "sector" && this.#layout!.sectors === undefined);
  }

  /** The number of bytes that may be sent now, of `total` available (rules F2 and F5). */
  #room(total: number, last: boolean): number {
    const { engine } = this;
    if (this.algorithm.kind === "stream") return engine.capacity(this.#queued);
    if (this.isMessage) {
      if (total > engine.window) throw this.#createTooLongError();
      return last ? total : 0;
    }
    if (this.algorithm.kind === "counter") {
      return Math.min(engine.capacity(this.#leftoverLength + this.#queued), this.roundRoom);
    }
    return this.ready > 0 ? 0 : this.unit;
  }

  #deliver(length: number, input: IovCursor, last: boolean): void {
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

  /** The stream is empty. */
  #dropSkipped(): void {
    this.#tailLength = 0;
    this.#skip = 0;
  }

  #saveTail(input: IovCursor): void {
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

  /** Whether one op may return `length` bytes: it must return all of a round (rule F5). */
  #mayOp(length: number): boolean {
    return this.#leftoverOutput === undefined && this.#skip === 0 &&
      (this.algorithm.kind === "stream" || length === this.#queued);
  }

  #received(length: number): void {
    this.#queued -= length;
    if (this.algorithm.kind === "stream") return;
    this.#position += this.#layout!.sectors === undefined ? length : 1;
    this.#roundOpen = false;
  }

  /** Moves `length` bytes of the leftover output to `list`: no plaintext stays here. */
  #moveLeftover(length: number, list: readonly Bytes[]): void {
    if (length > this.#leftoverLength) this.#keepRound();
    const leftover = this.#leftoverOutput!;
    const bytes = leftover.subarray(this.#leftoverOffset, this.#leftoverOffset + length);
    scatter(bytes, list);
    bytes.fill(0);
    this.#leftoverOffset += length;
    if (this.#leftoverOffset === leftover.length) this.#leftoverOutput = undefined;
  }

  /** Receives all of the round, and appends it to the leftover output. */
  #keepRound(): void {
    const rest = this.#leftoverOutput?.subarray(this.#leftoverOffset);
    const queued = this.#queued;
    const round = this.engine.take(queued);
    this.#received(queued);
    round.fill(0, 0, this.#skip); // the keystream itself, because the input was zeros
    this.#leftoverOffset = this.#skip;
    this.#leftoverOutput = round;
    this.#skip = 0;
    if (!rest) return;
    this.#leftoverOutput = new Uint8Array(rest.length + queued);
    this.#leftoverOutput.set(rest);
    this.#leftoverOutput.set(round, rest.length);
    rest.fill(0);
    round.fill(0);
  }

  get #leftoverLength(): number {
    return this.#leftoverOutput ? this.#leftoverOutput.length - this.#leftoverOffset : 0;
  }

  /** The IV of the next round. */
  #roundIV(): Bytes | null {
    const { iv, sectors } = this.#layout!;
    if (sectors) return ivOfSector(sectorAt(sectors, this.#position), this.engine.ivSize, sectors.ivMode);
    return this.#position === 0 ? iv : ivAt(this.algorithm, iv!, this.#position);
  }

  #createTooLongError(): KcapiError {
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
