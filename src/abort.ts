/**
 * Listening to an AbortSignal without being kept alive by it.
 *
 * @module
 */

import { getterOf } from "./bytes.ts";

/** The true members, which no own property of a signal can stand in front of. */
const { addEventListener, removeEventListener } = EventTarget.prototype;
const abortedOf = getterOf<boolean>(AbortSignal.prototype, "aborted");
const reasonOf = getterOf<unknown>(AbortSignal.prototype, "reason");

/** Whether `value` is an AbortSignal in truth, not only by its prototype. */
export function isSignal(value: unknown): value is AbortSignal {
  try {
    abortedOf.call(value);
    return true;
  } catch {
    return false;
  }
}

/**
 * Calls `act` with `target` and the reason when `signal` aborts, or now if it has; unless `target` is gone by then.
 *
 * @param act May not refer to `target` itself, nor be made where something else does: closures of one function share
 * what they refer to.
 * @returns How to stop listening.
 */
export function onAbort<T extends WeakKey>(
  signal: AbortSignal | undefined,
  target: T,
  act: (target: T, reason: unknown) => void,
): () => void {
  if (!signal) return () => {};
  if (abortedOf.call(signal)) act(target, reasonOf.call(signal));
  return listen(signal, new WeakRef(target), act);
}

function listen<T extends WeakKey>(
  signal: AbortSignal,
  target: WeakRef<T>,
  act: (target: T, reason: unknown) => void,
): () => void {
  const listener = () => {
    const alive = target.deref();
    if (alive) act(alive, reasonOf.call(signal));
  };
  addEventListener.call(signal, "abort", listener);
  return () => removeEventListener.call(signal, "abort", listener);
}
