/**
 * The option `ivPrefix`: a random IV in front of the ciphertext, through each interface, with and without a pool.
 *
 * FC_SEED and FC_PATH repeat a run that failed; FC_RUNS is the number of runs of each test.
 */
import process from "node:process";
import fc from "fast-check";
import {
  CipherHandle,
  type CipherStreamOptions,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
} from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import type { CipherPlan } from "../src/cipher/cipher_transform.ts";
import { withIVPrefix } from "../src/cipher/iv_prefix.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  engine,
  openFiles,
  test,
  times,
} from "./support/deps.ts";
import { until, warm } from "./support/pool.ts";
import {
  type Bytes,
  bytes,
  caught,
  collect,
  collectGarbage,
  concat,
  cut,
  type Direction,
  outcomes,
  reference,
  streamOf,
  turns,
  WINDOW,
} from "./support/support.ts";

const SEED = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));
const RUNS = Number(process.env.FC_RUNS ?? times(60, 300));

console.log(`iv_prefix_test: seed ${SEED}`);

const pool = await warm(2);
const none = new Uint8Array(0);

/** Without the key and the engine, which a handle has. */
type Parameters = Pick<CipherStreamOptions, "iv" | "ivPrefix" | "padding" | "inPlace" | "signal">;

interface Task {
  direction: Direction;
  algorithm: string;
  key: Bytes;
  parameters: Parameters;
}

function throughStream({ direction, algorithm, key, parameters }: Task, options: Partial<CipherStreamOptions> = {}) {
  const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
  return new Stream(algorithm, { key, engine, ...parameters, ...options });
}

function throughHandle({ direction, algorithm, key, parameters }: Task) {
  using handle = CipherHandle.open(algorithm, { key, engine });
  return direction === "encrypt" ? new EncryptionStream(handle, parameters) : new DecryptionStream(handle, parameters);
}

function throughIterable(
  { direction, algorithm, key, parameters }: Task,
  source: Iterable<Bytes> | ReadableStream<Bytes>,
  options: Partial<CipherStreamOptions> = {},
) {
  return (direction === "encrypt" ? encrypt : decrypt)(algorithm, { key, engine, ...parameters, ...options }, source);
}

const WAYS: Record<string, (task: Task, chunks: Iterable<Bytes>) => AsyncIterable<Bytes>> = {
  "a stream": (task, chunks) => streamOf(chunks).pipeThrough(throughStream(task)),
  "a stream with a pool": (task, chunks) => streamOf(chunks).pipeThrough(throughStream(task, { pool })),
  "a stream over a handle": (task, chunks) => streamOf(chunks).pipeThrough(throughHandle(task)),
  "an iterable": (task, chunks) => throughIterable(task, chunks),
  "an iterable with a pool": (task, chunks) => throughIterable(task, chunks, { pool }),
};

/** All output. What was read becomes the reader's: it is spoiled. */
async function spoiling(output: AsyncIterable<Bytes>): Promise<Bytes> {
  const pieces: Bytes[] = [];
  for await (const piece of output) {
    pieces.push(piece.slice());
    piece.fill(0xee);
  }
  return concat(pieces);
}

// ---- the bytes --------------------------------------------------------------------------------------------------

/** Names that an engine may have, each with the length of a key. */
const KEY_SIZES: Record<string, number> = {
  "cbc(aes)": 32,
  "ctr(aes)": 16,
  "xts(aes)": 64,
  chacha20: 32,
  "cfb(aes)": 24,
  "ofb(aes)": 16,
  "pcbc(aes)": 16,
  "cbc(des3_ede)": 24,
  "rfc3686(ctr(aes))": 20,
  "cts(cbc(aes))": 16,
  "lrw(aes)": 32,
  "essiv(cbc(aes),sha256)": 16,
  xchacha20: 32,
  "adiantum(xchacha12,aes)": 32,
  "hctr2(aes)": 16,
  "camellia-cbc-none": 16,
  // The names do not tell the IV's length.
  "cbc(cipher_null)": 0,
  "ctr(cipher_null)": 0,
};

const openable = Object.keys(KEY_SIZES).filter((algorithm) => {
  try {
    CipherHandle.open(algorithm, { key: bytes(KEY_SIZES[algorithm]!, 3), engine }).close();
    return true;
  } catch (error) {
    assertInstanceOf(error, KcapiError); // this engine, runtime or kernel does not have it
    return false;
  }
});

test("each algorithm of this file opens", () => {
  console.log(`iv_prefix_test: ${openable.join(", ")}`);
  for (const name of ["cbc(aes)", "ctr(aes)", "xts(aes)"]) assert(openable.includes(name), name);
  assert(engine === "userspace" || openable.length >= 8, `${openable}`);
});

interface Case {
  algorithm: string;
  padding: "pkcs7" | "none" | undefined;
  seed: number;
  length: number;
  sizes: number[];
  inPlace: boolean;
  encryptBy: string;
  decryptBy: string;
}

const around = (value: number) => fc.integer({ min: value - 40, max: value + 40 });
const upTo = (max: number) => fc.integer({ min: 1, max });
const CASE: fc.Arbitrary<Case> = fc.record({
  algorithm: fc.constantFrom(...openable),
  padding: fc.constantFrom("pkcs7", "none", undefined),
  seed: fc.nat(),
  length: fc.oneof(
    { weight: 4, arbitrary: fc.nat(100) },
    { weight: 2, arbitrary: fc.nat(5000) },
    { weight: 1, arbitrary: around(65_536) },
    { weight: 1, arbitrary: around(2 * WINDOW) },
  ),
  sizes: fc.array(fc.oneof(upTo(3), upTo(40), upTo(2000), around(16_384), fc.constant(32_768), around(WINDOW)), {
    minLength: 1,
    maxLength: 6,
  }),
  inPlace: fc.boolean(),
  encryptBy: fc.constantFrom(...Object.keys(WAYS)),
  decryptBy: fc.constantFrom(...Object.keys(WAYS)),
}).map((each) => {
  const { kind, blockSize } = parseAlgorithm(each.algorithm);
  const isMessage = kind === "message" || kind === "sector";
  const isPadded = each.padding === "pkcs7" && kind === "stream" && (blockSize ?? 1) > 1;
  // A message has a length of whole blocks that fits the window. Small pieces of much data would take long.
  const whole = isMessage ? 64 * (1 + Math.floor(each.length / 400)) : each.length - each.length % 16;
  const length = isPadded || blockSize === 1 ? each.length : whole;
  const least = Math.max(1, Math.floor(length / 300));
  return {
    ...each,
    padding: isPadded ? "pkcs7" as const : kind === "stream" ? "none" as const : undefined,
    length,
    sizes: each.sizes.map((size) => Math.max(size, least)),
  };
});

test(
  "random algorithms, lengths and splits: the bytes are those of a stream with the IV from the front",
  { sanitize: false },
  () =>
    fc.assert(
      fc.asyncProperty(CASE, async ({ algorithm, padding, seed, length, sizes, inPlace, encryptBy, decryptBy }) => {
        const key = bytes(KEY_SIZES[algorithm]!, seed);
        const rest = { ...padding && { padding }, inPlace };
        const task = (direction: Direction, parameters: Parameters): Task => ({
          direction,
          algorithm,
          key,
          parameters,
        });
        const plaintext = bytes(length, seed + 1);
        const pieces = (whole: Bytes) => cut(whole, sizes, { copied: true });

        const encrypted = await spoiling(
          WAYS[encryptBy]!(task("encrypt", { ...rest, ivPrefix: true }), pieces(plaintext)),
        );
        using handle = CipherHandle.open(algorithm, { key, engine });
        const [iv, ciphertext] = [encrypted.slice(0, handle.ivSize), encrypted.slice(handle.ivSize)];
        assertEquals(iv.length, handle.ivSize);
        const separate = throughIterable(task("encrypt", { ...rest, iv }), [plaintext.slice()]);
        assertEquals(ciphertext, await collect(separate));
        if (algorithm.endsWith("(aes)") && ["cbc", "ctr", "xts"].includes(parseAlgorithm(algorithm).mode)) {
          assertEquals(ciphertext, reference("encrypt", algorithm, { key, iv, padding }, plaintext));
        }

        const decrypted = WAYS[decryptBy]!(task("decrypt", { ...rest, ivPrefix: true }), pieces(encrypted));
        assertEquals(await spoiling(decrypted), plaintext);
      }),
      { seed: SEED, path: process.env.FC_PATH ?? "", numRuns: RUNS },
    ),
);

for (const [way, run] of Object.entries(WAYS)) {
  const ctr = (direction: Direction): Task => ({
    direction,
    algorithm: "ctr(aes)",
    key: bytes(16),
    parameters: { ivPrefix: true },
  });

  test(`${way}: each algorithm with an IV gives back the plaintext, in chunks of one byte`, {
    sanitize: false,
  }, async () => {
    const plaintext = bytes(128);
    for (const algorithm of openable) {
      const key = bytes(KEY_SIZES[algorithm]!, 3);
      const task = (direction: Direction): Task => ({ direction, algorithm, key, parameters: { ivPrefix: true } });
      const ciphertext = await collect(run(task("encrypt"), cut(plaintext, [1])));
      assertEquals(await collect(run(task("decrypt"), cut(ciphertext, [1]))), plaintext, algorithm);
    }
  });

  test(`${way}: an empty input gives the IV and the padding`, { sanitize: false }, async () => {
    for (const chunks of [[], [none]]) {
      const encrypted = await collect(run(ctr("encrypt"), chunks));
      assertEquals(encrypted.length, 16);
      assertEquals(await collect(run(ctr("decrypt"), [encrypted])), none);
      const padded: Task = { ...ctr("encrypt"), algorithm: "cbc(aes)" };
      const block = await collect(run(padded, chunks));
      assertEquals(block.length, 32);
      assertEquals(await collect(run({ ...padded, direction: "decrypt" }, [block])), none);
    }
  });

  test(`${way}: an input that ends within the IV is EBADMSG, like any damage`, { sanitize: false }, async () => {
    const padded: Task = { ...ctr("decrypt"), algorithm: "cbc(aes)" };
    const damage = await assertRejects(() => collect(run(padded, [bytes(35)])), KcapiError);
    for (const task of [ctr("decrypt"), padded]) {
      for (const length of [0, 1, 15]) {
        const error = await assertRejects(() => collect(run(task, cut(bytes(length), [2]))), KcapiError);
        assertEquals([error.code, error.message, error.operation], ["EBADMSG", damage.message, damage.operation]);
      }
    }
  });

  test(`${way}: no two outputs have the same IV`, { sanitize: false }, async () => {
    const ivs = new Set<string>();
    for (let i = 0; i < 20; i++) ivs.add((await collect(run(ctr("encrypt"), [bytes(16)]))).subarray(0, 16).toHex());
    assertEquals(ivs.size, 20);
  });
}

test(
  "a random IV has a block counter of 0 and another nonce each time",
  { needs: { chacha20: openable.some((name) => parseAlgorithm(name).kind === "counter") } },
  async () => {
    for (const algorithm of openable.filter((name) => parseAlgorithm(name).kind === "counter")) {
      const { counter, ivSize } = parseAlgorithm(algorithm);
      const options = { key: bytes(32), engine, ivPrefix: true };
      const ivs = [await collect(encrypt(algorithm, options, none)), await collect(encrypt(algorithm, options, none))];
      for (const iv of ivs) {
        assertEquals(iv.length, ivSize!);
        assertEquals(iv.slice(counter!.offset, counter!.offset + 4), new Uint8Array(4));
      }
      assertNotEquals(ivs[0]!.toHex(), ivs[1]!.toHex());
    }
  },
);

test("a handle serves many streams at once, each with its own IV", async () => {
  using handle = CipherHandle.open("ctr(aes)", { key: bytes(16), engine });
  const inputs = [1, 2, 3, 4].map((seed) => bytes(40_000, seed));
  const outputs = await Promise.all(inputs.map((input) =>
    collect(
      streamOf(cut(input, [700]))
        .pipeThrough(new EncryptionStream(handle, { ivPrefix: true }))
        .pipeThrough(new DecryptionStream(handle, { ivPrefix: true })),
    )
  ));
  outputs.forEach((output, i) => assertEquals(output, inputs[i]!));
});

// ---- refusals ---------------------------------------------------------------------------------------------------

test("options that exclude ivPrefix are refused before anything is opened", () => {
  const iv = bytes(16);
  const cases: [string, object, string][] = [
    ["ctr(aes)", { ivPrefix: true, iv }, '"ivPrefix" and "iv" exclude each other'],
    ["xts(aes)", { ivPrefix: true, sectorSize: 512 }, '"ivPrefix" expected no "sectorSize" and no "sector"'],
    ["xts(aes)", { ivPrefix: true, sectorSize: 512, sector: 1 }, '"ivPrefix" expected no "sectorSize"'],
    ["xts(aes)", { ivPrefix: true, sector: 1 }, '"ivPrefix" expected no "sectorSize"'],
    ["ecb(aes)", { ivPrefix: true }, '"ivPrefix" expected an algorithm with an IV: ecb(aes) has no IV'],
    ["kw(aes)", { ivPrefix: true }, "kw(aes), which makes its own IV"],
    ["ctr(aes)", { ivPrefix: 1 }, '"ivPrefix" expected a boolean, got number'],
    ["ctr(aes)", { ivPrefix: "true" }, '"ivPrefix" expected a boolean, got string'],
    ["ctr(aes)", { ivPrefix: null }, '"ivPrefix" expected a boolean, got null'],
  ];
  for (const [algorithm, options, message] of cases) {
    const key = bytes(32);
    // The iterables open nothing before the first next().
    for (const call of [encrypt, decrypt]) {
      assertStringIncludes(
        assertThrows(() => call(algorithm, { key, engine, ...options } as never, none), TypeError).message,
        message,
      );
    }
    for (const Stream of [EncryptionStream, DecryptionStream]) {
      const files = openFiles();
      assertThrows(() => new Stream(algorithm, { key, engine, ...options } as never), TypeError, message);
      assertEquals(openFiles(), files);
    }
  }
  using handle = CipherHandle.open("ecb(aes)", { key: bytes(16), engine });
  assertThrows(() => new EncryptionStream(handle, { ivPrefix: true }), TypeError, "has no IV");
});

test("ivPrefix: false and undefined have no effect", async () => {
  const options = { key: bytes(16), engine, iv: bytes(16) };
  const expected = await collect(encrypt("ctr(aes)", options, bytes(100)));
  for (const ivPrefix of [false, undefined]) {
    assertEquals(await collect(encrypt("ctr(aes)", { ...options, ivPrefix }, bytes(100))), expected);
    const withoutIV = { key: bytes(16), engine, ivPrefix };
    assertThrows(() => encrypt("ctr(aes)", withoutIV, none), TypeError, '"iv" expected');
  }
  const sectors = { key: bytes(32), engine, sectorSize: 16, ivPrefix: false };
  assertEquals((await collect(encrypt("xts(aes)", sectors, bytes(32)))).length, 32);
});

// A stand-in for a cipher: each kernel algorithm without an IV has a name that tells it.
test("a cipher without an IV is closed, and refused with EINVAL", () => {
  let closed = 0;
  const cipher = { engine, ivSize: 0, start: () => assert(false) as never, close: () => void closed++ };
  const plan = { algorithm: parseAlgorithm("newmode(aes)") } as CipherPlan;
  const error = assertThrows(() => withIVPrefix(plan, cipher), KcapiError);
  assertEquals([error.code, closed], ["EINVAL", 1]);
  assertStringIncludes(error.message, "newmode(aes) has no IV");
});

test("a wrong key and a missing algorithm are errors of the constructor, which does not need an IV to find the engine", async () => {
  for (const Stream of [EncryptionStream, DecryptionStream]) {
    for (const options of [{}, { pool }]) {
      const files = openFiles();
      const missing = { key: bytes(16), engine, ivPrefix: true, ...options };
      assertThrows(() => new Stream("newmode(aes)", missing), KcapiError);
      assertThrows(() => new Stream("ctr(aes)", { ...missing, key: bytes(5) }), RangeError, '"key" expected');
      assertEquals(openFiles(), files);
      const stream = new Stream("ctr(aes)", missing);
      assertEquals([Object.keys(stream), stream.engine], [["engine"], engine]);
      await stream.readable.cancel();
    }
  }
});

// ---- the ways out -----------------------------------------------------------------------------------------------

/**
 * A source that never ends, and counts how many of its kind are open. Behind the first 7 bytes, which are less than an
 * IV, come large chunks, or nothing if it `stays`.
 */
function endless(counts: { open: number }, stays: boolean): ReadableStream<Bytes> {
  let pulls = 0;
  counts.open++;
  return new ReadableStream<Bytes>({
    pull(controller) {
      if (stays && pulls > 0) return new Promise<void>(() => {});
      return controller.enqueue(new Uint8Array(pulls++ === 0 ? 7 : 20_000));
    },
    cancel: () => void counts.open--,
  }, { highWaterMark: 0 });
}

type Reader = Pick<ReadableStreamDefaultReader<Bytes>, "read" | "cancel">;

const WAITING = "while it waits for the IV";

const CLIENTS: Record<string, (reader: Reader) => Promise<unknown>> = {
  "before the IV": (reader) => reader.cancel(),
  "right after the IV": async (reader) => {
    await reader.read();
    await reader.cancel();
  },
  [WAITING]: async (reader) => {
    const first = reader.read();
    await turns(3); // the source has given all that it gives
    await reader.cancel();
    await first;
  },
  "after some data": async (reader) => {
    for (let i = 0; i < 3; i++) await reader.read();
    await reader.cancel();
  },
};

/** An iterable as a reader. */
function readerOf(iterable: AsyncIterableIterator<Bytes>): Reader {
  return { read: () => iterable.next() as never, cancel: () => iterable.return!() as never };
}

const OUTPUTS: Record<string, (task: Task, source: ReadableStream<Bytes>) => Reader> = {
  "a stream": (task, source) => source.pipeThrough(throughStream(task)).getReader(),
  "a stream with a pool": (task, source) => source.pipeThrough(throughStream(task, { pool })).getReader(),
  "a stream over a handle": (task, source) => source.pipeThrough(throughHandle(task)).getReader(),
  "an iterable": (task, source) => readerOf(throughIterable(task, source)),
  "an iterable with a pool": (task, source) => readerOf(throughIterable(task, source, { pool })),
};

/** A leak shows with few, and each of them opens descriptors in the kernel. */
const READERS = engine === "kernel" ? 8 : 50;

for (const direction of ["encrypt", "decrypt"] as const) {
  for (const [what, open] of Object.entries(OUTPUTS)) {
    for (const [when, leave] of Object.entries(CLIENTS)) {
      test(`${direction}, ${what}: ${READERS} readers that cancel ${when} leave no source and no descriptor open`, {
        sanitize: false,
      }, async () => {
        const counts = { open: 0 };
        const task = { direction, algorithm: "ctr(aes)", key: bytes(16), parameters: { ivPrefix: true } };
        const files = openFiles();
        for (let i = 0; i < READERS; i++) await leave(open(task, endless(counts, when === WAITING)));
        await turns(3);
        assertEquals(counts.open, 0);
        if (what.endsWith("a pool")) await until(() => openFiles() <= files, "the Workers have closed theirs");
        assertEquals(openFiles(), files);
      });
    }
  }
}

for (const direction of ["encrypt", "decrypt"] as const) {
  test(`${direction}: a signal ends the stream before, within and after the IV`, async () => {
    for (const written of [0, 7, 48]) {
      const controller = new AbortController();
      const parameters = { ivPrefix: true, signal: controller.signal };
      const files = openFiles();
      const stream = throughStream({ direction, algorithm: "ctr(aes)", key: bytes(16), parameters });
      const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
      const ended = [caught(writer.closed), caught(reader.closed)];
      if (written > 0) await writer.write(bytes(written));
      const hasOutput = written > (direction === "encrypt" ? 0 : 16);
      if (hasOutput) assertEquals((await reader.read()).value?.length, direction === "encrypt" ? 16 : 32);
      const reason = new Error("enough");
      controller.abort(reason);
      for (const error of await Promise.all(ended)) assertStrictEquals(error, reason);
      assertEquals(openFiles(), files);
    }
  });
}

test("an error of the source follows the IV, and a source that fails within the IV gives only its error", async () => {
  const failure = new Error("of the source");
  async function* failing(chunk: Bytes) {
    yield await Promise.resolve(chunk);
    throw failure;
  }
  const options = { key: bytes(16), engine, ivPrefix: true };
  const encrypted = encrypt("ctr(aes)", options, failing(bytes(32)));
  assertEquals((await encrypted.next()).value?.length, 16);
  assertEquals((await encrypted.next()).value?.length, 32);
  assertStrictEquals(await assertRejects(() => encrypted.next()), failure);
  const decrypted = decrypt("ctr(aes)", options, failing(bytes(9)));
  assertStrictEquals(await assertRejects(() => decrypted.next()), failure);
});

test("a chunk that is detached before the IV was read fails the stream and closes the cipher", async () => {
  const files = openFiles();
  const stream = new DecryptionStream("ctr(aes)", { key: bytes(16), engine, ivPrefix: true });
  const writer = stream.writable.getWriter();
  const chunk = bytes(20_000);
  const written = caught(writer.write(chunk));
  await turns(1); // the stream has it
  structuredClone(chunk, { transfer: [chunk.buffer] });
  await assertRejects(() => stream.readable.getReader().read(), TypeError, "A buffer was detached");
  assertInstanceOf(await written, TypeError);
  assertEquals(openFiles(), files);
});

test("small writes settle without a reader, also before the IV was read", async () => {
  for (const Stream of [EncryptionStream, DecryptionStream]) {
    const stream = new Stream("ctr(aes)", { key: bytes(16), engine, ivPrefix: true });
    const writer = stream.writable.getWriter();
    const [small, large] = await outcomes(writer.write(bytes(100)), writer.write(bytes(20_000)));
    assertEquals([small!.state, large!.state], ["fulfilled", "pending"]);
    caught(writer.closed);
    const reason = caught(writer.abort());
    await stream.readable.cancel().catch(() => {});
    await reason;
  }
});

test(
  "dropped streams that got no IV are released by garbage collection",
  { engine: "kernel" },
  async () => {
    const files = openFiles();
    const readables: WeakRef<ReadableStream>[] = [];
    for (const Stream of [EncryptionStream, DecryptionStream]) {
      for (let i = 0; i < 100; i++) {
        const stream = new Stream("ctr(aes)", { key: bytes(16), engine, ivPrefix: true });
        readables.push(new WeakRef(stream.readable));
        await stream.writable.getWriter().write(bytes(5));
      }
    }
    // A few of the last ones may still be seen from the stack. Each has 3 or 4 descriptors.
    const areFew = () => openFiles() <= files + 100;
    await collectGarbage(areFew);
    assert(areFew(), `${openFiles() - files} descriptors are left`);
    // In Deno, what is left when this file has ended would stay open until the process exits.
    for (const readable of readables) await readable.deref()?.cancel();
    await collectGarbage(() => openFiles() <= files);
    assertEquals(openFiles(), files);
  },
);

test("the pool is closed", { sanitize: false }, () => pool.close());
