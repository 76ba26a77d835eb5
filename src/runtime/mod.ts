/**
 * The differences between the runtimes, except for loading libkcapi, which `ffi/` does.
 *
 * @module
 */

import "./oldest.ts"; // first
import "../errno.ts"; // for all entries but `@kcapi/streams/sealed`
import { KcapiError } from "../errors.ts";
import type { RuntimeGlobals } from "./oldest.ts";
import { replaceAllocator } from "./web.ts";

/** The used globals that not every runtime has. */
interface Globals extends RuntimeGlobals {
  readonly Deno?: typeof Deno;
  readonly process?: RuntimeGlobals["process"] & { readonly platform: string; readonly arch: string };
  readonly Buffer?: { allocUnsafeSlow(length: number): { readonly buffer: ArrayBufferLike } };
}

const globals = globalThis as unknown as Globals;

/** Returns the runtime's name in `process.versions`. A function, because Deno's first use of `process` is slow. */
function runtimeName(): "deno" | "bun" | "node" | "unknown" {
  const { versions = {} } = globals.process ?? {};
  return (["bun", "deno", "node"] as const).find((each) => each in versions) ?? "unknown";
}

/** Returns the runtime, the platform and the architecture. */
export function platformInfo(): {
  runtime: { name: string; version: string };
  platform: string;
  arch: string;
} {
  const { versions = {}, platform = "unknown", arch = "unknown" } = globals.process ?? {};
  const name = runtimeName();
  return { runtime: { name, version: versions[name] ?? "unknown" }, platform, arch };
}

/** Returns the library behind the runtime's `node:crypto`. Different ciphers are fast in each. */
export function cryptoBackend(): "rustcrypto" | "boringssl" | "openssl" {
  const name = runtimeName();
  return name === "deno" ? "rustcrypto" : name === "bun" ? "boringssl" : "openssl";
}

/**
 * Whether the runtime compiles 64-bit BigInts to machine words. V8 does. JavaScriptCore (Bun) allocates each one.
 */
export function hasFastBigInts(): boolean {
  return runtimeName() !== "bun";
}

/** Whether the runtime sets FD_CLOEXEC on inherited descriptors. Bun and Node do, Deno does not. */
export function marksInheritedDescriptors(): boolean {
  return runtimeName() !== "deno";
}

// In Deno, a zeroed array is faster, because its Buffer is written in JavaScript.
if (globals.Deno === undefined && globals.Buffer !== undefined) {
  const { Buffer } = globals;
  replaceAllocator((length) => new Uint8Array(Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer));
}

/**
 * Whether this is a server runtime, which has Node's modules. A browser does not, nor does workerd without its flag
 * `nodejs_compat`.
 */
export function hasNodeModules(): boolean {
  // Deno has `process` too, but its first use is slow.
  return globals.Deno !== undefined || globals.process?.getBuiltinModule !== undefined;
}

/**
 * Checks that this is a server runtime.
 *
 * @param operation What needs one.
 * @throws {KcapiError} ENOSYS if it is not.
 */
export function requireServer(operation: string): void {
  if (hasNodeModules()) return;
  throw new KcapiError(
    "ENOSYS",
    operation,
    "this needs a server runtime: Deno, Bun, Node, or Cloudflare Workers with nodejs_compat",
    { hint: "in a browser, use sealed streams: SealStream, UnsealStream, seal(), unseal() and openSealed()" },
  );
}

let crypto: typeof import("node:crypto") | undefined;

/**
 * `node:crypto`, loaded when it is first used: loading it takes as long as starting the runtime.
 *
 * @throws {KcapiError} ENOSYS if this is no server runtime.
 */
export function nodeCrypto(): typeof import("node:crypto") {
  if (crypto) return crypto;
  requireServer("node:crypto");
  return crypto = process.getBuiltinModule("node:crypto");
}

/**
 * `Buffer`, not imported: a bundler for browsers would look for `node:buffer`.
 *
 * @throws {KcapiError} ENOSYS if this is no server runtime.
 */
export function nodeBuffer(): typeof import("node:buffer").Buffer {
  requireServer("node:buffer");
  return process.getBuiltinModule("node:buffer").Buffer;
}

/** Reads a small text file. Returns an error if that fails or needs a permission that is not granted. */
export function readSystemFile(path: string): string | Error {
  if (globals.Deno && !denoMayRead(path, globals.Deno)) {
    return new Error(`reading ${path} is not permitted: run Deno with --allow-all`);
  }
  try {
    const fs = globals.process!.getBuiltinModule!("node:fs") as typeof import("node:fs");
    return fs.readFileSync(path, "utf8");
  } catch (error) {
    return error as Error;
  }
}

const DENO_PERMISSIONS = ["read", "write", "net", "env", "sys", "run", "ffi"] as const;

/**
 * Whether Deno may read `path` without a prompt. Deno requires all permissions for files in /proc, /sys and /dev.
 *
 * @param deno The `Deno` namespace, or a fake in a test.
 */
export function denoMayRead(path: string, { permissions }: Pick<typeof Deno, "permissions">): boolean {
  const isGranted = (permission: Deno.PermissionDescriptor) => permissions.querySync(permission).state === "granted";
  return /^\/(?:proc|sys|dev)\//.test(path)
    ? DENO_PERMISSIONS.every((name) => isGranted({ name }))
    : isGranted({ name: "read", path });
}
