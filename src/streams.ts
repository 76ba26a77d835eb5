/**
 * {@linkcode EncryptionStream} and {@linkcode DecryptionStream}.
 *
 * @module
 */

import { nextTurn } from "../ffi/mod.ts";
import { onAbort } from "./abort.ts";
import { bytesOf, sizeOf } from "./bytes.ts";
import { type CipherParameters, type CipherStreamOptions, type Cryptor, prepare } from "./cryptor.ts";
import type { Bytes, EngineName } from "./engines/engine.ts";
import type { CipherHandle } from "./handle.ts";
import { TimeSlice } from "./time_slice.ts";

/** Chunks below this size are gathered, up to the limit, before the engine is called: a call costs more than a copy. */
const SMALL = 16 * 1024;
const GATHER_LIMIT = 64 * 1024;

/**
 * The two ends of a stream and the cryptor between them.
 *
 * A pair of our own, because a Transformer has no pull: it would have to enqueue all the output of a large chunk at
 * once. Here each piece of at most a window is made when the reader asks for it.
 *
 * Only this is referred to by both ends; the stream object may be gone before them.
 */
class Duct {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<Uint8Array>;
  readonly #cryptor: Cryptor;
  readonly #inPlace: boolean;
  readonly #gatherLimit: number;
  #stopListening = (): void => {};
  #reader!: ReadableStreamDefaultController<Bytes>;
  #writer!: WritableStreamDefaultController;
  /** The reader has asked, and nothing was enqueued since. */
  #demand = false;
  /** The write whose output was not asked for yet. */
  #waiting: { readonly resolve: () => void; readonly reject: (reason: unknown) => void } | undefined;
  /** Output is being made, or the event loop has its turn before it goes on. */
  #busy = false;
  /** Small chunks: copies in one buffer, or with `inPlace` the chunks themselves. */
  #gathered: Bytes[] = [];
  #gatheredLength = 0;
  #buffer: Bytes | undefined;
  #drain: "idle" | "scheduled" | "due" = "idle";
  /** Since when a chunk of many pieces has been worked on without a turn of the event loop. */
  #slice: TimeSlice | undefined;
  #over = false;
  /** Why it ended, other than by a close. */
  #reason: unknown;

  constructor(cryptor: Cryptor, inPlace: boolean, signal: AbortSignal | undefined) {
    this.#cryptor = cryptor;
    this.#inPlace = inPlace;
    this.#gatherLimit = Math.min(GATHER_LIMIT, cryptor.window);
    this.readable = new ReadableStream<Bytes>({
      start: (controller) => void (this.#reader = controller),
      pull: () => this.#pull(),
      cancel: (reason) => this.#fail(reason),
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<Uint8Array>({
      start: (controller) => {
        this.#writer = controller;
        // The sink's abort() comes only after the write in progress, which may wait for a reader.
        controller.signal.addEventListener("abort", () => this.#aborted(controller.signal.reason));
      },
      write: (chunk) => this.#write(chunk),
      close: () => this.#close(),
      abort: (reason) => this.#aborted(reason),
    });
    this.#stopListening = onAbort(signal, this, Duct.#abort);
  }

  static #abort(duct: Duct, reason: unknown): void {
    duct.#fail(reason);
  }

  #write(chunk: unknown): void | Promise<void> {
    try {
      const bytes = bytesOf("chunk", chunk);
      if (bytes.length < SMALL && this.#gatheredLength + bytes.length <= this.#gatherLimit) return this.#gather(bytes);
      if (this.#gatheredLength === 0) {
        const output = this.#demand ? this.#cryptor.pass(bytes) : undefined;
        return output ? this.#enqueue(output) : this.#produce([bytes]);
      }
      const drained = this.#produce(this.#takeGathered());
      return drained ? drained.then(() => this.#writeUnlessOver(bytes)) : this.#write(bytes);
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** For a write that waited: the stream may have ended between the end of the wait and its news. */
  #writeUnlessOver(bytes: Bytes): void | Promise<void> {
    if (this.#over) throw this.#reason;
    return this.#write(bytes);
  }

  #close(): void {
    try {
      // What is left is less than a window: enqueued whether it was asked for or not.
      if (this.#gatheredLength > 0) this.#cryptor.write(this.#takeGathered());
      this.#enqueueAll();
      this.#cryptor.end();
      this.#enqueueAll();
      this.#finish();
      this.#reader.close();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  /** Makes output of `list` while the reader asks for it, and waits where it does not. */
  #produce(list: readonly Bytes[]): void | Promise<void> {
    this.#cryptor.write(list);
    this.#answerDemand();
    if (!this.#cryptor.pending) return;
    return new Promise((resolve, reject) => this.#waiting = { resolve, reject });
  }

  #pull(): void {
    this.#demand = true;
    if (!this.#busy) this.#resume();
  }

  #resume(): void {
    try {
      if (this.#waiting) {
        this.#answerDemand();
        if (this.#cryptor.pending) return;
        const { resolve } = this.#waiting;
        this.#waiting = undefined;
        resolve();
      } else if (this.#drain === "due") {
        this.#drainNow();
      }
    } catch (error) {
      this.#fail(error);
    }
  }

  /** One piece for each time the reader asks. Enqueuing one can make it ask again, from within the call. */
  #answerDemand(): void {
    const cryptor = this.#cryptor;
    this.#busy = true;
    while (this.#demand && cryptor.pending) {
      if (this.#slice && !cryptor.hasOutput && this.#slice.over) return this.#resumeNextTurn(this.#slice);
      const output = cryptor.read();
      if (output) this.#enqueue(output);
      if (cryptor.pending && !cryptor.hasOutput) this.#slice ??= new TimeSlice();
    }
    this.#busy = false;
    if (!cryptor.pending) this.#slice = undefined;
  }

  #resumeNextTurn(slice: TimeSlice): void {
    void slice.next().then(() => {
      this.#busy = false;
      if (!this.#over) this.#resume();
    });
  }

  #enqueue(output: Bytes): void {
    this.#demand = false;
    this.#reader.enqueue(output);
  }

  #enqueueAll(): void {
    while (this.#cryptor.pending) {
      const output = this.#cryptor.read();
      if (output) this.#enqueue(output);
    }
  }

  #gather(bytes: Bytes): void {
    if (bytes.length === 0) return;
    if (this.#inPlace) {
      this.#gathered.push(bytes);
    } else {
      this.#buffer ??= new Uint8Array(this.#gatherLimit);
      this.#buffer.set(bytes, this.#gatheredLength);
    }
    this.#gatheredLength += bytes.length;
    if (this.#drain !== "idle") return;
    this.#drain = "scheduled";
    nextTurn(() => {
      this.#drain = "due";
      if (this.#demand) this.#resume();
    });
  }

  #drainNow(): void {
    this.#drain = "idle";
    if (this.#gatheredLength === 0) return;
    this.#cryptor.write(this.#takeGathered());
    this.#enqueueAll();
  }

  #takeGathered(): Bytes[] {
    const list = this.#inPlace ? this.#gathered : [this.#buffer!.subarray(0, this.#gatheredLength)];
    const length = this.#gatheredLength;
    this.#gathered = [];
    this.#gatheredLength = 0;
    if (sizeOf(list) !== length) throw new TypeError("A chunk was detached before its output was read");
    return list;
  }

  /** Both sides end with `reason`; everything is released. */
  #fail(reason: unknown): void {
    if (this.#over) return;
    this.#writer.error(reason);
    this.#aborted(reason);
  }

  /** The same where the writable side ends by itself. */
  #aborted(reason: unknown): void {
    if (this.#over) return;
    this.#reason = reason;
    this.#finish();
    this.#reader.error(reason);
    this.#waiting?.reject(reason);
    this.#waiting = undefined;
  }

  #finish(): void {
    this.#over = true;
    this.#gathered = [];
    this.#gatheredLength = 0;
    this.#buffer?.fill(0);
    this.#stopListening();
    this.#cryptor.close();
  }
}

/** What {@linkcode EncryptionStream} and {@linkcode DecryptionStream} have in common. */
export abstract class CipherStream extends TransformStream<Uint8Array, Uint8Array<ArrayBuffer>> {
  /** The engine that really runs. */
  readonly engine: EngineName;
  readonly #duct: Duct;

  /** Opens the cipher. */
  protected constructor(
    direction: "encrypt" | "decrypt",
    source: string | CipherHandle,
    options: Partial<CipherStreamOptions> = {},
  ) {
    super();
    const prepared = prepare(direction, source, options);
    const cryptor = prepared.open();
    this.engine = cryptor.engine;
    this.#duct = new Duct(cryptor, prepared.inPlace, prepared.signal);
  }

  /** Where the output comes out. */
  override get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#duct.readable;
  }

  /** Where the input goes in: any BufferSource. */
  override get writable(): WritableStream<Uint8Array> {
    return this.#duct.writable;
  }
}

/**
 * Encrypts what is written to it.
 *
 * A TransformStream: any BufferSource goes in, plain Uint8Arrays come out, as whole blocks and not in the boundaries of
 * the input; a chunk of any size is worked on in pieces, as the reader asks for them. Chunks of less than 16 KiB are
 * gathered for at most a turn of the event loop. The stream releases its cipher when it ends, in whatever way.
 *
 * @example Usage
 * ```ts
 * import { DecryptionStream, EncryptionStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = {
 *   key: crypto.getRandomValues(new Uint8Array(32)),
 *   iv: crypto.getRandomValues(new Uint8Array(16)),
 * };
 * const text = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new EncryptionStream("cbc(aes)", options))
 *   .pipeThrough(new DecryptionStream("cbc(aes)", options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 */
export class EncryptionStream extends CipherStream {
  /**
   * Opens the cipher.
   *
   * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher; `hint` tells what would change that.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle, which is left as it is: `kcapi_handle_reinit`.
   *
   * @param handle A handle with its key, for any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options?: Partial<CipherStreamOptions>) {
    super("encrypt", source, options);
  }
}

/**
 * Decrypts what is written to it.
 *
 * Nothing is authenticated: output is unverified, that of before an error too. With padding, a ciphertext whose end is
 * missing or damaged is an error (EBADMSG) at the end, the same one for every cause.
 *
 * @example Usage
 * ```ts
 * import { DecryptionStream, KcapiError } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const truncated = new Blob([new Uint8Array(20)]).stream()
 *   .pipeThrough(new DecryptionStream("cbc(aes)", { key: new Uint8Array(16), iv: new Uint8Array(16) }));
 * const error = await new Response(truncated).arrayBuffer().catch((error) => error);
 * assertEquals((error as KcapiError).code, "EBADMSG");
 * ```
 */
export class DecryptionStream extends CipherStream {
  /**
   * Opens the cipher.
   *
   * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
   * @param options The key, the IV, and how to use them.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the key, the IV or a size is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher; `hint` tells what would change that.
   */
  constructor(algorithm: string, options: CipherStreamOptions);
  /**
   * Uses the key of a handle, which is left as it is: `kcapi_handle_reinit`.
   *
   * @param handle A handle with its key, for any number of streams.
   * @param parameters The IV, and how to use it.
   */
  constructor(handle: CipherHandle, parameters?: CipherParameters);
  constructor(source: string | CipherHandle, options?: Partial<CipherStreamOptions>) {
    super("decrypt", source, options);
  }
}
