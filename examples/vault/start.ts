/**
 * What the start files of all runtimes have in common: the command line, the key, the page.
 *
 * @module
 */

import { link, open, readdir, readFile, rm } from "node:fs/promises";
import { parseArgs } from "node:util";
import { WorkerPool } from "../../mod.ts";
import { createHandler } from "./handler.ts";
import { Vault } from "./vault.ts";

const KEY_SIZE = 32;

/** Opens the vault that the command line names. */
export async function start(): Promise<{ handler: (request: Request) => Promise<Response>; port: number }> {
  const { values } = parseArgs({
    options: {
      directory: { type: "string", default: "vault-files" },
      key: { type: "string", default: "vault.key" },
      port: { type: "string", default: "8000" },
      limit: { type: "string", default: String(64 * 2 ** 30) },
      host: { type: "string", multiple: true, default: [] },
      workers: { type: "boolean", default: false },
    },
  });
  const pool = values.workers ? new WorkerPool() : undefined;
  const vault = await Vault.open(values.directory, await keyOf(values.key, values.directory), pool);
  const page = await readFile(new URL("page.html", import.meta.url), "utf8");
  const hosts = ["localhost", "127.0.0.1", ...values.host];
  return { handler: createHandler(vault, { page, limit: Number(values.limit), hosts }), port: Number(values.port) };
}

/** The key in a file that nobody else can read; a new one where there is neither a key nor anything sealed with it. */
export async function keyOf(path: string, directory: string): Promise<Uint8Array<ArrayBuffer>> {
  const stored = await readdir(directory).catch(() => []);
  if (stored.length === 0) await makeKey(path);
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

/** Makes a key file, complete or not at all; none where there is one. */
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
