/**
 * Sealing and unsealing in batches of segments: how a stream is split, and how a batch is run. Streams, `openSealed()`
 * and Workers share this code.
 *
 * @module
 */

import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, inOnePiece, IovCursor } from "../bytes.ts";
import type { CipherEngineName, EngineName } from "../engines/engine.ts";
import { chooseEngine, type EngineChoice } from "../engines/mod.ts";
import { BatchTransform } from "../executors/batch_transform.ts";
import {
  type BatchPosition,
  type Job,
  type LocalSession,
  localSession,
  type Session,
  type SplitRule,
} from "../executors/executor.ts";
import { allocUnsafe, cryptoBackend } from "../runtime/mod.ts";
import type { Secret } from "../secret.ts";
import type { TransformFactory } from "../streams/transform.ts";
import {
  checkIndex,
  createBadMessageError,
  type Format,
  type Header,
  headerBytes,
  MOST_SEGMENTS,
  parseHeader,
  randomHeader,
  SegmentLayout,
} from "./format.ts";
import type { SealPlan } from "./options.ts";
import { deriveKeys, openSegmentCipher, type SegmentCipher } from "./segment_cipher.ts";
import { openWebCrypto } from "./webcrypto.ts";

/** Sealing or unsealing under the keys that were derived for one stream, as plain values. */
export interface SealedJob extends Omit<Job, "engine"> {
  readonly kind: "seal" | "unseal";
  readonly format: Format;
  readonly header: Header;
  readonly engine: EngineChoice;
}

/**
 * A stream that seals.
 *
 * @param header The header. Only tests pass one: a salt must be random.
 */
export function sealFactory(plan: SealPlan, header: Header = randomHeader(plan.format)): TransformFactory {
  return factoryOf(plan, () => sealRule(plan, header));
}

/** A stream that unseals. */
export function unsealFactory(plan: SealPlan): TransformFactory {
  return factoryOf(plan, () => unsealRule(plan));
}

function factoryOf({ key, signals, inPlace }: SealPlan, makeRule: () => SplitRule): TransformFactory {
  return {
    signals,
    inPlace,
    open() {
      try {
        return new BatchTransform(makeRule(), inPlace);
      } catch (error) {
        key.dispose();
        throw error;
      }
    },
    discard: () => key.dispose(),
  };
}

/**
 * How plaintext is split. Whether a segment is the last one is part of its nonce, so that a full segment waits for
 * another byte, or for the end.
 *
 * @param first The number of the first segment: for tests of the last ones.
 */
export function sealRule(plan: SealPlan, header: Header, first = 0): SplitRule {
  const { plaintext } = new SegmentLayout(plan.format);
  return {
    engine: undefined,
    headSize: 0,
    first,
    lookahead: 1,
    isEager: false,
    hasEnd: false,
    isContiguous: false,
    lengthOf: (index, count) => plaintext.lengthOf(index, count),
    countOf: (index, length) => plaintext.countOf(index, length),
    positionOf: (index, isLast) => ({ index, isLast }),
    open: () => openSession("seal", plan, header),
    discard: () => plan.key.dispose(),
  };
}

/**
 * How sealed bytes are split. In this thread a full segment is first verified as a non-final one. If that fails, it is
 * kept and verified as the final segment when the input ends.
 */
export function unsealRule(plan: SealPlan, first = 0): SplitRule {
  const { format, executor } = plan;
  const engine = engineFor(plan);
  const isAsync = executor !== undefined || engine === "webcrypto";
  const { sealed } = new SegmentLayout(format);
  return {
    engine,
    headSize: format.headerSize,
    first,
    lookahead: 1,
    isEager: !isAsync,
    hasEnd: !isAsync,
    isContiguous: true,
    lengthOf: (index, count) => sealed.lengthOf(index, count),
    countOf: (index, length) => sealed.countOf(index, length),
    positionOf(index, isLast) {
      if (index >= MOST_SEGMENTS) throw createBadMessageError();
      return { index, isLast };
    },
    open: (head) => openSession("unseal", plan, parseHeader(format, head)),
    discard: () => plan.key.dispose(),
  };
}

/** Derives the keys of one stream, and opens them where the plan says. The user's key is disposed of. */
export function openSession(kind: "seal" | "unseal", plan: SealPlan, header: Header): Session {
  const { format, key, associatedData, engine, executor } = plan;
  if (engine === "webcrypto" || engineFor(plan) === "webcrypto") return openWebCrypto(kind, plan, header);
  using _ = key;
  const derived = deriveKeys(format, key, header, associatedData);
  if (!executor) return openSegments({ kind, format, header, engine }, derived);
  const job = { kind, format, header, engine: cipherEngineFor(format, engine) };
  return executor.open(job, derived);
}

/**
 * Where `"auto"` takes WebCrypto in the place of `node:crypto`, as the faster one. Sealing and unsealing with AES256,
 * segments of 64 KiB, MB/s, medians of 5 runs of 52 MB on two cores under other load:
 *
 * |               | AES-GCM-HKDF, userspace | webcrypto | AES-CTR-HMAC, userspace | webcrypto |
 * | ------------- | ----------------------- | --------- | ----------------------- | --------- |
 * | Deno 2.9.6    | 31, 41                  | 216, 316  | 94, 128                 | 188, 241  |
 * | Bun 1.4.5     | 913, 425                | 293, 281  | 287, 332                | 206, 226  |
 *
 * AES-CTR-HMAC in Deno stays: in userspace it gives 890 MB/s on an idle machine (docs/performance.md), AES-GCM 267. In
 * Node, userspace gave 665 MB/s for AES-GCM-HKDF and 379 for AES-CTR-HMAC, a loop of WebCrypto calls 452 and 227.
 */
const FASTER_IN_WEBCRYPTO: Readonly<Record<ReturnType<typeof cryptoBackend>, readonly Format["cipher"][]>> = {
  rustcrypto: ["AES-GCM-HKDF"],
  boringssl: [],
  openssl: [],
};

/**
 * The engine that runs, known before there is a key for it. `"auto"` takes the kernel where it serves, else WebCrypto
 * where that is faster, else userspace. Workers of a pool do not use WebCrypto.
 */
export function engineFor({ format, engine, executor }: SealPlan): EngineName {
  if (engine === "webcrypto") return engine;
  const isFaster = FASTER_IN_WEBCRYPTO[cryptoBackend()].includes(format.cipher);
  const chosen = cipherEngineFor(format, engine);
  return engine === "auto" && chosen === "userspace" && isFaster && !executor ? "webcrypto" : chosen;
}

function cipherEngineFor(format: Format, engine: EngineChoice): CipherEngineName {
  if (format.cipher === "AES-GCM-HKDF") return "userspace";
  return chooseEngine(parseAlgorithm("ctr(aes)"), format.keySize, engine);
}

/**
 * Opens the keys of a stream in this thread.
 *
 * @param key Derived. Owned by the session, also if this fails.
 */
export function openSegments({ kind, format, header, engine }: SealedJob, key: Secret): LocalSession {
  const cipher = openSegmentCipher(format, key, header, engine);
  const layout = new SegmentLayout(format);
  const { tagSize } = format;
  const front = kind === "seal" ? headerBytes(format, header) : undefined;
  return localSession(
    cipher.engine,
    front
      ? (list, position, outputs) => sealBatch({ cipher, layout, tagSize, front }, list, position, outputs)
      : (list, position, outputs, mayOverwrite) =>
        unsealBatch({ cipher, layout, tagSize, mayOverwrite }, list, position, outputs),
    () => cipher.close(),
  );
}

interface Segments {
  readonly cipher: SegmentCipher;
  readonly layout: SegmentLayout;
  readonly tagSize: number;
}

/** Seals full segments, and a shorter one if it is the last of all. */
function sealBatch(
  { cipher, layout, tagSize, front }: Segments & { readonly front: Bytes },
  list: readonly Bytes[],
  { index: first = 0, isLast }: BatchPosition,
  outputs: Bytes[],
): void {
  const input = new IovCursor(list);
  const count = layout.plaintext.countOf(first, input.remaining - 1) + 1;
  if (first > 0 && count === 1) return void outputs.push(cipher.seal(list, { index: checkIndex(first), isLast }));
  const start = first === 0 ? front.length : 0;
  const sealed = allocUnsafe(start + input.remaining + count * tagSize);
  if (start > 0) sealed.set(front);
  let end = start;
  try {
    for (let i = 0; i < count; i++) {
      const index = checkIndex(first + i);
      const length = Math.min(layout.plaintext.lengthOf(index, 1), input.remaining);
      const target = sealed.subarray(end, end + length + tagSize);
      cipher.seal(input.peek(length), { index, isLast: isLast && i === count - 1 }, target);
      input.advance(length);
      end += target.length;
    }
  } finally {
    addWritten(outputs, sealed, end === start ? 0 : end);
  }
}

/** Unseals full segments, and a shorter one if it is the last of all. What is verified before an error comes out. */
function unsealBatch(
  { cipher, layout, tagSize, mayOverwrite }: Segments & { readonly mayOverwrite: boolean },
  list: readonly Bytes[],
  { index: first = 0, isLast }: BatchPosition,
  outputs: Bytes[],
): void {
  const sealed = inOnePiece(list);
  const count = layout.sealed.countOf(first, sealed.length - 1) + 1;
  const isOne = count === 1;
  const lastLength = sealed.length - (isOne ? 0 : layout.sealed.lengthOf(first, count - 1));
  const opened = isOne ? sealed : allocUnsafe(sealed.length - (count - 1) * tagSize - Math.min(lastLength, tagSize));
  let [at, end] = [0, 0];
  try {
    for (let i = 0; i < count; i++) {
      const index = first + i;
      const segment = sealed.subarray(at, at + layout.sealed.lengthOf(index, 1));
      at += segment.length;
      const length = segment.length - tagSize;
      if (length < 0 || index >= MOST_SEGMENTS) throw createBadMessageError();
      const target = isOne && !mayOverwrite ? undefined : opened.subarray(end, end + length);
      const isEnd = isLast && i === count - 1;
      const output = cipher.open(segment, { index, isLast: isEnd }, target);
      // A stream that was cut at the end of a segment: what there is of it is verified, but it has no end.
      const isWhole = segment.length === layout.sealed.lengthOf(index, 1);
      const beginning = output || !isEnd || !isWhole ? output : cipher.open(segment, { index, isLast: false }, target);
      if (beginning && isOne && length > 0) outputs.push(beginning);
      if (beginning) end += length;
      if (!output) throw createBadMessageError();
    }
  } finally {
    if (!isOne) addWritten(outputs, opened, end);
  }
}

/** Adds the first `length` bytes of new memory. If they are not all, the others may be anything. */
function addWritten(outputs: Bytes[], memory: Bytes, length: number): void {
  if (length > 0) outputs.push(length === memory.length ? memory : memory.slice(0, length));
}
