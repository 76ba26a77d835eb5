/**
 * Runs the examples. The vault's tests are in vault_test.ts.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { runtimeCommand } from "./support/cli_support.ts";
import {
  assertEquals,
  assertStringIncludes,
  engine,
  runtime,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes } from "./support/support.ts";

test("examples/file.ts decrypts to the same file", async () => {
  const file = join(tempDir(), "file");
  writeFileSync(file, bytes(1_000_001));
  for (const algorithm of engine === "kernel" ? ["ctr(aes)"] : ["cbc(aes)", "ctr(aes)"]) {
    const { code, stdout } = await spawn([...runtimeCommand("../examples/file.ts"), file, algorithm]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, "the bytes came back");
    if (engine === "kernel") assertStringIncludes(stdout, "engine: kernel");
  }
});

test("examples/pipeline.ts works with CompressionStream and @std/streams", { engine: "userspace" }, async () => {
  const map = fileURLToPath(new URL("support/imports.json", import.meta.url));
  const { imports } = JSON.parse(readFileSync(map, "utf8"));
  const standins = new URL(imports["@std/streams"], new URL("support/imports.json", import.meta.url)).href;
  const hook = `import { registerHooks } from "node:module";
    registerHooks({ resolve: (name, context, next) => next(name === "@std/streams" ? "${standins}" : name, context) });`;
  // Bun finds the replacements through tsconfig.json.
  const options = {
    deno: [`--import-map=${map}`],
    bun: [],
    node: [`--import=data:text/javascript,${encodeURIComponent(hook)}`],
  };
  const script = fileURLToPath(new URL("../examples/pipeline.ts", import.meta.url));
  const { code, stdout, stderr } = await spawn([...runtimeArgv, ...options[runtime], script]);
  assertEquals([code, stderr], [0, ""]);
  assertStringIncludes(stdout, "two sources of 43 bytes -> 86 bytes of ciphertext\nthe text came back\n");
});
