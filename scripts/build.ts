/**
 * Builds what npm publishes, in dist/: compiled modules with their types, the tool, and its man page. npm runs it
 * before it packs.
 *
 *     bun scripts/build.ts
 */
import { chmodSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ROOT, run } from "./run.ts";

const DIST = join(ROOT, "dist");
/** The modules that are exported. */
export const ENTRIES = [
  "mod.ts",
  "src/cli.ts",
  "src/envelope/mod.ts",
  "src/sealed/mod.ts",
  "src/tink/mod.ts",
  "src/workers/cipher_worker.ts",
];

/** tsconfig.json is for checking, and has other options. */
const OPTIONS = {
  outDir: DIST,
  rootDir: ROOT,
  declaration: true,
  rewriteRelativeImportExtensions: true,
  target: "es2024",
  lib: "esnext,dom",
  module: "nodenext",
  types: "bun,deno,node",
  strict: true,
  exactOptionalPropertyTypes: true,
  skipLibCheck: true,
};

function edit(path: string, change: (text: string) => string): void {
  writeFileSync(join(DIST, path), change(readFileSync(join(DIST, path), "utf8")));
}

function build(): void {
  rmSync(DIST, { recursive: true, force: true });
  const options = Object.entries(OPTIONS).flatMap((
    [name, value],
  ) => [`--${name}`, ...(value === true ? [] : [String(value)])]);
  run(["tsc", "--ignoreConfig", ...options, ...ENTRIES]);

  // Projects with an older `lib` have no Disposable. JSR does not take this line in the source. An import for its
  // effect is of no use here, and its module names types of Node.
  for (const entry of ["mod", "src/envelope/mod", "src/sealed/mod", "src/tink/mod"]) {
    const reference = '/// <reference lib="esnext.disposable" />\n';
    edit(`${entry}.d.ts`, (text) => reference + text.replace(/^import ".*$/gm, ""));
  }
  // With "skipLibCheck", TypeScript before 5.7 takes Uint8Array<ArrayBuffer> for any. package.json gives it this
  // instead.
  writeFileSync(join(DIST, "before_typescript_5.7.d.ts"), "// These types need TypeScript 5.7 or later.\nexport {};\n");

  // To the shell, the beginning of the tool is a script that starts a runtime.
  const start = readFileSync(join(ROOT, "scripts/start.sh"), "utf8");
  edit("src/cli.js", (text) => start + text);
  chmodSync(join(DIST, "src/cli.js"), 0o755);
  writeFileSync(join(DIST, "kcapi-streams.1"), run(["bun", "dist/src/cli.js", "man"]));
}

if (import.meta.main) build();
