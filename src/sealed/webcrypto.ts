/**
 * The session of a sealed stream over WebCrypto: several segments at once, which most runtimes work on in threads of
 * their own.
 *
 * @module
 */

import { type Bytes, inOnePiece } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { BatchPosition, BatchResult, Session } from "../executors/executor.ts";
import { Secret } from "../secret.ts";
import {
  checkIndex,
  createBadMessageError,
  type Format,
  type Header,
  headerBytes,
  PREFIX_SIZE,
  SegmentLayout,
} from "./format.ts";
import type { SealPlan } from "./options.ts";
import { deriveKeys, MAC_KEY } from "./segment_cipher.ts";

/**
 * Segments of one stream under way. bench/webcrypto.jsonl has the rates of 1, 2, 4, 8 and 16 in seven runtimes.
 * 8 of 64 KiB give 0.64 to 1 times a runtime's best rate, 0.93 in the median; 1 gives 0.26 to 1 times, 0.58.
 */
const MOST_IN_FLIGHT = 8;
/** Bytes under way, which bounds the memory. Of 1 MiB, 4 segments give 0.67 to 1 times the best rate, 0.85. */
const MOST_BYTES = 4 * 1024 * 1024;

/** What of a plan the keys of a stream are derived from. */
type KeyPlan = Pick<SealPlan, "format" | "key" | "cryptoKey" | "associatedData">;

/** Seals or opens one segment. */
interface SegmentCrypto {
  seal(plaintext: Bytes, nonce: Bytes): Promise<Bytes>;
  /** Undefined if it is not what was sealed at this position. */
  open(sealed: Bytes, nonce: Bytes): Promise<Bytes | undefined>;
}

/**
 * Opens the keys of a stream. They are derived in the background: `run` waits for them.
 *
 * @param plan Its key is owned by the session, also if this fails.
 * @throws {KcapiError} ENOSYS if there is no WebCrypto.
 */
export function openWebCrypto(kind: "seal" | "unseal", plan: KeyPlan, header: Header): Session {
  const { format, key } = plan;
  if (globalThis.crypto?.subtle === undefined) {
    key.dispose();
    throw new KcapiError("ENOSYS", "open", "this page or runtime has no WebCrypto (crypto.subtle)", {
      hint: "serve the page over HTTPS, or from localhost",
    });
  }
  let isClosed = false;
  let keys: Promise<SegmentCrypto> | undefined = deriveCrypto(plan, header);
  keys.catch(() => {}); // each batch reports it
  const layout = new SegmentLayout(format);
  const { tagSize } = format;

  async function seal(plaintext: Bytes, { index = 0, isLast }: BatchPosition): Promise<Bytes[]> {
    const sealed = await (await keys!).seal(plaintext, nonceOf(format, header, checkIndex(index), isLast));
    return index === 0 ? [headerBytes(format, header), sealed] : [sealed];
  }

  /** A stream that was cut at the end of a segment: what there is of it is verified, but it has no end. */
  async function unseal(sealed: Bytes, { index = 0, isLast }: BatchPosition, outputs: Bytes[]): Promise<void> {
    if (sealed.length < tagSize) throw createBadMessageError();
    const opener = await keys!;
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
    batchSize: 0,
    limit: Math.max(2, Math.min(MOST_IN_FLIGHT, Math.floor(MOST_BYTES / format.segmentSize))),
    hasRoom: true,
    async run(list: readonly Bytes[], position: BatchPosition): Promise<BatchResult> {
      const outputs: Bytes[] = [];
      try {
        const input = inOnePiece(list);
        if (kind === "seal") outputs.push(...await seal(input, position));
        else await unseal(input, position, outputs);
        return isClosed ? { outputs: [] } : { outputs };
      } catch (error) {
        return { outputs, error };
      }
    },
    close() {
      isClosed = true;
      keys = undefined;
    },
  };
}

/** The prefix, the number (big-endian), whether it is the last, and for CTR a block counter of zero. */
function nonceOf({ cipher }: Format, { prefix }: Header, index: number, isLast: boolean): Bytes {
  const nonce = new Uint8Array(cipher === "AES-GCM-HKDF" ? 12 : 16);
  nonce.set(prefix);
  const view = new DataView(nonce.buffer);
  view.setUint32(PREFIX_SIZE, index);
  view.setUint8(PREFIX_SIZE + 4, Number(isLast));
  return nonce;
}

/**
 * Bytes are derived from by `node:crypto`: WebCrypto's HKDF takes at most 1,024 bytes of info in Node and Bun, and its
 * HMAC leaves copies of what it authenticates, here the user's key, in Deno's memory.
 */
async function deriveCrypto(plan: KeyPlan, header: Header): Promise<SegmentCrypto> {
  const { format, key, cryptoKey, associatedData } = plan;
  using _ = key;
  const isGcm = format.cipher === "AES-GCM-HKDF";
  const length = format.keySize + (isGcm ? 0 : MAC_KEY);
  const derived = cryptoKey
    ? await deriveFromKey(format.hkdfHash, cryptoKey, header.salt, associatedData, length)
    : deriveKeys(format, key, header, associatedData);
  try {
    return isGcm ? await gcmCrypto(derived) : await ctrHmacCrypto(format, derived);
  } finally {
    derived.dispose();
  }
}

/** A key that may only derive keys gives the bytes as one of HMAC. */
async function deriveFromKey(
  hash: string,
  key: CryptoKey,
  salt: Bytes,
  info: Bytes,
  length: number,
): Promise<Secret> {
  const { subtle } = crypto;
  const hkdf = { name: "HKDF", hash, salt, info };
  try {
    if (key.usages.includes("deriveBits")) return Secret.adopt(await subtle.deriveBits(hkdf, key, 8 * length));
    const hmac = { name: "HMAC", hash: "SHA-256", length: 8 * length };
    const derived = await subtle.deriveKey(hkdf, key, hmac, true, ["sign"]);
    return Secret.adopt(await subtle.exportKey("raw", derived));
  } catch (cause) {
    throw new KcapiError(
      "EINVAL",
      "open",
      "WebCrypto's HKDF of this runtime refuses to derive keys from the CryptoKey",
      {
        cause,
        ...(info.length > 1024 && {
          hint: "with a CryptoKey, Node and Bun take at most 1,024 bytes of associated data",
        }),
      },
    );
  }
}

async function gcmCrypto(derived: Secret): Promise<SegmentCrypto> {
  const { subtle } = crypto;
  const key = await subtle.importKey("raw", derived.bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
  return {
    async seal(plaintext, iv) {
      return new Uint8Array(await subtle.encrypt({ name: "AES-GCM", iv }, key, plaintext));
    },
    async open(sealed, iv) {
      try {
        return new Uint8Array(await subtle.decrypt({ name: "AES-GCM", iv }, key, sealed));
      } catch (error) {
        if (error instanceof DOMException && error.name === "OperationError") return undefined;
        throw error;
      }
    },
  };
}

/** AES-CTR, and HMAC over the nonce and the ciphertext, which is verified first. */
async function ctrHmacCrypto({ keySize, macHash, tagSize }: Format, derived: Secret): Promise<SegmentCrypto> {
  const { subtle } = crypto;
  const name = "AES-CTR";
  using aesKey = derived.clone(0, keySize);
  using macKey = derived.clone(keySize);
  const [aes, mac] = await Promise.all([
    subtle.importKey("raw", aesKey.bytes, name, false, ["encrypt", "decrypt"]),
    subtle.importKey("raw", macKey.bytes, { name: "HMAC", hash: macHash! }, false, ["sign"]),
  ]);
  const tagOf = async (nonce: Bytes, ciphertext: Bytes) =>
    new Uint8Array(await subtle.sign("HMAC", mac, inOnePiece([nonce, ciphertext])), 0, tagSize);
  return {
    async seal(plaintext, counter) {
      const ciphertext = new Uint8Array(await subtle.encrypt({ name, counter, length: 32 }, aes, plaintext));
      return inOnePiece([ciphertext, await tagOf(counter, ciphertext)]);
    },
    async open(sealed, counter) {
      const length = sealed.length - tagSize;
      const ciphertext = sealed.subarray(0, length);
      if (!isEqual(await tagOf(counter, ciphertext), sealed.subarray(length))) return undefined;
      return new Uint8Array(await subtle.decrypt({ name, counter, length: 32 }, aes, ciphertext));
    },
  };
}

/** Compares tags in a time that does not depend on what is in them. */
function isEqual(a: Bytes, b: Bytes): boolean {
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i]! ^ b[i]!;
  return difference === 0;
}
