/**
 * A type check: Bun's types of `bun:ffi` must match the interface in `ffi/bun.ts`. Only `tsc` checks this, with
 * @types/bun. For `deno check` the module is `any`, because Deno's types conflict with @types/bun.
 */
import type { BunFFI } from "../../ffi/bun.ts";

export const fits: typeof import("bun:ffi") extends BunFFI ? true : false = true;
