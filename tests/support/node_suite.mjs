// node_suite.mjs FILE…: runs test files on Node in one process. Tests are registered after all files are loaded (see
// deps.ts), because the runner ends when all registered tests have ended. `node --test` starts a process for each file,
// which is slow in a guest. With --test-isolation=none it ignores a file that cannot be loaded.
import { readFileSync } from "node:fs";
import { registerHooks } from "node:module";
import { resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

// Node has no import maps.
const map = new URL("imports.json", import.meta.url);
const { imports } = JSON.parse(readFileSync(map, "utf8"));
registerHooks({
  resolve: (name, context, next) =>
    next(imports[name]?.startsWith(".") ? new URL(imports[name], map).href : name, context),
});

globalThis.suite = [];
try {
  for (const file of process.argv.slice(2)) await import(pathToFileURL(resolve(file)).href);
} catch (error) {
  console.error(error);
  process.exit(1);
}
for (const register of globalThis.suite) register();
