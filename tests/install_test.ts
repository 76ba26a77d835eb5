/** Tests of tests/kernel/install that change nothing on the system. */
import { fileURLToPath } from "node:url";
import { assert, assertEquals, spawn, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const hasDpkg = await spawn(["dpkg-query", "--version"]).then(({ code }) => code === 0, () => false);
const ONCE = { engine: "userspace", runtime: "bun", needs: { dpkg: hasDpkg } } as const;

const install = (...packages: string[]) =>
  spawn(["tests/kernel/install", "--no-kernel", ...packages], { cwd: root, env: { KCAPI_NO_INSTALL: "1" } });

test("with KCAPI_NO_INSTALL, install lists what is missing and why, installs nothing, and fails", ONCE, async () => {
  const { code, stdout, stderr } = await install("kcapi-no-such-package", "kcapi-no-such-package");
  assertEquals([code, stdout], [1, ""]);
  const [first, ...lines] = stderr.trimEnd().split("\n");
  assertEquals(first, "install: these are missing, and are not installed because KCAPI_NO_INSTALL is set:");
  const packages = lines.filter((line) => line.includes("by apt-get"));
  assertEquals(packages, ["  the package kcapi-no-such-package, by apt-get: a test needs it"]);
  assert(!stderr.includes("E: "), stderr);
});

test("install does not name installed packages, and succeeds if nothing is missing", ONCE, async () => {
  const { code, stdout, stderr } = await install("bash");
  assert(!stderr.includes("by apt-get"), stderr);
  // The installed npm packages may be older than the lock file.
  assertEquals([code, stdout], [stderr === "" ? 0 : 1, ""]);
});
