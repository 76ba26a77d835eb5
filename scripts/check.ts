/**
 * Checks all that can be checked without running the code: `npm run check`.
 *
 *     bun scripts/check.ts [STEP…]    the steps with these names only
 *
 * Each step that fails shows what it printed. The others go on.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { checkApi } from "./api_report.ts";
import { checkColumns } from "./columns.ts";
import { ENTRIES } from "./build.ts";
import { CommandError, run } from "./run.ts";
import { checkSize } from "./size.ts";
import { checkWorkflows } from "./workflows.ts";

/** What Deno checks beside the sources: the others use types of Node or Bun that it does not have. */
const DENO_FILES = "mod.ts src ffi tests bench examples/vault/deno.ts examples/vault/node.ts examples/pipeline.ts"
  .split(" ");

/** The package as npm has it: that it is as other tools expect it, and that TypeScript finds its types. */
function checkPackage(): void {
  const directory = mkdtempSync(join(tmpdir(), "kcapi-check-"));
  try {
    run(["bun", "scripts/build.ts"]);
    const packed = run(["npm", "pack", "--ignore-scripts", "--json", "--pack-destination", directory]);
    const [{ filename }] = JSON.parse(packed) as [{ filename: string }];
    const tarball = join(directory, filename);
    run(["publint", "--strict", tarball]);
    // ESM only: CommonJS loads it by import(), or in Node by require() of a module.
    run(["attw", "--no-color", "--profile", "esm-only", tarball]);
  } finally {
    rmSync(directory, { recursive: true, force: true });
  }
}

const STEPS: Readonly<Record<string, () => unknown>> = {
  "format": () => run(["deno", "fmt", "--check"]),
  "lint": () => run(["deno", "lint"]),
  "columns": checkColumns,
  "types in Deno": () => run(["deno", "check", "--import-map=tests/support/imports.json", ...DENO_FILES]),
  "types": () => run(["tsc", "--noEmit"]),
  "documentation": () => run(["deno", "doc", "--lint", ...ENTRIES]),
  "API report": checkApi,
  "workflows": checkWorkflows,
  "package": checkPackage,
  "size": checkSize,
  "unused": () => run(["knip"]),
};

const names = process.argv.slice(2);
for (const name of names) {
  if (!(name in STEPS)) throw new Error(`no step "${name}": there are ${Object.keys(STEPS).join(", ")}`);
}
for (const [name, step] of Object.entries(STEPS)) {
  if (names.length > 0 && !names.includes(name)) continue;
  try {
    await step();
    console.log(`check: ${name}: passed`);
  } catch (error) {
    process.exitCode = 1;
    if (error instanceof CommandError) process.stdout.write(error.output);
    console.log(`check: ${name}: FAILED: ${(error as Error).message}`);
  }
}
