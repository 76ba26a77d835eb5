/**
 * B3: encrypts a file through the public API, with the runtime's synchronous reads and writes.
 *
 * Arguments: algorithm, key and IV (hex), input, output.
 *
 * @module
 */

import { EncryptionStream } from "../mod.ts";

/** The part of the file API that this script uses. */
interface File {
  /** Returns the bytes read; 0 or null at the end. */
  readSync(buffer: Uint8Array): number | null;
  writeSync(bytes: Uint8Array): number;
}

const isDeno = "Deno" in globalThis;
const args = isDeno ? Deno.args : process.argv.slice(2);
const [algorithm, key, iv, input, output] = args as [string, string, string, string, string];

// Not node:fs, which costs Deno a tenth of its start-up time.
function open(path: string, forWriting: boolean): File {
  if (isDeno) return Deno.openSync(path, forWriting ? { write: true, create: true, truncate: true } : { read: true });
  const { openSync, readSync, writeSync } = process.getBuiltinModule("node:fs");
  const file = openSync(path, forWriting ? "w" : "r");
  return { readSync: (buffer) => readSync(file, buffer), writeSync: (bytes) => writeSync(file, bytes) };
}

const [source, target] = [open(input, false), open(output, true)];
const stream = new EncryptionStream(algorithm, {
  key: Uint8Array.fromHex(key),
  iv: Uint8Array.fromHex(iv),
  padding: "none",
  inPlace: true,
});

// The size of a window of the kernel. There are more buffers than are ever in use: one each in source, stream and sink.
const buffers = Array.from({ length: 4 }, () => new Uint8Array(212_992));
let reads = 0;
const chunks = new ReadableStream<Uint8Array>({
  pull(controller) {
    const buffer = buffers[reads++ % buffers.length]!;
    const length = source.readSync(buffer);
    if (!length) controller.close();
    else controller.enqueue(length === buffer.length ? buffer : buffer.subarray(0, length));
  },
}, { highWaterMark: 0 });
await chunks.pipeThrough(stream).pipeTo(
  new WritableStream({
    write(chunk) {
      for (let rest = chunk; rest.length > 0;) rest = rest.subarray(target.writeSync(rest));
    },
  }),
);
