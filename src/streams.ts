/**
 * {@linkcode EncryptionStream} and {@linkcode DecryptionStream}.
 *
 * @module
 */

import { setImmediate } from "node:timers";
import { bytesOf } from "./bytes.ts";
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
  readonly #signal: AbortSignal | undefined;
  readonly #onAbort: (() => void) | undefined;
  #reader!: ReadableStreamDefaultController<Bytes>;
  #writer!: WritableStreamDefaultController;
  /** The reader has asked, and nothing was enqueued since. */
  #demand = false;
  #onDemand: (() => void) | undefined;
  /** Small chunks: copies in one buffer, or with `inPlace` the chunks themselves. */
  #gathered: Bytes[] = [];
  #gatheredLength = 0;
  #buffer: Bytes | undefined;
  #drainScheduled = false;
  #over = false;

  constructor(cryptor: Cryptor, inPlace: boolean, signal: AbortSignal | undefined) {
    this.#cryptor = cryptor;
    this.#inPlace = inPlace;
    this.#signal = signal;
    this.readable = new ReadableStream<Bytes>({
      start: (controller) => void (this.#reader = controller),
      pull: () => this.#pull(),
      cancel: (reason) => this.#fail(reason),
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<Uint8Array>({
      start: (controller) => void (this.#writer = controller),
      write: (chunk) => this.#write(chunk),
      close: () => this.#close(),
      abort: (reason) => this.#fail(reason),
    });
    if (!signal) return;
    // Weakly, for a signal may live on when nobody holds either end any more.
    const self = new WeakRef(this);
    this.#onAbort = () => {
      const duct = self.deref();
      if (duct) duct.#fail(signal.reason);
    };
    if (signal.aborted) this.#onAbort();
    else signal.addEventListener("abort", this.#onAbort);
  }

  #pull(): void {
    this.#demand = true;
    const resume = this.#onDemand;
    this.#onDemand = undefined;
    resume?.();
  }

  #write(chunk: unknown): void | Promise<void> {
    try {
      const bytes = bytesOf("chunk", chunk);
      if (bytes.length < SMALL && this.#gatheredLength + bytes.length <= this.#gatherLimit) return this.#gather(bytes);
      if (this.#gatheredLength > 0) return this.#drainThen(() => this.#write(bytes));
      this.#cryptor.write([bytes]);
      return this.#produce();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #close(): void | Promise<void> {
    try {
      if (this.#gatheredLength > 0) this.#handOver();
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

  /** Makes output as long as the reader asks for it, and waits where it does not. */
  #produce(): void | Promise<void> {
    const cryptor = this.#cryptor;
    while (this.#demand && cryptor.pending) {
      const output = cryptor.read();
      if (output) this.#enqueue(output);
    }
    if (cryptor.pending) return this.#produceOnDemand();
  }

  async #produceOnDemand(): Promise<void> {
    const cryptor = this.#cryptor;
    const slice = new TimeSlice();
    try {
      while (cryptor.pending && !this.#over) {
        if (!this.#demand) {
          await new Promise<void>((resolve) => this.#onDemand = resolve);
          continue;
        }
        if (slice.over) {
          await slice.next();
          continue;
        }
        const output = cryptor.read();
        if (output) this.#enqueue(output);
      }
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #enqueue(output: Bytes): void {
    this.#demand = false;
    this.#reader.enqueue(output);
  }

  /** Less than a window: enqueued whether it was asked for or not. */
  #enqueueAll(): void {
    while (this.#cryptor.pending) {
      const output = this.#cryptor.read();
      if (output) this.#enqueue(output);
    }
  }

  get #gatherLimit(): number {
    return Math.min(GATHER_LIMIT, this.#cryptor.window);
  }

  #gather(bytes: Bytes): void | Promise<void> {
    if (bytes.length === 0) return;
    if (this.#inPlace) {
      this.#gathered.push(bytes);
    } else {
      this.#buffer ??= new Uint8Array(this.#gatherLimit);
      this.#buffer.set(bytes, this.#gatheredLength);
    }
    this.#gatheredLength += bytes.length;
    if (!this.#drainScheduled) {
      this.#drainScheduled = true;
      setImmediate(() => this.#drainInTurn());
    }
  }

  #drainInTurn(): void {
    this.#drainScheduled = false;
    if (this.#over || this.#gatheredLength === 0) return;
    if (!this.#demand) {
      // Nobody reads: more may gather until somebody does, or the limit is reached.
      if (!this.#onDemand) this.#onDemand = () => this.#drainInTurn();
      return;
    }
    try {
      this.#handOver();
      this.#enqueueAll();
    } catch (error) {
      this.#fail(error);
    }
  }

  async #drainThen(next: () => void | Promise<void>): Promise<void> {
    if (this.#onDemand) this.#onDemand = undefined;
    this.#handOver();
    await this.#produce();
    if (!this.#over) await next();
  }

  #handOver(): void {
    const list = this.#inPlace ? this.#gathered : [this.#buffer!.subarray(0, this.#gatheredLength)];
    this.#gathered = [];
    this.#gatheredLength = 0;
    this.#cryptor.write(list);
  }

  /** Both sides end with `reason`; everything is released. */
  #fail(reason: unknown): void {
    if (this.#over) return;
    this.#finish();
    this.#writer.error(reason);
    this.#reader.error(reason);
    this.#pull();
  }

  #finish(): void {
    this.#over = true;
    this.#gathered = [];
    this.#gatheredLength = 0;
    this.#buffer?.fill(0);
    if (this.#onAbort) this.#signal!.removeEventListener("abort", this.#onAbort);
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
