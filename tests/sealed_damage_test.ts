/**
 * Damaged sealed files: what `verify()` tells, and what `allowDamage` makes readable. Whatever is damaged, cut or
 * added, nothing comes out but what was sealed, at its position. Browsers run it, too.
 */
import fc from "fast-check";
import {
  type ByteRange,
  KcapiError,
  openSealed,
  type RangeSource,
  seal,
  type SealedFormat,
  type SealedParameters,
  type SealedReader,
  type SealedReadOptions,
  type SealOptions,
} from "../mod.ts";
import { type Bytes, bytes, collect, concat } from "./support/bytes.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, seed, times } from "./support/deps.ts";
import { contractOf } from "./support/pool.ts";
import { caught } from "./support/promises.ts";
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

const { test, engine, pool, turns } = await contractOf(import.meta.url);

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  return { key: KEY, associatedData: NAME, format, engine: engineOf(format, engine), pool };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));
const rescue = (content: Bytes | RangeSource, format: SealedFormat = SMALL, options: SealedReadOptions = {}) =>
  openSealed(content instanceof Uint8Array ? new Blob([content]) : content, {
    ...optionsOf(format),
    allowDamage: true,
    ...options,
  });

/** The plaintext of segment `index` of a file of `size` bytes. */
function rangeOf(index: number, size: number): ByteRange {
  const start = index === 0 ? 0 : FIRST + (index - 1) * STRIDE;
  return { start: Math.min(start, size), end: Math.min(FIRST + index * STRIDE, size) };
}

/** The position of segment `index` in a sealed file. */
const startOf = (index: number, { segmentSize }: SealedParameters) => index === 0 ? HEADER : index * segmentSize;

/** The ranges of damaged segments, neighboring ones as one. */
function rangesOf(damaged: readonly number[], size: number): ByteRange[] {
  const ranges: ByteRange[] = [];
  for (const range of [...damaged].sort((a, b) => a - b).map((index) => rangeOf(index, size))) {
    const last = ranges.at(-1);
    if (last?.end === range.start) ranges[ranges.length - 1] = { start: last.start, end: range.end };
    else ranges.push(range);
  }
  return ranges;
}

/** Expects that each segment can be read, or is EBADMSG, and that a longer range is as good as its segments. */
async function assertReadable(reader: SealedReader, input: Bytes, segments: number, damaged: readonly number[]) {
  for (let index = 0; index < segments; index++) {
    const { start, end } = rangeOf(index, reader.size);
    if (start === end) continue;
    if (damaged.includes(index)) {
      assertEquals((await assertRejects(() => reader.bytes(start, end), KcapiError)).code, "EBADMSG");
      assertEquals((await assertRejects(() => reader.bytes(start), KcapiError)).code, "EBADMSG");
    } else {
      assertEquals(await reader.bytes(start, end), input.slice(start, end));
      assertEquals(await collect(reader.stream({ start, end })), input.slice(start, end));
    }
  }
}

const FORMATS = { "AES-CTR-HMAC": SMALL, "AES-GCM-HKDF": SMALL_GCM } as const;
const READ_OPTIONS = fc.record({ readSize: fc.oneof(fc.nat(500).map((n) => n + 1), fc.constant(2 ** 20)) });

for (const [name, format] of Object.entries(FORMATS)) {
  test(
    `${name}: verify() tells the damaged segments, and the others can be read`,
    { engine: "userspace" },
    async () => {
      const size = fc.oneof(
        fc.nat(2),
        fc.constantFrom(FIRST, FIRST + 1, FIRST + STRIDE, FIRST + 9 * STRIDE),
        fc.nat(1500),
      );
      const damage = fc.array(fc.tuple(fc.nat(15), fc.nat()), { maxLength: 6 });
      await fc.assert(
        fc.asyncProperty(size, damage, READ_OPTIONS, fc.boolean(), async (size, damage, readOptions, knowsSize) => {
          const input = bytes(size);
          const content = await sealed(input, optionsOf(format));
          const segments = Math.max(1, Math.ceil((size + HEADER) / STRIDE));
          const changes = new Map(damage.map(([index, at]) => [index % segments, at]));
          for (const [index, at] of changes) {
            const start = startOf(index, format);
            const length = Math.min(startOf(index + 1, format), content.length) - start;
            content[start + at % length]! ^= 1 + at % 255;
          }
          const damaged = [...changes.keys()];
          const source = knowsSize ? content : learningSource(content);
          using reader = await rescue(source, format, readOptions);
          assertEquals(reader.size, size);
          assertEquals(reader.isSizeVerified, !damaged.includes(segments - 1));
          assertEquals(await reader.verify(), {
            isIntact: damaged.length === 0,
            damaged: rangesOf(damaged, size),
          });
          await assertReadable(reader, input, segments, damaged);
        }),
        { numRuns: times(60, 500), seed },
      );
    },
  );

  test(`${name}: a file that was cut anywhere gives its whole segments`, { engine: "userspace" }, async () => {
    for (const size of [0, 5, FIRST, FIRST + 1, FIRST + 3 * STRIDE, FIRST + 3 * STRIDE + 50]) {
      const input = bytes(size);
      const content = await sealed(input, optionsOf(format));
      for (let cut = 0; cut <= content.length; cut += cut % 7 === 0 ? 1 : 3) {
        const part = content.slice(0, cut);
        if (cut < HEADER) {
          assertEquals((await assertRejects(() => rescue(part, format), KcapiError)).code, "EBADMSG");
          continue;
        }
        using reader = await rescue(part, format);
        const whole = Math.floor(cut / format.segmentSize);
        assertEquals(reader.isSizeVerified, cut === content.length, `${cut} of ${content.length}`);
        const readable = cut === content.length ? size : whole === 0 ? 0 : rangeOf(whole - 1, size).end;
        assertEquals(await reader.bytes(0, readable), input.slice(0, readable));
        const { isIntact, damaged } = await reader.verify();
        assertEquals(isIntact, cut === content.length);
        if (reader.size > readable) assertEquals(damaged, [{ start: readable, end: reader.size }]);
        for (let at = readable; at < reader.size; at += 10) {
          assertEquals((await assertRejects(() => reader.bytes(at, at + 1), KcapiError)).code, "EBADMSG");
        }
        if (cut < content.length) {
          await assertRejects(() => openSealed(new Blob([part]), optionsOf(format)), KcapiError);
        }
      }
    }
  });

  test(
    `${name}: of a file that was extended, all but a shorter last segment can be read`,
    { engine: "userspace" },
    async () => {
      for (const size of [0, 5, FIRST, FIRST + 2 * STRIDE, FIRST + 2 * STRIDE + 50]) {
        const input = bytes(size);
        const content = await sealed(input, optionsOf(format));
        for (const added of [1, 10, 40, 200, 500]) {
          using reader = await rescue(concat([content, bytes(added, 5)]), format);
          const isFull = content.length % format.segmentSize === 0;
          const readable = isFull ? size : rangeOf(Math.floor(content.length / format.segmentSize), size).start;
          assertEquals(await reader.bytes(0, readable), input.slice(0, readable));
          const { isIntact, damaged } = await reader.verify();
          assertEquals(isIntact, false);
          assertEquals(damaged.length, reader.size > readable || size === 0 ? 1 : 0);
          // Less than a tag is no segment: if the last one is in its place, the size is right, and verified.
          assertEquals(reader.isSizeVerified, isFull && added < format.tagSize);
          if (reader.isSizeVerified) assertEquals(reader.size, size);
        }
      }
    },
  );
}

const input = bytes(FIRST + 9 * STRIDE + 50);
const content = await sealed(input);
const SEGMENTS = 11;

test("a damaged salt or nonce prefix damages everything, and a damaged length only the file", async () => {
  for (let at = 0; at < HEADER; at++) {
    const damaged = content.slice();
    damaged[at]! ^= 128;
    using reader = await rescue(damaged);
    const { isIntact, damaged: ranges } = await reader.verify();
    assertEquals(isIntact, false);
    assertEquals(ranges, at === 0 ? [] : [{ start: 0, end: input.length }]);
    assertEquals(reader.isSizeVerified, at === 0);
    if (at === 0) assertEquals(await reader.bytes(), input);
    else assertEquals((await assertRejects(() => reader.bytes(0, 1), KcapiError)).code, "EBADMSG");
    await assertRejects(() => openSealed(new Blob([damaged]), optionsOf()), KcapiError);
  }
});

test("of several keys, the one is found that fits any intact segment", async () => {
  const keys = [bytes(32, 7), KEY, bytes(32, 8)];
  for (let intact = 0; intact < SEGMENTS; intact++) {
    const damaged = content.slice();
    for (let index = 0; index < SEGMENTS; index++) if (index !== intact) damaged[startOf(index, SMALL) + 3]! ^= 1;
    using reader = await openSealed(new Blob([damaged]), { ...optionsOf(), key: keys, allowDamage: true });
    assertEquals(reader.keyIndex, 1);
    const { start, end } = rangeOf(intact, input.length);
    assertEquals(await reader.bytes(start, end), input.slice(start, end));
  }
  const foreign = await sealed(input, { ...optionsOf(), key: bytes(32, 9) });
  const options = { ...optionsOf(), key: keys, allowDamage: true };
  assertEquals((await assertRejects(() => openSealed(new Blob([foreign]), options), KcapiError)).code, "EBADMSG");
});

test("with a wrong key or other associated data, nothing comes out", async () => {
  for (const other of [{ key: bytes(32, 9) }, { associatedData: bytes(3) }]) {
    using reader = await openSealed(new Blob([content]), { ...optionsOf(), ...other, allowDamage: true });
    assertEquals(await reader.verify(), { isIntact: false, damaged: [{ start: 0, end: input.length }] });
    assertEquals((await assertRejects(() => reader.bytes(5, 6), KcapiError)).code, "EBADMSG");
  }
});

test("segments that were swapped, repeated or taken from another file are damaged", async () => {
  const other = await sealed(bytes(input.length, 3));
  const at = (index: number) => startOf(index, SMALL);
  const changes: Record<string, [(bytes: Bytes) => void, number[]]> = {
    swapped: [(bytes) => {
      bytes.set(content.slice(at(3), at(4)), at(5));
      bytes.set(content.slice(at(5), at(6)), at(3));
    }, [3, 5]],
    repeated: [(bytes) => bytes.set(content.slice(at(3), at(4)), at(4)), [4]],
    foreign: [(bytes) => bytes.set(other.slice(at(1), at(3)), at(1)), [1, 2]],
  };
  for (const [what, [change, damaged]] of Object.entries(changes)) {
    const changed = content.slice();
    change(changed);
    using reader = await rescue(changed);
    assertEquals((await reader.verify()).damaged, rangesOf(damaged, input.length), what);
    await assertReadable(reader, input, SEGMENTS, damaged);
  }
});

test("verify() reads everything again: it finds what was damaged after it was read", async () => {
  const stored = content.slice();
  const source = { size: stored.length, read: (a: number, b: number) => Promise.resolve(stored.slice(a, b)) };
  using reader = await openSealed(source, { ...optionsOf(), cacheSize: 100 });
  assertEquals(await reader.bytes(), input);
  assertEquals(await reader.verify(), { isIntact: true, damaged: [] });
  for (const index of [0, 4, SEGMENTS - 1]) stored[startOf(index, SMALL) + 9]! ^= 1;
  assertEquals(await reader.verify(), {
    isIntact: false,
    damaged: rangesOf([0, 4, SEGMENTS - 1], input.length),
  });
  if (!pool) assertEquals(await reader.bytes(), input, "what is kept was verified");
});

test("onProgress is told how much was checked, damage included, and an error in it ends the verification", async () => {
  const damaged = content.slice();
  damaged[startOf(2, SMALL)]! ^= 1;
  using reader = await rescue(damaged, SMALL, { readSize: 300 });
  const told: [number, number][] = [];
  await reader.verify({ onProgress: (checked, size) => told.push([checked, size]) });
  assert(told.length > 3);
  assert(told.every(([checked], i) => i === 0 || checked > told[i - 1]![0]));
  assertEquals(told.at(-1), [input.length, input.length]);
  const failure = new Error("no more");
  const onProgress = () => {
    throw failure;
  };
  assertStrictEquals(await caught(reader.verify({ onProgress })), failure);
  assertEquals(await reader.bytes(0, 5), input.slice(0, 5));
});

test("a signal ends verify() and its reads, and leaves the reader open; close() ends it with ECANCELED", async () => {
  const aborted: AbortSignal[] = [];
  let isSilent = false;
  const source = {
    size: content.length,
    read(start: number, end: number, { signal }: { signal: AbortSignal }) {
      if (!isSilent) return Promise.resolve(content.slice(start, end));
      aborted.push(signal);
      return new Promise<Bytes>(() => {});
    },
  };
  const reader = await openSealed(source, { ...optionsOf(), readSize: 256 });
  for (const way of ["before", "signal", "close"]) {
    isSilent = true;
    aborted.length = 0;
    const controller = new AbortController();
    const reason = new Error("enough");
    if (way === "before") controller.abort(reason);
    const verifying = reader.verify({ signal: controller.signal });
    verifying.catch(() => {});
    await turns(3);
    if (way === "signal") controller.abort(reason);
    if (way === "close") reader.close();
    const error = await caught(verifying);
    if (way === "close") assertEquals((error as KcapiError).code, "ECANCELED");
    else assertStrictEquals(error, reason);
    assert(aborted.every(({ aborted }) => aborted), way);
    if (way === "signal") assert(aborted.length > 1, "several reads were under way");
    isSilent = false;
    if (way !== "close") assertEquals(await reader.bytes(5, 9), input.slice(5, 9));
  }
  assertEquals(((await caught(reader.verify())) as KcapiError).code, "EBADF");
});

test("an error of the source is no damage, and options of verify() are checked", async () => {
  const failure = new Error("the disk is gone");
  let reads = 0;
  const source = {
    size: content.length,
    read: (a: number, b: number) => reads++ < 4 ? Promise.resolve(content.slice(a, b)) : Promise.reject(failure),
  };
  using reader = await openSealed(source, { ...optionsOf(), readSize: 256 });
  assertStrictEquals(await caught(reader.verify()), failure);
  const bad = [[{ signal: 1 }, '"signal"'], [{ onProgress: 1 }, '"onProgress" expected a function'], [{ x: 1 }, '"x"']];
  for (const [options, text] of bad) {
    await assertRejects(() => reader.verify(options as object), TypeError, text as string);
  }
});
