/**
 * Sealed streams over WebCrypto (B11) on all runtimes: runs webcrypto_streams.ts on Deno, Bun and Node, in the browsers
 * that are installed, and in workerd.
 *
 * @module
 */

import { spawnSync } from "node:child_process";
import { join } from "node:path";
import process from "node:process";
import { record, runBars, statisticsOf } from "./measure.ts";

const root = join(import.meta.dirname!, "..");
const bin = (name: string) => join(root, "node_modules/.bin", name);
const file = join(root, "bench/webcrypto_streams.ts");
const browser = (name: string) => [join(root, "tests/browsers/run"), "--browser", name, file];

const COMMANDS: Record<string, string[]> = {
  Bun: [bin("bun"), "test", file],
  Deno: [bin("deno"), "test", "--no-check", "-A", file],
  Node: [bin("node"), "--disable-warning=ExperimentalWarning", join(root, "tests/support/node_suite.mjs"), file],
  Chromium: browser("chromium"),
  Firefox: browser("firefox"),
  WebKit: browser("webkit"),
  workerd: browser("workerd"),
};

await runBars({ B11: () => Promise.resolve(measureRuntimes()) });

function measureRuntimes(): void {
  for (const [runtime, [command, ...args]] of Object.entries(COMMANDS)) {
    const env = { ...process.env, NO_COLOR: "1" };
    const { stdout } = spawnSync(command!, args, { cwd: root, env, encoding: "utf8", maxBuffer: 1 << 26 });
    for (const [, line] of stdout.matchAll(/^(?:# )?b11 (\{.*)$/gm)) {
      const { work, unit, per, samples } = JSON.parse(line!);
      record({ bar: "B11", runtime, work, figures: statisticsOf(samples), unit, per });
    }
  }
}
