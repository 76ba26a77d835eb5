/**
 * Checks that code and text stay within 120 columns. The formatter does not wrap comments and strings, and does not
 * know shell, Python and C.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT } from "./run.ts";

const WIDTH = 120;
const FOLDERS = ["src", "ffi", "tests", "scripts", "docs", "bench", "examples", ".github"];
const FILES = ["mod.ts", "README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", ".ci/run"];
/** The names of files that people write. A file without an extension is a shell script. */
const WRITTEN = /(?:\.(?:ts|mjs|js|sh|bash|py|c|md|yml|html)|\/[^./]+)$/;

/** A row of a Markdown table, or a URL. */
const UNWRAPPED = /^\s*\||https?:\/\/\S{40}/;
/** A string in a test, such as its title or expected output. */
const TEST_STRING = /^\s*(?:[\w.]+\(.*?)?["'`]/;

/** @throws {Error} With each line that is too long. */
export function checkColumns(): void {
  const files = FOLDERS.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile()).map(({ parentPath, name }) => join(parentPath, name).slice(ROOT.length + 1))
  ).filter((path) => WRITTEN.test(path));
  const long = [...FILES, ...files].flatMap((path) =>
    readFileSync(join(ROOT, path), "utf8").split("\n").flatMap((line, i) =>
      [...line].length > WIDTH && !UNWRAPPED.test(line) && !(path.startsWith("tests/") && TEST_STRING.test(line))
        ? [`${path}:${i + 1}: ${[...line].length}`]
        : []
    )
  );
  if (long.length > 0) throw new Error(`lines of more than ${WIDTH} columns:\n${long.join("\n")}`);
}
