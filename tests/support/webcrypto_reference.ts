/**
 * A reference implementation of sealed streams with WebCrypto, in one call for a whole file. It follows the format's
 * description and shares no code with src/.
 */
import type { Bytes } from "./bytes.ts";

/** The parameters of a format, as in `tink_vectors.json`. */
export interface ReferenceFormat {
  cipher: "AES-CTR-HMAC" | "AES-GCM-HKDF";
  keySize: number;
  hkdfHash: string;
  macHash?: string | undefined;
  tagSize: number;
  segmentSize: number;
}

/** The fields of a header. */
export interface ReferenceHeader {
  salt: Bytes;
  noncePrefix: Bytes;
}

/** Seals or opens one segment. */
type Segment = (input: Bytes, index: number, isLast: boolean) => Promise<Bytes>;

const { subtle } = globalThis.crypto;

/** Seals `plaintext` with a given header. */
export async function sealWhole(
  format: ReferenceFormat,
  key: Bytes,
  associatedData: Bytes,
  { salt, noncePrefix }: ReferenceHeader,
  plaintext: Bytes,
): Promise<Bytes> {
  const header = join([Uint8Array.of(1 + salt.length + noncePrefix.length), salt, noncePrefix]);
  const { seal } = await segmentsOf(format, key, associatedData, header);
  const cuts = cut(plaintext, format.segmentSize - format.tagSize, header.length);
  const sealed = await Promise.all(cuts.map((piece, i) => seal(piece, i, i === cuts.length - 1)));
  return join([header, ...sealed]);
}

/** Opens a sealed file. Rejects if it is damaged, truncated, or the key or associated data is wrong. */
export async function openWhole(
  format: ReferenceFormat,
  key: Bytes,
  associatedData: Bytes,
  file: Bytes,
): Promise<Bytes> {
  const headerSize = 8 + format.keySize;
  const header = file.slice(0, headerSize);
  if (header.length < headerSize || header[0] !== headerSize) throw new Error("bad header");
  const { open } = await segmentsOf(format, key, associatedData, header);
  const cuts = cut(file.slice(headerSize), format.segmentSize, headerSize);
  const opened: Bytes[] = [];
  for (const [i, piece] of cuts.entries()) opened.push(await open(piece, i, i === cuts.length - 1));
  return join(opened);
}

/** Splits `bytes` into segments of `size`. The first is shorter by the header. Only a single segment may be empty. */
function cut(bytes: Bytes, size: number, headerSize: number): Bytes[] {
  const pieces = [bytes.slice(0, size - headerSize)];
  for (let at = size - headerSize; at < bytes.length; at += size) pieces.push(bytes.slice(at, at + size));
  return pieces;
}

function join(pieces: readonly Bytes[]): Bytes {
  const joined = new Uint8Array(pieces.reduce((length, piece) => length + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/** Seals and opens segments of a stream with a given header. */
export async function segmentsOf(
  { cipher, keySize, hkdfHash, macHash, tagSize }: ReferenceFormat,
  key: Bytes,
  info: Bytes,
  header: Bytes,
): Promise<{ seal: Segment; open: Segment }> {
  const isGcm = cipher === "AES-GCM-HKDF";
  const ikm = await subtle.importKey("raw", key, "HKDF", false, ["deriveBits"]);
  const hkdf = { name: "HKDF", hash: hkdfHash, salt: header.slice(1, 1 + keySize), info };
  const derived = new Uint8Array(await subtle.deriveBits(hkdf, ikm, 8 * (keySize + (isGcm ? 0 : 32))));
  const name = isGcm ? "AES-GCM" : "AES-CTR";
  const aes = await subtle.importKey("raw", derived.slice(0, keySize), name, false, ["encrypt", "decrypt"]);
  const nonceOf = (length: number, index: number, isLast: boolean) => {
    const nonce = new Uint8Array(length);
    nonce.set(header.slice(1 + keySize));
    const view = new DataView(nonce.buffer);
    view.setUint32(7, index);
    view.setUint8(11, Number(isLast));
    return nonce;
  };
  if (isGcm) {
    const gcm = (index: number, isLast: boolean) => ({ name, iv: nonceOf(12, index, isLast), tagLength: 8 * tagSize });
    return {
      seal: async (plaintext, i, isLast) => new Uint8Array(await subtle.encrypt(gcm(i, isLast), aes, plaintext)),
      open: async (sealed, i, isLast) => new Uint8Array(await subtle.decrypt(gcm(i, isLast), aes, sealed)),
    };
  }
  const hmac = { name: "HMAC", hash: macHash! };
  const mac = await subtle.importKey("raw", derived.slice(keySize), hmac, false, ["sign"]);
  const tagOf = async (nonce: Bytes, ciphertext: Bytes) =>
    new Uint8Array(await subtle.sign("HMAC", mac, join([nonce, ciphertext]))).slice(0, tagSize);
  return {
    async seal(plaintext, index, isLast) {
      const counter = nonceOf(16, index, isLast);
      const ciphertext = new Uint8Array(await subtle.encrypt({ name, counter, length: 32 }, aes, plaintext));
      return join([ciphertext, await tagOf(counter, ciphertext)]);
    },
    async open(sealed, index, isLast) {
      const counter = nonceOf(16, index, isLast);
      if (sealed.length < tagSize) throw new Error("segment too short");
      const ciphertext = sealed.slice(0, sealed.length - tagSize);
      const tag = await tagOf(counter, ciphertext);
      if (tag.join() !== sealed.slice(ciphertext.length).join()) throw new Error("bad tag");
      return new Uint8Array(await subtle.decrypt({ name, counter, length: 32 }, aes, ciphertext));
    },
  };
}
