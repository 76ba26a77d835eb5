/**
 * The examples, run as they stand; the servers with real clients, curl and fetch, on the loopback interface.
 */
import { Buffer } from "node:buffer";
import { spawn as spawnProcess } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { runtimeCommand } from "./cli_support.ts";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  engine,
  runtime,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./deps.ts";
import { bytes, reference } from "./support.ts";

test("examples/file.ts brings a file back", async () => {
  const file = join(tempDir(), "file");
  writeFileSync(file, bytes(1_000_001));
  for (const algorithm of ["cbc(aes)", "ctr(aes)"]) {
    const { code, stdout } = await spawn([...runtimeCommand("../examples/file.ts"), file, algorithm]);
    assertEquals(code, 0);
    assertStringIncludes(stdout, "the bytes came back");
    if (engine === "kernel") assertStringIncludes(stdout, "engine: kernel");
  }
});

test("examples/pipeline.ts composes with CompressionStream and @std/streams", async () => {
  const map = fileURLToPath(new URL("imports.json", import.meta.url));
  const { imports } = JSON.parse(readFileSync(map, "utf8"));
  const standins = new URL(imports["@std/streams"], new URL("imports.json", import.meta.url)).href;
  const hook = `import { registerHooks } from "node:module";
    registerHooks({ resolve: (name, context, next) => next(name === "@std/streams" ? "${standins}" : name, context) });`;
  // Bun has the stand-ins from tsconfig.json.
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

// ---- Servers ------------------------------------------------------------------------------------------------------

const KEY = bytes(32, 2);
const UPLOADS = 100;
const size = (i: number) => 1 + 997 * i;

/** A server of this runtime's example, in a process of its own. */
class Server {
  readonly directory = tempDir();
  readonly stored = join(this.directory, "stored");
  readonly process;
  readonly ended: Promise<number | null>;
  url = "";
  #output = "";

  constructor() {
    mkdirSync(this.stored);
    writeFileSync(join(this.directory, "key"), KEY);
    const command = runtimeCommand(`../examples/${runtime}_serve.ts`);
    const [program, ...args] = [...command, this.stored, join(this.directory, "key"), "0"];
    this.process = spawnProcess(program!, args, { stdio: ["ignore", "pipe", "ignore"] });
    this.process.stdout.on("data", (chunk) => this.#output += chunk);
    this.ended = new Promise((resolve) => this.process.on("close", resolve));
  }

  async start(): Promise<void> {
    await until(() => /http:.*\n/.test(this.#output));
    const [, url, used] = /^(http:\S+) by the engine (\w+)\n$/.exec(this.#output)!;
    assertEquals(used, engine === "kernel" ? "kernel" : used);
    this.url = url!;
  }

  async stop(): Promise<void> {
    process.kill(this.process.pid!, "SIGTERM");
    assertEquals(await this.ended, 0);
  }

  names(): string[] {
    return readdirSync(this.stored);
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.process.pid}/fd`).length;
  }

  /** The most memory it has had in RAM so far, in bytes. */
  memory(): number {
    const status = readFileSync(`/proc/${this.process.pid}/status`, "utf8");
    return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)![1]);
  }
}

async function withServer(action: (server: Server) => Promise<void>): Promise<void> {
  const server = new Server();
  try {
    await server.start();
    await action(server);
    await server.stop();
  } finally {
    server.process.kill("SIGKILL");
    await server.ended;
  }
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !condition();) {
    assert(Date.now() < end, `waited in vain for ${condition}`);
    await delay(10);
  }
}

/** No keep-alive: the descriptors of the server are counted. */
const headers = { connection: "close" };

async function put(url: string, body: BodyInit, signal?: AbortSignal): Promise<number> {
  const init = { method: "PUT", body, headers, duplex: "half", ...signal && { signal } };
  const response = await fetch(url, init as RequestInit);
  await response.text();
  return response.status;
}

/** Runs curl once for many transfers, all at the same time. */
async function curl(transfers: Record<string, string>[]): Promise<void> {
  const config = transfers.map((options) => Object.entries(options).map(([name, value]) => `${name} = "${value}"\n`));
  const flags = ["--no-progress-meter", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "100"];
  const { code, stderr } = await spawn(["curl", ...flags, "--config", "-"], { input: config.flat().join("") });
  assertEquals([code, stderr], [0, ""]);
}

test("the server takes and gives back 100 files at once, by curl and by fetch", () =>
  withServer(async ({ url, directory, stored }) => {
    const numbers = Array.from({ length: UPLOADS }, (_, i) => i);
    const at = (name: string) => join(directory, name);
    for (const i of numbers) writeFileSync(at(`in${i}`), bytes(size(i), i));

    await curl(numbers.map((i) => ({ "upload-file": at(`in${i}`), url: `${url}/c${i}`, output: "/dev/null" })));
    const codes = await Promise.all(numbers.map((i) => put(`${url}/f${i}`, bytes(size(i), i))));
    assertEquals(codes, numbers.map(() => 201));

    // What each client stored, the other one fetches.
    await curl(numbers.map((i) => ({ url: `${url}/f${i}`, output: at(`out${i}`) })));
    for (const i of numbers) assertEquals(new Uint8Array(readFileSync(at(`out${i}`))), bytes(size(i), i));
    const bodies = await Promise.all(
      numbers.map(async (i) => new Uint8Array(await (await fetch(`${url}/c${i}`, { headers })).arrayBuffer())),
    );
    for (const i of numbers) assertEquals(bodies[i]!, bytes(size(i), i));

    const ivs = new Set<string>();
    for (const name of readdirSync(stored)) {
      const file = new Uint8Array(readFileSync(join(stored, name)));
      const iv = file.slice(0, 16);
      ivs.add(Buffer.from(iv).toString("hex"));
      const i = Number(name.slice(1));
      assertEquals(reference("decrypt", "ctr(aes)", { key: KEY, iv }, file.slice(16)), bytes(size(i), i));
    }
    assertEquals(ivs.size, 2 * UPLOADS);
    for (const path of ["missing", "..%2Fkey"]) {
      const response = await fetch(`${url}/${path}`, { headers });
      assertEquals([response.status, /^No such/.test(await response.text())], [404, true]);
    }
  }));

test("a client that goes away half way leaves no file, no descriptor and a server that works", () =>
  withServer(async (server) => {
    const { url } = server;
    const large = bytes(8_000_000);
    assertEquals(await put(`${url}/large`, large), 201);
    await (await fetch(`${url}/large`, { headers })).bytes();
    const descriptors = server.descriptors();
    const isClean = () => server.names().join() === "large" && server.descriptors() <= descriptors;
    await until(isClean);

    // In an upload: the connection is cut, …
    const { port } = new URL(url);
    const upload = connect(Number(port), "127.0.0.1");
    upload.on("error", () => {});
    upload.write("PUT /cut HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n");
    upload.write(bytes(500_000));
    await until(() => server.names().length === 2);
    upload.destroy();
    await until(isClean);

    // … or a request is aborted.
    const abort = new AbortController();
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(bytes(300_000)), // and never closes
    });
    const aborted = put(`${url}/aborted`, body, abort.signal).then(() => "completed", () => "aborted");
    await until(() => server.names().length === 2);
    abort.abort();
    assertEquals(await aborted, "aborted");
    await until(isClean);

    // In a download.
    const download = connect(Number(port), "127.0.0.1");
    download.on("error", () => {});
    download.write("GET /large HTTP/1.1\r\nhost: localhost\r\n\r\n");
    await new Promise((resolve) => download.once("data", resolve));
    download.destroy();
    await until(isClean);
    const { code } = await spawn(["bash", "-c", `curl -s ${url}/large | head -c 100000 >/dev/null`]);
    assertEquals(code, 0);
    await until(isClean);

    assertEquals(await put(`${url}/after`, large), 201);
    assertEquals(new Uint8Array(await (await fetch(`${url}/after`, { headers })).arrayBuffer()), large);
  }));

test.if(engine === "userspace", "takes too long in the test kernel")(
  "the server's memory does not grow with the file",
  () =>
    withServer(async (server) => {
      const { url } = server;
      const mebibytes = 256;
      const upload = (count: number) =>
        spawn(["bash", "-c", `head -c ${count}M /dev/zero | curl --silent --fail -T - ${url}/zeros`]);
      assertEquals((await upload(1)).code, 0);
      const before = server.memory();
      assertEquals((await upload(mebibytes)).code, 0);
      const { stdout } = await spawn([
        "bash",
        "-c",
        `curl --silent --fail ${url}/zeros | cmp - <(head -c ${mebibytes}M /dev/zero) && echo same`,
      ]);
      assertEquals(stdout, "same\n");
      const growth = server.memory() - before;
      // Some of it is garbage that the runtime has yet to collect.
      assert(growth < mebibytes * 3 / 4 * 2 ** 20, `${growth} bytes for ${mebibytes} MiB`);
    }),
);
