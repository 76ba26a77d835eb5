/**
 * {@linkcode openGcm}: random access to a message of AES-GCM.
 *
 * @module
 */

import { countingIn, parseAlgorithm } from "../algorithms.ts";
import type { Bytes, BytesLike } from "../bytes.ts";
import { checkUserspaceGcm, GcmCipher } from "../cipher/gcm_cipher.ts";
import { checkGcm, type GcmOptions, type GcmPlan, IV_SIZE } from "../cipher/gcm_options.ts";
import { createUnverifiedError, frontSize, tooLongForGcm } from "../cipher/gcm_transform.ts";
import { type Engine, MAX_WINDOW } from "../engines/engine.ts";
import { discard } from "../engines/scratch.ts";
import { openUserspace } from "../engines/userspace.ts";
import { KcapiError } from "../errors.ts";
import { localSession, type Session } from "../executors/executor.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { bytesToWrap, ivAt } from "../position.ts";
import { nodeCrypto } from "../runtime/mod.ts";
import type { Secret } from "../secret.ts";
import { withSizeHint } from "../sealed/open.ts";
import { SegmentSide } from "../sealed/format.ts";
import { CONSTRUCT, RangeReader, SegmentReader } from "../sealed/range_reader.ts";
import { type CheckedReadOptions, checkReadOptions, type SealedReadOptions } from "../sealed/read_options.ts";
import { anySource, rejectSize, type SealedSource } from "../sealed/source.ts";

/** Options of {@linkcode openGcm}. */
export interface OpenGcmOptions
  extends
    Pick<GcmOptions, "associatedData" | "tagSize">,
    Pick<SealedReadOptions, "readSize" | "readAhead" | "cacheSize"> {
  /** The key: 16, 24 or 32 bytes. It is copied, and the copy is zeroed when the message is closed. */
  key: BytesLike;
  /** The IV: 1 to 128 bytes, usually 12. */
  iv?: BytesLike | undefined;
  /** The IV is the first 12 bytes of the source. It takes the place of `iv`. Default: false. */
  ivPrefix?: boolean | undefined;
  /** Where the tag is: `"end"`, the default; `"start"`, behind the IV of `ivPrefix`; or its bytes. */
  tag?: "end" | "start" | BytesLike | undefined;
  /** The engine. It is always the userspace engine. */
  engine?: "auto" | "userspace" | undefined;
  /** Closes the message. */
  signal?: AbortSignal | undefined;
}

const NAMES: OptionNames<OpenGcmOptions> = {
  key: true,
  iv: true,
  ivPrefix: true,
  associatedData: true,
  tag: true,
  tagSize: true,
  engine: true,
  signal: true,
  readSize: true,
  readAhead: true,
  cacheSize: true,
};

/** The digest of each segment is kept, so that what is read later is what was verified. */
const SEGMENT = 64 * 1024;
const DIGEST = 32;
/** Bytes that are decrypted at once. */
const BATCH = 16 * SEGMENT;

/**
 * Opens a message of AES-GCM for random access, of up to 64 GiB.
 *
 * The promise resolves when the whole message has been read and verified. Nothing is kept of it but a SHA-256 digest
 * for each 64 KiB: ranges are read again, compared with their digests, and decrypted. So a source that changes, or a
 * server that gives other bytes the second time, is detected.
 *
 * @param source A Blob (`Bun.file()`, `openAsBlob()` of Node), or an object with `size` and `read(start, end)`, as for
 * {@linkcode openSealed}.
 * @param options The key, the IV, the associated data, and where the tag is. The signal closes the message.
 * @returns The open message.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If an argument is of a wrong size.
 * @throws {KcapiError} EBADMSG if the message is not authentic; EOVERFLOW if it is too long for GCM; EIO if the source
 * returns another number of bytes than requested, or changes its size; ENOENT if `node:crypto` of the runtime lacks
 * AES-192-GCM (Deno).
 *
 * @example Usage
 * ```ts
 * import { encrypt, openGcm } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const options = { key, ivPrefix: true };
 * const text = new TextEncoder().encode("attack at dawn");
 * const message = new Blob(await Array.fromAsync(encrypt("gcm(aes)", options, text)));
 * using reader = await openGcm(message, options);
 * assertEquals(reader.size, 14);
 * assertEquals(new TextDecoder().decode(await reader.bytes(-4)), "dawn");
 * assertEquals(await new Response(reader.stream()).text(), "attack at dawn");
 * ```
 */
export async function openGcm(source: SealedSource, options: OpenGcmOptions): Promise<RangeReader> {
  checkOptions("options", options, NAMES);
  const any = anySource(source);
  const reading = checkReadOptions(options);
  const plan = checkGcm("decrypt", options);
  using _ = plan.key;
  checkEngine(plan);
  checkUserspaceGcm(plan.key.length, plan.tagSize);
  try {
    const reader = new SegmentReader(any, plan.signals, reading);
    try {
      const message = await findMessage(reader, plan, (error) => rejectSize(source, reader.size, error));
      await open(reader, plan, message, reading);
      return new RangeReader(CONSTRUCT, reader);
    } catch (error) {
      reader.close(error);
      throw error;
    }
  } catch (error) {
    throw withSizeHint(source, error);
  }
}

function checkEngine({ engine }: GcmPlan): void {
  if (engine !== "webcrypto") return;
  throw new TypeError(
    '"engine" expected "auto" or "userspace", got "webcrypto", which takes a message in one piece',
  );
}

/** The parts of a message. */
interface Message {
  readonly iv: Bytes;
  readonly tag: Bytes;
  /** Where the ciphertext is in the source. */
  readonly start: number;
  readonly end: number;
}

/**
 * Reads what is around the ciphertext.
 *
 * @param reject Throws the error for a size that no message has, or a better one.
 */
async function findMessage(
  reader: SegmentReader,
  plan: GcmPlan,
  reject: (error: KcapiError) => Promise<never>,
): Promise<Message> {
  const start = frontSize(plan);
  const tailSize = plan.tag === "end" ? plan.tagSize : 0;
  const checkSize = async () => {
    const size = reader.size - tailSize - start;
    if (size < 0) await reader.wait(reject(createUnverifiedError()));
    if (size > plan.limit) await reader.wait(reject(tooLongForGcm(plan.limit)));
  };
  if (reader.knowsSize) await checkSize();
  const { head, tail } = await readEnds(reader, start, tailSize);
  await checkSize();
  return {
    iv: plan.iv ?? head.slice(0, IV_SIZE),
    tag: typeof plan.tag !== "string"
      ? plan.tag
      : plan.tag === "start"
      ? head.slice(start - plan.tagSize, start)
      : tail,
    start,
    end: reader.size - tailSize,
  };
}

/** Reads the first `head` and the last `tail` bytes. A source is never asked for no bytes. */
async function readEnds(reader: SegmentReader, head: number, tail: number): Promise<{ head: Bytes; tail: Bytes }> {
  if (head > 0 || !reader.knowsSize) return await reader.readEnds(Math.max(1, head), tail);
  const { size } = reader;
  return { head: NOTHING, tail: tail === 0 ? NOTHING : await reader.read(size - tail, size) };
}

const NOTHING: Bytes = new Uint8Array(0);

/** Verifies the message. */
async function open(
  reader: SegmentReader,
  plan: GcmPlan,
  message: Message,
  reading: CheckedReadOptions,
): Promise<void> {
  const { iv, start, end } = message;
  const digests = await verify(reader, plan, message, reading);
  reader.open({
    session: openSession(plan.key, firstCounter(plan, iv), digests),
    stored: new SegmentSide(SEGMENT, 0, start),
    plaintext: new SegmentSide(SEGMENT, 0, 0),
    segments: Math.ceil((end - start) / SEGMENT),
    end,
    plaintextSize: end - start,
  });
}

/**
 * Reads the message once.
 *
 * @returns The digests of its segments.
 * @throws {KcapiError} EBADMSG if it is not authentic.
 */
async function verify(
  reader: SegmentReader,
  plan: GcmPlan,
  { iv, tag, start, end }: Message,
  reading: CheckedReadOptions,
): Promise<Bytes> {
  const digests = new Uint8Array(Math.ceil((end - start) / SEGMENT) * DIGEST);
  const cipher = new GcmCipher("decrypt", plan.key, iv, plan);
  try {
    let index = 0;
    for await (const batch of batchesOf(reader, start, end, reading)) {
      for (const segment of segmentsOf(batch)) {
        const plaintext = cipher.update(segment);
        plaintext.fill(0);
        discard(plaintext);
        digests.set(digestOf(segment), index++ * DIGEST);
      }
    }
    if (!cipher.verify(tag)) throw createUnverifiedError();
    return digests;
  } finally {
    cipher.close();
  }
}

/** Reads whole segments, with as many reads under way as the options say. */
async function* batchesOf(
  reader: SegmentReader,
  start: number,
  end: number,
  { readSize, readAhead }: CheckedReadOptions,
): AsyncGenerator<Bytes> {
  const step = Math.max(SEGMENT, readSize - readSize % SEGMENT);
  const underWay: Promise<Bytes>[] = [];
  for (let at = start, next = start; at < end; at += step) {
    for (; next < end && underWay.length <= readAhead; next += step) {
      const reading = reader.read(next, Math.min(next + step, end));
      reading.catch(() => {}); // reported when its turn comes
      underWay.push(reading);
    }
    yield await underWay.shift()!;
  }
}

function segmentsOf(bytes: Bytes): Bytes[] {
  const count = Math.ceil(bytes.length / SEGMENT);
  return Array.from({ length: count }, (_, i) => bytes.subarray(i * SEGMENT, (i + 1) * SEGMENT));
}

function digestOf(bytes: Bytes): Uint8Array {
  return nodeCrypto().createHash("sha256").update(bytes).digest();
}

/**
 * The counter block of the first block of plaintext. GCM hashes an IV that has not 12 bytes. Zeros encrypt to what the
 * block cipher makes of that counter block, and one block of cbc(aes) under an IV of zeros undoes that. (Deno 2.5 lacks
 * ecb(aes).)
 */
function firstCounter(plan: GcmPlan, iv: Bytes): Bytes {
  const gcm = new GcmCipher("encrypt", plan.key, iv, plan);
  const block = new Uint8Array(gcm.update(new Uint8Array(16)));
  gcm.close();
  const cbc = openUserspace(parseAlgorithm("cbc(aes)"), plan.key.clone());
  try {
    cbc.init("decrypt", new Uint8Array(16));
    cbc.update([block], true);
    return cbc.take(16);
  } finally {
    cbc.close();
  }
}

/** Decrypts segments as ctr(aes), if they are what was verified. */
function openSession(key: Secret, counter: Bytes, digests: Bytes): Session {
  const engine = openUserspace(parseAlgorithm("ctr(aes)"), key.clone());
  const session = localSession("userspace", ([input], { index = 0 }, outputs) => {
    const isSame = (segment: Bytes, i: number) => {
      const at = (index + i) * DIGEST;
      return nodeCrypto().timingSafeEqual(digestOf(segment), digests.subarray(at, at + DIGEST));
    };
    const segments = segmentsOf(input!);
    const changed = segments.findIndex((segment, i) => !isSame(segment, i));
    const same = changed < 0 ? input! : input!.subarray(0, changed * SEGMENT);
    if (same.length > 0) outputs.push(decryptAt(engine, counter, index * SEGMENT, same));
    if (changed >= 0) {
      throw new KcapiError("EBADMSG", "read", "the source has changed since it was verified");
    }
  }, () => engine.close());
  return { ...session, batchSize: BATCH };
}

/** GCM counts in the last 32 bits of the counter block. */
const COUNTING = countingIn(parseAlgorithm("ctr(aes)"), 32, 16);

/** Decrypts from a position that is a multiple of the block. */
function decryptAt(engine: Engine, first: Bytes, position: number, input: Bytes): Bytes {
  const output = new Uint8Array(input.length);
  for (let at = 0; at < input.length;) {
    const untilWrap = bytesToWrap(COUNTING, first, position + at);
    const end = at + Math.min(input.length - at, MAX_WINDOW, untilWrap);
    engine.init("decrypt", ivAt(COUNTING, first, position + at));
    engine.update([input.subarray(at, end)], true);
    engine.op([output.subarray(at, end)]);
    at = end;
  }
  return output;
}
