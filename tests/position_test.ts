/**
 * The options `position` and `counterBits`, through each interface, with and without a pool.
 *
 * FC_SEED and FC_PATH repeat a run that failed; FC_RUNS is the number of runs of each test.
 */
import { createCipheriv } from "node:crypto";
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
  type StreamPosition,
} from "../mod.ts";
import { assert, assertEquals, assertStringIncludes, engine, runtime, seed, test, times } from "./support/deps.ts";
import { warm } from "./support/pool.ts";
import {
  type Bytes,
  bytes,
  caught,
  chacha20,
  collect,
  concat,
  cut,
  opens,
  streamOf,
  WINDOW,
} from "./support/support.ts";

const RUNS = Number(process.env.FC_RUNS ?? times(40, 300));

console.log(`position_test: seed ${seed}`);

const pool = await warm(2);

interface Task {
  algorithm: string;
  key: Bytes;
  iv: Bytes;
  start: StreamPosition;
}

type Options = Partial<CipherStreamOptions>;

async function throughHandle({ algorithm, key, iv, start }: Task, chunks: Iterable<Bytes>, room: number) {
  using handle = CipherHandle.open(algorithm, { key, engine });
  // The streams of a handle before and after it have no position.
  handle.streamInitDec(new Uint8Array(handle.ivSize), {});
  await handle.streamUpdateLast(new Uint8Array(16));
  const first = await collect(handle.streamOp());
  handle.streamInitEnc(iv, start);
  const produce = async () => {
    for (const chunk of chunks) await handle.streamUpdate(chunk);
    await handle.streamUpdateLast();
  };
  const producing = produce().catch((error) => handle.streamAbort(error));
  const pieces: Bytes[] = [];
  const into = new Uint8Array(Math.max(room, handle.chunkSize));
  for (let length = 1; length > 0;) {
    length = await handle.streamOpInto(into);
    pieces.push(into.slice(0, length));
  }
  await producing;
  handle.streamInitEnc(new Uint8Array(handle.ivSize));
  await handle.streamUpdateLast(new Uint8Array(16));
  assertEquals(await collect(handle.streamOp()), first, "the stream after it");
  return concat(pieces);
}

function throughStream({ algorithm, key, iv, start }: Task, chunks: Iterable<Bytes>, more: Options = {}) {
  return collect(streamOf(chunks).pipeThrough(new EncryptionStream(algorithm, { key, iv, ...start, engine, ...more })));
}

const WAYS: Record<string, (task: Task, chunks: Iterable<Bytes>) => Promise<Bytes>> = {
  "a stream": (task, chunks) => throughStream(task, chunks),
  "a stream in place": (task, chunks) =>
    throughStream(task, [...chunks].map((chunk) => chunk.slice()), { inPlace: true }),
  "a stream with a pool, in place": (task, chunks) =>
    throughStream(task, [...chunks].map((chunk) => chunk.slice()), { pool, inPlace: true }),
  "a stream with a pool": (task, chunks) => throughStream(task, chunks, { pool }),
  "an iterable": ({ algorithm, key, iv, start }, chunks) =>
    collect(decrypt(algorithm, { key, iv, ...start, engine }, chunks)),
  "an iterable with a pool": ({ algorithm, key, iv, start }, chunks) =>
    collect(encrypt(algorithm, { key, iv, ...start, engine, pool }, chunks)),
  "a stream over a handle": ({ algorithm, key, iv, start }, chunks) => {
    using handle = CipherHandle.open(algorithm, { key, engine });
    return collect(streamOf(chunks).pipeThrough(new DecryptionStream(handle, { iv, ...start })));
  },
  "a handle": (task, chunks) => throughHandle(task, chunks, 1000),
  "a handle with large buffers": (task, chunks) => throughHandle(task, chunks, 2 * WINDOW),
};

function thrown(action: () => unknown): unknown {
  try {
    action();
    return undefined;
  } catch (error) {
    return error;
  }
}

function xor(a: Bytes, b: Bytes): Bytes {
  return a.map((byte, i) => byte ^ b[i]!);
}

// ---- keystreams of others ---------------------------------------------------------------------------------------

/** Bytes of ctr's keystream from `position` on: block n is the encryption of the counter block, plus n. */
function ctr(cipher: string, key: Bytes, iv: Bytes, position: number, length: number, bits = 8 * iv.length): Bytes {
  const blockSize = iv.length;
  const skip = position % blockSize;
  const count = Math.ceil((skip + length) / blockSize);
  const start = BigInt(`0x${iv.toHex()}`);
  const mask = (1n << BigInt(bits)) - 1n;
  const blocks = new Uint8Array(count * blockSize);
  for (let i = 0; i < count; i++) {
    const counter = start & ~mask | (start + BigInt((position - skip) / blockSize + i)) & mask;
    const digits = counter.toString(16).padStart(2 * blockSize, "0").slice(-2 * blockSize);
    blocks.set(Uint8Array.fromHex(digits), i * blockSize);
  }
  const ecb = createCipheriv(cipher, key, null).setAutoPadding(false);
  return concat([ecb.update(blocks), ecb.final()]).slice(skip, skip + length);
}

function chacha(key: Bytes, iv: Bytes, position: number, length: number): Bytes {
  const first = iv.slice();
  const view = new DataView(first.buffer);
  view.setUint32(0, view.getUint32(0, true) + Math.floor(position / 64), true);
  const skip = position % 64;
  return chacha20(key, first, new Uint8Array(skip + length)).slice(skip);
}

interface Keystream {
  keySize: number;
  ivSize: number;
  /** The positions are below it. */
  end: number;
  bytes(key: Bytes, iv: Bytes, position: number, length: number): Bytes;
}

const KEYSTREAMS: Record<string, Keystream> = {
  "ctr(aes)": { keySize: 32, ivSize: 16, end: 2 ** 52, bytes: (...args) => ctr("aes-256-ecb", ...args) },
  "ctr(des3_ede)": { keySize: 24, ivSize: 8, end: 2 ** 52, bytes: (...args) => ctr("des-ede3", ...args) },
  chacha20: { keySize: 32, ivSize: 16, end: 2 ** 37, bytes: chacha },
  // RFC 3686: the key ends with a nonce, and the counter starts at 1. All of the keystream is one message.
  "rfc3686(ctr(aes))": {
    keySize: 20,
    ivSize: 8,
    end: 100_000,
    bytes: (key, iv, ...rest) =>
      ctr("aes-128-ecb", key.slice(0, 16), concat([key.slice(16), iv, Uint8Array.of(0, 0, 0, 1)]), ...rest),
  },
};

/** node:crypto of Deno has no cipher to compare with. */
const hasReference = (algorithm: string) => algorithm !== "ctr(des3_ede)" || runtime !== "deno";

const known = Object.entries(KEYSTREAMS).filter(([algorithm]) => opens(algorithm) && hasReference(algorithm));

function positionsBelow(end: number): fc.Arbitrary<number> {
  return fc.oneof(
    fc.nat({ max: 200 }),
    fc.nat({ max: 500_000 }),
    fc.double({ min: 0, max: 1, noNaN: true }).map((part) => Math.floor(part * end)),
  ).map((position) => Math.min(position, end - 1));
}

const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 100 }), fc.integer({ min: 1, max: 300_000 })), {
  minLength: 1,
  maxLength: 4,
});

for (const [algorithm, keystream] of known) {
  for (const [way, run] of Object.entries(WAYS)) {
    test(`${algorithm} starts at any position of the keystream through ${way}`, async () => {
      const length = fc.oneof(fc.nat({ max: 200 }), fc.nat({ max: algorithm.startsWith("rfc") ? 100_000 : 400_000 }));
      const cases = fc.record({ position: positionsBelow(keystream.end), length, sizes, seed: fc.nat() });
      await fc.assert(
        fc.asyncProperty(cases, async ({ position, length, sizes, seed }) => {
          const { keySize, ivSize } = keystream;
          const [key, iv, input] = [bytes(keySize, seed), bytes(ivSize, seed + 1), bytes(length, seed + 2)];
          if (algorithm === "chacha20") iv.fill(0, 0, 4);
          const output = await run({ algorithm, key, iv, start: { position } }, cut(input, sizes));
          assertEquals(output, xor(input, keystream.bytes(key, iv, position, length)));
        }),
        { seed, numRuns: Math.ceil(RUNS / 4), path: process.env.FC_PATH ?? "" },
      );
    });
  }

  test(`${algorithm} starts at each position of the first blocks, also with an empty stream`, async () => {
    const { keySize, ivSize } = keystream;
    const [key, iv, input] = [bytes(keySize), bytes(ivSize, 2), bytes(300)];
    const whole = await throughStream({ algorithm, key, iv, start: {} }, [input]);
    for (let position = 0; position <= 130; position += position < 35 ? 1 : 7) {
      const task = { algorithm, key, iv, start: { position } };
      assertEquals(await throughStream(task, cut(input.subarray(position), [7, 50])), whole.slice(position));
      assertEquals(await throughHandle(task, [input.subarray(position)], 64), whole.slice(position));
      assertEquals((await throughStream(task, [])).length, 0);
    }
    assertEquals((await throughHandle({ algorithm, key, iv, start: { position: 5 } }, [], 64)).length, 0);
  });
}

for (const algorithm of ["xchacha20", "xctr(aes)", "ctr(camellia)", "ctr-aes-generic"].filter(opens)) {
  test(`${algorithm}: a stream from a position on is the rest of the whole stream`, async () => {
    const [key, input] = [bytes(32), bytes(5000)];
    using handle = CipherHandle.open(algorithm, { key, engine });
    const iv = bytes(handle.ivSize, 3);
    if (algorithm === "xchacha20") iv.fill(0, 24, 28);
    const whole = await throughStream({ algorithm, key, iv, start: {} }, [input]);
    for (const [i, position] of [0, 1, 15, 16, 63, 64, 65, 1000, 4999, 5000].entries()) {
      const run = Object.values(WAYS)[i % Object.keys(WAYS).length]!;
      const task = { algorithm, key, iv, start: { position } };
      assertEquals(await run(task, cut(input.slice(position), [100])), whole.slice(position));
    }
  });
}

// ---- the counter's wrap -----------------------------------------------------------------------------------------

/** WebCrypto's AES-CTR, which has a `length` of the counter. */
async function webCrypto(key: Bytes, counter: Bytes, length: number, input: Bytes): Promise<Bytes> {
  const imported = await crypto.subtle.importKey("raw", key, "AES-CTR", false, ["encrypt"]);
  return new Uint8Array(await crypto.subtle.encrypt({ name: "AES-CTR", counter, length }, imported, input));
}

for (const [way, run] of Object.entries(WAYS)) {
  test(`ctr(aes) counts in 32, 64 or 128 bits as WebCrypto, across the wrap, through ${way}`, async () => {
    const cases = fc.record({
      counterBits: fc.constantFrom(32 as const, 64 as const, 128 as const),
      blocks: fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 20_000 })), // to the wrap
      position: fc.nat({ max: 1000 }),
      length: fc.oneof(fc.nat({ max: 1000 }), fc.nat({ max: 400_000 })),
      sizes,
      seed: fc.nat(),
    });
    await fc.assert(
      fc.asyncProperty(cases, async ({ counterBits, blocks, position, length, sizes, seed }) => {
        const [key, iv, input] = [bytes(16, seed), bytes(16, seed + 1), bytes(length, seed + 2)];
        const last = (1n << BigInt(counterBits)) - BigInt(blocks);
        iv.set(Uint8Array.fromHex(last.toString(16).padStart(counterBits / 4, "0")), 16 - counterBits / 8);
        const task = { algorithm: "ctr(aes)", key, iv, start: { position, counterBits } };
        const output = await run(task, cut(input, sizes));
        const whole = await webCrypto(key, iv, counterBits, concat([new Uint8Array(position), input]));
        assertEquals(output, whole.slice(position));
      }),
      { seed, numRuns: Math.ceil(RUNS / 2), path: process.env.FC_PATH ?? "" },
    );
  });

  test(`a counter of 32 bits is EOVERFLOW after 2^32 blocks, without a wrong byte, through ${way}`, async () => {
    const [key, iv, input] = [bytes(16), bytes(16, 2), bytes(40)];
    const start = { position: 2 ** 36 - 40, counterBits: 32 } as const;
    const task = { algorithm: "ctr(aes)", key, iv, start };
    const expected = xor(input, ctr("aes-128-ecb", key, iv, start.position, 40, 32));
    assertEquals(await run(task, cut(input, [7])), expected);
    assertEquals((await caught(run(task, [concat([input, Uint8Array.of(1)])])) as KcapiError).code, "EOVERFLOW");
  });
}

test("in place, an output ends at the wrap of the counter, and the next one follows it", async () => {
  const [key, iv, input] = [bytes(16), new Uint8Array(16).fill(255), bytes(WINDOW + 16)];
  const expected = await webCrypto(key, iv, 32, input);
  for (const more of [{ inPlace: true }, { inPlace: true, pool }]) {
    const task = { algorithm: "ctr(aes)", key, iv, start: { counterBits: 32 } } as const;
    assertEquals(await throughStream(task, [input.slice()], more), expected);
  }
});

test("with ivPrefix, a counter of 32 bits starts at 0, and WebCrypto reads the output", async () => {
  const [key, input] = [bytes(16), bytes(1000)];
  for (const more of [{}, { pool }]) {
    const options = { key, engine, ivPrefix: true, counterBits: 32, ...more } as const;
    const output = await collect(encrypt("ctr(aes)", options, input));
    assertEquals(output.slice(12, 16), new Uint8Array(4));
    assertEquals(await webCrypto(key, output.slice(0, 16), 32, output.slice(16)), input);
    assertEquals(await collect(decrypt("ctr(aes)", options, output)), input);
  }
});

test("with no counterBits, all bits of the IV are the counter", async () => {
  const [key, input] = [bytes(16), bytes(100)];
  const iv = new Uint8Array(16).fill(255);
  const cipher = createCipheriv("aes-128-ctr", key, iv);
  const whole = concat([cipher.update(input), cipher.final()]);
  for (const position of [0, 1, 15, 16, 17, 40]) {
    const output = await throughStream({ algorithm: "ctr(aes)", key, iv, start: { position } }, [
      input.slice(position),
    ]);
    assertEquals(output, whole.slice(position));
  }
});

for (const algorithm of ["chacha20", "xchacha20"].filter(opens)) {
  test(`${algorithm} refuses a position behind the end of its counter when the stream is made`, async () => {
    const key = bytes(32);
    const iv = new Uint8Array(algorithm === "chacha20" ? 16 : 32);
    using handle = CipherHandle.open(algorithm, { key, engine });
    for (const start of [{ position: 2 ** 38 }, { position: 2 ** 53 - 1 }]) {
      for (
        const make of [
          () => new EncryptionStream(algorithm, { key, iv, engine, ...start }),
          () => new EncryptionStream(algorithm, { key, iv, engine, pool, ...start }),
          () => handle.streamInitDec(iv, start),
        ]
      ) {
        const error = thrown(make);
        assert(error instanceof KcapiError && error.code === "EOVERFLOW", String(error));
      }
    }
    const last = { algorithm, key, iv, start: { position: 2 ** 38 - 10 } };
    assertEquals((await throughStream(last, [bytes(10)])).length, 10);
    assertEquals((await caught(throughStream(last, [bytes(11)])) as KcapiError).code, "EOVERFLOW");
  });
}

test("a position beyond what rfc3686 has in one message is EMSGSIZE", {
  needs: { "rfc3686(ctr(aes))": opens("rfc3686(ctr(aes))") },
}, async () => {
  const task = { algorithm: "rfc3686(ctr(aes))", key: bytes(20), iv: bytes(8), start: { position: WINDOW + 1 } };
  for (const run of Object.values(WAYS)) {
    assertEquals((await caught((async () => await run(task, []))()) as KcapiError).code, "EMSGSIZE");
    const start = { position: WINDOW - 10 };
    assertEquals((await run({ ...task, start }, [bytes(10)])).length, 10);
    assertEquals((await caught(run({ ...task, start }, [bytes(11)])) as KcapiError).code, "EMSGSIZE");
  }
});

// ---- refusals ---------------------------------------------------------------------------------------------------

const REFUSED: [algorithm: string, options: Record<string, unknown>, message: string][] = [
  ["ctr(aes)", { position: -1 }, '"position" expected an integer from 0 to 2^53 - 1, got -1'],
  ["ctr(aes)", { position: 1.5 }, '"position" expected an integer from 0 to 2^53 - 1, got 1.5'],
  ["ctr(aes)", { position: NaN }, '"position" expected an integer'],
  ["ctr(aes)", { position: 2 ** 53 }, '"position" expected an integer'],
  ["ctr(aes)", { position: 5n }, '"position" expected a number'],
  ["ctr(aes)", { position: "5" }, '"position" expected a number'],
  ["ctr(aes)", { position: null }, '"position" expected a number'],
  ["ctr(aes)", { counterBits: 31 }, '"counterBits" expected 32 or 64 or 128 for ctr(aes), got 31'],
  ["ctr(aes)", { counterBits: "32" }, '"counterBits" expected a number'],
  ["ctr(des3_ede)", { counterBits: 128 }, '"counterBits" expected 32 or 64 for ctr(des3_ede), got 128'],
  ["chacha20", { counterBits: 32 }, '"counterBits" is for ctr'],
  ["cbc(aes)", { position: 0 }, 'not for cbc(aes): give "sectorSize" and "sector"'],
  ["xts(aes)", { position: 16 }, 'not for xts(aes): give "sectorSize", and the first "sector"'],
  ["ofb(aes)", { position: 16 }, '"position" is for counter modes, such as ctr(aes) and chacha20, not for ofb(aes)'],
];

test("a wrong position or counter is an error that names the option, before anything is opened", {
  engine: "userspace",
}, () => {
  const keys: Record<string, number> = { "xts(aes)": 32, "ctr(des3_ede)": 24, chacha20: 32 };
  for (const [algorithm, options, message] of REFUSED) {
    const iv = new Uint8Array(algorithm === "ctr(des3_ede)" ? 8 : 16);
    const all = { key: bytes(keys[algorithm] ?? 16), iv, ...options };
    for (const make of [() => new EncryptionStream(algorithm, all), () => decrypt(algorithm, all, bytes(16))]) {
      const error = thrown(make);
      assert(error instanceof TypeError || error instanceof RangeError, String(error));
      assertStringIncludes(error.message, message);
    }
    if (!opens(algorithm)) continue;
    using handle = CipherHandle.open(algorithm, { key: all.key, engine });
    const error = thrown(() => handle.streamInitEnc(iv, options as StreamPosition));
    assertStringIncludes((error as Error).message, message);
  }
  const prefix = { key: bytes(16), ivPrefix: true, position: 0 };
  const error = thrown(() => new DecryptionStream("ctr(aes)", prefix));
  assertStringIncludes((error as Error).message, '"ivPrefix" expected no "position"');
});
