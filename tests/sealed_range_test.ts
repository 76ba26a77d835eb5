/**
 * `sealedRange()`: the bytes that it names are enough, and no byte too many. Browsers run it, too.
 */
import fc from "fast-check";
import { openSealed, seal, type SealedFormat, sealedRange, sealedSize } from "../mod.ts";
import { assertEquals, assertThrows, test } from "./support/deps.ts";
import { bytes, collect } from "./support/bytes.ts";

const FORMATS: SealedFormat[] = [
  "AES256_CTR_HMAC_SHA256_4KB",
  "AES128_GCM_HKDF_4KB",
  { cipher: "AES-CTR-HMAC", keySize: 16, hkdfHash: "SHA-1", macHash: "SHA-1", tagSize: 10, segmentSize: 36 },
];
const key = bytes(32, 7);

for (const format of FORMATS) {
  const name = typeof format === "string" ? format : "segments of 36 bytes";
  test(
    `${name}: a reader needs the bytes that sealedRange() names, and no others`,
    { engine: "userspace" },
    async () => {
      const position = fc.integer({ min: -6000, max: 12_000 });
      await fc.assert(
        fc.asyncProperty(
          fc.nat(10_000),
          position,
          fc.option(position, { nil: undefined }),
          async (size, start, end) => {
            const data = bytes(size);
            const sealed = await collect(seal({ key, format }, data));
            const range = sealedRange(start, end, sealed.length, format);
            const asked: [number, number][] = [];
            using reader = await openSealed({
              size: sealed.length,
              read: (from: number, to: number) => (asked.push([from, to]), Promise.resolve(sealed.slice(from, to))),
            }, { key, format, readSize: 1, cacheSize: 0 });
            asked.length = 0;
            assertEquals(await reader.bytes(start, end), data.slice(start, end));
            if (asked.length === 0) assertEquals(range.start, range.end);
            else assertEquals({ ...range }, { start: asked[0]![0], end: asked.at(-1)![1] });
          },
        ),
        { numRuns: 60 },
      );
    },
  );
}

test("sealedRange() refuses what openSealed() would", { engine: "userspace" }, () => {
  assertThrows(() => sealedRange(0, 1, 71), RangeError, '"sealedSize"');
  assertThrows(() => sealedRange("0" as unknown as number, 1, 72), TypeError, '"start"');
  assertThrows(() => sealedRange(0, 1, 72, "AES" as "AES256_GCM_HKDF_4KB"), TypeError, '"format"');
  assertEquals(sealedRange(0, undefined, sealedSize(0)), { start: 40, end: 40 });
});
