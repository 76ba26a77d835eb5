/**
 * Listening to an AbortSignal without being kept alive by it.
 *
 * @module
 */

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
  if (signal.aborted) act(target, signal.reason);
  return listen(signal, new WeakRef(target), act);
}

function listen<T extends WeakKey>(
  signal: AbortSignal,
  target: WeakRef<T>,
  act: (target: T, reason: unknown) => void,
): () => void {
  const listener = () => {
    const alive = target.deref();
    if (alive) act(alive, signal.reason);
  };
  signal.addEventListener("abort", listener);
  return () => signal.removeEventListener("abort", listener);
}
