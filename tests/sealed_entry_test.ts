/**
 * `@kcapi/streams/sealed` beside `@kcapi/streams` in one program: WebCrypto always runs the first one, and each opens
 * what the other has sealed.
 */
import * as main from "../mod.ts";
import * as sealed from "../src/sealed/mod.ts";
import type { SealedParameters } from "../mod.ts";
import { assertEquals, assertRejects, assertStringIncludes, assertThrows, test } from "./support/deps.ts";
import { bytes, collect, cut, streamOf } from "./support/bytes.ts";

const once = { engine: "userspace" } as const;
const KEY = bytes(32, 7);
const FORMATS: readonly SealedParameters[] = [
  { cipher: "AES-CTR-HMAC", keySize: 32, hkdfHash: "SHA-1", macHash: "SHA-512", tagSize: 64, segmentSize: 256 },
  { cipher: "AES-GCM-HKDF", keySize: 32, hkdfHash: "SHA-512", segmentSize: 256 },
];

test("sealed: WebCrypto runs all streams, also beside the other entry", once, async () => {
  const { SealStream, UnsealStream, seal, unseal, openSealed } = sealed;
  assertEquals(new SealStream({ key: KEY }).engine, "webcrypto");
  assertEquals(new UnsealStream({ key: KEY, engine: "webcrypto" }).engine, "webcrypto");
  assertEquals(new UnsealStream({ key: [KEY, bytes(32)] }).engine, "webcrypto");
  assertEquals([seal({ key: KEY }, bytes(1)).engine, unseal({ key: KEY }, bytes(1)).engine], [
    "webcrypto",
    "webcrypto",
  ]);
  using file = await openSealed(new Blob([await collect(seal({ key: KEY }, bytes(9)))]), { key: KEY });
  assertEquals([file.engine, file.size], ["webcrypto", 9]);
});

test("sealed: it does not choose for the other entry", { ...once, runtime: ["deno", "bun", "node"] }, () => {
  assertEquals(new sealed.SealStream({ key: KEY }).engine, "webcrypto");
  assertEquals(new main.SealStream({ key: KEY, engine: "userspace" }).engine, "userspace");
});

for (const format of FORMATS) {
  test(`sealed: ${format.cipher} is the same in both entries, with associated data of any length`, once, async () => {
    for (const length of [0, 1, 1024, 1025, 100_000]) {
      const options = { key: KEY, format, associatedData: bytes(length, 3) };
      const input = bytes(2000);
      for (const [a, b] of [[main, sealed], [sealed, main]] as const) {
        const file = await collect(a.seal(options, new Blob([input])));
        assertEquals(file.length, sealed.sealedSize(input.length, format));
        assertEquals(await collect(streamOf(cut(file, [99])).pipeThrough(new b.UnsealStream(options))), input);
        assertEquals(await collect(b.unseal(options, new Blob([file]))), input);
        using open = await b.openSealed(new Blob([file]), options);
        assertEquals(await open.bytes(300, 700), input.slice(300, 700));
        const other = { ...options, associatedData: bytes(length + 1, 3) };
        const error = await assertRejects(() => collect(b.unseal(other, file)), b.KcapiError);
        assertEquals(error.code, "EBADMSG");
      }
    }
  });
}

test("sealed: options of a server, and keys of the kernel, are refused by name", once, () => {
  const options = (more: object) => ({ key: KEY, ...more });
  const { SealStream } = sealed;
  assertThrows(
    () => new SealStream(options({ engine: "kernel" })),
    TypeError,
    '"engine" expected "auto" or "webcrypto"',
  );
  assertThrows(() => new SealStream(options({ pool: {} })), TypeError, 'has no option "pool"');
  const key = { type: "logon", description: "a:b" } as unknown as Uint8Array;
  assertThrows(() => new SealStream({ key }), TypeError, '"key" expected');
});

test("sealed: openSealed() copies the key and checks its options when it is called", once, async () => {
  const key = KEY.slice();
  const file = new Blob([await collect(sealed.seal({ key }, bytes(10)))]);
  const opening = sealed.openSealed(file, { key });
  key.fill(0);
  using open = await opening;
  assertEquals(await open.bytes(), bytes(10));
  await assertRejects(() => sealed.openSealed(file, { key: bytes(8) }), RangeError, '"key" expected at least 32 bytes');
  await assertRejects(() => sealed.openSealed(42 as unknown as Blob, { key: KEY }), TypeError, '"source" expected');
});

test("sealed: without WebCrypto, the error says that it needs HTTPS or localhost", once, async () => {
  const file = new Blob([await collect(sealed.seal({ key: KEY }, bytes(10)))]);
  // What an insecure page has. A browser that opens one: tests/bundlers_test.ts.
  const crypto = Object.getOwnPropertyDescriptor(globalThis, "crypto")!;
  Object.defineProperty(globalThis, "crypto", { configurable: true, value: { getRandomValues: () => {} } });
  try {
    const { KcapiError, SealStream, UnsealStream } = sealed;
    const errors = [SealStream, UnsealStream].map((Stream) => assertThrows(() => new Stream({ key: KEY }), KcapiError));
    errors.push(await assertRejects(() => sealed.openSealed(file, { key: KEY }), KcapiError));
    errors.push(assertThrows(() => new main.SealStream({ key: KEY, engine: "webcrypto" }), KcapiError));
    for (const { code, hint } of errors) {
      assertEquals(code, "ENOSYS");
      assertStringIncludes(hint!, "HTTPS, or from localhost");
    }
  } finally {
    Object.defineProperty(globalThis, "crypto", crypto);
  }
});
