/**
 * The interface of an engine: libkcapi's stream calls on one keyed cipher.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** `"kernel"`: AF_ALG through libkcapi. `"userspace"`: the runtime's own `node:crypto`. */
export type CipherEngineName = "kernel" | "userspace";

/** What runs a stream: an engine, or for sealed streams the runtime's WebCrypto. */
export type EngineName = CipherEngineName | "webcrypto";

/**
 * The largest window of both engines, in bytes: the kernel's default send buffer. With larger socket buffers the op
 * itself fails with ENOMEM, because its page lists must fit net.core.optmem_max (crypto/af_alg.c).
 */
export const MAX_WINDOW = 212_992;

/** The direction of a stream. */
export type Direction = "encrypt" | "decrypt";

/**
 * One keyed cipher with at most one stream in progress. All calls are synchronous and none may sleep:
 * the caller (`engine_stream.ts`) never sends more than {@linkcode Engine.capacity} and never asks for more than
 * is there. After {@linkcode Engine.close} no other member is used.
 */
export interface Engine {
  readonly name: CipherEngineName;
  /** The cipher's block size in bytes; 1 for stream ciphers. */
  readonly blockSize: number;
  /** The IV's length in bytes; 0 where there is none. */
  readonly ivSize: number;
  /**
   * The most bytes that may be in the engine at once, and that one {@linkcode Engine.op} may return. Known after the
   * first {@linkcode Engine.init}.
   */
  readonly window: number;
  /** Starts a stream, or a new message of it. `iv` has `ivSize` bytes, or is null where that is 0. */
  init(direction: Direction, iv: Bytes | null): void;
  /** Sends all bytes of the input buffers. `last` ends the message. The engine keeps no reference to the buffers. */
  update(list: readonly Bytes[], last: boolean): void;
  /** Fills all output buffers with processed bytes. They may be the memory that was just sent. */
  op(list: readonly Bytes[]): void;
  /** Returns `length` processed bytes in memory that becomes the caller's. */
  take(length: number): Bytes;
  /**
   * {@linkcode Engine.update} and {@linkcode Engine.op} for one buffer of whole chunks. Only if the engine is empty.
   *
   * @returns The output: `bytes` itself with `inPlace`, else new memory that becomes the caller's.
   */
  pass(bytes: Bytes, inPlace: boolean): Bytes;
  /** The number of bytes that one update may send while `queued` bytes are in the engine. */
  capacity(queued: number): number;
  /** Opens another engine with the same key. */
  reinit(): Engine;
  /** Releases everything. Called once. */
  close(): void;
}
