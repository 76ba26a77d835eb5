/**
 * Cleaning up, also when a signal ends the tool.
 *
 * @module
 */

import * as fs from "node:fs";
import process from "node:process";

/** What is to be undone when the tool ends: temporary files, the terminal's mode. */
export const cleanups = new Set<() => void>();

function cleanUp(): void {
  for (const cleanup of cleanups) {
    try {
      cleanup();
    } catch {
      // The others still have to run.
    }
  }
  cleanups.clear();
}

export const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Runs `action` with our signal handlers in place; what whoever started us ignores (nohup), we ignore. */
export async function withSignals<T>(action: () => Promise<T>): Promise<T> {
  const ignored = BigInt(`0x${/^SigIgn:\s*([0-9a-f]+)/m.exec(procFile("status"))?.[1] ?? "0"}`);
  const handled = Object.entries(SIGNALS).filter(([, number]) => (ignored >> BigInt(number - 1) & 1n) === 0n);
  const handlers = handled.map(([signal, number]) => {
    const handler = () => {
      cleanUp();
      process.exit(128 + number);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  try {
    return await action();
  } finally {
    cleanUp();
    for (const remove of handlers) remove();
  }
}

/** What /proc tells of this process; nothing where it may not be read. */
export function procFile(name: string): string {
  try {
    return fs.readFileSync(`/proc/self/${name}`, "utf8");
  } catch {
    return "";
  }
}
