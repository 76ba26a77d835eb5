/**
 * WorkerPool: the bytes of one thread, Workers that fail at every step, every way to end a stream, read-ahead, and the
 * effects of a pool on the process. executors_test.ts runs the tests of streams with a pool.
 *
 * KCAPI_SEED is another seed for the random streams.
 */
import { readdirSync, readlinkSync } from "node:fs";
import process from "node:process";
import { clearImmediate, setImmediate } from "node:timers";
import { fileURLToPath } from "node:url";
import { markAsUntransferable } from "node:worker_threads";
import fc from "fast-check";
import { load } from "../ffi/mod.ts";
import {
  CipherHandle,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
  openSealed,
  seal,
  type SealedFormat,
  SealStream,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { ENGINES } from "../src/sealed/engines.ts";
import { sealFactory } from "../src/sealed/rules.ts";
import { TransformIterator } from "../src/streams/iterate.ts";
import { openerOf } from "../src/streams/source.ts";
import { StreamPair } from "../src/streams/stream_pair.ts";
import type { Transform } from "../src/streams/transform.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  engine,
  LIBRARY_FLAGS,
  runtime,
  runtimeArgv,
  spawn,
  takes,
  test,
  times,
} from "./support/deps.ts";
import { hooks, type Started, started, underWay, until, warm } from "./support/pool.ts";
import {
  type Bytes,
  bytes,
  caught,
  collect,
  collectGarbage,
  concat,
  cut,
  type Direction,
  opens,
  reference,
  streamOf,
  turns,
} from "./support/support.ts";

const KEY = bytes(32, 301);
const IV = bytes(16, 302);
const UNIT = 1 << 20;

const ctrOf = (input: Bytes) => reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, input);
const optionsWith = (pool: WorkerPool) => ({ key: KEY, iv: IV, engine, pool }) as const;

/** Without the resource check of Deno: a Worker is a resource that outlives its test until it ends or is collected. */
const WORKERS = { sanitize: false } as const;

/** Counts sockets only: kernel ciphers are sockets, and runtimes keep other descriptors of a Worker after its end. */
function openSockets(): number {
  return readdirSync("/proc/self/fd").filter((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`).startsWith("socket:");
    } catch {
      return false; // the descriptor of the directory
    }
  }).length;
}

/** For tests that do not depend on the engine: on the test kernel, with its one processor, they are slow. */
const ONCE = { ...WORKERS, engine: "userspace" } as const;

/** For all tests that leave its Workers intact. */
const pair = await warm(2);

/** The test kernel has one processor: there the tests do fewer rounds. */
const isSlow = engine === "kernel";

/** Fails if a Worker does not close its ciphers. */
const assertReleased = (sockets: number) => until(() => openSockets() <= sockets, `sockets are back at ${sockets}`);

// ---- The same bytes ---------------------------------------------------------------------------------------------

const SECTORED = [undefined, 512, 4096, 16 * 33] as const;
const ALGORITHMS = [
  "ctr(aes)",
  "cbc(aes)",
  "ecb(aes)",
  "xts(aes)",
  "chacha20",
  "rfc3686(ctr(aes))",
  "cts(cbc(aes))",
  "cfb(aes)",
  "pcbc(aes)",
].filter(opens);
const FORMATS: readonly SealedFormat[] = [
  "AES128_CTR_HMAC_SHA256_4KB",
  "AES256_CTR_HMAC_SHA256_1MB",
  "AES256_GCM_HKDF_64KB",
  { cipher: "AES-CTR-HMAC", keySize: 16, hkdfHash: "SHA-256", macHash: "SHA-256", tagSize: 20, segmentSize: 1000 },
];

const kindOfStream = {
  direction: fc.constantFrom("encrypt", "decrypt") as fc.Arbitrary<Direction>,
  /** Less than a batch, or several batches. */
  length: fc.oneof(fc.nat(100), fc.nat(70_000), fc.integer({ min: UNIT - 20, max: UNIT + 20 }), fc.nat(3 * UNIT)),
  sizes: fc.array(fc.oneof(fc.integer({ min: 64, max: 2_000 }), fc.integer({ min: 10_000, max: 2 * UNIT })), {
    minLength: 1,
    maxLength: 4,
  }),
  inPlace: fc.boolean(),
  isStream: fc.boolean(),
};
const anyCipher = fc.record({
  ...kindOfStream,
  algorithm: fc.constantFrom(...ALGORITHMS),
  padded: fc.boolean(),
  sectorSize: fc.constantFrom(...SECTORED),
  sector: fc.nat(2 ** 31),
});
const anySealed = fc.record({ ...kindOfStream, format: fc.constantFrom(...FORMATS) });

type Cipher = typeof anyCipher extends fc.Arbitrary<infer T> ? T : never;
type Sealed = typeof anySealed extends fc.Arbitrary<infer T> ? T : never;

/** The chunks of a stream. With inPlace, each has its own memory. */
const chunksOf = (input: Bytes, { sizes, inPlace }: Cipher | Sealed) => cut(input, sizes, { copied: inPlace });

async function compareCipher(pool: WorkerPool, random: Cipher): Promise<void> {
  const { algorithm, direction, padded, inPlace, isStream } = random;
  const { kind, keySizes, ivSize = 16, mode } = parseAlgorithm(algorithm);
  const isBlocks = mode === "cbc" || mode === "ecb" || mode === "pcbc";
  const sectorSize = kind === "sector" ? random.sectorSize ?? 512 : undefined;
  const most = kind === "message" ? Math.min(random.length, 100_000) : random.length;
  const least = kind === "message" ? Math.max(most, 17) : most;
  const length = isBlocks ? least - least % 16 : sectorSize ? least - least % sectorSize : least;
  const base = {
    key: bytes(keySizes!.at(-1)!, 7),
    engine,
    ...(sectorSize ? { sectorSize, sector: random.sector } : ivSize > 0 ? { iv: bytes(ivSize, 8) } : {}),
    ...(isBlocks && { padding: padded ? "pkcs7" as const : "none" as const }),
  };
  const plaintext = bytes(length, length);
  const ciphertext = await collect(encrypt(algorithm, base, plaintext));
  const [input, output] = direction === "encrypt" ? [plaintext, ciphertext] : [ciphertext, plaintext];
  const options = { ...base, inPlace, pool };
  const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
  const call = direction === "encrypt" ? encrypt : decrypt;
  const made = isStream
    ? streamOf(chunksOf(input, random)).pipeThrough(new Stream(algorithm, options))
    : call(algorithm, options, chunksOf(input, random));
  assertEquals(await collect(made), output, JSON.stringify(random));
}

async function compareSealed(pool: WorkerPool, random: Sealed): Promise<void> {
  const { format, direction, length, inPlace, isStream } = random;
  const base = { key: KEY, associatedData: IV, format, engine: "auto", inPlace } as const;
  const plaintext = bytes(length, length);
  const [alone, pooled] = [
    checkSealOptions({ ...base, inPlace: false }, ENGINES),
    checkSealOptions({ ...base, pool }, ENGINES),
  ];
  const header = { salt: bytes(alone.format.keySize, 4), prefix: bytes(7, 5) };
  const sealed = await collect(new TransformIterator(sealFactory(alone, header), openerOf(plaintext)));
  if (direction === "encrypt") {
    const source = openerOf(chunksOf(plaintext, random));
    const output = await collect(new TransformIterator(sealFactory(pooled, header), source));
    assertEquals(output, sealed, JSON.stringify(random));
  } else {
    const opened = isStream
      ? streamOf(chunksOf(sealed, random)).pipeThrough(new UnsealStream({ ...base, pool }))
      : unseal({ ...base, pool }, chunksOf(sealed, random));
    assertEquals(await collect(opened), plaintext, JSON.stringify(random));
  }
}

const RUNS = isSlow ? 8 : 20;
const SEEDS = process.env.KCAPI_SEED ? [Number(process.env.KCAPI_SEED)] : [1, 2, 3].filter(takes);

for (const seed of SEEDS) {
  for (
    const size of fc.sample(fc.shuffledSubarray([1, 2, 3, 4, 5], { minLength: 2, maxLength: 2 }), {
      seed,
      numRuns: 1,
    })[0]!
  ) {
    test(
      `random ciphers, sealed formats, chunk sizes and ends give the bytes of one thread (${size} Workers, seed ${seed})`,
      WORKERS,
      async () => {
        using pool = new WorkerPool(size);
        const streams = [
          ...fc.sample(fc.noBias(anyCipher), { seed: seed + size, numRuns: RUNS }).map((random) => () =>
            compareCipher(pool, random)
          ),
          ...fc.sample(fc.noBias(anySealed), { seed: seed + size, numRuns: RUNS / 2 }).map((random) => () =>
            compareSealed(pool, random)
          ),
        ];
        // Some in sequence, and some at once.
        for (const start of streams.filter((_, i) => i % 2 === 0)) await start();
        await Promise.all(streams.filter((_, i) => i % 2 === 1).map((start) => start()));
      },
    );
  }
}

test(
  "with inPlace a chunk that is a whole ArrayBuffer is transferred, and other chunks do not change",
  WORKERS,
  async () => {
    const input = bytes(UNIT + 50_000);
    for (const way of ["stream", "iterable"]) {
      const whole = input.slice(0, UNIT);
      const memory = new Uint8Array(60_000).fill(0xa5);
      const view = memory.subarray(5_000, 55_000);
      view.set(input.subarray(UNIT));
      const before = memory.slice();
      const options = { ...optionsWith(pair), inPlace: true };
      const output = way === "stream"
        ? streamOf([whole, view]).pipeThrough(new EncryptionStream("ctr(aes)", options))
        : encrypt("ctr(aes)", options, [whole, view]);
      assertEquals(await collect(output), ctrOf(input));
      assertEquals([whole.length, memory.length], [0, 60_000]);
      assertEquals(memory, before);
    }
  },
);

test("with inPlace, memory that cannot be transferred is copied", WORKERS, async () => {
  const immovable = {
    "marked as untransferable": () => {
      const chunk = bytes(65_536);
      markAsUntransferable(chunk.buffer);
      return chunk;
    },
    "WebAssembly's": () => new Uint8Array(new WebAssembly.Memory({ initial: 1 }).buffer),
  };
  for (const [what, make] of Object.entries(immovable)) {
    const chunk = make();
    const expected = ctrOf(concat([bytes(5), chunk, bytes(70_000)]));
    const options = { ...optionsWith(pair), inPlace: true };
    const output = encrypt("ctr(aes)", options, [bytes(5), chunk, bytes(70_000)]);
    assertEquals(await collect(output), expected, what);
  }
});

test("with inPlace, a chunk that is written twice fails both sides, and the pool continues", WORKERS, async () => {
  for (const size of [16 * 1024, 20_000]) { // smaller ones are copied
    const stream = new EncryptionStream("ctr(aes)", { ...optionsWith(pair), inPlace: true });
    const writer = stream.writable.getWriter();
    const chunk = bytes(size);
    const writing = Promise.all([caught(writer.write(chunk)), caught(writer.write(chunk)), caught(writer.close())]);
    const reading = caught(collect(stream.readable));
    assertInstanceOf(await reading, TypeError);
    assertStrictEquals((await writing).at(-1), await reading);
    assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pair), bytes(50))), ctrOf(bytes(50)));
  }
});

test("each output has its own memory: at most a window, or a batch of a sealed stream", WORKERS, async () => {
  const input = bytes(2 * UNIT + 1000);
  const options = optionsWith(pair);
  const sealing = { key: KEY, engine, pool: pair } as const;
  const file = await collect(seal(sealing, input));
  const encrypting = () => new EncryptionStream("ctr(aes)", options);
  const made: Record<string, [AsyncIterable<Bytes>, most: number]> = {
    "a chunk": [streamOf([input]).pipeThrough(encrypting()), 212_992],
    "many chunks": [streamOf(cut(input, [4096, 70_000])).pipeThrough(encrypting()), 212_992],
    "sealing": [streamOf([input]).pipeThrough(new SealStream(sealing)), UNIT + 24],
    "unsealing": [streamOf([file]).pipeThrough(new UnsealStream(sealing)), UNIT],
  };
  for (const [what, [stream, most]] of Object.entries(made)) {
    const pieces = await Array.fromAsync(stream);
    assertEquals(new Set(pieces.map(({ buffer }) => buffer)).size, pieces.length, what);
    assert(pieces.every(({ length }) => length <= most), `${what}: ${pieces.map(({ length }) => length)}`);
    assert(pieces.every(({ buffer }) => buffer !== input.buffer && buffer !== file.buffer), what);
  }
});

test("memory that is shared with Workers is not output, and is zeroed when no stream is left", WORKERS, async () => {
  const blocks = new Set<ArrayBuffer>();
  hooks.change = (_, __, message) => {
    for (const block of (message as { buffers?: readonly ArrayBuffer[] }).buffers ?? []) blocks.add(block);
  };
  using pool = await warm(2);
  const input = new Uint8Array(3 * UNIT).fill(0x5a);
  const options = { key: KEY, engine, pool } as const;
  const assertEmpty = () => {
    for (const block of blocks) assert(new Uint8Array(block).every((byte) => byte === 0));
  };

  for (const make of [() => new SealStream(options), () => new EncryptionStream("cbc(aes)", optionsWith(pool))]) {
    const pieces = await Array.fromAsync(streamOf([input]).pipeThrough(make()));
    assert(pieces.every(({ buffer }) => buffer instanceof ArrayBuffer));
    assertEmpty();
  }
  if (opens("chacha20")) { // its counter ends at the start of the second batch
    const iv = bytes(16, 3);
    new DataView(iv.buffer).setUint32(0, 2 ** 32 - UNIT / 64, true);
    const failing = encrypt("chacha20", { key: KEY, iv, engine, pool }, input);
    await assertRejects(() => collect(failing), KcapiError, "EOVERFLOW");
    await until(() => underWay() === 0, "Workers have answered"); // the third batch may still be in one
    assertEmpty();
  }
  const cancelled = new SealStream(options);
  const isUnderWay = new Promise<void>((resolve) => hooks.sent = (kind) => kind === "batch" && resolve());
  const reader = cancelled.readable.getReader();
  const all = Promise.all([caught(cancelled.writable.getWriter().write(input)), caught(reader.read())]);
  await isUnderWay;
  await reader.cancel();
  delete hooks.sent;
  await all;
  await until(() => underWay() === 0, "Workers have answered");
  await turns(1);
  assertEmpty();

  delete hooks.change;
  assert(blocks.size > 0, "Workers got no shared memory");
});

test("the memory of an output contains nothing else, also for small chunks", WORKERS, async () => {
  const input = new Uint8Array(300_000).fill(0x5a);
  for (
    const make of [
      () => new SealStream({ key: KEY, engine, pool: pair }),
      () => new EncryptionStream("cbc(aes)", optionsWith(pair)),
      () => new EncryptionStream("cbc(aes)", { ...optionsWith(pair), inPlace: true }),
      () => new EncryptionStream("ctr(aes)", optionsWith(pair)),
    ]
  ) {
    const stream = make();
    const reading = Array.fromAsync(stream.readable);
    const writer = stream.writable.getWriter();
    for (const part of cut(input, [100_001, 33])) {
      await writer.write(part.slice());
      await turns(3); // what has come is sent to a Worker that has nothing else to do
      await until(() => underWay() === 0, "Workers have done all batches");
    }
    await writer.close();
    for (const { buffer, byteOffset, length } of await reading) {
      const around = new Uint8Array(buffer).fill(0, byteOffset, byteOffset + length);
      assert(around.every((byte) => byte === 0), `${around.length - length} bytes besides ${length}`);
    }
  }
});

const MANY = times(250, 1000);

test(`${MANY} streams share a pool, and each gets its own bytes`, WORKERS, async () => {
  const sockets = openSockets();
  using pool = await warm(2);
  const warmed = openSockets();
  const inputs = Array.from({ length: 10 }, (_, i) => bytes(1_000 + i, i));
  const outputs = inputs.map(ctrOf);
  await Promise.all(Array.from({ length: MANY }, async (_, i) => {
    const output = collect(encrypt("ctr(aes)", optionsWith(pool), inputs[i % 10]!));
    assertEquals(await output, outputs[i % 10]!, `stream ${i}`);
  }));
  await assertReleased(warmed);
  pool.close();
  await assertReleased(sockets);
});

test("streams of different ciphers and sealed streams share a pool", WORKERS, async () => {
  const input = bytes(2 * UNIT);
  const key = { key: KEY, iv: IV };
  const tests = [
    ["ctr(aes)", key],
    ["cbc(aes)", { ...key, padding: "pkcs7" }],
    ["ecb(aes)", { key: KEY, padding: "pkcs7" }],
    ["xts(aes)", { key: bytes(64), sectorSize: 512 }],
  ] as const;
  const round = async ([algorithm, options]: typeof tests[number]) => {
    const encryption = new EncryptionStream(algorithm, { ...options, engine, pool: pair });
    const [one, other] = streamOf(cut(input, [300_000])).pipeThrough(encryption).tee();
    const decryption = new DecryptionStream(algorithm, { ...options, engine, pool: pair });
    const [ciphertext, plaintext] = await Promise.all([collect(one), collect(other.pipeThrough(decryption))]);
    assertEquals(ciphertext, reference("encrypt", algorithm, options, input), algorithm);
    assertEquals(plaintext, input, algorithm);
  };
  const sealed = async () => {
    const options = { key: KEY, engine, pool: pair };
    const stream = streamOf(cut(input, [300_000])).pipeThrough(new SealStream(options));
    assertEquals(await collect(stream.pipeThrough(new UnsealStream(options))), input);
  };
  await Promise.all([...tests.map(round), sealed(), sealed()]);
});

// ---- Scheduling -------------------------------------------------------------------------------------------------

test("a stream with a large backlog does not block a small one", ONCE, async () => {
  for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
    using pool = await warm(1);
    const ends: string[] = [];
    const run = async (name: string, length: number) => {
      await collect(encrypt(algorithm, optionsWith(pool), new Uint8Array(length)));
      ends.push(name);
    };
    await Promise.all([run("large", 8 * UNIT), run("small", 1_000), run("other small", 1_000)]);
    assertEquals(ends.at(-1), "large", algorithm);
  }
});

test("a stream without a reader does not block others", ONCE, async () => {
  using pool = await warm(1);
  for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
    const stuck = new EncryptionStream(algorithm, optionsWith(pool));
    void caught(stuck.writable.getWriter().write(new Uint8Array(8 * UNIT)));
    for (let i = 0; i < 3; i++) {
      const input = bytes(UNIT + i);
      assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pool), input)), ctrOf(input));
    }
    await stuck.readable.cancel();
  }
});

/** Fails unless a new stream gets `most` batches pending while no batch is answered. */
async function assertTakesAhead(pool: WorkerPool, most: number): Promise<void> {
  const held: (() => void)[] = [];
  hooks.deliver = (kind, deliver) => void (kind === "batch" ? held.push(deliver) : deliver());
  const input = bytes((most + 2) * UNIT);
  const output = collect(encrypt("ctr(aes)", optionsWith(pool), input));
  try {
    await until(() => held.length === most, `${most} batches are pending`);
  } finally {
    delete hooks.deliver;
    for (const deliver of held) deliver();
  }
  assertEquals(await output, ctrOf(input));
}

test("a failed stream that is abandoned occupies no Worker", ONCE, async () => {
  using pool = await warm(2);
  const damaged = await collect(seal({ key: KEY, engine }, bytes(2 * UNIT)));
  damaged[500_000]! ^= 1;
  let late: (() => void) | undefined; // keeps one Worker busy, for which the rest of the stream waits
  hooks.deliver = (kind, deliver) => {
    if (kind === "batch" && !late) late = deliver;
    else deliver();
  };
  const other = collect(encrypt("cbc(aes)", { ...optionsWith(pool), padding: "none" }, bytes(UNIT)));
  await until(() => late !== undefined, "the batch of another stream is done");
  const stream = new UnsealStream({ key: KEY, engine, pool });
  void caught(stream.writable.getWriter().write(damaged.slice(0, UNIT + 100_000)));
  const reader = stream.readable.getReader();
  assert((await reader.read()).value!.length > 0);
  delete hooks.deliver;
  late!();
  await other;
  await assertTakesAhead(pool, 4);
  reader.releaseLock();
});

test("streams without an active reader take no Worker from one with a reader", ONCE, async () => {
  using pool = await warm(4);
  const stalled = Array.from({ length: 8 }, () => new EncryptionStream("ctr(aes)", optionsWith(pool)));
  await Promise.all(stalled.map(async ({ readable, writable }) => {
    const writer = writable.getWriter();
    void caught(writer.closed);
    void caught(writer.write(new Uint8Array(3 * UNIT)));
    await readable.getReader().read();
  }));
  await until(() => underWay() === 0, "Workers have done all batches");
  await assertTakesAhead(pool, 8);
});

test("Workers start on demand, one in each turn of the event loop", ONCE, async () => {
  const before = started.length;
  using pool = new WorkerPool(4);
  const output = collect(encrypt("ctr(aes)", optionsWith(pool), new Uint8Array(16 * UNIT)));
  for (let seen = before; seen < before + 4;) {
    await turns(1);
    assert(started.length <= seen + 1, `${started.length - seen} in one turn`);
    seen = started.length;
  }
  assertEquals(await output, ctrOf(new Uint8Array(16 * UNIT)));
  using small = new WorkerPool(4);
  const count = started.length;
  for (let i = 0; i < 3; i++) await collect(encrypt("ctr(aes)", optionsWith(small), bytes(100)));
  assertEquals(started.length, count + 1);
});

test("ready() starts all Workers, and rejects if one cannot start or the pool is closed", ONCE, async () => {
  const before = started.length;
  const pool = new WorkerPool(3);
  await Promise.all([pool.ready(), pool.ready()]);
  const own = started.slice(before);
  assertEquals(own.map(({ heard }) => heard), [["ready"], ["ready"], ["ready"]]);
  await pool.ready();
  assertEquals(started.length, before + 3);
  pool.close();
  assertEquals((await assertRejects(() => pool.ready(), KcapiError)).code, "ECANCELED");
  using killed = new WorkerPool(2);
  const failing = killed.ready();
  await until(() => started.length > before + 3, "a Worker was started");
  void started.at(-1)!.worker.terminate();
  const error = await caught(failing);
  assert(error === undefined || (error as KcapiError).operation === "Worker", `${error}`);
  await killed.ready();
});

test("with inPlace small chunks are sent together, not one by one", WORKERS, async () => {
  let pieces = 0;
  hooks.change = (kind, _, message) => {
    if (kind === "batch") pieces += (message as { pieces: readonly unknown[] }).pieces.length;
  };
  const input = bytes(160_000);
  const chunks = cut(input, [16], { copied: true });
  const output = collect(encrypt("ctr(aes)", { ...optionsWith(pair), inPlace: true }, chunks));
  assertEquals(await output, ctrOf(input));
  delete hooks.change;
  assert(pieces < 500, `${pieces} pieces of memory`);
});

test("a kernel key that cannot be used gives the same error with a pool and without one", WORKERS, async () => {
  const key = { type: "logon", description: "kcapi-streams: no such key" } as const;
  const failures = await Promise.all(
    [undefined, pair].map((pool) => caught(collect(encrypt("ctr(aes)", { key, iv: IV, pool }, bytes(5))))),
  );
  const [alone, pooled] = failures as [KcapiError, KcapiError];
  assertInstanceOf(alone, KcapiError);
  assertEquals([pooled.code, pooled.message], [alone.code, alone.message]);
});

test("unfinished iterables that were collected occupy no Worker", ONCE, async () => {
  using pool = await warm(2);
  let collected = 0;
  const registry = new FinalizationRegistry(() => collected++);
  const leave = async () => {
    const left = encrypt("ctr(aes)", optionsWith(pool), bytes(3 * UNIT));
    registry.register(left, undefined);
    await left.next();
  };
  for (let i = 0; i < 3; i++) await leave();
  await until(() => underWay() === 0, "Workers have done all batches");
  for (let i = 0; i < 50 && collected < 3; i++) await collectGarbage(() => collected === 3);
  assertEquals(collected, 3);
  await collectGarbage(); // and their batches
  await assertTakesAhead(pool, 4);
});

test("a write that waits for busy Workers settles before its output", WORKERS, async () => {
  using pool = await warm(1);
  const busy = [1, 2].map(() => collect(encrypt("ctr(aes)", optionsWith(pool), new Uint8Array(4 * UNIT))));
  const options = { key: bytes(20), iv: bytes(8), engine };
  const stream = new EncryptionStream("rfc3686(ctr(aes))", { ...options, pool });
  const output = collect(stream.readable);
  const writer = stream.writable.getWriter();
  await turns(1);
  await writer.write(bytes(20_000));
  await writer.close();
  assertEquals(await output, await collect(encrypt("rfc3686(ctr(aes))", options, bytes(20_000))));
  await Promise.all(busy);
});

for (
  const [what, size, make] of [
    ["ctr(aes)", 3, (pool) => new EncryptionStream("ctr(aes)", optionsWith(pool))],
    [
      "ctr(aes), inPlace,",
      1,
      (pool) => new EncryptionStream("ctr(aes)", { ...optionsWith(pool), inPlace: true }),
    ],
    ["cbc(aes)", 1, (pool) => new EncryptionStream("cbc(aes)", optionsWith(pool))],
    ["a sealed stream", 2, (pool) => new SealStream({ key: KEY, engine, pool })],
  ] as [what: string, size: number, make: (pool: WorkerPool) => EncryptionStream | SealStream][]
) {
  test(`without a reader, ${what} accepts two batches for each of ${size} Workers, and a chunk`, ONCE, async () => {
    using pool = await warm(size);
    const chunk = 100_000;
    let taken = 0;
    const source = new ReadableStream<Bytes>({
      pull(controller) {
        taken += chunk;
        controller.enqueue(new Uint8Array(chunk));
      },
    }, { highWaterMark: 0 });
    const reader = source.pipeThrough(make(pool)).getReader();
    await reader.read(); // before the first read, the stream accepts nothing
    let before = -1;
    while (before !== taken) {
      before = taken;
      await turns(20);
      await until(() => underWay() === 0, "Workers have done all batches");
      await turns(20);
    }
    assert(taken <= 2 * size * UNIT + UNIT + 3 * chunk, `${taken} bytes`);
    await reader.cancel();
  });
}

test("while a batch is slow, a stream accepts two batches for each Worker, and a chunk", ONCE, async () => {
  let late: (() => void) | undefined;
  hooks.deliver = (kind, deliver) => {
    if (kind === "batch" && !late) late = deliver;
    else deliver();
  };
  const input = bytes(12 * UNIT);
  let [taken, received] = [0, 0];
  const source = streamOf((function* () {
    for (const chunk of cut(input, [100_000])) {
      taken += chunk.length;
      yield chunk;
    }
  })());
  const output = (async () => {
    const pieces: Bytes[] = [];
    for await (const piece of source.pipeThrough(new EncryptionStream("ctr(aes)", optionsWith(pair)))) {
      received += piece.length;
      pieces.push(piece);
    }
    return concat(pieces);
  })();
  await until(() => late !== undefined && taken > 3 * UNIT, "the other Worker continues");
  for (let before = -1; before !== taken;) {
    before = taken;
    await turns(20);
    await until(() => underWay() === 0, "Workers have done all batches");
    await turns(20);
  }
  // Either of the first two batches is late. Output before the late one is not pending any more.
  assert(received <= UNIT && taken - received <= 4 * UNIT + 300_000, `${taken} bytes, ${received} out`);
  delete hooks.deliver;
  late!();
  assertEquals(await output, ctrOf(input));
});

test("single bytes give the right output", ONCE, async () => {
  const input = bytes(3_000);
  for (const waits of [true, false]) {
    const stream = new EncryptionStream("cbc(aes)", optionsWith(pair));
    const output = collect(stream.readable);
    const writer = stream.writable.getWriter();
    for (const byte of cut(input, [1])) {
      const written = writer.write(byte);
      if (waits) await written;
    }
    await writer.close();
    assertEquals(await output, reference("encrypt", "cbc(aes)", { key: KEY, iv: IV, padding: "pkcs7" }, input));
  }
});

// ---- Workers that fail ------------------------------------------------------------------------------------------

/** The error of a stream whose Worker fails. */
async function ends(stream: EncryptionStream | DecryptionStream | SealStream, input: Bytes): Promise<unknown> {
  const writer = stream.writable.getWriter();
  const written = (async () => {
    for (const chunk of cut(input, [300_000])) await writer.write(chunk);
    await writer.close();
  })();
  const [read, wrote, closed] = await Promise.all([
    caught(collect(stream.readable)),
    caught(written),
    caught(writer.closed),
  ]);
  if (read) assertStrictEquals(closed, read, "both sides have the same reason");
  if (wrote && read) assertStrictEquals(wrote, read);
  return read;
}

/** The faults of a Worker, and whether the fault comes after a message was sent or before. */
const FAULTS: Record<string, [when: "sent" | "change", fail: (to: Started) => void]> = {
  "is killed": ["sent", ({ worker }) => void worker.terminate()],
  // The code of the Worker throws when it parses this message.
  "throws": ["change", ({ worker }) => worker.postMessage(0 as unknown as object)],
};

/** The message that triggers the fault: its kind, its number, and whether the Workers are started before. */
const STEPS: Record<string, [kind: string, count: number, isWarm: boolean]> = {
  "before it is ready": ["batch", 1, false],
  "when it opens a stream": ["open", 1, true],
  "with the first batch": ["batch", 1, true],
  "with a later batch": ["batch", 3, true],
};

for (const [fault, [when, fail]] of Object.entries(FAULTS)) {
  for (const [step, [kind, count, isWarm]] of Object.entries(STEPS)) {
    test(`a Worker that ${fault} ${step}: both sides get one error, and the pool continues`, WORKERS, async () => {
      using pool = isWarm ? await warm(2) : new WorkerPool(2);
      for (const algorithm of isSlow ? ["cbc(aes)"] : ["ctr(aes)", "cbc(aes)"]) {
        let seen = 0;
        let failed: Started | undefined;
        hooks[when] = (sent, to) => {
          if (sent !== kind || ++seen !== count) return;
          failed = to;
          fail(to);
        };
        // The Worker may answer before it ends. This test drops that answer.
        hooks.deliver = (kind, deliver, from) => void (from === failed && kind === "batch" || deliver());
        const error = await ends(new EncryptionStream(algorithm, optionsWith(pool)), new Uint8Array(4 * UNIT));
        delete hooks[when];
        delete hooks.deliver;
        assertInstanceOf(error, KcapiError, `${algorithm}: ${error}`);
        // A Worker that did not start may report EIO or ENOENT: which one is a race.
        const codes = isWarm ? ["EIO"] : ["EIO", "ENOENT"];
        assert(error.operation === "Worker" && codes.includes(error.code), error.message);
        await until(() => failed!.hasExited, "the Worker has ended");
        assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pool), bytes(UNIT + 5))), ctrOf(bytes(UNIT + 5)));
        if (!isWarm) break; // now it is
      }
    });
  }
}

test("an idle Worker that is killed is replaced without an error", ONCE, async () => {
  const before = started.length;
  using pool = await warm(2);
  const idle = started.slice(before);
  for (const { worker } of idle) void worker.terminate();
  await until(() => idle.every(({ hasExited }) => hasExited), "they have ended");
  const input = bytes(3 * UNIT);
  assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pool), input)), ctrOf(input));
  assert(started.length > before + 2);
});

test("a Worker that is killed between two batches of a chained stream fails that stream only", WORKERS, async () => {
  const before = started.length;
  using pool = await warm(2);
  const [one, other] = [
    new EncryptionStream("cbc(aes)", optionsWith(pool)),
    new EncryptionStream("cbc(aes)", optionsWith(pool)),
  ];
  const of: Started[] = [];
  hooks.sent = (kind, to) => void (kind === "open" && of.push(to));
  const input = bytes(UNIT);
  const expected = reference("encrypt", "cbc(aes)", { key: KEY, iv: IV, padding: "pkcs7" }, concat([input, input]));
  const [lost, left] = [one, other].map(({ writable }) => writable.getWriter()) as [
    WritableStreamDefaultWriter<Bytes>,
    WritableStreamDefaultWriter<Bytes>,
  ];
  const [reader, output] = [one.readable.getReader(), collect(other.readable)];
  const pieces: Bytes[] = [];
  const readUnit = async () => {
    while (concat(pieces).length < UNIT) pieces.push((await reader.read()).value!);
  };
  await Promise.all([readUnit(), lost.write(input), left.write(input)]);
  assertEquals(concat(pieces), expected.slice(0, UNIT));
  await until(() => underWay() === 0, "both first batches are done");
  delete hooks.sent;
  assertEquals(new Set(of).size, 2);
  void of[0]!.worker.terminate();
  await until(() => of[0]!.hasExited, "it has ended");
  const writing = caught(lost.write(input));
  const error = await caught(reader.read());
  assertInstanceOf(error, KcapiError);
  assertEquals(error.code, "EIO");
  await writing;
  assertStrictEquals(await caught(lost.closed), error);
  await left.write(input);
  await left.close();
  assertEquals(await output, expected);
  assertEquals(started.length - before, 2);
});

test("a stream whose Worker is killed fails at once while others keep the pool busy", ONCE, async () => {
  using pool = await warm(2);
  const input = bytes(4 * UNIT);
  const expected = reference("encrypt", "cbc(aes)", { key: KEY, iv: IV, padding: "pkcs7" }, input);
  let first: Started | undefined;
  const touched = new Set<string>();
  hooks.sent = (kind, to) => {
    if (kind !== "batch" || first) return;
    first = to;
    void to.worker.terminate();
  };
  const found = await Promise.allSettled(
    Array.from({ length: 4 }, () => collect(encrypt("cbc(aes)", optionsWith(pool), input))),
  );
  delete hooks.sent;
  assert(found.some(({ status }) => status === "rejected") && found.some(({ status }) => status === "fulfilled"));
  for (const result of found) {
    if (result.status === "fulfilled") assertEquals(result.value, expected);
    else touched.add((result.reason as KcapiError).code);
  }
  assertEquals([...touched], ["EIO"]);
});

test("a key that only the Worker rejects: both sides get its error, and the pool continues", WORKERS, async () => {
  using pool = await warm(1);
  const sockets = openSockets();
  // A simulated fault: the message to the Worker has a truncated key.
  hooks.change = (_, __, message) => {
    if ("open" in message) (message as { key?: ArrayBuffer }).key = new ArrayBuffer(5);
  };
  for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
    const error = await ends(new EncryptionStream(algorithm, optionsWith(pool)), new Uint8Array(2 * UNIT));
    assert(error instanceof KcapiError || error instanceof RangeError, `${error}`);
  }
  delete hooks.change;
  assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pool), bytes(99))), ctrOf(bytes(99)));
  await assertReleased(sockets);
});

test("damaged data fails with a pool as in one thread, after the output before it", WORKERS, async () => {
  const options = { key: KEY, engine, format: "AES256_CTR_HMAC_SHA256_64KB" } as const;
  const input = bytes(3 * UNIT);
  const file = await collect(seal(options, input));
  file[2 * UNIT + 70_000]! ^= 1;
  const pieces: Bytes[] = [];
  const error = await assertRejects(async () => {
    for await (const piece of unseal({ ...options, pool: pair }, file)) pieces.push(piece);
  }, KcapiError);
  assertEquals(error.code, "EBADMSG");
  const whole = 33 * (65_536 - 32) - 40; // the bytes before the damage
  assertEquals(concat(pieces), input.slice(0, whole));
  assert(
    pieces.every(({ buffer, length }) => buffer.byteLength === length),
    "an output has more memory than its bytes",
  );
});

test(
  "an UnsealStream outputs the verified segments before the damage, even after its writer has closed",
  WORKERS,
  async () => {
    const input = bytes(4 * UNIT);
    const file = await collect(seal({ key: KEY, engine }, input));
    const damaged = 50; // the segment, of 65
    file[damaged * 65_536 + 100]! ^= 1;
    for (const pool of [undefined, pair]) {
      const stream = new UnsealStream({ key: KEY, engine, pool });
      const writer = stream.writable.getWriter();
      const writing = Promise.all([caught(writer.write(file)), caught(writer.close())]);
      const pieces: Bytes[] = [];
      const error = await caught((async () => {
        for await (const piece of stream.readable) {
          pieces.push(piece);
          await turns(3); // a slow reader
          await until(() => underWay() === 0, "Workers have done all batches");
        }
      })());
      assertEquals((error as KcapiError)?.code, "EBADMSG");
      assertEquals(concat(pieces), input.slice(0, damaged * (65_536 - 32) - 40));
      await writing;
    }
  },
);

test(
  "openSealed() with a pool reads the same ranges, several batches at once, and the verified bytes before damage",
  WORKERS,
  async () => {
    using pool = await warm(2);
    const options = { key: KEY, engine, pool };
    const input = bytes(6 * UNIT + 12_345);
    const file = await collect(seal(options, input));
    using open = await openSealed(new Blob([file]), options);
    assertEquals([open.size, open.engine], [input.length, engine]);
    for (
      const [start, end] of [[0, 0], [5, 6], [65_400, 65_600], [UNIT - 7, 3 * UNIT + 7], [-5, input.length], [0, -1]]
    ) {
      assertEquals(await open.bytes(start, end), input.slice(start, end), `${start} to ${end}`);
      assertEquals(await collect(open.stream({ start, end })), input.slice(start, end), `${start} to ${end}`);
    }
    const held: (() => void)[] = [];
    hooks.deliver = (kind, deliver) => void (kind === "batch" ? held.push(deliver) : deliver());
    const whole = open.bytes();
    await until(() => held.length === 4, "four batches are pending");
    delete hooks.deliver;
    for (const deliver of held) deliver();
    assertEquals(await whole, input);

    const damaged = file.with(70 * 65_536 + 100, file[70 * 65_536 + 100]! ^ 1);
    using broken = await openSealed(new Blob([damaged]), options);
    await assertRejects(() => broken.bytes(), KcapiError, "EBADMSG");
    const pieces: Bytes[] = [];
    await assertRejects(
      async () => {
        for await (const piece of broken.stream()) pieces.push(piece);
      },
      KcapiError,
      "EBADMSG",
    );
    assertEquals(concat(pieces), input.slice(0, concat(pieces).length));
    assertEquals(await broken.bytes(-100), input.slice(-100));

    const waiting = open.bytes();
    pool.close();
    assertEquals((await assertRejects(() => waiting, KcapiError)).code, "ECANCELED");
    assertEquals((await assertRejects(() => open.bytes(), KcapiError)).code, "ECANCELED");
  },
);

test(
  "data that is truncated at the end of a segment is output, and then fails, as in one thread",
  WORKERS,
  async () => {
    const options = { key: KEY, engine, format: "AES256_CTR_HMAC_SHA256_4KB" } as const;
    const input = bytes(3 * UNIT);
    const file = await collect(seal(options, input));
    for (const segments of [1, 2, 300]) {
      const pieces: Bytes[] = [];
      const error = await assertRejects(async () => {
        const cutOff = file.slice(0, segments * 4096);
        for await (const piece of unseal({ ...options, pool: pair }, cutOff)) pieces.push(piece);
      }, KcapiError);
      assertEquals(error.code, "EBADMSG");
      assertEquals(concat(pieces), input.slice(0, segments * (4096 - 32) - 40), `${segments}`);
    }
  },
);

// ---- Every way to end -------------------------------------------------------------------------------------------

/** Waits for a number of microtasks or turns of the event loop. */
async function wait(moment: { microtasks: number } | { turns: number }): Promise<void> {
  if ("turns" in moment) return await turns(moment.turns);
  for (let i = 0; i < moment.microtasks; i++) await undefined;
}
const MOMENTS = [
  ...Array.from({ length: 40 }, (_, microtasks) => ({ microtasks })),
  ...Array.from({ length: 12 }, (_, turns) => ({ turns })),
].filter((_, i) => !isSlow || i % 3 === 0);

const REASON = new Error("enough");

const WAYS: Record<string, (life: Life) => unknown> = {
  "abort() of the writer": ({ writer }) => caught(writer.abort(REASON)),
  "cancel() of the reader": ({ reader }) => caught(reader.cancel(REASON)),
  "the signal": ({ controller }) => controller.abort(REASON),
};

interface Life {
  readonly controller: AbortController;
  readonly writer: WritableStreamDefaultWriter<Bytes>;
  readonly reader: ReadableStreamDefaultReader<Bytes>;
  /** Resolves when both sides have ended, to the error of each, if there is one. */
  readonly over: Promise<unknown[]>;
}

function live(pool: WorkerPool, algorithm: string): Life {
  const controller = new AbortController();
  const stream = new EncryptionStream(algorithm, { ...optionsWith(pool), signal: controller.signal });
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  const writing = async () => {
    await writer.write(bytes(100));
    await writer.write(new Uint8Array(40_000));
    await writer.write(new Uint8Array(UNIT));
    await writer.close();
  };
  void caught(writing());
  const reading = (async () => {
    while (!(await reader.read()).done);
  })();
  return { controller, writer, reader, over: Promise.all([caught(writer.closed), caught(reading)]) };
}

for (const [way, leave] of Object.entries(WAYS)) {
  test(`${way} at each microtask and each turn of a stream ends it and releases everything`, WORKERS, async () => {
    const sockets = openSockets();
    for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
      for (const moment of MOMENTS) {
        const life = live(pair, algorithm);
        await wait(moment);
        await leave(life);
        for (const error of await life.over) {
          assert(
            error === undefined || error === REASON,
            `${error} at ${JSON.stringify(moment)}`,
          );
        }
      }
    }
    await assertReleased(sockets);
    assertEquals(await collect(encrypt("ctr(aes)", optionsWith(pair), bytes(50))), ctrOf(bytes(50)));
  });
}

test("return() and break at each microtask and each turn end an iterable and release everything", WORKERS, async () => {
  const sockets = openSockets();
  for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
    for (const moment of MOMENTS) {
      let returned = false;
      const iterator = {
        next: () => ({ done: false, value: new Uint8Array(200_000) }),
        return() {
          returned = true;
          return { done: true as const, value: undefined };
        },
      };
      const source = { [Symbol.iterator]: () => iterator };
      const iterable = encrypt(algorithm, optionsWith(pair), source);
      const next = iterable.next();
      await wait(moment);
      assertEquals((await iterable.return()).done, true);
      await next;
      assert(returned);
      for await (const _ of encrypt(algorithm, optionsWith(pair), [bytes(100), bytes(UNIT)])) break;
    }
  }
  await assertReleased(sockets);
});

test("close() of the pool at each microtask and each turn ends its streams with ECANCELED", WORKERS, async () => {
  const sockets = openSockets();
  const before = started.length;
  for (const moment of MOMENTS.filter((_, i) => i % 4 === 0)) { // each starts a Worker
    const pool = new WorkerPool(1);
    const life = live(pool, "ctr(aes)");
    const iterable = caught(collect(encrypt("cbc(aes)", optionsWith(pool), new Uint8Array(2 * UNIT))));
    await wait(moment);
    pool.close();
    for (const error of [...await life.over, await iterable]) {
      assert(
        error === undefined || (error as KcapiError).code === "ECANCELED",
        `${error} at ${JSON.stringify(moment)}`,
      );
    }
  }
  await until(() => started.slice(before).every(({ hasExited }) => hasExited), "all Workers have ended");
  await assertReleased(sockets);
});

test("after close() and dispose, pending and later streams fail with ECANCELED", WORKERS, async () => {
  for (
    const end of [(pool: WorkerPool) => pool.close(), (pool: WorkerPool) => pool[Symbol.dispose]()]
  ) {
    const sockets = openSockets();
    const before = started.length;
    const pool = await warm(2);
    const options = optionsWith(pool);
    const waiting = [
      encrypt("ctr(aes)", options, new ReadableStream()).next(),
      new EncryptionStream("cbc(aes)", options).readable.getReader().read(),
      new UnsealStream({ key: KEY, engine, pool }).readable.getReader().read(),
    ];
    const unopened = encrypt("ctr(aes)", options, bytes(3));
    await turns(2);
    end(pool);
    end(pool);
    const later = [
      unopened.next(),
      collect(seal({ key: KEY, engine, pool }, bytes(5))),
      (async () => await new EncryptionStream("ctr(aes)", options).readable.getReader().read())(),
    ];
    for (const promise of [...waiting, ...later]) {
      assertEquals((await assertRejects(() => promise, KcapiError)).code, "ECANCELED");
    }
    await until(() => started.slice(before).every(({ hasExited }) => hasExited), "both Workers have ended");
    await assertReleased(sockets);
  }
});

test("an unreferenced pool is collected, and its Workers end", ONCE, async () => {
  const before = started.length;
  await (async () => {
    const pool = await warm(2);
    await collect(encrypt("ctr(aes)", optionsWith(pool), bytes(100)));
  })();
  const isOver = () => started.slice(before).every(({ hasExited }) => hasExited);
  for (let i = 0; i < 50 && !isOver(); i++) await collectGarbage(isOver);
  assert(isOver());
});

test("a stream keeps its pool alive", ONCE, async () => {
  const stream = await (async () => new EncryptionStream("ctr(aes)", optionsWith(await warm(1))))();
  await collectGarbage();
  const output = collect(stream.readable);
  const writer = stream.writable.getWriter();
  await writer.write(bytes(100_000));
  await collectGarbage();
  await writer.close();
  assertEquals(await output, ctrOf(bytes(100_000)));
});

test(
  "the counter is used up to its last block, and the next block is EOVERFLOW after all output",
  { needs: { chacha20: opens("chacha20") } },
  async () => {
    using pool = await warm(2);
    const iv = bytes(16, 3);
    new DataView(iv.buffer).setUint32(0, 2 ** 32 - 2 * UNIT / 64, true);
    const options = { key: KEY, iv, engine };
    const input = bytes(2 * UNIT);
    const expected = await collect(encrypt("chacha20", options, input));
    assertEquals(await collect(encrypt("chacha20", { ...options, pool }, input)), expected);
    const output: Bytes[] = [];
    const error = await assertRejects(async () => {
      const tooLong = encrypt("chacha20", { ...options, pool }, [input, bytes(1)]);
      for await (const chunk of tooLong) output.push(chunk);
    }, KcapiError);
    assertEquals([error.code, concat(output).length], ["EOVERFLOW", 2 * UNIT]);
    assertEquals(concat(output), expected);
  },
);

/**
 * A fake transform with an output per millisecond, whose progress always resolves at once. It is a fake because the
 * messages of a real Worker never all arrive in microtasks.
 */
class FakeUnits implements Transform {
  readonly engine = "userspace";
  pending = false;
  readonly #pieces: number;
  #steps = 0;

  constructor(pieces: number) {
    this.#pieces = pieces;
  }

  get progress(): Promise<void> | undefined {
    return this.pending ? Promise.resolve() : undefined;
  }

  write(): void {
    this.pending = true;
  }

  end(): void {}

  read(): Bytes | undefined {
    if (this.#steps++ % 2 === 0) return undefined;
    for (const start = performance.now(); performance.now() - start < 1;);
    this.pending = this.#steps < 2 * this.#pieces;
    return new Uint8Array(1);
  }

  close(): void {
    this.pending = false;
  }
}

test("a transform whose progress resolves at once does not block the event loop", async () => {
  const pair = new StreamPair({ signals: [], inPlace: false, open: () => new FakeUnits(100), discard() {} });
  const writer = pair.writable.getWriter();
  const reader = pair.readable.getReader();
  const writing = writer.write(new Uint8Array(UNIT));
  let had = 0;
  const turn = () => {
    had++;
    immediate = setImmediate(turn);
  };
  let immediate = setImmediate(turn);
  for (let i = 0; i < 100; i++) await reader.read();
  clearImmediate(immediate);
  await writing;
  await writer.close();
  assert(had >= 5, `${had} turns`);
});

// ---- Arguments --------------------------------------------------------------------------------------------------

test("a bad size is an error, and the default is the number of processors", () => {
  for (const size of ["2", null, {}, true, 2n]) {
    assertStringIncludes(assertThrows(() => new WorkerPool(size as number), TypeError).message, '"size"');
  }
  for (const size of [0, -1, 1.5, NaN, Infinity, 1025]) {
    assertStringIncludes(assertThrows(() => new WorkerPool(size), RangeError).message, '"size"');
  }
  using pool = new WorkerPool();
  assertEquals(pool.size, navigator.hardwareConcurrency);
});

test("a value that is not a WorkerPool is a TypeError, and so is a pool with a handle", () => {
  // @ts-expect-error: an object with the properties of a pool is not a pool
  assertThrows(() => new SealStream({ key: KEY, pool: { size: 2 } }), TypeError, '"pool"');
  // @ts-expect-error: nor is an object with its methods
  assertThrows(() => new SealStream({ key: KEY, pool: { size: 2, async ready() {}, close() {} } }), TypeError);
  const before = started.length;
  for (const bad of [{}, null, 42, "2", { size: 2 }, Object.create(WorkerPool.prototype)]) {
    const options = { key: KEY, iv: IV, engine, pool: bad as WorkerPool };
    const sealed = { key: KEY, engine, pool: bad as WorkerPool };
    for (
      const way of [
        () => new EncryptionStream("ctr(aes)", options),
        () => new DecryptionStream("ctr(aes)", options),
        () => encrypt("ctr(aes)", options, KEY),
        () => decrypt("ctr(aes)", options, KEY),
        () => new SealStream(sealed),
        () => new UnsealStream(sealed),
        () => seal(sealed, KEY),
        () => unseal(sealed, KEY),
      ]
    ) assertStringIncludes(assertThrows(way, TypeError).message, '"pool"');
  }
  using pool = new WorkerPool(1);
  using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
  const parameters = { iv: IV, pool } as { iv: Bytes };
  assertStringIncludes(assertThrows(() => new EncryptionStream(handle, parameters), TypeError).message, '"pool"');
  assertEquals(started.length, before, "no Worker is started");
});

// ---- Effects on the process -------------------------------------------------------------------------------------

const child = (name: string) => fileURLToPath(new URL(`./children/${name}.ts`, import.meta.url));

test("a process ends while its pool is open and streams are pending", ONCE, async () => {
  const { code, signal, stdout, stderr } = await spawn([...runtimeArgv, child("unread"), "workers"]);
  assertEquals([code, signal, stdout], [0, null, "ended\n"], stderr);
});

test("a process that only waits for Workers does not end before they answer", ONCE, async () => {
  const { code, stdout, stderr } = await spawn([...runtimeArgv, child("pooled")]);
  assertEquals([code, JSON.parse(stdout)], [0, { engine, length: 3_000_000 }], stderr);
});

test(
  "in Node a pool works if the program is not a file",
  { engine: "userspace", runtime: "node" },
  async () => {
    const program = `
    const { WorkerPool, encrypt } = await import(${JSON.stringify(new URL("../mod.ts", import.meta.url).href)});
    const options = { key: new Uint8Array(16), iv: new Uint8Array(16), engine: "${engine}", pool: new WorkerPool(1) };
    for await (const { length } of encrypt("ctr(aes)", options, new Uint8Array(5))) console.log(length);`;
    for (const flags of [["--input-type=module"], ["--input-type", "module"], []]) {
      const { code, stdout, stderr } = await spawn([...runtimeArgv, ...flags, "--eval", program]);
      assertEquals([code, stdout], [0, "5\n"], stderr);
    }
  },
);

test(
  "in Node the default size needs no navigator, and many streams cause no MaxListenersExceededWarning",
  { engine: "userspace", runtime: "node" },
  async () => {
    const program = `
    const { EncryptionStream, WorkerPool } = await import(${
      JSON.stringify(new URL("../mod.ts", import.meta.url).href)
    });
    const pool = new WorkerPool();
    const options = { key: new Uint8Array(16), iv: new Uint8Array(16), engine: "${engine}", pool };
    const streams = Array.from({ length: 30 }, () => new EncryptionStream("ctr(aes)", options));
    console.log(typeof navigator, pool.size > 0, streams.length);`;
    const flags = ["--no-experimental-global-navigator", "--input-type=module"];
    const { code, stdout, stderr } = await spawn([...runtimeArgv, ...flags, "--eval", program]);
    assertEquals([code, stdout], [0, "undefined true 30\n"], stderr);
    assert(!stderr.includes("MaxListeners"), stderr);
  },
);

test("with too few descriptors no Worker starts, and the error is EMFILE", ONCE, async () => {
  const command = [...runtimeArgv, child("short_of_descriptors")];
  for (const free of [0, 3, 12]) {
    const { code, stdout, stderr } = await spawn([
      "sh",
      "-c",
      'ulimit -n 200 && exec "$@"',
      "sh",
      ...command,
      `${free}`,
    ]);
    assertEquals([code, stdout], [0, '["EMFILE Worker","EMFILE Worker",3000000,"ready"]\n'], `${free} free: ${stderr}`);
  }
});

const root = fileURLToPath(new URL("..", import.meta.url));

/** The output of a program with a pool under these flags, with no other permission (in Node with `--permission`). */
async function permitted(flags: readonly string[]): Promise<Record<string, string>> {
  const command = runtime === "deno"
    ? [process.execPath, "run", "--no-check", "--no-prompt", `--allow-env=KCAPI_TEST_ENGINE`, ...flags]
    : [process.execPath, "--disable-warning=ExperimentalWarning", "--permission", "--allow-fs-read=*", ...flags];
  const { stdout, stderr } = await spawn([...command, child("pooled")]);
  assert(stdout !== "", stderr);
  return JSON.parse(stdout);
}

const library = engine === "kernel" ? [`--allow-ffi=${load().path}`, ...LIBRARY_FLAGS] : [];

test(
  "in Deno a pool needs to read the module, and for the kernel libkcapi; otherwise EACCES names the flag",
  { runtime: "deno" },
  async () => {
    assertEquals(
      await permitted([`--allow-read=${root}src,${root}ffi`, ...library]),
      { engine, length: 3_000_000 } as never,
    );
    const { code, hint } = await permitted(library);
    assertEquals(code, "EACCES");
    assertStringIncludes(hint!, "--allow-read");
  },
);

test(
  "in Node a pool needs --allow-worker; otherwise EACCES names the flag",
  { runtime: "node" },
  async () => {
    const ffi = engine === "kernel" ? ["--allow-ffi"] : [];
    assertEquals(await permitted(["--allow-worker", ...ffi]), { engine, length: 3_000_000 } as never);
    if (engine === "kernel") return; // in a guest each process takes seconds
    const { code, hint } = await permitted(ffi);
    assertEquals(code, "EACCES");
    assertStringIncludes(hint!, "--allow-worker");
  },
);
