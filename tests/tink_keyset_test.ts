/**
 * Tink's keysets: read, written, changed, encrypted; and what is refused. Browsers run it, too.
 */
import { inspect } from "node:util";
import fc from "fast-check";
import type { SealedParameters } from "../src/sealed/format.ts";
import { createKeyset, type EncryptedKeysetJSON, Keyset, type KeysetJSON, parseKeyset } from "../src/tink/mod.ts";
import { type Bytes, concat } from "./support/bytes.ts";
import { assert, assertEquals, assertRejects, assertThrows, test as anyTest, times } from "./support/deps.ts";

/** Made by Tink's Go library: an AES256_CTR_HMAC_SHA256_4KB key, then AES256_GCM_HKDF_4KB as the primary one. */
const FROM_GO =
  `{"primaryKeyId":3288182976,"key":[{"keyData":{"typeUrl":"type.googleapis.com/google.crypto.tink.AesCtrHmacStreamingKey","value":"Eg0IgCAQIBgDIgQIAxAgGiAtHf3mFFHa4hAt8NnJprqI0JKxpC/nSfQZdsYVME9vWA==","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":3009594338,"outputPrefixType":"RAW"},{"keyData":{"typeUrl":"type.googleapis.com/google.crypto.tink.AesGcmHkdfStreamingKey","value":"EgcIgCAQIBgDGiCLw6d5/7U0lvFFvurZ6XJFBhT8tuW/DBd/BunbkI8zjA==","keyMaterialType":"SYMMETRIC"},"status":"ENABLED","keyId":3288182976,"outputPrefixType":"RAW"}]}`;

const CTR = {
  cipher: "AES-CTR-HMAC",
  keySize: 32,
  hkdfHash: "SHA-256",
  macHash: "SHA-256",
  tagSize: 32,
  segmentSize: 4096,
};
const GCM = { cipher: "AES-GCM-HKDF", keySize: 32, hkdfHash: "SHA-256", tagSize: 16, segmentSize: 4096 };

const test = (name: string, body: () => void | Promise<void>) => anyTest(name, { engine: "userspace" }, body);

// deno-lint-ignore no-explicit-any
type Mutable = any;

/** The keyset of Tink's Go, changed. */
function changed(change: (json: Mutable) => void): Mutable {
  const json = JSON.parse(FROM_GO);
  change(json);
  return json;
}

/** The same with another key message in place of the first key's. */
function withValue(...bytes: number[]): Mutable {
  return changed(({ key }) => key[0].keyData.value = btoa(String.fromCharCode(...bytes)));
}

/** A key message of AES-CTR-HMAC with some of its parts replaced. */
function ctrMessage(
  { params = [8, 128, 32, 16, 32, 24, 3, 34, 4, 8, 3, 16, 32], key = Array(32).fill(7), rest = [] as number[] },
) {
  return [18, params.length, ...params, 26, key.length, ...key, ...rest];
}

test("a keyset of Tink's Go is read by its parameters", () => {
  using keyset = parseKeyset(FROM_GO);
  assertEquals(keyset.primaryKeyId, 3288182976);
  assertEquals(keyset.keys as unknown, [
    { id: 3009594338, status: "ENABLED", isPrimary: false, format: CTR },
    { id: 3288182976, status: "ENABLED", isPrimary: true, format: GCM },
  ]);
});

test("a keyset that was read is written with the same bytes", () => {
  using keyset = parseKeyset(FROM_GO);
  assertEquals(JSON.stringify(keyset), FROM_GO);
  using again = parseKeyset(keyset.toJSON());
  assertEquals(JSON.stringify(again), FROM_GO);
});

test("every parameter of a format survives a round trip", () => {
  for (const cipher of ["AES-CTR-HMAC", "AES-GCM-HKDF"] as const) {
    for (const keySize of [16, 32] as const) {
      for (const hkdfHash of ["SHA-1", "SHA-256", "SHA-512"] as const) {
        for (const [macHash, tagSize] of [["SHA-1", 10], ["SHA-256", 17], ["SHA-512", 64]] as const) {
          const isGcm = cipher === "AES-GCM-HKDF";
          const mac = isGcm ? { tagSize: 16 } : { macHash, tagSize };
          for (const segmentSize of [111, 4096, 16_777_216]) {
            using keyset = createKeyset({ cipher, keySize, hkdfHash, ...mac, segmentSize });
            using copy = parseKeyset(JSON.stringify(keyset));
            assertEquals(copy.keys[0]!.format as unknown, { cipher, keySize, hkdfHash, ...mac, segmentSize });
            assertEquals(JSON.stringify(copy), JSON.stringify(keyset));
          }
        }
      }
    }
  }
});

test("numbers may be strings and base64 may be URL-safe or unpadded, as proto3's JSON allows", () => {
  const json = changed((json) => {
    json.primaryKeyId = "3288182976";
    for (const { keyData } of json.key) {
      keyData.value = keyData.value.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
    }
  });
  using keyset = parseKeyset(json);
  assertEquals(JSON.stringify(keyset), FROM_GO);
});

test("keys can be added, promoted, disabled, enabled and removed, and their status has an effect", () => {
  using keyset = createKeyset("AES128_GCM_HKDF_4KB");
  const first = keyset.primaryKeyId;
  const second = keyset.add("AES256_CTR_HMAC_SHA256_1MB");
  assertEquals(keyset.primaryKeyId, first, "a new key does not seal yet");
  keyset.promote(second);
  keyset.disable(first);
  assertEquals(keyset.keys.map(({ id, status, isPrimary }) => [id, status, isPrimary]), [
    [first, "DISABLED", false],
    [second, "ENABLED", true],
  ]);
  using copy = parseKeyset(JSON.stringify(keyset));
  assertEquals(copy.keys, keyset.keys);
  assertThrows(() => keyset.promote(first), RangeError, "DISABLED");
  keyset.enable(first);
  keyset.remove(first);
  assertEquals(keyset.keys.map(({ id }) => id), [second]);
  for (const change of ["disable", "remove"] as const) {
    assertThrows(() => keyset[change](second), RangeError, "primary");
  }
  for (const change of ["promote", "disable", "enable", "remove"] as const) {
    assertThrows(() => keyset[change](first), RangeError, String(first));
    assertThrows(() => keyset[change]("1" as unknown as number), TypeError, '"id"');
  }
  assertThrows(() => keyset.add("AES256_GCM_HKDF_2KB" as "AES256_GCM_HKDF_4KB"), TypeError, '"format"');
});

test("each key of a keyset has an id and a secret of its own", () => {
  using keyset = createKeyset("AES256_GCM_HKDF_4KB");
  for (let i = 0; i < 100; i++) keyset.add("AES256_GCM_HKDF_4KB");
  const { key } = keyset.toJSON();
  assertEquals([new Set(key.map(({ keyId }) => keyId)).size, new Set(key.map(({ keyData }) => keyData!.value)).size], [
    101,
    101,
  ]);
});

test("a destroyed key keeps its place without a secret", () => {
  const json = changed(({ key }) => {
    key[0].status = "DESTROYED";
    delete key[0].keyData;
  });
  using keyset = parseKeyset(json);
  assertEquals(keyset.keys[0], { id: 3009594338, status: "DESTROYED", isPrimary: false, format: undefined });
  assertEquals(JSON.parse(JSON.stringify(keyset)), json);
  for (const change of ["promote", "disable", "enable"] as const) {
    assertThrows(() => keyset[change](3009594338), RangeError, change === "promote" ? "DESTROYED" : "destroyed");
  }
  keyset.remove(3009594338);
  assertEquals(keyset.keys.length, 1);
});

/** Stands for a KMS: AES-GCM under a key that never leaves it. */
async function fakeKms() {
  const { subtle } = crypto;
  const key = await subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  return {
    async encrypt(bytes: Bytes) {
      const iv = crypto.getRandomValues(new Uint8Array(12));
      return concat([iv, new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv }, key, bytes))]);
    },
    async decrypt(bytes: Bytes) {
      const iv = bytes.slice(0, 12);
      return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, bytes.slice(12)));
    },
  };
}

test("an encrypted keyset is decrypted by the function of its KMS, and shows no secret", async () => {
  const kms = await fakeKms();
  using keyset = parseKeyset(FROM_GO);
  keyset.disable(3009594338);
  let passed: Uint8Array | undefined;
  const json = await keyset.toEncryptedJSON({ encrypt: (bytes) => kms.encrypt(passed = bytes) });
  assert(passed!.every((byte) => byte === 0), "the serialized keyset is zeroed afterwards");
  assertEquals(json.keysetInfo as unknown, {
    primaryKeyId: 3288182976,
    keyInfo: JSON.parse(FROM_GO).key.map(({ keyData, keyId, outputPrefixType }: Mutable, i: number) => ({
      typeUrl: keyData.typeUrl,
      status: i === 0 ? "DISABLED" : "ENABLED",
      keyId,
      outputPrefixType,
    })),
  });
  let returned: Uint8Array | undefined;
  using copy = await parseKeyset(JSON.stringify(json), {
    decrypt: async (bytes) => returned = await kms.decrypt(bytes),
  });
  assertEquals(JSON.stringify(copy), JSON.stringify(keyset));
  assert(returned!.every((byte) => byte === 0), "what decrypt() returned is zeroed");
});

test("an encrypted keyset is refused without decrypt(), and a plain one with it", async () => {
  const kms = await fakeKms();
  using keyset = createKeyset("AES256_GCM_HKDF_4KB");
  const json = await keyset.toEncryptedJSON(kms);
  for (const options of [undefined, {}, { decrypt: undefined }]) {
    assertThrows(() => parseKeyset(json, options), TypeError, "decrypt");
    parseKeyset(keyset.toJSON(), options).close();
  }
  assertThrows(() => parseKeyset(json, { decript: kms.decrypt } as never), TypeError, 'did you mean "decrypt"?');
  await assertRejects(() => parseKeyset(keyset.toJSON(), kms), TypeError, "not encrypted");
  await assertRejects(() => parseKeyset(json, { decrypt: 1 as unknown as typeof kms.decrypt }), TypeError, '"decrypt"');
  await assertRejects(
    () => parseKeyset(json, { decrypt: () => "key" as unknown as Uint8Array }),
    TypeError,
    '"decrypt"',
  );
  await assertRejects(() => keyset.toEncryptedJSON({} as typeof kms), TypeError, '"encrypt"');
  const error = new Error("denied");
  assertEquals(await parseKeyset(json, { decrypt: () => Promise.reject(error) }).catch((reason) => reason), error);
  const damaged: EncryptedKeysetJSON = { ...json, encryptedKeyset: "?" };
  await assertRejects(() => parseKeyset(damaged, kms), TypeError, "base64");
});

test("text that is not JSON is refused without being quoted", () => {
  const error = assertThrows(() => parseKeyset(FROM_GO.slice(0, -1)), SyntaxError);
  assert(!error.message.includes("Eg0IgCAQ"), error.message);
});

const REFUSED: Record<string, [json: () => unknown, message: string]> = {
  "not an object": [() => [], "expected an object"],
  "null": [() => null, "expected an object"],
  "no keys": [() => ({ primaryKeyId: 1, key: [] }), "primary key, 1"],
  "no list of keys": [() => ({ primaryKeyId: 1 }), '"keyset.key"'],
  "no primary id": [() => changed((json) => delete json.primaryKeyId), '"keyset.primaryKeyId"'],
  "a missing primary": [() => changed((json) => json.primaryKeyId = 7), "primary key, 7"],
  "a disabled primary": [() => changed(({ key }) => key[1].status = "DISABLED"), "enabled primary"],
  "a duplicate id": [() => changed(({ key }) => key[0].keyId = key[1].keyId), "twice"],
  "an unknown status": [() => changed(({ key }) => key[0].status = "UNKNOWN_STATUS"), ".status"],
  "a prefix": [() => changed(({ key }) => key[0].outputPrefixType = "TINK"), "RAW"],
  "an asymmetric key": [() => changed(({ key }) => key[0].keyData.keyMaterialType = "ASYMMETRIC_PRIVATE"), "SYMMETRIC"],
  "another primitive": [
    () => changed(({ key }) => key[0].keyData.typeUrl = "type.googleapis.com/google.crypto.tink.AesGcmKey"),
    "streaming AEAD",
  ],
  "an unknown member": [() => changed((json) => json.note = ""), '"note"'],
  "an unknown member of a key": [() => changed(({ key }) => key[0].note = ""), '"note"'],
  "an unknown member of key data": [() => changed(({ key }) => key[0].keyData.note = ""), '"note"'],
  "an enabled key without a secret": [() => changed(({ key }) => delete key[0].keyData), "expected a secret"],
  "a destroyed key with a secret": [() => changed(({ key }) => key[0].status = "DESTROYED"), "expected no secret"],
  "an id beyond 32 bits": [() => changed(({ key }) => key[0].keyId = 2 ** 32), "2^32"],
  "a fractional id": [() => changed(({ key }) => key[0].keyId = 1.5), "integer"],
  "a value that is not base64": [() => changed(({ key }) => key[0].keyData.value = "%"), "base64"],
  "a value that is no string": [() => changed(({ key }) => key[0].keyData.value = 1), "base64"],
  "a version": [() => withValue(...ctrMessage({ rest: [8, 1] })), "version 0"],
  "an unknown field": [() => withValue(...ctrMessage({ rest: [32, 1] })), "field 4"],
  "a field that comes twice": [() => withValue(...ctrMessage({ rest: [26, 1, 1] })), "once"],
  "an unknown parameter": [
    () => withValue(...ctrMessage({ params: [8, 128, 32, 16, 32, 24, 3, 34, 4, 8, 3, 16, 32, 40, 1] })),
    "field 5",
  ],
  "SHA-384": [() => withValue(...ctrMessage({ params: [8, 128, 32, 16, 32, 24, 2, 34, 4, 8, 3, 16, 32] })), "SHA-384"],
  "SHA-224 in HMAC": [
    () => withValue(...ctrMessage({ params: [8, 128, 32, 16, 32, 24, 3, 34, 4, 8, 5, 16, 32] })),
    "SHA-224",
  ],
  "no hash": [() => withValue(...ctrMessage({ params: [8, 128, 32, 16, 32, 34, 4, 8, 3, 16, 32] })), "number 0"],
  "a derived key of 24 bytes": [
    () => withValue(...ctrMessage({ params: [8, 128, 32, 16, 24, 24, 3, 34, 4, 8, 3, 16, 32] })),
    '"keySize"',
  ],
  "a tag of 9 bytes": [
    () => withValue(...ctrMessage({ params: [8, 128, 32, 16, 32, 24, 3, 34, 4, 8, 3, 16, 9] })),
    '"tagSize"',
  ],
  "a segment without room": [
    () => withValue(...ctrMessage({ params: [8, 40, 16, 32, 24, 3, 34, 4, 8, 3, 16, 32] })),
    '"segmentSize"',
  ],
  "a key of 31 bytes": [() => withValue(...ctrMessage({ key: Array(31).fill(1) })), "at least 32 bytes"],
  "a key of zeros": [() => withValue(...ctrMessage({ key: Array(32).fill(0) })), "zero bytes"],
  "a message that is cut": [() => withValue(...ctrMessage({}).slice(0, -1)), "cut"],
  "another wire type": [() => withValue(9, 1, 2, 3, 4, 5, 6, 7, 8), "wire type 1"],
  "bytes where a number belongs": [() => withValue(...ctrMessage({ rest: [10, 1, 1] })), "number in field 1"],
  "a number where bytes belong": [() => withValue(16, 1), "bytes in field 2"],
  "a number beyond 32 bits": [() => withValue(8, 255, 255, 255, 255, 255, 1), "protobuf"],
};

for (const [name, [json, message]] of Object.entries(REFUSED)) {
  test(`a keyset with ${name} is refused`, () => {
    const error = assertThrows(() => parseKeyset(json() as object), Error, message);
    assert(error instanceof TypeError || error instanceof RangeError, error.name);
  });
}

test("each truncation of a serialized keyset is refused", async () => {
  using keyset = parseKeyset(FROM_GO);
  let message = new Uint8Array(0);
  await keyset.toEncryptedJSON({ encrypt: (bytes) => message = bytes.slice() });
  const json = { encryptedKeyset: "AA==", keysetInfo: {} };
  using copy = await parseKeyset(json, { decrypt: () => message.slice() });
  assertEquals(JSON.stringify(copy), FROM_GO);
  for (let length = 0; length < message.length; length++) {
    const cut = parseKeyset(json, { decrypt: () => message.slice(0, length) });
    // A keyset that is cut between two keys is one of fewer keys: only here the primary one is the last.
    await assertRejects(() => cut, Error);
  }
});

const servers = { engine: "userspace", runtime: ["deno", "bun", "node"] } as const; // which have inspect()

anyTest("the inspection of a keyset shows no secret", servers, () => {
  using keyset = parseKeyset(FROM_GO);
  const secret = JSON.parse(FROM_GO).key[0].keyData.value;
  for (const shown of [inspect(keyset, { depth: 9, showHidden: true }), String(keyset), inspect(keyset.keys)]) {
    assert(!shown.includes(secret) && !/\b45, 29, 253, 230\b|2d ?1d ?fd ?e6/.test(shown), "no bytes of a key");
  }
});

test("a closed keyset is refused", () => {
  const keyset = createKeyset("AES256_GCM_HKDF_4KB");
  keyset.close();
  keyset.close();
  const error = assertThrows(() => keyset.toJSON() as KeysetJSON, Error);
  assertEquals((error as { code?: string }).code, "EBADF");
  assertThrows(() => Reflect.construct(Keyset, [Symbol(), [], 0]), TypeError, "createKeyset");
});

// ---- properties ----

const FORMATS: fc.Arbitrary<SealedParameters> = fc.oneof(
  fc.record({
    cipher: fc.constant("AES-CTR-HMAC" as const),
    keySize: fc.constantFrom(16 as const, 32 as const),
    hkdfHash: fc.constantFrom("SHA-1" as const, "SHA-256" as const, "SHA-512" as const),
    macHash: fc.constantFrom("SHA-256" as const, "SHA-512" as const),
    tagSize: fc.integer({ min: 10, max: 32 }),
    segmentSize: fc.integer({ min: 100, max: 16_777_216 }),
  }),
  fc.record({
    cipher: fc.constant("AES-GCM-HKDF" as const),
    keySize: fc.constantFrom(16 as const, 32 as const),
    hkdfHash: fc.constantFrom("SHA-1" as const, "SHA-256" as const, "SHA-512" as const),
    segmentSize: fc.integer({ min: 100, max: 16_777_216 }),
  }),
);
const CHANGES = ["promote", "disable", "enable", "remove"] as const;

test("after any changes, a keyset has the keys that a list of them has, and is the same after every round trip", async () => {
  const steps = fc.array(fc.oneof(FORMATS, fc.tuple(fc.constantFrom(...CHANGES), fc.nat(9))), { maxLength: 20 });
  const kms = await fakeKms();
  await fc.assert(
    fc.asyncProperty(FORMATS, steps, async (first, steps) => {
      using keyset = createKeyset(first);
      let primary = keyset.primaryKeyId;
      let model = [{ id: primary, status: "ENABLED", format: first }];
      for (const step of steps) {
        if (!Array.isArray(step)) {
          model.push({ id: keyset.add(step), status: "ENABLED", format: step });
          continue;
        }
        const [change, position] = step;
        const key = model[position % model.length]!;
        const isAllowed = change === "promote" ? key.status === "ENABLED" : change === "enable" || key.id !== primary;
        if (!isAllowed) {
          assertThrows(() => keyset[change](key.id), RangeError);
          continue;
        }
        keyset[change](key.id);
        if (change === "promote") primary = key.id;
        else if (change === "remove") model = model.filter((each) => each !== key);
        else key.status = change === "enable" ? "ENABLED" : "DISABLED";
      }
      const expected = model.map(({ format, ...rest }) => ({
        ...rest,
        isPrimary: rest.id === primary,
        format: { ...format, tagSize: format.tagSize ?? 16 },
      }));
      const text = JSON.stringify(keyset);
      using fromText = parseKeyset(text);
      using fromKms = await parseKeyset(JSON.stringify(await keyset.toEncryptedJSON(kms)), kms);
      for (const each of [keyset, fromText, fromKms]) {
        assertEquals(each.keys as unknown, expected);
        assertEquals(JSON.stringify(each), text);
      }
    }),
    { numRuns: times(60, 500) },
  );
});

test("a keyset with a changed byte is refused with an error of the parser, or is a keyset that can be written", async () => {
  using keyset = parseKeyset(FROM_GO);
  const message = await serialized(keyset);
  const parse = (bytes: Bytes) =>
    parseKeyset({ encryptedKeyset: "AA==", keysetInfo: {} }, { decrypt: () => bytes.slice() });
  await fc.assert(
    fc.asyncProperty(fc.nat(message.length - 1), fc.integer({ min: 1, max: 255 }), async (at, change) => {
      const changed = message.map((byte, i) => i === at ? byte ^ change : byte);
      const parsed = await parse(changed).catch((error) => error);
      if (parsed instanceof TypeError || parsed instanceof RangeError) return;
      using same = await parse(await serialized(parsed));
      assertEquals(JSON.stringify(same), JSON.stringify(parsed));
      parsed.close();
    }),
    { numRuns: times(300, 3000) },
  );
});

/** The protobuf of a keyset. */
async function serialized(keyset: Keyset): Promise<Bytes> {
  let message: Bytes = new Uint8Array(0);
  await keyset.toEncryptedJSON({ encrypt: (bytes) => message = bytes.slice() });
  return message;
}
