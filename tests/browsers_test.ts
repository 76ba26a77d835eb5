/**
 * The runner of the tests in browsers: what it reports when tests pass, fail, are skipped, hang or cannot be loaded.
 */
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { HOSTS, WORKERD } from "./browsers/hosts.ts";
import { assert, assertEquals, assertStringIncludes, spawn, tempDir, test } from "./support/deps.ts";

const here = fileURLToPath(new URL("browsers", import.meta.url));

/** Runs a file of `fixtures/`; `leg` reads a file that the leg has left, `undefined` where there is none. */
async function run(browser: string, fixture: string, ...options: string[]) {
  const results = tempDir();
  const argv = [join(here, "run"), "--browser", browser, "--results", results, ...options];
  const { code, stdout, stderr } = await spawn([...argv, join(here, "fixtures", fixture)], { timeout: 110_000 });
  const leg = (file: string) => {
    const path = join(results, browser, file);
    return existsSync(path) ? readFileSync(path, "utf8") : undefined;
  };
  return { code, output: stdout + stderr, leg, results };
}

/** The test cases of a report, by name. */
function casesOf(report = ""): Record<string, string> {
  const cases = report.matchAll(/<testcase name="([^"]*)" time="[\d.]+">(.*?)<\/testcase>/gs);
  return Object.fromEntries([...cases].map(([, name, body]) => [name, /^<(\w+)/.exec(body!)?.[1] ?? "passed"]));
}

for (const { name, program, missing } of [...HOSTS, WORKERD]) {
  // The runner is a program of its own: it behaves alike whoever starts it.
  const once = { engine: "userspace", runtime: "bun", needs: { [missing.replace("needs ", "")]: !!program } } as const;

  test(`${name}: tests that pass, fail and are skipped are reported as such`, once, async () => {
    const { leg, output, results } = await run(name, "outcomes.ts");
    assertEquals(leg("code"), "1", output);
    assertEquals(casesOf(leg("junit.xml")), {
      "passes": "passed",
      "fails &#38; says &#60;why&#62;": "failure",
      "rejects": "failure",
      "is skipped # needs what nobody has": "skipped",
      "is of the kernel # needs the kernel engine": "skipped",
      "is of Deno # is for deno": "skipped",
      "does not depend on the engine": "passed",
    });
    assertStringIncludes(output, "Bytes differ: first at offset 2");
    assertStringIncludes(output, "as it is meant to");
    const summary = await spawn(["node", join(here, "../support/summary.mjs"), results, "", "", name]);
    assertStringIncludes(summary.stdout, "2 passed, 2 failed, 3 skipped");
    assertStringIncludes(summary.stdout, `${name}: fails & says <why>`);
    assertEquals(summary.code, 1);
  });

  test(`${name}: a test that blocks it for ever is killed, and the report is incomplete`, once, async () => {
    const { leg, output } = await run(name, "loops.ts", "--limit", "10");
    assertStringIncludes(output, "killed: it has reported nothing for 10 s");
    assertEquals(leg("code"), "124");
    assert(!leg("junit.xml")!.includes("</testsuites>"));
  });

  test(`${name}: a module that throws makes the leg fail, with the error`, once, async () => {
    const { leg, output } = await run(name, "broken.ts");
    assertEquals(leg("code"), "1", output);
    assertStringIncludes(output, "this module throws");
    assert(!leg("junit.xml")!.includes("</testsuites>"));
  });
}

for (const { name, program, missing } of HOSTS) {
  const once = { engine: "userspace", runtime: "bun", needs: { [missing.replace("needs ", "")]: !!program } } as const;

  test(`${name}: a rejection that nobody handles makes the leg fail`, once, async () => {
    const { leg, output } = await run(name, "stray.ts");
    assertEquals(leg("code"), "1", output);
    assertStringIncludes(output, "nobody handles this");
  });
}

const workerd = { "workerd: npm ci": !!WORKERD.program };

test(
  "with --filter, only tests with that name are run",
  { engine: "userspace", runtime: "bun", needs: workerd },
  async () => {
    const { leg, output } = await run("workerd", "outcomes.ts", "--filter", "pass");
    assertEquals(leg("code"), "0", output);
    assertEquals(casesOf(leg("junit.xml")), { "passes": "passed" });
  },
);

test("a test file that imports a module of Node is named", { engine: "userspace", runtime: "bun" }, async () => {
  const { code, output } = await run("workerd", "node.ts");
  assertEquals(code, 1);
  assertStringIncludes(output, "tests/browsers/fixtures/node.ts imports node:fs, which browsers do not have");
});
