/**
 * Measurements without a kernel cipher: the cost of a chunk over a null libkcapi (B5, named by KCAPI_LIBRARY), and
 * large chunks of the userspace engine (B8).
 *
 * @module
 */

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
  record,
  roundsOr,
  runBars,
  sizeName,
  takeTurns,
  timed,
} from "./measure.ts";

await runBars({
  B5: measureCostPerChunk,
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
      "bare pair": timed(() => pump(chunks, count, barePair())),
    }, { rounds: roundsOr(31) });
    record({ bar: "B5", work: sizeName(size), figures: divide(seconds, count), unit: "s", per: size });
  }
}

/** The native calls of one chunk alone: its address into an iovec, an update, an op. */
function nativeCalls(): (chunk: Uint8Array) => void {
  const { call, word, cells } = load();
  const [zero, one] = [word(0), word(1)];
  const list = new Uint8Array(new ArrayBuffer(16));
  const addresses = cells(list.buffer);
  const address = call.memmove(list, zero, zero);
  return (chunk) => {
    addresses.set(0, call.memmove(chunk, zero, zero));
    call.kcapi_cipher_stream_update(zero, address, one);
    call.kcapi_cipher_stream_op(zero, address, one);
  };
}

function callLibrary(chunks: readonly Uint8Array[], count: number): void {
  const perform = nativeCalls();
  for (let i = 0; i < count; i++) perform(chunks[i % chunks.length]!);
}

/** The shortest pair of streams that makes output on demand: native calls without checks. */
function barePair(): ByteTransform {
  const perform = nativeCalls();
  let reader: ReadableStreamDefaultController<Uint8Array>;
  let isAsked = false;
  let waiting: Uint8Array | undefined;
  let resolve: () => void;
  function emit(chunk: Uint8Array): void {
    perform(chunk);
    isAsked = false;
    reader.enqueue(chunk);
  }
  const readable = new ReadableStream<Uint8Array>({
    start: (controller) => void (reader = controller),
    pull() {
      isAsked = true;
      if (!waiting) return;
      const chunk = waiting;
      waiting = undefined;
      emit(chunk);
      resolve();
    },
  }, { highWaterMark: 0 });
  const writable = new WritableStream<Uint8Array>({
    write(chunk) {
      if (isAsked) return emit(chunk);
      waiting = chunk;
      return new Promise<void>((done) => resolve = done);
    },
    close: () => reader.close(),
  });
  return { readable, writable };
}
