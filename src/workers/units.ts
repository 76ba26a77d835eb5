/**
 * A stream whose units are done by Workers.
 *
 * @module
 */

import { setImmediate } from "../runtime/mod.ts";
import { type Bytes, Scatter } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import type { Transform } from "../streams/transform.ts";
import type { Crew, Customer } from "./crew.ts";
import type { Cut } from "./cuts.ts";
import { Copies, type Gathering, Moves } from "./gathering.ts";
import type { Enrolment, Member } from "./member.ts";
import { errorOf, type Place, type Result } from "./messages.ts";

/**
 * So many bytes are a unit, or as near as the mode's steps come: some 0.5 ms of work and more, beside which sending it there and
 * back (0.05 ms) is little. Where a whole one has not come, less is sent as soon as a Worker has nothing else to do.
 */
const UNIT = 1024 * 1024;

/** A unit that is with a Worker, or back and not yet taken. */
interface Unit {
  result?: { readonly outputs: Bytes[]; readonly error: Error | undefined };
}

/** What may be left of a stream that nobody closed; may not refer to it. */
interface Remains {
  readonly crew: Crew;
  readonly enrolment: Enrolment;
  readonly cut: Cut;
  readonly gathering: Gathering;
  /** The pool, which is closed when nobody holds it. */
  readonly owner: object;
}

const finalizer = new FinalizationRegistry<Remains>(release);

function release({ crew, enrolment, cut, gathering }: Omit<Remains, "owner">): void {
  gathering.wipe();
  crew.leave(enrolment);
  cut.close();
}

/**
 * Cuts its input into units, sends each to a Worker that has room for it, and gives their outputs in order. Input is taken over only when
 * there is room, so that what a stream holds is bounded: by its share of two units a Worker.
 */
export class Units implements Transform, Customer {
  readonly engine: EngineName;
  readonly enrolment: Enrolment;
  readonly #crew: Crew;
  readonly #cut: Cut;
  #head: Bytes | undefined;
  #input: Scatter | undefined;
  readonly #gathering: Gathering;
  #position: number;
  #isEnding = false;
  #isEndSent = false;
  /** The Worker that has room for the next unit. */
  #slot: Member | undefined;
  #isQueued = false;
  /** The one Worker of a chain. */
  #chained: Member | undefined;
  readonly #units: Unit[] = [];
  #failure: { readonly error: unknown } | undefined;
  #news: PromiseWithResolvers<void> | undefined;
  #isClosed = false;

  constructor(crew: Crew, owner: object, cut: Cut, inPlace: boolean) {
    this.#crew = crew;
    this.#cut = cut;
    this.#gathering = inPlace ? new Moves() : new Copies(crew.blocks, this.#unitSize + cut.hold);
    this.engine = cut.engine;
    this.enrolment = crew.join();
    this.#position = cut.start;
    if (cut.headSize > 0) this.#head = new Uint8Array(0);
    finalizer.register(this, { crew, enrolment: this.enrolment, cut, gathering: this.#gathering, owner }, this);
  }

  get pending(): boolean {
    if (this.#isClosed) return false;
    return this.#input !== undefined || this.#units[0]?.result !== undefined || this.#failure !== undefined ||
      this.#isEnding;
  }

  get progress(): Promise<void> | undefined {
    const isUnderWay = this.#units.length > 0 || this.#isQueued || this.#slot !== undefined;
    if (this.#isClosed || !isUnderWay) return undefined;
    return (this.#news ??= Promise.withResolvers()).promise;
  }

  write(list: readonly Bytes[]): void {
    this.#input = new Scatter(list);
  }

  end(): void {
    this.#input = new Scatter([]);
    this.#isEnding = true;
  }

  read(): Bytes | undefined {
    this.#advance();
    const [first] = this.#units;
    if (!first) return this.#atEnd();
    if (!first.result) return undefined;
    const { outputs, error } = first.result;
    const output = outputs.shift();
    if (outputs.length > 0) return output;
    this.#units.shift();
    if (error) {
      this.#units.length = 0; // nothing comes out behind it
      this.#fail(error);
    }
    this.#report();
    return output ?? this.#atEnd();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    finalizer.unregister(this);
    this.#input = undefined;
    this.#units.length = 0;
    this.#giveBack();
    release({ crew: this.#crew, enrolment: this.enrolment, cut: this.#cut, gathering: this.#gathering });
    this.#tell();
  }

  // ---- what the crew asks for and tells ----

  get chainedTo(): Member | undefined {
    return this.#chained;
  }

  granted(member: Member): void {
    this.#isQueued = false;
    this.#slot = member;
    this.#advance();
    this.#tell();
  }

  /** The Worker whose slot this has is idle: it may as well begin. */
  idle(): void {
    this.#try(() => this.#sendBegun());
    this.#tell();
  }

  refused(error: unknown): void {
    this.#isQueued = false;
    this.#fail(error);
    this.#tell();
  }

  // ---- how ----

  get #unitSize(): number {
    const { step } = this.#cut;
    return Math.max(step, UNIT - UNIT % step);
  }

  #atEnd(): undefined {
    if (this.#units.length > 0) return;
    if (this.#failure) {
      this.close();
      throw this.#failure.error;
    }
    if (this.#isEndSent) this.close();
  }

  /** Takes over input, as far as there is room for it. */
  #advance(): void {
    this.#try(() => {
      if (this.#isClosed || this.#failure || !this.#input) return;
      this.#input.verify();
      if (this.#head && !this.#begin(this.#input)) return this.#endsInput();
      while (this.#hasUnit(this.#input.remaining)) {
        this.#slot ??= this.#askForSlot();
        if (!this.#slot) return;
        this.#gather(this.#input, this.#toUnit);
        if (!this.#sendWhole()) break;
      }
      if (!this.#slot) this.#gather(this.#input, this.#input.remaining);
      this.#endsInput();
    });
  }

  /** Whether there is a unit in what has come, if only a short one. */
  #hasUnit(remaining: number): boolean {
    if (this.#isEndSent) return false;
    const total = this.#gathering.length + remaining;
    if (this.#isEnding) return total > 0 || this.#cut.hasEnd || this.#position === this.#cut.start;
    return remaining > 0 && this.#sendable(total) > 0;
  }

  /** How many of `total` bytes can be sent before the end has come. */
  #sendable(total: number): number {
    const { step, hold } = this.#cut;
    const end = this.#position + total - hold;
    return Math.min(end - end % step - this.#position, this.#wholeUnit);
  }

  get #wholeUnit(): number {
    return this.#unitSize - this.#position % this.#cut.step;
  }

  /** Bytes that a whole unit lacks, with the one more that tells that it is not the last. */
  get #toUnit(): number {
    return this.#wholeUnit + this.#cut.hold - this.#gathering.length;
  }

  /** Sends what can be, if it is a whole unit or the end of all. Returns whether there may be another. */
  #sendWhole(): boolean {
    const { length } = this.#gathering;
    const isAll = this.#isEnding && this.#input!.remaining === 0;
    if (isAll && length <= this.#wholeUnit) {
      this.#send(length, true);
      return false;
    }
    if (this.#sendable(length) < this.#wholeUnit) return false;
    this.#send(this.#wholeUnit, false);
    return true;
  }

  /** All input is taken over: a unit that is not whole is sent a turn later, if by then its Worker is idle. */
  #endsInput(): void {
    if (this.#input!.remaining > 0) return;
    this.#input = undefined;
    if (this.#isEnding && this.#head) this.#cut.begin(this.#head);
    this.#isEndSent = this.#isEnding;
    const slot = this.#slot;
    if (slot) {
      setImmediate(() => {
        if (this.#slot === slot && slot.isIdle) this.idle();
      });
    }
  }

  #sendBegun(): void {
    if (this.#isClosed || this.#failure || !this.#slot) return;
    const length = this.#sendable(this.#gathering.length);
    if (length > 0) this.#send(length, false);
    else this.#giveBack();
  }

  #gather(input: Scatter, most: number): void {
    const length = Math.min(most, input.remaining);
    const total = this.#gathering.length + length;
    const pieces = input.peek(length);
    input.advance(length); // first, for memory that is moved has no length any more
    for (const piece of pieces) this.#gathering.add(piece);
    if (this.#gathering.length !== total) throw new TypeError("A chunk was given away twice");
  }

  #send(length: number, isLast: boolean): void {
    const list = this.#gathering.take(length);
    try {
      this.#sendTo(this.#slot!, list, { isLast, ...this.#cut.place(this.#position, list) });
    } catch (error) {
      for (const bytes of list) this.#crew.blocks.give(bytes);
      throw error;
    }
    this.#position += length;
  }

  #sendTo(slot: Member, list: readonly Bytes[], place: Place): void {
    const unit: Unit = {};
    slot.send(this, () => this.#cut.order(), list, place, (result) => this.#done(unit, result));
    this.#slot = undefined;
    if (this.#cut.isChain) this.#chained = slot;
    this.#units.push(unit);
    this.#report();
  }

  #done(unit: Unit, { outputs, failure }: Result): void {
    if (this.#isClosed) return;
    unit.result = { outputs: [...outputs], error: failure && errorOf(failure) };
    if (outputs.length === 0 && !failure) this.#units.splice(this.#units.indexOf(unit), 1);
    this.#report();
    this.#tell();
  }

  #askForSlot(): Member | undefined {
    if (this.#isQueued || this.#units.length >= this.#crew.share) return undefined;
    const member = this.#crew.ask(this);
    this.#isQueued = member === undefined;
    return member;
  }

  #giveBack(): void {
    if (this.#slot) this.#crew.giveBack(this, this.#slot);
    else if (this.#isQueued) this.#crew.withdraw(this);
    this.#slot = undefined;
    this.#isQueued = false;
  }

  /** The head is taken off the front. Returns whether it is complete. */
  #begin(input: Scatter): boolean {
    const head = this.#head!;
    const length = Math.min(this.#cut.headSize - head.length, input.remaining);
    const grown = new Uint8Array(head.length + length);
    grown.set(head);
    let at = head.length;
    for (const piece of input.peek(length)) {
      grown.set(piece, at);
      at += piece.length;
    }
    input.advance(length);
    this.#head = grown;
    if (grown.length < this.#cut.headSize) return false;
    this.#cut.begin(grown);
    this.#head = undefined;
    return true;
  }

  #try(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.#fail(error);
    }
  }

  #fail(error: unknown): void {
    this.#failure ??= { error };
    this.#input = undefined;
    this.#gathering.wipe();
    this.#giveBack();
  }

  /** Whether this has units under way counts for the shares of all. */
  #report(): void {
    this.#crew.report(this.enrolment, this.#units.length > 0);
  }

  #tell(): void {
    this.#news?.resolve();
    this.#news = undefined;
  }
}
