/**
 * Reading a sealed file by ranges (B12): from a source with a latency of 30 ms, in small reads, and from a disk.
 *
 * @module
 */

import { type FileHandle, mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openSealed, type RangeSource, seal, type SealedFormatName, unseal } from "../mod.ts";
import { key, MiB, record, roundsOr, runBars, statistics, takeTurns, timed } from "./measure.ts";

const SIZE = 64 * MiB;
const LATENCY = 30;
const OPTIONS = { key, format: "AES256_GCM_HKDF_64KB" as SealedFormatName };

async function measureRanges(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), "kcapi-bench-"));
  try {
    const path = join(directory, "sealed");
    const sealed = new Uint8Array(
      await new Blob(await Array.fromAsync(seal(OPTIONS, new Uint8Array(SIZE).fill(7)))).arrayBuffer(),
    );
    await writeFile(path, sealed);
    await measureLatency(sealed);
    await measureSmallReads(sealed);
    await measureDisk(path);
  } finally {
    await rm(directory, { recursive: true });
  }
}

/** A source in memory that counts its reads, and answers after some milliseconds. */
class Store implements RangeSource {
  readonly size: number;
  readonly #sealed: Uint8Array<ArrayBuffer>;
  readonly #latency: number;
  reads = 0;
  bytes = 0;

  constructor(sealed: Uint8Array<ArrayBuffer>, latency: number) {
    this.size = sealed.length;
    this.#sealed = sealed;
    this.#latency = latency;
  }

  async read(start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
    this.reads++;
    this.bytes += end - start;
    if (this.#latency > 0) await new Promise((resolve) => setTimeout(resolve, this.#latency));
    return this.#sealed.slice(start, end);
  }
}

async function measureLatency(sealed: Uint8Array<ArrayBuffer>): Promise<void> {
  const store = new Store(sealed, LATENCY);
  using file = await openSealed(store, OPTIONS);
  const figures = await takeTurns({
    "one read": timed(() => store.read(0, 40)),
    open: timed(async () => (await openSealed(store, OPTIONS)).close()),
    "bytes()": timed(() => file.bytes()),
    "stream()": timed(() => drain(file.stream())),
  }, { rounds: roundsOr(7), warmUp: 1 });
  record({ bar: "B12", work: `64 MiB, ${LATENCY} ms`, figures, unit: "s", per: SIZE });
}

/** These are counts, the same at each run. */
async function measureSmallReads(sealed: Uint8Array<ArrayBuffer>): Promise<void> {
  const store = new Store(sealed, 0);
  using file = await openSealed(store, OPTIONS);
  store.bytes = 0;
  const length = 8 * MiB;
  for (let at = 0; at < length; at += 64) await file.bytes(at, at + 64);
  const ratio = store.bytes / length;
  store.reads = 0;
  const middle = SIZE / 2;
  await Promise.all(Array.from({ length: 1000 }, (_, i) => file.bytes(middle + i, middle + i + 1)));
  const figures = { "bytes read": statistics([ratio]), "reads of a segment": statistics([store.reads]) };
  record({ bar: "B12", work: "small reads", figures, unit: "times" });
}

async function measureDisk(path: string): Promise<void> {
  const handle = await open(path);
  try {
    const { size } = await handle.stat();
    const source = { size, read: (start: number, end: number) => readAt(handle, start, end) };
    using file = await openSealed(source, OPTIONS);
    const figures = await takeTurns({
      "stream()": timed(() => drain(file.stream())),
      "bytes()": timed(() => file.bytes()),
      "unseal()": timed(async () => await drain(unseal(OPTIONS, chunksOf(handle, size)))),
    }, { rounds: roundsOr(11) });
    record({ bar: "B12", work: "64 MiB, a file", figures, unit: "s", per: SIZE });
  } finally {
    await handle.close();
  }
}

async function readAt(handle: FileHandle, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(end - start);
  for (let at = 0; at < bytes.length;) {
    const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at);
    if (bytesRead === 0) throw new Error("the file has become shorter");
    at += bytesRead;
  }
  return bytes;
}

/** The file in chunks of 1 MiB, with one read ahead. */
async function* chunksOf(handle: FileHandle, size: number): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  let next = readAt(handle, 0, Math.min(MiB, size));
  for (let at = MiB; at - MiB < size; at += MiB) {
    const chunk = await next;
    if (at < size) next = readAt(handle, at, Math.min(at + MiB, size));
    yield chunk;
  }
}

async function drain(source: AsyncIterable<Uint8Array>): Promise<number> {
  let length = 0;
  for await (const chunk of source) length += chunk.length;
  return length;
}

await runBars({ B12: measureRanges });
