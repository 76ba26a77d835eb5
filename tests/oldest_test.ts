/**
 * Tests with the oldest supported releases of the runtimes, and with unsupported runtimes. `tests/runtimes` installs
 * the programs.
 */
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { checkRuntime, OLDEST, type RuntimeGlobals } from "../src/runtime/oldest.ts";
import { assert, assertEquals, assertStringIncludes, assertThrows, spawn, tempDir, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const modules = join(root, "node_modules");
const tsc = join(modules, ".bin/tsc");
const platform = `linux-${process.arch}`;
const programs = {
  Deno: join(modules, `oldest-deno-${platform}`, "deno"),
  Bun: join(modules, `oldest-bun-${platform}`, "bin/bun"),
  Node: join(modules, `oldest-node-${platform}`, "bin/node"),
};
const workerd = join(modules, `workerd-${platform}`, "bin/workerd");

/** One runtime starts all others. The tests do not depend on it. */
const ONCE = { engine: "userspace", runtime: "bun" } as const;
const PROGRAMS = { ...ONCE, needs: { "x86-64, for which there are programs": process.arch === "x64" } } as const;

/** The modules and a program, compiled to JavaScript for the oldest Node. */
async function compile(directory: string): Promise<void> {
  const options = "--ignoreConfig --rootDir . --rewriteRelativeImportExtensions --target es2024 --lib esnext,dom " +
    "--module nodenext --types bun,deno,node --skipLibCheck --outDir";
  const files = ["tests/children/minimum.ts", "src/cli.ts", "src/workers/cipher_worker.ts"];
  const { code, stdout } = await spawn([tsc, ...options.split(" "), directory, ...files], { cwd: root });
  assertEquals(code, 0, stdout);
  writeFileSync(join(directory, "package.json"), '{ "type": "module" }');
}

/** The command that runs a module in each runtime: Deno and Bun run the sources, Node the compiled files. */
async function commands(): Promise<Record<keyof typeof OLDEST, (module: string) => string[]>> {
  const compiled = join(tempDir(), "compiled");
  mkdirSync(compiled);
  await compile(compiled);
  return {
    Deno: (module) => [programs.Deno, "run", "--no-config", "--no-check", "-A", join(root, `${module}.ts`)],
    Bun: (module) => [programs.Bun, join(root, `${module}.ts`)],
    Node: (module) => [programs.Node, join(compiled, `${module}.js`)],
  };
}

test(
  "the oldest releases run each part of the API with the same results as the current release",
  PROGRAMS,
  async () => {
    const expected = JSON.parse((await spawn([process.execPath, join(root, "tests/children/minimum.ts")])).stdout);
    for (const [name, command] of Object.entries(await commands())) {
      const version = await spawn([programs[name as keyof typeof OLDEST], "--version"]);
      assertStringIncludes(version.stdout, OLDEST[name as keyof typeof OLDEST]);
      const { code, stdout, stderr } = await spawn(command("tests/children/minimum"), { env: { NO_COLOR: "1" } });
      assertEquals(code, 0, `${name}: ${stderr}`);
      assert(!stderr.includes("MaxListeners"), stderr);
      const results = JSON.parse(stdout);
      assertEquals(results.probe, name.toLowerCase());
      for (const [what, result] of Object.entries(results)) {
        if (what !== "probe") assertEquals(result, expected[what], `${name}: ${what}`);
      }
      // The oldest releases lack some ciphers.
      for (const what of Object.keys(expected)) assert(what in results || what.includes("xts"), `${name}: ${what}`);
    }
  },
);

test("the oldest releases run the tool: seal a file, unseal it from a pipe, and read a range", PROGRAMS, async () => {
  const directory = tempDir();
  const [input, key, sealed] = ["input", "key", "sealed"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const content = new Uint8Array(200_000).map((_, i) => i);
  writeFileSync(input, content);
  writeFileSync(key, new Uint8Array(32).fill(7));
  for (const [name, command] of Object.entries(await commands())) {
    const run = async (args: string[], stdin?: Uint8Array) => {
      const { code, output, stderr } = await spawn([...command("src/cli"), ...args], { input: stdin ?? "" });
      assertEquals(code, 0, `${name} ${args.join(" ")}: ${stderr}`);
      return output;
    };
    const file = await run(["seal", "--key-file", key, "--in", input]);
    writeFileSync(sealed, file);
    assertEquals(Uint8Array.from(await run(["unseal", "--key-file", key], file)), content, name);
    const range = await run(["unseal", "--key-file", key, "--in", sealed, "--range", "100000-100099"]);
    assertEquals(Uint8Array.from(range), content.slice(100_000, 100_100), name);
  }
});

/** Runs a worker in workerd, and returns its exit code and output. By that date, Node's modules are not a default. */
async function inWorkerd(...flags: string[]) {
  const directory = tempDir();
  const bundle = ["build", "--target", "node", "--outfile", join(directory, "worker.js"), "tests/children/workerd.ts"];
  const built = await spawn([process.execPath, ...bundle], { cwd: root });
  assertEquals(built.code, 0, built.stderr);
  const config = join(directory, "config.capnp");
  writeFileSync(
    config,
    `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (services = [(name = "main", worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2026-06-01", compatibilityFlags = ${JSON.stringify(flags)}))]);`,
  );
  const { code, stdout, stderr } = await spawn([workerd, "test", config]);
  return { code, output: stdout + stderr };
}

const hasWorkerd = existsSync(workerd);
const WORKERD = { ...ONCE, needs: { workerd: hasWorkerd } } as const;

test("workerd (Cloudflare Workers) with Node's modules runs the userspace engine", WORKERD, async () => {
  const { code, output } = await inWorkerd("nodejs_compat");
  assertEquals(code, 0, output);
  const line = output.split("\n").find((line) => line.startsWith("{"))!;
  assertEquals(JSON.parse(line), {
    hex: "66e94bd4ef8a2c3b884cfa59ca342b2e", // AES-128 of a zero block with a zero key
    length: 300_000,
    text: "attack at dawn",
    ffi: "missing",
    kernel: [],
  });
});

// Fakes, because each real runtime is a program of 100 MB.
test("checkRuntime() names an old runtime and its version, and lets browsers pass", () => {
  const node = (version: string, getBuiltinModule: RuntimeGlobals["process"] = {}) => ({
    process: { versions: { node: version }, ...getBuiltinModule },
  });
  const modules = { getBuiltinModule: () => undefined };
  const refused: [string, RuntimeGlobals][] = [
    ["this is Deno 2.4.4", { Deno: { version: { deno: "2.4.4" } } }],
    ["this is Deno 1.46.3", { Deno: { version: { deno: "1.46.3" } } }],
    ["this is Bun 1.2.19", { Bun: { version: "1.2.19" }, ...node("24.3.0", modules) }],
    ["this is Bun 1.1.45", { Bun: { version: "1.1.45" }, ...node("22.6.0") }],
    ["this is Node 22.2.0", node("22.2.0")],
    ["this is Node 20.20.0", node("20.20.0", modules)],
  ];
  for (const [text, globals] of refused) {
    const { message } = assertThrows(() => checkRuntime(globals), Error);
    assertStringIncludes(message, `needs Deno ${OLDEST.Deno}, Bun ${OLDEST.Bun} or Node ${OLDEST.Node}`);
    assertStringIncludes(message, text);
  }
  // Browsers, and the `process` that bundlers make for them.
  for (const globals of [{}, { process: {} }, { process: { versions: {} } }]) checkRuntime(globals);
  checkRuntime({ Deno: { version: { deno: OLDEST.Deno } } });
  checkRuntime({ Deno: { version: { deno: "3.0.0-rc.1" } } });
  checkRuntime({ Bun: { version: OLDEST.Bun }, ...node("24.3.0", modules) });
  checkRuntime({ Bun: { version: "1.3.0-canary.5+abc" }, ...node("24.3.0", modules) });
  for (const version of [OLDEST.Node, "22.10.0", "100.0.0"]) checkRuntime(node(version, modules));
});
