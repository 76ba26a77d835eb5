/**
 * The interface of a runtime's adapter, which finds, opens and calls libkcapi.
 *
 * @module
 */

import type { CType, symbols } from "./symbols.ts";

/** A pointer or a size_t, in the type that the runtime passes fastest: bigint in Deno and Node, number in Bun. */
export type Address = number | bigint;

type Value<T extends CType> = T extends "buffer" ? Uint8Array | null
  : T extends "address" | "size" ? Address
  : T extends "void" ? void
  : number;

type Values<P extends readonly CType[]> = { -readonly [I in keyof P]: Value<P[I]> };

/** The bound functions. */
export type Calls = {
  readonly [K in keyof typeof symbols]: (
    ...args: Values<(typeof symbols)[K]["parameters"]>
  ) => Value<(typeof symbols)[K]["result"]>;
};

/** Memory as an array of 64-bit pointers. */
interface PointerCells {
  get(index: number): Address;
  set(index: number, address: Address): void;
}

/** A loaded libkcapi. It is never unloaded, because a call into it after that would crash the process. */
export interface Library {
  /** The path that was passed to the loader. */
  readonly path: string;
  readonly call: Calls;
  /** Converts `value` to an argument of type `size` or `address`. */
  word(value: number): Address;
  /** Returns a view of `memory` as pointers. */
  cells(memory: ArrayBuffer): PointerCells;
  /** Allocates memory for the output of an operation: `allocUnsafe` of `src/runtime`. */
  allocUnsafe(length: number): Uint8Array<ArrayBuffer>;
}

/** What differs between the runtimes. */
export interface Adapter {
  /** The paths to try, in order of preference. */
  readonly paths: readonly string[];
  /** Loads a library. Throws the runtime's own error. */
  open(path: string): Library;
  /** Whether the process may load `path` without a permission prompt. */
  mayLoad(path: string): boolean;
  /** Returns false only if it is known, without a permission prompt, that no file has this path. */
  mayExist?(path: string): boolean;
  /** Reads an environment variable. Returns undefined if that needs a permission prompt. */
  environment(name: string): string | undefined;
}

/**
 * Returns the paths to try in a runtime that passes bare names to the dynamic linker. The bare name comes first,
 * because the linker knows the system's library directories.
 *
 * @param arch The value of `process.arch`.
 */
export function systemPaths(arch: string): readonly string[] {
  return [
    "libkcapi.so.1",
    `/usr/lib/${arch === "arm64" ? "aarch64" : "x86_64"}-linux-gnu/libkcapi.so.1`,
    "/usr/lib64/libkcapi.so.1",
    "/usr/lib/libkcapi.so.1",
    "/usr/local/lib/libkcapi.so.1",
  ];
}
