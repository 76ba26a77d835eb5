/**
 * What the two entries do in browsers, and in workerd without Node's modules: sealed streams run, and what needs a
 * server says so.
 */
import * as main from "../../mod.ts";
import * as sealed from "../../src/sealed/mod.ts";
import { bytes } from "../support/bytes.ts";
import { assertEquals, assertRejects, assertStringIncludes, assertThrows, test } from "./deps.ts";

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
