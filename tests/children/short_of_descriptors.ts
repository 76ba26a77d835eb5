/**
 * Uses a pool without enough free descriptors, then with enough. Prints both results as JSON. It needs a low limit of
 * descriptors.
 */
import { closeSync, openSync } from "node:fs";
import process from "node:process";
import { encrypt, KcapiError, WorkerPool } from "../../mod.ts";

const pool = new WorkerPool(2);
const options = { key: new Uint8Array(16), iv: new Uint8Array(16), engine: "userspace", pool } as const;

async function outcome(use: () => Promise<unknown>): Promise<unknown> {
  try {
    return await use();
  } catch (error) {
    if (!(error instanceof KcapiError)) throw error;
    return `${error.code} ${error.operation}`;
  }
}

async function length(): Promise<number> {
  let length = 0;
  for await (const piece of encrypt("ctr(aes)", options, new Uint8Array(3_000_000))) length += piece.length;
  return length;
}

const open: number[] = [];
try {
  for (;;) open.push(openSync("/dev/null", "r"));
} catch {
  // the limit
}
for (let i = 0; i < Number(process.argv[2]); i++) closeSync(open.pop()!);
const short = [await outcome(length), await outcome(() => pool.ready())];
for (const descriptor of open) closeSync(descriptor);
console.log(JSON.stringify([...short, await outcome(length), await outcome(() => pool.ready()) ?? "ready"]));
