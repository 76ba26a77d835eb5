/**
 * B7, one contender: sends 4 GiB through one stream and prints the peak growth of the resident memory in bytes.
 *
 * A stream of the same kind runs first, so that compiled code is not counted.
 *
 * Arguments: `identity`, `copying`, `cipher.update`, `EncryptionStream` or `inPlace`; engine; algorithm.
 *
 * @module
 */

import { createCipheriv } from "node:crypto";
import process from "node:process";
import { EncryptionStream } from "../mod.ts";
import type { CipherEngineName } from "../src/engines/engine.ts";
import {
  type ByteTransform,
  chunksOf,
  copyStream,
  identityStream,
  iv,
  key,
  KiB,
  memorySource,
  MiB,
} from "./measure.ts";

const TOTAL = Number(process.env.KCAPI_BENCH_MEMORY_TOTAL ?? 4096 * MiB);

const [contender, engine, algorithm] = process.argv.slice(2) as [string, CipherEngineName, string];

await mostResident(16 * KiB, 256 * MiB);
const before = process.memoryUsage().rss;
console.log(await mostResident(64 * KiB, TOTAL) - before);

/** Sends `total` bytes through a stream; resolves to the peak of the resident memory, sampled at each MiB. */
async function mostResident(size: number, total: number): Promise<number> {
  let [received, most] = [0, 0];
  const sink = new WritableStream<Uint8Array>({
    write(chunk) {
      received += chunk.length;
      if (received % MiB < chunk.length) most = Math.max(most, process.memoryUsage().rss);
    },
  });
  await memorySource(chunksOf(size), total / size).pipeThrough(makeStream()).pipeTo(sink);
  if (received < total) throw new Error(`${received} bytes came out of ${total}`);
  return most;
}

function makeStream(): ByteTransform {
  if (contender === "identity") return identityStream();
  if (contender === "copying") return copyStream();
  if (contender === "cipher.update") return cipherStream();
  return new EncryptionStream(algorithm, { key, iv, engine, inPlace: contender === "inPlace" });
}

/** `node:crypto` with output that is freed at once: the least memory of a stream over it. */
function cipherStream(): ByteTransform {
  const cipher = createCipheriv(`aes-256-${algorithm.slice(0, 3)}`, key, iv);
  return new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      cipher.update(chunk).buffer.transfer(0);
      controller.enqueue(chunk);
    },
  });
}
