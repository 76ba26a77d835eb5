/**
 * Tests of ffi/: the adapters, finding the library, and the permissions of Deno and Node.
 */
import { Buffer } from "node:buffer";
import { spawn as spawnProcess } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { bunAdapter, type BunFFI } from "../ffi/bun.ts";
import { denoAdapter } from "../ffi/deno.ts";
import { nodeAdapter, type NodeFFI, type NodeSystem } from "../ffi/node.ts";
import type { Adapter, Calls, Library } from "../ffi/adapter.ts";
import { load, loadIfGranted, open } from "../ffi/mod.ts";
import { denoMayRead } from "../src/runtime/mod.ts";
import { type CType, symbols } from "../ffi/symbols.ts";
import { KcapiError } from "../mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  engine,
  LIBRARY_FLAGS,
  runtime,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes, reference } from "./support/support.ts";

// ---- the adapters, with fakes -----------------------------------------------------------------------------------

interface Dlopen {
  readonly path: string;
  readonly symbols: Record<string, unknown>;
}

type DenoApi = Parameters<typeof denoAdapter>[0];

/** Fakes the namespace `Deno`: it grants `granted`, has one file, and records the calls. */
function fakeDeno(granted: readonly string[] = [], env: Record<string, string> = {}, present?: string) {
  const dlopens: Dlopen[] = [];
  const asked: string[] = [];
  const looked: string[] = [];
  const api = {
    build: { arch: "aarch64" },
    dlopen(path: string, symbols: Record<string, unknown>) {
      dlopens.push({ path, symbols });
      return { symbols: { called: true }, close() {} };
    },
    permissions: {
      querySync(descriptor: { name: string; path?: string; variable?: string }) {
        const what = [descriptor.name, descriptor.path ?? descriptor.variable].filter(Boolean).join(" ");
        return { state: granted.includes(what) || granted.includes(descriptor.name) ? "granted" : "prompt" };
      },
      requestSync: (descriptor: { name: string }) => void asked.push(descriptor.name),
    },
    env: {
      get: (name: string) => env[name],
    },
    lstatSync(path: string) {
      looked.push(path);
      if (path !== present) throw new Error("not found");
      return {};
    },
  };
  return { api: api as unknown as DenoApi, dlopens, asked, looked };
}

function fakeBunFFI() {
  const dlopens: Dlopen[] = [];
  const api: BunFFI = {
    dlopen(path, symbols) {
      dlopens.push({ path, symbols });
      return { symbols: { called: true } };
    },
  };
  return { api, dlopens };
}

interface FakeNode {
  /** Replaces the correct functions memmove and getpagesize. */
  readonly functions?: object;
  /** The granted permissions, with `--permission`. */
  readonly granted?: readonly string[];
  /** The files and their content. */
  readonly files?: Readonly<Record<string, string>>;
  /** Files that the permission model does not allow to read. */
  readonly refused?: readonly string[];
  readonly env?: Record<string, string>;
  readonly arch?: string;
}

/** Fakes `node:ffi` and `node:process`: they use invented addresses for memory of this process. */
function fakeNode({ functions, granted, files = {}, refused = [], env = {}, arch = "x64" }: FakeNode = {}) {
  const dlopens: Dlopen[] = [];
  const memory = new Map<bigint, Uint8Array>();
  const addressOf = (bytes: Uint8Array) => {
    const address = 0x7fed_0000_0000n + BigInt(memory.size);
    memory.set(address, bytes);
    return [...memory].find(([, each]) => each === bytes)![0];
  };
  const memmove = (to: Uint8Array, from: bigint, length: bigint) => {
    if (length > 0n) to.set(memory.get(from)!.subarray(0, Number(length)));
    return addressOf(to);
  };
  const ffi: NodeFFI = {
    dlopen(path, symbols) {
      dlopens.push({ path, symbols });
      return { functions: functions ?? { memmove, getpagesize: () => 4096, called: true } };
    },
    getRawPointer: addressOf,
  };
  const read = (file: string) => {
    const code = refused.includes(file) ? "ERR_ACCESS_DENIED" : "ENOENT";
    if (!(file in files)) throw Object.assign(new Error(code), { code });
    return new TextEncoder().encode(files[file]);
  };
  const system: NodeSystem = {
    env,
    arch,
    version: "v99.0.0",
    permission: granted && { has: (scope) => granted.includes(scope) },
    getBuiltinModule: () => ({ accessSync: read, readFileSync: (file: string) => Buffer.from(read(file)) }),
  };
  return { ffi, system, dlopens };
}

/** The type names of each runtime. */
const NATIVE: Record<"deno" | "bun" | "node", Record<CType, string>> = {
  deno: { buffer: "buffer", address: "u64", size: "usize", i32: "i32", u32: "u32", void: "void" },
  bun: { buffer: "ptr", address: "ptr", size: "usize", i32: "i32", u32: "u32", void: "void" },
  node: { buffer: "buffer", address: "u64", size: "u64", i32: "i32", u32: "u32", void: "void" },
};

/** A function's signature in the notation of each runtime. */
const SIGNATURE = {
  deno: (types: string[], result: string) => ({ parameters: types, result }),
  bun: (types: string[], result: string) => ({ args: types, returns: result }),
  node: (types: string[], result: string) => ({ arguments: types, return: result }),
};

test("each adapter declares every function of symbols.ts with the types of its runtime", () => {
  const deno = fakeDeno();
  const bun = fakeBunFFI();
  const node = fakeNode();
  assertEquals(denoAdapter(deno.api).open("/x.so").call as object, { called: true });
  assertEquals(bunAdapter(bun.api, { env: {}, arch: "x64" }).open("/x.so").call as object, { called: true });
  assert("called" in nodeAdapter(node.ffi, node.system).open("/x.so").call);
  const all = [["deno", deno.dlopens], ["bun", bun.dlopens], ["node", node.dlopens]] as const;
  for (const [runtime, [dlopen]] of all) {
    assertEquals(dlopen!.path, "/x.so");
    const native = NATIVE[runtime];
    const expected = Object.entries(symbols).map(([name, { parameters, result }]) => {
      return [name, SIGNATURE[runtime](parameters.map((type) => native[type]), native[result])];
    });
    assertEquals(dlopen!.symbols, Object.fromEntries(expected));
  }
});

test("each adapter stores addresses of more than 32 bits: Bun's as numbers, the others' as bigints", () => {
  const memory = new ArrayBuffer(32);
  const words = new BigUint64Array(memory);
  const address = 0x7fed_cba9_8765;
  const deno = denoAdapter(fakeDeno().api).open("");
  const bun = bunAdapter(fakeBunFFI().api, { env: {}, arch: "x64" }).open("");
  const { ffi, system } = fakeNode();
  const node = nodeAdapter(ffi, system).open("");
  deno.cells(memory).set(1, BigInt(address));
  bun.cells(memory).set(2, address);
  node.cells(memory).set(3, BigInt(address));
  assertEquals([...words], [0n, ...Array<bigint>(3).fill(BigInt(address))]);
  assertEquals([deno.cells(memory).get(2), bun.cells(memory).get(3), node.cells(memory).get(1)], [
    BigInt(address),
    address,
    BigInt(address),
  ]);
  assertEquals([deno.word(17), bun.word(17), node.word(17)], [17n, 17, 17n]);
});

test("each adapter has the paths of its architecture: Deno's are absolute, the others' start with the bare name", () => {
  const deno = denoAdapter(fakeDeno().api).paths;
  assert(deno.every((path) => path.startsWith("/")));
  assert(deno.includes("/usr/lib/aarch64-linux-gnu/libkcapi.so.1"), `${deno}`);
  const bun = (arch: string) => bunAdapter(fakeBunFFI().api, { env: {}, arch }).paths;
  assert(bun("arm64").includes("/usr/lib/aarch64-linux-gnu/libkcapi.so.1"));
  assert(bun("x64").includes("/usr/lib/x86_64-linux-gnu/libkcapi.so.1"));
  const { ffi, system } = fakeNode({ arch: "arm64" });
  assertEquals(nodeAdapter(ffi, system).paths, bun("arm64"));
  assertEquals(bun("arm64")[0], "libkcapi.so.1");
});

test("Deno's adapter only queries permissions: system files need all of them, a variable needs its own", () => {
  const path = "/usr/lib64/libkcapi.so.1";
  const none = fakeDeno([], { KCAPI_LIBRARY: path });
  const adapter = denoAdapter(none.api);
  const mayRead = ({ api }: ReturnType<typeof fakeDeno>) =>
    ["/etc/x", "/proc/crypto"].map((path) => denoMayRead(path, api));
  assertEquals([adapter.mayLoad(path), ...mayRead(none)], [false, false, false]);
  assertEquals(adapter.environment("KCAPI_LIBRARY"), undefined);
  assertEquals(none.asked, []);
  const granted = fakeDeno([`ffi ${path}`, "read", "env KCAPI_LIBRARY"], { KCAPI_LIBRARY: path });
  const some = denoAdapter(granted.api);
  assertEquals([some.mayLoad(path), some.mayLoad("/usr/lib/libkcapi.so.1")], [true, false]);
  assertEquals(mayRead(granted), [true, false]);
  assertEquals(some.environment("KCAPI_LIBRARY"), path);
  assertEquals(mayRead(fakeDeno(["read", "write", "net", "env", "sys", "run", "ffi"])), [true, true]);
});

test("Deno's adapter checks whether a library exists only if it may read the path", () => {
  const path = "/usr/lib64/libkcapi.so.1";
  const blind = fakeDeno([], {}, path);
  assertEquals([path, "/usr/lib/libkcapi.so.1"].map(denoAdapter(blind.api).mayExist!), [true, true]);
  assertEquals(blind.looked, []);
  const seeing = fakeDeno(["read"], {}, path);
  assertEquals([path, "/usr/lib/libkcapi.so.1"].map(denoAdapter(seeing.api).mayExist!), [true, false]);
});

test("Node's adapter checks the bound functions at load, and throws ELIBACC if they do not work", () => {
  const [right] = [fakeNode()];
  const adapter = nodeAdapter(right.ffi, right.system);
  const { call, word } = adapter.open("/x.so");
  const from = Uint8Array.from([1, 2, 3]);
  const to = new Uint8Array(3);
  const address = call.memmove(from, word(0), word(0));
  call.memmove(to, address, word(3));
  assertEquals(to, from);
  const { memmove, getpagesize } = right.ffi.dlopen("", {}).functions as Calls;
  const wrong: Record<string, object> = {
    "no result": { memmove: () => undefined, getpagesize },
    "the correct result without a copy": { memmove: (to: Uint8Array) => right.ffi.getRawPointer(to), getpagesize },
    "a copy and a wrong result": {
      memmove: (...args: Parameters<Calls["memmove"]>) => (memmove(...args), 1n),
      getpagesize,
    },
    "a refusal of the arguments": {
      memmove: () => {
        throw new TypeError("Invalid argument count: expected 0, got 3");
      },
      getpagesize,
    },
    "no number": { memmove, getpagesize: () => undefined },
  };
  for (const [what, functions] of Object.entries(wrong)) {
    const { system, dlopens } = fakeNode();
    const ffi: NodeFFI = {
      ...right.ffi,
      dlopen: (path, symbols) => (dlopens.push({ path, symbols }), { functions }),
    };
    const error = assertThrows(() => open(nodeAdapter(ffi, system), true), KcapiError);
    assertEquals([error.code, error.operation, dlopens.length], ["ELIBACC", "dlopen", 1], what);
    assertStringIncludes(error.message, "v99.0.0");
    assertStringIncludes(error.hint ?? "", "Node 26");
  }
});

test("Node's adapter does not touch node:ffi, which prints a warning, before there is a library to load", () => {
  const { ffi, system, dlopens } = fakeNode();
  const untouched = new Proxy(ffi, {
    get: (_, name) => {
      throw new Error(`${String(name)} was asked for`);
    },
  });
  const error = assertThrows(() => open(nodeAdapter(untouched, system), false), KcapiError);
  assertEquals([error.code, dlopens], ["ELIBACC", []]);
  assertStringIncludes(error.message, "libkcapi.so.1: not found");
  assertStringIncludes(error.hint ?? "", "libkcapi1");
});

test("Node's adapter searches where the dynamic linker does, and assumes that a file it may not read exists", () => {
  const cache = "/etc/ld.so.cache";
  const bare = "libkcapi.so.1";
  const path = "/usr/lib64/libkcapi.so.1";
  const mayExist = (found: FakeNode, path: string) => {
    const { ffi, system } = fakeNode(found);
    return nodeAdapter(ffi, system).mayExist!(path);
  };
  assertEquals([mayExist({}, bare), mayExist({}, path)], [false, false]);
  assertEquals([mayExist({ files: { [path]: "" } }, path), mayExist({ files: { [path]: "" } }, bare)], [true, false]);
  assertEquals(mayExist({ files: { [cache]: "\0libkcapi.so.1\0/lib/libkcapi.so.1\0" } }, bare), true);
  assertEquals(mayExist({ files: { [cache]: "\0libc.so.6\0" } }, bare), false);
  assertEquals(mayExist({ env: { LD_LIBRARY_PATH: "/a:/b" }, files: { [`/b/${bare}`]: "" } }, bare), true);
  assertEquals(mayExist({ env: { LD_LIBRARY_PATH: "/a:/b" } }, bare), false);
  assertEquals([mayExist({ refused: [cache] }, bare), mayExist({ refused: [path] }, path)], [true, true]);
});

test("Node's adapter opens nothing under --permission without --allow-ffi, and the hint names that flag", () => {
  const { ffi, system, dlopens } = fakeNode({ granted: [], files: { "/usr/lib/libkcapi.so.1": "" } });
  const error = assertThrows(() => open(nodeAdapter(ffi, system), false), KcapiError);
  assertEquals([error.code, dlopens], ["EACCES", []]);
  assertStringIncludes(error.hint ?? "", "--allow-ffi");
  const granted = fakeNode({ granted: ["ffi"] });
  assert(nodeAdapter(granted.ffi, granted.system).mayLoad("libkcapi.so.1"));
});

// ---- finding the library ----------------------------------------------------------------------------------------

interface FakeSystem {
  /** KCAPI_LIBRARY. */
  readonly named?: string;
  /** Paths that may be loaded (default: all). */
  readonly granted?: readonly string[];
  /** Paths that can be loaded (default: none). */
  readonly present?: readonly string[];
  /** Whether the adapter can see which files exist (default: no). */
  readonly looks?: boolean;
  /** Whether the user grants each requested permission (default: no). */
  readonly agrees?: boolean;
}

/** Creates an adapter of a fake system, and records the paths that it opens. */
function fakeAdapter({ named, granted, present = [], looks = false, agrees = false }: FakeSystem) {
  const opened: string[] = [];
  const mayLoad = (path: string) => !granted || granted.includes(path) || (agrees && opened.includes(path));
  const verbosity: number[] = [];
  const adapter: Adapter = {
    paths: ["/a/libkcapi.so.1", "/b/libkcapi.so.1"],
    open(path) {
      opened.push(path);
      if (!mayLoad(path)) throw new Error(`asked for ${path}, refused`);
      if (!present.includes(path)) throw new Error(`no ${path} here`);
      const call = { kcapi_set_verbosity: (level: number) => void verbosity.push(level) } as unknown as Calls;
      const cells = () => ({ get: () => 0, set() {} });
      return { path, call, word: (value) => value, cells, allocUnsafe: (length) => new Uint8Array(length) };
    },
    mayLoad,
    mayExist: (path) => !looks || present.includes(path),
    environment: (name) => name === "KCAPI_LIBRARY" ? named : undefined,
  };
  return { adapter, opened, verbosity };
}

test("open() tries KCAPI_LIBRARY first, then the system's library, and makes libkcapi quiet", () => {
  const present = ["/mine.so", "/b/libkcapi.so.1"];
  const mine = fakeAdapter({ named: "/mine.so", present });
  assertEquals(open(mine.adapter, false).path, "/mine.so");
  assertEquals([mine.opened, mine.verbosity], [["/mine.so"], [0]]);
  const gone = fakeAdapter({ named: "/gone.so", present });
  assertEquals(open(gone.adapter, false).path, "/b/libkcapi.so.1");
  assertEquals([gone.opened, gone.verbosity], [["/gone.so", "/a/libkcapi.so.1", "/b/libkcapi.so.1"], [0]]);
  assertEquals(open(fakeAdapter({ present }).adapter, false).path, "/b/libkcapi.so.1");
});

test("open() without a library throws ELIBACC, lists each path with its failure, and keeps the cause", () => {
  const error = assertThrows(() => open(fakeAdapter({ named: "/mine.so" }).adapter, true), KcapiError);
  assertEquals([error.code, error.errno, error.operation], ["ELIBACC", 79, "dlopen"]);
  for (const path of ["/mine.so", "/a/libkcapi.so.1", "/b/libkcapi.so.1"]) {
    assertStringIncludes(error.message, `${path}: no ${path} here`);
  }
  assertInstanceOf(error.cause, Error);
  assertEquals(error.cause.message, "no /mine.so here");
  assertStringIncludes(error.hint ?? "", "libkcapi1");
  assertStringIncludes(error.hint ?? "", "KCAPI_LIBRARY");
});

test("open() without a permission throws EACCES, and opens nothing unless it may prompt", () => {
  const quiet = fakeAdapter({ granted: [], present: ["/a/libkcapi.so.1"] });
  const error = assertThrows(() => open(quiet.adapter, false), KcapiError);
  assertEquals([error.code, quiet.opened], ["EACCES", []]);
  assertStringIncludes(error.message, "/a/libkcapi.so.1");
  assertStringIncludes(error.hint ?? "", "--allow-ffi");
});

test("open() prompts once: for the first path, or for the first that exists if it can see that", () => {
  const asked = (system: FakeSystem) => {
    const { adapter, opened } = fakeAdapter({ granted: [], ...system });
    const error = assertThrows(() => open(adapter, true), KcapiError);
    return { opened, code: error.code, cause: (error.cause as Error | undefined)?.message, message: error.message };
  };
  const [a, b] = ["/a/libkcapi.so.1", "/b/libkcapi.so.1"] as const;
  for (const [system, path] of [[{ present: [a, b] }, a], [{ present: [b], looks: true }, b]] as const) {
    const { message, ...rest } = asked(system);
    assertEquals(rest, { opened: [path], code: "EACCES", cause: `asked for ${path}, refused` });
    assertStringIncludes(message, "FFI is not permitted");
  }
  const none = asked({ present: [], looks: true });
  assertEquals([none.opened, none.code], [[], "ELIBACC"]);
  assertStringIncludes(none.message, `tried ${a}: not found; ${b}: not found`);
  // If the user grants a path without a library, the next one causes another prompt.
  const { adapter, opened } = fakeAdapter({ granted: [], present: [b], agrees: true });
  assertEquals([open(adapter, true).path, opened], [b, [a, b]]);
});

test("open() with a permission for one path opens that one without a prompt for others", () => {
  const path = "/b/libkcapi.so.1";
  const { adapter, opened } = fakeAdapter({ granted: [path], present: ["/a/libkcapi.so.1", path] });
  assertEquals(open(adapter, true).path, path);
  assertEquals(opened, [path]);
  const gone = fakeAdapter({ granted: [path] });
  assertEquals(assertThrows(() => open(gone.adapter, true), KcapiError).code, "ELIBACC");
  assertEquals(gone.opened, [path]);
});

test("open() in a runtime without FFI names the alternatives", () => {
  const error = assertThrows(() => open(undefined, true), KcapiError, "no supported foreign function interface");
  assertEquals([error.code, error.hint?.includes("userspace")], ["ELIBACC", true]);
});

// ---- the real loader --------------------------------------------------------------------------------------------

/** The real adapter of this runtime, restricted to these libraries. */
function realAdapter(...paths: string[]): Adapter {
  const adapters = {
    deno: () => denoAdapter({ ...Deno, dlopen: openForNow }),
    bun: () => bunAdapter(process.getBuiltinModule("bun:ffi" as "fs") as unknown as BunFFI, process),
    node: () => nodeAdapter(process.getBuiltinModule("node:ffi"), process),
  };
  return { ...adapters[runtime](), paths, environment: () => undefined };
}

const openNow: { close(): void }[] = [];

/** Deno's test runner checks for open libraries, and this module never closes one. */
const openForNow = ((...args: Parameters<typeof Deno.dlopen>) => {
  const library = Deno.dlopen(...args);
  openNow.push(library);
  return library;
}) as typeof Deno.dlopen;

function closeAll(): void {
  for (const library of openNow.splice(0)) library.close();
}

/** Returns the error of the real loader. */
function assertRefused(path: string): KcapiError {
  const error = assertThrows(() => open(realAdapter(path), true), KcapiError);
  assertEquals(error.code, "ELIBACC");
  assertStringIncludes(error.message, `tried ${path}: `);
  assertInstanceOf(error.cause, Error);
  return error;
}

/** Compiles a library of these C functions. */
async function compile(source: string): Promise<string> {
  const path = join(tempDir(), "libkcapi.so.1");
  // Linked to libc like the real library, because some functions of libc are found through its handle.
  const linked = ["-Wl,--no-as-needed", "-lc"];
  const { code, stderr } = await spawn(["cc", "-shared", "-fPIC", "-xc", "-o", path, "-", ...linked], {
    input: source,
  });
  assertEquals([code, stderr], [0, ""]);
  return path;
}

const real = loadIfGranted();
const hasLibrary = !(real instanceof KcapiError);
const LIBRARY = { needs: { libkcapi: hasLibrary } } as const;
const hasCompiler = await spawn(["cc", "--version"]).then(({ code }) => code === 0, () => false);

test("a missing or invalid library throws ELIBACC with the loader's error as its cause", () => {
  assertRefused("/nonexistent/libkcapi.so.1");
  const path = join(tempDir(), "libkcapi.so.1");
  writeFileSync(path, "this is no library");
  assertRefused(path);
});

test(
  "a library that lacks a function throws ELIBACC and is not used",
  { needs: { "a C compiler": hasCompiler } },
  async () => {
    const all = Object.keys(symbols).filter((name) => name.startsWith("kcapi_"));
    const missing = all.filter((name) => name !== "kcapi_handle_reinit");
    const error = assertRefused(await compile(missing.map((name) => `int ${name}(void) { return 0; }\n`).join("")));
    assertStringIncludes(error.message, "kcapi_handle_reinit");
    // With the function, the same library loads. This proves that nothing else was wrong.
    const complete = await compile(all.map((name) => `int ${name}(void) { return 42; }\n`).join(""));
    assertEquals(open(realAdapter(complete), true).call.kcapi_version(), 42);
    closeAll();
  },
);

test("open() skips a library that cannot be loaded", LIBRARY, () => {
  const { path } = real as Library;
  const opened = open({ ...realAdapter("/nonexistent/libkcapi.so.1", path) }, true);
  assertEquals(opened.path, path);
  assertEquals(opened.call.kcapi_version(), load().call.kcapi_version());
  closeAll();
});

test("the library is loaded once per process, and its addresses are correct", LIBRARY, () => {
  assertStrictEquals(load(), load());
  assertStrictEquals(load(), loadIfGranted());
  const { call, word, cells } = load();
  // memmove of 0 bytes returns an address. Copying from that address proves that it is correct.
  const source = Uint8Array.from([1, 2, 3, 4]);
  const target = new Uint8Array(new ArrayBuffer(4));
  const address = call.memmove(source, word(0), word(0));
  call.memmove(target, address, word(4));
  assertEquals(target, source);
  const cell = new ArrayBuffer(8);
  cells(cell).set(0, address);
  assertEquals(cells(cell).get(0), address);
});

test("allocUnsafe() returns a plain Uint8Array of the requested length with its own buffer", LIBRARY, () => {
  for (const length of [0, 1, 64, 1000, 1001, 4096, 8193, 212_992]) {
    const bytes = load().allocUnsafe(length);
    assertEquals([bytes.constructor, bytes.byteOffset, bytes.length], [Uint8Array, 0, length]);
    assertEquals([bytes.buffer.constructor, bytes.buffer.byteLength], [ArrayBuffer, length]);
  }
});

const child = (name: string) => fileURLToPath(new URL(`./children/${name}.ts`, import.meta.url));

test("the library is loaded at its first use, not by the import or by the userspace engine", LIBRARY, async () => {
  const { code, stdout, stderr } = await spawn([...runtimeArgv, child("lazy")]);
  assertEquals([code, stderr], [0, ""]);
  assertEquals(JSON.parse(stdout), [false, false, true]);
});

// ---- Deno's permissions -----------------------------------------------------------------------------------------

/** Starts Deno through a shell, because Deno's node:child_process adds `-A` when it starts Deno directly. */
const denoRun = (args: readonly string[]) =>
  `exec ${[process.execPath, "run", ...args].map((s) => `'${s}'`).join(" ")}`;

/** Runs a script and parses its output as JSON. */
async function runDeno(...args: string[]) {
  const { code, stdout, stderr } = await spawn(["sh", "-c", denoRun(args)]);
  assertEquals([code, stderr], [0, ""]);
  return JSON.parse(stdout);
}

test(
  "with only --allow-ffi=PATH, every stream works on the kernel engine",
  { engine: "kernel", runtime: "deno" },
  async () => {
    const flag = `--allow-ffi=${load().path}`;
    const { engine, outputs, error } = await runDeno("--no-prompt", flag, ...LIBRARY_FLAGS, child("every_api"));
    assertEquals([engine, error.code], ["kernel", "ENOENT"]);

    const input = bytes(250_000);
    const options = { key: bytes(32, 2), iv: bytes(16, 3) };
    const padded = { ...options, padding: "pkcs7" } as const;
    const ctr = reference("encrypt", "ctr(aes)", options, input);
    const cbc = reference("encrypt", "cbc(aes)", padded, input);
    const expected = {
      streamOp: ctr,
      streamOpInto: reference("decrypt", "ctr(aes)", options, input),
      "stream from a handle": ctr,
      EncryptionStream: cbc,
      DecryptionStream: input,
      encrypt: cbc,
      inPlace: ctr,
      decrypt: input,
      sectors: reference("encrypt", "xts(aes)", { key: bytes(64, 2), sectorSize: 4096, sector: 9 }, input),
      chacha20: reference("encrypt", "chacha20", options, input),
    };
    for (const [name, output] of Object.entries(expected)) {
      assertEquals(Uint8Array.fromHex(outputs[name]), output, name);
    }
    assertEquals(Object.keys(outputs).length, Object.keys(expected).length);
  },
);

/** AES-128 of a zero block with a zero key. */
const ZEROS = "66e94bd4ef8a2c3b884cfa59ca342b2e";

test(
  "without permissions, auto uses the userspace engine and kernel throws EACCES",
  { runtime: "deno" },
  async () => {
    const auto = await runDeno(child("no_permission"));
    assertEquals([auto.engine, auto.output], ["userspace", ZEROS]);
    assertEquals([auto.report.ffi, auto.report.ciphers.kernel], ["refused", []]);
    const kernel = await runDeno(child("no_permission"), "kernel");
    assertEquals([kernel.code, kernel.operation], ["EACCES", "dlopen"]);
    assertStringIncludes(kernel.hint, "--allow-ffi");
    assertStringIncludes(kernel.cause, "NotCapable");
  },
);

/** Runs Deno in a terminal, answers each prompt with no, and returns the output and the number of prompts. */
function inTerminal(...args: string[]): Promise<{ output: string; questions: number }> {
  return new Promise((resolve, reject) => {
    const script = spawnProcess("script", ["-qec", denoRun(args), "/dev/null"], {
      env: { ...process.env, NO_COLOR: "1" },
    });
    let output = "";
    let questions = 0;
    script.stdout.on("data", (data: Uint8Array) => {
      output += new TextDecoder().decode(data);
      // Deno drops input that arrives before the prompt.
      const asked = output.split("Allow?").length - 1;
      for (; questions < asked; questions++) setTimeout(() => script.stdin.write("n\n"), 200);
    });
    script.on("error", reject);
    script.on("close", () => resolve({ output, questions }));
  });
}

const hasTerminals = existsSync("/dev/pts/ptmx") && await spawn(["script", "--version"]).then(() => true, () => false);
const TERMINAL = { runtime: "deno", needs: { "script(1) with a terminal": hasTerminals } } as const;

test("in a terminal, auto causes no prompt", TERMINAL, async () => {
  const { output, questions } = await inTerminal(child("no_permission"));
  assertEquals(questions, 0, output);
  assertEquals(JSON.parse(output).engine, "userspace");
});

test("in a terminal, kernel prompts once for FFI, and accepts a refusal", TERMINAL, async () => {
  const { output, questions } = await inTerminal(child("no_permission"), "kernel");
  assertEquals(questions, 1, output);
  assertStringIncludes(output, `Deno requests ffi access to "${denoAdapter(Deno).paths[0]}"`);
  assertStringIncludes(output, '{"code":"EACCES","operation":"dlopen"');
});

// ---- Node's permissions and warnings ----------------------------------------------------------------------------

const NODE = { runtime: "node" } as const;
const READ_ALL = ["--permission", "--allow-fs-read=*"];

/** Runs a script and returns its JSON, and Node's standard error. */
async function runNode(...args: string[]) {
  const { code, stdout, stderr } = await spawn([process.execPath, ...args]);
  assertEquals(code, 0, stderr);
  return { ...JSON.parse(stdout), stderr };
}

test(
  "with --permission and without --allow-ffi, auto silently uses userspace and kernel throws EACCES",
  NODE,
  async () => {
    const auto = await runNode(...READ_ALL, child("no_permission"));
    assertEquals([auto.engine, auto.output, auto.stderr], ["userspace", ZEROS, ""]);
    assertEquals([auto.report.ffi, auto.report.ciphers.kernel], ["refused", []]);
    const kernel = await runNode(...READ_ALL, child("no_permission"), "kernel");
    assertEquals([kernel.code, kernel.operation], ["EACCES", "dlopen"]);
    assertStringIncludes(kernel.hint, "--allow-ffi");
    assertStringIncludes(kernel.cause, "--allow-ffi");
  },
);

test(
  "with --permission and --allow-ffi the library loads, with and without access to the linker's cache",
  NODE,
  async () => {
    const roots = [fileURLToPath(new URL("..", import.meta.url))];
    for (const read of [["*"], roots]) {
      const flags = ["--permission", "--allow-ffi", ...read.map((path) => `--allow-fs-read=${path}`)];
      const { report, engine: used } = await runNode(...flags, child("no_permission"));
      assertEquals([report.ffi, used], ["granted", engine]);
      assertEquals(report.library !== null, hasLibrary);
    }
  },
);

test(
  "with --no-experimental-ffi auto uses userspace, kernel throws ELIBACC, and hint and report explain it",
  NODE,
  async () => {
    const flag = "--no-experimental-ffi";
    const auto = await runNode(flag, child("no_permission"));
    assertEquals([auto.engine, auto.output, auto.stderr, auto.report.ffi], ["userspace", ZEROS, "", "missing"]);
    const kernel = await runNode(flag, child("no_permission"), "kernel");
    assertEquals([kernel.code, kernel.operation], ["ELIBACC", "dlopen"]);
    assertStringIncludes(kernel.hint, "Node 26");
  },
);
