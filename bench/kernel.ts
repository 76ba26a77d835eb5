/**
 * The kernel engine against C programs over the same libkcapi (B1, B2, B4), and large chunks (B8). Needs AF_ALG.
 *
 * @module
 */

import { CipherHandle, EncryptionStream } from "../mod.ts";
import { measureLargeChunk } from "./large_chunk.ts";
import {
  Baseline,
  chunksOf,
  copyStream,
  identityStream,
  iv,
  key,
  KiB,
  MiB,
  pump,
  record,
  roundsOr,
  runBars,
  sizeName,
  takeTurns,
  timed,
  WINDOW,
} from "./measure.ts";

const ALGORITHMS = ["ctr(aes)", "cbc(aes)"];
const baseline = new Baseline();
await runBars({
  B1: measureHandle,
  B2: measureStream,
  B4: measureSmallWrites,
  B8: () => measureLargeChunk("kernel", ALGORITHMS),
});
baseline.close();

function kernelStream(algorithm: string, inPlace = false): EncryptionStream {
  return new EncryptionStream(algorithm, { key, iv, engine: "kernel", inPlace });
}

async function measureHandle(): Promise<void> {
  for (const algorithm of ALGORITHMS) {
    using handle = CipherHandle.open(algorithm, { key, engine: "kernel" });
    for (const size of [64 * KiB, 512 * KiB]) {
      const total = 8 * MiB;
      const [input, output] = [new Uint8Array(size).fill(1), new Uint8Array(size).fill(2)];
      const figures = await takeTurns({
        "plain C": () => baseline.run("plain", algorithm, 64 * KiB, total),
        "best C": () => baseline.run("best", algorithm, WINDOW, total),
        CipherHandle: async () => {
          using stream = handle.reinit();
          stream.streamInitEnc(iv);
          return await timed(() => overBuffers(stream, input, output, total / size))();
        },
      }, { rounds: roundsOr(41), warmUp: 60 });
      record({ bar: "B1", work: `${algorithm}, ${sizeName(size)}`, figures, unit: "s", per: total });
    }
  }
}

type Buffer = Uint8Array<ArrayBuffer>;

/** streamUpdate and streamOpInto over the same two buffers, `count` times. */
async function overBuffers(handle: CipherHandle, input: Buffer, output: Buffer, count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const update = handle.streamUpdate(input);
    let received = 0;
    while (received < output.length) {
      received += await handle.streamOpInto(received === 0 ? output : output.subarray(received));
    }
    await update;
  }
}

/** Rounds are long enough to include garbage collection. */
async function measureStream(): Promise<void> {
  const total = 64 * MiB;
  for (const algorithm of ALGORITHMS) {
    for (const size of [64 * KiB, 512 * KiB]) {
      const chunks = chunksOf(size);
      const count = total / size;
      const figures = await takeTurns({
        "plain C": () => baseline.run("plain", algorithm, 64 * KiB, total),
        "best C": () => baseline.run("best", algorithm, WINDOW, total),
        copying: timed(() => pump(chunks, count, copyStream())),
        EncryptionStream: timed(() => pump(chunks, count, kernelStream(algorithm))),
        inPlace: timed(() => pump(chunks, count, kernelStream(algorithm, true))),
      }, { rounds: roundsOr(15), warmUp: 6 });
      record({ bar: "B2", work: `${algorithm}, ${sizeName(size)}`, figures, unit: "s", per: total });
    }
  }
}

async function measureSmallWrites(): Promise<void> {
  const size = 256;
  const total = 16 * MiB;
  const totalC = 512 * KiB; // plain C is slow with small writes
  for (const algorithm of ALGORITHMS) {
    const chunks = chunksOf(size);
    const figures = await takeTurns({
      "plain C": async () => await baseline.run("plain", algorithm, size, totalC) * total / totalC,
      "best C": () => baseline.run("best", algorithm, WINDOW, total),
      identity: timed(() => pump(chunks, total / size, identityStream())),
      EncryptionStream: timed(() => pump(chunks, total / size, kernelStream(algorithm))),
    }, { rounds: roundsOr(15) });
    record({ bar: "B4", work: `${algorithm}, ${sizeName(size)}`, figures, unit: "s", per: total });
  }
}
