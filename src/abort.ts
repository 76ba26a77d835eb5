/**
 * Listening to an AbortSignal without being kept alive by it for longer than somebody waits.
 *
 * @module
 */

import { getterOf } from "./bytes.ts";

/**
 * The true members, which no own property of a signal can stand in front of. A runtime may have its own here, not
 * EventTarget's, by which a signal of `AbortSignal.any()` lives as long as somebody listens.
 */
const { addEventListener, removeEventListener } = AbortSignal.prototype;
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

/** Somebody who listens to a signal. */
export interface AbortListener<T> {
  /**
   * The target while somebody waits for it: the signal then keeps it. Where it is the only way out, all that waits may
   * hang on nothing else, and would be collected as garbage, never to be told.
   */
  held: T | undefined;
  /** Listens no more. */
  stop(): void;
}

/**
 * Calls `act` with `target` and the reason when one of `signals` aborts, or now if one has; unless `target` is gone by then.
 *
 * @param act May not refer to `target` itself, nor be made where something else does: closures of one function share
 * what they refer to.
 * @returns Undefined where there is nothing to listen to, any more.
 */
export function onAbort<T extends WeakKey>(
  signals: readonly AbortSignal[],
  target: T,
  act: (target: T, reason: unknown) => void,
): AbortListener<T> | undefined {
  if (signals.length === 0) return undefined;
  const aborted = abortedOneOf(signals);
  if (aborted) {
    act(target, reasonOf.call(aborted));
    return undefined;
  }
  const listener = listen(signals, new WeakRef(target), act);
  finalizer.register(target, new WeakRef(listener), listener);
  return listener;
}

/** Ends what listens for a target that is gone: for as long as the signal lives, which may be as long as the program. */
const finalizer = new FinalizationRegistry<WeakRef<AbortListener<unknown>>>((listener) => listener.deref()?.stop());

function abortedOneOf(signals: readonly AbortSignal[]): AbortSignal | undefined {
  return signals.find((signal) => abortedOf.call(signal));
}

function listen<T extends WeakKey>(
  signals: readonly AbortSignal[],
  target: WeakRef<T>,
  act: (target: T, reason: unknown) => void,
): AbortListener<T> {
  const heard = () => {
    const alive = listener.held ?? target.deref();
    const aborted = abortedOneOf(signals);
    if (alive && aborted) act(alive, reasonOf.call(aborted));
  };
  const listener: AbortListener<T> = {
    held: undefined,
    stop() {
      finalizer.unregister(listener);
      listener.held = undefined;
      for (const signal of signals) removeEventListener.call(signal, "abort", heard);
    },
  };
  for (const signal of signals) addEventListener.call(signal, "abort", heard);
  return listener;
}
