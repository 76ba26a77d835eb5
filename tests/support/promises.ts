/** Turns of the event loop, and the states of promises. Browsers run it, too. */

// Captured at import, because a test may replace the timers of its runtime. Browsers and workerd have none.
const { setImmediate } = globalThis as { setImmediate?: (callback: () => void) => void };
/** workerd 2026-11-17 loses messages that are sent beside WebCrypto. */
const losesMessages = globalThis.navigator?.userAgent === "Cloudflare-Workers";

/** Runs a function in the next turn of the event loop. A browser would delay a timer by milliseconds. */
export function inNextTurn(callback: () => void): void {
  if (setImmediate) return void setImmediate(callback);
  if (losesMessages) return void setTimeout(callback, 0);
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    callback();
  };
  port2.postMessage(0);
}

/** Waits for `count` turns of the event loop. */
export async function turns(count = 1): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise<void>((resolve) => inNextTurn(resolve));
}

/** The state of a promise. */
export type Outcome = { state: "pending" } | { state: "fulfilled"; value: unknown } | {
  state: "rejected";
  reason: unknown;
};

/** Returns the state of each promise after 20 turns of the event loop, enough for work that waits for nothing else. */
export async function outcomes(...promises: PromiseLike<unknown>[]): Promise<Outcome[]> {
  const found: Outcome[] = promises.map(() => ({ state: "pending" }));
  promises.forEach((promise, i) =>
    promise.then(
      (value) => found[i] = { state: "fulfilled", value },
      (reason) => found[i] = { state: "rejected", reason },
    )
  );
  await turns(20);
  return found;
}

/** Whether a promise is still pending after all work that waits for nothing else. */
export async function isPending(promise: PromiseLike<unknown>): Promise<boolean> {
  let pending = true;
  const settle = () => void (pending = false);
  promise.then(settle, settle);
  await turns(3);
  return pending;
}

/** Marks a promise as handled that the test awaits later, in case the test fails first. */
export function background<T>(work: Promise<T>): Promise<T> {
  work.catch(() => {});
  return work;
}

/** Returns a promise's error, or undefined if it resolves. Handles the rejection. */
export function caught(promise: PromiseLike<unknown>): Promise<unknown> {
  return Promise.resolve(promise).then(() => undefined, (error) => error);
}
