/**
 * Runs 64 streams of random algorithms, sizes and ends at a time in one process, some with a pool of Workers, and
 * checks every byte.
 *
 *     tests/soak.ts [SECONDS]        (1,800 by default; KCAPI_TEST_ENGINE is the engine, KCAPI_SEED the seed)
 *
 * Prints its progress and, at the end, the results as JSON: open descriptors and resident memory (slope per minute in
 * the second half), and the event-loop lag. Exits with 1 if a byte or an error is wrong, or descriptors stay open.
 */
import { randomInt } from "node:crypto";
import { Buffer } from "node:buffer";
import { readdirSync } from "node:fs";
import process from "node:process";
import {
  CipherHandle,
  encrypt,
  EncryptionStream,
  type EngineChoice,
  KcapiError,
  seal,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../mod.ts";
import { type Bytes, bytes, collectGarbage, cut, reference, turns } from "./support/support.ts";

const SECONDS = Number(process.argv[2] ?? 1_800);
const COUNT = 64;
const engine = (process.env.KCAPI_TEST_ENGINE ?? "auto") as EngineChoice;
const seed = Number(process.env.KCAPI_SEED ?? randomInt(2 ** 31));
if (!(SECONDS > 0)) throw new RangeError("The first argument expected a number of seconds");

// ---- chance -----------------------------------------------------------------------------------------------------

let state = seed | 1;
/** A random integer below `limit`: mulberry32. */
function below(limit: number): number {
  state = (state + 0x6d2b79f5) | 0;
  let x = Math.imul(state ^ (state >>> 15), state | 1);
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
  return ((x ^ (x >>> 14)) >>> 0) % limit;
}
const oneOf = <T>(list: readonly T[]): T => list[below(list.length)]!;

// ---- jobs -------------------------------------------------------------------------------------------------------

interface Job {
  readonly algorithm: string;
  readonly options: { key: Bytes; iv?: Bytes; padding?: "pkcs7" | "none"; sectorSize?: number; sector?: number };
  readonly input: Bytes;
  readonly pieces: readonly number[];
  readonly end: "complete" | "abort" | "error" | "leave" | "close";
}

/** Whether the stream unseals. The others encrypt. */
const SEALED = "sealed";

const ENDS = ["complete", "complete", "complete", "abort", "error", "leave", "close"] as const;

/** The possible jobs with inputs and outputs, computed in advance so that the references are not measured. */
const POOL = await Promise.all(Array.from({ length: 50 }, async (_, i) => {
  const algorithm = ["ctr(aes)", "cbc(aes)", "ecb(aes)", "xts(aes)", SEALED][i % 5]!;
  const length = [below(100), below(5_000), below(70_000), below(500_000), below(4_000_000)][below(5)]!;
  const key = bytes(algorithm === "xts(aes)" ? 64 : algorithm === SEALED ? 32 : 16 * (1 + below(2)), i + 1);
  if (algorithm === SEALED) {
    const output = bytes(length, i + 7);
    const input = await new Blob(await Array.fromAsync(seal({ key, engine }, [output]))).bytes();
    return { algorithm, options: { key }, input, output };
  }
  const sectors = { sectorSize: oneOf([512, 4_096]), sector: below(1_000) };
  const options: Job["options"] = algorithm === "xts(aes)"
    ? { key, ...sectors }
    : { key, ...(algorithm !== "ecb(aes)" && { iv: bytes(16, i + 100) }) };
  const padding = algorithm === "cbc(aes)" || algorithm === "ecb(aes)" ? "pkcs7" : "none";
  const whole = algorithm === "xts(aes)" ? length - length % sectors.sectorSize : length;
  const input = bytes(whole, i + 7);
  return { algorithm, options, input, output: reference("encrypt", algorithm, { ...options, padding }, input) };
}));

/** The pool that some of the streams use. */
const pool = new WorkerPool(2);

const REASON = new Error("the expected error");

/** Yields chunks of the input, each in its own turn as from a socket, and throws if the job ends with an error. */
async function* source({ input, pieces, end }: Job, stop: number): AsyncGenerator<Bytes> {
  let given = 0;
  for (const piece of cut(input, pieces)) {
    await turns();
    if (end === "error" && given >= stop) throw REASON;
    given += piece.length;
    yield piece;
  }
  if (end === "error") throw REASON;
}

function streamOf(chunks: AsyncGenerator<Bytes>): ReadableStream<Bytes> {
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await chunks.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: () => void chunks.return(undefined),
  }, { highWaterMark: 0 });
}

async function* overHandle(job: Job, signal: AbortSignal, stop: number): AsyncGenerator<Bytes> {
  const { algorithm, options: { key, iv } } = job;
  using handle = CipherHandle.open(algorithm, { key, engine });
  handle.streamInitEnc(iv);
  let failure: unknown;
  const produce = async () => {
    for await (const piece of source(job, stop)) await handle.streamUpdate(piece);
    await handle.streamUpdateLast();
  };
  const produced = produce().catch((error) => {
    failure = error;
    handle.close();
  });
  try {
    yield* handle.streamOp({ signal, maxBytes: 16 * (1 + below(10_000)) });
    await produced;
  } catch (error) {
    throw failure ?? error;
  }
}

const counts: Record<string, number> = {};
let wrong = 0, total = 0;

function reportError(what: string): void {
  wrong++;
  console.error(`WRONG (seed ${seed}): ${what}`);
}

function start(job: Job, signal: AbortSignal, stop: number): AsyncIterable<Uint8Array> {
  const { algorithm } = job;
  const options = { ...job.options, engine, signal, pool: below(3) === 0 ? pool : undefined };
  const way = below(algorithm === "ctr(aes)" ? 4 : 3);
  if (way === 3) return overHandle(job, signal, stop);
  if (algorithm === SEALED) {
    if (way === 2) return unseal(options, source(job, stop));
    return streamOf(source(job, stop)).pipeThrough(new UnsealStream(options));
  }
  if (way === 2) return encrypt(algorithm, options, source(job, stop));
  return streamOf(source(job, stop)).pipeThrough(new EncryptionStream(algorithm, options));
}

async function run(): Promise<void> {
  const { output, ...chosen } = oneOf(POOL);
  const pieces = Array.from({ length: 1 + below(4) }, () => 1 + below(oneOf([100, 20_000, 300_000, 2_000_000])));
  const small = Math.max(1, Math.ceil(chosen.input.length / 200)); // Avoids too many tiny chunks.
  const job: Job = { ...chosen, pieces: pieces.map((piece) => Math.max(piece, small)), end: oneOf(ENDS) };
  const stop = below(output.length + 1);
  const abort = new AbortController();
  let received = 0, error: unknown;
  const what = `${job.algorithm}, ${job.input.length} bytes in ${job.pieces}, end ${job.end} at ${stop}`;
  try {
    for await (const chunk of start(job, abort.signal, stop)) {
      const isRight = chunk.length > 0 &&
        Buffer.compare(chunk, output.subarray(received, received + chunk.length)) === 0;
      if (!isRight) reportError(`${what}: bytes at ${received}`);
      received += chunk.length;
      total += chunk.length;
      if (received < stop) continue;
      if (job.end === "leave" || job.end === "close") break;
      if (job.end === "abort") abort.abort(REASON);
    }
    if (job.end === "complete" && received !== output.length) {
      reportError(`${what}: ${received} of ${output.length} bytes`);
    }
  } catch (caught) {
    error = caught;
    const isDue = error === REASON && (job.end === "abort" || job.end === "error");
    if (!isDue) reportError(`${what}: ${error instanceof KcapiError ? error.code : error}`);
  }
  if (job.end === "error" && error !== REASON) reportError(`${what}: no error`);
  counts[job.end] = (counts[job.end] ?? 0) + 1;
}

// ---- measurements -----------------------------------------------------------------------------------------------

interface Sample {
  readonly minute: number;
  readonly megabytes: number;
  readonly files: number;
}

const openFiles = () => readdirSync("/proc/self/fd").length;

/** Returns the slope of the regression line through the points (least squares). */
function slope(samples: readonly Sample[], of: (sample: Sample) => number): number {
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  const [x, y] = [mean(samples.map(({ minute }) => minute)), mean(samples.map(of))];
  const above = samples.reduce((sum, sample) => sum + (sample.minute - x) * (of(sample) - y), 0);
  return above / samples.reduce((sum, { minute }) => sum + (minute - x) ** 2, 0);
}

/** Waits until the Workers have closed ended streams. */
async function settled(): Promise<void> {
  await collectGarbage();
  await new Promise((resolve) => setTimeout(resolve, 1_000));
}

const lags: number[] = [];
let expected = performance.now() + 10;
const clock = setInterval(() => {
  const now = performance.now();
  lags.push(Math.max(0, now - expected));
  expected = now + 10;
}, 10);

const begin = performance.now();
const samples: Sample[] = [];
const elapsed = () => (performance.now() - begin) / 1_000;
const every = Math.max(1, SECONDS / 120);
let nextLine = 0;
function sample(): void {
  samples.push({ minute: elapsed() / 60, megabytes: process.memoryUsage.rss() / 2 ** 20, files: openFiles() });
  if (elapsed() < nextLine) return;
  nextLine += 30;
  const { megabytes, files } = samples.at(-1)!;
  console.log(`${elapsed().toFixed()} s: ${JSON.stringify(counts)}, ${megabytes.toFixed()} MiB, ${files} descriptors`);
}

console.log(`soak: ${COUNT} streams for ${SECONDS} s on ${engine}, seed ${seed}`);
// After this, the runtime, the library and the Workers have opened their permanent descriptors.
await Promise.all(Array.from({ length: 2 * COUNT }, run));
await settled();
const before = openFiles();
const sampler = setInterval(sample, 1_000 * every);
async function keepGoing(): Promise<void> {
  while (elapsed() < SECONDS) await run();
}
await Promise.all(Array.from({ length: COUNT }, keepGoing));
clearInterval(sampler);
clearInterval(clock);
await settled();
const left = openFiles() - before;
lags.sort((a, b) => a - b);
const lag = (part: number) => Number((lags[Math.floor(part * (lags.length - 1))] ?? 0).toFixed(1));
const second = samples.slice(Math.floor(samples.length / 2));
console.log(JSON.stringify({
  ...{
    seconds: Number(elapsed().toFixed()),
    engine,
    seed,
    streams: counts,
    megabytes: Math.round(total / 2 ** 20),
    wrong,
  },
  descriptors: { before, left, mostOpen: Math.max(...samples.map(({ files }) => files)) },
  descriptorsPerMinute: Number(slope(second, ({ files }) => files).toFixed(2)),
  memory: { first: Math.round(samples[0]?.megabytes ?? 0), last: Math.round(samples.at(-1)?.megabytes ?? 0) },
  memoryPerMinute: Number(slope(second, ({ megabytes }) => megabytes).toFixed(2)),
  lag: { median: lag(0.5), p99: lag(0.99), most: lag(1) },
}));
if (wrong > 0 || left > 0) process.exitCode = 1;
