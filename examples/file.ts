/**
 * Encrypts a file, decrypts it, and compares the two. Runs on Deno, Bun and Node.
 *
 *     deno run -A examples/file.ts [FILE [ALGORITHM]]
 *     bun examples/file.ts [FILE [ALGORITHM]]
 *     node examples/file.ts [FILE [ALGORITHM]]
 *
 * Without FILE, it uses the runtime's own executable.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { createReadStream, createWriteStream, mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { Readable, Writable } from "node:stream";
import { DecryptionStream, EncryptionStream } from "../mod.ts";

const [path = process.execPath, algorithm = "cbc(aes)"] = process.argv.slice(2);
const options = {
  key: crypto.getRandomValues(new Uint8Array(32)),
  iv: crypto.getRandomValues(new Uint8Array(16)),
};
const directory = mkdtempSync(join(tmpdir(), "kcapi-streams-"));
const encrypted = join(directory, "encrypted");
const decrypted = join(directory, "decrypted");

try {
  const encryption = new EncryptionStream(algorithm, options);
  const runtime = ["bun", "deno", "node"].find((name) => name in process.versions)!;
  console.log(`${runtime} ${process.versions[runtime]}, ${algorithm}, engine: ${encryption.engine}`);
  await report("encrypt", path, encrypted, encryption);
  await report("decrypt", encrypted, decrypted, new DecryptionStream(algorithm, options));
  const isSame = await digest(path) === await digest(decrypted);
  console.log(isSame ? "the bytes came back" : "THE BYTES DID NOT COME BACK");
  process.exitCode = isSame ? 0 : 1;
} finally {
  rmSync(directory, { recursive: true });
}

async function report(name: string, from: string, to: string, through: EncryptionStream | DecryptionStream) {
  const start = performance.now();
  await readable(from).pipeThrough(through).pipeTo(writable(to));
  const seconds = (performance.now() - start) / 1000;
  const size = statSync(from).size;
  console.log(
    `${name}: ${basename(from)} ${size} bytes -> ${basename(to)} ${statSync(to).size} bytes, ` +
      `${(size / 1e6 / seconds).toFixed(0)} MB/s`,
  );
}

async function digest(file: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of readable(file)) hash.update(chunk);
  return hash.digest("hex");
}

function readable(file: string): ReadableStream<Uint8Array<ArrayBuffer>> {
  if ("Deno" in globalThis) return Deno.openSync(file).readable;
  if ("Bun" in globalThis) return Bun.file(file).stream();
  return Readable.toWeb(createReadStream(file)) as unknown as ReadableStream<Uint8Array<ArrayBuffer>>;
}

function writable(file: string): WritableStream<Uint8Array> {
  if ("Deno" in globalThis) return Deno.openSync(file, { write: true, create: true }).writable;
  if (!("Bun" in globalThis)) return Writable.toWeb(createWriteStream(file));
  const sink = Bun.file(file).writer();
  return new WritableStream({
    async write(chunk) {
      sink.write(chunk);
      await sink.flush();
    },
    async close() {
      await sink.end();
    },
  });
}
