/**
 * B8: one chunk of 256 MiB, as `Blob.stream()` gives in Deno.
 *
 * @module
 */

import { EncryptionStream } from "../mod.ts";
import type { CipherEngineName } from "../src/engines/engine.ts";
import { iv, key, KiB, MiB, pump, record, roundsOr, statistics, takeTurns, ticksPerSecond, timed } from "./measure.ts";

const TOTAL = 256 * MiB;

/** Measures the speed, and how often a timer fires. */
export async function measureLargeChunk(engine: CipherEngineName, algorithms: readonly string[]): Promise<void> {
  const large = new Uint8Array(TOTAL).fill(3);
  const small = Array.from({ length: TOTAL / (64 * KiB) }, (_, i) => large.subarray(i * 64 * KiB, (i + 1) * 64 * KiB));
  const rounds = roundsOr(9);
  for (const algorithm of algorithms) {
    const encrypt = (chunks: Uint8Array[]) =>
      pump(chunks, chunks.length, new EncryptionStream(algorithm, { key, iv, engine }));
    const times = await takeTurns({
      "64 KiB chunks": timed(() => encrypt(small)),
      "one chunk": timed(() => encrypt([large])),
    }, { rounds, warmUp: 1 });
    record({ bar: "B8", work: `${engine}, ${algorithm}, throughput`, figures: times, unit: "s", per: TOTAL });

    const idle: number[] = [];
    const busy: number[] = [];
    for (let round = 0; round < rounds; round++) {
      idle.push(await ticksPerSecond(() => new Promise((resolve) => setTimeout(resolve, 1000))));
      busy.push(await ticksPerSecond(() => encrypt([large])));
    }
    const ticks = { idle: statistics(idle), "one chunk": statistics(busy) };
    record({ bar: "B8", work: `${engine}, ${algorithm}, timer`, figures: ticks, unit: "ticks" });
  }
}
