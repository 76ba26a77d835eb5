/**
 * The session of a sealed stream over WebCrypto. It processes several segments at once, because most runtimes use other
 * threads for them.
 *
 * @module
 */

import { type Bytes, inOnePiece } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { BatchPosition, BatchResult, Session } from "../executors/executor.ts";
import { oneOf } from "../options.ts";
import { allocUnsafe, requireWebCrypto } from "../runtime/web.ts";
import { Secret } from "../secret.ts";
import {
  checkIndex,
  createBadMessageError,
  derivedSize,
  type Format,
  type Header,
  headerBytes,
  PREFIX_SIZE,
  SegmentLayout,
} from "./format.ts";
import { COMMON_OPTIONS, type Engines, type SealPlan } from "./options.ts";

/**
 * The most segments of one stream at once. bench/webcrypto.jsonl has the rates of 1, 2, 4, 8 and 16 in seven runtimes.
 * 8 segments of 64 KiB reach 0.64 to 1 times a runtime's best rate (median 0.93), 1 segment 0.26 to 1 times (0.58).
 */
const MOST_IN_FLIGHT = 8;
/** The most bytes at once, to bound the memory. 4 segments of 1 MiB reach 0.67 to 1 times the best rate (0.85). */
const MOST_BYTES = 4 * 1024 * 1024;

/** The part of a plan from which the keys of a stream are derived. */
type KeyPlan = Pick<SealPlan, "format" | "key" | "cryptoKey" | "associatedData">;

/** Derives the keys of one stream from the bytes of the user's key, which it only reads. */
type Derive = (format: Format, key: Secret, header: Header, associatedData: Bytes) => Secret | Promise<Secret>;

/** WebCrypto alone, as in browsers. */
export const WEBCRYPTO: Engines = {
  optionNames: COMMON_OPTIONS,
  choose({ engine = "auto" }) {
    oneOf("engine", engine, ["auto", "webcrypto"]);
    return { engine: "webcrypto", executor: undefined };
  },
  engineFor() {
    requireWebCrypto();
    return "webcrypto";
  },
  open: (kind, plan, header) => openWebCrypto(kind, plan, header, deriveFromBytes),
};

/** Seals or opens one segment. */
interface SegmentCrypto {
  seal(plaintext: Bytes, nonce: Bytes): Promise<Bytes>;
  /** Returns undefined if the segment is not authentic at this position. */
  open(sealed: Bytes, nonce: Bytes): Promise<Bytes | undefined>;
}

/**
 * Opens the keys of a stream. They are derived in the background: `run` waits for them.
 *
 * @param plan Its key is owned by the session, also if this fails.
 * @param derive Derives the keys, if the user's key is bytes.
 * @throws {KcapiError} ENOSYS if there is no WebCrypto.
 */
export function openWebCrypto(kind: "seal" | "unseal", plan: KeyPlan, header: Header, derive: Derive): Session {
  const { format, key } = plan;
  try {
    requireWebCrypto();
  } catch (error) {
    key.dispose();
    throw error;
  }
  let isClosed = false;
  let keys: Promise<SegmentCrypto> | undefined = deriveCrypto(plan, header, derive);
  let derived: SegmentCrypto | undefined;
  keys.then((crypto) => void (derived = crypto), () => {}); // each batch throws the error
  const layout = new SegmentLayout(format);
  const { tagSize } = format;

  async function seal(plaintext: Bytes, { index = 0, isLast }: BatchPosition): Promise<Bytes[]> {
    const nonce = nonceOf(format, header, checkIndex(index), isLast);
    const sealed = await (derived ?? await keys!).seal(plaintext, nonce);
    return index === 0 ? [headerBytes(format, header), sealed] : [sealed];
  }

  /** Opens a segment. If the stream was truncated after a full segment, returns its plaintext with the error. */
  async function unseal(sealed: Bytes, { index = 0, isLast }: BatchPosition, outputs: Bytes[]): Promise<void> {
    if (sealed.length < tagSize) throw createBadMessageError();
    const opener = derived ?? await keys!;
    const opened = await opener.open(sealed, nonceOf(format, header, index, isLast));
    const isWhole = sealed.length === layout.sealed.lengthOf(index, 1);
    const beginning = opened ??
      (isLast && isWhole ? await opener.open(sealed, nonceOf(format, header, index, false)) : undefined);
    if (beginning && beginning.length > 0) outputs.push(beginning);
    if (!opened) throw createBadMessageError();
  }

  return {
    engine: "webcrypto",
    isSynchronous: false,
    ownsInput: false,
    batchSize: 0,
    limit: Math.max(2, Math.min(MOST_IN_FLIGHT, Math.floor(MOST_BYTES / format.segmentSize))),
    hasRoom: true,
    async run(list: readonly Bytes[], position: BatchPosition): Promise<BatchResult> {
      const outputs: Bytes[] = [];
      try {
        // A call of WebCrypto copies its input at once. The keys, and a second try, come later.
        const input = derived && !position.isLast ? inOnePiece(list) : inOnePiece(list).slice();
        if (kind === "seal") outputs.push(...await seal(input, position));
        else await unseal(input, position, outputs);
        return isClosed ? { outputs: [] } : { outputs };
      } catch (error) {
        return { outputs, error };
      }
    },
    close() {
      isClosed = true;
      keys = derived = undefined;
    },
  };
}

/** The nonce: the prefix, the index (big-endian), 1 for the last segment, and for CTR a block counter of zero. */
function nonceOf({ cipher }: Format, { prefix }: Header, index: number, isLast: boolean): Bytes {
  const nonce = new Uint8Array(cipher === "AES-GCM-HKDF" ? 12 : 16);
  nonce.set(prefix);
  const view = new DataView(nonce.buffer);
  view.setUint32(PREFIX_SIZE, index);
  view.setUint8(PREFIX_SIZE + 4, Number(isLast));
  return nonce;
}

async function deriveCrypto(plan: KeyPlan, header: Header, derive: Derive): Promise<SegmentCrypto> {
  const { format, key, cryptoKey, associatedData } = plan;
  try {
    const derived = cryptoKey
      ? await deriveFromKey(format, cryptoKey, header, associatedData)
      : await derive(format, key, header, associatedData);
    try {
      return await segmentCrypto(format, derived.bytes);
    } finally {
      derived.dispose();
    }
  } finally {
    key.dispose();
  }
}

/** The most bytes of info that WebCrypto's HKDF takes everywhere (nodejs/node, lib/internal/crypto/hkdf.js). */
const MOST_INFO = 1024;

/** On a server, `node:crypto` derives keys, because Deno's WebCrypto leaves copies of HMAC's input in memory. */
async function deriveFromBytes(format: Format, key: Secret, header: Header, info: Bytes): Promise<Secret> {
  if (info.length > MOST_INFO) return await deriveByHmac(format, key, header, info);
  const imported = await crypto.subtle.importKey("raw", key.bytes, "HKDF", false, ["deriveBits"]);
  return await deriveFromKey(format, imported, header, info);
}

/** HKDF (RFC 5869), built on HMAC. */
async function deriveByHmac(format: Format, key: Secret, { salt }: Header, info: Bytes): Promise<Secret> {
  const derived = Secret.alloc(derivedSize(format));
  const pseudorandom = await (await hmacOf(format.hkdfHash, salt))([key.bytes]);
  const sign = await hmacOf(format.hkdfHash, pseudorandom);
  let block = new Uint8Array(0);
  for (let at = 0, i = 1; at < derived.length; i++) {
    const input = inOnePiece([block, info, Uint8Array.of(i)]);
    block.fill(0);
    block = await sign([input]);
    input.fill(0);
    derived.bytes.set(block.subarray(0, derived.length - at), at);
    at += block.length;
  }
  block.fill(0);
  pseudorandom.fill(0);
  return derived;
}

/** If the CryptoKey may only derive keys, the bytes are derived as an HMAC key and exported. */
async function deriveFromKey(format: Format, key: CryptoKey, { salt }: Header, info: Bytes): Promise<Secret> {
  const { subtle } = crypto;
  const hkdf = { name: "HKDF", hash: format.hkdfHash, salt, info };
  const length = 8 * derivedSize(format);
  try {
    if (key.usages.includes("deriveBits")) return Secret.adopt(await subtle.deriveBits(hkdf, key, length));
    const derived = await subtle.deriveKey(hkdf, key, { name: "HMAC", hash: "SHA-256", length }, true, ["sign"]);
    return Secret.adopt(await subtle.exportKey("raw", derived));
  } catch (cause) {
    throw new KcapiError("EINVAL", "open", "WebCrypto refuses to derive keys from the CryptoKey", {
      cause,
      ...(info.length > MOST_INFO && {
        hint: "with a CryptoKey, Node and Bun accept at most 1,024 bytes of associated data",
      }),
    });
  }
}

/**
 * AES-GCM; or AES-CTR, and HMAC over the nonce and the ciphertext, which is verified first.
 *
 * @param derived Read only.
 */
async function segmentCrypto({ cipher, keySize, macHash, tagSize }: Format, derived: Bytes): Promise<SegmentCrypto> {
  const { subtle } = crypto;
  const isGcm = cipher === "AES-GCM-HKDF";
  const name = isGcm ? "AES-GCM" : "AES-CTR";
  const aes = await subtle.importKey("raw", derived.subarray(0, keySize), name, false, ["encrypt", "decrypt"]);
  const sign = isGcm ? undefined : await hmacOf(macHash!, derived.subarray(keySize));
  const parametersOf = (nonce: Bytes) => isGcm ? { name, iv: nonce } : { name, counter: nonce, length: 32 };
  const decrypt = async (input: Bytes, nonce: Bytes) =>
    new Uint8Array(await subtle.decrypt(parametersOf(nonce), aes, input));
  return {
    async seal(plaintext, nonce) {
      const output = new Uint8Array(await subtle.encrypt(parametersOf(nonce), aes, plaintext));
      if (!sign) return output;
      const whole = allocUnsafe(nonce.length + output.length + tagSize);
      whole.set(nonce);
      whole.set(output, nonce.length);
      whole.set((await sign([whole.subarray(0, -tagSize)])).subarray(0, tagSize), whole.length - tagSize);
      return whole.subarray(nonce.length);
    },
    async open(sealed, nonce) {
      if (sign) {
        const whole = inOnePiece([nonce, sealed]);
        const tag = (await sign([whole.subarray(0, -tagSize)])).subarray(0, tagSize);
        const ciphertext = whole.subarray(nonce.length, -tagSize);
        return isEqual(tag, whole.subarray(-tagSize)) ? await decrypt(ciphertext, nonce) : undefined;
      }
      try {
        return await decrypt(sealed, nonce);
      } catch (error) {
        if (error instanceof DOMException && error.name === "OperationError") return undefined;
        throw error;
      }
    },
  };
}

/** HMAC with a key, over a list. */
async function hmacOf(hash: string, bytes: Bytes): Promise<(list: readonly Bytes[]) => Promise<Bytes>> {
  const { subtle } = crypto;
  const key = await subtle.importKey("raw", bytes, { name: "HMAC", hash }, false, ["sign"]);
  return async (list) => {
    const input = inOnePiece(list);
    const mac = new Uint8Array(await subtle.sign("HMAC", key, input));
    if (list.length > 2) input.fill(0); // of HKDF: key material
    return mac;
  };
}

/** Compares tags in constant time. */
function isEqual(a: Bytes, b: Bytes): boolean {
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
