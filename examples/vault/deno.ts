/**
 * The vault on Deno: `deno run -A examples/vault/deno.ts`
 *
 * @module
 */

import { start } from "./start.ts";

const { handler, port } = await start();
const onListen = ({ port }: { port: number }) => console.log(`http://127.0.0.1:${port}`);
const server = Deno.serve({ hostname: "127.0.0.1", port, onListen }, handler);
Deno.addSignalListener("SIGTERM", () => server.shutdown());
