/**
 * What differs between runtimes for sealed streams. Names no runtime: `@kcapi/streams/sealed` consists of such modules.
 *
 * @module
 */

/**
 * Allocates memory. The caller overwrites or clears all of it: where {@linkcode replaceAllocator} was called, it may
 * have any content.
 */
export let allocUnsafe: (length: number) => Uint8Array<ArrayBuffer> = (length) => new Uint8Array(length);

/** Takes an allocator that is faster, because it does not zero. */
export function replaceAllocator(faster: typeof allocUnsafe): void {
  allocUnsafe = faster;
}

/** Calls a function in a later turn of the event loop. */
type Scheduler = (callback: () => void) => void;

const globals = globalThis as {
  readonly setImmediate?: Scheduler;
  readonly MessageChannel?: typeof MessageChannel;
  readonly setTimeout: Scheduler;
};

/**
 * The runtime's setImmediate, or what has its effect: messages, because browsers delay nested timers by 4 ms. Captured
 * at import, because a test may replace the timers of its runtime.
 */
export const setImmediate: Scheduler = globals.setImmediate?.bind(globalThis) ??
  (globals.MessageChannel ? byMessages(globals.MessageChannel) : globals.setTimeout.bind(globalThis));

function byMessages(Channel: typeof MessageChannel): Scheduler {
  const waiting: (() => void)[] = [];
  const { port1, port2 } = new Channel();
  port1.onmessage = () => waiting.shift()!();
  return (callback) => {
    waiting.push(callback);
    port2.postMessage(undefined);
  };
}
