/**
 * Finds libkcapi and loads it, on first use and once per process, through the adapter of the runtime at hand.
 *
 * @module
 */

import { KcapiError, tooOld } from "../src/errors.ts";
import { type Adapter, type Library, unzeroed } from "./adapter.ts";
import { bunAdapter, type BunFFI, type BunSystem } from "./bun.ts";
import { denoAdapter } from "./deno.ts";
import { nodeAdapter, type NodeFFI, type NodeSystem } from "./node.ts";

/** What all runtimes have of Node's; looked up when needed, for modules of Node's take Deno long to start with. */
interface NodeGlobals {
  readonly process?: BunSystem & NodeSystem & {
    readonly platform: string;
    readonly versions: Readonly<Record<string, string>>;
  };
  setImmediate(callback: () => void): unknown;
}

// Without it nothing works later on: Node before 22.3. Deno has it, and is slow to tell.
if (!("Deno" in globalThis) && (globalThis as unknown as NodeGlobals).process?.getBuiltinModule === undefined) {
  throw tooOld("getBuiltinModule");
}

let adapter: Adapter | undefined;
let library: Library | undefined;

function currentAdapter(): Adapter | undefined {
  if (adapter) return adapter;
  if ("Deno" in globalThis) return adapter = denoAdapter(Deno);
  const { process } = globalThis as unknown as NodeGlobals;
  const bunFFI = process?.getBuiltinModule("bun:ffi") as BunFFI | undefined;
  if (bunFFI) return adapter = bunAdapter(bunFFI, process!);
  const nodeFFI = process && nodeFFIOf(process);
  return nodeFFI && (adapter = nodeAdapter(nodeFFI, process));
}

/** `node:ffi`, loaded when it is first used, where this Node has it. */
function nodeFFIOf({ getBuiltinModule }: NodeSystem): NodeFFI | undefined {
  const { isBuiltin } = getBuiltinModule("node:module") as typeof import("node:module");
  const ffi = () => getBuiltinModule("node:ffi") as NodeFFI;
  if (!isBuiltin("node:ffi")) return undefined;
  return {
    get dlopen() {
      return ffi().dlopen;
    },
    get getRawPointer() {
      return ffi().getRawPointer;
    },
  };
}

/** The library if it may be loaded without asking the user for a permission; else the reason, as an error. */
export function loadIfGranted(): Library | KcapiError {
  try {
    return loadFrom(currentAdapter(), false);
  } catch (error) {
    if (error instanceof KcapiError) return error;
    throw error;
  }
}

/**
 * The library, loaded now if it was not before. In Deno this may ask the user for the permission.
 *
 * @throws {KcapiError} ELIBACC where no library could be loaded, EACCES where FFI is not permitted; the message
 * lists what was tried, the cause is the runtime's own error.
 */
export function load(): Library {
  return loadFrom(currentAdapter(), true);
}

function loadFrom(from: Adapter | undefined, mayAsk: boolean): Library {
  return library ??= open(from, mayAsk);
}

/** Tries KCAPI_LIBRARY, then the system's library. Exported for its tests, which hand in fake adapters. */
export function open(from: Adapter | undefined, mayAsk: boolean): Library {
  if (!from) {
    throw new KcapiError("ELIBACC", "dlopen", "this runtime has no foreign function interface this module knows", {
      hint: "use Deno, Bun or Node 26.9 (from 26.1 on with --experimental-ffi), or the userspace engine",
    });
  }
  const named = from.environment("KCAPI_LIBRARY");
  const paths = named ? [named, ...from.paths] : from.paths;
  const granted = paths.filter((path) => from.mayLoad(path));
  if (granted.length === 0 && !mayAsk) throw notPermitted(paths);
  const mustAsk = granted.length === 0;
  const failures: string[] = [];
  let cause: unknown;
  // Where the attempt itself would show: a question to the user, or in Node a warning that nobody asked for.
  const looksFirst = mustAsk || !mayAsk;
  for (const path of mustAsk ? paths : granted) {
    if (looksFirst && from.mayExist?.(path) === false) {
      failures.push(`${path}: not found`);
      continue;
    }
    try {
      const opened = from.open(path);
      // libkcapi reports some errors on stderr unless told to be quiet; they come back as errno all the same.
      opened.call.kcapi_set_verbosity(0);
      return opened;
    } catch (error) {
      if (error instanceof KcapiError) throw error;
      // A refusal is meant: the next path would be another question.
      if (mustAsk && !from.mayLoad(path)) throw notPermitted(paths, error);
      failures.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
      cause ??= error;
    }
  }
  throw new KcapiError("ELIBACC", "dlopen", `libkcapi cannot be loaded; tried ${failures.join("; ")}`, {
    cause,
    hint: "install the package libkcapi1 (Debian, Ubuntu, openSUSE) or libkcapi (Fedora, Alpine, Arch), " +
      "or name the library in KCAPI_LIBRARY",
  });
}

function notPermitted(paths: readonly string[], cause?: unknown): KcapiError {
  return new KcapiError("EACCES", "dlopen", `FFI is not permitted for any of ${paths.join(", ")}`, {
    cause,
    hint: "run with --allow-ffi, or in Deno with --allow-ffi=PATH where PATH is the library's absolute path",
  });
}

/** What this program runs on, and whether libraries can be called there. */
export function host(): {
  runtime: { name: string; version: string };
  platform: string;
  arch: string;
  hasFFI: boolean;
} {
  const { versions = {}, platform = "unknown", arch = "unknown" } = (globalThis as unknown as NodeGlobals).process ??
    {};
  const name = ["bun", "deno", "node"].find((each) => each in versions) ?? "unknown";
  const runtime = { name, version: versions[name] ?? "unknown" };
  return { runtime, platform, arch, hasFFI: currentAdapter() !== undefined };
}

/** Whose code is behind the runtime's `node:crypto`: what is fast there differs. */
export function cryptoBackend(): "rustcrypto" | "boringssl" | "openssl" {
  const { name } = host().runtime;
  return name === "deno" ? "rustcrypto" : name === "bun" ? "boringssl" : "openssl";
}

/** Whether BigInts of 64 bits are numbers to the compiler, as they are to V8's; JavaScriptCore makes an object of each. */
export function compilesBigInts(): boolean {
  return host().runtime.name !== "bun";
}

/** New memory for who writes all of it, or clears what he does not: not zeroed, where the runtime can spare that. */
export function unfilled(length: number): Uint8Array<ArrayBuffer> {
  return host().runtime.name === "deno" ? new Uint8Array(length) : unzeroed(length);
}

/** Calls `callback` in the next turn of the event loop. */
export function nextTurn(callback: () => void): void {
  (globalThis as unknown as NodeGlobals).setImmediate(callback);
}

/** A small text file of the system, or the error that tells why it cannot be read. Never asks the user. */
export function readSystemFile(path: string): string | Error {
  const from = currentAdapter();
  if (from && !from.mayRead(path)) return new Error(`reading ${path} is not permitted (Deno: --allow-all)`);
  try {
    const fs = (globalThis as unknown as NodeGlobals).process!.getBuiltinModule("node:fs");
    return (fs as typeof import("node:fs")).readFileSync(path, "utf8");
  } catch (error) {
    return error as Error;
  }
}
