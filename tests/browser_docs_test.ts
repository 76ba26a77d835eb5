/**
 * The snippets of docs/browser.md, run in real browsers as they stand: each is a module with the name in its first
 * line.
 */
import { readFileSync, writeFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { sealedSize } from "../mod.ts";
import { HOSTS } from "./browsers/hosts.ts";
import { reportsOf } from "./support/browser_page.ts";
import { assert, assertEquals, spawn, tempDir, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const page = readFileSync(join(root, "docs/browser.md"), "utf8");
const snippets = [...page.matchAll(/^```ts browser\n\/\/ (\w+\.ts)\n(.*?)^```$/gms)].map(([, name, code]) => ({
  name: name!,
  code: code!,
}));

const NAME = "the plans.txt";
/** Two parts. */
const LENGTH = 9_000_000;

/** Does what a user does, and reports what came of it. */
const DRIVER = `
import { download } from "./download.ts";
import { loadKey } from "./key.ts";
import { readEnd } from "./range.ts";
import { upload } from "./upload.ts";

function contentOf(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).map((_, i) => i % 251);
}
const isEqual = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, i) => byte === b[i]);

/** The user chooses a file; the upload has ended when the server has its last part. */
async function choose(file: File): Promise<void> {
  const input = document.querySelector("input")!;
  const transfer = new DataTransfer();
  transfer.items.add(file);
  input.files = transfer.files;
  input.dispatchEvent(new Event("change"));
  const url = "/files/" + encodeURIComponent(file.name);
  while (!(await fetch(url)).ok) await new Promise((wait) => setTimeout(wait, 20));
}

async function drive(): Promise<object> {
  const content = contentOf(${LENGTH});
  await choose(new File([content], "${NAME}"));
  const key = await loadKey();
  const end = await readEnd("${NAME}", 1000);
  const downloaded = "storage" in navigator
    ? isEqual(new Uint8Array(await (await download("${NAME}")).arrayBuffer()), content)
    : "no private file system";
  await upload(new File([content.slice(0, 1000)], "moved.txt"));
  const refused = await readEnd("moved.txt?as=${NAME}", 10).catch((error) => error.code ?? String(error));
  return {
    extractable: key.extractable,
    end: isEqual(end, content.slice(-1000)),
    downloaded,
    refused,
  };
}

drive().catch((error) => ({ error: String(error) + error.stack }))
  .then((report) => fetch("/report", { method: "POST", body: JSON.stringify(report) }));
`;

/** The server of the snippets: it takes parts, and answers range requests. */
class FileServer {
  readonly files = new Map<string, { parts: Uint8Array[]; isWhole: boolean }>();

  readonly answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { pathname, searchParams } = new URL(request.url!, "http://127.0.0.1");
    const name = decodeURIComponent(pathname.slice("/files/".length));
    if (request.method === "PUT") return await this.#put(name, searchParams, request, response);
    const file = this.files.get(name.replace(/\?.*/, ""));
    if (!file?.isWhole) return void response.writeHead(404).end();
    const bytes = new Uint8Array(await new Blob(file.parts as BlobPart[]).arrayBuffer());
    const [, first, last] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
    if (first === undefined || last === undefined) return void response.end(bytes);
    const start = first === "" ? Math.max(0, bytes.length - Number(last)) : Number(first);
    const end = first === "" || last === "" ? bytes.length : Math.min(bytes.length, Number(last) + 1);
    response.writeHead(206, { "content-range": `bytes ${start}-${end - 1}/${bytes.length}`, etag: '"1"' });
    response.end(bytes.subarray(start, end));
  };

  async #put(name: string, query: URLSearchParams, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const file = this.files.get(name) ?? { parts: [], isWhole: false };
    this.files.set(name, file);
    assertEquals(Number(query.get("part")), file.parts.length);
    file.parts.push(Buffer.concat(chunks));
    file.isWhole = query.get("last") === "true";
    response.end();
  }
}

/** The snippets and the driver in one module. */
async function bundle(): Promise<Uint8Array> {
  const directory = tempDir();
  for (const { name, code } of [...snippets, { name: "driver.ts", code: DRIVER }]) {
    writeFileSync(join(directory, name), code);
  }
  const sealed = join(root, "src/sealed/mod.ts");
  const compilerOptions = {
    ...JSON.parse(readFileSync(join(root, "tsconfig.json"), "utf8")).compilerOptions,
    module: "preserve",
    moduleResolution: "bundler",
    typeRoots: [join(root, "node_modules/@types")],
    paths: { "@kcapi/streams/sealed": [sealed] },
  };
  writeFileSync(join(directory, "tsconfig.json"), JSON.stringify({ compilerOptions, include: ["*.ts"] }));
  const bin = (name: string) => join(root, "node_modules/.bin", name);
  for (
    const argv of [
      [bin("tsc"), "--project", directory],
      [
        bin("esbuild"),
        "driver.ts",
        "--bundle",
        "--format=esm",
        `--alias:@kcapi/streams/sealed=${sealed}`,
        "--outfile=driver.js",
      ],
    ]
  ) {
    const { code, stdout, stderr } = await spawn(argv, { cwd: directory });
    assertEquals(code, 0, stdout + stderr);
  }
  return readFileSync(join(directory, "driver.js"));
}

let bundled: Promise<Uint8Array> | undefined;

for (const browser of HOSTS) {
  const needs = { [browser.missing.replace("needs ", "")]: browser.program !== undefined };

  test(
    `${browser.name}: the snippets of "In the browser" run`,
    { engine: "userspace", runtime: "bun", needs },
    async () => {
      assertEquals(snippets.map(({ name }) => name), ["key.ts", "upload.ts", "download.ts", "range.ts"]);
      const server = new FileServer();
      const paths = [NAME, "moved.txt", `moved.txt?as=${NAME}`].map((name) => `/files/${encodeURIComponent(name)}`);
      const site = {
        "/": '<!doctype html><meta charset="utf-8"><input type="file"><script type="module" src="/driver.js"></script>',
        "/driver.js": await (bundled ??= bundle()),
        ...Object.fromEntries(paths.map((path) => [path, server.answer])),
      };
      const [report] = await reportsOf(browser, site, 1);
      const downloaded = browser.name === "webkit" ? "no private file system" : true;
      assertEquals(report, { extractable: false, end: true, downloaded, refused: "EBADMSG" });
      const { parts } = server.files.get(NAME)!;
      assertEquals([parts.length, parts.reduce((sum, { length }) => sum + length, 0)], [2, sealedSize(LENGTH)]);
    },
  );
}

test("the page shows the policy that its snippets run under", { engine: "userspace", runtime: "bun" }, () => {
  const helper = readFileSync(join(root, "tests/support/browser_page.ts"), "utf8");
  const [, policy] = /^```text\n(.*)\n```$/m.exec(page)!;
  assert(helper.includes(JSON.stringify(policy)), policy);
});
