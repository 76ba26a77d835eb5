/**
 * The vault under load and abuse: `node tests/vault/load.ts [options]`
 *
 *     --runtime NAME    only that runtime's server (default: all three)
 *     --seconds N       duration of the load (default: 60)
 *     --broken N        number of uploads that are cut off at a random point (default: 1000)
 *     --only-sealed     without the servers with Workers, and over plaintext
 *     --ranges N        only the processor time of the server for each of N ranges, sealed and over plaintext
 *
 * 200 connections ask for ranges, beside 20 that upload. Each received byte is compared. Then uploads are cut off,
 * readers do not read, and the server is killed during uploads. Client and server share one machine.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { randomFillSync } from "node:crypto";
import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { RUNTIMES, Server, until } from "./server.ts";

const MiB = 2 ** 20;
const CONTENT = randomFillSync(Buffer.alloc(64 * MiB));
const READERS = 200;
const UPLOADERS = 20;
const RANGE_READERS = 40;
const TURNS = 10;
const SLOW = 50;

const { values: options } = parseArgs({
  options: {
    runtime: { type: "string" },
    seconds: { type: "string", default: "60" },
    broken: { type: "string", default: "1000" },
    "only-sealed": { type: "boolean", default: false },
    ranges: { type: "string" },
  },
});
const directory = mkdtempSync(join(tmpdir(), "vault-load-"));
const agent = new Agent({ keepAlive: true, maxSockets: READERS + UPLOADERS });

try {
  await (options.ranges === undefined ? loadAll() : compareRanges(Number(options.ranges)));
} finally {
  agent.destroy();
  rmSync(directory, { recursive: true });
}

async function loadAll(): Promise<void> {
  const latency = "p50 | p99 ms";
  console.log(
    `| | ranges/s | MB/s out | ${latency} | uploads/s | MB/s in | ${latency} | CPU ms/MB | RSS, thirds MiB | descriptors |`,
  );
  console.log("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const runtime of RUNTIMES.filter((name) => name === (options.runtime ?? name))) {
    const sealed = new Server(runtime, place(runtime));
    await withServer(sealed, async () => {
      await load(sealed, `${runtime}, sealed`);
      await breakOff(sealed, Number(options.broken));
      await readSlowly(sealed);
      await killInUploads(sealed);
    });
    if (options["only-sealed"]) continue;
    const pooled = new Server(runtime, place(`${runtime}-workers`));
    await withServer(pooled, () => load(pooled, `${runtime}, Workers`), "--workers");
    const plain = new Server(runtime, place(`${runtime}-plain`), plainSource());
    await withServer(plain, () => load(plain, `${runtime}, plaintext`));
  }
}

/**
 * The processor time of both servers for random ranges. They take turns, so that both have the same share of what else
 * runs on this machine.
 */
async function compareRanges(count: number): Promise<void> {
  console.log("| | sealed, ms per range | plaintext | ratio |");
  console.log("| --- | --- | --- | --- |");
  for (const runtime of RUNTIMES.filter((name) => name === (options.runtime ?? name))) {
    const servers = [
      new Server(runtime, place(runtime)),
      new Server(runtime, place(`${runtime}-plain`), plainSource()),
    ] as const;
    const costs: [number, number] = [0, 0];
    await withServer(servers[0], () =>
      withServer(servers[1], async () => {
        for (const server of servers) await put(server, "big", CONTENT);
        await delay(1100); // the vault does not keep a file open that has just been stored
        for (const server of servers) await getRandoms(server, count / 2); // the runtime compiles what is hot
        for (let turn = 0; turn < TURNS; turn++) {
          for (const [i, server] of servers.entries()) {
            const before = server.processorTime();
            await getRandoms(server, count / TURNS);
            costs[i]! += 1000 * (server.processorTime() - before) / count;
          }
        }
      }));
    const [sealed, plain] = costs;
    console.log(`| ${runtime} | ${sealed.toFixed(2)} | ${plain.toFixed(2)} | ${(sealed / plain).toFixed(2)} |`);
  }
}

async function getRandoms(server: Server, count: number): Promise<void> {
  let left = count;
  const reader = async () => {
    while (left-- > 0) await getRandom(server);
  };
  await Promise.all(times(RANGE_READERS, reader));
}

async function withServer(server: Server, action: () => Promise<void>, ...flags: string[]): Promise<void> {
  try {
    await server.start(...flags);
    await action();
  } finally {
    await server.kill();
  }
}

function place(name: string): string {
  const path = join(directory, name);
  mkdirSync(path);
  return path;
}

/** The example, with plain.ts instead of its vault.ts. */
function plainSource(): string {
  const source = fileURLToPath(new URL("../../examples/vault", import.meta.url));
  const copy = join(directory, "plain-source");
  mkdirSync(copy, { recursive: true });
  for (const name of readdirSync(source)) copyFileSync(join(source, name), join(copy, name));
  copyFileSync(join(dirname(fileURLToPath(import.meta.url)), "plain.ts"), join(copy, "vault.ts"));
  const start = join(copy, "start.ts");
  const module = new URL("../../mod.ts", import.meta.url).href;
  writeFileSync(start, readFileSync(start, "utf8").replace('"../../mod.ts"', JSON.stringify(module)));
  return copy;
}

// ---- Load -----------------------------------------------------------------------------------------------------------

interface Tally {
  bytes: number;
  /** Milliseconds per request. */
  times: number[];
}

async function load(server: Server, title: string): Promise<void> {
  await put(server, "big", CONTENT);
  await get(server, "big", 0, 1);
  const descriptors = server.descriptors();
  const end = performance.now() + 1000 * Number(options.seconds);
  const reads: Tally = { bytes: 0, times: [] }, uploads: Tally = { bytes: 0, times: [] };
  const memory: number[] = [];
  let most = 0;

  const reader = async () => {
    while (performance.now() < end) {
      const started = performance.now();
      const length = await getRandom(server);
      reads.bytes += length;
      reads.times.push(performance.now() - started);
    }
  };
  const uploader = async (i: number) => {
    while (performance.now() < end) {
      const start = random(CONTENT.length - 4 * MiB), length = 1 + random(4 * MiB);
      const content = CONTENT.subarray(start, start + length);
      await timed(uploads, length, () => put(server, `upload ${i}`, content));
      if (random(4) === 0) await get(server, `upload ${i}`, 0, length, content);
    }
  };
  const watcher = async () => {
    for (; performance.now() < end; await delay(200)) {
      memory.push(server.memory());
      most = Math.max(most, server.descriptors());
    }
  };
  const started = performance.now(), processorTime = server.processorTime();
  await Promise.all([watcher(), ...times(READERS, reader), ...times(UPLOADERS, uploader)]);
  const seconds = (performance.now() - started) / 1000;
  const cost = 1000 * (server.processorTime() - processorTime) / ((reads.bytes + uploads.bytes) / 1e6);

  agent.destroy(); // its connections are descriptors of the server
  await until(() => server.descriptors() <= descriptors + keptOpen(server));
  assert.equal(server.errors, "", "the server logged errors");
  const third = Math.ceil(memory.length / 3);
  const peaks = [0, 1, 2].map((i) => Math.round(Math.max(...memory.slice(i * third, (i + 1) * third)) / MiB));
  assert.ok(peaks[2]! < peaks[0]! + 150, `memory grows: ${peaks}`);
  const columns = [reads, uploads].flatMap(({ bytes, times }) => [
    (times.length / seconds).toFixed(0),
    (bytes / seconds / 1e6).toFixed(0),
    quantile(times, 0.5),
    quantile(times, 0.99),
  ]);
  console.log(
    `| ${
      [title, ...columns, cost.toFixed(1), peaks.join(", "), `${most}, then ${server.descriptors()}`].join(" | ")
    } |`,
  );
}

/** The most files that the vault keeps open between requests. */
function keptOpen(server: Server): number {
  return Math.min(64, server.files().length);
}

async function timed(tally: Tally, bytes: number, action: () => Promise<void>): Promise<void> {
  const start = performance.now();
  await action();
  tally.times.push(performance.now() - start);
  tally.bytes += bytes;
}

function quantile(values: number[], part: number): string {
  return values.sort((a, b) => a - b)[Math.floor(part * values.length)]?.toFixed(0) ?? "none";
}

/** Reads a range, and compares it with the stored content. */
async function get(server: Server, name: string, start: number, end: number, content = CONTENT): Promise<void> {
  const { status, body } = await ask(server, "GET", name, { range: `bytes=${start}-${end - 1}` });
  assert.equal(status, 206);
  assert.ok(body.equals(content.subarray(start, end)), `wrong bytes in ${start}–${end} of ${name}`);
}

/** Reads a random range. Returns its length. */
async function getRandom(server: Server): Promise<number> {
  const start = random(CONTENT.length), length = 1 + random(Math.min(128 * 1024, CONTENT.length - start));
  await get(server, "big", start, start + length);
  return length;
}

async function put(server: Server, name: string, content: Buffer): Promise<void> {
  const { status } = await ask(server, "PUT", name, { "content-length": String(content.length) }, content);
  assert.ok(status === 201 || status === 204, `${status}`);
}

function ask(
  server: Server,
  method: string,
  name: string,
  headers: Record<string, string>,
  content?: Buffer,
): Promise<{ status: number; body: Buffer }> {
  return new Promise((resolve, reject) => {
    const url = `${server.url}/files/${encodeURIComponent(name)}`;
    const asked = request(url, { agent, method, headers }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode!, body: Buffer.concat(chunks) }));
    });
    asked.on("error", reject);
    asked.end(content);
  });
}

// ---- Abuse ----------------------------------------------------------------------------------------------------------

async function breakOff(server: Server, count: number): Promise<void> {
  const files = server.files().length, descriptors = server.descriptors();
  let left = count;
  const breaker = async () => {
    while (left-- > 0) {
      const length = 1 + random(MiB);
      await cut(server, `broken ${random(50)}`, length, random(length));
    }
  };
  await Promise.all(times(50, breaker));
  await until(() => server.files().length === files && server.descriptors() <= descriptors + keptOpen(server));
  await get(server, "big", 0, CONTENT.length);
  console.log(
    `${count} uploads broken off: ${files} files and ${server.descriptors()} descriptors (${descriptors} before)`,
  );
  agent.destroy();
}

/** An upload that announces `length` bytes, or is chunked, and ends after `sent`. */
function cut(server: Server, name: string, length: number, sent: number): Promise<void> {
  return new Promise((resolve) => {
    const socket = connect(server.port, "127.0.0.1");
    const start = `PUT /files/${encodeURIComponent(name)} HTTP/1.1\r\nhost: localhost\r\n`;
    const chunked = `transfer-encoding: chunked\r\n\r\n${length.toString(16)}\r\n`;
    socket.on("error", () => {});
    socket.on("close", () => resolve());
    socket.write(start + (random(2) === 0 ? chunked : `content-length: ${length}\r\n\r\n`));
    socket.write(CONTENT.subarray(0, sent), () => random(2) === 0 ? socket.destroy() : socket.end());
    socket.resume();
  });
}

async function readSlowly(server: Server): Promise<void> {
  const descriptors = server.descriptors(), before = server.memory();
  const sockets = await Promise.all(times(SLOW, () => stalled(server)));
  // The server sends only what fits into their buffers, and serves others meanwhile.
  for (let i = 0; i < 20; i++) await get(server, "big", 0, 8 * MiB);
  const growth = Math.round((server.memory() - before) / MiB);
  assert.ok(growth < SLOW * 4, `${growth} MiB for ${SLOW} readers that do not read`);
  const whole = await rest(sockets[0]!);
  assert.ok(whole.subarray(-CONTENT.length).equals(CONTENT), "wrong bytes for a slow reader");
  for (const socket of sockets) socket.destroy();
  agent.destroy();
  await until(() => server.descriptors() <= descriptors + keptOpen(server));
  console.log(
    `${SLOW} readers of 64 MiB that do not read: ${growth} MiB more memory, ${descriptors} descriptors afterwards`,
  );
}

/** A connection that has asked for the whole file, and reads nothing. */
function stalled(server: Server): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(server.port, "127.0.0.1");
    socket.on("error", reject);
    socket.write("GET /files/big HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    socket.once("readable", () => resolve(socket));
  });
}

async function rest(socket: Socket): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of socket) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function killInUploads(server: Server): Promise<void> {
  const uploads = times(UPLOADERS, (i) => put(server, `upload ${i}`, CONTENT).catch(() => {}));
  await until(() => server.files().some((name) => name.endsWith(".part")));
  await delay(200);
  await server.kill();
  await Promise.all(uploads);
  const left = server.files().filter((name) => name.endsWith(".part")).length;
  await server.start();
  assert.ok(server.files().every((name) => !name.endsWith(".part")));
  const { files, damaged } = await (await fetch(`${server.url}/files`)).json();
  assert.deepEqual([files.length, damaged], [UPLOADERS + 1, []]);
  console.log(
    `killed in ${UPLOADERS} uploads: ${left} temporary files, none after the start; ${files.length} files, all open`,
  );
}

function times<T>(count: number, action: (i: number) => T): T[] {
  return Array.from({ length: count }, (_, i) => action(i));
}

function random(below: number): number {
  return Math.floor(Math.random() * below);
}
