/**
 * The adapter for Deno: `Deno.dlopen`.
 *
 * @module
 */

import { allocUnsafe } from "../src/runtime/web.ts";
import type { Adapter, Calls } from "./adapter.ts";
import { type CType, symbols } from "./symbols.ts";

const NATIVE = {
  buffer: "buffer",
  // u64, not pointer: under --allow-ffi=PATH, Deno refuses every function on pointer objects.
  address: "u64",
  size: "usize",
  i32: "i32",
  u32: "u32",
  void: "void",
} as const satisfies Record<CType, Deno.NativeResultType>;

/**
 * Creates the adapter for Deno.
 *
 * @param deno The `Deno` namespace, or a fake in a test.
 */
export function denoAdapter(
  deno: Pick<typeof Deno, "dlopen" | "permissions" | "env" | "lstatSync"> & {
    build: Pick<typeof Deno.build, "arch">;
  },
): Adapter {
  const isGranted = (permission: Deno.PermissionDescriptor) =>
    deno.permissions.querySync(permission).state === "granted";
  return {
    // Absolute paths only: Deno resolves a bare name against the working directory, and permissions apply to paths.
    paths: [
      `/usr/lib/${deno.build.arch}-linux-gnu/libkcapi.so.1`,
      "/usr/lib64/libkcapi.so.1",
      "/usr/lib/libkcapi.so.1",
      "/usr/local/lib/libkcapi.so.1",
    ],
    open(path) {
      const { symbols: call } = deno.dlopen(path, nativeSymbols());
      return {
        path,
        call: call as unknown as Calls,
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
    mayLoad: (path) => isGranted({ name: "ffi", path }),
    mayExist(path) {
      if (!isGranted({ name: "read", path })) return true;
      try {
        return deno.lstatSync(path) !== undefined;
      } catch {
        return false;
      }
    },
    environment: (name) => isGranted({ name: "env", variable: name }) ? deno.env.get(name) : undefined,
  };
}

function nativeSymbols(): Deno.ForeignLibraryInterface {
  return Object.fromEntries(
    Object.entries(symbols).map(([name, { parameters, result }]) => [name, {
      parameters: parameters.map((type) => NATIVE[type]),
      result: NATIVE[result],
    }]),
  );
}
