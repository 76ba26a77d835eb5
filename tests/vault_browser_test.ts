/**
 * The vault's page in a real browser, against this runtime's server: see vault/browser.ts.
 */
import { fileURLToPath } from "node:url";
import { assertEquals, engine, runtime, spawn, test } from "./deps.ts";
import { CHROMIUM } from "./vault/server.ts";

const path = (name: string) => fileURLToPath(new URL(name, import.meta.url));

test.if(
  engine === "userspace" && CHROMIUM !== undefined,
  "needs Chromium (tests/vault/install), outside of the test kernel",
)(
  "the vault's page uploads, shows progress, downloads, seeks, cancels and deletes, in a browser",
  async () => {
    // Playwright is for Node.
    const { code, stderr } = await spawn([path("../node_modules/.bin/node"), path("vault/browser.ts"), runtime], {
      timeout: 110_000,
    });
    assertEquals([code, stderr], [0, ""]);
  },
);
