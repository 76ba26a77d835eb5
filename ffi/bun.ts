/**
 * The adapter for Bun: `bun:ffi`.
 *
 * @module
 */

import type { FFIFunction } from "bun:ffi";
import { allocUnsafe } from "../src/runtime/web.ts";
import { type Adapter, type Calls, systemPaths } from "./adapter.ts";
import { type CType, symbols } from "./symbols.ts";

/** The used part of `bun:ffi`. */
export interface BunFFI {
  dlopen(path: string, symbols: Record<string, FFIFunction>): { readonly symbols: object };
}

/** The used part of `node:process`. */
export interface BunSystem {
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly arch: string;
}

const NATIVE = {
  buffer: "ptr",
  address: "ptr",
  size: "usize",
  i32: "i32",
  u32: "u32",
  void: "void",
} as const satisfies Record<CType, FFIFunction["returns"]>;

const HIGH_WORD = 2 ** 32;

/**
 * Creates the adapter for Bun.
 *
 * @param ffi The module `bun:ffi`, or a fake in a test.
 * @param system The module `node:process`, or a fake in a test.
 */
export function bunAdapter(ffi: BunFFI, system: BunSystem): Adapter {
  return {
    paths: systemPaths(system.arch),
    open(path) {
      const { symbols: call } = ffi.dlopen(path, nativeSymbols());
      return {
        path,
        call: call as unknown as Calls,
        word: (value) => value,
        cells(memory) {
          // User-space addresses are below 2⁵³, so a number holds them exactly. Uint32Array stores values modulo 2³².
          const words = new Uint32Array(memory);
          return {
            get: (index) => words[2 * index]! + words[2 * index + 1]! * HIGH_WORD,
            set(index, address) {
              words[2 * index] = address as number;
              words[2 * index + 1] = (address as number) / HIGH_WORD;
            },
          };
        },
        allocUnsafe,
      };
    },
    mayLoad: () => true,
    environment: (name) => system.env[name],
  };
}

function nativeSymbols(): Record<string, FFIFunction> {
  return Object.fromEntries(
    Object.entries(symbols).map(([name, { parameters, result }]) => [name, {
      args: parameters.map((type) => NATIVE[type]),
      returns: NATIVE[result],
    }]),
  );
}
