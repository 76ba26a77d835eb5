/**
 * {@linkcode CipherHandle}: libkcapi's stream calls, with the waiting done in JavaScript.
 *
 * @module
 */

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
import { checkEngine, checkIV, checkSignal, ownKey } from "./options.ts";

/** Options of {@linkcode CipherHandle.open}. */
export interface CipherHandleOptions {
  /**
   * The key, as long as the algorithm asks for: a copy is taken, and zeroed once it is of no more use. Or one in the
   * kernel's keyring, which never enters this process.
   */
  key: BytesLike | KernelKey;
  /** Which engine to use; `"auto"`, the default, takes the kernel where it can serve the algorithm. */
  engine?: EngineChoice | undefined;
}

/** Options of {@linkcode CipherHandle.streamOp}. */
export interface StreamOpOptions {
  /** Ends the iterator's waiting with the signal's reason; the stream itself is not touched. */
  signal?: AbortSignal | undefined;
  /** The most bytes per chunk, at least the handle's `chunkSize`. By default all that is ready. */
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
  /** Bytes given to updates, and whether the last update was given. */
  given: number;
  lastGiven: boolean;
  /** Why every call on the stream fails, if it does. */
  failure?: unknown;
}

/** Who receives: `streamOpInto` for the time of one call, an iterator of `streamOp` until it ends. */
interface Receiver {
  /** Called when there is something to receive, or the stream ended, failed or was closed. */
  wake: (() => void) | undefined;
}

const CONSTRUCT = Symbol("construct");

/** The engine behind a handle, for the streams that are made from it. */
export let engineOf: (handle: CipherHandle) => { engine: Engine; algorithm: Algorithm };

const OPEN_NAMES: OptionNames<CipherHandleOptions> = { key: true, engine: true };
const STREAM_OP_NAMES: OptionNames<StreamOpOptions> = { signal: true, maxBytes: true };

/**
 * A keyed cipher and the stream in progress on it: `struct kcapi_handle` and the calls on it, one to one.
 *
 * Data is sent by {@linkcode streamUpdate} and received by {@linkcode streamOp} or {@linkcode streamOpInto}, from
 * the same task or from different ones. No call ever blocks the thread: an update that finds no room waits, as a
 * promise, until something is received; a receiver waits until something is sent. So the two sides of a stream
 * longer than the window of 212,992 bytes must run at the same time.
 *
 * A producer that fails calls {@linkcode streamAbort}, or the consumer waits forever. The `producing` of the example
 * never rejects: if the loop throws first, closing the handle ends the producer, too.
 *
 * An error of the engine, or a buffer that is detached while it waits, fails the stream: everything pending and
 * everything later rejects with that error, and only {@linkcode close} and {@linkcode reinit} are of use. If starting a
 * stream fails, the handle stays as it was.
 *
 * A handle belongs to the thread that made it. Close it, or declare it with `using`.
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
 * const producing = produce().catch((error) => handle.streamAbort(error)); // the loop throws the error
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
  readonly #slice = new TimeSlice();
  #receiver: Receiver | undefined;
  /** The stream in progress or the last one: a receiver that waited compares it with its own. */
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
   * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
   * @param options The key, and which engine to use.
   * @throws {TypeError} If an argument is of a wrong type.
   * @throws {RangeError} If the name or the key is of a wrong length.
   * @throws {KcapiError} If the engine cannot open the cipher; `hint` tells what would change that.
   */
  static open(algorithm: string, options: CipherHandleOptions): CipherHandle {
    const parsed = parseAlgorithm(algorithm);
    checkOptions("options", options, OPEN_NAMES);
    const engine = checkEngine(options.engine);
    const key = ownKey(parsed, options.key, engine);
    return new CipherHandle(CONSTRUCT, openEngine(parsed, key, engine), parsed);
  }

  /** The algorithm's name, as it was given. */
  get algorithm(): string {
    return this.#algorithm.name;
  }

  /** The engine that really runs. */
  get engine(): CipherEngineName {
    return this.#engine.name;
  }

  /** The cipher's block size in bytes: `kcapi_cipher_blocksize`; 1 for stream ciphers. */
  get blockSize(): number {
    return this.#engine.blockSize;
  }

  /** The IV's length in bytes: `kcapi_cipher_ivsize`; 0 where there is none. */
  get ivSize(): number {
    return this.#engine.ivSize;
  }

  /** The bytes in which output comes before the end of the stream, such as 16 for `ctr(aes)`. */
  get chunkSize(): number {
    return this.#algorithm.chunkSize;
  }

  /**
   * Starts a stream that encrypts: `kcapi_cipher_stream_init_enc`.
   *
   * @param iv The IV, `ivSize` bytes; none where that is 0. Never use one twice with the same key.
   * @throws {KcapiError} EBUSY before everything of the stream in progress was received; EBADF after `close()`.
   */
  streamInitEnc(iv?: BytesLike): void {
    this.#init("streamInitEnc", "encrypt", iv);
  }

  /**
   * Starts a stream that decrypts: `kcapi_cipher_stream_init_dec`.
   *
   * @param iv The IV the data was encrypted with; none where `ivSize` is 0.
   * @throws {KcapiError} EBUSY before everything of the stream in progress was received; EBADF after `close()`.
   */
  streamInitDec(iv?: BytesLike): void {
    this.#init("streamInitDec", "decrypt", iv);
  }

  /**
   * Sends bytes: `kcapi_cipher_stream_update` with the arguments as its scatter list.
   *
   * @returns Their total, once all are copied: then the buffers are the caller's again, unchanged. Until then the
   * promise waits for someone to receive.
   */
  async streamUpdate(...buffers: BytesLike[]): Promise<number> {
    return await this.#update("streamUpdate", buffers, false);
  }

  /**
   * Sends the last bytes of the stream, if any: `kcapi_cipher_stream_update_last`.
   *
   * @returns Their total, once all are copied.
   * @throws {RangeError} If the stream would not be whole blocks, in a mode that works in them. The stream is
   * unchanged, and the right end may still be sent.
   */
  async streamUpdateLast(...buffers: BytesLike[]): Promise<number> {
    return await this.#update("streamUpdateLast", buffers, true);
  }

  /**
   * Receives the stream: `kcapi_cipher_stream_op` in a loop, until all of it is received.
   *
   * Waits while nothing is ready, and ends after the last bytes. Bytes are taken from the engine only when they are
   * delivered: a loop that is left early loses none, and a later `streamOp()` goes on with them.
   *
   * @throws {KcapiError} EINVAL if no stream was started, EBUSY if another receiver is at work, EBADF after `close()`.
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
   * Receives into memory of the caller: one `kcapi_cipher_stream_op` with the arguments as its gather list.
   *
   * Waits until at least one chunk is ready. Fills whole chunks (see `chunkSize`) as far as there are any and room
   * for them; only the end of the stream may be shorter.
   *
   * @returns How many bytes were written, entry by entry; 0 when everything was received.
   * @throws {RangeError} If the entries overlap, or have room for less than one chunk.
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
   * Ends the stream in progress with an error, for a producer that fails: pending and later updates and receivers
   * reject with `reason`, so that a stream cut short never looks ended. Bytes that were not received are dropped.
   *
   * Then the handle can start another stream. Does nothing if no stream is in progress, if it has failed already, or
   * after `close()`: it is safe to call wherever an error is caught, as in the example of this class.
   *
   * @param reason What the calls reject with; by default a KcapiError ECANCELED.
   */
  streamAbort(reason?: unknown): void {
    if (this.#closed || !this.#flow.busy || this.#stream.failure !== undefined) return;
    this.#fail(reason ?? new KcapiError("ECANCELED", "streamAbort", "the stream was aborted"));
    try {
      this.#flow.abandon();
    } catch {
      // As after any other error of the engine: the stream has failed for good, with the first error as the reason.
    }
  }

  /**
   * A handle with the same key and a stream of its own: `kcapi_handle_reinit`. Each of the two is closed for itself.
   *
   * @throws {KcapiError} EBADF after `close()`; EMFILE where the process has no descriptors left.
   */
  reinit(): CipherHandle {
    this.#assertOpen("reinit");
    return new CipherHandle(CONSTRUCT, this.#engine.reinit(), this.#algorithm);
  }

  /**
   * Releases the handle at once: `kcapi_cipher_destroy`. What is pending rejects with KcapiError ECANCELED, so that a
   * stream cut short never looks ended. Closing again does nothing.
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

  #init(operation: string, direction: Direction, iv: BytesLike | undefined): void {
    this.#assertOpen(operation);
    const checked = checkIV(this.#algorithm, iv, this.#engine.ivSize, operation);
    if (this.#flow.busy) {
      if (this.#stream.failure !== undefined) throw this.#stream.failure;
      throw new KcapiError("EBUSY", operation, "the stream in progress was not received to its end", {
        hint: "receive it, or use a reinit() of this handle",
      });
    }
    // If this fails, the handle stays as it was.
    this.#flow.start({ direction, iv: checked && cloneBytes(checked) });
    this.#receiver = undefined;
    this.#stream = { given: 0, lastGiven: false };
  }

  #update(operation: string, buffers: BytesLike[], last: boolean): number | Promise<number> {
    const input = new IovCursor(this.#listOf(operation, buffers));
    const stream = this.#stream;
    if (stream.lastGiven) throw new KcapiError("EINVAL", operation, "the last update of this stream was given");
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

  /** Receives by `take`, then sends what waits for the room it made. */
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
        // Only while it waits: a signal that lives on must not keep an iterator that was dropped.
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

  /** What a receiver waits for before it receives: that something is ready, or a turn of the event loop. */
  #pauseOf(receiver: Receiver): Promise<void> | undefined {
    if (this.#flow.ready === 0 && !this.#flow.done) return this.#wait(receiver);
    return this.#slice.over ? this.#slice.next() : undefined;
  }

  #wait(receiver: Receiver): Promise<void> {
    return new Promise<void>((resolve) => receiver.wake = resolve).finally(() => receiver.wake = undefined);
  }

  /** Rule F7: for after each wait, with no other microtask in between. Meanwhile anything may have happened. */
  #assertAlive(operation: string, stream: Stream): void {
    if (stream.failure !== undefined) throw stream.failure;
    if (this.#closed && this.#stream === stream) {
      throw new KcapiError("ECANCELED", operation, "the handle was closed");
    }
  }

  #wake(): void {
    if (this.#flow.ready > 0 || this.#flow.done) this.#receiver?.wake?.();
  }

  /** Runs what may fail in the engine; then the stream is over. */
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

  /** The arguments of a call on a stream. A getter of theirs may do what it likes with the handle. */
  #listOf(operation: string, buffers: readonly BytesLike[]): readonly Bytes[] {
    this.#assertStarted(operation);
    const list = buffers.map((buffer, i) => toUint8Array(`buffers[${i}]`, buffer));
    this.#assertStarted(operation);
    return list;
  }

  #assertNoReceiver(operation: string): void {
    if (this.#receiver) throw new KcapiError("EBUSY", operation, "another receiver is at work on this stream");
  }

  static {
    engineOf = (handle) => {
      handle.#assertOpen("reinit");
      return { engine: handle.#engine, algorithm: handle.#algorithm };
    };
  }
}

function checkMaxBytes(maxBytes: unknown, chunkSize: number): void {
  if (typeof maxBytes !== "number") throw new TypeError(`"maxBytes" expected a number, got ${typeof maxBytes}`);
  if (maxBytes !== Infinity && !Number.isSafeInteger(maxBytes) || maxBytes < chunkSize) {
    throw new RangeError(`"maxBytes" expected an integer of at least ${chunkSize}, got ${maxBytes}`);
  }
}
