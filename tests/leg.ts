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
