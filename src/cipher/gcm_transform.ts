/**
 * AES-GCM of a whole message in userspace: the tag, and the output that is held until the tag is known.
 *
 * @module
 */

import { ByteQueue } from "../byte_queue.ts";
import { type Bytes, cloneBytes, IovCursor } from "../bytes.ts";
import { MAX_WINDOW } from "../engines/engine.ts";
import { discard, gather, toOwned, wipeScratch } from "../engines/scratch.ts";
import { KcapiError } from "../errors.ts";
import type { Secret } from "../secret.ts";
import type { Transform } from "../streams/transform.ts";
import { checkUserspaceGcm, GcmCipher } from "./gcm_cipher.ts";
import { GCM, type GcmPlan, IV_SIZE } from "./gcm_options.ts";

/** Memory grows from here. */
const LEAST = 4096;

/** Output that waits for the tag, in copies of at most a window each. */
class HeldOutput {
  #pieces: Bytes[] = [];
  /** The last piece, which is not full, and how much of it is used. */
  #memory: Bytes = new Uint8Array(0);
  #used = 0;

  /** Takes a copy, and zeroes `bytes`. */
  add(bytes: Uint8Array): void {
    for (let at = 0; at < bytes.length;) {
      if (this.#used === this.#memory.length) this.#grow();
      const part = bytes.subarray(at, at + this.#memory.length - this.#used);
      this.#memory.set(part, this.#used);
      this.#used += part.length;
      at += part.length;
    }
    bytes.fill(0);
    discard(bytes);
  }

  /** Removes all of it, in memory that becomes the caller's. */
  take(): Bytes[] {
    const pieces = [...this.#pieces, this.#memory.slice(0, this.#used)];
    this.#memory.fill(0);
    this.#forget();
    return pieces.filter(({ length }) => length > 0);
  }

  /** Zeroes all of it. */
  wipe(): void {
    for (const piece of [...this.#pieces, this.#memory]) piece.fill(0);
    this.#forget();
  }

  #grow(): void {
    const { length } = this.#memory;
    if (length > 0) this.#pieces.push(this.#memory);
    this.#memory = new Uint8Array(Math.min(MAX_WINDOW, Math.max(LEAST, 2 * length)));
    this.#used = 0;
  }

  #forget(): void {
    this.#pieces = [];
    this.#memory = new Uint8Array(0);
    this.#used = 0;
  }
}

/**
 * The state that the finalizer releases. It must refer neither to the transform nor to the plan, because the signals in
 * the plan refer to the stream while a reader or a writer waits.
 */
interface State {
  cipher: GcmCipher | undefined;
  readonly key: Secret;
  readonly held: HeldOutput | undefined;
}

const finalizer = new FinalizationRegistry<State>(release);

function release({ cipher, key, held }: State): void {
  cipher?.close();
  key.dispose();
  held?.wipe();
}

/** Receives the tag when an encryption ends. */
export type GiveTag = (tag: Bytes) => void;

/**
 * One message. In front of the ciphertext there may be an IV and a tag. Each {@linkcode read} processes at most a
 * window.
 */
export class GcmTransform implements Transform {
  readonly engine = "userspace";
  readonly #plan: GcmPlan;
  readonly #state: State;
  readonly #giveTag: GiveTag;
  /** Decryption: the bytes in front of the ciphertext, then the last bytes of the input, which may be the tag. */
  readonly #front: ByteQueue;
  readonly #tail: ByteQueue;
  #input: IovCursor | undefined;
  #isLast = false;
  /** A random IV, until it has been read. It comes with the first output, not before. */
  #newIV: Bytes | undefined;
  /** Output that is ready to be read. */
  #ready: Bytes[] = [];
  /** Bytes of the message that were processed. */
  #processed = 0;
  #isClosed = false;

  /**
   * @param plan Its key is owned by this, also if this fails.
   * @param giveTag Called when an encryption ends.
   * @throws {KcapiError} ENOENT if this runtime has no keys or no tags of these sizes.
   */
  constructor(plan: GcmPlan, giveTag: GiveTag = () => {}) {
    const { direction, releaseUnverified, tag, tagSize } = plan;
    const holds = direction === "encrypt" ? tag === "start" : !releaseUnverified;
    this.#plan = plan;
    this.#state = { cipher: undefined, key: plan.key, held: holds ? new HeldOutput() : undefined };
    this.#giveTag = giveTag;
    this.#front = new ByteQueue(frontSize(plan));
    this.#tail = new ByteQueue(tagSize);
    finalizer.register(this, this.#state, this);
    try {
      checkUserspaceGcm(plan.key.length, tagSize);
      if (direction === "encrypt") this.#startEncryption();
      else if (frontSize(plan) === 0) this.#start(plan.iv!);
    } catch (error) {
      throw this.#closeWith(error);
    }
  }

  get pending(): boolean {
    return this.#input !== undefined || this.#ready.length > 0;
  }

  write(list: readonly Bytes[]): void {
    this.#input = new IovCursor(list);
  }

  end(): void {
    this.#input = new IovCursor([]);
    this.#isLast = true;
  }

  read(): Bytes | undefined {
    const iv = this.#newIV;
    this.#newIV = undefined;
    if (iv) return iv;
    if (this.#input && this.#ready.length === 0) this.#advance(this.#input);
    return this.#ready.shift();
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    finalizer.unregister(this);
    release(this.#state);
    wipeScratch();
    this.#tail.wipe();
    this.#input = undefined;
  }

  /** Processes a window of the input, or ends the message. */
  #advance(input: IovCursor): void {
    try {
      input.verify();
      const output = this.#process(input);
      if (output && this.#state.held) this.#state.held.add(output);
      else if (output) this.#ready.push(toOwned(output));
      if (input.remaining > 0) return;
      this.#input = undefined;
      if (this.#isLast) this.#finish();
    } catch (error) {
      throw this.#closeWith(error);
    }
  }

  #process(input: IovCursor): Uint8Array | undefined {
    if (!this.#state.cipher && !this.#readFront(input)) return undefined;
    const available = this.#tail.length + input.remaining - this.#tailSize;
    if (available > 0) this.#checkSize(this.#processed + available);
    const length = Math.min(available, MAX_WINDOW);
    const list = length > 0 ? this.#take(input, length) : [];
    if (available <= MAX_WINDOW) this.#tail.add(input, input.remaining);
    if (length <= 0) return undefined;
    this.#processed += length;
    return this.#state.cipher!.update(gather(list));
  }

  /** The next bytes, first those that might have been the tag. */
  #take(input: IovCursor, length: number): Bytes[] {
    const fromTail = Math.min(length, this.#tail.length);
    const first = fromTail > 0 ? this.#tail.take(fromTail) : [];
    const rest = input.peek(length - fromTail);
    input.advance(length - fromTail);
    return [...first, ...rest];
  }

  /** Bytes at the end of the input that are not ciphertext. */
  get #tailSize(): number {
    const { direction, tag, tagSize } = this.#plan;
    return direction === "decrypt" && tag === "end" ? tagSize : 0;
  }

  /** @throws {KcapiError} If a message of `size` bytes is too long to be held, or for GCM. */
  #checkSize(size: number): void {
    const { maxSize, limit } = this.#plan;
    if (size > limit) throw tooLongForGcm(limit);
    if (this.#state.held && size > maxSize) throw tooLongToHold(this.#plan);
  }

  #startEncryption(): void {
    const plan = this.#plan;
    const iv = plan.iv ?? crypto.getRandomValues(new Uint8Array(IV_SIZE));
    if (!plan.iv) this.#newIV = cloneBytes(iv);
    this.#start(iv);
  }

  #readFront(input: IovCursor): boolean {
    const plan = this.#plan;
    const size = frontSize(plan);
    this.#front.add(input, Math.min(size - this.#front.length, input.remaining));
    if (this.#front.length < size) return false;
    this.#start(plan.iv ?? cloneBytes(this.#front.bytes.subarray(0, IV_SIZE)));
    return true;
  }

  #start(iv: Bytes): void {
    const plan = this.#plan;
    this.#state.cipher = new GcmCipher(plan.direction, plan.key, iv, plan);
    plan.key.dispose();
  }

  #finish(): void {
    const { cipher, held } = this.#state;
    const plan = this.#plan;
    if (plan.direction === "encrypt") {
      const tag = cipher!.tag();
      if (plan.tag !== "detached") this.#ready.push(cloneBytes(tag));
      this.#giveTag(tag);
    } else {
      const tag = this.#givenTag(plan);
      if (!tag || !cipher?.verify(tag)) throw createUnverifiedError();
    }
    if (held) this.#ready.push(...held.take());
    this.close();
  }

  /** Undefined if the input ended before it. */
  #givenTag({ tag, tagSize }: GcmPlan): Bytes | undefined {
    if (typeof tag !== "string") return tag;
    const { bytes } = tag === "start" ? this.#front : this.#tail;
    return bytes.length < tagSize ? undefined : bytes.slice(-tagSize);
  }

  #closeWith(error: unknown): unknown {
    this.close();
    return error;
  }
}

/** Bytes in front of the ciphertext that a decryption reads: the IV, then the tag. */
export function frontSize({ iv, tag, tagSize }: GcmPlan): number {
  return (iv ? 0 : IV_SIZE) + (tag === "start" ? tagSize : 0);
}

/** The same error for every defect: to tell them apart would help an attacker. */
export function createUnverifiedError(): KcapiError {
  return new KcapiError(
    "EBADMSG",
    "decrypt",
    "the message is not authentic: it is damaged or cut short, or the key, IV, tag or associated data is wrong",
  );
}

/** The error for a message of which more than `maxSize` bytes would have to be held. */
export function tooLongToHold({ direction, maxSize }: GcmPlan): KcapiError {
  return new KcapiError("EMSGSIZE", direction, `the message has more than the ${maxSize} bytes that may be held`, {
    hint: direction === "encrypt"
      ? 'set maxSize; or with the userspace engine and the tag at the end or "detached", nothing is held'
      : "set maxSize; or use openGcm() with a source that can be read again; or take bytes that may be forged, with " +
        "releaseUnverified: true",
  });
}

/** The error for a message that GCM cannot encrypt under one IV. */
export function tooLongForGcm(limit: number): KcapiError {
  return new KcapiError("EOVERFLOW", "stream", `the block counter of ${GCM} ends here, after ${limit} bytes`, {
    hint: "use another IV for what follows; sealed streams have no such limit",
  });
}
