/** Keys of every kind, and files for them, for the tests of envelopes. Browsers run it, too. */
import { exportJWK, generateKeyPair, type JWK as JoseJWK } from "jose";
import { EnvelopeSealStream, EnvelopeUnsealStream, type Identity, type Recipient } from "../../src/envelope/mod.ts";
import { type Bytes, bytes, collect, concat } from "./bytes.ts";

const encoder = new TextEncoder();

/** Base64url without padding, of bytes or of text in UTF-8. */
export function toBase64url(data: Uint8Array | string): string {
  const bytes = typeof data === "string" ? encoder.encode(data) : data;
  return btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
}

export const PASSPHRASE = { passphrase: "corrêct horse" };

export async function pairOf(algorithm: string, crv?: string): Promise<{ recipient: JoseJWK; identity: JoseJWK }> {
  const { publicKey, privateKey } = await generateKeyPair(algorithm, { ...(crv && { crv }), extractable: true });
  return { recipient: await exportJWK(publicKey), identity: await exportJWK(privateKey) };
}

export function symmetricKey(): JoseJWK {
  return { kty: "oct", k: toBase64url(crypto.getRandomValues(new Uint8Array(32))) };
}

export const X25519 = await pairOf("ECDH-ES+A256KW", "X25519");
export const P256 = await pairOf("ECDH-ES+A256KW", "P-256");
export const P384 = await pairOf("ECDH-ES+A256KW", "P-384");
export const RSA = await pairOf("RSA-OAEP-256");
export const AES = symmetricKey();

export const KINDS: Record<string, { recipient: Recipient; identity: Identity; algorithm: string }> = {
  "a passphrase": { recipient: PASSPHRASE, identity: PASSPHRASE, algorithm: "PBES2-HS512+A256KW" },
  "X25519": { ...X25519, algorithm: "ECDH-ES+A256KW" } as never,
  "P-256": { ...P256, algorithm: "ECDH-ES+A256KW" } as never,
  "P-384": { ...P384, algorithm: "ECDH-ES+A256KW" } as never,
  "RSA": { ...RSA, algorithm: "RSA-OAEP-256" } as never,
  "AES": { recipient: AES, identity: AES, algorithm: "A256KW" } as never,
};

export const DATA = bytes(200_000);

export const bytesOf = (stream: ReadableStream<Uint8Array>): Promise<Bytes> => collect(stream);

export function cut(data: Bytes, size: number): ReadableStream<Bytes> {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at < data.length) controller.enqueue(data.slice(at, at += size));
      else controller.close();
    },
  });
}

export async function sealedFor(
  recipients: readonly Recipient[],
  data = DATA,
  options = {},
): Promise<Bytes> {
  return await bytesOf(cut(data, 65_536).pipeThrough(new EnvelopeSealStream({ recipients, ...options })));
}

export function unsealedBy(
  identities: readonly Identity[],
  file: Bytes,
  size = 65_536,
  options = {},
): Promise<Uint8Array> {
  return bytesOf(cut(file, size).pipeThrough(new EnvelopeUnsealStream({ identities, ...options })));
}

export function headerOf(file: Uint8Array): { line: string; end: number } {
  const end = file.indexOf(10, 15) + 1;
  return { line: new TextDecoder().decode(file.subarray(15, end - 1)), end };
}

/** The file with another header line, or another first line. */
export function withHeader(
  file: Bytes,
  line: string | Uint8Array,
  magic = "kcapi-sealed/1",
): Bytes {
  const text = typeof line === "string" ? encoder.encode(line) : line;
  const { end } = headerOf(file);
  return concat([encoder.encode(`${magic}\n`), text, encoder.encode("\n"), file.subarray(end)]);
}
