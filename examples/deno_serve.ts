/**
 * A server for Deno that keeps files encrypted: what is uploaded is encrypted on its way to the disk, and decrypted on
 * its way back, in memory that does not grow with the file.
 *
 *     head -c 32 /dev/urandom > key
 *     deno run -A examples/deno_serve.ts DIRECTORY key [PORT]
 *     curl -T notes.txt http://localhost:8000/
 *     curl http://localhost:8000/notes.txt
 *
 * Nothing is authenticated: who can write to the directory can change what comes back.
 *
 * @module
 */

import { CipherHandle, DecryptionStream, EncryptionStream } from "../mod.ts";

const [directory, keyFile, port = "8000"] = Deno.args;
if (!directory || !keyFile) throw new Error("Usage: deno_serve.ts DIRECTORY KEYFILE [PORT]");

// Keyed once: each transfer is a stream of its own under this key, with an IV of its own in front of the file.
const handle = CipherHandle.open("ctr(aes)", { key: await Deno.readFile(keyFile) });

const server = Deno.serve({
  hostname: "127.0.0.1",
  port: Number(port),
  onListen: ({ port }) => console.log(`http://127.0.0.1:${port} by the engine ${handle.engine}`),
}, async (request) => {
  const [, name] = /^\/([\w-][\w.-]*)$/.exec(new URL(request.url).pathname) ?? [];
  if (!name) return new Response("No such name\n", { status: 404 });
  if (request.method === "PUT") return await upload(`${directory}/${name}`, request);
  if (request.method === "GET") return await download(`${directory}/${name}`);
  return new Response("PUT or GET\n", { status: 405 });
});

async function upload(path: string, request: Request): Promise<Response> {
  const iv = crypto.getRandomValues(new Uint8Array(handle.ivSize));
  // A file of its own until it is complete: a client that goes away leaves nothing behind.
  const temporary = `${directory}/.${crypto.randomUUID()}`;
  try {
    await Deno.writeFile(temporary, iv);
    const file = await Deno.open(temporary, { append: true });
    const body = request.body ?? new Blob().stream();
    await body.pipeThrough(new EncryptionStream(handle, { iv })).pipeTo(file.writable);
    await Deno.rename(temporary, path);
    return new Response("Stored\n", { status: 201 });
  } catch (error) {
    await Deno.remove(temporary).catch(() => {});
    console.error(`Upload failed: ${error instanceof Error ? error.message : error}`);
    return new Response("Failed\n", { status: 500 });
  }
}

async function download(path: string): Promise<Response> {
  let file;
  try {
    file = await Deno.open(path);
  } catch {
    return new Response("No such file\n", { status: 404 });
  }
  const iv = new Uint8Array(handle.ivSize);
  await file.read(iv);
  const { size } = await file.stat();
  const headers = { "content-length": String(size - iv.length), "content-type": "application/octet-stream" };
  return new Response(file.readable.pipeThrough(new DecryptionStream(handle, { iv })), { headers });
}

Deno.addSignalListener("SIGTERM", () => server.shutdown());
await server.finished;
handle.close();
