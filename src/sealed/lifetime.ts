/**
 * {@linkcode Lifetime}: how a reader is closed, and what that ends.
 *
 * @module
 */

import { onAbort, type WeakAbortListener } from "../abort.ts";

/** Open until it is closed once: by its owner, by a signal, or because of an error. */
export class Lifetime {
  readonly #listener: WeakAbortListener<Lifetime> | undefined;
  /** What closing ends: calls that wait, reads of the source, the session. */
  readonly #actions = new Set<(reason: unknown) => void>();
  /** Calls that wait. While there are any, the signals keep this object. */
  #waits = 0;
  #closed: { readonly reason: unknown; readonly later: unknown } | undefined;

  constructor(signals: readonly AbortSignal[]) {
    this.#listener = onAbort(signals, this, Lifetime.#abort);
  }

  static #abort(lifetime: Lifetime, reason: unknown): void {
    lifetime.close(reason);
  }

  get isClosed(): boolean {
    return this.#closed !== undefined;
  }

  /** Pending calls reject with `reason`, later ones with `later`. */
  close(reason: unknown, later = reason): void {
    if (this.#closed) return;
    this.#closed = { reason, later };
    this.#listener?.stop();
    for (const act of this.#actions) act(reason);
    this.#actions.clear();
  }

  /** @throws For a new call: why this is closed, if it is. */
  check(): void {
    if (this.#closed) throw this.#closed.later;
  }

  /** @throws For a pending call: why this is closed, if it is. */
  checkPending(): void {
    if (this.#closed) throw this.#closed.reason;
  }

  /** Calls `act` when this is closed, or now if it is. Returns what removes the action. */
  atClose(act: (reason: unknown) => void): () => void {
    if (this.#closed) act(this.#closed.reason);
    else this.#actions.add(act);
    return () => this.#actions.delete(act);
  }

  /**
   * Waits for `answer` or for the end: a source may never answer.
   *
   * @param expose Gets what else ends the wait.
   */
  async wait<T>(answer: Promise<T>, expose?: (reject: (reason: unknown) => void) => void): Promise<T> {
    const { promise: closed, reject } = Promise.withResolvers<never>();
    const forget = this.atClose(reject);
    expose?.(reject);
    this.#waits++;
    this.#listener?.retain(this);
    try {
      const value = await Promise.race([answer, closed]);
      this.checkPending();
      return value;
    } finally {
      forget();
      if (--this.#waits === 0) this.#listener?.release();
    }
  }

  /** Waits for a read of the source. The signal of the read aborts when the reader closes, and when the read fails. */
  async read<T>(read: (options: { readonly signal: AbortSignal }) => Promise<T>): Promise<T> {
    const controller = new AbortController();
    try {
      return await this.wait(read({ signal: controller.signal }));
    } catch (error) {
      controller.abort(error);
      throw error;
    }
  }
}
