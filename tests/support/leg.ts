/**
 * The leg that this process belongs to. A leg of `tests/run` is one runtime on one engine.
 */
import process from "node:process";

export type Runtime = "deno" | "bun" | "node";

export const runtime: Runtime = "Bun" in globalThis ? "bun" : "Deno" in globalThis ? "deno" : "node";

/** The engine that the tests use. */
export const engine: "kernel" | "userspace" = process.env.KCAPI_TEST_ENGINE === "kernel" ? "kernel" : "userspace";

/** The command of this runtime, without the script: Deno with all permissions, Node without warnings. */
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

/** The number of random cases: KCAPI_TEST_RUNS, or as `times()` has it. */
export const runs = (few: number, many: number): number => Number(process.env.KCAPI_TEST_RUNS ?? times(few, many));

/** The seed of random cases: FC_SEED repeats a run. */
export const seed = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));

/**
 * Whether this leg runs case `i` of many. The userspace legs and the long tier run all cases. The kernel legs are slow
 * and use the same kernel, so each runtime runs a third of the cases.
 */
export function takes(i: number): boolean {
  return isLong || engine === "userspace" || i % 3 === ["deno", "bun", "node"].indexOf(runtime);
}
