/**
 * Streams over Workers (B10): against one thread, and beside a timer. And how much of the work is the main thread's, by which
 * `report.ts` tells how they grow with the processors.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import process from "node:process";
import { Worker } from "node:worker_threads";
import {
  CipherWorkers,
  DecryptionStream,
  EncryptionStream,
  type EngineChoice,
  type EngineName,
  seal,
  SealStream,
  UnsealStream,
} from "../mod.ts";
import { checkFormat } from "../src/sealed/format.ts";
import type { CipherOrder, Order, Place, SealedOrder } from "../src/workers/messages.ts";
import { jobOf } from "../src/workers/work.ts";
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
  takeTurns,
  ticksPerSecond,
  timed,
} from "./measure.ts";

const COUNT = 64; // MiB
const chunks = [new Uint8Array(MiB).fill(7)];
const engine = (process.env.KCAPI_BENCH_ENGINE ?? "userspace") as EngineChoice & EngineName;

/** Made anew for each round. */
type Make = (options: { workers?: CipherWorkers }) => ByteTransform;

/** What bare Workers do instead, to which bytes. */
type Bare = readonly [order: () => Order, unit: Uint8Array<ArrayBuffer>];

/** A whole unit in the middle of a stream. */
const place: Place = { isLast: false, index: 1, iv, sector: 0n };

await runBars({ B10: measureWorkers });

async function measureWorkers(): Promise<void> {
  using workers = new CipherWorkers(2);
  const bareWorkers = [0, 1].map(() => new Worker(new URL("./bare_worker.ts", import.meta.url)));
  const sealed = cut(
    await new Blob(await Array.fromAsync(seal({ key, engine }, Array(COUNT).fill(chunks[0])))).bytes(),
  );
  const xtsKey = Uint8Array.from({ length: 64 }, (_, i) => i);
  const sealing: Bare = [() => sealedOrder("seal"), new Uint8Array(MiB)];
  const unsealing: Bare = [() => sealedOrder("unseal"), sealedUnit()];
  const streams: Record<string, { make: Make; source?: readonly Uint8Array[]; bare: Bare }> = {
    "seal": { make: (options) => new SealStream({ key, engine, ...options }), bare: sealing },
    "unseal": {
      make: (options) => new UnsealStream({ key, engine, ...options }),
      source: sealed,
      bare: unsealing,
    },
    "ctr(aes)": {
      make: (options) => new EncryptionStream("ctr(aes)", { key, iv, engine, ...options }),
      bare: [() => cipherOrder("ctr(aes)", key), new Uint8Array(MiB)],
    },
    "xts(aes), sectors of 4 KiB": {
      make: (options) => new EncryptionStream("xts(aes)", { key: xtsKey, sectorSize: 4096, engine, ...options }),
      bare: [() => cipherOrder("xts(aes)", xtsKey, 4096), new Uint8Array(MiB)],
    },
    "cbc(aes), decryption": {
      make: (options) => new DecryptionStream("cbc(aes)", { key, iv, padding: "none", engine, ...options }),
      bare: [() => ({ ...cipherOrder("cbc(aes)", key), direction: "decrypt" }), new Uint8Array(MiB)],
    },
  };
  for (const [name, { make, source = chunks, bare }] of Object.entries(streams)) {
    const count = source === chunks ? COUNT : source.length;
    const run = (options: object) => timed(() => drain(source, count, make(options)));
    await compare(name, run({}), run({ workers }), bareWorkers, bare);
  }
  const eight = (options: object) =>
    timed(() =>
      Promise.all(
        Array.from({ length: 8 }, () => drain(chunks, COUNT / 8, new SealStream({ key, engine, ...options }))),
      )
    );
  await compare("8 × seal", eight({}), eight({ workers }), bareWorkers, sealing);
  for (const worker of bareWorkers) await worker.terminate();
  await measureShares("seal", () => drain(chunks, COUNT, new SealStream({ key, engine, workers })));
  await measureTimer(() => drain(chunks, COUNT, new SealStream({ key, engine, workers })));
}

async function compare(
  name: string,
  one: () => number | Promise<number>,
  two: () => number | Promise<number>,
  bareWorkers: readonly Worker[],
  [order, unit]: Bare,
): Promise<void> {
  for (const worker of bareWorkers) worker.postMessage({ order: order(), place } satisfies BareRequest);
  const figures = await takeTurns({
    "one thread": one,
    Workers: two,
    "bare Workers": timed(() => runBare(bareWorkers, unit)),
  }, { rounds: roundsOr(15), warmUp: engine === "kernel" ? 0 : 5, ownGarbage: true }); // a round there takes seconds
  record({ bar: "B10", work: `${engine}, ${name}`, figures, unit: "s", per: COUNT * MiB });
}

/** COUNT copies of a unit, two under way with each Worker. */
async function runBare(bareWorkers: readonly Worker[], unit: Uint8Array<ArrayBuffer>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  let [sent, received] = [0, 0];
  const listeners = bareWorkers.map((worker) => {
    const send = () => {
      const { buffer } = new Uint8Array(unit);
      sent++;
      worker.postMessage(buffer satisfies BareRequest, [buffer]);
    };
    const listener = () => {
      if (++received === COUNT) resolve();
      else if (sent < COUNT) send();
    };
    worker.on("message", listener);
    for (let i = 0; i < 2; i++) send();
    return listener;
  });
  await promise;
  bareWorkers.forEach((worker, i) => worker.off("message", listeners[i]!));
}

function sealedOrder(of: "seal" | "unseal"): SealedOrder {
  const header = { salt: new Uint8Array(32), prefix: new Uint8Array(7) };
  return { of, format: checkFormat(), header, engine, key: new Uint8Array(64) };
}

function cipherOrder(algorithm: string, ofCipher: Uint8Array<ArrayBuffer>, sectorSize?: number): CipherOrder {
  const plan = { isChain: false, direction: "encrypt", padding: "none", iv: undefined } as const;
  return { of: "cipher", algorithm, engine, ...plan, sectorSize, key: ofCipher.slice() };
}

/** What bare Workers unseal. */
function sealedUnit(): Uint8Array<ArrayBuffer> {
  const unit = new Uint8Array(MiB);
  const job = jobOf(sealedOrder("seal"));
  job.run([unit], place, []);
  job.close();
  return unit;
}

/** Processor time of a run: of the main thread, which is serial, and of all the others. */
async function measureShares(name: string, run: () => Promise<void>): Promise<void> {
  const main: number[] = [];
  const others: number[] = [];
  for (let round = 0; round < roundsOr(15); round++) {
    const [ofMain, ofAll] = [mainThreadSeconds(), process.cpuUsage()];
    await run();
    const { user, system } = process.cpuUsage(ofAll);
    main.push(mainThreadSeconds() - ofMain);
    others.push((user + system) / 1e6 - main.at(-1)!);
  }
  const figures = { "main thread": statistics(main), "other threads": statistics(others) };
  record({ bar: "growth", work: `${engine}, ${name}`, figures, unit: "s", per: COUNT * MiB });
}

/** Linux counts it in nanoseconds. */
function mainThreadSeconds(): number {
  return Number(readFileSync(`/proc/self/task/${process.pid}/schedstat`, "utf8").split(" ")[0]) / 1e9;
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
