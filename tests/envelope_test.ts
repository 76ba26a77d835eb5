/**
 * Envelopes: every kind of recipient, and hostile headers. Browsers run it, too.
 */
import { GeneralEncrypt, importJWK } from "jose";
import { KcapiError } from "../mod.ts";
import {
  envelopeRecipients,
  EnvelopeSealStream,
  EnvelopeUnsealStream,
  type Identity,
  openEnvelope,
  type Recipient,
  rewrap,
} from "../src/envelope/mod.ts";
import { type Bytes, bytes } from "./support/bytes.ts";
import { assert, assertEquals, assertRejects, assertThrows, runtime, test as anyTest } from "./support/deps.ts";
import {
  AES,
  bytesOf,
  cut,
  DATA,
  headerOf,
  KINDS,
  P256,
  pairOf,
  PASSPHRASE,
  RSA,
  sealedFor,
  symmetricKey,
  toBase64url,
  unsealedBy,
  withHeader,
  X25519,
} from "./support/envelope_support.ts";

/** A public key with one usage. */
async function rsaKey(hash: string, usage: KeyUsage): Promise<CryptoKey> {
  const algorithm = { name: "RSA-OAEP", modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1), hash };
  const usages: KeyUsage[] = usage === "encrypt" ? ["encrypt", "decrypt"] : ["wrapKey", "unwrapKey"];
  return (await crypto.subtle.generateKey(algorithm, false, usages) as CryptoKeyPair).publicKey;
}

const P256_NOWHERE = { kty: "EC", crv: "P-256", x: "A".repeat(43), y: "A".repeat(43) };

const test = (name: string, body: () => void | Promise<void>) => anyTest(name, { engine: "userspace" }, body);

for (const [name, { recipient, identity, algorithm }] of Object.entries(KINDS)) {
  test(`${name} opens what is sealed for it, as a stream and by ranges`, async () => {
    const file = await sealedFor([recipient]);
    assertEquals(await unsealedBy([identity], file), DATA);
    using reader = await openEnvelope(new Blob([file]), { identities: [identity] });
    assertEquals(reader.size, DATA.length);
    assertEquals(await reader.bytes(100_000, 100_007), DATA.slice(100_000, 100_007));
    const [found] = await envelopeRecipients(new Blob([file]));
    assertEquals(found!.algorithm, algorithm);
  });
}

test("any one of several recipients opens the file", async () => {
  const kinds = Object.values(KINDS);
  const file = await sealedFor(kinds.map(({ recipient }) => recipient));
  for (const { identity } of kinds) assertEquals(await unsealedBy([identity], file), DATA);
  const found = await envelopeRecipients(new Blob([file]));
  assertEquals(found.map(({ algorithm }) => algorithm), kinds.map(({ algorithm }) => algorithm));
  assertEquals(found[0]!.iterations, 600_000);
  assertEquals(found[1]!.curve, "X25519");
});

test("identities that do not fit are skipped", async () => {
  const strangers = await Promise.all([pairOf("ECDH-ES+A256KW", "X25519"), pairOf("RSA-OAEP-256")]);
  const identities = [symmetricKey(), ...strangers.map(({ identity }) => identity), X25519.identity] as Identity[];
  assertEquals(await unsealedBy(identities, await sealedFor([X25519.recipient as Recipient])), DATA);
});

test("keys that no script can read open a file", async () => {
  const x25519 = await crypto.subtle.generateKey({ name: "X25519" }, false, ["deriveBits"]) as CryptoKeyPair;
  const aes = await crypto.subtle.generateKey({ name: "AES-KW", length: 256 }, false, ["wrapKey", "unwrapKey"]);
  const file = await sealedFor([x25519.publicKey, aes]);
  assertEquals(await unsealedBy([x25519.privateKey], file), DATA);
  assertEquals(await unsealedBy([aes], file), DATA);
});

test("the name of a key is stored with its recipient, and the private part is not", async () => {
  const file = await sealedFor([{ ...X25519.identity, kid: "backup-2026" } as Recipient]);
  assert(!headerOf(file).line.includes(X25519.identity.d!), "the header has the private key");
  assertEquals((await envelopeRecipients(new Blob([file])))[0]!.kid, "backup-2026");
  assertEquals(await unsealedBy([{ ...X25519.identity, kid: "backup-2026" } as Identity], file), DATA);
  await assertRejects(
    () => unsealedBy([{ ...X25519.identity, kid: "another" } as Identity], file),
    KcapiError,
    "no identity",
  );
});

test("a service that keeps a private RSA key unwraps the key of a file", async () => {
  const algorithm = { name: "RSA-OAEP", modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1), hash: "SHA-256" };
  const pair = await crypto.subtle.generateKey(algorithm, false, ["encrypt", "decrypt"]) as CryptoKeyPair;
  const returned: Bytes[] = [];
  const service = {
    async unwrap(encryptedKey: Bytes) {
      const bytes = new Uint8Array(await crypto.subtle.decrypt({ name: "RSA-OAEP" }, pair.privateKey, encryptedKey));
      returned.push(bytes);
      return bytes;
    },
  };
  const file = await sealedFor([RSA.recipient as Recipient, X25519.recipient as Recipient, pair.publicKey]);
  // The service refuses what is for another key, and the next recipient is tried.
  assertEquals(await unsealedBy([service], file), DATA);
  assert(returned.length === 1 && returned[0]!.every((byte) => byte === 0), "what the service returned is zeroed");
  using reader = await openEnvelope(new Blob([file]), { identities: [symmetricKey() as Identity, service] });
  assertEquals(reader.size, DATA.length);

  const refusal = new Error("denied");
  const refused = { unwrap: () => Promise.reject(refusal) };
  const error = await assertRejects(() => unsealedBy([refused], file), KcapiError, "no identity");
  assertEquals([error.code, error.cause], ["EKEYREJECTED", refusal]);
  for (const wrong of [new Uint8Array(32), new Uint8Array(5), new Uint8Array(0)]) {
    await assertRejects(() => unsealedBy([{ unwrap: () => wrong }], file), KcapiError, "no identity");
  }
  const named = { ...refused, kid: "another" };
  const forNamed = await sealedFor([{ ...RSA.recipient, kid: "2026" } as Recipient]);
  const passedOver = await assertRejects(() => unsealedBy([named], forNamed), KcapiError, "no identity");
  assertEquals(passedOver.cause, undefined);
  for (
    const [wrong, message] of [[{ unwrap: 1 }, ".unwrap"], [{ ...refused, name: "" }, 'no option "name"']] as const
  ) {
    assertThrows(() => new EnvelopeUnsealStream({ identities: [wrong as never] }), TypeError, message);
  }
});

test("the format is in the protected header, and the rest of the file is a sealed stream in it", async () => {
  for (const format of ["AES128_CTR_HMAC_SHA256_4KB", "AES256_GCM_HKDF_1MB"] as const) {
    const file = await sealedFor([AES as Recipient], DATA, { format });
    const protectedHeader = JSON.parse(headerOf(file).line).protected;
    assertEquals(protectedHeader, toBase64url(JSON.stringify({ enc: "A256GCM", format })));
    assertEquals(await unsealedBy([AES as Identity], file), DATA);
  }
});

test("two files of the same recipients have nothing in common", async () => {
  const files = [await sealedFor([AES as Recipient]), await sealedFor([AES as Recipient])];
  const [first, second] = files.map((file) => JSON.parse(headerOf(file).line));
  for (const name of ["iv", "ciphertext", "tag"]) assert(first[name] !== second[name], name);
});

test("the associated data is that of the sealed stream", async () => {
  const associatedData = new TextEncoder().encode("a name");
  const file = await sealedFor([AES as Recipient], DATA, { associatedData });
  assertEquals(await unsealedBy([AES as Identity], file, 1000, { associatedData }), DATA);
  const error = await assertRejects(() => unsealedBy([AES as Identity], file), KcapiError);
  assertEquals(error.code, "EBADMSG");
});

test("chunks of any size, and an empty file, give the same file back", async () => {
  for (const data of [new Uint8Array(0), bytes(1), bytes(3000)]) {
    const file = await sealedFor([AES as Recipient], data);
    for (const size of [1, 14, 15, 16, file.length]) {
      assertEquals(await unsealedBy([AES as Identity], file, size), data);
    }
  }
});

test("rewrapping changes only the header: the old recipients are removed, and the data is the same", async () => {
  const file = await sealedFor([X25519.recipient as Recipient, PASSPHRASE]);
  const options = { identities: [X25519.identity as Identity], recipients: [AES as Recipient] };
  for (const size of [1000, 65_536]) {
    const rewrapped = await bytesOf(rewrap(cut(file, size), options));
    assertEquals(rewrapped.subarray(headerOf(rewrapped).end), file.subarray(headerOf(file).end));
    assertEquals(await unsealedBy([AES as Identity], rewrapped), DATA);
    await assertRejects(() => unsealedBy([X25519.identity as Identity], rewrapped), KcapiError, "no identity");
  }
  let reason: unknown;
  const source = new ReadableStream<Bytes>({
    pull: (controller) => controller.enqueue(file.slice(0, 100_000)),
    cancel: (given) => void (reason = given),
  });
  const wrong = rewrap(source, { ...options, identities: [symmetricKey() as Identity] });
  const error = await assertRejects(() => bytesOf(wrong), KcapiError, "no identity");
  assertEquals(reason, error, "the source is cancelled");
});

test("if no identity fits, the error names the kinds of recipients only", async () => {
  const file = await sealedFor([PASSPHRASE, X25519.recipient as Recipient, RSA.recipient as Recipient]);
  const strangers = [{ passphrase: "corrêct hors" }, P256.identity, symmetricKey()] as Identity[];
  const messages = await Promise.all(strangers.map(async (identity) => {
    const error = await assertRejects(() => unsealedBy([identity], file), KcapiError);
    assertEquals(error.code, "EKEYREJECTED");
    return error.message;
  }));
  assertEquals(new Set(messages).size, 1);
  assert(/a passphrase, a public key of X25519, a public key of RSA/.test(messages[0]!), messages[0]!);
});

// ---- hostile headers ----

const ORDINARY = await sealedFor([AES as Recipient]);
const HEADER = JSON.parse(headerOf(ORDINARY).line);

/** A header line with some members replaced. */
function changed(members: Record<string, unknown>): string {
  return JSON.stringify({ ...HEADER, ...members });
}

const encodeHeader = (header: unknown) => toBase64url(JSON.stringify(header));

const HOSTILE: Record<string, () => Bytes> = {
  "another first line": () => withHeader(ORDINARY, headerOf(ORDINARY).line, "kcapi-sealed/2"),
  "a first line with CRLF": () => withHeader(ORDINARY, headerOf(ORDINARY).line, "kcapi-sealed/1\r"),
  "an empty header": () => withHeader(ORDINARY, ""),
  "no JSON": () => withHeader(ORDINARY, "{"),
  "arrays in arrays": () => withHeader(ORDINARY, `{"a":${"[".repeat(30_000)}${"]".repeat(30_000)}}`),
  "an array": () => withHeader(ORDINARY, "[]"),
  "null": () => withHeader(ORDINARY, "null"),
  "text that is not UTF-8": () => withHeader(ORDINARY, Uint8Array.of(123, 34, 255, 34, 58, 49, 125)),
  "no protected header": () => withHeader(ORDINARY, changed({ protected: undefined })),
  "no recipients": () => withHeader(ORDINARY, changed({ recipients: [] })),
  "recipients that are no list": () => withHeader(ORDINARY, changed({ recipients: {} })),
  "a recipient that is no object": () => withHeader(ORDINARY, changed({ recipients: [1] })),
  "both serializations": () => withHeader(ORDINARY, changed({ encrypted_key: HEADER.recipients[0].encrypted_key })),
  "no algorithm": () => withHeader(ORDINARY, changed({ recipients: [{ ...HEADER.recipients[0], header: {} }] })),
  "no format": () => withHeader(ORDINARY, changed({ protected: encodeHeader({ enc: "A256GCM" }) })),
  "an unknown format": () =>
    withHeader(ORDINARY, changed({ protected: encodeHeader({ enc: "A256GCM", format: "AES" }) })),
  "a member twice": () => withHeader(ORDINARY, headerOf(ORDINARY).line.replace(/^\{/, `{"iv":"${HEADER.iv}",`)),
  "a protected member twice": () =>
    withHeader(
      ORDINARY,
      changed({
        protected: toBase64url('{"enc":"A256GCM","format":"AES256_GCM_HKDF_4KB","format":"AES256_GCM_HKDF_64KB"}'),
      }),
    ),
  "base64url that is not canonical": () =>
    withHeader(ORDINARY, changed({ tag: `${HEADER.tag.slice(0, -1)}${HEADER.tag.endsWith("B") ? "C" : "B"}` })),
  "base64url with padding": () => withHeader(ORDINARY, changed({ tag: `${HEADER.tag}==` })),
  "iterations beyond the limit": () =>
    withHeader(
      ORDINARY,
      changed({
        recipients: [{
          header: { alg: "PBES2-HS512+A256KW", p2s: "AAAAAAAAAAAAAAAAAAAAAA", p2c: 2 ** 31 },
          encrypted_key: HEADER.recipients[0].encrypted_key,
        }],
      }),
    ),
  "a huge header": () => withHeader(ORDINARY, changed({ aad: "A".repeat(70_000) })),
};

for (const [name, file] of Object.entries(HOSTILE)) {
  test(`a file with ${name} is EBADMSG before any key is tried`, async () => {
    for (const size of [1000, 1_000_000]) {
      const error = await assertRejects(() => unsealedBy([AES as Identity, PASSPHRASE], file(), size), KcapiError);
      assertEquals(error.code, "EBADMSG");
    }
    const error = await assertRejects(
      () => openEnvelope(new Blob([file()]), { identities: [AES as Identity, PASSPHRASE] }),
      KcapiError,
    );
    assertEquals(error.code, "EBADMSG");
  });
}

test("the limit of iterations holds for all recipients together", async () => {
  const recipientOf = (p2c: number) => ({
    header: { alg: "PBES2-HS512+A256KW", p2s: "AAAAAAAAAAAAAAAAAAAAAA", p2c },
    encrypted_key: HEADER.recipients[0].encrypted_key,
  });
  const file = withHeader(ORDINARY, changed({ recipients: [recipientOf(1000), recipientOf(9_999_999)] }));
  const identities = [{ passphrase: "a" }];
  const error = await assertRejects(() => openEnvelope(new Blob([file]), { identities }), KcapiError, "iterations");
  assertEquals(error.code, "EBADMSG");
});

test("a recipient with an unknown algorithm is skipped and named", async () => {
  const unknown = { header: { alg: "ECDH-1PU" }, encrypted_key: "AAAA" };
  const file = withHeader(ORDINARY, changed({ recipients: [unknown, ...HEADER.recipients] }));
  assertEquals(await unsealedBy([AES as Identity], file), DATA);
  const only = withHeader(ORDINARY, changed({ recipients: [unknown] }));
  await assertRejects(() => unsealedBy([AES as Identity], only), KcapiError, "unknown kind");
});

test("a key of another size is refused", async () => {
  const jwe = new GeneralEncrypt(new Uint8Array(16)).setProtectedHeader({
    enc: "A256GCM",
    format: "AES128_GCM_HKDF_4KB",
  });
  jwe.addRecipient(await importJWK(AES, "A256KW")).setUnprotectedHeader({ alg: "A256KW" });
  const file = withHeader(ORDINARY, JSON.stringify(await jwe.encrypt()));
  await assertRejects(() => unsealedBy([AES as Identity], file), KcapiError, "no identity");
});

test("a header that is truncated anywhere is EBADMSG, and so is damage after it", async () => {
  const { end } = headerOf(ORDINARY);
  for (const length of [0, 1, 14, 15, 16, end - 2, end - 1]) {
    for (
      const open of [
        () => unsealedBy([AES as Identity], ORDINARY.slice(0, length)),
        () => openEnvelope(new Blob([ORDINARY.slice(0, length)]), { identities: [AES as Identity] }),
      ]
    ) {
      const error = await assertRejects(open as () => Promise<unknown>, KcapiError);
      assertEquals(error.code, "EBADMSG", `cut at ${length}`);
    }
  }
  const damaged = ORDINARY.slice();
  damaged[end + 1000]! ^= 1;
  const error = await assertRejects(() => unsealedBy([AES as Identity], damaged), KcapiError);
  assertEquals(error.code, "EBADMSG");
});

// ---- arguments and ends ----

test("wrong arguments are refused when the stream is made", () => {
  for (const options of [null, {}, { who: [] }, { who: "hunter2" }, { who: ["hunter2"] }]) {
    const named = (name: string) => options && ("who" in options ? { [name]: options.who } : {});
    const message = options ? "who" in options ? "expected" : "expected an array" : '"options"';
    assertThrows(() => new EnvelopeSealStream(named("recipients") as never), TypeError, message);
    const error = assertThrows(() => new EnvelopeUnsealStream(named("identities") as never), TypeError, message);
    assert(!error.message.includes("hunter2"), error.message);
  }
  assertThrows(
    () => new EnvelopeSealStream({ recipients: [PASSPHRASE], format: "AES" as never }),
    TypeError,
    '"format"',
  );
  for (const name of ["key", "keyset", "identities", "recipient"]) {
    const options = { recipients: [PASSPHRASE], [name]: [] };
    assertThrows(() => new EnvelopeSealStream(options), TypeError, `has no option "${name}"`);
  }
  const iteration = { passphrase: "a", iteration: 600_000 };
  assertThrows(() => new EnvelopeSealStream({ recipients: [iteration] }), TypeError, 'did you mean "iterations"?');
  for (const other of [{ format: "AES256_GCM_HKDF_4KB" }, { key: new Uint8Array(32) }, { engine: "gpu" }]) {
    const options = { identities: [PASSPHRASE], ...other } as never;
    assertThrows(() => new EnvelopeUnsealStream(options), TypeError, Object.keys(other)[0]);
  }
  const wrapping = { identities: [PASSPHRASE], recipients: [PASSPHRASE], signal: undefined };
  assertThrows(() => rewrap(new Blob([]).stream(), wrapping), TypeError, 'has no option "signal"');
  assertThrows(
    () => rewrap({} as never, { identities: [PASSPHRASE], recipients: [PASSPHRASE] }),
    TypeError,
    '"source"',
  );
});

test("a key that cannot be used errors the stream, and names the entry", async () => {
  const cases: [recipient: unknown, message: string][] = [
    [{ passphrase: "" }, "recipients[0].passphrase"],
    [{ passphrase: 1 }, "recipients[0].passphrase"],
    [{ passphrase: "a", iterations: 599_999 }, "recipients[0].iterations"],
    [{ kty: "OKP", crv: "Ed25519", x: "AA" }, "X25519"],
    [{ kty: "EC", crv: "P-256", x: "AA", y: "AA" }, "recipients[0]"],
    // A point that is not on the curve, which WebKitGTK 2.50 imports.
    ...((runtime as string) === "webkit" ? [] : [[P256_NOWHERE, "recipients"] as [unknown, string]]),
    [{ kty: "oct", k: "AAAA" }, "got 3 bytes"],
    [{ kty: "oct", k: "A".repeat(43) }, "nothing but zero bytes"],
    [{ kty: "oct", k: `${AES.k!.slice(0, -1)}B` }, "expected base64url"],
    [{ ...X25519.recipient, alg: "ECDH-ES" }, "recipients[0].alg"],
    [{ ...P256.recipient, use: "sig" }, "recipients[0].use"],
    [await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, true, ["encrypt"]), "AES-KW"],
    [await crypto.subtle.generateKey({ name: "AES-KW", length: 128 }, false, ["wrapKey"]), "256 bits"],
    [await crypto.subtle.generateKey({ name: "AES-KW", length: 256 }, false, ["unwrapKey"]), "the usage wrapKey"],
    [await rsaKey("SHA-1", "encrypt"), "SHA-256"],
    [await rsaKey("SHA-256", "wrapKey"), "the usage encrypt"],
  ];
  for (const [recipient, message] of cases) {
    const error = await assertRejects(() => sealedFor([recipient as Recipient]), Error, message);
    assert(error instanceof TypeError || error instanceof RangeError, `${error}`);
  }
  await assertRejects(() => unsealedBy([X25519.recipient as Identity], ORDINARY), TypeError, "private key");
  const ecdh = await crypto.subtle.generateKey({ name: "ECDH", namedCurve: "P-256" }, false, ["deriveKey"]);
  const { privateKey } = ecdh as CryptoKeyPair;
  await assertRejects(() => unsealedBy([privateKey], ORDINARY), TypeError, "the usage deriveBits");
});

test("the signal ends a stream that waits for its header, and an opening that waits for its source", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const seal = new EnvelopeSealStream({ recipients: [AES as Recipient], signal });
  const unseal = new EnvelopeUnsealStream({ identities: [AES as Identity], signal });
  const source = { size: 1000, read: () => new Promise<Bytes>(() => {}) };
  const pending = [
    seal.readable.getReader().read(),
    unseal.readable.getReader().read(),
    openEnvelope(source, { identities: [AES as Identity], signal }),
  ];
  const reason = new Error("enough");
  controller.abort(reason);
  for (const each of pending) assertEquals(await each.catch((error) => error), reason);
  for (const { writable } of [seal, unseal]) {
    assertEquals(await writable.getWriter().closed.catch((error) => error), reason);
  }
  const aborted = new EnvelopeUnsealStream({ identities: [AES as Identity], signal });
  assertEquals(await aborted.readable.getReader().read().catch((error) => error), reason);
  const tooLate = openEnvelope(new Blob([ORDINARY]), { identities: [AES as Identity], signal });
  assertEquals(await tooLate.catch((error) => error), reason);
});

test("an abort or a cancel before, during and after the opening ends both sides with its reason", async () => {
  for (const chunks of [0, 1, 2]) {
    const stream = new EnvelopeUnsealStream({ identities: [AES as Identity] });
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    const writes = Array.from({ length: chunks }, (_, i) => writer.write(ORDINARY.slice(i * 1000, (i + 1) * 1000)));
    const reason = new Error("enough");
    const read = reader.read();
    await writer.abort(reason);
    assertEquals(await read.catch((error) => error), reason);
    await Promise.allSettled(writes);
  }
  for (const chunks of [0, 1, 2]) {
    const stream = new EnvelopeUnsealStream({ identities: [AES as Identity] });
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    writer.closed.catch(() => {});
    const writes = Array.from({ length: chunks }, (_, i) => writer.write(ORDINARY.slice(i * 1000, (i + 1) * 1000)));
    const reason = new Error("enough");
    await reader.cancel(reason);
    await Promise.allSettled(writes);
    assertEquals(await writer.closed.catch((error) => error), reason);
  }
});
