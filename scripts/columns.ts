/**
 * Checks that code and comments stay within 120 columns: the formatter does not wrap comments, nor any file but its
 * own.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./run.ts";

const WIDTH = 120;
const FOLDERS = ["src", "ffi", "tests", "scripts", "docs", "bench", "examples", ".github"];
const FILES = ["mod.ts", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".ci/run"];
/** Text that people write. What is in tests/kernel and beside it without an ending is shell. */
const WRITTEN = /(?:\.(?:ts|mjs|js|sh|bash|py|c|md|yml|html)|\/[^./]+)$/;

/** A table of Markdown, a title of a test, or an address cannot be wrapped. */
const UNWRAPPED = /^\s*\||https?:\/\/\S{40}|^\s*(?:\w+(?:\.\w+)*\()?["'`]|\btest(?:\.\w+)*(?:\([^"'`]*\))?\($/;
const TITLE = /^\s*[\w.]+\(.*?["'`]/;

/** Files that have longer lines still. Take a file out when it has none. */
const NOT_YET: ReadonlySet<string> = new Set([
  "README.md",
  "bench/report.ts",
  "bench/results.md",
  "bench/run",
  "docs/keyring.md",
  "examples/vault/README.md",
  "examples/vault/page.html",
  "tests/algorithms_test.ts",
  "tests/coverage",
  "tests/docs_test.ts",
  "tests/flow_test.ts",
  "tests/kernel/boot",
  "tests/kernel/uml.bash",
  "tests/keyring_test.ts",
  "tests/run",
  "tests/userspace_test.ts",
]);

/** @throws {Error} With each line that is too long. */
export function checkColumns(): void {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name).slice(ROOT.length + 1))
  ).filter((path) => WRITTEN.test(path));
  const long = [...FILES, ...files].filter((path) => !NOT_YET.has(path)).flatMap((path) =>
    readFileSync(join(ROOT, path), "utf8").split("\n").flatMap((line, i) =>
      [...line].length > WIDTH && !UNWRAPPED.test(line) && !TITLE.test(line)
        ? [`${path}:${i + 1}: ${[...line].length}`]
        : []
    )
  );
  if (long.length > 0) throw new Error(`lines of more than ${WIDTH} columns:\n${long.join("\n")}`);
}
