/**
 * Streams over Workers (B10): against one thread, and beside a timer.
 *
 * @module
 */

import {
  CipherWorkers,
  DecryptionStream,
  EncryptionStream,
  type EngineChoice,
  seal,
  SealStream,
  UnsealStream,
} from "../mod.ts";
import {
  type ByteTransform,
  iv,
  key,
  memorySource,
  MiB,
  record,
  roundsOr,
  runBars,
  statistics,
  takeTurns,
  ticksPerSecond,
  timed,
} from "./measure.ts";

const COUNT = 64;
const chunks = [new Uint8Array(MiB).fill(7)];
const engine = (process.env.KCAPI_BENCH_ENGINE ?? "userspace") as EngineChoice;

/** Made anew for each round. */
type Make = (options: { workers?: CipherWorkers }) => ByteTransform;

await runBars({ B10: measureWorkers });

async function measureWorkers(): Promise<void> {
  using workers = new CipherWorkers(2);
  const sealed = cut(
    await new Blob(await Array.fromAsync(seal({ key, engine }, Array(COUNT).fill(chunks[0])))).bytes(),
  );
  const xtsKey = Uint8Array.from({ length: 64 }, (_, i) => i);
  const streams: Record<string, [Make, source?: readonly Uint8Array[]]> = {
    "seal": [(options) => new SealStream({ key, engine, ...options })],
    "unseal": [(options) => new UnsealStream({ key, engine, ...options }), sealed],
    "ctr(aes)": [(options) => new EncryptionStream("ctr(aes)", { key, iv, engine, ...options })],
    "xts(aes), sectors of 4 KiB": [
      (options) => new EncryptionStream("xts(aes)", { key: xtsKey, sectorSize: 4096, engine, ...options }),
    ],
    "cbc(aes), decryption": [
      (options) => new DecryptionStream("cbc(aes)", { key, iv, padding: "none", engine, ...options }),
    ],
  };
  for (const [name, [make, source = chunks]] of Object.entries(streams)) {
    const count = source === chunks ? COUNT : source.length;
    const run = (options: object) => timed(() => drain(source, count, make(options)));
    await compare(name, COUNT * MiB, run({}), run({ workers }));
  }
  const eight = (options: object) =>
    timed(() =>
      Promise.all(
        Array.from({ length: 8 }, () => drain(chunks, COUNT / 8, new SealStream({ key, engine, ...options }))),
      )
    );
  await compare("8 × seal", COUNT * MiB, eight({}), eight({ workers }));
  await measureTimer(() => drain(chunks, COUNT, new SealStream({ key, engine, workers })));
}

async function compare(
  name: string,
  per: number,
  one: () => number | Promise<number>,
  two: () => number | Promise<number>,
): Promise<void> {
  const figures = await takeTurns({ "one thread": one, Workers: two }, { rounds: roundsOr(15), warmUp: 4 });
  record({ bar: "B10", work: `${engine}, ${name}`, figures, unit: "s", per });
}

/** A timer of 10 ms beside a stream that runs flat out. */
async function measureTimer(run: () => Promise<void>): Promise<void> {
  const idle: number[] = [];
  const busy: number[] = [];
  for (let round = 0; round < roundsOr(9); round++) {
    idle.push(await ticksPerSecond(() => new Promise((resolve) => setTimeout(resolve, 1000))));
    busy.push(await ticksPerSecond(run));
  }
  const figures = { idle: statistics(idle), Workers: statistics(busy) };
  record({ bar: "B10", work: `${engine}, timer beside seal`, figures, unit: "ticks" });
}

function cut(whole: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(whole.length / MiB) }, (_, i) => whole.slice(i * MiB, (i + 1) * MiB));
}

async function drain(source: readonly Uint8Array[], count: number, stream: ByteTransform): Promise<void> {
  await memorySource(source, count).pipeThrough(stream).pipeTo(new WritableStream());
}
