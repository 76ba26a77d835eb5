/**
 * When a request that failed is sent again.
 *
 * @module
 */

import type { KcapiError } from "../errors.ts";

const FIRST_DELAY = 250;
const MOST_DELAY = 8000;

/** The most milliseconds to wait because a server asks for it. */
export const MOST_RETRY_AFTER = 60_000;

/** A request failed, and the next attempt may succeed. */
export class TransientError extends Error {
  /** The error of the caller if there is no next attempt. */
  readonly error: KcapiError;
  /** The least milliseconds until the next attempt. */
  readonly retryAfter: number;

  constructor(error: KcapiError, retryAfter = 0) {
    super(error.message);
    this.error = error;
    this.retryAfter = retryAfter;
  }
}

/** Milliseconds before the attempt after this one. A random part keeps clients from coming back at the same time. */
export function delayAfter(attempt: number, retryAfter: number): number {
  const delay = Math.min(MOST_DELAY, FIRST_DELAY * 2 ** (attempt - 1));
  return Math.max(retryAfter, delay * (1 - Math.random() / 2));
}

/** The milliseconds that a server asks to wait (RFC 9110, section 10.2.3): a number of seconds, or a date. */
export function retryAfterOf(headers: Headers): number {
  const text = headers.get("retry-after") ?? "";
  const delay = /^\d+$/.test(text) ? 1000 * Number(text) : Date.parse(text) - Date.now();
  return delay > 0 ? delay : 0;
}

/** Waits. Rejects with the reason when the signal aborts. */
export function sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      signal.removeEventListener("abort", end);
      if (signal.aborted) reject(signal.reason);
      else resolve();
    };
    const timer = setTimeout(end, milliseconds);
    signal.addEventListener("abort", end);
  });
}
