/**
 * The vault on Deno: `deno run -A examples/vault/deno.ts`
 *
 * @module
 */

import { start } from "./start.ts";

await start((handler, port) => {
  const pending = new Set<Promise<Response>>();
  let isStopping = false;

  const server = Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, async (request) => {
    if (isStopping) return new Response("The server stops\n", { status: 503, headers: { connection: "close" } });
    const response = handler(request);
    pending.add(response);
    return await response.finally(() => pending.delete(response));
  });

  const stop = async () => {
    isStopping = true;
    // Deno 2.9's shutdown() lets responses end, but breaks uploads off.
    await Promise.all(pending);
    await server.shutdown();
  };
  return Promise.resolve({ port: server.addr.port, stop });
});
