/**
 * Files and messages that other programs and libraries made are decrypted, and encryption gives the same bytes. The
 * rows are in interop/vectors.jsonl. interop/make.mjs makes them: `node tests/interop/make.mjs --write`.
 */
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import {
  type CipherStreamOptions,
  DecryptionStream,
  EncryptionStream,
  OpenSSLDecryptionStream,
  OpenSSLEncryptionStream,
  type OpenSSLOptions,
} from "../mod.ts";
import { assert, assertEquals, engine, spawn, takes, test } from "./support/deps.ts";
import { type Bytes, collect, cut, fromHex, opens, streamOf } from "./support/support.ts";

interface Row {
  by: string;
  cipher: string;
  layout: string;
  /** The algorithm of a bare cipher; or "openssl", and `options.cipher`. */
  algorithm: string;
  size: number;
  options: Record<string, unknown>;
  output: string;
  /** Has a random salt or key. */
  isRandom: boolean;
}

const BYTES = ["key", "iv", "salt", "associatedData"];

function optionsOf({ algorithm, options }: Row): Record<string, unknown> {
  const values = Object.entries(options).map(([name, value]) => [
    name,
    BYTES.includes(name) ? fromHex(value as string) : value,
  ]);
  return { ...Object.fromEntries(values), engine: algorithm === "gcm(aes)" ? "auto" : engine };
}

type Stream = TransformStream<Uint8Array, Bytes> | OpenSSLEncryptionStream | OpenSSLDecryptionStream;

function streamFor(row: Row, direction: "encrypt" | "decrypt"): Stream {
  const options = optionsOf(row);
  if (row.algorithm === "openssl") {
    const { cipher, ...rest } = options;
    const Stream = direction === "encrypt" ? OpenSSLEncryptionStream : OpenSSLDecryptionStream;
    return new Stream(cipher as string, rest as unknown as OpenSSLOptions);
  }
  const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
  return new Stream(row.algorithm, options as unknown as CipherStreamOptions);
}

async function through(stream: Stream, input: Bytes, sizes: readonly number[]): Promise<Bytes> {
  return await collect(streamOf(cut(input, sizes, { copied: true })).pipeThrough(stream));
}

async function check(row: Row): Promise<void> {
  const what = `${row.by}: ${row.cipher}, ${row.layout}`;
  const { position = 0 } = row.options as { position?: number };
  const plaintext = Uint8Array.from({ length: row.size }, (_, i) => 31 * (position + i) + 7);
  const theirs = fromHex(row.output);
  for (const sizes of [[theirs.length || 1], [1, 7, 40]]) {
    assertEquals(await through(streamFor(row, "decrypt"), theirs, sizes), plaintext, what);
  }
  if (row.isRandom || row.options.ivPrefix) return; // another salt, key or IV
  assertEquals(await through(streamFor(row, "encrypt"), plaintext, [13]), theirs, what);
}

function isSupported({ algorithm, options }: Row): boolean {
  if (algorithm === "gcm(aes)" || algorithm === "openssl") return true;
  return opens(algorithm) && (options.tagSize === undefined || algorithm === "gcm(aes)");
}

const table = readFileSync(new URL("interop/vectors.jsonl", import.meta.url), "utf8");
const rows: Row[] = table.trim().split("\n").map((line) => JSON.parse(line));

for (const [i, row] of rows.entries()) {
  if (!takes(i)) continue;
  const needs = { [row.algorithm]: isSupported(row) };
  test(`${row.by}: ${row.cipher}, ${row.layout}, ${row.size} bytes`, { needs }, async () => await check(row));
}

test("the table has rows of eleven programs and libraries", { engine: "userspace" }, () => {
  assert(rows.length >= 60, `${rows.length}`);
  assertEquals(new Set(rows.map(({ by }) => by.replace(/ [\d.]+\)?$/, ""))).size, 11);
});

test("what openssl, Python and the libraries of this system make now is read, too", {
  engine: "userspace",
  runtime: "node", // the rows of node:crypto and WebCrypto are Node's
}, async () => {
  const command = [process.execPath, fileURLToPath(new URL("interop/make.mjs", import.meta.url)), "--quick"];
  const { code, stdout, stderr } = await spawn(command);
  assertEquals(code, 0, stderr);
  const fresh: Row[] = JSON.parse(stdout);
  assert(fresh.length >= 40, `${fresh.length}`);
  for (const row of fresh) if (isSupported(row)) await check(row);
});
