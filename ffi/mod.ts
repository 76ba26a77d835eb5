/**
 * Finds libkcapi and loads it through the adapter of the current runtime: at the first use, once per process.
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
  // Not an import of node:process: Deno would load that module at startup, which is slow.
  const { process } = globalThis as { process?: BunSystem & NodeSystem };
  const bunFFI = process?.getBuiltinModule?.("bun:ffi") as BunFFI | undefined;
  if (bunFFI) return adapter = bunAdapter(bunFFI, process!);
  const nodeFFI = process?.getBuiltinModule && nodeFFIOf(process);
  return nodeFFI && (adapter = nodeAdapter(nodeFFI, process));
}

/** Returns `node:ffi` if this Node has it. The module is loaded at its first use. */
function nodeFFIOf({ getBuiltinModule }: NodeSystem): NodeFFI | undefined {
  const { isBuiltin } = getBuiltinModule("node:module") as typeof import("node:module");
  const ffi = () => getBuiltinModule("node:ffi") as NodeFFI;
  // In Cloudflare's workerd, isBuiltin() returns true for every name.
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

/** Returns the library, or the error that tells why it cannot be loaded without a permission prompt. */
export function loadIfGranted(): Library | KcapiError {
  try {
    return loadFrom(currentAdapter(), false);
  } catch (error) {
    if (error instanceof KcapiError) return error;
    throw error;
  }
}

/**
 * Returns the library, and loads it if necessary. Deno may prompt the user for the permission.
 *
 * @throws {KcapiError} ELIBACC if no library can be loaded, EACCES if FFI is not permitted. The message lists the
 * paths that were tried. The cause is the runtime's own error.
 */
export function load(): Library {
  return loadFrom(currentAdapter(), true);
}

function loadFrom(from: Adapter | undefined, mayAsk: boolean): Library {
  return library ??= open(from, mayAsk);
}

/** Tries KCAPI_LIBRARY, then the system's library. Exported for its tests, which pass fake adapters. */
export function open(from: Adapter | undefined, mayAsk: boolean): Library {
  if (!from) {
    throw new KcapiError("ELIBACC", "dlopen", "this runtime has no supported foreign function interface", {
      hint: "use Deno, Bun or Node 26.9 (from 26.1 on with --experimental-ffi), or the userspace engine",
    });
  }
  const named = from.environment("KCAPI_LIBRARY");
  const paths = named ? [named, ...from.paths] : from.paths;
  const granted = paths.filter((path) => from.mayLoad(path));
  if (granted.length === 0 && !mayAsk) throw createPermissionError(paths);
  const mustAsk = granted.length === 0;
  const failures: string[] = [];
  let cause: unknown;
  // An attempt to load is visible to the user: Deno prompts, and Node prints a warning.
  const checksFirst = mustAsk || !mayAsk;
  for (const path of mustAsk ? paths : granted) {
    if (checksFirst && from.mayExist?.(path) === false) {
      failures.push(`${path}: not found`);
      continue;
    }
    try {
      const opened = from.open(path);
      // Stops libkcapi from printing errors to stderr. It also returns them as errno values.
      opened.call.kcapi_set_verbosity(0);
      return opened;
    } catch (error) {
      if (error instanceof KcapiError) throw error;
      // The user refused. The next path would cause another prompt.
      if (mustAsk && !from.mayLoad(path)) throw createPermissionError(paths, error);
      failures.push(`${path}: ${error instanceof Error ? error.message : String(error)}`);
      cause ??= error;
    }
  }
  throw new KcapiError("ELIBACC", "dlopen", `libkcapi cannot be loaded: tried ${failures.join("; ")}`, {
    cause,
    hint: "install the package libkcapi1 (Debian, Ubuntu, openSUSE) or libkcapi (Fedora, Alpine, Arch), " +
      "or name the library in KCAPI_LIBRARY",
  });
}

function createPermissionError(paths: readonly string[], cause?: unknown): KcapiError {
  return new KcapiError("EACCES", "dlopen", `FFI is not permitted for any of ${paths.join(", ")}`, {
    cause,
    hint: "run with --allow-ffi, or in Deno with --allow-ffi=PATH where PATH is the library's absolute path",
  });
}

/** Whether this runtime can call native libraries. */
export function hasFFI(): boolean {
  return currentAdapter() !== undefined;
}
