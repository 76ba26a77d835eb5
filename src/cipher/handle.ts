/**
 * {@linkcode CipherHandle}: libkcapi's stream calls, which wait in JavaScript.
 *
 * @module
 */

import { checkSignal } from "../abort.ts";
import { type Algorithm, parseAlgorithm } from "../algorithms.ts";
import { ByteIterator } from "../streams/byte_iterator.ts";
import {
  type Bytes,
  type BytesLike,
  checkOverlap,
  cloneBytes,
  IovCursor,
  totalLength,
  toUint8Array,
} from "../bytes.ts";
import type { CipherEngineName, Direction, Engine } from "../engines/engine.ts";
import { type EngineChoice, openEngine } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import type { KernelKey } from "../keyring/kernel_key.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { TimeSlice } from "../time_slice.ts";
import { EngineStream } from "./engine_stream.ts";
import { checkEngine, checkIV, checkMaxBytes, checkPosition, ownKey, type StreamPosition } from "./options.ts";

/** Options of {@linkcode CipherHandle.open}. */
export interface CipherHandleOptions {
  /** The key, of a length that the algorithm accepts. It is copied. Or a key of the kernel's keyring. */
  key: BytesLike | KernelKey;
  /** The engine. `"auto"`, the default, uses the kernel if it supports the algorithm. */
  engine?: EngineChoice | undefined;
}

/** Options of {@linkcode CipherHandle.streamOp}. */
export interface StreamOpOptions {
  /** Ends the iterator with the signal's reason while it waits. The stream itself continues. */
  signal?: AbortSignal | undefined;
  /** The most bytes per chunk, at least the handle's `chunkSize`. By default all bytes that are ready. */
  maxBytes?: number | undefined;
}

/** An update that waits for room. */
interface PendingUpdate {
  readonly input: IovCursor;
  readonly last: boolean;
  readonly total: number;
  readonly resolve: (total: number) => void;
  readonly reject: (reason: unknown) => void;
}

/** One stream of a handle. */
interface Stream {
  /** The bytes of all updates, and whether the last update was called. */
  given: number;
  lastGiven: boolean;
  /** The error with which every call on the stream fails. */
  failure?: unknown;
}

/** The receiver: a call of `streamOpInto`, or an iterator of `streamOp` until it ends. */
interface Receiver {
  /** Called when bytes are ready, or the stream ended, failed or was closed. */
  wake: (() => void) | undefined;
}

const CONSTRUCT = Symbol("construct");

/** The engine of a handle, for the streams that use its key. */
export let engineOf: (handle: CipherHandle) => { engine: Engine; algorithm: Algorithm };

const OPEN_NAMES: OptionNames<CipherHandleOptions> = { key: true, engine: true };
const POSITION_NAMES: OptionNames<StreamPosition> = { position: true, counterBits: true };
const STREAM_OP_NAMES: OptionNames<StreamOpOptions> = { signal: true, maxBytes: true };

/**
 * A keyed cipher and the stream in progress on it: `struct kcapi_handle` and its calls, one to one.
 *
 * {@linkcode streamUpdate} sends bytes. {@linkcode streamOp} and {@linkcode streamOpInto} receive them, in the same
 * task or in another one. No call blocks the thread. The promise of an update without room waits until bytes are
 * received. The promise of a receiver waits until bytes are sent. So if a stream is longer than the window of 212,992
 * bytes, both sides must run at the same time.
 *
 * If the producer fails, it must call {@linkcode streamAbort}. Otherwise the consumer waits forever.
 *
 * An error of the engine, or a buffer that is detached while it waits, fails the stream: all pending and later calls
 * reject with that error, except {@linkcode close} and {@linkcode reinit}. If starting a stream fails, the handle is
 * unchanged.
 *
 * A handle belongs to the thread that opened it. Close it, or declare it with `using`.
 *
 * @example Usage
 * ```ts
 * import { CipherHandle } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * using handle = CipherHandle.open("ctr(aes)", { key: new Uint8Array(16) });
 * handle.streamInitEnc(new Uint8Array(16));
 * const produce = async () => {
 *   await handle.streamUpdate(new Uint8Array(1000));
 *   await handle.streamUpdateLast(new Uint8Array(24));
 * };
 * const producing = produce().catch((error) => handle.streamAbort(error)); // then the loop throws the error
 * let received = 0;
 * for await (const chunk of handle.streamOp()) received += chunk.length;
 * await producing;
 * assertEquals(received, 1024);
 * ```
 */
export class CipherHandle implements Disposable {
  readonly #algorithm: Algorithm;
  readonly #engine: Engine;
  readonly #flow: EngineStream;
  readonly #updates: PendingUpdate[] = [];
  readonly #slice = new TimeSlice(true);
  #receiver: Receiver | undefined;
  /** The stream in progress, or the last one. A receiver compares it after each wait. */
  #stream: Stream = { given: 0, lastGiven: false };
  #closed = false;

  /**
   * Use {@linkcode CipherHandle.open}.
   *
   * @ignore
   */
  constructor(token: symbol, engine: Engine, algorithm: Algorithm) {
    if (token !== CONSTRUCT) throw new TypeError("CipherHandle has no public constructor: use CipherHandle.open()");
    this.#algorithm = algorithm;
    this.#engine = engine;
    this.#flow = new EngineStream(engine, algorithm);
  }

  /**
   * Opens a cipher and sets its key: `kcapi_cipher_init` and `kcapi_cipher_setkey`.
   *
   * @param algorithm The kernel's name of the algorithm, such as `"cbc(aes)"`, or the name of a driver.
   * @param options The key and the engine.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the name or the key is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher. `hint` says what to do.
   */
  static open(algorithm: string, options: CipherHandleOptions): CipherHandle {
    const parsed = parseAlgorithm(algorithm);
    checkOptions("options", options, OPEN_NAMES);
    const engine = checkEngine(options.engine);
    const key = ownKey(parsed, options.key, engine);
    return new CipherHandle(CONSTRUCT, openEngine(parsed, key, engine), parsed);
  }

  /** The algorithm's name, as passed to {@linkcode open}. */
  get algorithm(): string {
    return this.#algorithm.name;
  }

  /** The engine that runs. */
  get engine(): CipherEngineName {
    return this.#engine.name;
  }

  /** The cipher's block size in bytes (`kcapi_cipher_blocksize`). 1 for stream ciphers. */
  get blockSize(): number {
    return this.#engine.blockSize;
  }

  /** The IV's length in bytes (`kcapi_cipher_ivsize`). 0 if the algorithm has no IV. */
  get ivSize(): number {
    return this.#engine.ivSize;
  }

  /** Before the end of a stream, output comes in multiples of this many bytes, such as 16 for `ctr(aes)`. */
  get chunkSize(): number {
    return this.#algorithm.chunkSize;
  }

  /**
   * Starts a stream that encrypts: `kcapi_cipher_stream_init_enc`.
   *
   * @param iv The IV, of `ivSize` bytes. None if that is 0. Never reuse an IV with the same key.
   * @param position Where the stream starts in the keystream, for counter modes.
   * @throws {KcapiError} EBUSY if the stream in progress was not received to its end. EBADF after `close()`.
   */
  streamInitEnc(iv?: BytesLike, position: StreamPosition = {}): void {
    this.#init("streamInitEnc", "encrypt", iv, position);
  }

  /**
   * Starts a stream that decrypts: `kcapi_cipher_stream_init_dec`.
   *
   * @param iv The IV that the data was encrypted with. None if `ivSize` is 0.
   * @param position Where the stream starts in the keystream, for counter modes.
   * @throws {KcapiError} EBUSY if the stream in progress was not received to its end. EBADF after `close()`.
   */
  streamInitDec(iv?: BytesLike, position: StreamPosition = {}): void {
    this.#init("streamInitDec", "decrypt", iv, position);
  }

  /**
   * Sends bytes: `kcapi_cipher_stream_update` with the arguments as its input buffers (iovec).
   *
   * @returns The number of bytes, when all are copied. Then the buffers are the caller's again, unchanged. Until then,
   * the promise waits for a receiver.
   */
  async streamUpdate(...buffers: BytesLike[]): Promise<number> {
    return await this.#update("streamUpdate", buffers, false);
  }

  /**
   * Sends the last bytes of the stream, if any: `kcapi_cipher_stream_update_last`.
   *
   * @returns The number of bytes, when all are copied.
   * @throws {RangeError} If the mode needs whole blocks, and the stream would end with a partial block. The stream is
   * unchanged, and the caller can send the right end.
   */
  async streamUpdateLast(...buffers: BytesLike[]): Promise<number> {
    return await this.#update("streamUpdateLast", buffers, true);
  }

  /**
   * Receives the stream: `kcapi_cipher_stream_op` in a loop, until all bytes are received.
   *
   * Waits while no bytes are ready, and ends after the last bytes. Bytes are taken from the engine only when they are
   * delivered. If the loop ends early, no byte is lost, and a later `streamOp()` continues.
   *
   * @throws {KcapiError} EINVAL if no stream was started, EBUSY if another receiver is active, EBADF after `close()`.
   */
  streamOp(options: StreamOpOptions = {}): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    this.#assertStarted("streamOp");
    this.#assertNoReceiver("streamOp");
    checkOptions("options", options, STREAM_OP_NAMES);
    const { signal, maxBytes = Infinity } = options;
    checkMaxBytes(maxBytes, this.chunkSize);
    checkSignal(signal);
    return this.#iterate(maxBytes, signal);
  }

  /**
   * Receives into memory of the caller: one `kcapi_cipher_stream_op` with the arguments as its output buffers (iovec).
   *
   * Waits until at least one chunk (see `chunkSize`) is ready. Fills the buffers in order with the whole chunks that
   * are ready and fit. Only the end of the stream may be shorter.
   *
   * @returns The number of bytes written. 0 after the end of the stream.
   * @throws {RangeError} If the buffers overlap, or have room for less than one chunk.
   */
  async streamOpInto(...buffers: BytesLike[]): Promise<number> {
    const list = this.#listOf("streamOpInto", buffers);
    this.#assertNoReceiver("streamOpInto");
    const room = totalLength(list);
    if (room < this.chunkSize) {
      throw new RangeError(`"buffers" expected room for at least one chunk of ${this.chunkSize} bytes, got ${room}`);
    }
    if (list.length > 1) checkOverlap(list);
    const stream = this.#stream;
    const receiver: Receiver = { wake: undefined };
    let pause = this.#pauseOf(receiver);
    if (pause) {
      this.#receiver = receiver;
      try {
        for (; pause; pause = this.#pauseOf(receiver)) {
          await pause;
          this.#assertAlive("streamOpInto", stream);
          // The stream was received to its end, and another one was started before this call resumed.
          if (this.#stream !== stream) return 0;
        }
      } finally {
        if (this.#receiver === receiver) this.#receiver = undefined;
      }
      if (totalLength(list) !== room) throw new TypeError("A buffer was detached while it waited to be filled");
    }
    const flow = this.#flow;
    const length = flow.fit(room);
    if (length === 0) return 0;
    this.#receive(() => flow.receive(length === room ? list : new IovCursor(list).peek(length)));
    return length;
  }

  /**
   * Ends the stream in progress with an error, for a producer that fails. Pending and later updates and receivers
   * reject with `reason`, so that a truncated stream never looks complete. Bytes that were not received are dropped.
   * Then the handle can start another stream. Does nothing if no stream is in progress, if the stream has already
   * failed, or after `close()`.
   *
   * @param reason The error of the calls. By default a KcapiError ECANCELED.
   */
  streamAbort(reason?: unknown): void {
    if (this.#closed || !this.#flow.busy || this.#stream.failure !== undefined) return;
    this.#fail(reason ?? new KcapiError("ECANCELED", "streamAbort", "the stream was aborted"));
    try {
      this.#flow.abandon();
    } catch {
      // The engine failed, too. The stream keeps the first error.
    }
  }

  /**
   * Opens another handle with the same key and its own stream: `kcapi_handle_reinit`. Close each of the two.
   *
   * @throws {KcapiError} EBADF after `close()`. EMFILE if the process has no descriptors left.
   */
  reinit(): CipherHandle {
    this.#assertOpen("reinit");
    return new CipherHandle(CONSTRUCT, this.#engine.reinit(), this.#algorithm);
  }

  /**
   * Releases the handle at once: `kcapi_cipher_destroy`. Pending calls reject with KcapiError ECANCELED, so that a
   * truncated stream never looks complete. Closing again does nothing.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#flow.close();
    this.#rejectAll(() => new KcapiError("ECANCELED", "close", "the handle was closed"));
  }

  /** The same as {@linkcode close}. */
  [Symbol.dispose](): void {
    this.close();
  }

  #init(operation: string, direction: Direction, iv: BytesLike | undefined, position: StreamPosition): void {
    this.#assertOpen(operation);
    checkOptions("position", position, POSITION_NAMES);
    const checked = checkIV(this.#algorithm, iv, this.#engine.ivSize, operation);
    const { algorithm, ...start } = checkPosition(this.#algorithm, checked, position);
    if (this.#flow.busy) {
      if (this.#stream.failure !== undefined) throw this.#stream.failure;
      throw new KcapiError("EBUSY", operation, "the stream in progress was not received to its end", {
        hint: "receive it, or use a reinit() of this handle",
      });
    }
    // If this fails, the handle is unchanged.
    this.#flow.start({ direction, iv: checked && cloneBytes(checked), ...start }, algorithm);
    this.#receiver = undefined;
    this.#stream = { given: 0, lastGiven: false };
  }

  #update(operation: string, buffers: BytesLike[], last: boolean): number | Promise<number> {
    const input = new IovCursor(this.#listOf(operation, buffers));
    const stream = this.#stream;
    if (stream.lastGiven) throw new KcapiError("EINVAL", operation, "the last update of this stream was already sent");
    const total = input.remaining;
    if (last) this.#checkBlocks(total);
    stream.given += total;
    stream.lastGiven = last;
    if (this.#updates.length === 0 && this.#guard(() => this.#flow.send(input, last))) {
      this.#wake();
      return total;
    }
    this.#wake();
    return new Promise((resolve, reject) => this.#updates.push({ input, last, total, resolve, reject }));
  }

  #checkBlocks(total: number): void {
    const { kind, blockSize = this.blockSize } = this.#algorithm;
    const rest = (this.#stream.given + total) % blockSize;
    if (kind === "stream" && rest !== 0) {
      throw new RangeError(
        `The stream expected whole blocks of ${blockSize} bytes, got ${rest} bytes too many: ` +
          "pad them, or send the right end",
      );
    }
  }

  /** Receives by `take`, then sends the updates that waited for room. */
  #receive<T>(take: () => T): T {
    const taken = this.#guard(take);
    while (this.#updates.length > 0) {
      const { input, last, total, resolve, reject } = this.#updates[0]!;
      try {
        input.verify();
        if (!this.#flow.send(input, last)) break;
        resolve(total);
      } catch (error) {
        reject(error);
        this.#fail(error);
      }
      this.#updates.shift();
    }
    return taken;
  }

  #iterate(maxBytes: number, signal: AbortSignal | undefined): AsyncIterableIterator<Bytes> {
    const flow = this.#flow;
    const stream = this.#stream;
    const receiver: Receiver = { wake: undefined };
    let ended = false;
    const wake = () => receiver.wake?.();
    const end = () => {
      ended = true;
      if (this.#receiver === receiver) this.#receiver = undefined;
      wake();
    };
    const receive = async (): Promise<Bytes | undefined> => {
      while (!ended) {
        signal?.throwIfAborted();
        if (stream.failure !== undefined) throw stream.failure;
        if (this.#stream !== stream) break; // another stream was started
        this.#assertStarted("streamOp");
        if (flow.done) break;
        if (this.#receiver !== receiver) this.#assertNoReceiver("streamOp");
        this.#receiver = receiver;
        const pause = this.#pauseOf(receiver);
        if (!pause) {
          const length = flow.fit(maxBytes);
          return this.#receive(() => flow.take(length));
        }
        // Only while it waits, so that a long-lived signal does not keep a dropped iterator in memory.
        signal?.addEventListener("abort", wake);
        await pause.finally(() => signal?.removeEventListener("abort", wake));
        if (!ended) this.#assertAlive("streamOp", stream);
      }
      end();
      return undefined;
    };
    return new ByteIterator(() =>
      receive().catch((error) => {
        end();
        throw error;
      }), end);
  }

  /** The promise that a receiver waits for: bytes are ready, or a turn of the event loop. */
  #pauseOf(receiver: Receiver): Promise<void> | undefined {
    if (this.#flow.ready === 0 && !this.#flow.done) return this.#wait(receiver);
    return this.#slice.over ? this.#slice.next() : undefined;
  }

  #wait(receiver: Receiver): Promise<void> {
    return new Promise<void>((resolve) => receiver.wake = resolve).finally(() => receiver.wake = undefined);
  }

  /** Rule F7: called after each wait, with no other microtask in between, because the handle may be closed by then. */
  #assertAlive(operation: string, stream: Stream): void {
    if (stream.failure !== undefined) throw stream.failure;
    if (this.#closed && this.#stream === stream) {
      throw new KcapiError("ECANCELED", operation, "the handle was closed");
    }
  }

  #wake(): void {
    if (this.#flow.ready > 0 || this.#flow.done) this.#receiver?.wake?.();
  }

  /** Runs a call of the engine. If it fails, the stream fails. */
  #guard<T>(action: () => T): T {
    try {
      return action();
    } catch (error) {
      this.#fail(error);
      throw error;
    }
  }

  #fail(error: unknown): void {
    this.#stream.failure = error;
    this.#rejectAll(() => error);
  }

  #rejectAll(reason: () => unknown): void {
    for (const { reject } of this.#updates.splice(0)) reject(reason());
    this.#receiver?.wake?.();
  }

  #assertOpen(operation: string): void {
    if (this.#closed) throw new KcapiError("EBADF", operation, "the handle is closed");
  }

  #assertStarted(operation: string): void {
    this.#assertOpen(operation);
    if (this.#stream.failure !== undefined) throw this.#stream.failure;
    if (!this.#flow.started) {
      throw new KcapiError("EINVAL", operation, "no stream was started", {
        hint: "call streamInitEnc or streamInitDec",
      });
    }
  }

  /** Checks the arguments of a call on a stream. Checks the state again, because their getters may close the handle. */
  #listOf(operation: string, buffers: readonly BytesLike[]): readonly Bytes[] {
    this.#assertStarted(operation);
    const list = buffers.map((buffer, i) => toUint8Array(`buffers[${i}]`, buffer));
    this.#assertStarted(operation);
    return list;
  }

  #assertNoReceiver(operation: string): void {
    if (this.#receiver) throw new KcapiError("EBUSY", operation, "another receiver is active on this stream");
  }

  static {
    engineOf = (handle) => {
      handle.#assertOpen("reinit");
      return { engine: handle.#engine, algorithm: handle.#algorithm };
    };
  }
}
