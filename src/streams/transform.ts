/**
 * The interface of every cipher to the streams and the iterables.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";

/**
 * Turns input bytes into output bytes. No call waits. The caller calls {@linkcode write}, then {@linkcode read} until
 * {@linkcode pending} is false, and repeats this for each input. At the end it calls {@linkcode end}, and again
 * {@linkcode read} until {@linkcode pending} is false. A transform that throws closes itself.
 */
export interface Transform {
  /** The engine that runs the cipher. */
  readonly engine: EngineName;
  /** Whether {@linkcode read} has more output to return, or more input to process. */
  readonly pending: boolean;
  /**
   * Set while output is computed outside this thread. Resolves when {@linkcode read} may return more output or process
   * more input. Never rejects.
   */
  readonly progress?: Promise<void> | undefined;
  /**
   * Transforms a chunk in one call, which is faster than {@linkcode write} and {@linkcode read}. Only when
   * {@linkcode pending} is false.
   *
   * @returns The output. Undefined if this chunk needs {@linkcode write} and {@linkcode read}: then nothing was done.
   */
  pass?(bytes: Bytes): Bytes | undefined;
  /**
   * Passes input. Only when {@linkcode pending} is false.
   *
   * @param list The input buffers. They are in use until {@linkcode pending} is false again.
   */
  write(list: readonly Bytes[]): void;
  /** Ends the input. Only when {@linkcode pending} is false. */
  end(): void;
  /**
   * Returns the next output.
   *
   * @returns The output, in memory that the caller owns. Undefined if there is none now: {@linkcode pending} tells
   * whether to call again, {@linkcode progress} whether to wait before.
   */
  read(): Bytes | undefined;
  /** Releases the cipher, its keys and its buffers. A second call does nothing. */
  close(): void;
}

/** A transform that is not open yet. Its options have been checked. */
export interface TransformFactory {
  /** The signals that abort the transform. */
  readonly signals: readonly AbortSignal[];
  /** Whether output is written into the memory of the input chunks. */
  readonly inPlace: boolean;
  /** Opens the transform. */
  open(): Transform;
  /** Zeroes the key of a transform that will not be opened. */
  discard(): void;
  /** The tag of what is encrypted, with an AEAD. Rejects if the stream ends before it. */
  readonly tag?: Promise<Bytes>;
}
