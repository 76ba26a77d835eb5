/**
 * What differs between runtimes for sealed streams. Refers to nothing of a server: `@kcapi/streams/sealed` consists of
 * such modules.
 *
 * @module
 */

import { KcapiError } from "../errors.ts";

/** @throws {KcapiError} ENOSYS if there is no WebCrypto. */
export function requireWebCrypto(): void {
  if (globalThis.crypto?.subtle !== undefined) return;
  throw new KcapiError("ENOSYS", "open", "this page or runtime has no WebCrypto (crypto.subtle)", {
    hint: "serve the page over HTTPS, or from localhost",
  });
}

/**
 * Allocates memory. The caller overwrites or clears all of it: where {@linkcode replaceAllocator} was called, it may
 * have any content.
 */
export let allocUnsafe: (length: number) => Uint8Array<ArrayBuffer> = (length) => new Uint8Array(length);

/** Takes an allocator that is faster, because it does not zero. */
export function replaceAllocator(faster: typeof allocUnsafe): void {
  allocUnsafe = faster;
}

/** Has `using` close objects of a class in WebKit (WebKitGTK 2.50), which has no `Symbol.dispose`. */
export function disposeByClose({ prototype }: { readonly prototype: { close(): void } }): void {
  // esbuild and Bun compile `using` to this symbol there.
  if (Symbol.dispose === undefined) Object.assign(prototype, { [Symbol.for("Symbol.dispose")]: prototype.close });
}

/** Calls a function in a later turn of the event loop. */
type ScheduleCallback = (callback: () => void) => void;

const globals = globalThis as {
  readonly setImmediate?: ScheduleCallback;
  readonly MessageChannel?: typeof MessageChannel;
  readonly setTimeout: ScheduleCallback;
  readonly navigator?: { readonly userAgent?: string };
};

/** workerd 2026-11-17 has a MessageChannel that loses messages beside calls of WebCrypto, and does not delay timers. */
const Channel = globals.navigator?.userAgent === "Cloudflare-Workers" ? undefined : globals.MessageChannel;

/**
 * The runtime's setImmediate, or what has its effect: messages, because browsers delay nested timers by 4 ms. Captured
 * at import, because a test may replace the timers of its runtime.
 */
export const setImmediate: ScheduleCallback = globals.setImmediate?.bind(globalThis) ??
  (Channel ? byMessages(Channel) : globals.setTimeout.bind(globalThis));

function byMessages(Channel: typeof MessageChannel): ScheduleCallback {
  const waiting: (() => void)[] = [];
  const { port1, port2 } = new Channel();
  port1.onmessage = () => waiting.shift()!();
  return (callback) => {
    waiting.push(callback);
    port2.postMessage(undefined);
  };
}
