/**
 * Reading from sealed files: ranges, sources, how a reader is closed, and arithmetic on sizes. Browsers run it, too.
 */
import fc from "fast-check";
import { KcapiError, openSealed, seal, type SealedFormat, sealedSize, type SealOptions, unsealedSize } from "../mod.ts";
import { BatchTransform } from "../src/executors/batch_transform.ts";
import { ENGINES } from "../src/sealed/engines.ts";
import { sealRule } from "../src/sealed/rules.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { type Bytes, bytes, collect, concat } from "./support/bytes.ts";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  openFiles,
  seed,
  times,
} from "./support/deps.ts";
import { contractOf } from "./support/pool.ts";
import { caught, inNextTurn } from "./support/promises.ts";
import {
  engineOf,
  FIRST,
  HEADER,
  KEY,
  learningSource,
  NAME,
  SMALL,
  SMALL_GCM,
  STRIDE,
} from "./support/sealed_support.ts";
import { segmentsOf } from "./support/webcrypto_reference.ts";

const { test, engine, turns, outcomes, assertReleased } = await contractOf(import.meta.url);

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  return { key: KEY, associatedData: NAME, format, engine: engineOf(format, engine) };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));

// ---- Arithmetic, without the bytes -------------------------------------------------------------------------------

test("sizes of 4 GiB and of 2^32 segments", () => {
  const named = "AES256_CTR_HMAC_SHA256_64KB";
  for (const size of [2 ** 32 - 1, 2 ** 32, 2 ** 32 + 1, 2 ** 40]) {
    assertEquals(unsealedSize(sealedSize(size, named), named), size);
  }
  const most = (2 ** 32 - 1) * STRIDE - HEADER;
  assertEquals(unsealedSize(sealedSize(most, SMALL), SMALL), most);
  assertThrows(() => sealedSize(most + 1, SMALL), RangeError);
  for (const size of [0, 1, HEADER + SMALL.tagSize - 1, 128 + SMALL.tagSize - 1, 2 ** 53 - 1]) {
    assertThrows(() => unsealedSize(size, SMALL), RangeError, `${size}`);
  }
});

test(
  "a range of a file of more than 4 GiB is found, in a source that computes its bytes",
  async () => {
    // Only the requested segments and the last one are sealed, each at its position.
    const format = "AES256_CTR_HMAC_SHA256_1MB";
    const options = optionsOf(format);
    const [segmentSize, tagSize] = [1_048_576, 32];
    const header = concat([Uint8Array.of(40), bytes(32, 1), bytes(7, 2)]);
    const segments = await segmentsOf({ ...SMALL, keySize: 32, segmentSize }, KEY, NAME, header);
    const stride = segmentSize - tagSize;
    const size = 5 * 2 ** 30;
    const total = sealedSize(size, format);
    const asked: [number, number][] = [];
    const source = {
      size: total,
      read(start: number, end: number): Promise<Bytes> {
        asked.push([start, end]);
        if (start === 0 && end === header.length) return Promise.resolve(header);
        const index = Math.floor(start / segmentSize);
        const plaintext = new Uint8Array(end - start - tagSize).fill(index);
        return segments.seal(plaintext, index, end === total);
      },
    };
    using file = await openSealed(source, options);
    assertEquals(file.size, size);
    asked.length = 0;
    const at = 2 ** 32 + 12_345;
    assertEquals(await file.bytes(at, at + 1), Uint8Array.of(Math.floor((at + 40) / stride)));
    const start = Math.floor((at + 40) / stride) * segmentSize;
    assertEquals(asked, [[start, start + segmentSize]]);
  },
);

test("a segment after the last segment number is EOVERFLOW", async () => {
  const plan = checkSealOptions(optionsOf(), ENGINES);
  const sealer = new BatchTransform(sealRule(plan, { salt: bytes(16), prefix: bytes(7) }, 2 ** 32 - 3), false);
  sealer.write([bytes(10 * STRIDE)]);
  let segments = 0;
  const error = await assertRejects(async () => {
    for (;;) {
      if (sealer.read()) segments++;
      else await sealer.progress;
    }
  }, KcapiError);
  assertEquals([segments, error.code, sealer.read()], [2, "EOVERFLOW", undefined]);
});

// ---- Open files -------------------------------------------------------------------------------------------------

test("ranges are those of Blob.slice(), by bytes() and by stream()", async () => {
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

test(`${AT_ONCE} random ranges at once are right`, async () => {
  const input = bytes(50_000);
  const options = optionsOf("AES128_CTR_HMAC_SHA256_4KB");
  const file = await sealed(input, options);
  using open = await openSealed(new Blob([file]), options);
  const ranges = fc.sample(fc.tuple(fc.nat(50_000), fc.nat(50_000)), { numRuns: AT_ONCE, seed });
  await Promise.all(ranges.map(async ([a, b]) => {
    const [from, to] = [Math.min(a, b), Math.max(a, b)];
    assertEquals(await open.bytes(from, to), input.slice(from, to));
  }));
});

test(`a source in memory does not block the event loop, with sequential reads and ${AT_ONCE} at once`, async () => {
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
    inNextTurn(() => turned = true);
    for (let i = 0; i < 50 && !turned; i++) await read();
    assert(turned, `${way}, 50 times`);
  }
});

test("a read of one byte reads the header, the last segment and its own segment only", async () => {
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

test("a source that returns too few bytes, too many, another type or another size is an error", async () => {
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

test("close() rejects pending reads with ECANCELED and later ones with EBADF", async () => {
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

test("a closed file rejects all ranges, including empty ones", async () => {
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

test("a file that its source closes during a read verifies nothing, because its keys are zero", async () => {
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

test("a Blob with a wrong size gets an error about its size, not about damage", async () => {
  for (const size of [NaN, Infinity]) {
    const blob = Object.defineProperty(new Blob([await sealed(bytes(10))]), "size", { value: size });
    assertStringIncludes((await assertRejects(() => openSealed(blob, optionsOf()), TypeError)).message, `got ${size}`);
  }
});

// ---- Who closes the reader --------------------------------------------------------------------------------------

/** Whether the reader is closed. */
async function isClosed(reader: Awaited<ReturnType<typeof openSealed>>): Promise<boolean> {
  try {
    await reader.bytes(0, 0);
    return false;
  } catch (error) {
    assertEquals((error as KcapiError).code, "EBADF");
    return true;
  }
}

const PLAINTEXT = bytes(10_000);
const FORMAT = "AES128_CTR_HMAC_SHA256_4KB";

const opened = async () => openSealed(new Blob([await sealed(PLAINTEXT, optionsOf(FORMAT))]), optionsOf(FORMAT));

test("stream({ close: true }) closes the reader at its end, at an error, and when it is cancelled", async () => {
  const ended = await opened();
  assertEquals(await collect(ended.stream({ start: 9000, close: true })), PLAINTEXT.subarray(9000));
  assert(await isClosed(ended));

  const cancelled = await opened();
  const stream = cancelled.stream({ close: true });
  assert(!await isClosed(cancelled));
  await stream.cancel();
  assert(await isClosed(cancelled));

  const damaged = await sealed(PLAINTEXT, optionsOf(FORMAT));
  damaged[5000]! ^= 1;
  const failed = await openSealed(new Blob([damaged]), optionsOf(FORMAT));
  assertEquals((await assertRejects(() => collect(failed.stream({ close: true })), KcapiError)).code, "EBADMSG");
  assert(await isClosed(failed));

  const response = await opened();
  assertEquals(new Uint8Array(await new Response(response.stream({ close: true })).arrayBuffer()), PLAINTEXT);
  assert(await isClosed(response));
});

test("of several streams the last one closes the reader, and other reads are not cut off", async () => {
  const reader = await opened();
  const [first, second, third] = [
    reader.stream({ end: 10, close: true }),
    reader.stream({ start: 5000, close: true }),
    reader.stream({ start: -10 }),
  ] as const;
  assertEquals(await collect(first), PLAINTEXT.subarray(0, 10));
  assertEquals(await collect(second), PLAINTEXT.subarray(5000));
  assert(!await isClosed(reader));
  assertEquals(await collect(third), PLAINTEXT.subarray(-10));
  assert(await isClosed(reader));

  const other = await opened();
  const [whole] = await Promise.all([other.bytes(), other.stream({ close: true }).cancel()]);
  assertEquals(whole, PLAINTEXT);
  assert(await isClosed(other));
});

test("stream() without close leaves the reader open, and options that are none are refused by name", async () => {
  using reader = await opened();
  await collect(reader.stream());
  assert(!await isClosed(reader));
  for (const bad of [5, null, "x"]) {
    const error = assertThrows(() => reader.stream(bad as unknown as object), TypeError);
    assertStringIncludes(error.message, '"options" expected an object');
  }
  const wrong = { close: "yes" } as unknown as { close: boolean };
  assertStringIncludes(assertThrows(() => reader.stream(wrong), TypeError).message, '"close"');
});

// ---- Sources far away -------------------------------------------------------------------------------------------

test("a source may learn its size by its first answer, and is told when nobody waits any more", async () => {
  const source = learningSource(await sealed(PLAINTEXT, optionsOf(FORMAT)));
  const reader = await openSealed(source, optionsOf(FORMAT));
  assertEquals(await reader.bytes(-5000, -10), PLAINTEXT.subarray(5000, -10));
  reader.close();
  assert(source.signals.length > 0);
  const unknown = { size: undefined, read: () => Promise.resolve(new Uint8Array(0)) };
  assertStringIncludes(
    (await assertRejects(() => openSealed(unknown, optionsOf(FORMAT)), TypeError)).message,
    "expected a size",
  );
});
