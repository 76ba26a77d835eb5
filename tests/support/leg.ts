/**
 * What this process is part of: a leg of `tests/run` is one runtime on one engine.
 */
import process from "node:process";

export type Runtime = "deno" | "bun" | "node";

export const runtime: Runtime = "Bun" in globalThis ? "bun" : "Deno" in globalThis ? "deno" : "node";

/** The engine that the tests use. */
export const engine: "kernel" | "userspace" = process.env.KCAPI_TEST_ENGINE === "kernel" ? "kernel" : "userspace";

/** The command that runs a script on this runtime, without the script: Deno with all permissions, Node without warnings. */
export const runtimeArgv: readonly string[] = [
  process.execPath,
  ...{ deno: ["run", "--no-check", "-A"], bun: [], node: ["--disable-warning=ExperimentalWarning"] }[runtime],
];

/** Whether the tests may change kernel settings: they run as root in a guest that `tests/run` started. */
export const ownsKernel: boolean = engine === "kernel" && process.env.KCAPI_OWN_KERNEL !== undefined &&
  process.getuid?.() === 0;

/** The long tier runs every loop in full: `npm run test:long`. */
const isLong = process.env.KCAPI_TEST_LONG !== undefined;

/** How often a loop runs: `few` times, enough to fail when the code is broken, or `many` times in the long tier. */
export const times = (few: number, many: number): number => isLong ? many : few;

/**
 * Whether this leg takes case `i` of many: all of them in the userspace legs and in the long tier. The kernel legs are slow,
 * and the kernel is the same for all runtimes: there each runtime takes a third.
 */
export function takes(i: number): boolean {
  return isLong || engine === "userspace" || i % 3 === ["deno", "bun", "node"].indexOf(runtime);
}
