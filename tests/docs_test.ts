/**
 * The snippets of README.md and docs/, run as they stand.
 *
 * A block of `ts` runs on every runtime, one of `ts deno` (or `bun`, `node`) on that runtime. Blocks of `sh` run in
 * bash, where `kcapi-streams` is the tool on this runtime. `no-run` marks what needs a key of the kernel, root or an
 * hour.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import type { AddressInfo } from "node:net";
import { tool } from "./support/cli_support.ts";
import { AWS_STAND_IN, vaultStandIn } from "./support/kms_stand_ins.ts";
import { startStore } from "./support/stores.ts";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  runtime,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const pages = ["README.md", "SECURITY.md", ...readdirSync(join(root, "docs")).map((name) => join("docs", name))]
  .filter((path) => path.endsWith(".md"));

interface Snippet {
  readonly place: string;
  readonly language: string;
  readonly marks: readonly string[];
  readonly code: string;
}

function snippetsOf(path: string): Snippet[] {
  const text = readFileSync(join(root, path), "utf8");
  return [...text.matchAll(/^```(ts|sh)((?: [\w-]+)*)\n(.*?)^```$/gms)].map((match) => ({
    place: `${path}:${text.slice(0, match.index).split("\n").length}`,
    language: match[1]!,
    marks: match[2]!.split(" ").filter(Boolean),
    code: match[3]!,
  }));
}

/** Programs that not every system has, each with a command that succeeds if it is there. */
const PROGRAMS: Readonly<Record<string, string>> = {
  "cryptsetup ": "PATH=$PATH:/usr/sbin; command -v cryptsetup",
  "go run": "command -v go",
  "javac ": "command -v javac",
  "openssl": "command -v openssl",
  "/usr/bin/python3": "/usr/bin/python3 -c 'import cryptography'",
};

const snippets = pages.flatMap(snippetsOf);
const STAND_INS = new URL("./support/kms_stand_ins.ts", import.meta.url).href;
const MODULES = {
  "@kcapi/streams": new URL("../mod.ts", import.meta.url).href,
  "@kcapi/streams/envelope": new URL("../src/envelope/mod.ts", import.meta.url).href,
  "@kcapi/streams/sealed": new URL("../src/sealed/mod.ts", import.meta.url).href,
  "@kcapi/streams/tink": new URL("../src/tink/mod.ts", import.meta.url).href,
  "crypto-js": new URL("../node_modules/crypto-js/index.js", import.meta.url).href,
  "jose": new URL("../node_modules/jose/dist/webapi/index.js", import.meta.url).href,
  "@std/assert": new URL("./support/std_standins.ts", import.meta.url).href,
  "aws4fetch": new URL("../node_modules/aws4fetch/dist/aws4fetch.esm.mjs", import.meta.url).href,
  "@aws-sdk/client-s3": new URL("../node_modules/@aws-sdk/client-s3/dist-cjs/index.js", import.meta.url).href,
  "@aws-sdk/lib-storage": new URL("../node_modules/@aws-sdk/lib-storage/dist-cjs/index.js", import.meta.url).href,
  "@aws-sdk/client-kms": STAND_INS,
  "@google-cloud/kms": STAND_INS,
};

for (const { place, language, marks, code } of snippets) {
  const [only] = marks;
  if (marks.includes("no-run") || only !== undefined && only !== runtime) continue;
  const needs = Object.fromEntries(
    Object.entries(PROGRAMS).filter(([name]) => code.includes(name))
      .map(([name, command]) => [name.trim(), spawnSync("bash", ["-c", command]).status === 0]),
  );
  test(`${place}: the snippet runs`, { engine: "userspace", needs }, async () => {
    const directory = tempDir();
    writeFileSync(join(directory, "notes.txt"), "attack at dawn");
    const vault = code.includes("VAULT_ADDR") ? await startVault() : undefined;
    await using store = code.includes("S3_ENDPOINT") ? await startStore(10) : undefined;
    const options = { cwd: directory, env: { ...vault?.env, ...store?.env } };
    const command = commandFor(language, store ? withLargeFile(code) : code, directory);
    const { code: exitCode, stdout, stderr } = await spawn(command, options);
    await vault?.close();
    assertEquals(exitCode, 0, stderr);
    assert(stdout.length > 0, "the snippet prints nothing");
    if (place.startsWith("docs/interoperability.md")) assertStringIncludes(stdout, "dawn");
  });
}

/** A recipe of docs/stores.md with a file of several parts, all of which it compares. */
function withLargeFile(code: string): string {
  const content = "crypto.getRandomValues(new Uint8Array(50_000))";
  const same = "Buffer.compare(await file.bytes(), await film.bytes()) === 0";
  return code.replace(`[${content}]`, `Array.from({ length: 400 }, () => ${content})`)
    .replace("(await file.bytes(20_000, 20_010)).length", `${same} || process.exit(1)`);
}

/** The stand-in of Vault, and the variables that lead to it. */
async function startVault() {
  const token = crypto.randomUUID();
  const server = vaultStandIn(token);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    env: { VAULT_ADDR: `http://127.0.0.1:${port}`, VAULT_TOKEN: token },
    close: () => new Promise((resolve) => server.close(resolve)),
  };
}

function commandFor(language: string, code: string, directory: string): string[] {
  if (language === "sh") {
    const quoted = tool.map((word) => `'${word}'`).join(" ");
    return ["bash", "-euc", `kcapi-streams() { ${quoted} "$@"; }${AWS_STAND_IN}\n${code}`];
  }
  const script = join(directory, "snippet.ts");
  const resolved = Object.entries(MODULES).reduce(
    (text, [name, url]) => text.replaceAll(`"${name}"`, `"${url}"`),
    code,
  );
  writeFileSync(script, resolved);
  // The snippet is outside of the project: Deno finds the packages of its modules by this.
  const config = runtime === "deno" ? [`--config=${join(root, "deno.json")}`] : [];
  return [...runtimeArgv, ...config, script];
}

test("every snippet is marked to run, or to be skipped by name", { engine: "userspace" }, () => {
  // Those of the browser: browser_docs_test.ts.
  const known = ["browser", "deno", "bun", "node", "no-run"];
  assertEquals(snippets.flatMap(({ marks }) => marks).filter((mark) => !known.includes(mark)), []);
  assert(snippets.length > 10, `${snippets.length} snippets`);
});
