/**
 * Clean-up when the tool ends, or when a signal ends it.
 *
 * @module
 */

import * as fs from "node:fs";
import { process } from "./process.ts";

/** The signals that end a process, and that a process can handle. SIGALRM and the like are never sent to the tool. */
export const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGTERM: 15, SIGXCPU: 24, SIGXFSZ: 25 } as const;

const closings = new Set<() => void>();
const undoings = new Set<() => void>();

/**
 * Runs `action`. Then runs, also after an error, the functions that it registered by `atEnd()` and `atEndOrSignal()`.
 */
export async function withCleanup<T>(action: () => Promise<T>): Promise<T> {
  const signals = ignoredSignals();
  for (const signal of signals) process.on(signal, ignore);
  try {
    return await action();
  } finally {
    undo();
    callAll(closings);
    for (const signal of signals) process.off(signal, ignore);
  }
}

/** Registers a clean-up that the system also does when the process ends, such as closing a descriptor. */
export function atEnd(action: () => void): () => void {
  return register(closings, action);
}

/**
 * Registers a clean-up that must also run after a signal. Returns a function that unregisters it.
 *
 * Signals are only handled while something is registered. In Deno, a write to a full pipe blocks the thread that runs
 * JavaScript: no handler would run, and the tool would not end.
 */
export function atEndOrSignal(action: () => void): () => void {
  if (undoings.size === 0) setHandlers("on");
  const unregister = register(undoings, action);
  return () => {
    unregister();
    if (undoings.size === 0) setHandlers("off");
  };
}

function register(actions: Set<() => void>, action: () => void): () => void {
  actions.add(action);
  return () => void actions.delete(action);
}

function undo(): void {
  if (undoings.size === 0) return;
  callAll(undoings);
  setHandlers("off");
}

function callAll(actions: Set<() => void>): void {
  for (const action of actions) {
    try {
      action();
    } catch {
      // The other clean-ups must still run.
    }
  }
  actions.clear();
}

const handlers = Object.entries(SIGNALS).map(([signal, number]) => {
  const handler = () => {
    undo();
    process.exit(128 + number);
  };
  return [signal, handler] as const;
});

function setHandlers(method: "on" | "off"): void {
  const ignored = ignoredSignals();
  for (const [signal, handler] of handlers) {
    if (!ignored.includes(signal)) process[method](signal, handler);
  }
}

function ignore(): void {}

let ignoredAtStart: readonly string[] | undefined;

/**
 * The signals that the parent ignores, such as SIGHUP under nohup(1). The tool ignores them, too. In Deno, that takes a
 * handler, because Deno handles SIGHUP, SIGINT and SIGTERM itself once there is a handler for any signal. Node resets
 * all signals when it starts, so there they end the tool.
 */
function ignoredSignals(): readonly string[] {
  return ignoredAtStart ??= readIgnoredSignals();
}

function readIgnoredSignals(): string[] {
  const mask = BigInt(`0x${/^SigIgn:\s*([0-9a-f]+)/m.exec(procFile("status"))?.[1] ?? "0"}`);
  return Object.entries(SIGNALS).filter(([, number]) => mask >> BigInt(number - 1) & 1n).map(([signal]) => signal);
}

/** A file of this process in /proc; empty if the tool may not read it. */
export function procFile(name: string): string {
  try {
    return fs.readFileSync(`/proc/self/${name}`, "utf8");
  } catch {
    return "";
  }
}
