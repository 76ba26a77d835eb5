/** The work of each thread of `tests/threads_test.ts`. */
import { load } from "../../ffi/mod.ts";
import { CipherHandle, EncryptionStream, seal } from "../../mod.ts";
import { type Bytes, bytes, collect, cut, streamOf } from "../support/bytes.ts";

export interface Order {
  readonly engine: "kernel" | "userspace";
  /** Selects the data and the IVs. Each thread has its own. */
  readonly seed: number;
  /** The number of rounds, with a message after each. It may be Infinity. */
  readonly rounds: number;
  /** Wait until all threads do, and then load the library for any engine. */
  readonly barrier?: Int32Array<SharedArrayBuffer>;
}

/** The number of threads that load the library at the same time. */
export const THREADS = 4;

export const KEY = bytes(32, 2);
export const inputOf = (seed: number): Bytes => bytes(300_000 + seed, seed);
export const ivOf = (seed: number): Bytes => bytes(16, seed);

/** Sends the same input through a handle, a stream and seal() at the same time. Returns each output. */
export async function stream({ engine, seed, rounds, barrier }: Order, onRound = () => {}): Promise<Bytes[]> {
  if (barrier) {
    for (let arrived = Atomics.add(barrier, 0, 1) + 1; arrived < THREADS; arrived = Atomics.load(barrier, 0)) {
      Atomics.wait(barrier, 0, arrived);
    }
    Atomics.notify(barrier, 0);
    if (load().call.kcapi_version() <= 0) throw new Error("the library has no version");
  }
  const input = inputOf(seed);
  const iv = ivOf(seed);
  let outputs: Bytes[] = [];
  for (let round = 0; round < rounds; round++) {
    using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
    handle.streamInitEnc(iv);
    const produce = async () => {
      for (const piece of cut(input, [70_001, 17, 150_000])) await handle.streamUpdate(piece);
      await handle.streamUpdateLast();
    };
    const encryption = new EncryptionStream("cbc(aes)", { key: KEY, iv, engine });
    const fromStream = collect(streamOf(cut(input, [65_529, 7])).pipeThrough(encryption));
    const sealed = collect(seal({ key: KEY, engine }, cut(input, [65_529, 7])));
    [, ...outputs] = await Promise.all([produce(), collect(handle.streamOp()), fromStream, sealed]);
    onRound();
  }
  return outputs;
}
