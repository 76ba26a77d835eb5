/**
 * How a sealed file is read: which reads its source gets, how many at once, and what ends them. Compared with slices of
 * the plaintext. Browsers run it, too.
 */
import fc from "fast-check";
import {
  KcapiError,
  openSealed,
  type RangeSource,
  seal,
  type SealedFormat,
  type SealedReadOptions,
  type SealOptions,
} from "../mod.ts";
import { type Bytes, bytes, collect, concat, piecesOf } from "./support/bytes.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows, seed, times } from "./support/deps.ts";
import { type OpenedSegments, SegmentCache } from "../src/sealed/segment_cache.ts";
import { contractOf } from "./support/pool.ts";
import { caught, turns as turnsOfLoop } from "./support/promises.ts";
import { engineOf, KEY, NAME, SMALL, SMALL_GCM } from "./support/sealed_support.ts";

const { test, engine, pool, turns, outcomes } = await contractOf(import.meta.url);

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  return { key: KEY, associatedData: NAME, format, engine: engineOf(format, engine), pool };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));

/** A read that a source got. */
interface Asked {
  readonly start: number;
  readonly end: number;
  readonly signal: AbortSignal;
  answer(bytes?: Bytes): void;
  fail(error: unknown): void;
}

/** A source that notes its reads, and answers when it is told to, or at once. */
class Watched implements RangeSource {
  readonly size: number;
  readonly content: Bytes;
  readonly asked: Asked[] = [];
  readonly pending = new Set<Asked>();
  /** The most bytes that were under way at once. */
  most = 0;
  isSilent = false;
  /** Turns of the event loop that an answer takes. */
  latency: () => number = () => 0;

  constructor(content: Bytes) {
    this.content = content;
    this.size = content.length;
  }

  get underWay(): number {
    return [...this.pending].reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /** The ranges that were asked for since the last call. */
  take(): [number, number][] {
    return this.asked.splice(0).map(({ start, end }) => [start, end]);
  }

  read(start: number, end: number, { signal }: { signal: AbortSignal }): Promise<Bytes> {
    const { promise, resolve, reject } = Promise.withResolvers<Bytes>();
    const asked: Asked = {
      start,
      end,
      signal,
      answer: (bytes = this.content.slice(start, end)) => {
        this.pending.delete(asked);
        resolve(bytes);
      },
      fail: (error) => {
        this.pending.delete(asked);
        reject(error);
      },
    };
    signal.addEventListener("abort", () => asked.fail(signal.reason));
    this.asked.push(asked);
    this.pending.add(asked);
    this.most = Math.max(this.most, this.underWay);
    if (!this.isSilent) void turnsOfLoop(this.latency()).then(() => asked.answer());
    return promise;
  }
}

const HERE = { engine: "userspace" } as const;

const total = (ranges: readonly (readonly [number, number])[]) => ranges.reduce((sum, [a, b]) => sum + b - a, 0);

// ---- the same bytes, whatever the options ------------------------------------------------------------------------

const FORMATS: Record<string, SealedFormat> = {
  "segments of 128 bytes": SMALL,
  "segments of 112 bytes": SMALL_GCM,
  "4 KB": "AES256_CTR_HMAC_SHA256_4KB",
  "4 KB, GCM": "AES128_GCM_HKDF_4KB",
};

for (const [name, format] of Object.entries(FORMATS)) {
  const stride = typeof format === "string" ? 4096 : 112;
  test(`${name}: random ranges, several at once, are slices of the plaintext`, { engine: "userspace" }, async () => {
    const size = fc.oneof(fc.nat(3), fc.nat(12 * stride));
    const position = fc.integer({ min: -2 * stride, max: 12 * stride });
    const call = fc.record({ start: position, end: position, isStream: fc.boolean(), isSequential: fc.boolean() });
    const options = fc.record({
      readSize: fc.oneof(fc.integer({ min: 1, max: 4 * stride }), fc.constant(2 ** 20)),
      readAhead: fc.nat(4),
      cacheSize: fc.nat(3),
    });
    await fc.assert(
      fc.asyncProperty(
        size,
        options,
        fc.array(call, { maxLength: 12 }),
        fc.array(fc.nat(3), { minLength: 1 }),
        async (size, readOptions, calls, latencies) => {
          const input = bytes(size);
          const source = new Watched(await sealed(input, optionsOf(format)));
          let reads = 0;
          source.latency = () => latencies[reads++ % latencies.length]!;
          using reader = await openSealed(source, { ...optionsOf(format), ...readOptions });
          assertEquals([reader.size, reader.isSizeVerified], [size, true]);
          const running = calls.map(async ({ start, end, isStream, isSequential }) => {
            const expected = input.slice(start, end);
            if (isStream) return assertEquals(await collect(reader.stream({ start, end })), expected);
            const actual = await reader.bytes(start, end);
            assertEquals(actual, expected);
            actual.fill(0); // it is the caller's own: later reads do not find the zeros
            if (isSequential) assertEquals(await reader.bytes(end, end + 10), input.slice(end, end + 10));
          });
          await Promise.all(running);
          for (const { start, end } of calls) assertEquals(await reader.bytes(start, end), input.slice(start, end));
          assertEquals(source.pending.size, 0);
        },
      ),
      { numRuns: times(40, 300), seed },
    );
  });
}

test("what a stream gives is the reader's own: overwriting it changes no later read", async () => {
  const input = bytes(5000);
  using reader = await openSealed(new Watched(await sealed(input)), { ...optionsOf(), cacheSize: 3 });
  for (let i = 0; i < 3; i++) {
    for await (const chunk of piecesOf(reader.stream({ start: 100, end: 900 }))) chunk.fill(0);
    (await reader.bytes(-300)).fill(0);
    assertEquals(await reader.bytes(700, 1000), input.slice(700, 1000));
    assertEquals(await reader.bytes(), input);
  }
});

// ---- which reads the source gets ---------------------------------------------------------------------------------

const LARGE = "AES128_CTR_HMAC_SHA256_4KB";
const SEGMENT = 4096;
const large = await sealed(bytes(400 * SEGMENT), optionsOf(LARGE));
const input = bytes(400 * SEGMENT);
const opened = async (source: RangeSource, options: SealedReadOptions = {}) =>
  await openSealed(source, { ...optionsOf(LARGE), ...options });

test("opening reads header and end at once, and a small file in one read", async () => {
  const source = new Watched(large);
  source.isSilent = true;
  const opening = opened(source);
  await turns(3);
  const lastStart = SEGMENT * Math.floor((large.length - 1) / SEGMENT);
  assertEquals([...source.pending].map(({ start, end }) => [start, end]), [[0, 24], [lastStart, large.length]]);
  for (const asked of source.pending) asked.answer();
  (await opening).close();
  for (const size of [0, 1, 4000, 10_000]) {
    const small = new Watched(await sealed(input.slice(0, size), optionsOf(LARGE)));
    using reader = await opened(small);
    assertEquals(await reader.bytes(), input.slice(0, size));
    assertEquals(await collect(reader.stream()), input.slice(0, size));
    assertEquals(small.take(), [[0, small.size]]);
  }
});

test("a source that does not know its size is asked once for both ends", async () => {
  for (const size of [0, 1, 5000, 50_000]) {
    const content = await sealed(input.slice(0, size), optionsOf(LARGE));
    const watched = new Watched(content);
    const ends: [number, number][] = [];
    let known: number | undefined;
    const source: RangeSource = {
      get size() {
        return known;
      },
      read: (start, end, options) => watched.read(start, end, options),
      readEnds(head, tail) {
        ends.push([head, tail]);
        known = content.length;
        return Promise.resolve({
          size: known,
          head: content.slice(0, head),
          tail: content.slice(Math.max(0, content.length - tail)),
        });
      },
    };
    using reader = await opened(source);
    assertEquals([ends.length, watched.take()], [1, []]);
    assertEquals(await reader.bytes(), input.slice(0, size));
    assertEquals(ends.length, 1);
  }
});

test("bytes() of a large range reads neighboring segments at once, and several reads are under way", async () => {
  const source = new Watched(large);
  using reader = await opened(source, { readSize: 16 * SEGMENT, readAhead: 3 });
  source.take();
  source.isSilent = true;
  const reading = reader.bytes(0, 300 * SEGMENT);
  for (let read = 0; read < 18; read++) {
    // On a slow machine, the reader gives the event loop turns of its own.
    for (let i = 0; i < 100 && source.pending.size < Math.min(4, 18 - read); i++) await turns(1);
    assert(source.pending.size <= 4 && (source.pending.size === 4 || read > 14), `${source.pending.size} at once`);
    [...source.pending][0]!.answer();
  }
  source.isSilent = false;
  for (const asked of source.pending) asked.answer();
  assertEquals(await reading, input.slice(0, 300 * SEGMENT));
  const ranges = source.take();
  assert(ranges.every(([start, end]) => end - start <= 16 * SEGMENT), "no read is larger than readSize");
  assert(ranges.length <= 302 / 16 + 2, `${ranges.length} reads`);
  assertEquals(source.most <= 4 * 16 * SEGMENT, true, "bounded by the options");
});

test("stream() begins with a small read, grows, and reads ahead no more than the options say", async () => {
  const source = new Watched(large);
  using reader = await opened(source, { readSize: 96 * SEGMENT, readAhead: 2 });
  source.take();
  source.isSilent = true;
  const stream = reader.stream().getReader();
  const first = stream.read();
  await turns(3);
  const [[, firstEnd]] = [...source.pending].map(({ start, end }) => [start, end]) as [[number, number]];
  assertEquals([source.pending.size, firstEnd <= 64 * 1024], [1, true]);
  for (const asked of source.pending) asked.answer();
  assert((await first).value!.length > 0);
  await turns(3);
  assertEquals(source.pending.size, 0, "nobody asked for more");
  let at = (await first).value!.length;
  for (let next = stream.read();;) {
    await turns(3);
    assert(source.pending.size <= 3);
    [...source.pending].at(0)?.answer();
    const [outcome] = await outcomes(next);
    if (outcome!.state === "pending") continue;
    const { value, done } = await next;
    if (done) break;
    assertEquals(value, input.slice(at, at + value.length));
    at += value.length;
    next = stream.read();
  }
  assertEquals(at, input.length);
  const sizes = source.take().map(([start, end]) => end - start);
  assert(sizes.slice(0, 3).every((size, i) => i === 0 || size > sizes[i - 1]!), `${sizes} grow`);
  assert(Math.max(...sizes) <= 96 * SEGMENT);
});

test("small reads in sequence read each segment once, and fewer and fewer of them one by one", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  source.take();
  const end = 300 * SEGMENT;
  for (let i = 0; i < end; i += 1000) assertEquals(await reader.bytes(i, i + 1000), input.slice(i, i + 1000));
  const ranges = source.take();
  assert(total(ranges) <= 1.1 * end, `${total(ranges)} bytes for ${end}`);
  assert(ranges.length < 300 / 3, `${ranges.length} reads`);
});

test("a read elsewhere reads its own segment and no other", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  source.take();
  for (const at of [100, 20, 300, 200]) {
    assertEquals(await reader.bytes(at * SEGMENT, at * SEGMENT + 1), input.slice(at * SEGMENT, at * SEGMENT + 1));
    assertEquals(total(source.take()), SEGMENT);
  }
  for (let i = 0; i < 100 * SEGMENT; i += SEGMENT) await reader.bytes(i, i + SEGMENT);
  source.take();
  await reader.bytes(200 * SEGMENT, 200 * SEGMENT + 1);
  assertEquals(total(source.take()), SEGMENT, "also after a long sequence");
});

test("a read ahead of a sequence that fails is tried again by the next call", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  let at = 0;
  const next = () => reader.bytes(at, at + SEGMENT);
  for (; at < 100 * SEGMENT; at += SEGMENT) await next();
  source.isSilent = true;
  for (;;) {
    const reading = next();
    reading.catch(() => {});
    await turns(2);
    const [asked] = [...source.pending];
    if (!asked) {
      await reading;
      at += SEGMENT;
      continue;
    }
    assert(asked.end - asked.start > 2 * SEGMENT, "it reads ahead");
    asked.fail(new Error("the store is gone"));
    await assertRejects(() => reading, Error, "the store is gone");
    break;
  }
  source.isSilent = false;
  assertEquals(await next(), input.slice(at, at + SEGMENT));
});

test("a thousand reads of a byte in one segment, at once, are one read", async () => {
  for (const cacheSize of [0, 1]) {
    const source = new Watched(large);
    source.latency = () => 2;
    using reader = await opened(source, { cacheSize });
    source.take();
    const reads = Array.from({ length: 1000 }, (_, i) => reader.bytes(9000 + i, 9001 + i));
    assertEquals((await Promise.all(reads)).map(([byte]) => byte), [...input.slice(9000, 10_000)]);
    assertEquals(source.take().length, 1);
  }
});

if (engine === "webcrypto") {
  test("a thousand reads of a byte in one segment, at once, decrypt it once", async () => {
    using reader = await opened(new Watched(large), { cacheSize: 0 });
    const { subtle } = crypto;
    const decrypt = subtle.decrypt;
    let calls = 0;
    subtle.decrypt = (...args) => (calls++, decrypt.apply(subtle, args));
    try {
      await Promise.all(Array.from({ length: 1000 }, (_, i) => reader.bytes(9000 + i, 9001 + i)));
    } finally {
      subtle.decrypt = decrypt;
    }
    assertEquals(calls, 1);
  });
}

test("what a cancelled stream had opened ahead is not kept", async () => {
  const source = new Watched(large);
  using reader = await opened(source, { cacheSize: 0 });
  const stream = reader.stream().getReader();
  await stream.read();
  await stream.cancel();
  for (let segment = 0; segment < 15; segment++) {
    source.take();
    await reader.bytes(segment * (SEGMENT - 32), segment * (SEGMENT - 32) + 1);
    assertEquals(source.take().length, 1, `segment ${segment}`);
  }
});

test("cacheSize segments are kept, those that were opened last", async () => {
  for (const cacheSize of [0, 1, 3]) {
    const source = new Watched(large);
    using reader = await opened(source, { cacheSize });
    const readAt = async (segment: number) => {
      source.take();
      await reader.bytes(segment * SEGMENT, segment * SEGMENT + 1);
      return source.take().length;
    };
    for (const segment of [10, 30, 20]) assertEquals(await readAt(segment), 1);
    assertEquals(await readAt(20), cacheSize > 0 ? 0 : 1);
    assertEquals(await readAt(10), cacheSize === 3 ? 0 : 1);
    assertEquals(await readAt(50), 1);
    assertEquals(await readAt(30), 1, "it was opened first");
  }
});

test("no segment is under way twice: streams and large ranges share their reads", async () => {
  const source = new Watched(large);
  using reader = await opened(source, { readSize: 8 * SEGMENT });
  source.isSilent = true;
  source.take();
  const ranges = [[60_000, 500_000], [50_000, 500_000], [0, 100_000], [20_000, 200_000]] as const;
  const streams = [reader.stream(), reader.stream({ start: 45_000 })];
  const reading = [
    ...ranges.map(([start, end]) => reader.bytes(start, end)),
    ...streams.map((stream) => collect(stream)),
  ];
  await turns(3);
  const asked = [...source.pending].sort((a, b) => a.start - b.start);
  assert(asked.length > 4);
  for (let i = 1; i < asked.length; i++) assert(asked[i]!.start >= asked[i - 1]!.end, "none overlaps another");
  source.isSilent = false;
  for (const each of asked) each.answer();
  const expected = [...ranges.map(([start, end]) => input.slice(start, end)), input, input.slice(45_000)];
  assertEquals(await Promise.all(reading), expected);
});

test("a segment that is kept is not read again with its neighbors", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  await reader.bytes(50_000, 50_001);
  source.take();
  const [start, end] = [40_000, 60_000];
  assertEquals(await reader.bytes(start, end), input.slice(start, end));
  assertEquals(source.take().length, 2, "before it, and after it");
});

// ---- what ends a read --------------------------------------------------------------------------------------------

/** What aborts the reads of a file, and the reason that the source is told. */
const ENDS: Record<string, boolean> = { "cancel()": false, "close()": true, "the signal": true };

for (const [how, isClosed] of Object.entries(ENDS)) {
  test(`${how} ends all reads that are under way, at every point`, async () => {
    for (let answered = 0; answered < 6; answered++) {
      const source = new Watched(large);
      const controller = new AbortController();
      const options = { ...optionsOf(LARGE), readSize: 8 * SEGMENT, signal: controller.signal };
      const reader = await openSealed(source, options);
      source.isSilent = true;
      source.take();
      const stream = reader.stream().getReader();
      let pending = stream.read();
      for (let i = 0; i <= answered;) {
        pending.catch(() => {});
        const [outcome] = await outcomes(pending);
        if (outcome!.state === "fulfilled") pending = stream.read();
        else if (i++ < answered) [...source.pending].at(0)!.answer();
      }
      const asked = [...source.pending];
      assert(asked.length > 0, `after ${answered}`);
      const reason = new Error("enough");
      if (how === "cancel()") await stream.cancel(reason);
      else if (how === "close()") reader.close();
      else controller.abort(reason);
      assert(asked.every(({ signal }) => signal.aborted), "the source is told");
      assertEquals(source.pending.size, 0);
      source.take();
      await turns(3);
      assertEquals(source.take(), [], "nothing is asked for any more");
      source.isSilent = false;
      if (!isClosed) assertEquals(await reader.bytes(5, 10), input.slice(5, 10));
      else assert(await caught(reader.bytes(5, 10)) instanceof Error);
      if (how === "the signal") assertStrictEquals(await caught(pending), reason);
      reader.close();
    }
  });
}

test("a stream that is cancelled does not end the reads that others share with it", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  source.isSilent = true;
  source.take();
  const stream = reader.stream();
  const first = stream.getReader();
  void first.read().catch(() => {});
  await turns(2);
  const reading = reader.bytes(0, 10);
  await turns(2);
  assertEquals(source.take().length, 1);
  await first.cancel();
  const [asked] = [...source.pending];
  assert(!asked!.signal.aborted);
  asked!.answer();
  assertEquals(await reading, input.slice(0, 10));
});

test("a signal ends an opening, at every point", async () => {
  const one = { ...optionsOf(LARGE) };
  const several = { ...one, key: [bytes(32, 3), KEY] };
  for (const options of [one, several]) {
    for (let answered = 0; answered < 2; answered++) {
      const source = new Watched(large);
      source.isSilent = true;
      const controller = new AbortController();
      const opening = openSealed(source, { ...options, signal: controller.signal });
      opening.catch(() => {});
      await turns(3);
      for (const asked of [...source.pending].slice(0, answered)) asked.answer();
      await turns(3);
      const asked = [...source.pending];
      controller.abort(new Error("enough"));
      assertStrictEquals(await caught(opening), controller.signal.reason);
      assert(asked.every(({ signal }) => signal.aborted));
    }
  }
});

// ---- sources that lie, fail, stall and change --------------------------------------------------------------------

test("a read that fails fails the calls that wait for it, and is tried again by the next call", async () => {
  const source = new Watched(large);
  using reader = await opened(source);
  source.isSilent = true;
  const [a, b] = [reader.bytes(0, 1), reader.bytes(1, 2)];
  const stream = reader.stream();
  const first = stream.getReader().read();
  for (const each of [a, b, first]) each.catch(() => {});
  await turns(3);
  const failure = new Error("the store is gone");
  for (const asked of source.pending) asked.fail(failure);
  for (const each of [a, b, first]) assertStrictEquals(await caught(each), failure);
  source.isSilent = false;
  assertEquals(await reader.bytes(0, 2), input.slice(0, 2));
});

test("verified bytes in front of a failed or damaged read come out of a stream first", async () => {
  const damaged = large.slice();
  damaged[100 * SEGMENT + 5]! ^= 1;
  for (const readSize of [1, 8 * SEGMENT, 2 ** 20]) {
    using reader = await opened(new Watched(damaged), { readSize });
    const seen: Uint8Array[] = [];
    const error = await caught((async () => {
      for await (const chunk of piecesOf(reader.stream())) seen.push(chunk);
    })());
    assertEquals((error as KcapiError).code, "EBADMSG");
    const length = seen.reduce((sum, { length }) => sum + length, 0);
    assertEquals(length, 100 * (SEGMENT - 32) - 24);
    assertEquals(concat(seen), input.slice(0, length));
  }
});

test("a source that gives too few bytes, too many, or changes its size in the middle is EIO", async () => {
  const lies: Record<string, (asked: Asked, source: Watched) => void> = {
    less: (asked) => asked.answer(large.slice(asked.start, asked.end - 1)),
    more: (asked) => asked.answer(large.slice(asked.start, asked.end + 1)),
    grows: (asked, source) => {
      (source as { size: number }).size++;
      asked.answer();
    },
  };
  for (const [what, lie] of Object.entries(lies)) {
    const source = new Watched(large);
    using reader = await opened(source, { readSize: 8 * SEGMENT });
    source.isSilent = true;
    const reading = reader.bytes();
    reading.catch(() => {});
    for (let i = 0; i < 10; i++) {
      await turns(2);
      const [asked] = [...source.pending];
      if (i < 9) asked!.answer();
      else lie(asked!, source);
    }
    assertEquals((await assertRejects(() => reading, KcapiError)).code, "EIO", what);
    assertEquals(source.pending.size, 0, "the other reads are ended");
  }
});

test("a source that swaps, repeats or shifts segments is EBADMSG, and nothing of them comes out", async () => {
  const swapped = large.slice();
  swapped.copyWithin(20 * SEGMENT, 30 * SEGMENT, 31 * SEGMENT);
  using reader = await opened(new Watched(swapped));
  assertEquals((await assertRejects(() => reader.bytes(), KcapiError)).code, "EBADMSG");
  const from = 20 * (SEGMENT - 32) - 24;
  assertEquals((await assertRejects(() => reader.bytes(from, from + 1), KcapiError)).code, "EBADMSG");
  assertEquals(await reader.bytes(from - 1, from), input.slice(from - 1, from));
});

test("a size that changes while the file is opened is EIO", async () => {
  const source = new Watched(large);
  source.isSilent = true;
  const opening = opened(source);
  opening.catch(() => {});
  await turns(2);
  (source as { size: number }).size++;
  for (const asked of source.pending) asked.answer();
  assertEquals((await assertRejects(() => opening, KcapiError)).code, "EIO");
});

// ---- what is kept ------------------------------------------------------------------------------------------------

/** Opened segment `index`, used by one caller. */
const openedSegment = (index: number): OpenedSegments => ({
  first: index,
  end: index + 1,
  result: { bytes: bytes(10, index + 1) },
  opening: undefined,
  users: 1,
  isKept: false,
});
const isZero = ({ result }: OpenedSegments) => result!.bytes.every((byte) => byte === 0);

test("SegmentCache: a segment is zeroed when it is neither used nor among the last", HERE, () => {
  const cache = new SegmentCache(2);
  const segments = [0, 1, 2, 3].map(openedSegment);
  for (const segment of segments) cache.add(segment);
  assertStrictEquals(cache.use(0), segments[0]);
  for (const segment of segments.slice(0, 3)) cache.release(segment);
  assertEquals(segments.map(isZero), [false, false, false, false], "0 and 3 are in use, 1 and 2 are kept");
  assertStrictEquals(cache.use(1), segments[1]);
  cache.release(segments[1]!);
  cache.release(segments[0]!);
  assertEquals(segments.map(isZero), [false, false, true, false], "2 was released first");
  assertEquals([0, 1, 2, 3].map((index) => cache.has(index)), [true, true, false, true]);
  cache.close();
  assertEquals(segments.map(isZero), [true, true, true, true]);
  cache.release(segments[3]!);
  assertEquals(cache.has(3), false);
});

test("SegmentCache: memory is given away only by its one user, and not if it was kept", HERE, () => {
  const cache = new SegmentCache(1);
  const [given, shared, kept, failed] = [0, 1, 2, 3].map(openedSegment) as [
    OpenedSegments,
    OpenedSegments,
    OpenedSegments,
    OpenedSegments,
  ];
  for (const segment of [given, shared, kept, failed]) cache.add(segment);
  cache.use(1);
  assertEquals([cache.give(given), cache.give(shared)], [true, false]);
  cache.release(kept);
  cache.use(2);
  assertEquals([cache.give(kept), cache.has(0)], [false, false]);
  failed.result = { bytes: failed.result!.bytes, error: new Error("damaged") };
  cache.release(failed);
  assertEquals([cache.has(3), isZero(failed)], [false, true]);
  cache.close();
  assertEquals([given, shared, kept].map(isZero), [false, true, true]);
});

test("close() zeroes the segments that a reader has kept", async () => {
  const source = new Watched(large);
  const reader = await opened(source, { cacheSize: 2 });
  await reader.bytes(50_000, 50_001);
  const zeroed: Bytes[] = [];
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;
  const { fill } = typedArray;
  typedArray.fill = function (this: Bytes, ...args) {
    zeroed.push(this.slice());
    return fill.apply(this, args) as Bytes;
  };
  try {
    reader.close();
  } finally {
    typedArray.fill = fill;
  }
  const start = 12 * (SEGMENT - 32) - 24;
  for (const at of [start, input.length - (input.length + 24) % (SEGMENT - 32)]) {
    const segment = input.slice(at, at + SEGMENT - 32);
    const isSame = (each: Bytes) => each.length === segment.length && each.every((byte, i) => byte === segment[i]);
    assert(zeroed.some(isSame), `the segment at ${at}`);
  }
});

// ---- options -----------------------------------------------------------------------------------------------------

test("wrong options are refused by name", async () => {
  const source = new Watched(large);
  const bad: [Record<string, unknown>, typeof TypeError | typeof RangeError, string][] = [
    [{ readSize: 0 }, RangeError, '"readSize" expected an integer of at least 1, got 0'],
    [{ readSize: "1" }, TypeError, '"readSize" expected a number, got string'],
    [{ readAhead: -1 }, RangeError, '"readAhead"'],
    [{ readAhead: 1.5 }, RangeError, '"readAhead"'],
    [{ cacheSize: NaN }, RangeError, '"cacheSize"'],
    [{ allowDamage: 1 }, TypeError, '"allowDamage" expected a boolean, got number'],
    [{ readsize: 1 }, TypeError, 'did you mean "readSize"'],
  ];
  for (const [options, type, text] of bad) await assertRejects(() => opened(source, options), type, text);
  assertEquals(source.take(), []);
  assertThrows(() => seal({ ...optionsOf(), readSize: 1 } as SealOptions, input), TypeError, "readSize");
});
