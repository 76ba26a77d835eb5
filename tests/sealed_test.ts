/**
 * Sealed streams: Tink's vectors, every chunk size and boundary, every kind of damage, and every way to end a stream.
 *
 * FC_SEED repeats a run; KCAPI_TEST_RUNS is the number of random files.
 */
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setImmediate } from "node:timers";
import { fileURLToPath } from "node:url";
import fc from "fast-check";
import {
  type BytesLike,
  KcapiError,
  openSealed,
  seal,
  type SealedFormat,
  type SealedParameters,
  sealedSize,
  type SealOptions,
  SealStream,
  unseal,
  unsealedSize,
  UnsealStream,
} from "../mod.ts";
import type { Calls } from "../ffi/adapter.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { sealFactory, sealRule } from "../src/sealed/batches.ts";
import { deriveKeys, openSegmentCipher } from "../src/sealed/segment_cipher.ts";
import { BatchTransform } from "../src/executors/batch_transform.ts";
import { TransformIterator } from "../src/streams/iterate.ts";
import { openerOf } from "../src/streams/source.ts";
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
  runtime,
  spawn,
  tempDir,
  times,
} from "./support/deps.ts";
import { interpose } from "./support/native_calls.ts";
import { contractOf } from "./support/pool.ts";
import { type Bytes, bytes, caught, collect, concat, cut, fromHex, streamOf } from "./support/support.ts";

const { test, once, alone, pool, turns, outcomes, assertReleased } = await contractOf(import.meta.url);

const RUNS = Number(process.env.KCAPI_TEST_RUNS ?? (pool ? times(20, 50) : times(60, 200)));
const SEED = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));
console.log(`sealed_test: seed ${SEED}`);

const KEY = bytes(32, 61);
const NAME = new TextEncoder().encode("a name");

/** A small format, so that files of a few segments are short: plaintext 63 bytes in the first segment, then 96 each. */
const SMALL: SealedParameters = {
  cipher: "AES-CTR-HMAC",
  keySize: 16,
  hkdfHash: "SHA-256",
  macHash: "SHA-256",
  tagSize: 32,
  segmentSize: 128,
};
const HEADER = 24;
const TAG = 32;
const STRIDE = 96;
const FIRST = STRIDE - HEADER;
const SMALL_GCM: SealedParameters = { cipher: "AES-GCM-HKDF", keySize: 16, hkdfHash: "SHA-256", segmentSize: 112 };
const FORMATS = { "AES-CTR-HMAC": SMALL, "AES-GCM-HKDF": SMALL_GCM };

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  const isGcm = typeof format === "string" ? format.includes("GCM") : format.cipher === "AES-GCM-HKDF";
  return { key: KEY, associatedData: NAME, format, engine: isGcm ? "auto" : engine, pool };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));
const opened = (input: BytesLike, options = optionsOf()) => collect(unseal(options, input));

/** Expects a KcapiError EBADMSG with the one message. In Node, a Blob adds a hint, which is always the same. */
async function refused(promise: Promise<unknown>, detail = DETAIL): Promise<void> {
  const error = await assertRejects(() => promise, KcapiError);
  assertEquals([error.code, error.operation, error.detail], ["EBADMSG", "unseal", detail]);
  if (error.hint !== undefined) assertEquals([runtime, error.hint.includes("openAsBlob")], ["node", true]);
  assertEquals(error.message, `unseal: ${detail} (EBADMSG)${error.hint === undefined ? "" : `: ${error.hint}`}`);
}
const DETAIL = "the sealed data is damaged or truncated, or the key or the associated data is wrong";
/** The message of `openSealed()` for an empty source, whose size it knows. */
const EMPTY = "the source is empty: its size is 0";

// ---- Tink's vectors ---------------------------------------------------------------------------------------------

interface Vector {
  name: string;
  format: SealedParameters["cipher"];
  keySize: 16 | 32;
  hkdfHash: SealedParameters["hkdfHash"];
  macHash?: SealedParameters["hkdfHash"];
  tagSize: number;
  segmentSize: number;
  ikm: string;
  associatedData: string;
  plaintextLength: number;
  salt: string;
  noncePrefix: string;
  ciphertextLength: number;
  ciphertextSHA256: string;
  ciphertext?: string;
  refused?: boolean;
}

const VECTORS: Vector[] = JSON.parse(readFileSync(new URL("fixtures/tink_vectors.json", import.meta.url), "utf8"));

function optionsOfVector(vector: Vector): SealOptions {
  const { format: cipher, keySize, hkdfHash, macHash, tagSize, segmentSize, ikm, associatedData } = vector;
  return {
    key: fromHex(ikm),
    associatedData: fromHex(associatedData),
    format: { cipher, keySize, hkdfHash, macHash, tagSize, segmentSize },
    engine: cipher === "AES-GCM-HKDF" ? "auto" : engine,
    pool,
  };
}

function plaintextOf(length: number): Bytes {
  return new Uint8Array(length).map((_, i) => 7 * i + 13 * Math.floor(i / 2 ** 8) + 29 * Math.floor(i / 2 ** 16));
}

/** Seals with a given salt, which only internal functions accept. */
function sealedAs({ salt, noncePrefix }: Vector, options: SealOptions, input: Bytes): Promise<Bytes> {
  const prepared = sealFactory(checkSealOptions(options), { salt: fromHex(salt), prefix: fromHex(noncePrefix) });
  return collect(new TransformIterator(prepared, openerOf(cut(input, [1, 100_000, 17]))));
}

for (const vector of VECTORS.filter(({ refused }) => !refused)) {
  test(`Tink's vector, byte for byte: ${vector.name}`, async () => {
    const options = optionsOfVector(vector);
    const { plaintextLength, ciphertextLength, ciphertextSHA256, ciphertext } = vector;
    const plaintext = plaintextOf(plaintextLength);
    const file = await sealedAs(vector, options, plaintext);
    if (ciphertext) assertEquals(file, fromHex(ciphertext));
    assertEquals(file.length, ciphertextLength);
    assertEquals(createHash("sha256").update(file).digest("hex"), ciphertextSHA256);
    assertEquals(sealedSize(plaintextLength, options.format), ciphertextLength);
    assertEquals(unsealedSize(ciphertextLength, options.format), plaintextLength);
    assertEquals(await opened(file, options), plaintext);
    assertEquals(await collect(streamOf(cut(file, [999])).pipeThrough(new UnsealStream(options))), plaintext);
    using open = await openSealed(new Blob([file]), options);
    assertEquals(await open.bytes(), plaintext);
  });
}

for (const vector of VECTORS.filter(({ refused }) => refused)) {
  test(`a vector that Tink rejects is EBADMSG: ${vector.name}`, async () => {
    const options = optionsOfVector(vector);
    const file = fromHex(vector.ciphertext!);
    await refused(opened(file, options));
    await refused(collect(streamOf(cut(file, [1])).pipeThrough(new UnsealStream(options))));
    await refused(
      (async () => {
        using open = await openSealed(new Blob([file]), options);
        await open.bytes();
      })(),
      file.length === 0 ? EMPTY : DETAIL,
    );
  });
}

// ---- Same bytes -------------------------------------------------------------------------------------------------

const NAMES = ["CTR_HMAC_SHA256", "GCM_HKDF"].flatMap((cipher) =>
  [128, 256].flatMap((bits) => ["4KB", "64KB", "1MB"].map((size) => `AES${bits}_${cipher}_${size}` as SealedFormat))
);

for (const format of NAMES) {
  test(`${format} seals and unseals, and sealedSize() and unsealedSize() are right`, async () => {
    const options = optionsOf(format);
    for (const length of [0, 1, 5_000, 200_000]) {
      const input = bytes(length);
      const file = await sealed(input, options);
      assertEquals(file.length, sealedSize(length, format));
      assertEquals(unsealedSize(file.length, format), length);
      assertEquals(await opened(file, options), input);
    }
  });
}

for (const [name, format] of Object.entries(FORMATS)) {
  const options = optionsOf(format);

  test(`${name}: lengths at every boundary, in chunks of every size, through every API`, async () => {
    const boundaries = [0, FIRST, FIRST + STRIDE, FIRST + 2 * STRIDE, FIRST + 5 * STRIDE];
    for (const length of boundaries.flatMap((n) => [n - 1, n, n + 1]).filter((n) => n >= 0)) {
      const input = bytes(length);
      for (
        const sizes of pool ? [[FIRST, STRIDE], [7, 300]] : [[1], [STRIDE], [FIRST, STRIDE], [7, 300], [10_000]]
      ) {
        const file = await collect(seal(options, cut(input, sizes)));
        assertEquals(file.length, sealedSize(length, format), `${length}`);
        for (const fileSizes of pool ? [[1], [128]] : [[1], [128], [HEADER, 104, 128], [10_000]]) {
          assertEquals(await collect(unseal(options, cut(file, fileSizes))), input, `${length} in ${fileSizes}`);
        }
        const streamed = streamOf(cut(input, sizes)).pipeThrough(new SealStream(options));
        assertEquals(await collect(streamed.pipeThrough(new UnsealStream(options))), input);
      }
    }
  });

  test(`${name}: inPlace gives the same bytes`, async () => {
    const input = bytes(1000);
    const inPlace = { ...options, inPlace: true };
    for (const sizes of [[1000], [100], [1]]) {
      const file = await collect(seal(inPlace, cut(input.slice(), sizes, { copied: true })));
      assertEquals(await collect(unseal(inPlace, cut(file, [10_000], { copied: true }))), input);
      assertEquals(await collect(unseal(inPlace, cut(file, [77], { copied: true }))), input);
    }
  });

  test(`${name}: without inPlace chunks do not change`, async () => {
    const input = bytes(1000);
    const chunk = input.slice();
    const file = await collect(streamOf([chunk]).pipeThrough(new SealStream(options)));
    assertEquals(chunk, input);
    const copy = file.slice();
    assertEquals(await collect(streamOf([copy]).pipeThrough(new UnsealStream(options))), input);
    assertEquals(copy, file);
  });
}

for (const [name, format] of Object.entries(FORMATS)) {
  test(`${name}: a chunk may be reused when its write() has settled`, async () => {
    for (const size of [1, 2, 20].map((segments) => segments * 112 * 200 + 50)) {
      const options = optionsOf({ ...format, segmentSize: 112 * 200 });
      const stream = new SealStream(options);
      const output = new Response(stream.readable).bytes();
      const writer = stream.writable.getWriter();
      const input = bytes(3 * size, 5);
      const chunk = new Uint8Array(size);
      for (let at = 0; at < input.length; at += size) {
        await turns(1); // the reader has asked
        chunk.set(input.subarray(at, at + size));
        await writer.write(chunk);
        chunk.fill(0);
      }
      await writer.close();
      assertEquals(await opened(await output, options), input);
    }
  });
}

test("AES-GCM-HKDF accepts all six parameters, and ignores macHash", async () => {
  const whole: SealedParameters = { ...SMALL_GCM, macHash: "SHA-512", tagSize: 16 };
  const file = await sealed(bytes(300), optionsOf(whole));
  assertEquals(await opened(file, optionsOf(SMALL_GCM)), bytes(300));
  assertEquals(sealedSize(300, whole), sealedSize(300, SMALL_GCM));
});

test("each stream has its own salt and nonce prefix", async () => {
  const headers = new Set<string>();
  for (let i = 0; i < 20; i++) headers.add((await sealed(bytes(1))).subarray(0, HEADER).join());
  assertEquals(headers.size, 20);
});

test("associated data of any length is authenticated, and omitted data equals empty data", async () => {
  for (const length of [0, 1, 1024, 1025, 100_000]) {
    const options = { ...optionsOf(), associatedData: bytes(length) };
    const file = await sealed(bytes(10), options);
    assertEquals(await opened(file, options), bytes(10));
    await refused(opened(file, { ...options, associatedData: bytes(length + 1) }));
  }
  const { associatedData: _, ...without } = optionsOf();
  assertEquals(
    await opened(await sealed(bytes(9), without), { ...without, associatedData: new Uint8Array(0) }),
    bytes(9),
  );
});

const hasPython = await spawn(["python3", "-c", ""]).then(({ code }) => code === 0, () => false);

const reading = hasPython && engine === "userspace";
(reading ? once : test.if(false, "needs python3, and runs on the userspace engine"))(
  "a reader in Python, written from the specification of the format, opens sealed files",
  async () => {
    const directory = tempDir();
    const reader = fileURLToPath(new URL("native/sealed_reader.py", import.meta.url));
    writeFileSync(join(directory, "key"), KEY);
    writeFileSync(join(directory, "name"), NAME);
    const named = { keySize: 32, tagSize: 32, segmentSize: 4096 };
    // A process starts slowly on the test kernel, and the reader starts one for each segment.
    const cases = [[SMALL, FIRST + STRIDE], [SMALL, 0], ["AES256_CTR_HMAC_SHA256_4KB", 10_000]] as const;
    for (const [format, length] of cases.slice(0, engine === "kernel" ? 1 : undefined)) {
      const { keySize, tagSize, segmentSize } = typeof format === "string" ? named : format;
      const numbers = [keySize, tagSize, segmentSize].map(String);
      const command = ["python3", reader, join(directory, "key"), join(directory, "name"), ...numbers];
      const file = await sealed(bytes(length), optionsOf(format));
      const { code, output, stderr } = await spawn(command, { input: file });
      assertEquals(code, 0, stderr);
      assertEquals(new Uint8Array(output), bytes(length));
      file[file.length - 1]! ^= 1;
      assertEquals((await spawn(command, { input: file })).code, 1);
    }
  },
);

// ---- Damage -----------------------------------------------------------------------------------------------------

/** Every kind of damage to a file and its segments. */
const DAMAGES: Record<string, (file: Bytes, segments: Bytes[], at: number) => Bytes> = {
  "a bit is flipped": (file, _, at) => file.map((byte, i) => i === at % file.length ? byte ^ (1 << at % 8) : byte),
  "it is truncated": (file, _, at) => file.slice(0, at % file.length),
  "a byte is missing": (file, _, at) => concat([file.slice(0, at % file.length), file.slice(at % file.length + 1)]),
  "a byte is added": (file, _, at) =>
    concat([file.slice(0, at % (file.length + 1)), bytes(1), file.slice(at % (file.length + 1))]),
  "a segment is missing": (file, segments, at) =>
    concat([file.slice(0, HEADER), ...segments.filter((_, i) => i !== at % segments.length)]),
  "a segment is repeated": (file, segments, at) =>
    concat([
      file.slice(0, HEADER),
      ...segments.flatMap((segment, i) => i === at % segments.length ? [segment, segment] : [segment]),
    ]),
  "two segments are swapped": (file, segments, at) => {
    const swapped = [...segments];
    const i = at % segments.length, j = (i + 1) % segments.length;
    [swapped[i], swapped[j]] = [segments[j]!, segments[i]!];
    return concat([file.slice(0, HEADER), ...swapped]);
  },
  "nothing is left": () => new Uint8Array(0),
};

const damage = fc.record({
  what: fc.constantFrom(...Object.keys(DAMAGES)),
  length: fc.nat(5 * STRIDE),
  at: fc.nat(1_000_000),
  sizes: fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 4 }),
  format: fc.constantFrom("AES-CTR-HMAC", "AES-GCM-HKDF") as fc.Arbitrary<keyof typeof FORMATS>,
});

test(`every damage to a file is EBADMSG, and the output before is a prefix of the plaintext (${RUNS} files, seed ${SEED})`, async () => {
  await fc.assert(
    fc.asyncProperty(damage, async ({ what, length, at, sizes, format }) => {
      const options = optionsOf(FORMATS[format]);
      const { segmentSize } = FORMATS[format];
      const input = bytes(length);
      const file = await sealed(input, options);
      const segments = [
        file.slice(HEADER, segmentSize),
        ...cut(file.slice(segmentSize), [segmentSize], { copied: true }),
      ];
      const damaged = DAMAGES[what]!(file, segments, at);
      if (concat([damaged]).join() === file.join()) return;
      const pieces: Bytes[] = [];
      await refused((async () => {
        for await (const piece of unseal(options, cut(damaged, sizes))) pieces.push(piece);
      })());
      const before = concat(pieces);
      assertEquals(before, input.slice(0, before.length));
      await refused(
        (async () => {
          using open = await openSealed(new Blob([damaged]), options);
          assertEquals(open.size, unsealedSize(damaged.length, FORMATS[format]));
          await open.bytes();
        })(),
        damaged.length === 0 ? EMPTY : DETAIL,
      );
    }),
    { numRuns: RUNS, seed: SEED },
  );
});

test("a wrong key, wrong associated data and a wrong format give the same EBADMSG", async () => {
  const file = await sealed(bytes(500));
  const others: Partial<SealOptions>[] = [
    { key: bytes(32, 62) },
    { key: bytes(16, 61) },
    { associatedData: bytes(6) },
    { format: { ...SMALL, tagSize: 31 } },
    { format: { ...SMALL, segmentSize: 129 } },
    { format: { ...SMALL, hkdfHash: "SHA-512" } },
    { format: { ...SMALL, macHash: "SHA-1", tagSize: 20 } },
    { format: { ...SMALL, keySize: 32 } },
    { format: SMALL_GCM, engine: "auto" },
  ];
  for (const other of others) {
    await refused(opened(file, { ...optionsOf(), ...other }));
    await refused(openSealed(new Blob([file]), { ...optionsOf(), ...other }));
  }
});

test("a stream with a bad header outputs nothing more", async () => {
  const file = await sealed(bytes(500));
  const iterable = unseal(optionsOf(), [Uint8Array.of(file[0]! ^ 1, ...file.subarray(1)), file]);
  await refused(iterable.next());
  assertEquals(await iterable.next(), { done: true, value: undefined });
  const stream = new UnsealStream(optionsOf());
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  const read = caught(reader.read());
  await caught(writer.write(new Uint8Array(100)));
  const again = caught(writer.closed); // the write itself may only have been buffered
  const error = await read;
  assertEquals((error as KcapiError).code, "EBADMSG");
  assertStrictEquals(await again, error);
  assertStrictEquals(await caught(reader.read()), error);
});

test("a segment is output only when all of it has arrived and is verified", async () => {
  const file = await sealed(bytes(FIRST + STRIDE));
  const stream = new UnsealStream(optionsOf());
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  const first = reader.read();
  await writer.write(file.slice(0, 127));
  await turns(3);
  assertEquals((await outcomes(first))[0]!.state, "pending");
  // A pool gets a segment when more input shows that it is not the last one.
  const enough = pool ? 129 : 128;
  await writer.write(file.slice(127, enough));
  assertEquals((await first).value, bytes(FIRST + STRIDE).slice(0, FIRST));
  const second = reader.read();
  await writer.write(file.slice(enough));
  await turns(3);
  assertEquals((await outcomes(second))[0]!.state, "pending"); // is it the last one?
  await writer.close();
  assertEquals((await second).value, bytes(FIRST + STRIDE).slice(FIRST));
  assertEquals((await reader.read()).done, true);
});

/** The header and the segments of a sealed stream, to build streams that no correct writer creates. */
async function segmentsOf(input: Bytes): Promise<{ header: Bytes; segments: Bytes[]; vector: Vector }> {
  const salt = "00".repeat(16);
  const vector = { salt, noncePrefix: "11".repeat(7) } as Vector;
  const file = await sealedAs(vector, optionsOf(), input);
  return {
    header: file.slice(0, HEADER),
    segments: [file.slice(HEADER, 128), ...cut(file.slice(128), [128], { copied: true })],
    vector,
  };
}

test("a full non-final segment before an empty final one is accepted: Tink accepts it and never writes it", async () => {
  // One more byte makes the first segment a non-final one. Then an empty final segment replaces the second one.
  const { header, segments, vector } = await segmentsOf(bytes(FIRST + 1));
  const file = concat([header, segments[0]!, emptyLast(vector, 1)]);
  assertEquals(await opened(file), bytes(FIRST + 1).slice(0, FIRST));
  using open = await openSealed(new Blob([file]), optionsOf());
  assertEquals([open.size, await open.bytes()], [FIRST, bytes(FIRST + 1).slice(0, FIRST)]);
  // Truncated so that the last segment has exactly the size of a tag: it fails the verification.
  const cutShort = (await sealed(bytes(FIRST + STRIDE))).slice(0, 128 + TAG);
  await refused(opened(cutShort));
  await refused(openSealed(new Blob([cutShort]), optionsOf()));
});

/** The tag of an empty last segment. */
function emptyLast({ salt, noncePrefix }: Vector, index: number): Bytes {
  const { format, key, associatedData } = checkSealOptions(optionsOf());
  const header = { salt: fromHex(salt), prefix: fromHex(noncePrefix) };
  const segments = openSegmentCipher(format, deriveKeys(format, key, header, associatedData), header, engine);
  const tag = new Uint8Array(TAG);
  segments.seal([], { index, isLast: true }, tag);
  segments.close();
  return tag;
}

// ---- Memory, backpressure, ways to end --------------------------------------------------------------------------

alone("a pool reads ahead")(
  "a stream buffers at most two segments beyond its queues",
  async () => {
    for (const Stream of [SealStream, UnsealStream]) {
      const input = Stream === SealStream
        ? bytes(5_000_000)
        : await sealed(bytes(5_000_000), optionsOf("AES256_CTR_HMAC_SHA256_64KB"));
      const stream = new Stream(optionsOf("AES256_CTR_HMAC_SHA256_64KB"));
      const writer = stream.writable.getWriter();
      const reader = stream.readable.getReader();
      let written = 0;
      const writing = (async () => {
        for (const chunk of cut(input, [10_000])) {
          await writer.write(chunk);
          written += chunk.length;
        }
        await writer.close();
      })();
      let received = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        received += value.length;
        await turns(2);
        assert(written - received <= 2 * 65_536 + 20_000 + 100, `${written} written, ${received} received`);
      }
      await writing;
    }
  },
);

alone("a pool outputs batches of segments")(
  "one chunk of many segments is output segment by segment, at each read",
  async () => {
    const file = await sealed(bytes(10 * STRIDE));
    for (const stream of [new SealStream(optionsOf()), new UnsealStream(optionsOf())]) {
      const writer = stream.writable.getWriter();
      const writing = writer.write(
        stream instanceof SealStream ? bytes(20_000) : concat([file, ...Array(1)].filter(Boolean)),
      );
      void writing.catch(() => {});
      const reader = stream.readable.getReader();
      const { value } = await reader.read();
      assert(value!.length <= 128);
      await reader.cancel();
    }
  },
);

for (
  const [what, make] of Object.entries({
    SealStream: () => new SealStream(optionsOf()),
    UnsealStream: () => new UnsealStream(optionsOf()),
  })
) {
  test(`${what} releases its cipher on cancel, on abort, on an error of the source, and at its end`, async () => {
    const files = openFiles();
    const input = what === "SealStream" ? bytes(1000) : await sealed(bytes(1000));
    const cancelled = make();
    void cancelled.writable.getWriter().write(input).catch(() => {});
    await cancelled.readable.cancel();
    const aborted = make();
    await caught(aborted.writable.abort(new Error("enough")));
    const failing = new Error("the source broke");
    const broken = streamOf((function* () {
      yield input.slice(0, 300);
      throw failing;
    })());
    assertStrictEquals(await caught(collect(broken.pipeThrough(make()))), failing);
    await collect(streamOf([input]).pipeThrough(make()));
    await assertReleased(files);
  });
}

test("a signal ends streams, iterables and open files with its reason", async () => {
  const files = openFiles();
  const reason = new Error("the signal's reason");
  const abort = new AbortController();
  const options = { ...optionsOf(), signal: abort.signal };
  const file = await sealed(bytes(1000));
  const silent = new ReadableStream<Bytes>();
  const waiting = [
    silent.pipeThrough(new SealStream(options)).getReader().read(),
    unseal(
      options,
      (async function* () {
        yield file.slice(0, 200);
        await new Promise(() => {});
      })(),
    ).next().then(() => seal(options, new ReadableStream()).next()),
  ];
  const open = await openSealed(new Blob([file]), options);
  const slow = openSealed({ size: file.length, read: () => new Promise(() => {}) }, options);
  waiting.push(slow as never);
  await turns(3);
  abort.abort(reason);
  for (const outcome of await outcomes(...waiting)) assertEquals(outcome, { state: "rejected", reason });
  assertStrictEquals(await caught(open.bytes()), reason);
  assertStrictEquals(await caught(openSealed(new Blob([file]), options)), reason);
  await assertReleased(files);
});

test("no listener of a signal remains after any end", async () => {
  const { getEventListeners } = await import("node:events");
  const { signal } = new AbortController();
  const options = { ...optionsOf(), signal };
  const file = await sealed(bytes(1000));
  const damaged = file.with(500, file[500]! ^ 1);
  const open = await openSealed(new Blob([file]), options);
  assertEquals(getEventListeners(signal, "abort").length, 1);
  open.close();
  await refused(openSealed(new Blob([file.slice(1)]), options));
  await collect(seal(options, bytes(1000)));
  await refused(collect(unseal(options, damaged)));
  await collect(streamOf([bytes(1000)]).pipeThrough(new SealStream(options)));
  await refused(collect(streamOf([damaged]).pipeThrough(new UnsealStream(options))));
  await new UnsealStream(options).readable.cancel();
  assertEquals(getEventListeners(signal, "abort").length, 0);
});

// ---- Arithmetic, without the bytes -------------------------------------------------------------------------------

once("sizes of 4 GiB and of 2^32 segments", () => {
  const named = "AES256_CTR_HMAC_SHA256_64KB";
  for (const size of [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 40]) {
    assertEquals(unsealedSize(sealedSize(size, named), named), size);
  }
  const most = (2 ** 32 - 1) * STRIDE - HEADER;
  assertEquals(unsealedSize(sealedSize(most, SMALL), SMALL), most);
  assertThrows(() => sealedSize(most + 1, SMALL), RangeError);
  for (const size of [0, 1, HEADER + TAG - 1, 128 + TAG - 1, 2 ** 53 - 1]) {
    assertThrows(() => unsealedSize(size, SMALL), RangeError, `${size}`);
  }
});

once(
  "a range of a file of more than 4 GiB is found, in a source that computes its bytes",
  async () => {
    // Only the requested segments and the last one are sealed, each at its position.
    const format = "AES256_CTR_HMAC_SHA256_1MB";
    const options = optionsOf(format);
    const plan = checkSealOptions(options);
    const header = { salt: bytes(32, 1), prefix: bytes(7, 2) };
    const segments = openSegmentCipher(
      plan.format,
      deriveKeys(plan.format, plan.key, header, plan.associatedData),
      header,
      engine,
    );
    const stride = 1_048_576 - TAG;
    const size = 5 * 2 ** 30;
    const total = sealedSize(size, format);
    const asked: [number, number][] = [];
    const source = {
      size: total,
      read(start: number, end: number): Promise<Bytes> {
        asked.push([start, end]);
        if (start === 0 && end === 40) return Promise.resolve(concat([Uint8Array.of(40), header.salt, header.prefix]));
        const index = Math.floor(start / 1_048_576);
        const output = new Uint8Array(end - start);
        segments.seal([new Uint8Array(output.length - TAG).fill(index)], { index, isLast: end === total }, output);
        return Promise.resolve(output);
      },
    };
    using file = await openSealed(source, options);
    assertEquals(file.size, size);
    asked.length = 0;
    const at = 2 ** 32 + 12_345;
    assertEquals(await file.bytes(at, at + 1), Uint8Array.of(Math.floor((at + 40) / stride)));
    assertEquals(asked, [[
      Math.floor((at + 40) / stride) * 1_048_576,
      (Math.floor((at + 40) / stride) + 1) * 1_048_576,
    ]]);
    segments.close();
  },
);

once("a segment after the last segment number is EOVERFLOW", () => {
  const plan = checkSealOptions(optionsOf());
  const sealer = new BatchTransform(sealRule(plan, { salt: bytes(16), prefix: bytes(7) }, 2 ** 32 - 3), false);
  sealer.write([bytes(10 * STRIDE)]);
  assert(sealer.read());
  assert(sealer.read());
  assertEquals(assertThrows(() => sealer.read(), KcapiError).code, "EOVERFLOW");
  assertEquals(sealer.read(), undefined);
});

// ---- Open files -------------------------------------------------------------------------------------------------

once("ranges are those of Blob.slice(), by bytes() and by stream()", async () => {
  const input = bytes(FIRST + 3 * STRIDE + 10);
  const file = await sealed(input);
  using open = await openSealed(new Blob([file]), optionsOf());
  const positions = [
    undefined,
    0,
    1,
    FIRST - 1,
    FIRST,
    FIRST + 1,
    FIRST + STRIDE,
    input.length,
    input.length + 5,
    -1,
    -STRIDE,
  ];
  positions.push(-1_000_000, NaN, Infinity, -Infinity);
  const blob = new Blob([input]);
  for (const start of positions) {
    for (const end of positions) {
      const [from, to] = [start, end].map((n) => n === Infinity ? input.length : n === -Infinity ? -input.length : n);
      const expected = new Uint8Array(await blob.slice(from, to).arrayBuffer());
      assertEquals(await open.bytes(start, end), expected, `${start} to ${end}`);
      assertEquals(await collect(open.stream({ start, end })), expected, `${start} to ${end}`);
    }
  }
  // Rounds as [Clamp] of Web IDL does, which not every runtime implements.
  for (const [number, whole] of [[0.5, 0], [1.5, 2], [1.9, 2], [-0.5, 0], [-1.6, -2]] as const) {
    assertEquals(await open.bytes(number), await open.bytes(whole));
  }
  await assertRejects(() => open.bytes("1" as unknown as number), TypeError);
});

const AT_ONCE = times(250, 1000);

once(`${AT_ONCE} random ranges at once are right`, async () => {
  const input = bytes(50_000);
  const options = optionsOf("AES128_CTR_HMAC_SHA256_4KB");
  const file = await sealed(input, options);
  using open = await openSealed(new Blob([file]), options);
  const ranges = fc.sample(fc.tuple(fc.nat(50_000), fc.nat(50_000)), { numRuns: AT_ONCE, seed: SEED });
  await Promise.all(ranges.map(async ([a, b]) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    assertEquals(await open.bytes(from, to), input.slice(from, to));
  }));
});

once(`a source in memory does not block the event loop, with sequential reads and ${AT_ONCE} at once`, async () => {
  const options = optionsOf("AES256_CTR_HMAC_SHA256_64KB");
  const file = await sealed(bytes(4_000_000), options);
  const source = { size: file.length, read: (start: number, end: number) => Promise.resolve(file.slice(start, end)) };
  using open = await openSealed(source, options);
  const ways: Record<string, () => Promise<unknown>> = {
    bytes: () => open.bytes(),
    stream: () => collect(open.stream()),
    ranges: () => Promise.all(Array.from({ length: AT_ONCE }, (_, i) => open.bytes(4000 * i, 4000 * i + 1))),
  };
  for (const [way, read] of Object.entries(ways)) {
    let turned = false;
    setImmediate(() => turned = true);
    for (let i = 0; i < 50 && !turned; i++) await read();
    assert(turned, `${way}, 50 times`);
  }
});

once("a read of one byte reads the header, the last segment and its own segment only", async () => {
  const file = await sealed(bytes(100 * STRIDE));
  const asked: [number, number][] = [];
  const source = {
    size: file.length,
    read(start: number, end: number): Promise<Bytes> {
      asked.push([start, end]);
      return Promise.resolve(file.slice(start, end));
    },
  };
  using open = await openSealed(source, optionsOf());
  await open.bytes(5000, 5001);
  const index = Math.floor((5000 + HEADER) / STRIDE);
  assertEquals(asked, [[0, HEADER], [128 * Math.floor((file.length - 1) / 128), file.length], [
    128 * index,
    128 * index + 128,
  ]]);
  asked.length = 0;
  const stream = open.stream({ start: 5000 });
  await turns(2);
  assertEquals(asked, []);
  await stream.cancel();
});

once("a source that returns too few bytes, too many, another type or another size is an error", async () => {
  const file = await sealed(bytes(1000));
  const lies: Record<string, (start: number, end: number) => unknown> = {
    less: (start, end) => file.slice(start, end - 1),
    more: (start, end) => concat([file.slice(start, end), bytes(1)]),
    none: () => new Uint8Array(0),
  };
  for (const [what, read] of Object.entries(lies)) {
    for (const honest of [0, 1, 2]) {
      let reads = 0;
      const source = {
        size: file.length,
        read: (start: number, end: number) =>
          Promise.resolve((reads++ < honest ? file.slice(start, end) : read(start, end)) as Bytes),
      };
      const error = await assertRejects(async () => {
        using open = await openSealed(source, optionsOf());
        await open.bytes();
      }, KcapiError);
      assertEquals(error.code, "EIO", `${what} after ${honest}`);
    }
  }
  const grows = { size: file.length, read: (start: number, end: number) => Promise.resolve(file.slice(start, end)) };
  using open = await openSealed(grows, optionsOf());
  grows.size++;
  assertEquals((await assertRejects(() => open.bytes(), KcapiError)).code, "EIO");
  for (const bad of [null, "text", 42, undefined, {}]) {
    const source = { size: file.length, read: () => Promise.resolve(bad as unknown as Bytes) };
    await assertRejects(() => openSealed(source, optionsOf()), TypeError);
  }
  const failure = new Error("the store is gone");
  const broken = { size: file.length, read: () => Promise.reject(failure) };
  assertStrictEquals(await caught(openSealed(broken, optionsOf())), failure);
});

once("close() rejects pending reads with ECANCELED and later ones with EBADF", async () => {
  const files = openFiles();
  const file = await sealed(bytes(1000));
  let isSilent = false;
  const source = {
    size: file.length,
    read: (start: number, end: number) =>
      isSilent ? new Promise<Bytes>(() => {}) : Promise.resolve(file.slice(start, end)),
  };
  const open = await openSealed(source, optionsOf());
  isSilent = true;
  const waiting = [open.bytes(), open.stream().getReader().read()];
  const idle = open.stream();
  await turns(2);
  open.close();
  open.close();
  for (const outcome of await outcomes(...waiting)) {
    assert(outcome.state === "rejected");
    assertEquals((outcome.reason as KcapiError).code, "ECANCELED");
  }
  assertEquals((await assertRejects(() => open.bytes(0, 1), KcapiError)).code, "EBADF");
  assertEquals((await assertRejects(() => collect(idle), KcapiError)).code, "EBADF");
  await assertReleased(files);
});

once("a closed file rejects all ranges, including empty ones", async () => {
  const reason = new Error("the signal's reason");
  const abort = new AbortController();
  const file = new Blob([await sealed(bytes(10))]);
  const closed = await openSealed(file, optionsOf());
  closed.close();
  const aborted = await openSealed(file, { ...optionsOf(), signal: abort.signal });
  abort.abort(reason);
  for (const open of [closed, aborted]) {
    for (const read of [() => open.bytes(3, 3), () => collect(open.stream({ start: 3, end: 3 }))]) {
      const error = await caught(read());
      if (open === aborted) assertStrictEquals(error, reason);
      else assertEquals((error as KcapiError).code, "EBADF");
    }
  }
});

once("a file that its source closes during a read verifies nothing, because its keys are zero", async () => {
  for (const format of [SMALL, SMALL_GCM]) {
    const file = await sealed(bytes(10), optionsOf(format));
    let act = (): void => {};
    const source = {
      get size() {
        act();
        return file.length;
      },
      read: (start: number, end: number) => Promise.resolve(file.slice(start, end)),
    };
    const open = await openSealed(source, optionsOf(format));
    act = () => open.close();
    assertEquals((await assertRejects(() => open.bytes(), KcapiError)).code, "ECANCELED");
  }
});

once("a Blob with a wrong size gets an error about its size, not about damage", async () => {
  for (const size of [NaN, Infinity]) {
    const blob = Object.defineProperty(new Blob([await sealed(bytes(10))]), "size", { value: size });
    assertStringIncludes((await assertRejects(() => openSealed(blob, optionsOf()), TypeError)).message, `got ${size}`);
  }
});

(engine === "kernel" ? alone("the ciphers are in Workers") : test.if(false, "needs the kernel engine"))(
  "a file whose cipher fails is closed: the next read would get output of this one, or block",
  async () => {
    const file = new Blob([await sealed(bytes(1000))]);
    for (const name of ["kcapi_cipher_stream_update_last", "kcapi_cipher_stream_op"] as const) {
      let isFailing = false;
      using _ = interpose((real) => ({
        [name]: (...args: Parameters<Calls[typeof name]>) => isFailing ? -12 : real[name](...args),
      }));
      const open = await openSealed(file, optionsOf());
      isFailing = true;
      const error = await assertRejects(() => open.bytes(0, 10), KcapiError);
      assertEquals([error.code, error.operation], ["ENOMEM", name]);
      isFailing = false;
      assertStrictEquals(await caught(open.bytes(0, 10)), error);
    }
  },
);

// ---- Bad input --------------------------------------------------------------------------------------------------

once("bad options are errors that name the option, before anything is opened", async () => {
  const files = openFiles();
  const bad: [Record<string, unknown>, typeof TypeError | typeof RangeError, string][] = [
    [{ key: undefined }, TypeError, '"key"'],
    [{ key: "secret words" }, TypeError, '"key"'],
    [{ key: bytes(15) }, RangeError, "at least 16 bytes, got 15"],
    [{ key: bytes(31), format: "AES256_GCM_HKDF_4KB", engine: "auto" }, RangeError, "at least 32 bytes, got 31"],
    [{ key: { type: "logon", description: "kcapi:x" } }, TypeError, "derive their keys"],
    [{ key: { serial: 1 } }, TypeError, "derive their keys"],
    [{ associatedData: "text" }, TypeError, '"associatedData"'],
    [{ format: "AES256" }, TypeError, "AES256_CTR_HMAC_SHA256_64KB"],
    [{ format: 1 }, TypeError, '"format"'],
    [{ format: null }, TypeError, '"format"'],
    [{ format: { ...SMALL, cipher: "AES" } }, TypeError, '"cipher"'],
    [{ format: { ...SMALL, keySize: 24 } }, RangeError, '"keySize"'],
    [{ format: { ...SMALL, hkdfHash: "MD5" } }, TypeError, '"hkdfHash"'],
    [{ format: { ...SMALL, macHash: undefined } }, TypeError, '"macHash"'],
    [{ format: { ...SMALL, tagSize: 9 } }, RangeError, '"tagSize"'],
    [{ format: { ...SMALL, tagSize: 33 } }, RangeError, '"tagSize"'],
    [{ format: { ...SMALL_GCM, tagSize: 12 }, engine: "auto" }, RangeError, '"tagSize"'],
    [{ format: { ...SMALL_GCM, macHash: "MD5" }, engine: "auto" }, TypeError, '"macHash"'],
    [{ format: { ...SMALL, segmentSize: HEADER + TAG } }, RangeError, '"segmentSize"'],
    [{ format: { ...SMALL, segmentSize: 2 ** 24 + 1 } }, RangeError, '"segmentSize"'],
    [{ format: { ...SMALL, segmentSize: 100.5 } }, RangeError, '"segmentSize"'],
    [{ format: "AES128_GCM_HKDF_4KB", engine: "kernel" }, TypeError, '"engine"'],
    [{ engine: "best" }, TypeError, '"engine"'],
    [{ inPlace: 1 }, TypeError, '"inPlace"'],
    [{ signal: {} }, TypeError, '"signal"'],
  ];
  for (const [change, type, text] of bad) {
    const options = { ...optionsOf(), ...change } as SealOptions;
    const ways = [
      () => new SealStream(options),
      () => new UnsealStream(options),
      () => seal(options, KEY),
      () => unseal(options, KEY),
    ];
    for (const way of ways) assertStringIncludes(assertThrows(way, type).message, text);
    assertStringIncludes((await assertRejects(() => openSealed(new Blob([]), options), type)).message, text);
  }
  for (const options of [undefined, null, "key"]) {
    assertThrows(() => new SealStream(options as unknown as SealOptions), TypeError);
  }
  for (const source of [null, "path", 3, {}, { size: 3 }, { read() {} }, { size: -1, read() {} }]) {
    await assertRejects(() => openSealed(source as unknown as Blob, optionsOf()), TypeError);
  }
  for (const size of [0, 1, HEADER + TAG - 1]) {
    await refused(openSealed(new Blob([bytes(size)]), optionsOf()), size === 0 ? EMPTY : DETAIL);
  }
  await assertReleased(files);
});

test("engine is the name of the engine that runs", async () => {
  assertEquals(new SealStream(optionsOf()).engine, engine);
  const stream = new UnsealStream(optionsOf());
  assertEquals(stream.engine, engine);
  await stream.readable.cancel();
  assertEquals(seal(optionsOf(), KEY).engine, engine);
  assertEquals(unseal(optionsOf(SMALL_GCM), KEY).engine, runtime === "deno" && !pool ? "webcrypto" : "userspace");
  using open = await openSealed(new Blob([await sealed(bytes(3))]), optionsOf());
  assertEquals(open.engine, engine);
});

test("a requested engine is not replaced by another", async () => {
  const options = { ...optionsOf(), engine: "kernel" as const };
  const file = await sealed(bytes(3));
  const engineOf: (() => string | Promise<string>)[] = [
    ...[SealStream, UnsealStream].map((Stream) => async () => {
      const stream = new Stream(options);
      const { engine } = stream;
      await stream.readable.cancel();
      return engine;
    }),
    ...[seal, unseal].map((call) => async () => {
      const iterator = call(options, file);
      const { engine } = iterator;
      await iterator.return!();
      return engine;
    }),
    async () => {
      using open = await openSealed(new Blob([file]), options);
      return open.engine;
    },
  ];
  for (const which of engineOf) {
    try {
      assertEquals(await which(), "kernel");
    } catch (error) {
      assertInstanceOf(error, KcapiError);
    }
  }
});

test("errors and inspection show nothing of a key", async () => {
  const { inspect } = await import("node:util");
  const secret = "5e5e".repeat(16);
  const key = fromHex(secret);
  const open = await openSealed(new Blob([await sealed(bytes(3), { ...optionsOf(), key })]), { ...optionsOf(), key });
  const shown = inspect([open, new SealStream({ ...optionsOf(), key }), seal({ ...optionsOf(), key }, KEY)], {
    depth: 9,
  });
  assert(!/5e5e|94,\s*94/.test(shown), shown);
  open.close();
  assertInstanceOf(open, Object);
  assertNotEquals(shown, "");
});
