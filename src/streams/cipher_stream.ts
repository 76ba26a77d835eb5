/**
 * {@linkcode CipherStream}: a TransformStream with the readable and writable side of a {@linkcode StreamPair}.
 *
 * @module
 */

import { type BytesLike, getterOf } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { StreamPair } from "./stream_pair.ts";
import type { TransformFactory } from "./transform.ts";

/**
 * For the two streams that the constructor of TransformStream creates, which the getters below hide. By default they
 * form an identity transform, and `structuredClone()` and `postMessage()` may transfer these two instead of the
 * cipher's: data would pass unencrypted. So they are errored and locked.
 */
const HIDDEN: Transformer = {
  start(controller) {
    controller.error(new DOMException("Such a stream cannot be transferred", "DataCloneError"));
  },
};

const hiddenWritable = getterOf<WritableStream>(TransformStream.prototype, "writable");

/** The base class of all cipher streams. */
export abstract class CipherStream extends TransformStream<BytesLike, Uint8Array<ArrayBuffer>> {
  /** The engine that runs the cipher: never `"auto"`. */
  readonly engine: EngineName;
  readonly #pair: StreamPair;

  /**
   * Opens the cipher.
   *
   * @ignore
   */
  protected constructor(factory: TransformFactory) {
    super(HIDDEN);
    hiddenWritable.call(this).getWriter();
    this.#pair = new StreamPair(factory);
    this.engine = this.#pair.engine;
  }

  /** The output. */
  override get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#pair.readable;
  }

  /**
   * The input.
   *
   * Before anyone reads, `await writer.write(chunk)` resolves for chunks of less than 16 KiB, of which up to 64 KiB are
   * kept, and waits for a reader from 16 KiB on. So start to read, or pipe the stream, before you await a write. Only
   * the Workers of a `pool` take more.
   */
  override get writable(): WritableStream<BytesLike> {
    return this.#pair.writable;
  }
}
