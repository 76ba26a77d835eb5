/**
 * What an engine is: libkcapi's stream calls on one keyed cipher, and nothing more.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** `"kernel"`: AF_ALG through libkcapi. `"userspace"`: the runtime's own `node:crypto`. */
export type EngineName = "kernel" | "userspace";

/**
 * The largest window of both engines, in bytes: the kernel's default send buffer. With larger socket buffers the op
 * itself fails with ENOMEM, because its page lists must fit net.core.optmem_max (crypto/af_alg.c).
 */
export const MAX_WINDOW = 212_992;

/** The direction of a stream. */
export type Direction = "encrypt" | "decrypt";

/**
 * One keyed cipher with at most one stream in progress. All calls are synchronous and none may sleep:
 * the caller (`flow.ts`) never sends more than {@linkcode Engine.capacity} nor asks for more than is
 * there. After {@linkcode Engine.close} no other member is used.
 */
export interface Engine {
  readonly name: EngineName;
  /** The cipher's block size in bytes; 1 for stream ciphers. */
  readonly blockSize: number;
  /** The IV's length in bytes; 0 where there is none. */
  readonly ivSize: number;
  /**
   * The most bytes that may be in the engine at once, and that one {@linkcode Engine.op} may return; settled by the
   * first {@linkcode Engine.init}.
   */
  readonly window: number;
  /** Starts a stream, or a new message of it. `iv` has `ivSize` bytes, or is null where that is 0. */
  init(direction: Direction, iv: Bytes | null): void;
  /** Sends all bytes of the scatter list; `last` ends the message. The engine keeps no reference to them. */
  update(list: readonly Bytes[], last: boolean): void;
  /** Fills the gather list, all of it, with processed bytes. Entries may be the memory just sent. */
  op(list: readonly Bytes[]): void;
  /** The same into memory of its own choice, of `length` bytes, that becomes the caller's. */
  take(length: number): Bytes;
  /**
   * {@linkcode Engine.update} and {@linkcode Engine.op} for one piece of whole chunks, with nothing else in the engine.
   *
   * @returns The output: `bytes` itself with `inPlace`, else new memory that becomes the caller's.
   */
  pass(bytes: Bytes, inPlace: boolean): Bytes;
  /** How many bytes one update may carry while `queued` bytes are in the engine. */
  capacity(queued: number): number;
  /** The same key, an independent stream. */
  reinit(): Engine;
  /** Releases everything. Called once. */
  close(): void;
}
