/**
 * Uses keys in each way there is, and lets each use end in each way. Prints as JSON what the keys were made from. Stays
 * until standard input ends, so that another process can search the memory of this one for the keys.
 *
 * Arguments: the engine, and the number of Workers (0: without a pool).
 */
import process from "node:process";
import {
  CipherHandle,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  openGcm,
  openSealed,
  type RangeReader,
  seal,
  type SealOptions,
  SealStream,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../../mod.ts";
import { type Bytes, bytes, collect, cut, streamOf } from "../support/bytes.ts";
import { Secret } from "../../src/secret.ts";
import { fillKey, type KeyUse, SECRETS } from "../support/keys_in_memory.ts";
import { caught, collectGarbage, turns } from "../support/support.ts";

const [engine, workers] = process.argv.slice(2) as ["kernel" | "userspace", string];
const pool = workers === "0" ? undefined : new WorkerPool(Number(workers));
const iv = bytes(16);
/** With Workers, batches for both of them. */
const input = bytes((pool ? 2500 : 400) * 1024, 7);
/** What is written first. A pool takes it over, even if nobody reads. */
const FIRST = 200 * 1024;

// ---- keys ----

const uses: KeyUse[] = [];

/** A key for one use, in memory that the JavaScript heap never holds, as SECURITY.md advises. */
function newKey(use: Omit<KeyUse, "seed">): Bytes {
  const seed = uses.push({ ...use, seed: uses.length }) - 1;
  const key = new Uint8Array(new ArrayBuffer(32));
  fillKey(key, seed);
  return key;
}

/** Notes the salt of the last use, which is at the front of what was sealed. */
function noteSalt(sealed: Uint8Array): void {
  uses.at(-1)!.salt = sealed.subarray(1, 33).toHex();
}

// ---- what is used ----

interface Options {
  readonly key: Bytes;
  readonly signal: AbortSignal;
  readonly pool?: WorkerPool;
}

/** A kind of use: its input, and how it is opened. */
interface Kind<T> {
  input(options: Options): Promise<Bytes> | Bytes;
  open(options: Options, source: AsyncIterable<Bytes>): T;
}

interface Pair {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Bytes>;
}

const STREAMS: Record<string, Kind<Pair>> = {
  EncryptionStream: {
    input: () => input,
    open: (options) => new EncryptionStream("ctr(aes)", { ...options, iv, engine }),
  },
  DecryptionStream: {
    input: () => input,
    open: (options) => new DecryptionStream("cbc(aes)", { ...options, iv, engine, padding: "none" }),
  },
};
const ITERABLES: Record<string, Kind<AsyncIterator<Bytes>>> = {
  "encrypt()": {
    input: () => input,
    open: (options, source) => encrypt("ctr(aes)", { ...options, iv, engine }, source),
  },
  "decrypt()": {
    input: () => input,
    open: (options, source) => decrypt("cbc(aes)", { ...options, iv, engine, padding: "none" }, source),
  },
};
const READERS: Record<string, Kind<Promise<RangeReader>>> = {};

const FORMATS = [["CTR-HMAC", "AES256_CTR_HMAC_SHA256_64KB"], ["GCM", "AES256_GCM_HKDF_64KB"]] as const;
for (const [name, format] of FORMATS) {
  const sealOptions = (options: Options): SealOptions => {
    return name === "GCM" ? { ...options, format } : { ...options, format, engine };
  };
  const sealed = async ({ signal: _, ...options }: Options) => {
    const bytes = await collect(seal(sealOptions(options as Options), input));
    noteSalt(bytes);
    return bytes;
  };
  STREAMS[`SealStream, ${name}`] = { input: () => input, open: (options) => new SealStream(sealOptions(options)) };
  STREAMS[`UnsealStream, ${name}`] = { input: sealed, open: (options) => new UnsealStream(sealOptions(options)) };
  ITERABLES[`seal(), ${name}`] = { input: () => input, open: (options, source) => seal(sealOptions(options), source) };
  ITERABLES[`unseal(), ${name}`] = { input: sealed, open: (options, source) => unseal(sealOptions(options), source) };
  READERS[`openSealed(), ${name}`] = {
    input: sealed,
    open: async (options, source) => await openSealed(new Blob([await collect(source)]), sealOptions(options)),
  };
}
if (!pool) {
  const encrypted = ({ signal: _, ...options }: Options) => collect(encrypt("gcm(aes)", { ...options, iv }, input));
  STREAMS["EncryptionStream, gcm(aes)"] = {
    input: () => input,
    open: (options) => new EncryptionStream("gcm(aes)", { ...options, iv }),
  };
  STREAMS["DecryptionStream, gcm(aes)"] = {
    input: encrypted,
    open: (options) => new DecryptionStream("gcm(aes)", { ...options, iv, releaseUnverified: true }),
  };
  READERS["openGcm(), gcm(aes)"] = {
    input: encrypted,
    open: async (options, source) => await openGcm(new Blob([await collect(source)]), { ...options, iv }),
  };
  STREAMS["EncryptionStream of a handle"] = {
    input: () => input,
    open({ key, signal }) {
      using handle = CipherHandle.open("ctr(aes)", { key, engine });
      return new EncryptionStream(handle, { iv, signal });
    },
  };
}

// ---- how it ends ----

interface Running {
  readonly writer: WritableStreamDefaultWriter<Bytes>;
  readonly reader: ReadableStreamDefaultReader<Bytes>;
  readonly rest: Bytes;
  readonly control: AbortController;
}

type End<T> = (use: T) => unknown;

/** Nobody holds it after this. */
const DROPPED = { "garbage collection": () => {} };

const STREAM_ENDS: Record<string, End<Running>> = {
  "its end": async ({ writer, reader, rest }) => {
    const writing = (async () => {
      for (const chunk of cut(rest, [100_000])) await writer.write(chunk);
      await writer.close();
    })();
    await Promise.all([writing, drain(reader)]);
  },
  "an error": async ({ writer, reader }) => {
    const writing = caught(writer.write("no bytes" as unknown as Bytes));
    await caught(drain(reader));
    await writing;
  },
  "abort()": async ({ writer, reader }) => {
    const reading = caught(drain(reader));
    await writer.abort(new Error("enough"));
    await reading;
  },
  "cancel()": ({ reader }) => reader.cancel(),
  "its signal": async ({ reader, control }) => {
    control.abort(new Error("enough"));
    await caught(drain(reader));
  },
  ...DROPPED,
};

const ITERABLE_ENDS: Record<string, End<{ iterator: AsyncIterator<Bytes>; fail: () => void }>> = {
  "its end": async ({ iterator }) => {
    while (!(await iterator.next()).done);
  },
  "an error": async ({ iterator, fail }) => {
    fail();
    await caught((async () => {
      while (!(await iterator.next()).done);
    })());
  },
  "return()": ({ iterator }) => iterator.return!(),
  ...DROPPED,
};

const READER_ENDS: Record<string, End<{ file: RangeReader; control: AbortController }>> = {
  "close()": ({ file }) => file.close(),
  "its signal": ({ control }) => control.abort(new Error("enough")),
  ...DROPPED,
};

const HANDLE_ENDS: Record<string, End<CipherHandle>> = { "close()": (handle) => handle.close(), ...DROPPED };

const POOL_ENDS: Record<string, End<WorkerPool>> = { "close() of its pool": (pool) => pool.close(), ...DROPPED };

async function drain(reader: ReadableStreamDefaultReader<Bytes>): Promise<void> {
  while (!(await reader.read()).done);
}

/** @param failure Where there is one, only the first chunk comes, then this. */
async function* chunksOf(bytes: Bytes, failure?: Promise<never>): AsyncGenerator<Bytes> {
  for (const chunk of cut(bytes, [FIRST])) {
    yield chunk;
    await failure;
  }
}

// ---- the uses: each reads a first output before it ends ----

/** Opens a use under a key of its own, and zeroes the array that it was given. */
async function open<T>(of: string, by: string, kind: Kind<T>, ownPool = pool, failure?: Promise<never>) {
  const key = newKey({ of, by });
  const control = new AbortController();
  const options: Options = { key, signal: control.signal, ...(ownPool && { pool: ownPool }) };
  const whole = await kind.input(options);
  const opened = await kind.open(options, chunksOf(whole, failure));
  key.fill(0);
  return { opened, whole, control };
}

async function useStream(of: string, by: string, kind: Kind<Pair>, end: End<Running>, ownPool = pool): Promise<void> {
  const { opened, whole, control } = await open(of, by, kind, ownPool);
  const writer = opened.writable.getWriter();
  const reader = opened.readable.getReader();
  writer.closed.catch(() => {});
  reader.closed.catch(() => {});
  void writer.write(whole.subarray(0, FIRST)).catch(() => {});
  const { value } = await reader.read();
  if (of.startsWith("SealStream")) noteSalt(value!);
  await end({ writer, reader, rest: whole.subarray(FIRST), control });
}

async function useIterable(
  of: string,
  by: string,
  kind: Kind<AsyncIterator<Bytes>>,
  end: (typeof ITERABLE_ENDS)[string],
): Promise<void> {
  const failure = Promise.withResolvers<never>();
  failure.promise.catch(() => {});
  const { opened } = await open(of, by, kind, pool, by === "an error" ? failure.promise : undefined);
  const { value } = await opened.next();
  if (of.startsWith("seal()")) noteSalt(value);
  await end({ iterator: opened, fail: () => failure.reject(new Error("the source failed")) });
}

async function useReader(of: string, by: string, kind: (typeof READERS)[string], end: (typeof READER_ENDS)[string]) {
  const { opened, control } = await open(of, by, kind);
  await opened.bytes(0, 100_000);
  await end({ file: opened, control });
}

async function useHandle(by: string, end: End<CipherHandle>): Promise<void> {
  const key = newKey({ of: "CipherHandle", by });
  const handle = CipherHandle.open("ctr(aes)", { key, engine });
  key.fill(0);
  handle.streamInitEnc(iv);
  await handle.streamUpdate(input.subarray(0, FIRST));
  await end(handle);
}

/** A pool of its own, with a stream that waits for more. */
async function usePool(by: string, end: End<WorkerPool>): Promise<void> {
  const own = new WorkerPool(1);
  await useStream("SealStream, CTR-HMAC, of a pool", by, STREAMS["SealStream, CTR-HMAC"]!, () => {}, own);
  await end(own);
}

for (const [of, kind] of Object.entries(STREAMS)) {
  for (const [by, end] of Object.entries(STREAM_ENDS)) await useStream(of, by, kind, end);
}
for (const [of, kind] of Object.entries(ITERABLES)) {
  for (const [by, end] of Object.entries(ITERABLE_ENDS)) await useIterable(of, by, kind, end);
}
for (const [of, kind] of Object.entries(READERS)) {
  for (const [by, end] of Object.entries(READER_ENDS)) await useReader(of, by, kind, end);
}
if (pool) {
  for (const [by, end] of Object.entries(POOL_ENDS)) await usePool(by, end);
} else {
  for (const [by, end] of Object.entries(HANDLE_ENDS)) await useHandle(by, end);
}

const held = newKey({ of: "a key that is held", by: "nothing" });
await turns(3);
for (let i = 0; i < 3; i++) {
  await collectGarbage();
  if (!pool) continue;
  // A Worker handles its messages in order. When this stream ends, both have closed the streams before it.
  const stream = new EncryptionStream("ctr(aes)", { key: bytes(32), iv, engine, pool });
  await collect(streamOf(cut(bytes(4 * 1024 * 1024), [1 << 20])).pipeThrough(stream));
}
// After the last garbage collection: Node and Bun keep the bytes of a short array in the JavaScript heap, and copy them
// out at the first native use. On Bun the memory in the heap is used again soon after a collection.
for (let i = 0; i < SECRETS; i++) {
  const key = newKey({ of: `Secret ${i}`, by: "dispose()" });
  using secret = Secret.from(key);
  secret.clone(0, 32).dispose();
  key.fill(0);
}
console.log(JSON.stringify(uses));
for await (const _ of process.stdin);
if (held[0] === 0) console.log("");
pool?.close();
