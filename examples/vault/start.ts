/**
 * The command line, the key and the lock: everything about the start of the server that is the same on all runtimes.
 *
 * @module
 */

import { link, mkdir, open, readdir, readFile, rm } from "node:fs/promises";
import { basename, join } from "node:path";
import process from "node:process";
import { DatabaseSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { WorkerPool } from "../../mod.ts";
import { createHandler } from "./handler.ts";
import { LOCK, Vault } from "./vault.ts";

const KEY_SIZE = 32;

/** A server that listens. */
export interface Listener {
  readonly port: number;
  /** Takes no more connections; resolves when the requests under way are done. */
  stop(): Promise<void>;
}

/** Serves a handler on a port of 127.0.0.1. */
export type Serve = (handler: (request: Request) => Promise<Response>, port: number) => Promise<Listener>;

/** Starts the vault that the command line names. If it cannot start, it says why in one line, and exits with code 2. */
export async function start(serve: Serve): Promise<void> {
  try {
    await run(serve, parseOptions(process.argv.slice(2)));
  } catch (error) {
    const [line] = (error instanceof Error ? error.message : String(error)).split("\n");
    console.error(`vault: ${line}`);
    process.exit(2);
  }
}

async function run(serve: Serve, { directory, key, port, limit, hosts, workers }: Options): Promise<void> {
  const page = await readFile(new URL("page.html", import.meta.url), "utf8");
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const unlock = lock(directory);
  const pool = workers ? new WorkerPool() : undefined;
  const vault = await Vault.open(directory, await keyOf(key, directory), pool);
  const listener = await listen(serve, createHandler(vault, { page, limit, hosts }), port);
  // Nothing is removed before this process has both the directory and the port.
  await vault.clean();
  let isStopping = false;
  const stop = async () => {
    if (isStopping) process.exit(1); // the second signal
    isStopping = true;
    await listener.stop();
    await vault.close();
    pool?.close();
    unlock();
    process.exit(0);
  };
  process.on("SIGTERM", stop).on("SIGINT", stop);
  console.log(`http://127.0.0.1:${listener.port}`);
}

async function listen(serve: Serve, ...[handler, port]: Parameters<Serve>): Promise<Listener> {
  try {
    return await serve(handler, port);
  } catch (error) {
    const { code, name } = error as { code?: string; name?: string };
    if (code === "EADDRINUSE" || name === "AddrInUse") throw new Error(`port ${port} is in use`); // AddrInUse: Deno's
    throw error;
  }
}

/** The values of the options. */
export interface Options {
  directory: string;
  key: string;
  port: number;
  /** The most bytes of an upload. */
  limit: number;
  hosts: string[];
  workers: boolean;
}

/** @throws {Error} If an option is unknown or has a wrong value; for `--help`, with the usage. */
export function parseOptions(args: string[]): Options {
  const { values } = parseArgs({
    args,
    options: {
      directory: { type: "string", default: "vault-files" },
      key: { type: "string", default: "vault.key" },
      port: { type: "string", default: "8000" },
      limit: { type: "string", default: "64G" },
      host: { type: "string", multiple: true, default: [] },
      workers: { type: "boolean", default: false },
      help: { type: "boolean", default: false },
    },
  });
  const { directory, key, workers } = values;
  if (values.help) {
    const options = "[--directory DIR] [--key FILE] [--port N] [--limit SIZE] [--host NAME]... [--workers]";
    throw new Error(`usage: ${basename(process.argv[1]!)} ${options}`);
  }
  if (directory === "") throw new Error("--directory: expected a path, got nothing");
  if (key === "") throw new Error("--key: expected a path, got nothing");
  const hosts = ["localhost", "127.0.0.1", ...values.host.map(parseHost)];
  return { directory, key, port: parsePort(values.port), limit: parseSize(values.limit), hosts, workers };
}

function parsePort(text: string): number {
  if (!/^\d{1,5}$/.test(text) || Number(text) > 65_535) {
    throw new Error(`--port: expected a number from 0 to 65535, got ${JSON.stringify(text)}`);
  }
  return Number(text);
}

/** A number of bytes: `1000`, `64K`, `10G`. K, M, G and T are powers of 1024. */
function parseSize(text: string): number {
  const [, digits, unit] = /^(\d+)([KMGT]?)$/i.exec(text) ?? [];
  const size = Number(digits) * 1024 ** " KMGT".indexOf(unit?.toUpperCase() || " ");
  if (!Number.isSafeInteger(size) || size === 0) {
    throw new Error(`--limit: expected a size such as 1000, 64K or 10G, got ${JSON.stringify(text)}`);
  }
  return size;
}

/** A host name, as `URL.hostname` has it. */
function parseHost(text: string): string {
  const url = /^([^\s:/?#@[\]\\]+|\[[\da-f:.]+\])$/i.test(text) ? URL.parse(`http://${text}`) : null;
  if (!url) throw new Error(`--host: expected a host name without a port, got ${JSON.stringify(text)}`);
  return url.hostname;
}

/**
 * Locks a directory for this process. The system releases the lock when the process ends, however it ends.
 *
 * SQLite locks its file with fcntl(2), which no function of Bun and Node does. Nothing is stored in it.
 *
 * @returns Releases the lock.
 */
function lock(directory: string): () => void {
  const database = new DatabaseSync(join(directory, LOCK));
  try {
    database.exec("PRAGMA journal_mode = MEMORY; PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE");
  } catch (error) {
    if (!/locked/.test((error as Error).message)) throw error;
    throw new Error(`${directory} is in use by another server`);
  }
  return () => database.close();
}

/** The key in a file that nobody else can read; a new key if there is none and the directory was never used. */
export async function keyOf(path: string, directory: string): Promise<Uint8Array<ArrayBuffer>> {
  const stored = await readdir(directory).catch(() => []);
  if (stored.every((name) => name.startsWith(LOCK))) await makeKey(path);
  const file = await open(path);
  try {
    const { mode } = await file.stat();
    if (mode & 0o077) throw new Error(`${path}: others can read it; chmod 600 it`);
    const key = await file.readFile();
    if (key.length !== KEY_SIZE) throw new Error(`${path}: expected a key of ${KEY_SIZE} bytes, got ${key.length}`);
    return new Uint8Array(key);
  } finally {
    await file.close();
  }
}

/** Makes a complete key file. A key file that is already there stays. */
async function makeKey(path: string): Promise<void> {
  const temporary = `${path}.${crypto.randomUUID()}`;
  const file = await open(temporary, "wx", 0o600);
  try {
    await file.writeFile(crypto.getRandomValues(new Uint8Array(KEY_SIZE)));
    await file.sync();
    await link(temporary, path).catch((error) => {
      if (error.code !== "EEXIST") throw error;
    });
  } finally {
    await file.close();
    await rm(temporary);
  }
}
