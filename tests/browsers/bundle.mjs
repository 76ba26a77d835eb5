// bundle.mjs DIRECTORY FILE…: bundles test files for browsers and for workerd: `page.js` and `worker.js`. Runs on
// Bun, whose bundler it uses.
import { dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const [directory, ...files] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");

/** What takes the place of modules that browsers cannot run. */
const STANDINS = [[/\/deps\.ts$/, "deps.ts"], [/\/support\/pool\.ts$/, "pool.ts"], [/^node:util$/, "node_util.ts"]];

const { success, logs } = await Bun.build({
  entrypoints: [join(here, "page.ts"), join(here, "worker.ts")],
  outdir: directory,
  target: "browser",
  define: { "process.env.FC_SEED": JSON.stringify(process.env.FC_SEED ?? "") },
  throw: false,
  plugins: [{
    name: "browsers",
    setup(build) {
      build.onResolve({ filter: /^kcapi:tests$/ }, () => ({ path: "tests", namespace: "kcapi" }));
      build.onLoad({ filter: /^tests$/, namespace: "kcapi" }, () => ({
        contents: files.map((file) => `import ${JSON.stringify(file)};\n`).join(""),
        loader: "js",
      }));
      for (const [filter, file] of STANDINS) build.onResolve({ filter }, () => ({ path: join(here, file) }));
      // The bundler has a node:buffer for browsers. Any other module of Node is a mistake in the test file.
      build.onResolve({ filter: /^(?:node:(?!buffer$|util$)|bun:)/ }, ({ path, importer }) => {
        throw new Error(`${relative(root, importer)} imports ${path}, which browsers do not have`);
      });
    },
  }],
});
for (const log of logs) console.error(String(log));
process.exit(success ? 0 : 1);
