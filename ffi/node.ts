/**
 * The adapter for Node: `node:ffi`.
 *
 * @module
 */

import { KcapiError } from "../src/errors.ts";
import { allocUnsafe } from "../src/runtime/mod.ts";
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

/** A C function, in the words of `node:ffi`. */
interface NodeSignature {
  readonly arguments: readonly (typeof NATIVE)[Exclude<CType, "void">][];
  readonly return: (typeof NATIVE)[CType];
}

/** The part of `node:ffi` in use. */
export interface NodeFFI {
  dlopen(path: string, definitions: Record<string, NodeSignature>): { readonly functions: object };
  getRawPointer(source: Uint8Array): bigint;
}

/** What is used of `node:process`. */
export interface NodeSystem {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly arch: string;
  readonly version: string;
  /** There under `--permission` alone. */
  readonly permission?: { has(scope: string): boolean } | undefined;
  /** For `node:fs`: its text of a file, or what keeps it from reading that. */
  getBuiltinModule(name: string): unknown;
}

/** What the dynamic linker of glibc knows by its bare name. */
const LINKER_CACHE = "/etc/ld.so.cache";

/**
 * The adapter over Node's API.
 *
 * @param ffi The module `node:ffi`, or what stands for it in a test: not asked for anything before a library is opened,
 * for Node prints a warning when it loads that module.
 * @param system The module `node:process`, or what stands for it in a test.
 */
export function nodeAdapter(ffi: NodeFFI, system: NodeSystem): Adapter {
  return {
    paths: systemPaths(system.arch),
    open(path) {
      const call = ffi.dlopen(path, nativeSymbols()).functions as Calls;
      if (!isBound(call, ffi)) throw notBound(system.version);
      const { memmove } = call;
      const { getRawPointer } = ffi;
      return {
        path,
        call: {
          ...call,
          // Half the time of the call; what it is asked for nearly always.
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
 * Whether a function does what it should. `node:ffi` is experimental: releases differ in what they call the parts of a
 * signature, and pass over in silence what they do not know.
 */
function isBound({ memmove, getpagesize }: Calls, { getRawPointer }: NodeFFI): boolean {
  const [from, to] = [11, 0].map((byte) => new Uint8Array(new ArrayBuffer(8)).fill(byte)) as [Uint8Array, Uint8Array];
  try {
    return memmove(to, getRawPointer(from), 8n) === getRawPointer(to) && to.every((byte) => byte === 11) &&
      Number.isInteger(getpagesize());
  } catch {
    return false; // the number of arguments is checked
  }
}

function notBound(version: string): KcapiError {
  return new KcapiError(
    "ELIBACC",
    "dlopen",
    `node:ffi of Node ${version} does not bind functions as this module asks`,
    {
      hint: "use Node 26.9 or a later release of Node 26, Deno or Bun; or the userspace engine",
    },
  );
}

/** A cheap look, so that who has no libkcapi never sees the warning. */
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
    return isRefused(error); // musl has none, and no directories but those of the other paths
  }
}
