/**
 * Runs test files in Chromium, Firefox, WebKitGTK and workerd: `tests/browsers/run`.
 *
 * Each host is a leg, as `tests/run` has them: a directory with `junit.xml`, `code`, `running` and `browser`, or with
 * `skipped`, the reason why it was not run.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { once } from "node:events";
import { appendFileSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { availableParallelism, tmpdir } from "node:os";
import { dirname, join, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { json } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Command, type Host, HOSTS, WORKERD } from "./hosts.ts";
import { answerFile } from "./http_file_routes.ts";
import type { Report } from "./runner.ts";

const USAGE = `run [options] [TEST FILE…]: runs tests in browsers and in workerd

  --browser NAME       chromium, firefox, webkit or workerd; or chromium-modules or firefox-modules, where the
                       package is not bundled (repeatable; default: all, and with test files those that bundle)
  --filter TEXT        only tests with TEXT in their names
  --results DIRECTORY  leaves a directory for each browser there, and the summary to the caller
  --limit SECONDS      kills a browser that has reported nothing for so long (150)

A browser that is not installed is skipped by name. Default: those of SUITE in run.ts, and tests/browsers/*_test.ts
`;

/** The tests of tests/ that browsers can run. */
const SUITE = [
  "envelope",
  "http_answers",
  "rotation",
  "sealed",
  "sealed_damage",
  "sealed_entry",
  "sealed_range",
  "sealed_reader",
  "sealed_reads",
  "sealed_webcrypto",
  "tink_keyset",
  "webcrypto",
  "zero_key",
];

const here = dirname(fileURLToPath(import.meta.url));
const root = resolve(here, "../..");
const BUNDLED = [...HOSTS.map(({ name }) => name), WORKERD.name];
/** Legs whose pages import the package's modules as they are in dist/. */
const PLAIN = ["chromium-modules", "firefox-modules"];
const NAMES = [...BUNDLED, ...PLAIN];

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    browser: { type: "string", multiple: true, default: [] },
    filter: { type: "string", default: "" },
    results: { type: "string" },
    limit: { type: "string", default: "150" },
    help: { type: "boolean", default: false },
  },
});
const unknown = options.browser.filter((name) => !NAMES.includes(name));
if (options.help || unknown.length > 0 || !(Number(options.limit) > 0)) {
  console.error(unknown.length > 0 ? `run: no browser is called ${unknown.join(", ")}\n\n${USAGE}` : USAGE);
  process.exit(options.help ? 0 : 2);
}
const files = positionals.length > 0
  ? positionals.map((file) => resolve(file))
  : [...SUITE.map((name) => join(root, `tests/${name}_test.ts`)), ...globSync(join(here, "*_test.ts")).sort()];

const chosen = options.browser.length > 0 ? options.browser : positionals.length > 0 ? BUNDLED : NAMES;
const legs = NAMES.filter((name) => chosen.includes(name));

const QUERY = `?filter=${encodeURIComponent(options.filter)}`;

const work = mkdtempSync(join(tmpdir(), "kcapi-browsers-"));
const results = resolve(options.results ?? join(work, "results"));
/** The browsers that are running. */
const children = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(130));
process.on("exit", () => {
  for (const child of children) kill(child, "SIGKILL");
  rmSync(work, { recursive: true, force: true, maxRetries: 5 });
});

// ---- Bundling ---------------------------------------------------------------------------------------------------

/** Leaves `page.js` and `worker.js` in `work`, and in `plain/` there the page that imports from dist/. */
function bundle(): void {
  bun(join(here, "bundle.mjs"), work, ...files);
  if (!legs.some((name) => PLAIN.includes(name))) return;
  bun(join(root, "scripts/build.ts"));
  bun(join(here, "bundle.mjs"), "--plain", join(work, "plain"), ...files);
}

function bun(...args: string[]): void {
  if (spawnSync("bun", args, { stdio: "inherit" }).status !== 0) process.exit(1);
}

// ---- A leg ------------------------------------------------------------------------------------------------------

/**
 * Runs all tests in one host and leaves its directory.
 *
 * @param print Writes a line to the terminal.
 */
async function run(leg: string, print: (line: string) => void): Promise<void> {
  const directory = join(results, leg);
  rmSync(directory, { recursive: true, force: true });
  mkdirSync(directory, { recursive: true });
  const isPlain = PLAIN.includes(leg);
  const browser = HOSTS.find(({ name }) => name === leg.replace("-modules", ""));
  const host = browser ?? WORKERD;
  if (!host.program) {
    writeFileSync(join(directory, "skipped"), host.missing);
    print(`${leg}: skipped, ${host.missing}`);
    return;
  }
  const version = host.version();
  print(`======== ${leg} (${version}) ========`);
  writeFileSync(join(directory, "browser"), version);
  const record = new Recorder(directory, print);
  const code = await (browser ? runBrowser(browser, isPlain ? join(work, "plain") : work, record) : runWorkerd(record));
  writeFileSync(join(directory, "code"), String(code));
}

/** Writes what is reported to `junit.xml`, and to the terminal. */
class Recorder {
  /** Settles when the host has reported all, is silent for too long, or has ended: the leg's exit code. */
  readonly code: Promise<number>;
  readonly #directory: string;
  readonly #print: (line: string) => void;
  readonly #settle: (code: number) => void;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #failed = 0;
  #isOver = false;

  constructor(directory: string, print: (line: string) => void) {
    ({ promise: this.code, resolve: this.#settle } = Promise.withResolvers<number>());
    this.#directory = directory;
    this.#print = print;
    this.#write('<?xml version="1.0" encoding="UTF-8"?>\n<testsuites>\n<testsuite name="browsers">\n');
    this.#wait();
  }

  report(report: Report): void {
    if (this.#isOver) return;
    this.#wait();
    if (report.kind === "done") return this.#end();
    const { kind, text } = report;
    if (kind === "start") return writeFileSync(join(this.#directory, "running"), text);
    if (kind === "end") writeFileSync(join(this.#directory, "running"), "");
    if (kind === "log") return this.#print(text);
    if (kind === "broken") return this.fail(text);
    if (kind === "stray") {
      this.#failed++;
      return this.#print(`outside of the tests: ${text}`);
    }
    const error = kind === "end" ? report.error : undefined;
    const seconds = kind === "end" ? report.milliseconds / 1000 : 0;
    const body = kind === "skip" ? "<skipped/>" : error === undefined ? "" : `<failure>${escape(error)}</failure>`;
    this.#write(`<testcase name="${escape(text)}" time="${seconds.toFixed(3)}">${body}</testcase>\n`);
    if (error !== undefined) this.#failed++;
    this.#print(
      kind === "skip" ? `skipped: ${text}` : error === undefined ? `ok: ${text}` : `FAILED: ${text}\n${error}`,
    );
  }

  /** The host cannot report any more. Says so, unless it has reported all. */
  fail(reason: string): void {
    if (this.#isOver) return;
    this.#print(reason);
    this.#over(1);
  }

  #end(): void {
    this.#write("</testsuite>\n</testsuites>\n");
    this.#over(this.#failed === 0 ? 0 : 1);
  }

  #over(code: number): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#settle(code);
  }

  /** Waits for the next report. */
  #wait(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#print(`killed: it has reported nothing for ${options.limit} s`);
      this.#over(124);
    }, 1000 * Number(options.limit));
  }

  #write(text: string): void {
    appendFileSync(join(this.#directory, "junit.xml"), text);
  }
}

/** Text for an XML attribute or element; characters that XML cannot have are replaced. */
function escape(text: string): string {
  // deno-lint-ignore no-control-regex
  return text.replace(/[\x00-\x08\x0b\x0c\x0e-\x1f]/g, "\ufffd").replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** @param site The directory of the page. */
async function runBrowser(host: Host, site: string, record: Recorder): Promise<number> {
  // Another origin, for the tests of HTTP.
  const other = createServer((request, response) => void (answerFile(request, response) || response.destroy()));
  const otherOrigin = `http://127.0.0.1:${await listen(other)}`;
  const server = createServer((request, response) => answer(request, response, site, record, otherOrigin));
  const port = await listen(server);
  const child = start(host.command(`http://127.0.0.1:${port}/${QUERY}`, mkdtempSync(join(work, "profile-"))), record);
  const code = await record.code;
  await stop(child);
  for (const each of [server, other]) {
    each.closeAllConnections();
    each.close();
  }
  return code;
}

async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** Where plain modules find `jose`, which envelopes import. */
const IMPORT_MAP = JSON.stringify({ imports: { jose: "/node_modules/jose/dist/webapi/index.js" } });
const PAGE = `<!doctype html><meta charset="utf-8"><title>tests</title><script type="importmap">${IMPORT_MAP}</script>
<script type="module" src="/page.js"></script>`;
/** The strictest policy with which the tests can be loaded, and report. */
const policyFor = (otherOrigin: string) =>
  `default-src 'none'; connect-src 'self' ${otherOrigin}; ` +
  `script-src 'self' 'sha256-${createHash("sha256").update(IMPORT_MAP).digest("base64")}'`;
/** The modules that a page without a bundle imports. */
const MODULES = /^\/(?:dist|node_modules\/jose)\/[\w/-]+\.js$/;

/** Serves the page and its modules, and takes its reports. */
async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  site: string,
  record: Recorder,
  otherOrigin: string,
): Promise<void> {
  if (request.url === "/report") {
    record.report(await json(request) as Report);
    response.end();
  } else if (request.url === "/page.js" || MODULES.test(request.url ?? "")) {
    const file = join(request.url === "/page.js" ? site : root, request.url!);
    response.setHeader("content-type", "text/javascript").end(readFileSync(file));
  } else if (request.url === `/${QUERY}`) {
    response.setHeader("content-type", "text/html").setHeader("content-security-policy", policyFor(otherOrigin))
      .end(PAGE);
  } else if (request.url === "/other-origin") {
    response.end(otherOrigin);
  } else if (!answerFile(request, response)) {
    response.writeHead(404).end();
  }
}

async function runWorkerd(record: Recorder): Promise<number> {
  const child = start(WORKERD.command(work), record);
  // A line of JSON for each socket, with the port that the system chose.
  const control = createInterface({ input: child.stdio[3] as Readable });
  control.once("line", async (line) => {
    try {
      const { body } = await fetch(`http://127.0.0.1:${JSON.parse(line).port}/${QUERY}`);
      for await (const report of createInterface({ input: Readable.fromWeb(body as never) })) {
        record.report(JSON.parse(report));
      }
      record.fail("the response has ended before the tests");
    } catch (error) {
      record.fail(String(error));
    }
  });
  const code = await record.code;
  await stop(child);
  return code;
}

// ---- Processes --------------------------------------------------------------------------------------------------

/** Starts a program in a process group of its own, with a third pipe for workerd. Its output is shown if it fails. */
function start({ argv: [program, ...args], env }: Command, record: Recorder): ChildProcess {
  const started = spawn(program!, args, {
    detached: true,
    env: { ...process.env, ...env },
    stdio: ["ignore", "pipe", "pipe", "pipe"],
  });
  children.add(started);
  let output = "";
  for (const stream of [started.stdout, started.stderr]) {
    stream?.setEncoding("utf8").on("data", (text: string) => output = (output + text).slice(-10_000));
  }
  started.on("exit", (code, signal) => {
    if (!children.has(started)) return; // it was stopped
    record.fail(`${program} has ended with ${code ?? signal}\n${output}`);
  });
  return started;
}

/** Ends the program and the processes that it started. One that blocks its thread ignores SIGTERM. */
async function stop(stopped: ChildProcess): Promise<void> {
  children.delete(stopped);
  if (stopped.exitCode === null && stopped.signalCode === null) {
    const exited = once(stopped, "exit");
    kill(stopped, "SIGTERM");
    const timer = setTimeout(() => kill(stopped, "SIGKILL"), 2_000);
    await exited;
    clearTimeout(timer);
  }
  // xvfb-run ends before its display does, which has files to remove.
  for (let i = 0; i < 40 && kill(stopped, 0); i++) await new Promise((resolve) => setTimeout(resolve, 50));
  kill(stopped, "SIGKILL");
}

/** Sends a signal to a program and the processes that it started; whether there are any. */
function kill({ pid }: ChildProcess, signal: NodeJS.Signals | 0): boolean {
  try {
    return pid !== undefined && process.kill(-pid, signal);
  } catch {
    return false;
  }
}

// ---- Main --------------------------------------------------------------------------------------------------------

bundle();
// WebKit takes longest. As many run at once as there are CPUs; each then shows its output at its end.
const waiting = legs.toSorted((a, b) => Number(b === "webkit") - Number(a === "webkit"));
async function runNext(): Promise<void> {
  for (let leg = waiting.shift(); leg !== undefined; leg = waiting.shift()) {
    const lines: string[] = [];
    await run(leg, legs.length === 1 ? console.log : (line) => void lines.push(line));
    if (lines.length > 0) console.log(lines.join("\n"));
  }
}
await Promise.all(Array.from({ length: availableParallelism() }, runNext));
if (options.results === undefined) {
  const summary = join(root, "tests/support/summary.mjs");
  const { status } = spawnSync("node", [summary, results, "", options.filter, ...legs], { stdio: "inherit" });
  process.exit(status ?? 1);
}
process.exit(0);
