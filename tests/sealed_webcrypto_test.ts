/**
 * What is particular to sealed streams over WebCrypto: keys that are a CryptoKey, other engines open what it seals, and
 * what bounds the segments under way. Browsers run it, too. executors_test.ts runs the contract over WebCrypto.
 */
import {
  encrypt,
  KcapiError,
  openSealed,
  seal,
  type SealedFormat,
  type SealOptions,
  SealStream,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../mod.ts";
import { ENGINES } from "../src/sealed/engines.ts";
import { sealFactory } from "../src/sealed/rules.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { TransformIterator } from "../src/streams/iterate.ts";
import { openerOf } from "../src/streams/source.ts";
import { type Bytes, bytes, collect, cut, streamOf } from "./support/bytes.ts";
import { webCryptoContract } from "./support/contract.ts";
import {
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
  engine as engineOfLeg,
  runtime,
  test as anyTest,
  type TestBody,
} from "./support/deps.ts";
import { caught } from "./support/promises.ts";
import { engineOf, FORMATS, HEADER, KEY, NAME, refused, STRIDE } from "./support/sealed_support.ts";
import { openWhole } from "./support/webcrypto_reference.ts";

const { outcomes, turns } = webCryptoContract("");
const engine = "webcrypto";
/** The tests do not depend on the engine of the leg. */
const once = { engine: "userspace" } as const;
const test = (name: string, body: TestBody) => anyTest(name, once, body);

const optionsOf = (format: SealedFormat): SealOptions => ({ key: KEY, associatedData: NAME, format, engine });

for (const format of Object.values(FORMATS)) {
  test(`WebCrypto, ${format.cipher}: the other engines open what it seals, and it opens what they seal`, async () => {
    const options = optionsOf(format);
    const others = { ...options, engine: engineOf(format, engineOfLeg) };
    for (const length of [0, 1, STRIDE - HEADER, STRIDE - HEADER + 1, 5 * STRIDE, 20 * STRIDE + 7]) {
      const input = bytes(length);
      for (const sizes of [[1], [STRIDE], [7, 300], [10_000]]) {
        const file = await collect(seal(options, cut(input, sizes)));
        assertEquals(await collect(unseal(others, file)), input, `${length} in ${sizes}`);
        assertEquals(await openWhole(format, KEY, NAME, file), input);
        const other = await collect(streamOf(cut(input, sizes)).pipeThrough(new SealStream(others)));
        assertEquals(await collect(streamOf(cut(other, sizes)).pipeThrough(new UnsealStream(options))), input);
      }
    }
  });
}

test("WebCrypto: the engine of streams is WebCrypto", () => {
  assertEquals(new SealStream(optionsOf(FORMATS["AES-CTR-HMAC"])).engine, "webcrypto");
  assertEquals(new UnsealStream(optionsOf(FORMATS["AES-GCM-HKDF"])).engine, "webcrypto");
});

test("WebCrypto: a signal ends running calls with its reason", async () => {
  const abort = new AbortController();
  const options = { ...optionsOf("AES256_GCM_HKDF_64KB"), signal: abort.signal };
  const stream = new SealStream(options);
  const writer = stream.writable.getWriter();
  const writing = caught(writer.write(bytes(3_000_000)));
  const reader = stream.readable.getReader();
  await reader.read();
  const read = (async () => {
    while (!(await reader.read()).done);
  })();
  const reason = new Error("enough");
  abort.abort(reason);
  assertStrictEquals(await caught(read), reason);
  assertStrictEquals(await writing, reason);
});

test("WebCrypto: a stream without a reader reads at most its segments", async () => {
  const stream = new SealStream(optionsOf("AES256_GCM_HKDF_64KB"));
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  let written = 0;
  const writing = (async () => {
    for (;;) {
      await writer.write(bytes(65_536));
      written++;
    }
  })();
  await reader.read();
  await outcomes(writing);
  assertEquals(written <= 12, true, `${written} chunks of 64 KiB`);
  await reader.cancel();
  await caught(writing);
  await turns(1);
});

const CTR_AND_GCM = ["AES256_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_64KB"] as const;

for (const usage of ["deriveKey", "deriveBits"] as const) {
  test(`a CryptoKey with the usage ${usage} is the key of its bytes`, async () => {
    const key = await crypto.subtle.importKey("raw", KEY, "HKDF", false, [usage]);
    for (const format of CTR_AND_GCM) {
      const input = bytes(200_000);
      const file = await collect(seal({ key, format }, input));
      assertEquals(await collect(unseal({ key: KEY, format }, file)), input);
      using open = await openSealed(new Blob([file]), { key, format });
      assertEquals([open.engine, open.size], ["webcrypto", input.length]);
    }
  });
}

test(
  "the key that fits opens, also a CryptoKey, and with one CryptoKey WebCrypto runs all keys",
  async () => {
    const imported = (key: Bytes) => crypto.subtle.importKey("raw", key, "HKDF", false, ["deriveBits"]);
    const [a, b, c] = [bytes(32, 1), bytes(32, 2), bytes(32, 3)];
    const lists = [[a, b, c], [a, await imported(b), c], [await imported(a), await imported(b), await imported(c)]];
    for (const format of CTR_AND_GCM) {
      for (const length of [0, 1, 65_536, 200_000]) {
        for (const [index, key] of [a, b, c].entries()) {
          const file = await collect(seal({ key, format }, bytes(length)));
          for (const list of lists) {
            const options = {
              key: list,
              format,
              engine: list.every((key) => key instanceof Uint8Array) ? engine : "auto",
            };
            const stream = new UnsealStream(options as SealOptions);
            assertEquals(stream.engine, "webcrypto");
            assertEquals(await collect(streamOf(cut(file, [30_000])).pipeThrough(stream)), bytes(length));
            using open = await openSealed(new Blob([file]), options as SealOptions);
            assertEquals([open.engine, open.keyIndex, await open.bytes()], ["webcrypto", index, bytes(length)]);
          }
        }
      }
      const strange = await collect(seal({ key: bytes(32, 4), format }, bytes(100_000)));
      await refused(collect(unseal({ key: lists[2]!, format }, strange)));
      await refused(openSealed(new Blob([strange]), { key: lists[2]!, format }));
    }
  },
);

test("WebCrypto: a signal ends a stream that tries its keys", async () => {
  const file = await collect(seal({ key: KEY }, bytes(100_000)));
  const abort = new AbortController();
  const stream = new UnsealStream({ key: [bytes(32, 1), KEY], engine, signal: abort.signal });
  const writing = caught(stream.writable.getWriter().write(file));
  const reading = caught(stream.readable.getReader().read());
  await Promise.resolve();
  const reason = new Error("enough");
  abort.abort(reason);
  assertStrictEquals(await reading, reason);
  assertStrictEquals(await writing, reason);
});

test("WebCrypto: the copy of the key is zeroed when the keys of the stream are derived", async () => {
  for (const format of CTR_AND_GCM) {
    const plan = checkSealOptions({ key: KEY, format, engine }, ENGINES);
    const copy = plan.key.bytes;
    await collect(new TransformIterator(sealFactory(plan), openerOf(bytes(10))));
    assertEquals([plan.key.isDisposed, copy], [true, new Uint8Array(32)]);
  }
});

test("a CryptoKey of another algorithm, and other engines with a CryptoKey, are refused", async () => {
  const { subtle } = crypto;
  const hkdf = await subtle.importKey("raw", KEY, "HKDF", false, ["deriveKey"]);
  const aes = await subtle.importKey("raw", KEY, "AES-GCM", false, ["encrypt"]);
  const pbkdf2 = await subtle.importKey("raw", KEY, "PBKDF2", false, ["deriveBits"]);
  const expected =
    '"key" expected a CryptoKey of the algorithm HKDF with the usage deriveBits or deriveKey, got one of ';
  assertThrows(() => new SealStream({ key: aes }), TypeError, `${expected}AES-GCM with encrypt`);
  assertThrows(() => new SealStream({ key: pbkdf2 }), TypeError, `${expected}PBKDF2 with deriveBits`);
  assertThrows(() => new SealStream({ key: [KEY, aes] }), TypeError, '"key[1]" expected a CryptoKey of the algorithm');
  assertThrows(() => new SealStream({ key: hkdf, engine: "userspace" }), TypeError, '"webcrypto" for a CryptoKey');
});

anyTest("a CryptoKey and a pool are refused together", { ...once, runtime: ["deno", "bun", "node"] }, async () => {
  const hkdf = await crypto.subtle.importKey("raw", KEY, "HKDF", false, ["deriveKey"]);
  using pool = new WorkerPool(1);
  assertThrows(() => new SealStream({ key: hkdf, pool }), TypeError, '"pool" expected undefined');
  assertThrows(() => new SealStream({ key: [KEY, hkdf], pool }), TypeError, '"pool" expected undefined');
  assertThrows(() => new SealStream({ key: KEY, engine, pool }), TypeError, '"pool" expected undefined');
});

test("other objects are not accepted as a CryptoKey", () => {
  const fake = { type: "secret", algorithm: { name: "HKDF" }, usages: ["deriveBits"], extractable: false };
  assertThrows(() => new SealStream({ key: fake as unknown as CryptoKey }), TypeError, '"key" expected');
});

test("WebCrypto: associated data of any length is bound; Node and Bun refuse it with a CryptoKey", async () => {
  const options = { ...optionsOf("AES256_GCM_HKDF_64KB"), associatedData: bytes(100_000) };
  const file = await collect(seal(options, bytes(10)));
  assertEquals(await collect(unseal({ ...options, engine: "auto" }, file)), bytes(10));
  const key = await crypto.subtle.importKey("raw", KEY, "HKDF", false, ["deriveBits"]);
  const unsealing = collect(unseal({ ...options, key }, file));
  if (!["bun", "node"].includes(runtime)) return assertEquals(await unsealing, bytes(10));
  const error = await assertRejects(() => unsealing, KcapiError, "at most 1,024 bytes of associated data");
  assertEquals(error.code, "EINVAL");
});

test("bare ciphers do not run on WebCrypto", () => {
  const options = { key: bytes(16), iv: bytes(16), engine: engine as unknown as "auto" };
  assertThrows(() => encrypt("ctr(aes)", options, bytes(1)), TypeError, "which runs sealed streams only");
});
