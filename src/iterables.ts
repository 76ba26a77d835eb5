/**
 * {@linkcode encrypt} and {@linkcode decrypt}: one call for bytes in hand, and for anything iterable.
 *
 * @module
 */

import { onAbort } from "./abort.ts";
import { ByteIterator } from "./byte_iterator.ts";
import { bytesOf, describe } from "./bytes.ts";
import { type CipherStreamOptions, type Cryptor, prepare, type Prepared } from "./cryptor.ts";
import type { Bytes, Direction, EngineName } from "./engines/engine.ts";
import { KcapiError } from "./errors.ts";
import { TimeSlice } from "./time_slice.ts";

/** What {@linkcode encrypt} and {@linkcode decrypt} take bytes from. */
export type ByteSource =
  | BufferSource
  | Iterable<BufferSource>
  | AsyncIterable<BufferSource>
  | ReadableStream<BufferSource>;

/** The output of {@linkcode encrypt} or {@linkcode decrypt}: iterable once. */
export interface CipherIterable extends AsyncIterableIterator<Uint8Array<ArrayBuffer>>, AsyncDisposable {
  /** The engine that really runs; reading this opens the cipher. */
  readonly engine: EngineName;
  /** Releases the cipher, and returns or cancels the source. */
  return(): Promise<IteratorResult<Uint8Array<ArrayBuffer>, undefined>>;
  /** The iterable is its own iterator. */
  [Symbol.asyncIterator](): this;
}

/**
 * Encrypts bytes.
 *
 * The options are checked and copied at once; the cipher is opened by the first `next()` and released at the end, by
 * `break`, and by an error on either side.
 *
 * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
 * @param options The key, the IV, and how to use them.
 * @param source Bytes, or something that yields them.
 * @returns The ciphertext, in pieces of at most a window of 212,992 bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key, the IV or a size is of a wrong length.
 *
 * @example Usage
 * ```ts
 * import { decrypt, encrypt } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { key: new Uint8Array(16).fill(1), iv: new Uint8Array(16).fill(2) };
 * const ciphertext = encrypt("ctr(aes)", options, new Uint8Array([1, 2, 3]));
 * const plaintext = decrypt("ctr(aes)", options, ciphertext);
 * assertEquals(await Array.fromAsync(plaintext), [new Uint8Array([1, 2, 3])]);
 * ```
 */
export function encrypt(algorithm: string, options: CipherStreamOptions, source: ByteSource): CipherIterable {
  return new CipherIterator(new Crypt("encrypt", algorithm, options, source));
}

/**
 * Decrypts bytes: the inverse of {@linkcode encrypt}. Nothing is authenticated; output is unverified.
 *
 * @param algorithm The kernel's name of it, such as `"cbc(aes)"`, or a driver's.
 * @param options The key and the IV the data was encrypted with.
 * @param source Bytes, or something that yields them.
 * @returns The plaintext, in pieces of at most a window of 212,992 bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key, the IV or a size is of a wrong length.
 *
 * @example Usage
 * ```ts
 * import { decrypt } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * // NIST SP 800-38A, F.1.2
 * const key = Uint8Array.fromHex("2b7e151628aed2a6abf7158809cf4f3c");
 * const ciphertext = Uint8Array.fromHex("3ad77bb40d7a3660a89ecaf32466ef97");
 * for await (const chunk of decrypt("ecb(aes)", { key, padding: "none" }, ciphertext)) {
 *   assertEquals(chunk.toHex(), "6bc1bee22e409f96e93d7e117393172a");
 * }
 * ```
 */
export function decrypt(algorithm: string, options: CipherStreamOptions, source: ByteSource): CipherIterable {
  return new CipherIterator(new Crypt("decrypt", algorithm, options, source));
}

/** Where input comes from; `end` tells the source that no more is wanted. */
interface Input {
  next(): Promise<IteratorResult<unknown>> | IteratorResult<unknown>;
  end(): unknown;
}

class CipherIterator extends ByteIterator implements CipherIterable {
  readonly #crypt: Crypt;

  constructor(crypt: Crypt) {
    super(() => crypt.receive(), () => crypt.end());
    this.#crypt = crypt;
  }

  get engine(): EngineName {
    return this.#crypt.opened().engine;
  }
}

/** One encryption or decryption of a source. */
class Crypt {
  readonly #prepared: Prepared;
  readonly #open: () => Input;
  #input: Input | undefined;
  #cryptor: Cryptor | undefined;
  #inputEnded = false;
  #over = false;
  /** The signal was aborted, and nobody has been told. */
  #aborted: { readonly reason: unknown } | undefined;
  /** Ends the wait for the source. */
  #interrupt: (() => void) | undefined;
  #stopListening = (): void => {};
  readonly #slice = new TimeSlice();

  constructor(direction: Direction, algorithm: string, options: CipherStreamOptions, source: ByteSource) {
    this.#open = inputOf(source);
    if (typeof algorithm !== "string") {
      throw new TypeError(`"algorithm" expected a string, got ${describe(algorithm)}`);
    }
    this.#prepared = prepare(direction, algorithm, options);
    this.#stopListening = onAbort(this.#prepared.signal, this, Crypt.#abort);
  }

  static #abort(crypt: Crypt, reason: unknown): void {
    if (crypt.#over) return;
    crypt.#aborted = { reason };
    crypt.#leave();
  }

  /** The next output, or undefined at the end. */
  async receive(): Promise<Bytes | undefined> {
    try {
      while (!this.#over) {
        const cryptor = this.opened();
        if (this.#slice.over) await this.#slice.next();
        else if (cryptor.pending) {
          const output = cryptor.read();
          if (output) return output;
        } else if (this.#inputEnded) this.#release();
        else await this.#refill(cryptor);
      }
    } catch (error) {
      this.#leave();
      throw error;
    }
    const aborted = this.#aborted;
    this.#aborted = undefined;
    if (aborted) throw aborted.reason;
    return undefined;
  }

  /** Releases the cipher, and ends the source. */
  async end(): Promise<void> {
    const isWaiting = this.#interrupt !== undefined;
    this.#aborted = undefined;
    const ended = this.#release() && this.#endInput();
    this.#interrupt?.();
    // A source that is asked for bytes may answer this only afterwards, which may be never.
    if (!isWaiting) await ended;
  }

  opened(): Cryptor {
    if (!this.#cryptor) {
      if (this.#over) throw new KcapiError("EBADF", "engine", "the iterable was closed before it was opened");
      this.#cryptor = this.#prepared.open();
      this.#input = this.#open();
    }
    return this.#cryptor;
  }

  async #refill(cryptor: Cryptor): Promise<void> {
    const result = await new Promise<IteratorResult<unknown> | undefined>((resolve, reject) => {
      this.#interrupt = () => resolve(undefined);
      this.#nextInput().then(resolve, reject);
    }).finally(() => this.#interrupt = undefined);
    if (this.#over) return;
    if (typeof result !== "object" || result === null) {
      throw new TypeError(`"source" expected an iterator that gives objects, got ${describe(result)}`);
    }
    if (result.done) {
      this.#inputEnded = true;
      cryptor.end();
    } else {
      cryptor.write([bytesOf("source", result.value)]);
    }
  }

  async #nextInput(): Promise<IteratorResult<unknown>> {
    try {
      return await this.#input!.next();
    } catch (error) {
      this.#inputEnded = true;
      throw error;
    }
  }

  /** Releases the cipher. Returns whether there is a source that has more, and is to be told. */
  #release(): boolean {
    if (this.#over) return false;
    this.#over = true;
    this.#stopListening();
    this.#prepared.discard();
    this.#cryptor?.close();
    return !this.#inputEnded;
  }

  #endInput(): unknown {
    this.#input ??= this.#open();
    return this.#input.end();
  }

  /** Ends all for a reason that matters more than what the source says to its end. */
  #leave(): void {
    if (this.#release()) (async () => await this.#endInput())().catch(() => {});
    this.#interrupt?.();
  }
}

/** How to read `source`, once it is time to. */
function inputOf(source: ByteSource): () => Input {
  if (ArrayBuffer.isView(source) || source instanceof ArrayBuffer) {
    const bytes = bytesOf("source", source);
    return () => iterate([bytes][Symbol.iterator]());
  }
  if (source instanceof ReadableStream) {
    if (source.locked) throw new TypeError('"source" is a ReadableStream that is locked');
    return () => {
      const reader = source.getReader();
      return { next: () => reader.read() as Promise<IteratorResult<unknown>>, end: () => reader.cancel() };
    };
  }
  if (typeof source === "object" && source !== null) {
    if (Symbol.asyncIterator in source) return () => iterate(source[Symbol.asyncIterator]());
    if (Symbol.iterator in source) return () => iterate(source[Symbol.iterator]());
  }
  throw new TypeError(`"source" expected bytes, or an iterable or a ReadableStream of them, got ${describe(source)}`);
}

function iterate(iterator: Iterator<unknown> | AsyncIterator<unknown>): Input {
  return { next: () => iterator.next(), end: () => iterator.return?.() };
}
