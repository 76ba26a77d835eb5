/**
 * Several keys for one sealed stream: lists of keys, and keysets. Browsers run it, too.
 */
import { KcapiError, openSealed, seal, type SealedFormatName, SealStream, unseal, UnsealStream } from "../mod.ts";
import { createKeyset } from "../src/tink/mod.ts";
import { assert, assertEquals, assertRejects, assertThrows, engine, test } from "./support/deps.ts";
import { type Bytes, bytes, collect, cut } from "./support/bytes.ts";
import { engineOf } from "./support/sealed_support.ts";

const keys = [1, 2, 3, 4].map((seed) => bytes(32, seed));
const stranger = bytes(32, 5);

const SIZES = [0, 1, 4024, 4025, 4026, 8120, 100_000];

for (const format of ["AES256_CTR_HMAC_SHA256_4KB", "AES256_GCM_HKDF_4KB"] as const) {
  const choice = engineOf(format, engine);

  test(`${format}: any key of a list opens, for any size and chunks`, async () => {
    for (const size of SIZES) {
      const data = bytes(size);
      for (const [index, key] of keys.entries()) {
        const sealed = await collect(seal({ key, format, engine: choice }, data));
        const options = { key: keys, format, engine: choice };
        for (const chunk of [17, 5000]) assertEquals(await collect(unseal(options, cut(sealed, [chunk]))), data);
        using reader = await openSealed(new Blob([sealed]), options);
        assertEquals([reader.size, reader.keyIndex], [size, index]);
        assertEquals(await reader.bytes(), data);
      }
    }
  });
}

test("the first key of a list seals", async () => {
  const sealed = await collect(seal({ key: keys }, bytes(1000)));
  assertEquals(await collect(unseal({ key: keys[0]! }, sealed)), bytes(1000));
  const blob = new Blob([bytes(1000)]).stream().pipeThrough(new SealStream({ key: keys }));
  const plaintext = (blob as ReadableStream<Bytes>).pipeThrough(new UnsealStream({ key: [stranger, keys[0]!] }));
  assertEquals(await collect(plaintext), bytes(1000));
});

test("if no key fits, the error is that of one key, and there is no output", async () => {
  const sealed = await collect(seal({ key: stranger }, bytes(200_000)));
  const one = await assertRejects(() => collect(unseal({ key: keys[0]! }, sealed)), KcapiError);
  for (
    const attempt of [
      () => collect(unseal({ key: keys }, sealed)),
      () => openSealed(new Blob([sealed]), { key: keys }),
    ]
  ) {
    const error = await assertRejects(attempt as () => Promise<unknown>, KcapiError);
    assertEquals([error.code, error.detail], [one.code, one.detail]);
  }
});

test("damage and truncation are EBADMSG with several keys, too, after the verified output before them", async () => {
  const format: SealedFormatName = "AES256_CTR_HMAC_SHA256_4KB";
  const data = bytes(10_000);
  const sealed = await collect(seal({ key: keys[2]!, format }, data));
  async function outputOf(input: Bytes): Promise<[length: number, code: unknown]> {
    let length = 0;
    try {
      for await (const chunk of unseal({ key: keys, format }, input)) length += chunk.length;
      return [length, undefined];
    } catch (error) {
      return [length, (error as KcapiError).code];
    }
  }
  assertEquals(await outputOf(sealed), [10_000, undefined]);
  for (const length of [0, 1, 39, 40, 71, 72, 4095]) {
    assertEquals(await outputOf(sealed.slice(0, length)), [0, "EBADMSG"], `cut at ${length}`);
  }
  assertEquals(await outputOf(sealed.slice(0, 4096)), [4024, "EBADMSG"], "cut at the end of the first segment");
  assertEquals(await outputOf(sealed.slice(0, 4097)), [4024, "EBADMSG"]);
  for (const [at, length] of [[0, 0], [50, 0], [5000, 4024], [9000, 8088]] as const) {
    const damaged = sealed.slice();
    damaged[at]! ^= 1;
    assertEquals(await outputOf(damaged), [length, "EBADMSG"], `damaged at ${at}`);
  }
});

test("100 keys cost one derivation each, and the last one opens", async () => {
  const many = Array.from({ length: 100 }, (_, i) => bytes(32, 10 + i));
  const sealed = await collect(seal({ key: many[99]! }, bytes(1000)));
  using reader = await openSealed(new Blob([sealed]), { key: many });
  assertEquals(reader.keyIndex, 99);
});

test("a keyset opens with every enabled key, each in its own format, and seals with the primary one", async () => {
  using keyset = createKeyset("AES256_CTR_HMAC_SHA256_4KB");
  const formats: SealedFormatName[] = [
    "AES128_GCM_HKDF_1MB",
    "AES256_CTR_HMAC_SHA256_64KB",
    "AES128_CTR_HMAC_SHA256_4KB",
  ];
  const sealed = [await collect(seal({ keyset }, bytes(50_000)))];
  for (const format of formats) {
    keyset.promote(keyset.add(format));
    sealed.push(await collect(seal({ keyset }, bytes(50_000))));
  }
  for (const [i, file] of sealed.entries()) {
    assertEquals(await collect(unseal({ keyset }, cut(file, [10_000]))), bytes(50_000));
    using reader = await openSealed(new Blob([file]), { keyset });
    assertEquals([reader.size, reader.keyIndex], [50_000, i]);
  }
  const { id } = keyset.keys[1]!;
  keyset.disable(id);
  await assertRejects(() => openSealed(new Blob([sealed[1]!]), { keyset }), KcapiError, "EBADMSG");
  keyset.enable(id);
  (await openSealed(new Blob([sealed[1]!]), { keyset })).close();
});

test("a stream of a keyset continues when the keyset is closed", async () => {
  const keyset = createKeyset("AES256_GCM_HKDF_4KB");
  const sealed = await collect(seal({ keyset }, bytes(10_000)));
  const stream = new UnsealStream({ keyset });
  keyset.close();
  const source = new Blob([sealed]).stream() as ReadableStream<Bytes>;
  assertEquals(await collect(source.pipeThrough(stream)), bytes(10_000));
});

test("wrong keys and keysets are refused by name, before anything is opened", () => {
  using keyset = createKeyset("AES256_GCM_HKDF_4KB");
  const cases: [options: unknown, error: typeof TypeError, message: string][] = [
    [{ key: [] }, TypeError, "at least one key"],
    [{ key: [keys[0], new Uint8Array(31)] }, RangeError, '"key[1]"'],
    [{ key: [keys[0], "key"] }, TypeError, '"key[1]"'],
    [{ key: [keys[0], new Uint8Array(32)] }, RangeError, '"key[1]"'],
    [{ keyset, key: keys[0] }, TypeError, '"keyset"'],
    [{ keyset, format: "AES256_GCM_HKDF_4KB" }, TypeError, '"keyset"'],
    [{ keyset: keyset.toJSON() }, TypeError, '"keyset"'],
    [{ keyset, engine: "kernel" }, TypeError, '"engine"'],
  ];
  for (const [options, error, message] of cases) {
    for (const Stream of [SealStream, UnsealStream]) {
      assertThrows(() => new Stream(options as { key: Bytes }), error, message);
    }
  }
});

test("a reader that is aborted while keys are tried rejects with the reason", async () => {
  const controller = new AbortController();
  const source = { size: 1000, read: () => new Promise<Bytes>(() => {}) };
  const opening = openSealed(source, { key: keys, signal: controller.signal });
  const reason = new Error("enough");
  controller.abort(reason);
  assertEquals(await opening.catch((error) => error), reason);
  assert(true);
});
