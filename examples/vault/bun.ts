/**
 * The vault on Bun: `bun examples/vault/bun.ts`
 *
 * Uses `node:http`: Bun.serve() sends every stream chunked and omits its Content-Length (oven-sh/bun#10507).
 *
 * @module
 */

import "./node.ts";
