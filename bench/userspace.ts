/**
 * The userspace engine (B6): against the runtime's own cipher and cipher stream.
 *
 * Each contender is a process of its own: this script with the contender's name.
 *
 * @module
 */

import { createCipheriv } from "node:crypto";
import process from "node:process";
import { Duplex } from "node:stream";
import { fileURLToPath } from "node:url";
import { EncryptionStream } from "../mod.ts";
import {
  type ByteTransform,
  chunksOf,
  divide,
  identityStream,
  iv,
  key,
  KiB,
  MiB,
  pump,
  record,
  roundsOr,
  runBars,
  sampled,
  statisticsOf,
  takeProcesses,
  timed,
} from "./measure.ts";

const SIZE = 64 * KiB;
const COUNT = 1000;
const chunks = chunksOf(SIZE);

/**
 * glibc returns the end of the heap to the system each time the garbage collector frees it, and each new page then
 * costs a page fault. In this process, that is half the time of the fastest ciphers, and independent of streams. Both
 * thresholds must be set: if one is set, glibc no longer adapts the other (mallopt(3)), and maps each large block anew.
 */
const KEEPS_MEMORY = {
  MALLOC_TRIM_THRESHOLD_: String(256 * MiB),
  MALLOC_MMAP_THRESHOLD_: String(32 * MiB),
};

/** The contenders, each with the chunks and a mode. */
const CONTENDERS: Record<string, (mode: string) => unknown> = {
  "raw cipher.update": (mode) => updateLoop(cipherOf(mode)),
  identity: () => pump(chunks, COUNT, identityStream()),
  EncryptionStream: (mode) => pump(chunks, COUNT, encryptionOf(mode)),
  "Duplex.toWeb": (mode) => pump(chunks, COUNT, Duplex.toWeb(cipherOf(mode)) as unknown as ByteTransform),
  "a Transformer": (mode) => pump(chunks, COUNT, transformer(cipherOf(mode))),
};

const [command, mode, name] = process.argv.slice(2);
if (command === "contender") {
  const contender = timed(() => CONTENDERS[name!]!(mode!));
  console.log(JSON.stringify(await sampled(contender, { rounds: roundsOr(15) })));
} else await runBars({ B6: measureUserspace });

async function measureUserspace(): Promise<void> {
  const script = fileURLToPath(import.meta.url);
  for (const mode of ["cbc", "ctr", "ecb"]) {
    const samples = await takeProcesses<number, string>(script, mode, Object.keys(CONTENDERS), 3, KEEPS_MEMORY);
    const figures = divide(statisticsOf(samples), COUNT);
    record({ bar: "B6", work: `${mode}(aes)`, figures, unit: "s", per: SIZE });
  }
}

function encryptionOf(mode: string): EncryptionStream {
  const parameters = mode === "ecb" ? { key } : { key, iv };
  return new EncryptionStream(`${mode}(aes)`, { ...parameters, engine: "userspace" });
}

function cipherOf(mode: string): ReturnType<typeof createCipheriv> {
  return createCipheriv(`aes-256-${mode}`, key, mode === "ecb" ? null : iv);
}

/** The least work of a stream over `cipher`: it outputs plain arrays with memory of their own. */
function transformer(cipher: ReturnType<typeof createCipheriv>): ByteTransform {
  return new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      const { buffer, byteOffset, length } = cipher.update(chunk);
      new Uint8Array(buffer).fill(0, byteOffset + length);
      controller.enqueue(new Uint8Array(buffer, byteOffset, length));
    },
  });
}

function updateLoop(cipher: ReturnType<typeof createCipheriv>): void {
  let length = 0;
  for (let i = 0; i < COUNT; i++) length += cipher.update(chunks[i % chunks.length]!).length;
  length += cipher.final().length;
  if (length < COUNT * SIZE) throw new Error("The cipher lost bytes");
}
