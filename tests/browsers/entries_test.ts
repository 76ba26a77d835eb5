/**
 * What the two entries do in browsers, and in workerd without Node's modules: sealed streams run, and what needs a
 * server says so.
 */
import * as main from "../../mod.ts";
import * as sealed from "../../src/sealed/mod.ts";
import { bytes } from "../support/bytes.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows, test } from "./deps.ts";

const KEY = bytes(32, 1);
const FORMATS = ["AES256_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_64KB"] as const;

for (const [name, { SealStream, UnsealStream, seal, openSealed }] of Object.entries({ main, sealed })) {
  for (const format of FORMATS) {
    test(`${name}: ${format} seals a stream and a Blob, unseals, and reads a range`, async () => {
      const input = bytes(1_000_000);
      const options = { key: KEY, format, associatedData: bytes(2000, 2) };
      const sealing = new SealStream(options);
      assertEquals(sealing.engine, "webcrypto");
      const output = new Blob([input]).stream().pipeThrough(sealing)
        .pipeThrough(new UnsealStream({ ...options, key: [bytes(32, 3), KEY] }));
      assertEquals(new Uint8Array(await new Response(output).arrayBuffer()), input);
      const file = new File(await Array.fromAsync(seal(options, new File([input], "input"))), "sealed");
      using reader = await openSealed(file, options);
      assertEquals(await reader.bytes(100_000, 300_000), input.slice(100_000, 300_000));
    });
  }
}

test("bare ciphers, pools and reports need a server runtime, and say so", async () => {
  const { CipherHandle, EncryptionStream, encrypt, KcapiError, listCiphers, opensslKey, probe, WorkerPool } = main;
  const options = { key: bytes(16), iv: bytes(16) };
  const calls: Record<string, () => unknown> = {
    EncryptionStream: () => new EncryptionStream("ctr(aes)", options),
    CipherHandle: () => CipherHandle.open("ctr(aes)", { key: bytes(16) }),
    WorkerPool: () => new WorkerPool(),
    probe,
    listCiphers,
    kernel: () => new main.SealStream({ key: KEY, engine: "kernel" }),
    userspace: () => new main.SealStream({ key: KEY, engine: "userspace" }),
    "userspace, AES-GCM": () => new main.UnsealStream({ key: KEY, engine: "userspace", format: FORMATS[1] }),
  };
  const errors = Object.values(calls).map((call) => assertThrows(call, KcapiError));
  errors.push(await assertRejects(() => encrypt("ctr(aes)", options, bytes(1)).next(), KcapiError));
  errors.push(await assertRejects(() => opensslKey("hunter2", { keySize: 16 }), KcapiError));
  for (const { code, message } of errors) {
    assertEquals(code, "ENOSYS");
    assertStringIncludes(message, "needs a server runtime");
  }
});

test("sealed: options of a server are refused by name", () => {
  const { SealStream } = sealed;
  assertThrows(
    () => new SealStream({ key: KEY, engine: "kernel" }),
    TypeError,
    '"engine" expected "auto" or "webcrypto"',
  );
});

for (const [name, { seal, SealStream, unseal }] of Object.entries({ main, sealed })) {
  test(`${name}: timers get their turns while bytes in memory are sealed`, async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    // Small chunks: many steps without anything to wait for.
    async function* chunks() {
      for (let i = 0; i < 20_000; i++) yield bytes(100);
    }
    for await (const _ of unseal({ key: KEY }, seal({ key: KEY }, chunks())));
    clearInterval(timer);
    assert(ticks > 0);
  });

  test(`${name}: inPlace moves the memory of a chunk in one segment, and otherwise it stays the caller's`, async () => {
    for (const inPlace of [false, true]) {
      const stream = new SealStream({ key: KEY, inPlace });
      const output = new Response(stream.readable).arrayBuffer();
      const writer = stream.writable.getWriter();
      const chunk = bytes(60_000);
      await writer.write(chunk);
      assertEquals(chunk.length, inPlace ? 0 : 60_000);
      if (!inPlace) chunk.fill(0);
      await writer.close();
      const pieces = await Array.fromAsync(unseal({ key: KEY }, new Uint8Array(await output)));
      assertEquals(new Uint8Array(await new Blob(pieces).arrayBuffer()), bytes(60_000));
    }
  });

  test(`${name}: a CryptoKey that HKDF cannot use is a TypeError that names the right one`, async () => {
    const aes = await crypto.subtle.importKey("raw", KEY, "AES-GCM", false, ["encrypt"]);
    const expected =
      "expected a CryptoKey of the algorithm HKDF with the usage deriveBits or deriveKey, got one of AES-GCM";
    assertThrows(() => new SealStream({ key: aes }), TypeError, expected);
    for (const usage of ["deriveKey", "deriveBits"] as const) {
      const key = await crypto.subtle.importKey("raw", KEY, "HKDF", false, [usage]);
      const file = await new Blob(await Array.fromAsync(seal({ key }, bytes(1000)))).arrayBuffer();
      assertEquals(await Array.fromAsync(unseal({ key: KEY }, file)), [bytes(1000)]);
    }
  });

  test(`${name}: a signal ends a stream that waits for its source`, async () => {
    const abort = new AbortController();
    const { readable } = new TransformStream<Uint8Array<ArrayBuffer>, Uint8Array<ArrayBuffer>>();
    const next = unseal({ key: KEY, signal: abort.signal }, readable).next();
    setTimeout(() => abort.abort(new Error("enough")), 1);
    await assertRejects(() => next, Error, "enough");
  });
}
