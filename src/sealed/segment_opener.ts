/**
 * {@linkcode SegmentOpener}: verifies and decrypts segments of one file, in a session.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { BatchResult, Session } from "../executors/executor.ts";
import { allocUnsafe } from "../runtime/web.ts";
import type { Lifetime } from "./lifetime.ts";
import type { Decrypted } from "./segment_cache.ts";

/** Verifies and decrypts segments of one file. Only what the session verified comes out. */
export class SegmentOpener {
  readonly session: Session;
  readonly #lifetime: Lifetime;
  readonly #segments: number;
  readonly #allowDamage: boolean;

  /**
   * @param segments The number of segments of the file.
   * @param allowDamage Whether a segment may also be the last one where it is not, or not where it is, because the
   * file was extended or truncated. {@linkcode open} then takes one segment at a time.
   */
  constructor(session: Session, lifetime: Lifetime, segments: number, allowDamage: boolean) {
    this.session = session;
    this.#lifetime = lifetime;
    this.#segments = segments;
    this.#allowDamage = allowDamage;
    lifetime.atClose(() => session.close());
  }

  /** Unseals the segments from `first` to before `end`. An error is EBADMSG, or the file is closed with it. */
  open(first: number, end: number, sealed: Bytes): Decrypted | Promise<Decrypted> {
    const isLast = end === this.#segments;
    return this.#allowDamage ? this.#openAny(first, sealed, isLast) : this.run(first, sealed, isLast);
  }

  /** Unseals segments of which the last one is the last one of the file, or not. */
  run(index: number, sealed: Bytes, isLast: boolean): Decrypted | Promise<Decrypted> {
    this.#lifetime.checkPending(); // the keys of a closed session are zero, and anyone can seal data with a zero key
    const { session } = this;
    const list = [session.ownsInput ? copyTo(session, sealed) : sealed];
    const running = session.run(list, { index, isLast }, false);
    return running instanceof Promise ? running.then((result) => this.#check(result)) : this.#check(running);
  }

  /** A session asked for the last segment gives a full one also if it is not, together with an error. */
  async #openAny(index: number, sealed: Bytes, isLast: boolean): Promise<Decrypted> {
    let result = await this.run(index, sealed, isLast);
    if (isBadMessage(result.error) && !isLast) result = await this.run(index, sealed, true);
    return isBadMessage(result.error) && result.bytes.length > 0 ? { bytes: result.bytes } : result;
  }

  #check({ outputs, error }: BatchResult): Decrypted {
    // The cipher may still have output of this batch, which the next one would get.
    if (error !== undefined && !isBadMessage(error)) this.#lifetime.close(error);
    return { bytes: outputs[0] ?? new Uint8Array(0), error };
  }
}

/** Whether an error says that data cannot be verified. */
export function isBadMessage(error: unknown): boolean {
  return error instanceof KcapiError && error.code === "EBADMSG";
}

/** Copies bytes of the source into memory that the session may own. */
function copyTo({ memory }: Session, bytes: Bytes): Bytes {
  const copy = memory?.acquire(bytes.length) ?? allocUnsafe(bytes.length);
  copy.set(bytes);
  return copy;
}
