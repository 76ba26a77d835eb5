/**
 * Listens to an AbortSignal. The signal keeps the listening object alive only while a caller waits for that object.
 *
 * @module
 */

import { getterOf, wrongType } from "./bytes.ts";

/**
 * The members of the prototype, so that own properties of a signal cannot replace them. Not those of
 * `EventTarget.prototype`: a runtime may override them to keep a signal of `AbortSignal.any()` alive while it has
 * listeners.
 */
const { addEventListener, removeEventListener } = AbortSignal.prototype;
const abortedOf = getterOf<boolean>(AbortSignal.prototype, "aborted");
const reasonOf = getterOf<unknown>(AbortSignal.prototype, "reason");

/** Whether `value` is an AbortSignal. An object that only inherits from its prototype is not. */
function isSignal(value: unknown): value is AbortSignal {
  try {
    abortedOf.call(value);
    return true;
  } catch {
    return false;
  }
}

/** Checks the option `signal`. */
export function checkSignal(signal: unknown): AbortSignal | undefined {
  if (signal !== undefined && !isSignal(signal)) {
    throw wrongType("signal", "an AbortSignal", signal);
  }
  return signal;
}

/** The option `signal` as a list, which is empty if there is none. */
export function signalsOf(signal: unknown): readonly AbortSignal[] {
  const checked = checkSignal(signal);
  return checked ? [checked] : [];
}

/** Listens to the signals for a target, which it holds weakly unless it retains it. */
export interface WeakAbortListener<T> {
  /** Holds `target` strongly: the signals then keep it alive. */
  retain(target: T): void;
  /** Holds the target weakly again. */
  release(): void;
  /** Removes the listener from the signals. */
  stop(): void;
}

/**
 * Calls `act` with `target` and the abort reason when one of `signals` aborts, or immediately if one has aborted.
 * If the target has been collected by then, nothing is called.
 *
 * The signal may live as long as the program, for example one that aborts on SIGTERM. A plain listener keeps its target
 * alive for as long as the signal lives:
 *
 *     const shutdown = new AbortController();
 *     async function handle(request: Request) {
 *       const stream = new EncryptionStream("ctr(aes)", { key, iv, signal: shutdown.signal });
 *       const reader = request.body.pipeThrough(stream).getReader();
 *       await reader.read(); // then drops the stream, without cancel()
 *     }
 *
 * With a plain listener, `shutdown.signal` would keep the stream, its key and its descriptors after each such request.
 * This listener holds the target by a WeakRef: the stream is collected, and the finalizer removes the listener.
 *
 * While a caller waits, a WeakRef is not enough. If the source sends no more data, the pending `read()` may be
 * reachable only through the stream: both could be collected, and `shutdown.abort()` would never reject the read. So
 * the target calls `retain()` when a caller begins to wait and `release()` when no caller waits.
 *
 * @param act Must not refer to `target`, and must not be created in a function whose other closures do: the closures of
 * one function share one scope, so the listener would hold the target strongly.
 * @returns Undefined if `signals` is empty or one of them has aborted.
 */
export function onAbort<T extends WeakKey>(
  signals: readonly AbortSignal[],
  target: T,
  act: (target: T, reason: unknown) => void,
): WeakAbortListener<T> | undefined {
  if (signals.length === 0) return undefined;
  const aborted = findAborted(signals);
  if (aborted) {
    act(target, reasonOf.call(aborted));
    return undefined;
  }
  const listener = listen(signals, new WeakRef(target), act);
  finalizer.register(target, new WeakRef(listener), listener);
  return listener;
}

/** Removes the listener of a target that has been collected. */
const finalizer = new FinalizationRegistry<WeakRef<WeakAbortListener<never>>>((listener) => listener.deref()?.stop());

function findAborted(signals: readonly AbortSignal[]): AbortSignal | undefined {
  return signals.find((signal) => abortedOf.call(signal));
}

function listen<T extends WeakKey>(
  signals: readonly AbortSignal[],
  target: WeakRef<T>,
  act: (target: T, reason: unknown) => void,
): WeakAbortListener<T> {
  let retained: T | undefined;
  const handleAbort = () => {
    const alive = retained ?? target.deref();
    const aborted = findAborted(signals);
    if (alive && aborted) act(alive, reasonOf.call(aborted));
  };
  const listener: WeakAbortListener<T> = {
    retain(target) {
      retained = target;
    },
    release() {
      retained = undefined;
    },
    stop() {
      finalizer.unregister(listener);
      retained = undefined;
      for (const signal of signals) removeEventListener.call(signal, "abort", handleAbort);
    },
  };
  for (const signal of signals) addEventListener.call(signal, "abort", handleAbort);
  return listener;
}

/** Waits for `promise`, but no longer than until `signal` aborts. Then it rejects with the signal's reason. */
export async function untilAborted<T>(promise: Promise<T>, signal: AbortSignal | undefined): Promise<T> {
  if (!signal) return await promise;
  const aborted = Promise.withResolvers<never>();
  const listener = onAbort([signal], aborted, ({ reject }, reason) => reject(reason));
  listener?.retain(aborted);
  try {
    return await Promise.race([promise, aborted.promise]);
  } finally {
    listener?.stop();
  }
}
