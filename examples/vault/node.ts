/**
 * The vault on Node: `node examples/vault/node.ts`
 *
 * @module
 */

import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { start } from "./start.ts";

const { handler, port } = await start();

// By default Node ends a request that takes more than five minutes.
const server = createServer({ requestTimeout: 0 }, async (incoming, outgoing) => {
  try {
    const { status, headers, body } = await handler(requestOf(incoming));
    if (!incoming.complete) outgoing.setHeader("connection", "close"); // nobody reads what is left of a refused upload
    outgoing.writeHead(status, Object.fromEntries(headers));
    if (body) await pipeline(body, outgoing);
    else outgoing.end();
  } catch {
    // A body that fails, or a client that went away: what was sent must not look whole.
    if (outgoing.headersSent) outgoing.destroy();
    else outgoing.writeHead(400, { connection: "close" }).end();
  }
});

function requestOf(incoming: IncomingMessage): Request {
  const { method = "", url, headers } = incoming;
  const hasBody = method !== "GET" && method !== "HEAD";
  const body = hasBody ? Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array<ArrayBuffer>> : null;
  const init = { method, headers: headers as Record<string, string>, body, duplex: "half" as const };
  return new Request(`http://${headers.host}${url}`, init);
}

server.listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${(server.address() as AddressInfo).port}`));
process.on("SIGTERM", () => server.close());
