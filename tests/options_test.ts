/** Options whose names are wrong: refused by name, in every object of options that the API takes. */
import {
  CipherHandle,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  openSealed,
  seal,
  type SealedParameters,
  SealStream,
  unseal,
  UnsealStream,
} from "../mod.ts";
import { editDistance, nearestWord } from "../src/edit_distance.ts";
import { assertEquals, assertRejects, assertStringIncludes, assertThrows, test } from "./support/deps.ts";

const key = new Uint8Array(32).fill(1);
const iv = new Uint8Array(16);
const none = new Uint8Array(0);
const sealed = new Blob(await Array.fromAsync(seal({ key }, none)));
const format = { cipher: "AES-GCM-HKDF", keySize: 16, hkdfHash: "SHA-256", segmentSize: 4096 } as const;

/** Every way to give options, with what else has to be there. */
const WAYS: Record<string, (options: object) => unknown> = {
  EncryptionStream: (options) => new EncryptionStream("ctr(aes)", { key, iv, ...options }),
  "EncryptionStream with a handle": (options) => {
    using handle = CipherHandle.open("ctr(aes)", { key, engine: "userspace" });
    new EncryptionStream(handle, { iv, ...options });
  },
  DecryptionStream: (options) => new DecryptionStream("ctr(aes)", { key, iv, ...options }),
  encrypt: (options) => encrypt("ctr(aes)", { key, iv, ...options }, none),
  decrypt: (options) => decrypt("ctr(aes)", { key, iv, ...options }, none),
  "CipherHandle.open": (options) => CipherHandle.open("ctr(aes)", { key, ...options }),
  "CipherHandle.streamOp": (options) => {
    using handle = CipherHandle.open("ctr(aes)", { key, engine: "userspace" });
    handle.streamInitEnc(iv);
    handle.streamOp(options);
  },
  SealStream: (options) => new SealStream({ key, ...options }),
  UnsealStream: (options) => new UnsealStream({ key, ...options }),
  seal: (options) => seal({ key, ...options }, none),
  unseal: (options) => unseal({ key, ...options }, none),
  openSealed: (options) => openSealed(sealed, { key, ...options }),
  "SealedReader.stream": async (options) => {
    using reader = await openSealed(sealed, { key });
    reader.stream(options);
  },
  "the parameters of a format": (options) => seal({ key, format: { ...format, ...options } as SealedParameters }, none),
};

for (const [way, give] of Object.entries(WAYS)) {
  test(`${way}: an unknown option is a TypeError with its name`, async () => {
    const error = await assertRejects(async () => await give({ nonsense: undefined }), TypeError);
    assertStringIncludes(error.message, 'has no option "nonsense": it has ');
  });
}

test("the error for an unknown option suggests the nearest one, or lists all", () => {
  const messages: [object, string][] = [
    [{ asociatedData: none }, '"options" has no option "asociatedData": did you mean "associatedData"?'],
    [{ AssociatedData: none }, 'did you mean "associatedData"?'],
    [{ additionalData: none }, "associatedData"],
    [{ assocData: none }, "it has key, keyset, associatedData, format, engine, signal, inPlace, pool"],
    [{ iv }, '"options" has no option "iv"'],
  ];
  for (const [options, text] of messages) {
    assertStringIncludes(assertThrows(() => seal({ key, ...options }, none), TypeError).message, text);
  }
  const misspelled = assertThrows(() => encrypt("xts(aes)", { key, sectorsize: 512 } as never, none), TypeError);
  assertStringIncludes(misspelled.message, 'has no option "sectorsize": did you mean "sectorSize"?');
  // A format in the place of options, as in seal(format, …).
  assertStringIncludes(assertThrows(() => seal(format as never, none), TypeError).message, 'no option "cipher"');
});

test("missing options are refused as such", () => {
  for (const bad of [undefined, null, 5, "key"]) {
    for (const call of [() => seal(bad as never, none), () => CipherHandle.open("ctr(aes)", bad as never)]) {
      assertStringIncludes(assertThrows(call, TypeError).message, '"options" expected an object, got ');
    }
  }
});

test("nearestWord() finds a word with few edits, in any case, and none if many letters differ", () => {
  assertEquals([editDistance("ab", "ba"), editDistance("kitten", "sitting"), editDistance("", "abc")], [1, 3, 3]);
  assertEquals(nearestWord("Sector", ["sector", "sectorSize"]), "sector");
  assertEquals(nearestWord("sectrsize", ["sector", "sectorSize"]), "sectorSize");
  assertEquals(nearestWord("cipher", ["key", "iv"]), undefined);
});
