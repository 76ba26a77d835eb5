/**
 * {@linkcode StreamPair}: the web streams around a {@linkcode Driver}.
 *
 * @module
 */

import { type Bytes, type BytesLike, toUint8Array } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { Driver } from "./driver.ts";
import type { TransformFactory } from "./transform.ts";

/** The two sides of a stream. They refer to the driver, not to this object, because a user may keep only one side. */
export class StreamPair {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<BytesLike>;
  /** The engine that runs. */
  readonly engine: EngineName;

  /** Opens the transform. */
  constructor(factory: TransformFactory) {
    const transform = factory.open();
    let input!: WritableStreamDefaultController;
    this.writable = new WritableStream<BytesLike>({
      start(controller) {
        input = controller;
        // The stream calls the sink's abort() only after the pending write, which may wait for a reader. Bun before 1.4
        // has no signal here.
        controller.signal?.addEventListener("abort", () => driver.interrupt(controller.signal.reason));
      },
      write: (chunk) => driver.write(checkChunk(driver, chunk)),
      close: () => driver.close(),
      abort: (reason) => driver.abort(reason),
    });
    const driver = new Driver(factory, input, transform);
    this.readable = driver.readable;
    this.engine = transform.engine;
  }
}

function checkChunk(driver: Driver, chunk: unknown): Bytes {
  try {
    return toUint8Array("chunk", chunk);
  } catch (error) {
    driver.fail(error);
    throw error;
  }
}
