/**
 * Tink's vectors with the reference implementation over WebCrypto. It runs on every JavaScript runtime of the project,
 * browsers and workerd included (`tests/browsers/run`): if it fails there, the runtime or the harness is wrong.
 */
import { assertEquals, assertRejects, runtime, test } from "./support/deps.ts";
import { bytes, fromHex } from "./support/bytes.ts";
import { parametersOf, plaintextOf, REFUSED_VECTORS, sha256, VECTORS } from "./support/sealed_support.ts";
import { openWhole, sealWhole } from "./support/webcrypto_reference.ts";

for (const vector of VECTORS) {
  test(`WebCrypto seals and opens Tink's vector: ${vector.name}`, async () => {
    const [key, associatedData] = [fromHex(vector.ikm), fromHex(vector.associatedData)];
    const header = { salt: fromHex(vector.salt), noncePrefix: fromHex(vector.noncePrefix) };
    const plaintext = plaintextOf(vector.plaintextLength);
    const file = await sealWhole(parametersOf(vector), key, associatedData, header, plaintext);
    assertEquals(file.length, vector.ciphertextLength);
    assertEquals(await sha256(file), fromHex(vector.ciphertextSHA256));
    if (vector.ciphertext) assertEquals(file, fromHex(vector.ciphertext));
    assertEquals(await openWhole(parametersOf(vector), key, associatedData, file), plaintext);
  });
}

for (const vector of REFUSED_VECTORS) {
  test(`WebCrypto refuses what Tink refuses: ${vector.name}`, async () => {
    const [key, associatedData] = [fromHex(vector.ikm), fromHex(vector.associatedData)];
    const file = fromHex(vector.ciphertext!);
    await assertRejects(() => openWhole(parametersOf(vector), key, associatedData, file));
  });
}

// Node, and Bun after it, refuse more: https://github.com/nodejs/node/blob/main/lib/internal/crypto/hkdf.js
const hkdf = { "an HKDF of WebCrypto that takes more than 1,024 bytes of info": !["bun", "node"].includes(runtime) };

test("WebCrypto's HKDF takes 100,000 bytes of associated data", { needs: hkdf }, async () => {
  const format = { cipher: "AES-GCM-HKDF", keySize: 32, hkdfHash: "SHA-256", tagSize: 16, segmentSize: 4096 } as const;
  const header = { salt: bytes(32, 1), noncePrefix: bytes(7, 2) };
  const file = await sealWhole(format, bytes(32, 3), bytes(100_000, 4), header, bytes(10_000, 5));
  assertEquals(await openWhole(format, bytes(32, 3), bytes(100_000, 4), file), bytes(10_000, 5));
  await assertRejects(() => openWhole(format, bytes(32, 3), bytes(99_999, 4), file));
});

test("WebCrypto copies its input when it is called: the memory may be used again at once", async () => {
  const { subtle } = crypto;
  const gcm = { name: "AES-GCM", iv: new Uint8Array(12) };
  const ctr = { name: "AES-CTR", counter: new Uint8Array(16), length: 32 };
  const importAes = (name: string) => subtle.importKey("raw", bytes(32, 1), name, false, ["encrypt", "decrypt"]);
  const [gcmKey, ctrKey] = [await importAes("AES-GCM"), await importAes("AES-CTR")];
  const hmac = await subtle.importKey("raw", bytes(32, 1), { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  for (const length of [100, 65_536, 2_000_000]) {
    const sealed = new Uint8Array(await subtle.encrypt(gcm, gcmKey, bytes(length)));
    const calls: [Uint8Array<ArrayBuffer>, (input: Uint8Array<ArrayBuffer>) => Promise<ArrayBuffer>][] = [
      [bytes(length), (input) => subtle.encrypt(gcm, gcmKey, input)],
      [sealed, (input) => subtle.decrypt(gcm, gcmKey, input)],
      [bytes(length), (input) => subtle.encrypt(ctr, ctrKey, input)],
      [bytes(length), (input) => subtle.decrypt(ctr, ctrKey, input)],
      [bytes(length), (input) => subtle.sign("HMAC", hmac, input)],
    ];
    for (const [input, call] of calls) {
      const expected = new Uint8Array(await call(input));
      const running = call(input);
      input.fill(0);
      assertEquals(new Uint8Array(await running), expected);
    }
  }
});
