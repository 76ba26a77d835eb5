/**
 * What needs no kernel cipher: the cost of a chunk over a null libkcapi (B5; the environment names it), the userspace
 * engine (B6), and its large chunks (B8).
 *
 * @module
 */

import { createCipheriv } from "node:crypto";
import { Duplex } from "node:stream";
import { load } from "../ffi/mod.ts";
import { EncryptionStream } from "../mod.ts";
import { measureLargeChunk } from "./large_chunk.ts";
import {
  type ByteTransform,
  chunksOf,
  divide,
  freshStream,
  identityStream,
  iv,
  key,
  KiB,
  pump,
  report,
  roundsOr,
  runBars,
  sizeName,
  takeTurns,
  timed,
} from "./measure.ts";

await runBars({
  B5: measureCostPerChunk,
  B6: measureUserspace,
  B8: () => measureLargeChunk("userspace", ["ctr(aes)", "cbc(aes)"]),
});

async function measureCostPerChunk(): Promise<void> {
  for (const size of [64 * KiB, 4 * KiB, 256]) {
    const count = size === 64 * KiB ? 10_000 : 40_000;
    const chunks = chunksOf(size);
    const stream = (inPlace: boolean) =>
      timed(() => pump(chunks, count, new EncryptionStream("ctr(aes)", { key, iv, engine: "kernel", inPlace })));
    const seconds = await takeTurns({
      identity: timed(() => pump(chunks, count, identityStream())),
      EncryptionStream: stream(false),
      inPlace: stream(true),
      fresh: timed(() => pump(chunks, count, freshStream())),
      FFI: timed(() => callLibrary(chunks, count)),
    }, { rounds: roundsOr(31) });
    const figures = divide(seconds, count);
    const common = { bar: "B5", figures, unit: "s", per: size } as const;
    report({
      ...common,
      work: sizeName(size),
      formula: "EncryptionStream ÷ identity",
      ratio: (of) => of("EncryptionStream") / of("identity"),
      atMost: size === 64 * KiB ? 5 : 1.7,
      // Smaller chunks are gathered, and share their output's array.
      ...(size === 64 * KiB ? { reachable: figures.fresh.median / figures.identity.median } : {}),
    });
    report({
      ...common,
      work: `${sizeName(size)}, inPlace`,
      formula: "inPlace ÷ identity",
      ratio: (of) => of("inPlace") / of("identity"),
      atMost: 1.5,
    });
  }
}

/** The native calls of one chunk, and nothing else: two addresses, an update, an op. */
function callLibrary(chunks: readonly Uint8Array[], count: number): void {
  const { call, word } = load();
  const [zero, one] = [word(0), word(1)];
  const list = new Uint8Array(new ArrayBuffer(16));
  const address = call.memmove(list, zero, zero);
  for (let i = 0; i < count; i++) {
    const chunk = chunks[i % chunks.length]!;
    call.memmove(chunk, zero, zero);
    call.kcapi_cipher_stream_update(zero, address, one);
    call.memmove(chunk, zero, zero);
    call.kcapi_cipher_stream_op(zero, address, one);
  }
}

async function measureUserspace(): Promise<void> {
  const size = 64 * KiB;
  const count = 1000;
  const chunks = chunksOf(size);
  for (const mode of ["cbc", "ctr", "ecb"]) {
    const parameters = mode === "ecb" ? { key } : { key, iv };
    const cipher = () => createCipheriv(`aes-256-${mode}`, key, mode === "ecb" ? null : iv);
    const figures = divide(
      await takeTurns({
        "raw cipher.update": timed(() => updateLoop(cipher(), chunks, count)),
        identity: timed(() => pump(chunks, count, identityStream())),
        EncryptionStream: timed(() =>
          pump(chunks, count, new EncryptionStream(`${mode}(aes)`, { ...parameters, engine: "userspace" }))
        ),
        "Duplex.toWeb": timed(() => pump(chunks, count, Duplex.toWeb(cipher()) as unknown as ByteTransform)),
        "a Transformer": timed(() => pump(chunks, count, transformer(cipher()))),
      }, { rounds: roundsOr(41), warmUp: 40 }),
      count,
    );
    const common = { bar: "B6", figures, unit: "s", per: size } as const;
    report({
      ...common,
      work: `${mode}(aes), against the runtime's cipher`,
      formula: "EncryptionStream ÷ (raw cipher.update + identity)",
      ratio: (of) => of("EncryptionStream") / (of("raw cipher.update") + of("identity")),
      atMost: 1.05,
      reachable: figures["a Transformer"].median / (figures["raw cipher.update"].median + figures.identity.median),
    });
    report({
      ...common,
      work: `${mode}(aes), against the runtime's stream`,
      formula: "Duplex.toWeb ÷ EncryptionStream",
      ratio: (of) => of("Duplex.toWeb") / of("EncryptionStream"),
      atLeast: 1,
    });
  }
}

/** The least that a stream over `cipher` can do: its output as plain arrays, and nothing of the heap behind them. */
function transformer(cipher: ReturnType<typeof createCipheriv>): ByteTransform {
  return new TransformStream<Uint8Array, Uint8Array>({
    transform(chunk, controller) {
      const { buffer, byteOffset, length } = cipher.update(chunk);
      new Uint8Array(buffer).fill(0, byteOffset + length);
      controller.enqueue(new Uint8Array(buffer, byteOffset, length));
    },
  });
}

function updateLoop(cipher: ReturnType<typeof createCipheriv>, chunks: readonly Uint8Array[], count: number): void {
  let length = 0;
  for (let i = 0; i < count; i++) length += cipher.update(chunks[i % chunks.length]!).length;
  length += cipher.final().length;
  if (length < count * chunks[0]!.length) throw new Error("The cipher lost bytes");
}
