/**
 * openGcm(): ranges of a message of AES-GCM; objects as the AWS S3 encryption clients write them; sources that lie.
 *
 * FC_SEED and FC_PATH repeat a run that failed; FC_RUNS is the number of runs of each test.
 */
import { Buffer } from "node:buffer";
import { createCipheriv, createDecipheriv } from "node:crypto";
import process from "node:process";
import fc from "fast-check";
import { decrypt, encrypt, KcapiError, openGcm, type OpenGcmOptions, RangeReader, type RangeSource } from "../mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
  runtime,
  seed,
  test as anyTest,
  type TestBody,
  times,
} from "./support/deps.ts";
import { learningSource } from "./support/sealed_support.ts";
import { type Bytes, bytes, caught, collect, concat, fromHex, outcomes } from "./support/support.ts";

const RUNS = Number(process.env.FC_RUNS ?? times(60, 600));
console.log(`gcm_reader_test: seed ${seed}`);

const test = (name: string, body: TestBody) => anyTest(name, { engine: "userspace" }, body);

const SEGMENT = 65_536;
const KEY = bytes(32, 1);
const IV = bytes(12, 2);
const OPTIONS = { key: KEY, iv: IV, associatedData: bytes(5, 3) };
const PLAINTEXT = bytes(2_000_000, 4);

/** What node:crypto makes of a message, the tag at the end. */
function seal(plaintext: Bytes, key: Bytes, iv: Bytes, associatedData = new Uint8Array(0)): Bytes {
  const cipher = createCipheriv(`aes-${8 * key.length}-gcm` as "aes-256-gcm", key, iv);
  cipher.setAAD(associatedData);
  return concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

const MESSAGE = seal(PLAINTEXT, KEY, IV, OPTIONS.associatedData);

/** A source over bytes that notes what is read. */
function sourceOf(content: Bytes, reads: [start: number, end: number][] = []) {
  return {
    size: content.length,
    read(start: number, end: number) {
      reads.push([start, end]);
      return Promise.resolve(content.slice(start, end));
    },
  } satisfies RangeSource;
}

const SOURCES: Record<string, (content: Bytes) => Blob | RangeSource> = {
  "a Blob": (content) => new Blob([content]),
  "an object": sourceOf,
  "a source that learns its size": learningSource,
};

for (const [name, make] of Object.entries(SOURCES)) {
  test(`${name}: any range is the slice of the plaintext, and the stream is all of it`, async () => {
    using reader = await openGcm(make(MESSAGE), OPTIONS);
    assertInstanceOf(reader, RangeReader);
    assertEquals([reader.size, reader.engine], [PLAINTEXT.length, "userspace"]);
    assertEquals(await collect(reader.stream()), PLAINTEXT);
    const position = fc.oneof(
      fc.integer({ min: -PLAINTEXT.length - 5, max: PLAINTEXT.length + 5 }),
      fc.tuple(fc.integer({ min: 0, max: 31 }), fc.integer({ min: -17, max: 17 })).map(([i, by]) => i * SEGMENT + by),
    );
    await fc.assert(
      fc.asyncProperty(position, fc.option(position, { nil: undefined }), async (start, end) => {
        const expected = PLAINTEXT.slice(start, end);
        assertEquals(await reader.bytes(start, end), expected);
        assertEquals(await collect(reader.stream({ start, end })), expected);
      }),
      { numRuns: RUNS, seed, ...(process.env.FC_PATH && { path: process.env.FC_PATH }) },
    );
  });
}

test("each key, IV, tag and layout", async () => {
  for (const keySize of runtime === "deno" ? [16, 32] : [16, 24, 32]) {
    for (const ivSize of [1, 8, 12, 13, 16, 60, 128]) {
      for (const size of [0, 1, 16, SEGMENT, SEGMENT + 1, 300_000]) {
        const [key, iv, plaintext] = [bytes(keySize, 5), bytes(ivSize, 6), PLAINTEXT.slice(0, size)];
        const message = seal(plaintext, key, iv);
        const [ciphertext, tag] = [message.slice(0, size), message.slice(size)];
        const layouts: [content: Bytes, options: Partial<OpenGcmOptions>][] = [
          [message, {}],
          [concat([tag, ciphertext]), { tag: "start" }],
          [ciphertext, { tag }],
          [concat([ciphertext, tag.slice(0, 12)]), { tagSize: 12 }],
        ];
        for (const [content, options] of layouts) {
          using reader = await openGcm(new Blob([content]), { key, iv, ...options });
          assertEquals(await reader.bytes(), plaintext);
          assertEquals(await reader.bytes(-100, -3), plaintext.slice(-100, -3));
        }
      }
    }
  }
  for (const tag of ["start", "end"] as const) {
    const options = { key: KEY, ivPrefix: true, tag };
    const content = await collect(encrypt("gcm(aes)", options, PLAINTEXT));
    using reader = await openGcm(new Blob([content]), options);
    assertEquals(await reader.bytes(500_000, 700_000), PLAINTEXT.slice(500_000, 700_000));
  }
});

test("the block counter wraps in 32 bits, where an IV that has not 12 bytes lets it begin high", async () => {
  // Searched for: its first counter is so near to 2^32 that the message passes the wrap.
  const key = fromHex("000102030405060708090a0b0c0d0e0f");
  const ecb = (block: Uint8Array, direction: "encrypt" | "decrypt") => {
    const cipher = (direction === "encrypt" ? createCipheriv : createDecipheriv)("aes-128-ecb", key, null);
    cipher.setAutoPadding(false);
    return concat([cipher.update(block), cipher.final()]);
  };
  const blocks = 1 << 17;
  const plaintext = bytes(16 * blocks, 7);
  let found: { iv: Bytes; counter: number } | undefined;
  for (let i = 0; !found; i++) {
    const iv = new Uint8Array(Buffer.from(`iv of sixteen ${i}`));
    const cipher = createCipheriv("aes-128-gcm", key, iv);
    const counter = new DataView(ecb(cipher.update(new Uint8Array(16)), "decrypt").buffer).getUint32(12);
    cipher.final();
    if (2 ** 32 - counter < blocks) found = { iv, counter };
  }
  using reader = await openGcm(new Blob([seal(plaintext, key, found.iv)]), { key, iv: found.iv });
  const wrap = 16 * (2 ** 32 - found.counter);
  assert(wrap < plaintext.length);
  assertEquals(await reader.bytes(wrap - 100, wrap + 100), plaintext.slice(wrap - 100, wrap + 100));
  assertEquals(await collect(reader.stream()), plaintext);
});

// ---- objects of the AWS S3 encryption clients ---------------------------------------------------------------------

/**
 * The clients for AES/GCM/NoPadding (V2, V3) write ciphertext and tag as the body, and the IV of 12 bytes as
 * x-amz-iv in the metadata, with x-amz-tag-len. They read ranges as CTR from the block counter.
 */
function s3Object(plaintext: Bytes) {
  const [key, iv] = [bytes(32, 11), bytes(12, 12)];
  const metadata = {
    "x-amz-iv": Buffer.from(iv).toString("base64"),
    "x-amz-cek-alg": "AES/GCM/NoPadding",
    "x-amz-tag-len": "128",
    "x-amz-unencrypted-content-length": String(plaintext.length),
  };
  return { key, metadata, body: seal(plaintext, key, iv) };
}

test("an object of the AWS S3 encryption client: all of it, ranges, and the range that the client reads", async () => {
  const { key, metadata, body } = s3Object(PLAINTEXT);
  const iv = new Uint8Array(Buffer.from(metadata["x-amz-iv"], "base64"));
  const options = { key, iv, tagSize: Number(metadata["x-amz-tag-len"]) / 8 };
  assertEquals(await collect(decrypt("gcm(aes)", options, body)), PLAINTEXT);
  assertEquals(await collect(encrypt("gcm(aes)", options, PLAINTEXT)), body);
  using reader = await openGcm(new Blob([body]), options);
  assertEquals(reader.size, Number(metadata["x-amz-unencrypted-content-length"]));
  for (const [start, end] of [[0, 1], [15, 17], [1_000_000, 1_000_016], [1_999_999, 2_000_000]] as const) {
    assertEquals(await reader.bytes(start, end), PLAINTEXT.slice(start, end));
    // As the client: whole blocks around the range, as CTR from IV | 2 + the number of the block, unverified.
    const block = Math.floor(start / 16);
    const counter = new Uint8Array([...iv, 0, 0, 0, 0]);
    new DataView(counter.buffer).setUint32(12, 2 + block);
    const part = body.slice(16 * block, Math.min(16 * Math.ceil(end / 16), PLAINTEXT.length));
    const output = await collect(decrypt("ctr(aes)", { key, iv: counter }, part));
    assertEquals(output.slice(start - 16 * block, end - 16 * block), PLAINTEXT.slice(start, end));
  }
});

// ---- what is not authentic ----------------------------------------------------------------------------------------

test("what is changed, cut or longer does not open", async () => {
  const message = seal(bytes(100, 8), KEY, IV);
  const bad = [
    ...Array.from({ length: message.length }, (_, i) => message.map((byte, j) => j === i ? byte ^ 1 << i % 8 : byte)),
    ...Array.from({ length: message.length }, (_, i) => message.slice(0, i)),
    concat([message, bytes(1)]),
    concat([MESSAGE.subarray(0, SEGMENT), MESSAGE.subarray(2 * SEGMENT)]),
    MESSAGE.map((byte, i) => i === 1_500_000 ? byte ^ 1 : byte),
  ];
  for (const content of bad) {
    const options = content.length > 1000 ? OPTIONS : { key: KEY, iv: IV };
    const error = await caught(openGcm(sourceOf(content), options));
    assertInstanceOf(error, KcapiError);
    assertEquals([error.code, error.operation], ["EBADMSG", "decrypt"]);
  }
  for (
    const options of [{ key: bytes(32, 99) }, { iv: bytes(12, 9) }, { associatedData: undefined }, {
      tag: bytes(16, 99),
    }]
  ) {
    assertEquals(
      ((await caught(openGcm(new Blob([MESSAGE]), { ...OPTIONS, ...options }))) as KcapiError).code,
      "EBADMSG",
    );
  }
});

test("a source that changes after it was verified gives nothing of what has changed", async () => {
  const content = MESSAGE.slice();
  using reader = await openGcm(sourceOf(content), OPTIONS);
  const at = 20 * SEGMENT + 77;
  content[at]! ^= 1;
  assertEquals(await reader.bytes(0, 20 * SEGMENT), PLAINTEXT.slice(0, 20 * SEGMENT));
  for (const [start, end] of [[at, at + 1], [20 * SEGMENT, 20 * SEGMENT + 1], [0, undefined]] as const) {
    const error = await caught(reader.bytes(start, end));
    assertInstanceOf(error, KcapiError);
    assertEquals(error.code, "EBADMSG");
    assertStringIncludes(error.message, "has changed since it was verified");
  }
  const pieces: Bytes[] = [];
  const error = await caught((async () => {
    for await (const piece of reader.stream()) pieces.push(piece);
  })());
  assertEquals((error as KcapiError).code, "EBADMSG");
  assertEquals(concat(pieces), PLAINTEXT.slice(0, 20 * SEGMENT));
  content[at]! ^= 1;
  assertEquals(await reader.bytes(), PLAINTEXT);
});

test("a source that gives other bytes, another size, nothing or an error is told as that", async () => {
  const lies: [lie: (start: number, end: number) => unknown, code: string | undefined, text: string][] = [
    [(start, end) => MESSAGE.slice(start, end - 1), "EIO", "was asked for"],
    [(start, end) => MESSAGE.slice(start, end + 1).slice(0, end - start + 1), "EIO", "was asked for"],
    [() => undefined, undefined, '"source" expected'],
    [() => "text", undefined, '"source" expected'],
    [() => Promise.reject(new Error("the disk is gone")), undefined, "the disk is gone"],
  ];
  for (const [lie, code, text] of lies) {
    for (const after of [0, 1, 1_000_000]) {
      const source = {
        size: MESSAGE.length,
        read: (start: number, end: number) =>
          Promise.resolve(start >= after && start < PLAINTEXT.length ? lie(start, end) : MESSAGE.slice(start, end)),
      } as RangeSource;
      const error = await caught(openGcm(source, OPTIONS)) as KcapiError;
      assertStringIncludes(error.message, text);
      if (code) assertEquals(error.code, code);
    }
  }
  const source = { ...sourceOf(MESSAGE), size: MESSAGE.length as number };
  const shrinking = {
    ...source,
    get size() {
      return source.size;
    },
  };
  using reader = await openGcm(shrinking, OPTIONS);
  source.size--;
  assertEquals(((await caught(reader.bytes(0, 1))) as KcapiError).code, "EIO");
  for (const size of [Number.NaN, -1, Infinity, "5", undefined]) {
    await assertRejects(() => openGcm({ ...source, size } as unknown as RangeSource, OPTIONS), TypeError, '"source"');
  }
  await assertRejects(() => openGcm("text" as unknown as Blob, OPTIONS), TypeError, '"source" expected a Blob');
});

test("a message that is too long for GCM is refused before it is read", async () => {
  const reads: [number, number][] = [];
  const source = { ...sourceOf(MESSAGE, reads), size: 2 ** 36 - 32 + 17 };
  assertEquals(((await caught(openGcm(source, OPTIONS))) as KcapiError).code, "EOVERFLOW");
  assertEquals(reads.length, 0);
});

// ---- use ----------------------------------------------------------------------------------------------------------

test("the message is read once to be verified, and of a range only its segments", async () => {
  const reads: [number, number][] = [];
  using reader = await openGcm(sourceOf(MESSAGE, reads), OPTIONS);
  assertEquals(reads.reduce((sum, [start, end]) => sum + end - start, 0), MESSAGE.length);
  reads.length = 0;
  await reader.bytes(100_000, 100_010);
  assertEquals(reads, [[SEGMENT, 2 * SEGMENT]]);
  await reader.bytes(5, 5);
  assertEquals(reads.length, 1);
});

test("readSize and readAhead say how the message is verified; and no read is empty", async () => {
  for (const [readSize, readAhead] of [[1, 0], [SEGMENT, 1], [200_000, 3], [1 << 30, 0]] as const) {
    const reads: [number, number][] = [];
    let underWay = 0, most = 0;
    const source = sourceOf(MESSAGE, reads);
    const slow = {
      size: source.size,
      async read(start: number, end: number) {
        most = Math.max(most, ++underWay);
        await new Promise((resolve) => setTimeout(resolve, 1));
        underWay--;
        return await source.read(start, end);
      },
    };
    using reader = await openGcm(slow, { ...OPTIONS, readSize, readAhead });
    const step = Math.max(SEGMENT, Math.floor(readSize / SEGMENT) * SEGMENT);
    assertEquals(reads.length, 1 + Math.ceil(PLAINTEXT.length / step));
    assertEquals(most, Math.min(readAhead + 1, reads.length - 1));
    assertEquals(await reader.bytes(5, 1_000_000), PLAINTEXT.slice(5, 1_000_000));
  }
  for (const options of [{ tag: bytes(16) }, { ivPrefix: true, tag: "start" }, { ivPrefix: true }] as const) {
    const reads: [number, number][] = [];
    const { key, associatedData } = OPTIONS;
    const iv = "ivPrefix" in options ? {} : { iv: IV };
    await caught(openGcm(sourceOf(MESSAGE, reads), { key, associatedData, ...iv, ...options }));
    assertEquals(reads.filter(([start, end]) => start >= end), []);
  }
});

test("many reads at once", async () => {
  using reader = await openGcm(new Blob([MESSAGE]), OPTIONS);
  const starts = Array.from({ length: 20 }, (_, i) => 90_001 * i);
  const ranges = await Promise.all(starts.map((start) => reader.bytes(start, start + 100_000)));
  for (const [i, start] of starts.entries()) assertEquals(ranges[i]!, PLAINTEXT.slice(start, start + 100_000));
});

test("a signal and close() end what is under way; a source that never answers is left", async () => {
  const never = { size: MESSAGE.length, read: () => new Promise<Bytes>(() => {}) };
  const abort = new AbortController();
  const opening = openGcm(never, { ...OPTIONS, signal: abort.signal });
  opening.catch(() => {});
  assertEquals((await outcomes(opening))[0]!.state, "pending");
  const reason = new Error("left");
  abort.abort(reason);
  assertEquals(await caught(opening), reason);

  const unknown = { size: undefined, read: never.read, readEnds: () => new Promise<never>(() => {}) };
  const second = new AbortController();
  const learning = openGcm(unknown, { ...OPTIONS, signal: second.signal });
  learning.catch(() => {});
  second.abort(reason);
  assertEquals(await caught(learning), reason);

  let answers = true;
  const content = sourceOf(MESSAGE);
  const reader = await openGcm({
    size: content.size,
    read: (start, end) => answers ? content.read(start, end) : new Promise<Bytes>(() => {}),
  }, OPTIONS);
  answers = false;
  const reading = reader.bytes();
  reading.catch(() => {});
  reader.close();
  assertEquals(((await caught(reading)) as KcapiError).code, "ECANCELED");
  assertEquals(((await caught(reader.bytes(0, 1))) as KcapiError).code, "EBADF");
  reader.close();
});

test("verifying gives the event loop its turns", async () => {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  try {
    const source = {
      size: 30 << 20,
      read: (start: number, end: number) => Promise.resolve(new Uint8Array(end - start)),
    };
    await caught(openGcm(source, OPTIONS));
    assert(ticks >= 2, `${ticks}`);
  } finally {
    clearInterval(timer);
  }
});

test("bad options are refused by name", async () => {
  const cases: [options: object, error: typeof TypeError | typeof RangeError, text: string][] = [
    [{ key: bytes(5) }, RangeError, '"key"'],
    [{ iv: undefined }, TypeError, '"iv"'],
    [{ iv: new Uint8Array(0) }, RangeError, '"iv"'],
    [{ ivPrefix: true }, TypeError, '"ivPrefix"'],
    [{ tag: "detached" }, TypeError, '"tag"'],
    [{ tagSize: 3 }, RangeError, '"tagSize"'],
    [{ engine: "kernel" }, TypeError, '"engine"'],
    [{ engine: "webcrypto" }, TypeError, '"engine"'],
    [{ maxSize: 5 }, TypeError, '"options" has no option "maxSize"'],
    [{ releaseUnverified: true }, TypeError, "releaseUnverified"],
    [{ signal: 5 }, TypeError, '"signal"'],
    [{ readSize: 0 }, RangeError, '"readSize"'],
    [{ readAhead: "1" }, TypeError, '"readAhead"'],
    [{ allowDamage: true }, TypeError, "allowDamage"],
  ];
  for (const [options, error, text] of cases) {
    await assertRejects(() => openGcm(new Blob([MESSAGE]), { ...OPTIONS, ...options } as OpenGcmOptions), error, text);
  }
  await assertRejects(
    () => openGcm(new Blob([MESSAGE]), undefined as unknown as OpenGcmOptions),
    TypeError,
    '"options"',
  );
  assertThrows(() => new RangeReader(Symbol("construct"), undefined as never), TypeError, "openGcm()");
});
