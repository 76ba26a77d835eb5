/**
 * The harness: contenders that take turns, medians, and the pipelines that all measurements share.
 *
 * @module
 */

import { execFile, spawn } from "node:child_process";
import { appendFileSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { promisify } from "node:util";
import { checksOf, type Figures, limitOf, passes, type Statistics } from "./bars.ts";

export const KiB = 1024;
export const MiB = 1024 * KiB;
/** The bytes that best C sends per round: the kernel's default send buffer. */
export const WINDOW = 212_992;

export const runtime = "Deno" in globalThis ? "Deno" : "Bun" in globalThis ? "Bun" : "Node";
export const key = new Uint8Array(32).map((_, i) => i);
export const iv = new Uint8Array(16).map((_, i) => 255 - i);

/** Where this process runs: in the test kernel, or on this machine. */
export const where = process.env.KCAPI_BENCH_WHERE === "guest" ? "guest" : "host";

/** The number of rounds; the environment can set fewer for a first look. */
export const roundsOr = (usual: number): number => Number(process.env.KCAPI_BENCH_ROUNDS ?? usual);

/** A contender does its work and resolves with the seconds it took. */
export type Contender = () => number | Promise<number>;

/** `action` as a contender, timed by wall clock. */
export function timed(action: () => unknown): Contender {
  return async () => {
    const start = performance.now();
    await action();
    return (performance.now() - start) / 1000;
  };
}

/**
 * Runs the contenders in turns (A B C, B C A, …), so that drift affects all of them.
 *
 * The `warmUp` rounds come first and do not count. If a round is a few calls, a runtime compiles the code only
 * after tens of rounds.
 */
export async function takeTurns<Name extends string>(
  contenders: Record<Name, Contender>,
  { rounds, warmUp = 3 }: { rounds: number; warmUp?: number },
): Promise<Record<Name, Statistics>> {
  const names = Object.keys(contenders) as Name[];
  const samples = Object.fromEntries(names.map((name) => [name, [] as number[]])) as Record<Name, number[]>;
  for (let round = -warmUp; round < rounds; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + Math.max(0, round)) % names.length]!;
      const seconds = await contenders[name]();
      if (round >= 0) samples[name].push(seconds);
      await new Promise((resolve) => setTimeout(resolve, 0));
    }
  }
  return statisticsOf(samples);
}

const FLAGS = { Bun: ["run"], Deno: ["run", "-A", "--no-check"], Node: ["--disable-warning=ExperimentalWarning"] };

/**
 * Runs contenders in turns, each in a process of its own with its own heap and garbage.
 *
 * @param script The script that this runtime runs, with the arguments `contender`, `work` and the contender's name. The
 * last line of its output is a JSON array of samples.
 * @param environment Added to its environment.
 */
export async function takeProcesses<Sample, Name extends string>(
  script: string,
  work: string,
  names: readonly Name[],
  turns: number,
  environment: Record<string, string> = {},
): Promise<Record<Name, Sample[]>> {
  const samples = Object.fromEntries(names.map((name) => [name, [] as Sample[]])) as Record<Name, Sample[]>;
  for (let turn = 0; turn < turns; turn++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + turn) % names.length]!;
      const args = [...FLAGS[runtime], script, "contender", work, name];
      const { stdout } = await execute(args, { ...process.env, ...environment });
      samples[name].push(...JSON.parse(stdout.trim().split("\n").at(-1)!));
    }
  }
  return samples;
}

/** Runs this runtime. In the emulated machine V8 sometimes crashes, so it is run again there. */
async function execute(args: readonly string[], env: NodeJS.ProcessEnv): Promise<{ stdout: string }> {
  for (let again = 0;; again++) {
    try {
      return await promisify(execFile)(process.execPath, args, { env });
    } catch (error) {
      const { signal } = error as { signal?: string };
      if (where !== "guest" || !signal || again === 5) throw error;
      console.log(`${args.at(-1)} died of ${signal}, and is run again`);
    }
  }
}

/** Samples of one contender in a process of its own, after `warmUp` seconds. */
export async function sampled(
  contender: Contender,
  { rounds, warmUp = 2 }: { rounds: number; warmUp?: number },
): Promise<number[]> {
  for (const start = performance.now(); performance.now() - start < 1000 * warmUp;) await contender();
  const samples: number[] = [];
  while (samples.length < rounds) samples.push(await contender());
  return samples;
}

/** Median, minimum and maximum of the samples. */
export function statistics(samples: readonly number[]): Statistics {
  const sorted = samples.toSorted((a, b) => a - b);
  const half = sorted.length >> 1;
  const median = sorted.length % 2 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)!, rounds: sorted.length };
}

/** The same for each contender. */
export function statisticsOf<Name extends string>(samples: Record<Name, readonly number[]>): Record<Name, Statistics> {
  const entries = Object.entries<readonly number[]>(samples);
  return Object.fromEntries(entries.map(([name, each]) => [name, statistics(each)])) as Record<Name, Statistics>;
}

/** Each figure divided by `count`: seconds for a whole run become seconds per chunk. */
export function divide<Name extends string>(
  figures: Record<Name, Statistics>,
  count: number,
): Record<Name, Statistics> {
  const entries = Object.entries<Statistics>(figures);
  return Object.fromEntries(entries.map(([name, { median, min, max, rounds }]) => [
    name,
    { median: median / count, min: min / count, max: max / count, rounds },
  ])) as Record<Name, Statistics>;
}

/** Runs the measurements named on the command line, or all of them. */
export async function runBars(bars: Record<string, () => Promise<void>>): Promise<void> {
  const wanted = process.argv.slice(2);
  for (const [bar, measure] of Object.entries(bars)) {
    if (wanted.length === 0 || wanted.includes(bar)) await measure();
  }
}

/** Appends a result to the file of this run, and prints it with its bar, by medians and by minima. */
export function record(measured: Omit<Figures, "runtime" | "where"> & { runtime?: string }): void {
  const result: Figures = { runtime, where, ...measured };
  const file = process.env.KCAPI_BENCH_RESULTS;
  if (file) appendFileSync(file, JSON.stringify(result) + "\n");
  const { bar, work, unit } = result;
  const figures = Object.entries(result.figures).map(([name, { median, min, max }]) =>
    `${name} ${show(median, unit)} (${show(min, unit)}–${show(max, unit)})`
  );
  console.log(`${bar} ${result.runtime} ${where} ${work}   [${unit}: ${figures.join(", ")}]`);
  const minima = checksOf(result, "min");
  checksOf(result).forEach((check, i) =>
    console.log(
      `  ${check.formula}: ${check.is.toFixed(2)} (of minima ${minima[i]!.is.toFixed(2)}) ${limitOf(check)} ` +
        (passes(check) ? "pass" : "FAIL"),
    )
  );
}

function show(value: number, unit: string): string {
  if (unit !== "s") return value.toFixed(1);
  return value < 1e-3 ? `${(value * 1e6).toFixed(2)}µ` : value < 1 ? `${(value * 1e3).toFixed(2)}m` : value.toFixed(2);
}

/** Counts how often a timer of 10 ms fires while `action` repeats for at least a second. */
export async function ticksPerSecond(action: () => Promise<unknown>): Promise<number> {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 10);
  const start = performance.now();
  while (performance.now() - start < 1000) await action();
  const seconds = (performance.now() - start) / 1000;
  clearInterval(timer);
  return ticks / seconds;
}

export function sizeName(bytes: number): string {
  if (bytes >= MiB) return `${bytes / MiB} MiB`;
  return bytes >= KiB ? `${bytes / KiB} KiB` : `${bytes} B`;
}

/**
 * Chunks for a source that reuses them. There are more than a pipeline ever holds, so that with `inPlace` none is
 * reused before its output was read.
 */
export function chunksOf(size: number): Uint8Array[] {
  const gathered = size < 64 * KiB ? Math.ceil(2 * 64 * KiB / size) : 0;
  return Array.from({ length: gathered + 8 }, () => new Uint8Array(new ArrayBuffer(size)).fill(7));
}

/** A source in memory: `count` chunks, taken from the given ones in turns. */
export function memorySource(chunks: readonly Uint8Array[], count: number): ReadableStream<Uint8Array> {
  let i = 0;
  return new ReadableStream({
    pull(controller) {
      controller.enqueue(chunks[i % chunks.length]!);
      if (++i === count) controller.close();
    },
  });
}

/** The argument of `pipeThrough()`. */
export type ByteTransform = { readable: ReadableStream<Uint8Array>; writable: WritableStream<Uint8Array> };

/** Sends `count` chunks through a stream into a sink that counts bytes. */
export async function pump(chunks: readonly Uint8Array[], count: number, stream: ByteTransform): Promise<void> {
  const size = chunks[0]!.length;
  let received = 0;
  const sink = new WritableStream<Uint8Array>({ write: (chunk) => void (received += chunk.length) });
  await memorySource(chunks, count).pipeThrough(stream).pipeTo(sink);
  const surplus = received - size * count;
  if (surplus < 0 || surplus > 16) throw new Error(`${received} bytes came out of ${size * count}`);
}

export const identityStream = (): ByteTransform => new TransformStream<Uint8Array, Uint8Array>();

/** Copies each chunk into a new array: the least work of a stream that leaves its input unchanged. */
export const copyStream = (): ByteTransform =>
  new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, controller) => controller.enqueue(chunk.slice()),
  });

/** Enqueues a new array for each chunk: the least work of a stream whose output has its own memory. */
export const freshStream = (): ByteTransform =>
  new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, controller) => controller.enqueue(new Uint8Array(chunk.length)),
  });

/** The C loops, in a process that waits for requests. */
export class Baseline {
  readonly #child = spawn(process.env.KCAPI_BENCH_BASELINE!, { stdio: ["pipe", "pipe", "inherit"] });
  readonly #lines = createInterface({ input: this.#child.stdout })[Symbol.asyncIterator]();

  /** Runs one loop over `total` bytes and resolves with its seconds. */
  async run(kind: "plain" | "best", algorithm: string, chunk: number, total: number): Promise<number> {
    this.#child.stdin.write(`${kind} ${algorithm} ${chunk} ${total}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("The C baseline died");
    return Number(value);
  }

  close(): void {
    this.#child.stdin.end();
  }
}
