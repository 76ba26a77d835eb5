/**
 * The tools of the suite: `test()`, the import maps, `tests/run`.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { assertEquals, assertStringIncludes, engine, reasonToSkip, runtime, spawn, test } from "./support/deps.ts";

const other = engine === "kernel" ? "userspace" : "kernel";
const others = (["deno", "bun", "node"] as const).filter((name) => name !== runtime);

test("a test with a missing requirement is skipped, with the reason", () => {
  assertEquals(reasonToSkip({}), undefined);
  assertEquals(reasonToSkip({ engine, runtime, needs: { "a library": true, "a program": true } }), undefined);
  assertEquals(reasonToSkip({ runtime: [...others, runtime] }), undefined);
  assertEquals(
    reasonToSkip({ needs: { "a library": false, "a file": true, "a program": false } }),
    "needs a library and a program",
  );
  assertEquals(reasonToSkip({ runtime: others }), `is for ${others[0]} and ${others[1]}`);
  assertEquals(reasonToSkip({ runtime: others[0]! }), `is for ${others[0]}`);
  assertEquals(typeof reasonToSkip({ engine: other }), "string");
});

test("the import maps name one replacement of @std for all tests", { engine: "userspace" }, () => {
  const read = (path: string) => JSON.parse(readFileSync(new URL(path, import.meta.url), "utf8"));
  const { imports } = read("support/imports.json");
  const config = read("../deno.json");
  const { paths } = read("../tsconfig.json").compilerOptions;
  for (const name of ["@std/assert", "@std/streams"]) {
    assertEquals(imports[name], "./std_standins.ts");
    assertEquals(config.scopes["./tests/"][name], "./tests/support/std_standins.ts");
    assertEquals(paths[name], ["./tests/support/std_standins.ts"]);
    assertEquals(config.imports[name], `jsr:${name}@^1`);
  }
  assertEquals(import.meta.resolve("@std/assert"), new URL("support/std_standins.ts", import.meta.url).href);
});

const run = (...args: string[]) =>
  spawn([fileURLToPath(new URL("run", import.meta.url)), "--runtime", runtime, "--engine", "userspace", ...args], {
    env: { KCAPI_RESULTS: undefined },
  });
const hanging = fileURLToPath(new URL("fixtures/hanging.ts", import.meta.url));
const hasGuest = (await spawn(["sh", "-c", "command -v linux.uml"])).code === 0;

const silent = "killed, no test ended for 1 s; running was: a test that hangs";

test(
  "tests/run stops a leg in which no test ends, and names the running test",
  { engine: "userspace" },
  async () => {
    const { code, stdout, stderr } = await run("--silence", "1", hanging);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, `boot: ${silent}`);
    assertStringIncludes(
      stdout,
      `${runtime}-userspace: killed because no test ended, exit code 123; running was: a test`,
    );
  },
);

test(
  "tests/run stops a guest in which no test ends, and names the running test",
  { engine: "userspace", runtime: "bun", needs: { "User-Mode Linux": hasGuest } },
  async () => {
    const { code, stderr } = await run("--guest", "--silence", "1", hanging);
    assertEquals(code, 1, stderr);
    assertStringIncludes(stderr, `boot: the guest was ${silent}`);
  },
);
