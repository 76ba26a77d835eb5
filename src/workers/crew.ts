/**
 * The Workers of a pool, and who may send the next unit to which.
 *
 * @module
 */

import { KcapiError } from "../errors.ts";
import { Blocks } from "./blocks.ts";
import { DEPTH, type Employer, type Enrolment, Member, type Sender } from "./member.ts";

/** Who wants something done. */
export interface Customer extends Sender {
  /** The one Worker that can do it, if it is so. */
  readonly chainedTo: Member | undefined;
  /** There is room with this Worker, for one unit. */
  granted(member: Member): void;
  /** There is none, and will be none. */
  refused(error: unknown): void;
}

/**
 * Workers are started when there is something to do. A customer asks for each unit anew, and stands at the end of the queue
 * for the next one: so all have their turn.
 */
export class Crew implements Employer {
  readonly size: number;
  readonly blocks = new Blocks();
  readonly #members = new Set<Member>();
  #queue: Customer[] = [];
  #customers = 0;
  /** So many of them have units under way. */
  #busy = 0;
  readonly #controller = new AbortController();

  constructor(size: number) {
    this.size = size;
    // Without this one, each stream would be the only one that listens, and Node has its table of listeners made anew.
    this.signal.addEventListener("abort", () => {});
  }

  /** Aborted when the pool is closed. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** So many units one customer may have under way: all there can be, divided by those who have some. */
  get share(): number {
    return Math.max(1, Math.floor(DEPTH * this.size / Math.max(1, this.#busy)));
  }

  /** A customer comes. */
  join(): Enrolment {
    this.signal.throwIfAborted();
    this.blocks.join();
    return { id: this.#customers++, known: [], isBusy: false };
  }

  /** It needs nothing any more. */
  leave(enrolment: Enrolment): void {
    this.report(enrolment, false);
    this.blocks.leave();
    for (const member of enrolment.known) member.forget(enrolment.id);
    this.#serve();
  }

  /** Whether it has units under way. */
  report(enrolment: Enrolment, isBusy: boolean): void {
    if (enrolment.isBusy === isBusy) return;
    enrolment.isBusy = isBusy;
    this.#busy += isBusy ? 1 : -1;
  }

  /** Room for one unit; or undefined, and the customer is told later. */
  ask(customer: Customer): Member | undefined {
    const member = this.#queue.length === 0 ? this.#roomFor(customer) : undefined;
    if (member) member.promise(customer);
    else this.#queue.push(customer);
    return member;
  }

  withdraw(customer: Customer): void {
    this.#queue = this.#queue.filter((each) => each !== customer);
  }

  giveBack(customer: Customer, member: Member): void {
    member.release(customer);
    this.#serve();
  }

  done(): void {
    this.#serve();
  }

  died(member: Member): void {
    this.#members.delete(member);
    this.#serve();
  }

  /** Ends all Workers, and all that they do. */
  close(): void {
    if (this.signal.aborted) return;
    const reason = new KcapiError("ECANCELED", "close", "the Workers were closed");
    this.#controller.abort(reason);
    this.#queue = [];
    for (const member of this.#members) member.quit(reason);
    this.#members.clear();
  }

  #serve(): void {
    for (let i = 0; i < this.#queue.length;) {
      const customer = this.#queue[i]!;
      try {
        const member = this.#roomFor(customer);
        if (!member) {
          i++;
          continue;
        }
        this.#queue.splice(i, 1);
        member.promise(customer);
        customer.granted(member);
      } catch (error) {
        this.withdraw(customer);
        customer.refused(error);
      }
    }
  }

  #roomFor({ chainedTo }: Customer): Member | undefined {
    if (chainedTo) return chainedTo.isDead || chainedTo.load < DEPTH ? chainedTo : undefined;
    let best: Member | undefined;
    for (const member of this.#members) if (!best || member.load < best.load) best = member;
    if (!best || best.load > 0 && this.#members.size < this.size) {
      best = new Member(this, this.blocks);
      this.#members.add(best);
    }
    return best.load < DEPTH ? best : undefined;
  }
}
