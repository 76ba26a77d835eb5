/**
 * A server for Node that keeps files encrypted: what is uploaded is encrypted on its way to the disk, and decrypted on
 * its way back, in memory that does not grow with the file.
 *
 *     head -c 32 /dev/urandom > key
 *     node examples/node_serve.ts DIRECTORY key [PORT]
 *     curl -T notes.txt http://localhost:8000/
 *     curl http://localhost:8000/notes.txt
 *
 * Nothing is authenticated: who can write to the directory can change what comes back.
 *
 * @module
 */

import { open, readFile, rename, rm } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import process from "node:process";
import { Readable, Writable } from "node:stream";
import { CipherHandle, DecryptionStream, EncryptionStream } from "../mod.ts";

const [directory, keyFile, port = "8000"] = process.argv.slice(2);
if (!directory || !keyFile) throw new Error("Usage: node_serve.ts DIRECTORY KEYFILE [PORT]");

// Keyed once: each transfer is a stream of its own under this key, with an IV of its own in front of the file.
const handle = CipherHandle.open("ctr(aes)", { key: await readFile(keyFile) });

const server = createServer(async (request, response) => {
  const [, name] = /^\/([\w-][\w.-]*)$/.exec(request.url!) ?? [];
  if (!name) response.writeHead(404).end("No such name\n");
  else if (request.method === "PUT") await upload(`${directory}/${name}`, request, response);
  else if (request.method === "GET") await download(`${directory}/${name}`, response);
  else response.writeHead(405).end("PUT or GET\n");
});
server.listen(Number(port), "127.0.0.1", () => {
  const address = server.address() as { port: number };
  console.log(`http://127.0.0.1:${address.port} by the engine ${handle.engine}`);
});

async function upload(path: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
  const iv = crypto.getRandomValues(new Uint8Array(handle.ivSize));
  // A file of its own until it is complete: a client that goes away leaves nothing behind.
  const temporary = `${directory}/.${crypto.randomUUID()}`;
  const file = await open(temporary, "wx");
  try {
    await file.appendFile(iv);
    const body = Readable.toWeb(request);
    const toFile = new WritableStream<Uint8Array>({ write: (chunk) => file.appendFile(chunk) });
    await body.pipeThrough(new EncryptionStream(handle, { iv })).pipeTo(toFile);
    await rename(temporary, path);
    response.writeHead(201).end("Stored\n");
  } catch (error) {
    await rm(temporary, { force: true });
    console.error(`Upload failed: ${error instanceof Error ? error.message : error}`);
    response.writeHead(500).end("Failed\n");
  } finally {
    await file.close();
  }
}

async function download(path: string, response: ServerResponse): Promise<void> {
  const file = await open(path).catch(() => undefined);
  if (!file) {
    response.writeHead(404).end("No such file\n");
    return;
  }
  try {
    const iv = new Uint8Array(handle.ivSize);
    await file.read(iv);
    const { size } = await file.stat();
    response.writeHead(200, { "content-length": size - iv.length, "content-type": "application/octet-stream" });
    const ciphertext = Readable.toWeb(file.createReadStream());
    await ciphertext.pipeThrough(new DecryptionStream(handle, { iv })).pipeTo(Writable.toWeb(response));
  } catch (error) {
    console.error(`Download failed: ${error instanceof Error ? error.message : error}`);
    response.destroy();
  }
}

process.on("SIGTERM", () => server.close(() => handle.close()));
