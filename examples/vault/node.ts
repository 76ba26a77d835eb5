/**
 * The vault on Node: `node examples/vault/node.ts`
 *
 * @module
 */

import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { start } from "./start.ts";

type Handler = (request: Request) => Promise<Response>;

await start(async (handler, port) => {
  // By default, Node ends a request that takes more than five minutes.
  const server = createServer({ requestTimeout: 0 }, (incoming, outgoing) => respond(handler, incoming, outgoing));
  server.listen(port, "127.0.0.1");
  await once(server, "listening");
  const stop = () => new Promise<void>((resolve) => server.close(() => resolve()));
  return { port: (server.address() as AddressInfo).port, stop };
});

async function respond(handler: Handler, incoming: IncomingMessage, outgoing: ServerResponse): Promise<void> {
  try {
    const { status, headers, body } = await handler(requestOf(incoming));
    if (!incoming.complete) outgoing.setHeader("connection", "close"); // nobody reads the rest of a refused upload
    outgoing.writeHead(status, Object.fromEntries(headers));
    if (body) await pipeline(body, outgoing);
    else outgoing.end();
  } catch {
    // A body that fails, or a client that went away. The response must not look complete.
    if (outgoing.headersSent) outgoing.destroy();
    else outgoing.writeHead(400, { connection: "close" }).end();
  }
}

function requestOf(incoming: IncomingMessage): Request {
  const { method = "", url, headers } = incoming;
  const hasBody = method !== "GET" && method !== "HEAD";
  const body = hasBody ? Readable.toWeb(incoming) as unknown as ReadableStream<Uint8Array<ArrayBuffer>> : null;
  const init = { method, headers: headers as Record<string, string>, body, duplex: "half" as const };
  return new Request(`http://${headers.host}${url}`, init);
}
