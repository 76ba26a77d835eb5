/**
 * Streams over Workers (B10): against one thread, and with a timer at the same time. Each contender is a process of its
 * own: this script with the contender's name.
 *
 * @module
 */

import process from "node:process";
import { fileURLToPath } from "node:url";
import { Worker } from "node:worker_threads";
import {
  DecryptionStream,
  EncryptionStream,
  type EngineChoice,
  type EngineName,
  seal,
  SealStream,
  UnsealStream,
  WorkerPool,
} from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import { checkFormat } from "../src/sealed/format.ts";
import type { CipherJob } from "../src/cipher/batches.ts";
import type { BatchPosition } from "../src/executors/executor.ts";
import { openSegments, type SealedJob } from "../src/sealed/batches.ts";
import { Secret } from "../src/secret.ts";
import type { BareRequest } from "./bare_worker.ts";
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
  statisticsOf,
  takeProcesses,
  ticksPerSecond,
} from "./measure.ts";

const COUNT = 64; // MiB
const chunks = [new Uint8Array(MiB).fill(7)];
const engine = (process.env.KCAPI_BENCH_ENGINE ?? "userspace") as EngineChoice & EngineName;
/** In the emulated machine a round takes seconds, and the third is a fifth faster than the first: it runs compiled. */
const [TURNS, WARM_UP, ROUNDS] = engine === "kernel" ? [1, 3, roundsOr(5)] : [3, 60, roundsOr(10)];

const CONTENDERS = ["one thread", "Workers", "bare Workers"] as const;
type Contender = (typeof CONTENDERS)[number];

/** A full batch from the middle of a stream. */
const position: BatchPosition = { isLast: false, index: 1, iv, sector: 0n };
const xtsKey = Uint8Array.from({ length: 64 }, (_, i) => i);

interface Work {
  /** Creates a stream, for each round. */
  readonly make: (options: { pool?: WorkerPool }) => ByteTransform;
  readonly source?: () => Promise<readonly Uint8Array[]>;
  /** The number of concurrent streams. */
  readonly streams?: number;
  /** The work of bare Workers for comparison, and its input. */
  readonly order: () => Pick<Exclude<BareRequest, ArrayBuffer>, "job" | "key">;
  readonly unit?: () => Uint8Array<ArrayBuffer>;
}

const sealing: Work = {
  make: (options) => new SealStream({ key, engine, ...options }),
  order: () => ({ job: sealedJob("seal"), key: derived }),
  unit: plaintextUnit,
};
const WORKS: Record<string, Work> = {
  "seal": sealing,
  "unseal": {
    make: (options) => new UnsealStream({ key, engine, ...options }),
    source: sealedChunks,
    order: () => ({ job: sealedJob("unseal"), key: derived }),
    unit: sealedUnit,
  },
  "ctr(aes)": {
    make: (options) => new EncryptionStream("ctr(aes)", { key, iv, engine, ...options }),
    order: () => ({ job: cipherJob("ctr(aes)"), key }),
  },
  "xts(aes), sectors of 4 KiB": {
    make: (options) => new EncryptionStream("xts(aes)", { key: xtsKey, sectorSize: 4096, engine, ...options }),
    order: () => ({ job: cipherJob("xts(aes)", 4096), key: xtsKey }),
  },
  "cbc(aes), decryption": {
    make: (options) => new DecryptionStream("cbc(aes)", { key, iv, padding: "none", engine, ...options }),
    order: () => ({ job: { ...cipherJob("cbc(aes)"), direction: "decrypt" as const }, key }),
  },
  "8 × seal": { ...sealing, streams: 8 },
};

const [command, name, contender] = process.argv.slice(2);
if (command === "contender") console.log(JSON.stringify(await compete(WORKS[name!]!, contender as Contender)));
else await runBars({ B10: measureWorkers });

async function measureWorkers(): Promise<void> {
  const script = fileURLToPath(import.meta.url);
  for (const work of Object.keys(WORKS)) {
    const rounds = await takeProcesses<number, Contender>(script, work, CONTENDERS, TURNS);
    const figures = statisticsOf(rounds);
    record({ bar: "B10", work: `${engine}, ${work}`, figures, unit: "s", per: COUNT * MiB });
  }
  using pool = new WorkerPool(2);
  await measureTimer(() => drain(chunks, COUNT, sealing.make({ pool })));
}

async function compete(work: Work, contender: Contender): Promise<number[]> {
  using pool = contender === "Workers" ? new WorkerPool(2) : undefined;
  const bareWorkers = contender === "bare Workers" ? startBare(work) : [];
  const unit = work.unit?.() ?? new Uint8Array(MiB);
  const source = await work.source?.() ?? chunks;
  const { streams = 1 } = work;
  const count = (source === chunks ? COUNT : source.length) / streams;
  const run = () =>
    contender === "bare Workers"
      ? runBare(bareWorkers, unit, streams)
      : Promise.all(Array.from({ length: streams }, () => drain(source, count, work.make(pool ? { pool } : {}))));
  const seconds: number[] = [];
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const start = performance.now();
    await run();
    if (round >= 0) seconds.push((performance.now() - start) / 1000);
  }
  for (const worker of bareWorkers) await worker.terminate();
  return seconds;
}

function startBare({ order }: Work): Worker[] {
  return [0, 1].map(() => {
    const worker = new Worker(new URL("./bare_worker.ts", import.meta.url));
    worker.postMessage({ ...order(), position } satisfies BareRequest);
    return worker;
  });
}

/** Sends COUNT copies of a batch through streams over bare Workers, each with two pending batches. */
async function runBare(bareWorkers: readonly Worker[], unit: Uint8Array<ArrayBuffer>, streams: number): Promise<void> {
  const answers: ((memory: ArrayBuffer) => void)[][] = bareWorkers.map(() => []);
  bareWorkers.forEach((worker, i) => worker.on("message", (memory: ArrayBuffer) => answers[i]!.shift()!(memory)));
  const most = 2 * bareWorkers.length;
  const waiting: (() => void)[] = [];
  let [sent, underWay] = [0, 0];
  const work = async (memory: ArrayBuffer) => {
    if (underWay === most) await new Promise<void>((resolve) => waiting.push(resolve));
    else underWay++;
    const i = sent++ % bareWorkers.length;
    bareWorkers[i]!.postMessage(memory satisfies BareRequest, [memory]);
    const worked = await new Promise<ArrayBuffer>((resolve) => answers[i]!.push(resolve));
    const next = waiting.shift();
    if (next) next();
    else underWay--;
    return worked;
  };
  const share = Math.max(1, most / streams);
  await Promise.all(Array.from({ length: streams }, () => drain([unit], COUNT / streams, bareStream(work, share))));
  for (const worker of bareWorkers) worker.removeAllListeners("message");
}

/** The shortest possible stream over bare Workers: outputs in order, `most` batches at once. */
function bareStream(work: (memory: ArrayBuffer) => Promise<ArrayBuffer>, most: number): ByteTransform {
  const underWay: Promise<ArrayBuffer>[] = [];
  return new TransformStream<Uint8Array, Uint8Array>({
    async transform(chunk, controller) {
      if (underWay.length === most) controller.enqueue(new Uint8Array(await underWay.shift()!));
      underWay.push(work(new Uint8Array(chunk).buffer));
    },
    async flush(controller) {
      for (const memory of underWay) controller.enqueue(new Uint8Array(await memory));
    },
  });
}

/** The keys of a sealed stream: AES-256 and HMAC. */
const derived = new Uint8Array(64);

function sealedJob(kind: "seal" | "unseal"): SealedJob {
  const header = { salt: new Uint8Array(32), prefix: new Uint8Array(7) };
  return { kind, format: checkFormat(), header, engine };
}

function cipherJob(algorithm: string, sectorSize?: number): CipherJob {
  const plan = { isChain: false, direction: "encrypt", padding: "none", inPlace: true } as const;
  const sectors = sectorSize === undefined
    ? undefined
    : { sectorSize, sector: 0n, ivStep: 1n, ivMode: "plain64" as const };
  return { kind: "cipher", algorithm: parseAlgorithm(algorithm), engine, ...plan, sectors, iv: undefined, position: 0 };
}

/** The input that bare Workers seal: full segments, together 1 MiB. */
function plaintextUnit(): Uint8Array<ArrayBuffer> {
  const { segmentSize, tagSize } = checkFormat();
  return new Uint8Array(MiB - MiB / segmentSize * tagSize);
}

/** The input that bare Workers unseal. */
function sealedUnit(): Uint8Array<ArrayBuffer> {
  const session = openSegments(sealedJob("seal"), Secret.from(derived));
  const { outputs } = session.run([plaintextUnit()], position, false);
  session.close();
  return outputs[0]!;
}

/** A timer of 10 ms while a stream runs at full speed. */
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

async function sealedChunks(): Promise<Uint8Array[]> {
  return cut(await new Blob(await Array.fromAsync(seal({ key, engine }, Array(COUNT).fill(chunks[0])))).bytes());
}

function cut(whole: Uint8Array): Uint8Array[] {
  return Array.from({ length: Math.ceil(whole.length / MiB) }, (_, i) => whole.slice(i * MiB, (i + 1) * MiB));
}

async function drain(source: readonly Uint8Array[], count: number, stream: ByteTransform): Promise<void> {
  await memorySource(source, count).pipeThrough(stream).pipeTo(new WritableStream());
}
