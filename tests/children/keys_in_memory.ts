/**
 * Uses keys in streams that end in every possible way, and prints the sources of the keys as JSON. Waits until standard
 * input ends, so that another process can search this one's memory for the keys.
 *
 * Arguments: the engine, and the number of Workers (0: without a pool).
 */
import process from "node:process";
import { CipherHandle, DecryptionStream, EncryptionStream, type SealOptions, WorkerPool } from "../../mod.ts";
import { seal, SealStream, UnsealStream } from "../../mod.ts";
import { bytes, collect, cut, streamOf } from "../support/bytes.ts";
import { fillKey, type KeyUse } from "../support/keys_in_memory.ts";
import { caught, collectGarbage, turns } from "../support/support.ts";

const [engine, workers] = process.argv.slice(2) as ["kernel" | "userspace", string];
const pool = workers === "0" ? undefined : new WorkerPool(Number(workers));
const iv = bytes(16);
const input = bytes(3 * 1024 * 1024, 7);
const uses: KeyUse[] = [];

/** Allocates bytes outside the JavaScript heap, as the documentation recommends. */
function newKey(use: Omit<KeyUse, "seed">): Uint8Array<ArrayBuffer> {
  const seed = uses.push({ ...use, seed: uses.length }) - 1;
  const key = new Uint8Array(new ArrayBuffer(32));
  fillKey(key, seed);
  return key;
}

interface Pair {
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  readonly writable: WritableStream<Uint8Array<ArrayBuffer>>;
}

/** Creates a stream with `key`, which the caller zeroes. Returns it with its input, and the source of its salt. */
type Kind = (key: Uint8Array<ArrayBuffer>, signal: AbortSignal) => Promise<[Pair, Uint8Array<ArrayBuffer>]>;

function sealed(format: "AES256_CTR_HMAC_SHA256_64KB" | "AES256_GCM_HKDF_64KB", unseals: boolean): Kind {
  return async (key, signal) => {
    const options: SealOptions = { key, format, signal, ...(pool && { pool }) };
    if (format.includes("CTR")) options.engine = engine;
    if (!unseals) return [new SealStream(options), input];
    const file = await collect(seal({ ...options, signal: undefined }, input));
    uses.at(-1)!.salt = file.subarray(1, 33).toHex();
    return [new UnsealStream(options), file];
  };
}

const KINDS: Record<string, Kind> = {
  EncryptionStream: (key, signal) => {
    const stream = new EncryptionStream("ctr(aes)", { key, iv, engine, signal, ...(pool && { pool }) });
    return Promise.resolve([stream, input]);
  },
  DecryptionStream: (key, signal) => {
    const stream = new DecryptionStream("cbc(aes)", {
      key,
      iv,
      engine,
      signal,
      padding: "none",
      ...(pool && { pool }),
    });
    return Promise.resolve([stream, input]);
  },
  "EncryptionStream of a handle": (key, signal) => {
    using handle = CipherHandle.open("ctr(aes)", { key, engine });
    return Promise.resolve([new EncryptionStream(handle, { iv, signal }), input]);
  },
  "SealStream, CTR-HMAC": sealed("AES256_CTR_HMAC_SHA256_64KB", false),
  "SealStream, GCM": sealed("AES256_GCM_HKDF_64KB", false),
  "UnsealStream, CTR-HMAC": sealed("AES256_CTR_HMAC_SHA256_64KB", true),
  "UnsealStream, GCM": sealed("AES256_GCM_HKDF_64KB", true),
};

/** Each receives a stream after its first output was read. */
type End = (stream: {
  writer: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>;
  rest: Uint8Array<ArrayBuffer>;
  abort: () => void;
}) => Promise<unknown>;

async function drain(reader: ReadableStreamDefaultReader<Uint8Array<ArrayBuffer>>): Promise<void> {
  while (!(await reader.read()).done);
}

const ENDS: Record<string, End> = {
  "its end": async ({ writer, reader, rest }) => {
    const writing = (async () => {
      for (const chunk of cut(rest, [100_000])) await writer.write(chunk);
      await writer.close();
    })();
    await Promise.all([writing, drain(reader)]);
  },
  "abort()": async ({ writer, reader }) => {
    const reading = caught(drain(reader));
    await writer.abort(new Error("enough"));
    await reading;
  },
  "cancel()": ({ reader }) => reader.cancel(),
  "its signal": async ({ reader, abort }) => {
    abort();
    await caught(drain(reader));
  },
  "garbage collection": () => Promise.resolve(), // Nothing refers to it after this.
};

async function run(of: string, kind: Kind, by: string, end: End): Promise<void> {
  const key = newKey({ of, by });
  const control = new AbortController();
  const [stream, whole] = await kind(key, control.signal);
  key.fill(0);
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  writer.closed.catch(() => {});
  reader.closed.catch(() => {});
  const first = whole.subarray(0, 1_500_000);
  void writer.write(first).catch(() => {});
  const { value } = await reader.read();
  if (of.startsWith("SealStream")) uses.at(-1)!.salt = value!.subarray(1, 33).toHex();
  await end({ writer, reader, rest: whole.subarray(first.length), abort: () => control.abort(new Error("enough")) });
}

for (const [of, kind] of Object.entries(KINDS)) {
  for (const [by, end] of Object.entries(ENDS)) await run(of, kind, by, end);
}
const held = newKey({ of: "a key that is held", by: "nothing" });
await turns(3);
for (let i = 0; i < 3; i++) {
  await collectGarbage();
  if (!pool) continue;
  // A Worker handles messages in order, so it has handled the end of the earlier streams after these.
  const stream = new EncryptionStream("ctr(aes)", { key: bytes(32), iv, engine, pool });
  await collect(streamOf(cut(bytes(8 * 1024 * 1024), [1 << 20])).pipeThrough(stream));
}
console.log(JSON.stringify(uses));
for await (const _ of process.stdin);
if (held[0] === 0) console.log("");
pool?.close();
