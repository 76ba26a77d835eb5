/**
 * Sealed streams over WebCrypto: Tink's vectors, the same bytes as other engines, damage, keys that are a CryptoKey,
 * and what bounds the segments under way.
 */
import {
  encrypt,
  KcapiError,
  openSealed,
  seal,
  type SealedFormat,
  type SealedParameters,
  type SealOptions,
  SealStream,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../mod.ts";
import { sealFactory } from "../src/sealed/batches.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { TransformIterator } from "../src/streams/iterate.ts";
import { openerOf } from "../src/streams/source.ts";
import { assertEquals, assertRejects, assertStrictEquals, assertThrows, runtime, test } from "./support/deps.ts";
import { type Bytes, bytes, caught, collect, cut, fromHex, outcomes, streamOf, turns } from "./support/support.ts";
import vectors from "./fixtures/tink_vectors.json" with { type: "json" };
import { openWhole } from "./support/webcrypto_reference.ts";

interface Vector extends Omit<SealedParameters, "cipher" | "tagSize"> {
  name: string;
  format: SealedParameters["cipher"];
  tagSize: number;
  ikm: string;
  associatedData: string;
  salt: string;
  noncePrefix: string;
  plaintextLength: number;
  ciphertextSHA256: string;
  ciphertext?: string;
  refused?: boolean;
}

const engine = "webcrypto";
const KEY = bytes(32, 61);
const NAME = new TextEncoder().encode("a name");
const FORMATS: readonly SealedParameters[] = [
  { cipher: "AES-CTR-HMAC", keySize: 16, hkdfHash: "SHA-256", macHash: "SHA-256", tagSize: 32, segmentSize: 128 },
  { cipher: "AES-GCM-HKDF", keySize: 16, hkdfHash: "SHA-256", tagSize: 16, segmentSize: 112 },
];
/** The tests do not depend on the engine. */
const once = { engine: "userspace" } as const;

const optionsOf = (format: SealedFormat): SealOptions => ({ key: KEY, associatedData: NAME, format, engine });

/** Fails unless the promise rejects with EBADMSG. */
async function refused(promise: Promise<unknown>): Promise<void> {
  assertEquals((await assertRejects(() => promise, KcapiError)).code, "EBADMSG");
}

function plaintextOf(length: number): Bytes {
  return new Uint8Array(length).map((_, i) => 7 * i + 13 * Math.floor(i / 2 ** 8) + 29 * Math.floor(i / 2 ** 16));
}

for (const vector of vectors as Vector[]) {
  const { format: cipher, keySize, hkdfHash, macHash, tagSize, segmentSize } = vector;
  const options = {
    key: fromHex(vector.ikm),
    associatedData: fromHex(vector.associatedData),
    format: { cipher, keySize, hkdfHash, macHash, tagSize, segmentSize },
    engine,
  } as const;
  if (vector.refused) {
    test(`WebCrypto: what Tink refuses is EBADMSG: ${vector.name}`, once, async () => {
      const file = fromHex(vector.ciphertext!);
      await refused(collect(unseal(options, file)));
      await refused(collect(streamOf(cut(file, [1])).pipeThrough(new UnsealStream(options))));
      await refused((async () => {
        using open = await openSealed(new Blob([file]), options);
        await open.bytes();
      })());
    });
    continue;
  }
  test(`WebCrypto: Tink's vector, byte for byte: ${vector.name}`, once, async () => {
    const plaintext = plaintextOf(vector.plaintextLength);
    const header = { salt: fromHex(vector.salt), prefix: fromHex(vector.noncePrefix) };
    const factory = sealFactory(checkSealOptions(options), header);
    const file = await collect(new TransformIterator(factory, openerOf(cut(plaintext, [1, 100_000, 17]))));
    const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", file));
    assertEquals(digest, fromHex(vector.ciphertextSHA256));
    assertEquals(await collect(unseal(options, cut(file, [999]))), plaintext);
    assertEquals(await collect(streamOf(cut(file, [70_000])).pipeThrough(new UnsealStream(options))), plaintext);
    using open = await openSealed(new Blob([file]), options);
    assertEquals(open.engine, "webcrypto");
    assertEquals(await open.bytes(), plaintext);
  });
}

for (const format of FORMATS) {
  const options = optionsOf(format);
  const stride = format.segmentSize - format.tagSize!;

  test(`WebCrypto, ${format.cipher}: what it seals, others open, and the other way round`, once, async () => {
    for (const length of [0, 1, stride - 24, stride - 23, 2 * stride - 24, 5 * stride, 20 * stride + 7]) {
      const input = bytes(length);
      const others = { ...options, engine: format.cipher === "AES-CTR-HMAC" ? "userspace" : "auto" } as const;
      for (const sizes of [[1], [stride], [7, 300], [10_000]]) {
        const file = await collect(seal(options, cut(input, sizes)));
        assertEquals(await collect(unseal(others, file)), input, `${length} in ${sizes}`);
        assertEquals(await openWhole({ ...format, tagSize: format.tagSize! }, KEY, NAME, file), input);
        const other = await collect(streamOf(cut(input, sizes)).pipeThrough(new SealStream(others)));
        assertEquals(await collect(streamOf(cut(other, sizes)).pipeThrough(new UnsealStream(options))), input);
      }
    }
  });

  test(
    `WebCrypto, ${format.cipher}: wherever a file is damaged, only what is in front of it comes out`,
    once,
    async () => {
      const input = bytes(6 * stride);
      const file = await collect(seal(options, input));
      for (let at = 0; at < file.length; at += 13) {
        const damaged = file.with(at, file[at]! ^ 1);
        const pieces: Bytes[] = [];
        await refused((async () => {
          for await (const piece of unseal(options, cut(damaged, [50]))) pieces.push(piece);
        })());
        const before = await collect(streamOf(pieces));
        assertEquals(before, input.slice(0, before.length));
        await refused(collect(unseal(options, file.slice(0, at))));
      }
    },
  );

  test(`WebCrypto, ${format.cipher}: a range of a file`, once, async () => {
    const input = bytes(20 * stride);
    using file = await openSealed(new Blob([await collect(seal(options, input))]), options);
    assertEquals(await file.bytes(stride, 3 * stride + 5), input.slice(stride, 3 * stride + 5));
    assertEquals(await collect(file.stream({ start: -7 })), input.slice(-7));
  });

  test(`WebCrypto, ${format.cipher}: a chunk is the caller's again when its write has settled`, once, async () => {
    const stream = new SealStream(options);
    const output = new Response(stream.readable).arrayBuffer();
    const writer = stream.writable.getWriter();
    const input = bytes(10 * stride);
    const chunk = new Uint8Array(stride);
    for (const piece of cut(input, [stride])) {
      chunk.set(piece);
      await writer.write(chunk);
      chunk.fill(0);
    }
    await writer.close();
    assertEquals(await collect(unseal(options, new Uint8Array(await output))), input);
  });
}

test("WebCrypto: streams say that it is their engine", once, () => {
  assertEquals(new SealStream(optionsOf(FORMATS[0]!)).engine, "webcrypto");
  assertEquals(new UnsealStream(optionsOf(FORMATS[1]!)).engine, "webcrypto");
});

test("WebCrypto: a signal ends what is under way with its reason", once, async () => {
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

test("WebCrypto: a stream that nobody reads takes no more than its segments", once, async () => {
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
  test(`a CryptoKey with the usage ${usage} is the key of its bytes`, once, async () => {
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
  "of several keys, also CryptoKeys, the one that fits opens, and one CryptoKey has WebCrypto run all",
  once,
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

test("WebCrypto: a signal ends a stream that tries its keys", once, async () => {
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

test("WebCrypto: the copy of the key is zeroed when the keys of the stream are derived", once, async () => {
  for (const format of CTR_AND_GCM) {
    const plan = checkSealOptions({ key: KEY, format, engine });
    const copy = plan.key.bytes;
    await collect(new TransformIterator(sealFactory(plan), openerOf(bytes(10))));
    assertEquals([plan.key.isDisposed, copy], [true, new Uint8Array(32)]);
  }
});

test("a CryptoKey of another algorithm, another engine and a pool are refused", once, async () => {
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
  using pool = new WorkerPool(1);
  assertThrows(() => new SealStream({ key: hkdf, pool }), TypeError, '"pool" expected undefined');
  assertThrows(() => new SealStream({ key: [KEY, hkdf], pool }), TypeError, '"pool" expected undefined');
  assertThrows(() => new SealStream({ key: KEY, engine, pool }), TypeError, '"pool" expected undefined');
});

test("what is no key is not taken for a CryptoKey", once, () => {
  const fake = { type: "secret", algorithm: { name: "HKDF" }, usages: ["deriveBits"], extractable: false };
  assertThrows(() => new SealStream({ key: fake as unknown as CryptoKey }), TypeError, '"key" expected');
});

test("WebCrypto: associated data of any length is bound; Node and Bun refuse it with a CryptoKey", once, async () => {
  const options = { ...optionsOf("AES256_GCM_HKDF_64KB"), associatedData: bytes(100_000) };
  const file = await collect(seal(options, bytes(10)));
  assertEquals(await collect(unseal({ ...options, engine: "auto" }, file)), bytes(10));
  const key = await crypto.subtle.importKey("raw", KEY, "HKDF", false, ["deriveBits"]);
  const unsealing = collect(unseal({ ...options, key }, file));
  if (runtime === "deno") return assertEquals(await unsealing, bytes(10));
  const error = await assertRejects(() => unsealing, KcapiError, "at most 1,024 bytes of associated data");
  assertEquals(error.code, "EINVAL");
});

test("bare ciphers do not run on WebCrypto", once, () => {
  const options = { key: bytes(16), iv: bytes(16), engine: engine as unknown as "auto" };
  assertThrows(() => encrypt("ctr(aes)", options, bytes(1)), TypeError, "which runs sealed streams only");
});
