/**
 * What stands between the two ends of a stream, or between a source and who iterates over it.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";

/**
 * Turns bytes into bytes, in steps of which none waits: {@linkcode write} input, {@linkcode read} until nothing is
 * {@linkcode pending}, …, {@linkcode end}, {@linkcode read} until nothing is. Where a call throws, it is closed.
 */
export interface Transform {
  /** The engine that really runs. */
  readonly engine: EngineName;
  /** Whether {@linkcode read} has more to give, or more input to take. */
  readonly pending: boolean;
  /**
   * Where output is made elsewhere, and some is under way: settles when {@linkcode read} may have more to give or to take.
   * Never rejects.
   */
  readonly progress?: Promise<void> | undefined;
  /**
   * The output of `bytes`, for the most frequent case: only when nothing is {@linkcode pending}.
   *
   * @returns Undefined, and nothing is done, where it takes {@linkcode write} and {@linkcode read}.
   */
  pass?(bytes: Bytes): Bytes | undefined;
  /** Hands over input; only when nothing is {@linkcode pending}. The memory is in use until that is so again. */
  write(list: readonly Bytes[]): void;
  /** Hands over the end; only when nothing is {@linkcode pending}. */
  end(): void;
  /**
   * The next output, in memory that becomes the caller's.
   *
   * @returns Undefined where that takes another call, more input, time, or the end has come; {@linkcode pending} and
   * {@linkcode progress} tell.
   */
  read(): Bytes | undefined;
  /** Releases what it holds, now. Closing again does nothing. */
  close(): void;
}

/** A transform that is ready to be opened; all that its options can tell has been checked. */
export interface TransformFactory {
  /** Each of them aborts it. */
  readonly signals: readonly AbortSignal[];
  /** Whether output goes into the memory of the chunks that come in. */
  readonly inPlace: boolean;
  /** Opens the transform. */
  open(): Transform;
  /** Forgets the key, where it is not to be opened after all. */
  discard(): void;
}
