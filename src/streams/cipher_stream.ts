/**
 * {@linkcode CipherStream}: a TransformStream whose ends are those of a {@linkcode StreamPair}.
 *
 * @module
 */

import { type BytesLike, getterOf } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { StreamPair } from "./stream_pair.ts";
import type { TransformFactory } from "./transform.ts";

/**
 * The pair that TransformStream's own constructor makes, behind the getters below. Left alone it would let through what is
 * written to it, and a runtime may transfer that one: so it is of no use to anyone, errored and locked.
 */
const HIDDEN: Transformer = {
  start(controller) {
    controller.error(new DOMException("Such a stream cannot be transferred", "DataCloneError"));
  },
};

const hiddenWritable = getterOf<WritableStream>(TransformStream.prototype, "writable");

/** What the streams of this module have in common. */
export abstract class CipherStream extends TransformStream<BytesLike, Uint8Array<ArrayBuffer>> {
  /** The engine that really runs. */
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

  /** Where the output comes out. */
  override get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#pair.readable;
  }

  /** Where the input goes in. */
  override get writable(): WritableStream<BytesLike> {
    return this.#pair.writable;
  }
}
