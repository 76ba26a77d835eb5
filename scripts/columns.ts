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
  "bench/measure.ts",
  "bench/report.ts",
  "bench/results.md",
  "bench/run",
  "docs/keyring.md",
  "examples/vault/README.md",
  "examples/vault/page.html",
  "src/algorithms.ts",
  "src/bytes.ts",
  "src/cipher/cryptor.ts",
  "src/cipher/streams.ts",
  "src/engines/descriptors.ts",
  "src/engines/kernel.ts",
  "src/engines/mod.ts",
  "src/engines/modes.ts",
  "src/engines/scratch.ts",
  "src/secret.ts",
  "tests/README.md",
  "tests/algorithms_test.ts",
  "tests/native/checking_kcapi.c",
  "tests/children/checked.ts",
  "tests/children/descriptors.ts",
  "tests/children/every_api.ts",
  "tests/children/keyring.ts",
  "tests/children/lazy.ts",
  "tests/children/print.ts",
  "tests/children/unread.ts",
  "tests/coverage",
  "tests/support/deps.ts",
  "tests/docs_test.ts",
  "tests/flow_test.ts",
  "tests/kernel/af-alg",
  "tests/kernel/boot",
  "tests/kernel/fetch",
  "tests/kernel/image",
  "tests/kernel/init",
  "tests/kernel/matrix",
  "tests/kernel/ptrace.c",
  "tests/kernel/qemu.bash",
  "tests/kernel/table.mjs",
  "tests/kernel/uml.bash",
  "tests/support/keyring.ts",
  "tests/keyring_test.ts",
  "tests/support/leg.ts",
  "tests/liveness_test.ts",
  "tests/support/node_suite.mjs",
  "tests/support/pool.ts",
  "tests/pooled_test.ts",
  "tests/support/process_memory.ts",
  "tests/run",
  "tests/sealed_keys_test.ts",
  "tests/sealed_test.ts",
  "tests/support/seccomp.ts",
  "tests/soak.ts",
  "tests/support/std_standins.ts",
  "tests/streams_test.ts",
  "tests/support/summary.mjs",
  "tests/support/support.ts",
  "tests/userspace_test.ts",
  "tests/support/v8_lines.mjs",
  "tests/workers_test.ts",
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
