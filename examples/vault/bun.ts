/**
 * The vault on Bun: `bun examples/vault/bun.ts`
 *
 * By `node:http`: Bun.serve() sends every stream chunked, and leaves its Content-Length out (oven-sh/bun#10507).
 *
 * @module
 */

import "./node.ts";
