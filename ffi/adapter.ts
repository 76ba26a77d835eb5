/**
 * What a runtime's adapter is: how it finds, opens and calls libkcapi.
 *
 * @module
 */

import type { CType, symbols } from "./symbols.ts";

/** A pointer or a size_t, as the runtime passes it fastest: a bigint in Deno and Node, a number in Bun. */
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

/** 64-bit cells of memory as pointers. */
interface PointerCells {
  get(index: number): Address;
  set(index: number, address: Address): void;
}

/** A libkcapi that is loaded. It is never unloaded: calling into it afterwards would be a crash. */
export interface Library {
  /** The path it was loaded by. */
  readonly path: string;
  readonly call: Calls;
  /** `value` as an argument of type `size` or `address`. */
  word(value: number): Address;
  /** `memory` seen as pointers. */
  cells(memory: ArrayBuffer): PointerCells;
  /** New memory for the output of an op, as `allocUnsafe` of `src/runtime` makes it. */
  allocUnsafe(length: number): Uint8Array<ArrayBuffer>;
}

/** What differs between the runtimes. */
export interface Adapter {
  /** Where the system's library may be, best first. */
  readonly paths: readonly string[];
  /** Loads a library; throws the runtime's own error. */
  open(path: string): Library;
  /** Whether `path` may be loaded without asking the user. */
  mayLoad(path: string): boolean;
  /** Whether there may be a library by this path: false only where that can be told without asking the user. */
  mayExist?(path: string): boolean;
  /** An environment variable, if it may be read without asking the user. */
  environment(name: string): string | undefined;
}

/**
 * Where the system's library may be, for a runtime that hands bare names on to the dynamic linker: that name first, for
 * the linker knows where the system keeps its libraries.
 *
 * @param arch As `process.arch` has it.
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
