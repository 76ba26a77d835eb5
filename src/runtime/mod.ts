/**
 * What differs between the runtimes, apart from loading libkcapi, which is the work of `ffi/`.
 *
 * @module
 */

/** The globals that tell the runtime. */
export interface RuntimeGlobals {
  readonly Deno?: { readonly version: { readonly deno: string } };
  readonly Bun?: { readonly version: string };
  readonly process?: {
    readonly versions?: Readonly<Record<string, string>>;
    readonly getBuiltinModule?: (name: string) => unknown;
  };
}

/** The globals in use that not every runtime has. */
interface Globals extends RuntimeGlobals {
  readonly Deno?: typeof Deno;
  readonly process?: RuntimeGlobals["process"] & { readonly platform: string; readonly arch: string };
  setImmediate(callback: () => void): unknown;
}

const globals = globalThis as unknown as Globals;

/** The oldest release of each runtime, which `tests/oldest_test.ts` runs. */
export const OLDEST = { Deno: "2.5.0", Bun: "1.2.20", Node: "22.3.0" } as const;

/** The error of a runtime that does not serve. */
export function unsupportedRuntime(what: string): Error {
  const { Deno, Bun, Node } = OLDEST;
  return new Error(`@kcapi/streams needs Deno ${Deno}, Bun ${Bun} or Node ${Node}, or a later release: ${what}`);
}

/** @throws {Error} If the runtime is too old, or none of those that this module knows. */
export function checkRuntime({ Deno, Bun, process }: RuntimeGlobals): void {
  const [name, version] = Deno
    ? ["Deno", Deno.version.deno] as const
    : Bun
    ? ["Bun", Bun.version] as const
    : ["Node", process?.versions?.node] as const;
  if (version !== undefined && isOlder(version, OLDEST[name])) throw unsupportedRuntime(`this is ${name} ${version}`);
  // Deno has process too, but loads it at its first use, which takes long.
  if (!Deno && process?.getBuiltinModule === undefined) {
    throw unsupportedRuntime(
      "this is a browser, or a worker without Node's modules: it has no process.getBuiltinModule (in Cloudflare Workers " +
        "the flag nodejs_compat adds it)",
    );
  }
}

function isOlder(version: string, oldest: string): boolean {
  const [a, b] = [version, oldest].map((each) => each.split(".").map((part) => parseInt(part, 10))) as [
    number[],
    number[],
  ];
  const differing = b.findIndex((part, i) => part !== a[i]);
  return differing >= 0 && a[differing]! < b[differing]!;
}

checkRuntime(globals);

/** The runtime by its name in `process.versions`. A function: in Deno, the first use of `process` takes long. */
function runtimeName(): "deno" | "bun" | "node" | "unknown" {
  const { versions = {} } = globals.process ?? {};
  return (["bun", "deno", "node"] as const).find((each) => each in versions) ?? "unknown";
}

/** What this program runs on. */
export function platformInfo(): {
  runtime: { name: string; version: string };
  platform: string;
  arch: string;
} {
  const { versions = {}, platform = "unknown", arch = "unknown" } = globals.process ?? {};
  const name = runtimeName();
  return { runtime: { name, version: versions[name] ?? "unknown" }, platform, arch };
}

/** The library behind the runtime's `node:crypto`. They differ in what is fast. */
export function cryptoBackend(): "rustcrypto" | "boringssl" | "openssl" {
  const name = runtimeName();
  return name === "deno" ? "rustcrypto" : name === "bun" ? "boringssl" : "openssl";
}

/**
 * Whether 64-bit BigInts are compiled to machine words, as in V8. JavaScriptCore (Bun) allocates an object for each.
 */
export function hasFastBigInts(): boolean {
  return runtimeName() !== "bun";
}

/** Whether the runtime sets FD_CLOEXEC on the descriptors it was started with, as it does on its own. Deno does not. */
export function marksInheritedDescriptors(): boolean {
  return runtimeName() !== "deno";
}

/**
 * New memory, which is not zeroed where the runtime can avoid that. The caller overwrites or clears all of it.
 *
 * In Deno, whose Buffer is written in JavaScript, a zeroed array is the fastest.
 */
export const allocUnsafe: (length: number) => Uint8Array<ArrayBuffer> = globals.Deno === undefined
  ? (length) => new Uint8Array(Buffer.allocUnsafeSlow(length).buffer as ArrayBuffer)
  : (length) => new Uint8Array(length);

/** Calls `callback` in the next turn of the event loop. Taken once: a test may replace the timers of its runtime. */
export const setImmediate: (callback: () => void) => void = globals.setImmediate?.bind(globalThis);

/** A small text file of the system, or the error that tells why it cannot be read. Never asks the user. */
export function readSystemFile(path: string): string | Error {
  if (globals.Deno && !denoMayRead(path, globals.Deno)) {
    return new Error(`reading ${path} is not permitted (Deno: --allow-all)`);
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
 * Whether Deno reads `path` without asking the user. /proc, /sys and /dev take all its permissions together.
 *
 * @param deno The `Deno` namespace, or a fake in a test.
 */
export function denoMayRead(path: string, { permissions }: Pick<typeof Deno, "permissions">): boolean {
  const isGranted = (permission: Deno.PermissionDescriptor) => permissions.querySync(permission).state === "granted";
  return /^\/(?:proc|sys|dev)\//.test(path)
    ? DENO_PERMISSIONS.every((name) => isGranted({ name }))
    : isGranted({ name: "read", path });
}
