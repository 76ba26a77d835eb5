/**
 * The adapter for Node: `node:ffi`.
 *
 * @module
 */

import { KcapiError } from "../src/errors.ts";
import { allocUnsafe } from "../src/runtime/web.ts";
import { type Adapter, type Calls, systemPaths } from "./adapter.ts";
import { type CType, symbols } from "./symbols.ts";

const NATIVE = {
  buffer: "buffer",
  address: "u64",
  size: "u64",
  i32: "i32",
  u32: "u32",
  void: "void",
} as const satisfies Record<CType, string>;

/** A C function in the notation of `node:ffi`. */
interface NodeSignature {
  readonly arguments: readonly (typeof NATIVE)[Exclude<CType, "void">][];
  readonly return: (typeof NATIVE)[CType];
}

/** The used part of `node:ffi`. */
export interface NodeFFI {
  dlopen(path: string, definitions: Record<string, NodeSignature>): { readonly functions: object };
  getRawPointer(source: Uint8Array): bigint;
}

/** The used part of `node:process`. */
export interface NodeSystem {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly arch: string;
  readonly version: string;
  /** Node sets it only under `--permission`. */
  readonly permission?: { has(scope: string): boolean } | undefined;
  /** Used to load `node:fs`. */
  getBuiltinModule(name: string): unknown;
}

/** The file in which glibc's dynamic linker looks up bare names (ld.so(8)). */
const LINKER_CACHE = "/etc/ld.so.cache";

/**
 * Creates the adapter for Node.
 *
 * @param ffi The module `node:ffi`, or a fake in a test. It is not used before a library is opened, because Node prints
 * a warning when it loads that module.
 * @param system The module `node:process`, or a fake in a test.
 */
export function nodeAdapter(ffi: NodeFFI, system: NodeSystem): Adapter {
  return {
    paths: systemPaths(system.arch),
    open(path) {
      const call = ffi.dlopen(path, nativeSymbols()).functions as Calls;
      if (!isBound(call, ffi)) throw createBindingError(system.version);
      const { memmove } = call;
      const { getRawPointer } = ffi;
      return {
        path,
        call: {
          ...call,
          // A length of 0 asks for the address. getRawPointer() takes half the time of the native call.
          memmove: (to, from, length) => length === 0n ? getRawPointer(to!) : memmove(to, from, length),
        },
        word: BigInt,
        cells(memory) {
          const cells = new BigUint64Array(memory);
          return {
            get: (index) => cells[index]!,
            set: (index, address) => void (cells[index] = address as bigint),
          };
        },
        allocUnsafe,
      };
    },
    mayLoad: () => system.permission?.has("ffi") ?? true,
    mayExist: (path) => mayExist(path, system),
    environment: (name) => system.env[name],
  };
}

function nativeSymbols(): Record<string, NodeSignature> {
  return Object.fromEntries(
    Object.entries(symbols).map(([name, { parameters, result }]) => [name, {
      arguments: parameters.map((type) => NATIVE[type]),
      return: NATIVE[result],
    }]),
  );
}

/**
 * Whether the functions are bound correctly. `node:ffi` is experimental: its releases use different property names for
 * a signature, and ignore unknown names.
 */
function isBound({ memmove, getpagesize }: Calls, { getRawPointer }: NodeFFI): boolean {
  const [from, to] = [11, 0].map((byte) => new Uint8Array(new ArrayBuffer(8)).fill(byte)) as [Uint8Array, Uint8Array];
  try {
    return memmove(to, getRawPointer(from), 8n) === getRawPointer(to) && to.every((byte) => byte === 11) &&
      Number.isInteger(getpagesize());
  } catch {
    return false; // Node checks the number of arguments.
  }
}

function createBindingError(version: string): KcapiError {
  return new KcapiError(
    "ELIBACC",
    "dlopen",
    `node:ffi of Node ${version} does not bind functions with the requested signatures`,
    {
      hint: "use Node 26.9 or a later release of Node 26, Deno, Bun, or the userspace engine",
    },
  );
}

/** Looks for the file first, so that Node prints no warning on a system without libkcapi. */
function mayExist(path: string, { env, getBuiltinModule }: NodeSystem): boolean {
  const { accessSync, readFileSync } = getBuiltinModule("node:fs") as typeof import("node:fs");
  const isRefused = (error: unknown) => !["ENOENT", "ENOTDIR"].includes((error as { code: string }).code);
  const exists = (file: string) => {
    try {
      accessSync(file);
      return true;
    } catch (error) {
      return isRefused(error);
    }
  };
  if (path.includes("/")) return exists(path);
  if (env.LD_LIBRARY_PATH?.split(":").some((directory) => exists(`${directory}/${path}`))) return true;
  try {
    return readFileSync(LINKER_CACHE).includes(path);
  } catch (error) {
    return isRefused(error); // musl has no cache. Its linker uses only the directories of the other paths.
  }
}
