/**
 * Finds libkcapi and loads it, on first use and once per process, through the adapter of the runtime at hand.
 *
 * @module
 */

import { KcapiError } from "../src/errors.ts";
import type { Adapter, Library } from "./adapter.ts";
import { bunAdapter, type BunFFI, type BunSystem } from "./bun.ts";
import { denoAdapter } from "./deno.ts";
import { nodeAdapter, type NodeFFI, type NodeSystem } from "./node.ts";

let adapter: Adapter | undefined;
let library: Library | undefined;

function currentAdapter(): Adapter | undefined {
  if (adapter) return adapter;
  if ("Deno" in globalThis) return adapter = denoAdapter(Deno);
  // Not imported: Deno would load it at the start, which takes long.
  const { process } = globalThis as { process?: BunSystem & NodeSystem };
  const bunFFI = process?.getBuiltinModule("bun:ffi") as BunFFI | undefined;
  if (bunFFI) return adapter = bunAdapter(bunFFI, process!);
  const nodeFFI = process && nodeFFIOf(process);
  return nodeFFI && (adapter = nodeAdapter(nodeFFI, process));
}

/** `node:ffi`, loaded when it is first used, where this Node has it. */
function nodeFFIOf({ getBuiltinModule }: NodeSystem): NodeFFI | undefined {
  const { isBuiltin } = getBuiltinModule("node:module") as typeof import("node:module");
  const ffi = () => getBuiltinModule("node:ffi") as NodeFFI;
  // Cloudflare's workerd says yes to every name.
  if (!isBuiltin("node:ffi") || isBuiltin("node:no-such-module")) return undefined;
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

/** Whether this runtime can call libraries at all. */
export function hasFFI(): boolean {
  return currentAdapter() !== undefined;
}
