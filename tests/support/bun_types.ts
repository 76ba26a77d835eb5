/**
 * For the type checker alone: Bun's own types of `bun:ffi` are what `ffi/bun.ts` asks for. It is `tsc` that tells, with
 * @types/bun; to `deno check` the module is `any`, for these types and its own do not go together.
 */
import type { BunFFI } from "../../ffi/bun.ts";

export const fits: typeof import("bun:ffi") extends BunFFI ? true : false = true;
