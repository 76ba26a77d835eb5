/**
 * The imports of every test file: assertions, `test()` for all runtimes, and helpers that do not depend on the runtime.
 *
 * The assertions are those of `@std/assert`. The import map decides where that comes from: for files in tests/ it names
 * `std_standins.ts` (deno.json; tsconfig.json for Bun; node_suite.mjs for Node), so that no test needs the network.
 */
import * as std from "@std/assert";
import { Buffer } from "node:buffer";
import { spawn as spawnProcess } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { loadIfGranted } from "../../ffi/mod.ts";
import { engine, type Runtime, runtime } from "./leg.ts";
import { callsEnded } from "./webcrypto_calls.ts";

export * from "./leg.ts";

// ---- assertions -------------------------------------------------------------------------------------------------

export {
  assert,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";

/** Deep equality. For byte arrays that differ, the message shows the first difference in three lines. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  if (!(actual instanceof Uint8Array && expected instanceof Uint8Array)) {
    return std.assertEquals(actual, expected, message);
  }
  if (Buffer.compare(actual, expected) === 0) return;
  let at = 0;
  while (at < actual.length && actual[at] === expected[at]) at++;
  const show = (bytes: Uint8Array) =>
    `length ${bytes.length}, …${Buffer.from(bytes.subarray(at, at + 16)).toString("hex")}…`;
  throw new std.AssertionError(
    `${message ?? "Bytes differ"}: first at offset ${at}\n  actual:   ${show(actual)}\n  expected: ${show(expected)}`,
  );
}

// The summary of `tests/run` shows what this leg ran on.
if (process.env.KCAPI_RESULTS && (engine === "kernel" || process.env.KCAPI_OWN_KERNEL)) {
  const library = loadIfGranted();
  const version = library instanceof Error ? 0 : library.call.kcapi_version(); // 1.4.0 is 1040000
  const text = [version / 1_000_000, version / 10_000 % 100, version / 100 % 100].map(Math.trunc).join(".");
  // A child process, perhaps of another user, does not overwrite an existing file.
  const file = join(process.env.KCAPI_RESULTS, "library");
  if (version > 0 && !existsSync(file)) writeFileSync(file, `libkcapi ${text}`);
}

// ---- test() -----------------------------------------------------------------------------------------------------

export type TestBody = () => void | Promise<void>;
type Register = (name: string, body: TestBody) => void;

/** Milliseconds. KCAPI_TEST_TIMEOUT, in seconds, is for machines that are very slow. */
const testTimeout = 1000 * Number(process.env.KCAPI_TEST_TIMEOUT ?? 120);

/**
 * The descriptors from before the current test. The runtime may close its own descriptors of earlier tests at any time.
 */
let earlier = new Set<string>();

/**
 * Writes the current test's name for the watchdog of `tests/run`. Synchronous, because the test may block this thread.
 */
function note(running: string): void {
  if (process.env.KCAPI_RESULTS) writeFileSync(join(process.env.KCAPI_RESULTS, "running"), running);
}

/** Fails a test that waits forever. The watchdog of `tests/run` kills a test that blocks the thread. */
function limited(name: string, body: TestBody): () => Promise<void> {
  return async () => {
    note(name);
    earlier = new Set(descriptors());
    let timer: ReturnType<typeof setTimeout> | undefined;
    const timeout = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`Test did not end within ${testTimeout / 1000} s`)), testTimeout);
    });
    try {
      await Promise.race([timeout, body()]);
      await Promise.race([timeout, callsEnded()]); // Deno reports those that end after their test.
    } finally {
      clearTimeout(timer);
      note("");
    }
  };
}

async function registrars(): Promise<{ run: Register; unsanitized: Register; ignore: Register }> {
  if (runtime === "deno") {
    // The library is loaded at its first use and never unloaded. During a test, Deno would report that as a leak.
    loadIfGranted();
    return {
      run: (name, body) =>
        Deno.test({ name, fn: limited(name, body), sanitizeOps: true, sanitizeResources: true, sanitizeExit: true }),
      unsanitized: (name, body) => Deno.test({ name, fn: limited(name, body) }),
      ignore: (name, body) => Deno.test({ name, fn: async () => await body(), ignore: true }),
    };
  }
  if (runtime === "node") {
    const node = await import("node:test");
    const { suite } = globalThis as { suite?: (() => void)[] }; // see node_suite.mjs
    const register = (action: () => void) => void (suite ? suite.push(action) : action());
    const run: Register = (name, body) => register(() => void node.test(name, limited(name, body)));
    return { run, unsanitized: run, ignore: (name, body) => register(() => void node.test.skip(name, body)) };
  }
  const specifier = "bun:test"; // not a literal, or Deno would look for the module
  const bun = await import(specifier);
  const run: Register = (name, body) => bun.test(name, limited(name, body), 2 * testTimeout);
  return {
    run,
    unsanitized: run,
    ignore: (name, body) => bun.test.skip(name, body),
  };
}

const { run, unsanitized, ignore } = await registrars();

/** The requirements of a test. It is skipped with a reason if one is missing. */
export interface Requirements {
  /** The engine. A test that does not depend on the engine has "userspace" here: those legs are faster. */
  engine?: "kernel" | "userspace";
  /** The runtime or runtimes. */
  runtime?: Runtime | readonly Runtime[];
  /** Other requirements, and whether they are met: `{ "an openssl command": hasOpenSSL }`. */
  needs?: Readonly<Record<string, boolean>>;
  /**
   * `false`: Deno does not fail the test for timers, operations or resources that it leaves to the garbage collector.
   */
  sanitize?: boolean;
}

/** Why this leg cannot run a test, or `undefined` if it can. */
export function reasonToSkip({ engine: wanted = engine, runtime: runtimes = runtime, needs = {} }: Requirements):
  | string
  | undefined {
  if (wanted !== engine) {
    return wanted === "kernel"
      ? "needs the kernel engine"
      : "does not depend on the kernel, runs in the userspace legs";
  }
  if (![runtimes].flat().includes(runtime)) return `is for ${[runtimes].flat().join(" and ")}`;
  const missing = Object.keys(needs).filter((name) => !needs[name]);
  return missing.length > 0 ? `needs ${missing.join(" and ")}` : undefined;
}

/** Registers a test that runs everywhere. */
function register(name: string, body: TestBody): void;
/** Registers a test that is skipped with a reason if a requirement is missing. */
function register(name: string, requirements: Requirements, body: TestBody): void;
function register(name: string, ...rest: [TestBody] | [Requirements, TestBody]): void {
  const [requirements, body] = rest.length === 1 ? [{}, rest[0]] : rest;
  const reason = reasonToSkip(requirements);
  if (reason) ignore(`${name} # ${reason}`, body);
  else if (requirements.sanitize ?? true) run(name, body);
  else unsanitized(name, body);
}

/**
 * Registers a test with the runtime: `test(name, body)` or `test(name, { engine, runtime, needs }, body)`.
 *
 * Deno fails a test that leaves timers, operations or resources behind, unless it has `sanitize: false`.
 */
export const test = register;

// ---- helpers ----------------------------------------------------------------------------------------------------

/** The flags with which a Deno with few permissions finds the library of this process. */
export const LIBRARY_FLAGS: readonly string[] = process.env.KCAPI_LIBRARY ? ["--allow-env=KCAPI_LIBRARY"] : [];

/** Returns the number of descriptors that were opened since the start of the test and are still open. */
export function openFiles(): number {
  return descriptors().filter((descriptor) => !earlier.has(descriptor)).length;
}

/** Returns the open descriptors of this process with their targets, without the runner's report file. */
function descriptors(): string[] {
  const directory = "/proc/self/fd";
  return readdirSync(directory).flatMap((fd) => {
    try {
      const file = readlinkSync(join(directory, fd));
      return file.endsWith("/junit.xml") ? [] : [`${fd} ${file}`];
    } catch {
      return []; // The descriptor of the directory itself is closed by now.
    }
  });
}

/** Creates a directory. `tests/run` removes it. */
export function tempDir(): string {
  return mkdtempSync(join(tmpdir(), "kcapi-test-"));
}

export interface SpawnOptions {
  cwd?: string;
  /** Changes to the environment. Undefined removes a variable. */
  env?: Record<string, string | undefined>;
  /** Standard input (default: empty). */
  input?: Uint8Array | string;
  /** Milliseconds until the process is killed (default half of a test's time); the result then has `signal` SIGKILL. */
  timeout?: number;
}

export interface SpawnResult {
  code: number | null;
  signal: string | null;
  /** Standard output as bytes and as text. */
  output: Uint8Array;
  stdout: string;
  stderr: string;
}

/** Runs a command (a program and its arguments, no shell) to its end. Accepts any exit code. */
export function spawn([command = "", ...args]: string[], options: SpawnOptions = {}): Promise<SpawnResult> {
  const { cwd, env, input, timeout = testTimeout / 2 } = options;
  return new Promise((resolve, reject) => {
    const child = spawnProcess(command, args, { ...(cwd ? { cwd } : {}), env: { ...process.env, ...env } });
    const out: Uint8Array[] = [], err: Uint8Array[] = [];
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      // Does not wait for the end of the pipes, because a grandchild may keep them open.
      child.stdout.destroy();
      child.stderr.destroy();
    }, timeout);
    child.stdout.on("data", (chunk: Uint8Array) => out.push(chunk));
    child.stderr.on("data", (chunk: Uint8Array) => err.push(chunk));
    child.stdin.on("error", () => {}); // The child may close its input early.
    child.stdin.end(input);
    child.on("error", (error: Error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.on("close", (code: number | null, signal: string | null) => {
      clearTimeout(timer);
      const output = Buffer.concat(out);
      resolve({ code, signal, output, stdout: output.toString(), stderr: Buffer.concat(err).toString() });
    });
  });
}
