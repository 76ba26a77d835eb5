/**
 * Combines encryption with CompressionStream and the helpers of `@std/streams`. Runs on Deno, Bun and Node.
 *
 *     deno run -A examples/pipeline.ts
 *     bunx jsr add @std/streams && bun examples/pipeline.ts
 *     npx jsr add @std/streams && node examples/pipeline.ts
 *
 * @module
 */

import { LimitedBytesTransformStream, mergeReadableStreams, toArrayBuffer } from "@std/streams";
import process from "node:process";
import { DecryptionStream, EncryptionStream } from "../mod.ts";

const options = {
  key: crypto.getRandomValues(new Uint8Array(32)),
  iv: crypto.getRandomValues(new Uint8Array(16)),
};
const line = "All work and no play makes Jack a dull boy\n";
const text = line.repeat(20_000);

// Compress first: ciphertext cannot be compressed.
const ciphertext = new Uint8Array(
  await toArrayBuffer(
    new Blob([text]).stream()
      .pipeThrough(new CompressionStream("gzip"))
      .pipeThrough(new EncryptionStream("cbc(aes)", options)),
  ),
);
console.log(`${text.length} bytes of text -> ${ciphertext.length} bytes of ciphertext`);

// Limit the size of decompressed data: it may come from a decompression bomb.
const plaintext = await toArrayBuffer(
  new Blob([ciphertext]).stream()
    .pipeThrough(new DecryptionStream("cbc(aes)", options))
    .pipeThrough(new DecompressionStream("gzip"))
    .pipeThrough(new LimitedBytesTransformStream(10 * text.length, { error: true })),
);
const isSame = new TextDecoder().decode(plaintext) === text;

// Several sources merged into one ciphertext, in the order in which their chunks arrive.
const merged = mergeReadableStreams(new Blob([line]).stream(), new Blob([line]).stream());
const both = await toArrayBuffer(merged.pipeThrough(new EncryptionStream("ctr(aes)", options)));
console.log(`two sources of ${line.length} bytes -> ${both.byteLength} bytes of ciphertext`);

console.log(isSame ? "the text came back" : "THE TEXT DID NOT COME BACK");
process.exitCode = isSame ? 0 : 1;
