/**
 * The vault's page in a real browser, against this runtime's server: see vault/browser.ts.
 */
import { fileURLToPath } from "node:url";
import { assertEquals, runtime, spawn, test } from "./support/deps.ts";
import { CHROMIUM } from "./vault/server.ts";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

const requirements = {
  engine: "userspace",
  needs: { "Chromium (tests/vault/install)": CHROMIUM !== undefined },
} as const;

for (
  const [part, name] of [
    ["use", "the vault's page uploads, shows progress, downloads, seeks, cancels and deletes, in a browser"],
    ["trouble", "the vault's page handles many files, conflicts, a stale tab, damage and a server that is away"],
  ]
) {
  test(name!, requirements, async () => {
    // Playwright needs Node.
    const command = [path("../node_modules/.bin/node"), path("vault/browser.ts"), runtime, part!];
    const { code, stderr } = await spawn(command, { timeout: 110_000 });
    assertEquals([code, stderr], [0, ""]);
  });
}
