/**
 * Secrets of sealed streams: no key and no buffered plaintext remains in memory, no unverified plaintext is output, and
 * no nonce is used twice. The tests replace functions of node:crypto by wrappers that record the calls.
 */
import { createRequire } from "node:module";
import {
  type EngineChoice,
  KcapiError,
  openSealed,
  seal,
  type SealedParameters,
  type SealOptions,
  SealStream,
  unseal,
  UnsealStream,
} from "../mod.ts";
import { ByteQueue } from "../src/byte_queue.ts";
import { BatchTransform } from "../src/executors/batch_transform.ts";
import { ENGINES } from "../src/sealed/engines.ts";
import { unsealRule } from "../src/sealed/rules.ts";
import { checkSealOptions } from "../src/sealed/options.ts";
import { deriveKeys, openSegmentCipher } from "../src/sealed/segment_cipher.ts";
import { IovCursor } from "../src/bytes.ts";
import { assert, assertEquals, assertRejects, assertThrows, engine, test } from "./support/deps.ts";
import { type Bytes, bytes, caught, collect, concat, streamOf, turns } from "./support/support.ts";
import { Secret } from "../src/secret.ts";

type Crypto = typeof import("node:crypto");
type Functions = Record<string, unknown>;

/** Replaces functions of node:crypto by wrappers until this is disposed. */
function watch(wrap: (real: Crypto) => object): Disposable {
  const crypto = createRequire(import.meta.url)("node:crypto") as Crypto & Functions;
  const wrapped = wrap({ ...crypto });
  const real = Object.fromEntries(Object.keys(wrapped).map((name) => [name, crypto[name]]));
  Object.assign(crypto, wrapped);
  return { [Symbol.dispose]: () => void Object.assign(crypto, real) };
}

/** Longer than all other arguments here, so that its length identifies it. */
const KEY = bytes(77, 81);
const HEADER = 24;
const CTR: SealedParameters = {
  cipher: "AES-CTR-HMAC",
  keySize: 16,
  hkdfHash: "SHA-256",
  macHash: "SHA-256",
  tagSize: 32,
  segmentSize: 128,
};
const GCM: SealedParameters = { cipher: "AES-GCM-HKDF", keySize: 16, hkdfHash: "SHA-256", segmentSize: 112 };
const STRIDE = 96;
const FIRST = STRIDE - HEADER;

const optionsOf = (format: SealedParameters): SealOptions => ({
  key: KEY,
  format,
  engine: format === GCM ? "userspace" : engine,
});

// ---- Keys -------------------------------------------------------------------------------------------------------

/** Records all memory that such bytes are copied to. */
function watchCopies(
  isSuch: (from: ArrayLike<number>, into: Uint8Array) => boolean,
): Disposable & { readonly seen: Uint8Array[] } {
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;
  const seen: Uint8Array[] = [];
  const { set } = typedArray;
  typedArray.set = function (this: Uint8Array, from, at) {
    if (isSuch(from, this)) seen.push(this);
    set.call(this, from, at);
  };
  return { seen, [Symbol.dispose]: () => void (typedArray.set = set) };
}

/** Records all keys that node:crypto receives and all digests that it returns: some digests are keys. */
function watchKeys(): Disposable & { readonly seen: Map<string, Uint8Array[]> } {
  const seen = new Map<string, Uint8Array[]>();
  const note = (what: string, bytes: Uint8Array) => void seen.set(what, [...seen.get(what) ?? [], bytes]);
  const watching = watch((real) => ({
    createHmac(name: string, key: Uint8Array) {
      note("HMAC", key);
      const hmac = real.createHmac(name, key);
      const { digest } = hmac;
      return Object.assign(hmac, {
        digest() {
          const bytes: Uint8Array = Reflect.apply(digest, hmac, []);
          note("digest", bytes);
          return bytes;
        },
      });
    },
    ...Object.fromEntries((["createCipheriv", "createDecipheriv"] as const).map((name) => [
      name,
      (cipher: "aes-128-gcm", key: Uint8Array, iv: Uint8Array) => {
        note("cipher", key);
        return real[name](cipher, key, iv);
      },
    ])),
  }));
  return Object.assign(watching, { seen });
}

const isZero = (bytes: Uint8Array) => bytes.every((byte) => byte === 0);

/** Every way to end a sealed stream. */
const ENDS: Record<string, (options: SealOptions, file: Bytes) => Promise<unknown>> = {
  "the end of seal()": (options) => collect(seal(options, bytes(500))),
  "the end of unseal()": (options, file) => collect(unseal(options, file)),
  "the end of a SealStream": (options) => collect(streamOf([bytes(500)]).pipeThrough(new SealStream(options))),
  "damage": (options, file) => caught(collect(unseal(options, file.slice(0, -1)))),
  "a bad header": (options, file) => caught(collect(unseal(options, file.slice(1)))),
  "break": async (options, file) => {
    for await (const _ of seal(options, bytes(500))) break;
    for await (const _ of unseal(options, file)) break;
  },
  "return() before the first next()": async (options, file) => {
    await seal(options, bytes(500)).return!();
    await unseal(options, file).return!();
  },
  "cancel()": async (options, file) => {
    for (const [stream, input] of [[new SealStream(options), bytes(500)], [new UnsealStream(options), file]] as const) {
      void stream.writable.getWriter().write(input).catch(() => {});
      const reader = stream.readable.getReader();
      await reader.read();
      await reader.cancel();
    }
  },
  "abort() before the header": async (options) => {
    const stream = new UnsealStream(options);
    await stream.writable.abort(new Error("enough"));
  },
  "a signal": async (options, file) => {
    const abort = new AbortController();
    const streams = [
      new SealStream({ ...options, signal: abort.signal }),
      new UnsealStream({ ...options, signal: abort.signal }),
    ];
    const reading = streams.map((stream, i) => {
      const writer = stream.writable.getWriter();
      void writer.closed.catch(() => {});
      void writer.write([bytes(500), file][i]!).catch(() => {});
      return caught(collect(stream.readable));
    });
    await turns(2);
    abort.abort(new Error("enough"));
    await Promise.all(reading);
  },
  "a source that fails": async (options, file) => {
    const failing = function* (input: Bytes) {
      yield input.slice(0, 200);
      throw new Error("the source broke");
    };
    await caught(collect(seal(options, failing(bytes(500)))));
    await caught(collect(unseal(options, failing(file))));
  },
  "close()": async (options, file) => {
    using open = await openSealed(new Blob([file]), options);
    await open.bytes();
  },
  "a file that cannot be opened": (options, file) => caught(openSealed(new Blob([file.slice(0, -1)]), options)),
};

for (const format of [CTR, GCM]) {
  for (const [end, run] of Object.entries(ENDS)) {
    test(`${format.cipher}: ${end} leaves no key in memory, neither the key of the user nor a derived one`, async () => {
      const options = optionsOf(format);
      const file = await collect(seal(options, bytes(500)));
      using watching = watchKeys();
      using copies = watchCopies((from) => from.length === KEY.length);
      await run(options, file);
      await turns(2);
      assert(copies.seen.length > 0 && copies.seen.every(isZero), "a copy of the user's key");
      const { seen } = watching;
      // HKDF-Extract has the salt as its HMAC key, which the file contains. Other digests are tags.
      const isSalt = (key: Uint8Array) => key.length === 16 && format.keySize === 16;
      for (const key of seen.get("HMAC") ?? []) assert(isSalt(key) || isZero(key), "a key of an HMAC");
      for (const key of seen.get("cipher") ?? []) assert(isZero(key), "a key of a cipher");
    });
  }
}

for (const format of [CTR, GCM]) {
  test(`${format.cipher}: the keys of HKDF and their intermediate values are zeroed`, () => {
    const plan = checkSealOptions(optionsOf(format), ENGINES);
    const header = { salt: bytes(16), prefix: bytes(7) };
    using watching = watchKeys();
    const size = format === CTR ? 16 + 32 : 16;
    using copies = watchCopies((_, { length }) => length === size);
    openSegmentCipher(plan.format, deriveKeys(plan.format, plan.key, header, plan.associatedData), header, engine)
      .close();
    const digests = watching.seen.get("digest")!;
    assert(digests.length >= 2 && digests.every(isZero), "HKDF's own");
    assert(copies.seen.length >= 1 && copies.seen.every(isZero), "the keys");
  });
}

test("the derived keys are zeroed if no cipher opens", () => {
  const plan = checkSealOptions(optionsOf(CTR), ENGINES);
  const derived = Secret.from(bytes(5 + 32));
  const memory = derived.bytes;
  const unfit = { ...plan.format, keySize: 5 as 16 };
  assertThrows(() => openSegmentCipher(unfit, derived, { salt: bytes(16), prefix: bytes(7) }, engine));
  assert(isZero(memory));
});

test("options are copied at the call", async () => {
  const options = { ...optionsOf(CTR), key: KEY.slice(), associatedData: bytes(9) };
  const copy = () => ({ ...options, key: options.key.slice(), associatedData: options.associatedData.slice() });
  const given = [copy(), copy(), copy(), copy(), copy()] as const;
  const file = await collect(seal(options, bytes(300)));
  const sealing = seal(given[0], bytes(300));
  const sealStream = new SealStream(given[1]);
  const unsealing = unseal(given[2], file);
  const unsealStream = new UnsealStream(given[3]);
  const opening = openSealed(new Blob([file]), given[4]);
  for (const { key, associatedData } of given) {
    key.fill(0);
    associatedData.fill(0);
  }
  assertEquals(await collect(unseal(options, await collect(sealing))), bytes(300));
  assertEquals(
    await collect(unseal(options, await collect(streamOf([bytes(300)]).pipeThrough(sealStream)))),
    bytes(300),
  );
  assertEquals(await collect(unsealing), bytes(300));
  assertEquals(await collect(streamOf([file]).pipeThrough(unsealStream)), bytes(300));
  using open = await opening;
  assertEquals(await open.bytes(), bytes(300));
});

test("buffered plaintext is zeroed when it moves and at the end, and takes at most the memory of a segment", () => {
  const held = new ByteQueue(5000);
  const take = (length: number) => held.add(new IovCursor([bytes(length)]), length);
  take(1000);
  const first = held.bytes;
  take(4000);
  assert(isZero(first));
  const { buffer } = held.bytes;
  assertEquals(buffer.byteLength, 5000);
  held.wipe();
  assert(isZero(new Uint8Array(buffer)));
});

// ---- Verified, or nothing ---------------------------------------------------------------------------------------

test("AES-CTR-HMAC compares full tags in constant time before it decrypts", async () => {
  const options = optionsOf(CTR);
  const file = await collect(seal(options, bytes(FIRST + STRIDE + 1)));
  const compared: number[] = [];
  using _ = watch((real) => ({
    timingSafeEqual(a: Uint8Array, b: Uint8Array) {
      compared.push(a.length);
      return real.timingSafeEqual(a, b);
    },
  }));
  await collect(unseal(options, file));
  assertEquals(compared, [32, 32, 32]);
});

test("AES-GCM-HKDF zeroes plaintext that it cannot verify", async () => {
  const file = await collect(seal(optionsOf(GCM), bytes(FIRST)));
  file[HEADER + 5]! ^= 1;
  const decrypted: Uint8Array[] = [];
  using _ = watch((real) => ({
    createDecipheriv(...given: Parameters<Crypto["createDecipheriv"]>) {
      const decipher = real.createDecipheriv(...given);
      const { update } = decipher;
      return Object.assign(decipher, {
        update(input: Uint8Array) {
          const output: Uint8Array = Reflect.apply(update, decipher, [input]);
          decrypted.push(output);
          return output;
        },
      });
    },
  }));
  const error = await caught(collect(unseal(optionsOf(GCM), file)));
  assertEquals((error as KcapiError).code, "EBADMSG");
  assert(decrypted.length > 0 && decrypted.every((output) => output.length > 0 && isZero(output)));
});

for (const format of [CTR, GCM]) {
  const name = format.cipher;
  const options = optionsOf(format);

  test(`${name}: inPlace outputs in the memory of the chunk, and does not change data that it cannot verify`, async () => {
    const inPlace = { ...options, inPlace: true };
    const file = await collect(seal(options, bytes(FIRST + 2 * STRIDE)));
    const chunk = file.slice();
    const pieces: Bytes[] = [];
    for await (const piece of unseal(inPlace, [chunk])) pieces.push(piece);
    assertEquals(concat(pieces), bytes(FIRST + 2 * STRIDE));
    assertEquals(pieces.map(({ buffer }) => buffer === chunk.buffer), [true, true, false]);
    const damaged = file.slice();
    damaged[format.segmentSize + 5]! ^= 1;
    const given = damaged.slice();
    await assertRejects(() => collect(unseal(inPlace, [given])), KcapiError);
    assertEquals(given.subarray(format.segmentSize), damaged.subarray(format.segmentSize));
  });

  test(`${name}: a segment opens only at its own position`, () => {
    const { format: checked, key, associatedData } = checkSealOptions(options, ENGINES);
    const header = { salt: bytes(16), prefix: bytes(7) };
    const segments = openSegmentCipher(
      checked,
      deriveKeys(checked, key, header, associatedData),
      header,
      options.engine as EngineChoice,
    );
    const indexes = [0, 1, 255, 256, 2 ** 16 - 1, 2 ** 16, 2 ** 24, 2 ** 31, 2 ** 32 - 2];
    const places = indexes.flatMap((index) => [{ index, isLast: false }, { index, isLast: true }]);
    const sealed = places.map((place) => {
      const output = new Uint8Array(5 + checked.tagSize);
      segments.seal([bytes(5)], place, output);
      return output;
    });
    assertEquals(new Set(sealed.map((each) => each.subarray(0, 5).join())).size, sealed.length);
    sealed.forEach((each, i) =>
      places.forEach((place, j) => assertEquals(segments.open(each, place), i === j ? bytes(5) : undefined))
    );
    segments.close();
  });

  test(`${name}: a short segment that is marked as non-final is rejected, also at the end`, async () => {
    using made = writer(options);
    const { header, segment } = made;
    for (const length of [0, 5, FIRST - 1]) {
      const file = concat([header, segment(length, { index: 0, isLast: false })]);
      const error = await assertRejects(() => collect(unseal(options, [file])), KcapiError);
      assertEquals(error.code, "EBADMSG");
      await assertRejects(() => openSealed(new Blob([file]), options), KcapiError);
    }
  });

  test(`${name}: no segment opens with an index beyond the last one`, () => {
    const last = 2 ** 32 - 2;
    for (const [first, isRight] of [[last, true], [last + 1, false]] as const) {
      using made = writer(options);
      const { header, segment, plan } = made;
      const unsealer = new BatchTransform(unsealRule(plan, first), false);
      unsealer.write([concat([header, segment(5, { index: first, isLast: true })])]);
      unsealer.read();
      unsealer.end();
      if (isRight) {
        assertEquals(unsealer.read(), bytes(5));
        unsealer.close();
      } else assertEquals(assertThrows(() => unsealer.read(), KcapiError).code, "EBADMSG");
    }
    // In 32 bits, this index wraps to the first one.
    using made = writer(options);
    const { header, segment, plan } = made;
    const unsealer = new BatchTransform(unsealRule(plan, 2 ** 32), false);
    unsealer.write([concat([header, segment(STRIDE, { index: 0, isLast: false })])]);
    assertEquals(assertThrows(() => unsealer.read(), KcapiError).code, "EBADMSG");
  });
}

test("each stream has its own salt and nonce prefix", async () => {
  const salts = new Set<string>(), prefixes = new Set<string>();
  for (let i = 0; i < 20; i++) {
    const file = await collect(seal(optionsOf(CTR), bytes(1)));
    salts.add(file.subarray(1, 17).join());
    prefixes.add(file.subarray(17, 24).join());
  }
  assertEquals([salts.size, prefixes.size], [20, 20]);
});

/** Seals segments that no stream seals. */
function writer(options: SealOptions) {
  const plan = checkSealOptions(options, ENGINES);
  const header = { salt: bytes(16, 3), prefix: bytes(7, 4) };
  const segments = openSegmentCipher(
    plan.format,
    deriveKeys(plan.format, plan.key, header, plan.associatedData),
    header,
    options.engine as EngineChoice,
  );
  const segment = (length: number, place: { index: number; isLast: boolean }) => {
    const output = new Uint8Array(length + plan.format.tagSize);
    segments.seal([bytes(length)], place, output);
    return output;
  };
  return {
    plan,
    segment,
    header: Uint8Array.of(HEADER, ...header.salt, ...header.prefix),
    [Symbol.dispose]: () => segments.close(),
  };
}
