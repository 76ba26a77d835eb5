/**
 * AES-GCM of a whole message over WebCrypto, which takes it in one piece.
 *
 * @module
 */

import { type Bytes, cloneBytes, inOnePiece } from "../bytes.ts";
import { MAX_WINDOW } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { BatchResult, Session, SplitRule } from "../executors/executor.ts";
import { requireWebCrypto } from "../runtime/web.ts";
import { GCM, type GcmPlan, IV_SIZE } from "./gcm_options.ts";
import { createUnverifiedError, frontSize, type GiveTag, tooLongToHold } from "./gcm_transform.ts";

/**
 * The rule of a message that is one batch.
 *
 * @param plan Its key is owned by the rule.
 * @param giveTag Called when an encryption ends.
 */
export function webCryptoRule(plan: GcmPlan, giveTag: GiveTag): SplitRule {
  const { direction, maxSize, tag, tagSize } = plan;
  const most = maxSize + (direction === "decrypt" && tag === "end" ? tagSize : 0);
  const unit = Math.max(1, most);
  return {
    engine: "webcrypto",
    headSize: direction === "decrypt" ? frontSize(plan) : 0,
    first: 0,
    lookahead: 1,
    isEager: false,
    hasEnd: true,
    isContiguous: false,
    lengthOf: (_, count) => count * unit,
    countOf: (_, length) => Math.max(0, Math.floor(length / unit)),
    positionOf(_, isLast, list) {
      if (!isLast || list.some(({ length }) => length > most)) throw tooLongToHold(plan);
      return { isLast };
    },
    open: (head) => openGcm(plan, cloneBytes(head), giveTag),
    discard: () => plan.key.dispose(),
  };
}

/** @param front Decryption: what is in front of the ciphertext. */
function openGcm(plan: GcmPlan, front: Bytes, giveTag: GiveTag): Session {
  const { direction, key } = plan;
  let isClosed = false;
  let imported: Promise<CryptoKey> | undefined;
  try {
    requireWebCrypto();
    imported = importKey(key.bytes);
    imported.catch(() => {}); // the batch reports it
  } finally {
    key.dispose();
  }

  async function run(list: readonly Bytes[]): Promise<BatchResult> {
    const message = inOnePiece(list);
    try {
      await checkSupport(plan, plan.iv?.length ?? IV_SIZE);
      const outputs = direction === "encrypt"
        ? await encrypt(plan, await imported!, message, giveTag)
        : await decrypt(plan, await imported!, front, message);
      if (!isClosed) return { outputs };
      for (const output of outputs) output.fill(0);
      return { outputs: [] };
    } catch (error) {
      return { outputs: [], error };
    } finally {
      for (const bytes of [...list, message]) bytes.fill(0);
    }
  }

  return {
    engine: "webcrypto",
    isSynchronous: false,
    ownsInput: true,
    batchSize: 0,
    limit: 1,
    hasRoom: true,
    run,
    close() {
      isClosed = true;
      imported = undefined;
    },
  };
}

/** A CryptoKey that WebCrypto's own copy of the bytes is in. */
function importKey(bytes: Bytes): Promise<CryptoKey> {
  return crypto.subtle.importKey("raw", bytes, "AES-GCM", false, ["encrypt", "decrypt"]);
}

function parametersOf({ associatedData, tagSize }: GcmPlan, iv: Bytes): AesGcmParams {
  const tag = { name: "AES-GCM", iv, tagLength: 8 * tagSize };
  return associatedData.length > 0 ? { ...tag, additionalData: associatedData } : tag;
}

const supported = new Map<string, Promise<void>>();

/** WebCrypto says the same of a tag that is wrong and of an IV that it refuses: so a message of our own is tried. */
function checkSupport(plan: GcmPlan, ivSize: number): Promise<void> {
  const id = `${plan.tagSize} ${ivSize}`;
  let trial = supported.get(id);
  if (!trial) supported.set(id, trial = trySizes(plan.tagSize, ivSize));
  return trial;
}

async function trySizes(tagSize: number, ivSize: number): Promise<void> {
  try {
    const key = await importKey(crypto.getRandomValues(new Uint8Array(16)));
    const parameters = { name: "AES-GCM", iv: crypto.getRandomValues(new Uint8Array(ivSize)), tagLength: 8 * tagSize };
    // Deno encrypts with short tags, and does not decrypt.
    await crypto.subtle.decrypt(parameters, key, await crypto.subtle.encrypt(parameters, key, new Uint8Array(0)));
  } catch (cause) {
    const what = `an IV of ${ivSize} bytes with a tag of ${tagSize}`;
    throw new KcapiError("EINVAL", "open", `WebCrypto of this runtime refuses ${GCM} with ${what}`, {
      hint: 'use engine "userspace"',
      cause,
    });
  }
}

async function encrypt(plan: GcmPlan, key: CryptoKey, message: Bytes, giveTag: GiveTag): Promise<Bytes[]> {
  const iv = plan.iv ?? crypto.getRandomValues(new Uint8Array(IV_SIZE));
  const sealed = new Uint8Array(await crypto.subtle.encrypt(parametersOf(plan, iv), key, message));
  const ciphertext = sealed.subarray(0, message.length);
  const tag = sealed.slice(message.length);
  giveTag(cloneBytes(tag));
  return [
    ...plan.iv ? [] : [iv],
    ...plan.tag === "start" ? [tag] : [],
    ...inWindows(ciphertext),
    ...plan.tag === "end" ? [tag] : [],
  ];
}

async function decrypt(plan: GcmPlan, key: CryptoKey, front: Bytes, message: Bytes): Promise<Bytes[]> {
  const { tag, tagSize } = plan;
  const iv = plan.iv ?? front.subarray(0, IV_SIZE);
  const given = tag === "start" ? front.slice(-tagSize) : tag === "end" ? new Uint8Array(0) : tag as Bytes;
  const sealed = given.length > 0 ? inOnePiece([message, given]) : message;
  if (front.length < frontSize(plan) || sealed.length < tagSize) throw createUnverifiedError();
  let plaintext;
  try {
    plaintext = new Uint8Array(await crypto.subtle.decrypt(parametersOf(plan, iv), key, sealed));
  } catch (error) {
    throw error instanceof DOMException && error.name === "OperationError" ? createUnverifiedError() : error;
  }
  const pieces = inWindows(plaintext);
  plaintext.fill(0);
  return pieces;
}

/** Copies of at most a window. */
function inWindows(bytes: Bytes): Bytes[] {
  const count = Math.ceil(bytes.length / MAX_WINDOW);
  return Array.from({ length: count }, (_, i) => bytes.slice(i * MAX_WINDOW, (i + 1) * MAX_WINDOW));
}
