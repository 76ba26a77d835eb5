/**
 * The package in browsers and in workerd: as esbuild, Vite, webpack and Bun bundle it, and as it is, as plain modules.
 * What it does there is tested by `browsers/*_test.ts`, which the runner bundles.
 */
import { cpSync, mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from "node:fs";
import { networkInterfaces } from "node:os";
import { join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { HOSTS, WORKERD } from "./browsers/hosts.ts";
import { pageOf, reportsOf, type Site } from "./support/browser_page.ts";
import { assert, assertEquals, assertStringIncludes, spawn, tempDir, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** A program that uses both entries, and gives what came out. */
const PROGRAM = `
import { EncryptionStream, openSealed, SealStream, UnsealStream } from "@kcapi/streams";
import * as sealed from "@kcapi/streams/sealed";

export async function use() {
  const key = new Uint8Array(32).fill(7);
  const stream = new Blob(["attack at dawn"]).stream().pipeThrough(new SealStream({ key }));
  const file = await new Response(stream).blob();
  const text = await new Response(file.stream().pipeThrough(new sealed.UnsealStream({ key }))).text();
  const reader = await sealed.openSealed(file, { key });
  const other = await openSealed(file, { key });
  const end = new TextDecoder().decode(await reader.bytes(-4)) + new TextDecoder().decode(await other.bytes(0, 6));
  let bare = "runs";
  try {
    new EncryptionStream("ctr(aes)", { key, iv: new Uint8Array(16) });
  } catch ({ name, code }) {
    bare = name + " " + code;
  }
  return { text, end, engine: new UnsealStream({ key }).engine, bare };
}
`;
const EXPECTED = { text: "attack at dawn", end: "dawnattack", engine: "webcrypto", bare: "KcapiError ENOSYS" };

const page = (name: string) => `
import { use } from "./program.js";
const report = (result) => fetch("/report", { method: "POST", body: JSON.stringify({ name: "${name}", result }) });
use().then(report, (error) => report(String(error && error.stack || error)));
`;

/** The package as npm has it, and a project that uses it. */
async function makeProject(): Promise<string> {
  const checkout = join(tempDir(), "checkout");
  const project = join(tempDir(), "project");
  for (const path of ["mod.ts", "ffi", "scripts", "src", "package.json"]) {
    cpSync(join(root, path), join(checkout, path), { recursive: true });
  }
  symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"));
  await run(checkout, [process.execPath, "scripts/build.ts"]);
  mkdirSync(join(project, "node_modules/@kcapi/streams"), { recursive: true });
  for (const path of ["dist", "package.json"]) {
    cpSync(join(checkout, path), join(project, "node_modules/@kcapi/streams", path), { recursive: true });
  }
  writeFileSync(join(project, "package.json"), '{ "type": "module" }');
  writeFileSync(join(project, "program.js"), PROGRAM);
  writeFileSync(join(project, "worker.js"), WORKER);
  return project;
}

async function run(cwd: string, argv: string[]): Promise<string> {
  const { code, stdout, stderr } = await spawn(argv, { cwd, env: { NODE_ENV: "production" } });
  assertEquals(code, 0, `${argv.join(" ")}: ${stdout}${stderr}`);
  assert(!/warning/i.test(stdout + stderr), `${argv.join(" ")}: ${stdout}${stderr}`);
  return stdout;
}

const bin = (name: string) => join(root, "node_modules/.bin", name);

/** Each bundles `NAME/page.js` and writes its files to `NAME/out`. */
const BUNDLERS: Readonly<Record<string, (project: string) => Promise<unknown>>> = {
  bun: (project) =>
    run(project, [process.execPath, "build", "bun/page.js", "--target", "browser", "--outdir", "bun/out"]),
  esbuild: (project) =>
    run(project, [
      bin("esbuild"),
      ..."esbuild/page.js --bundle --splitting --format=esm --minify --outdir=esbuild/out".split(" "),
    ]),
  vite: (project) => {
    writeFileSync(join(project, "vite/index.html"), pageOf("./page.js"));
    return run(project, [bin("vite"), ..."build vite --outDir out --base /vite/out/".split(" ")]);
  },
  webpack: (project) => {
    const config = {
      mode: "production",
      entry: "./webpack/page.js",
      output: { path: join(project, "webpack/out"), filename: "page.js", publicPath: "/webpack/out/" },
      performance: { hints: false },
    };
    writeFileSync(
      join(project, "webpack/run.mjs"),
      `import webpack from ${JSON.stringify(join(root, "node_modules/webpack/lib/index.js"))};
webpack(${JSON.stringify(config)}, (error, stats) => {
  const { errors, warnings } = error ? { errors: [error], warnings: [] } : stats.toJson();
  for (const { message, moduleName } of [...errors, ...warnings]) console.error("warning:", moduleName, message);
  process.exitCode = errors.length;
});
`,
    );
    return run(project, [bin("node"), "webpack/run.mjs"]);
  },
};

/** Starts a Worker, for whose URL the policy demands a trusted type where the browser has them. */
const START = `
const url = "/plain/worker.js";
const trusted = globalThis.trustedTypes?.createPolicy("page", { createScriptURL: (url) => url }).createScriptURL(url);
new Worker(trusted ?? url, { type: "module" });
`;

/** Plain modules: the files of the package with their names as a server has them; in a page, and in a Worker. */
function plain(project: string): void {
  writeFileSync(join(project, "plain/start.js"), START);
  writeFileSync(join(project, "plain/worker.js"), page("worker"));
  const program = PROGRAM
    .replace('"@kcapi/streams"', '"/node_modules/@kcapi/streams/dist/mod.js"')
    .replace('"@kcapi/streams/sealed"', '"/node_modules/@kcapi/streams/dist/src/sealed/mod.js"');
  writeFileSync(join(project, "plain/program.js"), program);
}

/** All files of a directory, by the path at which a server has them. */
function siteOf(directory: string): Record<string, Uint8Array> {
  const files = readdirSync(directory, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
  const paths = files.map(({ parentPath, name }) => join(parentPath, name));
  return Object.fromEntries(paths.map((path) => [`/${relative(directory, path)}`, readFileSync(path)]));
}

interface Built {
  readonly project: string;
  readonly site: Site;
  /** The modules that a page loads, by the name of the bundler. */
  readonly pages: Readonly<Record<string, string>>;
}

async function build(): Promise<Built> {
  const project = await makeProject();
  const names = [...Object.keys(BUNDLERS), "plain"];
  for (const name of names) {
    mkdirSync(join(project, name));
    writeFileSync(join(project, name, "page.js"), page(name));
    writeFileSync(join(project, name, "program.js"), PROGRAM);
  }
  plain(project);
  for (const bundle of Object.values(BUNDLERS)) await bundle(project);
  const [, vite] = /src="([^"]+)"/.exec(readFileSync(join(project, "vite/out/index.html"), "utf8"))!;
  const pages = Object.fromEntries(names.map((name) => [name, `/${name}/${name === "plain" ? "" : "out/"}page.js`]));
  return { project, site: siteOf(project), pages: { ...pages, vite: vite!, worker: "/plain/start.js" } };
}

let built: Promise<Built> | undefined;

// Which runtime starts the bundlers makes no difference.
const once = (needs: Record<string, boolean>) => ({ engine: "userspace", runtime: "bun", needs } as const);

for (const browser of HOSTS) {
  const needs = { [browser.missing.replace("needs ", "")]: browser.program !== undefined };

  test(`${browser.name}: bundles and plain modules run under a strict policy`, once(needs), async () => {
    const { site, pages } = await (built ??= build());
    const page = pageOf(...Object.values(pages));
    const reports = await reportsOf(browser, { ...site, "/": page }, Object.keys(pages).length);
    for (const name of Object.keys(pages)) {
      const { result } = (reports as { name: string; result: unknown }[]).find((report) => report.name === name)!;
      assertEquals(result, EXPECTED, `${browser.name}, ${name}: ${JSON.stringify(result)}`);
    }
  });
}

const webkit = HOSTS.find(({ name }) => name === "webkit")!;
const address = Object.values(networkInterfaces()).flat().find((each) => each?.family === "IPv4" && !each.internal);
const insecure = { "WebKitGTK": webkit.program !== undefined, "a network address": address !== undefined };

test("a page that is not from HTTPS or localhost gets an error that says so", once(insecure), async () => {
  const { site } = await (built ??= build());
  const script = `import { SealStream, openSealed } from "/node_modules/@kcapi/streams/dist/src/sealed/mod.js";
const errors = [];
const key = new Uint8Array(32).fill(7);
try { new SealStream({ key }); } catch (error) { errors.push(error.message); }
const file = new Blob([new Uint8Array(72).fill(40, 0, 1)]); // a header begins with its length
await openSealed(file, { key }).catch((error) => errors.push(error.message));
await fetch("/report", { method: "POST", body: JSON.stringify({ isSecureContext, errors }) });`;
  const pages = { ...site, "/": pageOf("/insecure.js"), "/insecure.js": script };
  const [report] = await reportsOf(webkit, pages, 1, address!.address) as [
    { isSecureContext: boolean; errors: string[] },
  ];
  assertEquals([report.isSecureContext, report.errors.length], [false, 2]);
  for (const error of report.errors) assertStringIncludes(error, "serve the page over HTTPS, or from localhost");
});

/** Each of its tests has a context of its own, as requests have. */
const WORKER = `
import { use } from "./program.js";

let results = [];
const test = (last) => ({
  async test() {
    results.push(await use());
    if (last) console.log(JSON.stringify(results));
  },
});
export const a = test(false);
export const b = test(false);
export const c = test(true);
`;

const hasWorkerd = { [WORKERD.missing.replace("needs ", "")]: WORKERD.program !== undefined };

for (
  const [flags, expected] of [["", EXPECTED], ["nodejs_compat", { ...EXPECTED, engine: "userspace", bare: "runs" }]]
) {
  test(
    `workerd ${flags ? `with ${flags}` : "without flags"}: a bundle runs in each request`,
    once(hasWorkerd),
    async () => {
      const { project } = await (built ??= build());
      const directory = join(project, `workerd${flags}`);
      await run(project, [
        bin("esbuild"),
        ...`worker.js --bundle --format=esm --conditions=workerd --outfile=${directory}/worker.js`.split(" "),
      ]);
      writeFileSync(
        join(directory, "config.capnp"),
        `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "main", worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-06-01", compatibilityFlags = ${JSON.stringify(flags ? [flags] : [])}))]);`,
      );
      const { code, stdout, stderr } = await spawn([WORKERD.program!, "test", join(directory, "config.capnp")]);
      assertEquals(code, 0, stdout + stderr);
      const line = (stdout + stderr).split("\n").find((line) => line.startsWith("["))!;
      assertEquals(JSON.parse(line), [expected, expected, expected]);
    },
  );
}
