// bundle.mjs [--plain] DIRECTORY FILE…: bundles test files for browsers and for workerd: `page.js` and `worker.js`.
// With --plain, `page.js` imports the package's modules from /dist, as they are. Runs on Bun, whose bundler it uses.
import { dirname, join, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const isPlain = process.argv[2] === "--plain";
const [directory, ...files] = process.argv.slice(isPlain ? 3 : 2);
const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");

/** What takes the place of modules that browsers cannot run. */
const STANDINS = [
  [/\/deps\.ts$/, "deps.ts"],
  [/\/support\/pool\.ts$/, "pool.ts"],
  [/^node:util$/, "node_util.ts"],
  [/\/sealed_files\.ts$/, process.env.KCAPI_PAIRS ?? ""], // of tests/pairs
];

/** The URL of a module of the package or of jose, which the bundle leaves out. */
function plainURL(path, importer) {
  if (path === "jose") return path; // the page has an import map
  const inRoot = relative(root, resolve(dirname(importer), path));
  return /^(?:mod\.ts$|src\/)/.test(inRoot) ? `/dist/${inRoot.replace(/\.ts$/, ".js")}` : undefined;
}

const { success, logs } = await Bun.build({
  entrypoints: [join(here, "page.ts"), ...(isPlain ? [] : [join(here, "worker.ts")])],
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
      for (const [filter, file] of STANDINS) build.onResolve({ filter }, () => ({ path: resolve(here, file) }));
      if (isPlain) {
        build.onResolve({ filter: /^(?:\..*\.ts|jose)$/ }, ({ path, importer }) => {
          const url = plainURL(path, importer);
          return url && { path: url, external: true };
        });
      }
      // The bundler has a node:buffer for browsers. Any other module of Node is a mistake in the test file.
      build.onResolve({ filter: /^(?:node:(?!buffer$|util$)|bun:)/ }, ({ path, importer }) => {
        throw new Error(`${relative(root, importer)} imports ${path}, which browsers do not have`);
      });
    },
  }],
});
for (const log of logs) console.error(String(log));
process.exit(success ? 0 : 1);
