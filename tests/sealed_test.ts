/**
 * Sealed streams: Tink's vectors, every chunk size and boundary, every kind of damage, and every way to end a stream.
 * Browsers run it, too.
 *
 * FC_SEED repeats a run; KCAPI_TEST_RUNS is the number of random files.
 */
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
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  openFiles,
  runs,
  runtime,
  seed,
} from "./support/deps.ts";
import { type Bytes, bytes, collect, concat, cut, fromHex, streamOf } from "./support/bytes.ts";
import { contractOf } from "./support/pool.ts";
import { caught } from "./support/promises.ts";
import {
  EMPTY,
  engineOf,
  FIRST,
  FORMATS,
  HEADER,
  KEY,
  NAME,
  parametersOf,
  plaintextOf,
  refused,
  REFUSED_VECTORS,
  sealedAs,
  sha256,
  SMALL,
  SMALL_GCM,
  STRIDE,
  type Vector,
  VECTORS,
} from "./support/sealed_support.ts";
import { segmentsOf as referenceSegments } from "./support/webcrypto_reference.ts";

const { test, once, pool, engine, turns, outcomes, assertReleased } = await contractOf(import.meta.url);

const RUNS = pool ? runs(20, 50) : runs(60, 200);
console.log(`sealed_test: seed ${seed}`);

const TAG = SMALL.tagSize;
/** Segments of 64 KiB that a stream over WebCrypto has under way at most. */
const MOST_IN_FLIGHT = 8;

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  return { key: KEY, associatedData: NAME, format, engine: engineOf(format, engine), pool };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));
const opened = (input: BytesLike, options = optionsOf()) => collect(unseal(options, input));

// ---- Tink's vectors ---------------------------------------------------------------------------------------------

function optionsOfVector(vector: Vector): SealOptions {
  const format = parametersOf(vector);
  return {
    key: fromHex(vector.ikm),
    associatedData: fromHex(vector.associatedData),
    format,
    engine: engineOf(format, engine),
    pool,
  };
}

for (const vector of VECTORS) {
  test(`Tink's vector, byte for byte: ${vector.name}`, async () => {
    const options = optionsOfVector(vector);
    const { plaintextLength, ciphertextLength, ciphertextSHA256, ciphertext } = vector;
    const plaintext = plaintextOf(plaintextLength);
    const file = await sealedAs(vector, options, cut(plaintext, [1, 100_000, 17]));
    if (ciphertext) assertEquals(file, fromHex(ciphertext));
    assertEquals(file.length, ciphertextLength);
    assertEquals(await sha256(file), fromHex(ciphertextSHA256));
    assertEquals(sealedSize(plaintextLength, options.format), ciphertextLength);
    assertEquals(unsealedSize(ciphertextLength, options.format), plaintextLength);
    assertEquals(await opened(file, options), plaintext);
    assertEquals(await collect(streamOf(cut(file, [999])).pipeThrough(new UnsealStream(options))), plaintext);
    using open = await openSealed(new Blob([file]), options);
    assertEquals(await open.bytes(), plaintext);
  });
}

for (const vector of REFUSED_VECTORS) {
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
      file.length === 0 ? EMPTY : undefined,
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
  const { tagSize: _, ...without } = SMALL_GCM;
  const whole: SealedParameters = { ...SMALL_GCM, macHash: "SHA-512" };
  const file = await sealed(bytes(300), optionsOf(whole));
  assertEquals(await opened(file, optionsOf(without)), bytes(300));
  assertEquals(sealedSize(300, whole), sealedSize(300, without));
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

test(`every damage to a file is EBADMSG, and the output before is a prefix of the plaintext (${RUNS} files, seed ${seed})`, async () => {
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
        damaged.length === 0 ? EMPTY : undefined,
      );
    }),
    { numRuns: RUNS, seed },
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
  // Another thread gets a segment when more input shows that it is not the last one.
  const enough = pool || engine === "webcrypto" ? 129 : 128;
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

test("a full non-final segment before an empty final one is accepted: Tink accepts it and never writes it", async () => {
  // One more byte makes the first segment a non-final one. Then an empty final segment replaces the second one.
  const file = await sealed(bytes(FIRST + 1));
  const { seal: sealSegment } = await referenceSegments(SMALL, KEY, NAME, file.slice(0, HEADER));
  const empty = await sealSegment(new Uint8Array(0), 1, true);
  const changed = concat([file.slice(0, SMALL.segmentSize), empty]);
  assertEquals(await opened(changed), bytes(FIRST));
  using open = await openSealed(new Blob([changed]), optionsOf());
  assertEquals([open.size, await open.bytes()], [FIRST, bytes(FIRST)]);
  // Truncated so that the last segment has exactly the size of a tag: it fails the verification.
  const cutShort = (await sealed(bytes(FIRST + STRIDE))).slice(0, SMALL.segmentSize + TAG);
  await refused(opened(cutShort));
  await refused(openSealed(new Blob([cutShort]), optionsOf()));
});

// ---- Memory, backpressure, ways to end --------------------------------------------------------------------------

test(
  "a stream buffers at most two segments beyond its queues and the running ones",
  { needs: { "one thread: a pool reads ahead": !pool } },
  async () => {
    const most = (2 + (engine === "webcrypto" ? MOST_IN_FLIGHT : 0)) * 65_536 + 20_000 + 100;
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
        assert(written - received <= most, `${written} written, ${received} received`);
      }
      await writing;
    }
  },
);

test(
  "one chunk of many segments is output segment by segment, at each read",
  { needs: { "one thread: a pool outputs batches of segments": !pool } },
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
    await refused(openSealed(new Blob([bytes(size)]), optionsOf()), size === 0 ? EMPTY : undefined);
  }
  await assertReleased(files);
});

test("engine is the name of the engine that runs", async () => {
  assertEquals(new SealStream(optionsOf()).engine, engine);
  const stream = new UnsealStream(optionsOf());
  assertEquals(stream.engine, engine);
  await stream.readable.cancel();
  assertEquals(seal(optionsOf(), KEY).engine, engine);
  const isFaster = runtime === "deno" && !pool; // then WebCrypto is what "auto" takes
  const engineOfGcm = engine === "webcrypto" || isFaster ? "webcrypto" : "userspace";
  assertEquals(unseal(optionsOf(SMALL_GCM), KEY).engine, engineOfGcm);
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
