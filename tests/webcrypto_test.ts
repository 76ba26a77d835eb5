/**
 * Tink's vectors with the reference implementation over WebCrypto. It runs on every JavaScript runtime of the project,
 * browsers and workerd included (`tests/browsers/run`): if it fails there, the runtime or the harness is wrong.
 */
import { assertEquals, assertRejects, runtime, test } from "./support/deps.ts";
import { bytes, fromHex } from "./support/bytes.ts";
import vectors from "./fixtures/tink_vectors.json" with { type: "json" };
import { openWhole, type ReferenceFormat, sealWhole } from "./support/webcrypto_reference.ts";

interface Vector extends Omit<ReferenceFormat, "cipher"> {
  name: string;
  format: ReferenceFormat["cipher"];
  ikm: string;
  associatedData: string;
  salt: string;
  noncePrefix: string;
  plaintextLength: number;
  ciphertextLength: number;
  ciphertextSHA256: string;
  ciphertext?: string;
  refused?: boolean;
}

const formatOf = (vector: Vector): ReferenceFormat => ({ ...vector, cipher: vector.format });

function plaintextOf(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(length).map((_, i) => 7 * i + 13 * Math.floor(i / 2 ** 8) + 29 * Math.floor(i / 2 ** 16));
}

async function sha256(data: Uint8Array<ArrayBuffer>): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

for (const vector of vectors as Vector[]) {
  const [key, associatedData] = [fromHex(vector.ikm), fromHex(vector.associatedData)];
  if (vector.refused) {
    test(`WebCrypto refuses what Tink refuses: ${vector.name}`, async () => {
      await assertRejects(() => openWhole(formatOf(vector), key, associatedData, fromHex(vector.ciphertext!)));
    });
    continue;
  }
  test(`WebCrypto seals and opens Tink's vector: ${vector.name}`, async () => {
    const header = { salt: fromHex(vector.salt), noncePrefix: fromHex(vector.noncePrefix) };
    const plaintext = plaintextOf(vector.plaintextLength);
    const file = await sealWhole(formatOf(vector), key, associatedData, header, plaintext);
    assertEquals(file.length, vector.ciphertextLength);
    assertEquals(await sha256(file), fromHex(vector.ciphertextSHA256));
    if (vector.ciphertext) assertEquals(file, fromHex(vector.ciphertext));
    assertEquals(await openWhole(formatOf(vector), key, associatedData, file), plaintext);
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
