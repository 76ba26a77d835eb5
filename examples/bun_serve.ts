/**
 * A server for Bun that keeps files encrypted: what is uploaded is encrypted on its way to the disk, and decrypted on
 * its way back, in memory that does not grow with the file.
 *
 *     head -c 32 /dev/urandom > key
 *     bun examples/bun_serve.ts DIRECTORY key [PORT]
 *     curl -T notes.txt http://localhost:8000/
 *     curl http://localhost:8000/notes.txt
 *
 * Nothing is authenticated: who can write to the directory can change what comes back.
 *
 * @module
 */

import { open, rename, rm } from "node:fs/promises";
import process from "node:process";
import { CipherHandle, DecryptionStream, EncryptionStream } from "../mod.ts";

const [directory, keyFile, port = "8000"] = process.argv.slice(2);
if (!directory || !keyFile) throw new Error("Usage: bun_serve.ts DIRECTORY KEYFILE [PORT]");

// Keyed once: each transfer is a stream of its own under this key, with an IV of its own in front of the file.
const handle = CipherHandle.open("ctr(aes)", { key: await Bun.file(keyFile).bytes() });

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  maxRequestBodySize: Number.MAX_SAFE_INTEGER, // 128 MiB by default
  async fetch(request) {
    const [, name] = /^\/([\w-][\w.-]*)$/.exec(new URL(request.url).pathname) ?? [];
    if (!name) return new Response("No such name\n", { status: 404 });
    if (request.method === "PUT") return await upload(`${directory}/${name}`, request);
    if (request.method === "GET") return await download(`${directory}/${name}`);
    return new Response("PUT or GET\n", { status: 405 });
  },
});
console.log(`http://127.0.0.1:${server.port} by the engine ${handle.engine}`);

async function upload(path: string, request: Request): Promise<Response> {
  const iv = crypto.getRandomValues(new Uint8Array(handle.ivSize));
  // A file of its own until it is complete: a client that goes away leaves nothing behind.
  const temporary = `${directory}/.${crypto.randomUUID()}`;
  const file = await open(temporary, "wx");
  try {
    await file.appendFile(iv);
    const body = request.body ?? new Blob().stream();
    const encryption = new EncryptionStream(handle, { iv, signal: request.signal });
    await body.pipeThrough(encryption).pipeTo(new WritableStream({ write: (chunk) => file.appendFile(chunk) }));
    await rename(temporary, path);
    return new Response("Stored\n", { status: 201 });
  } catch (error) {
    await rm(temporary, { force: true });
    console.error(`Upload failed: ${error instanceof Error ? error.message : error}`);
    return new Response("Failed\n", { status: 500 });
  } finally {
    await file.close();
  }
}

async function download(path: string): Promise<Response> {
  const file = Bun.file(path);
  if (!await file.exists()) return new Response("No such file\n", { status: 404 });
  const iv = await file.slice(0, handle.ivSize).bytes();
  const plaintext = file.slice(handle.ivSize).stream().pipeThrough(new DecryptionStream(handle, { iv }));
  return new Response(plaintext, { headers: { "content-type": "application/octet-stream" } });
}

process.on("SIGTERM", async () => {
  await server.stop();
  handle.close();
});
