// node_suite.mjs FILE…: runs test files on Node, in one process. Their tests are registered when all files are loaded (see
// deps.ts): the runner would end when those that it knows have ended.
// (`node --test` has a process for each file, which takes long in a guest, or with --test-isolation=none passes over a
// file that cannot be loaded.)
import { resolve } from "node:path";
import process from "node:process";
import { pathToFileURL } from "node:url";

globalThis.suite = [];
try {
  for (const file of process.argv.slice(2)) await import(pathToFileURL(resolve(file)).href);
} catch (error) {
  console.error(error);
  process.exit(1);
}
for (const register of globalThis.suite) register();
