/**
 * {@linkcode Secret}: key bytes with one owner, who disposes of them.
 *
 * @module
 */

import type { Bytes } from "./bytes.ts";
import { KcapiError } from "./errors.ts";

/** Zeroes the bytes of a dropped secret. The registry holds the memory, not the secret. */
const finalizer = new FinalizationRegistry<Bytes>((bytes) => bytes.fill(0));

/**
 * Key bytes that this module owns. They are zeroed by {@linkcode dispose}, or when the secret is garbage-collected.
 *
 * The memory is an ArrayBuffer from the start. V8 and JavaScriptCore keep the bytes of a short `new Uint8Array(n)` in
 * the JavaScript heap, and copy them out at the first native use. `fill(0)` then clears only the copy.
 *
 * A function that receives a `Secret` as an argument owns it and disposes of it, also when the call fails. Code that
 * only reads uses {@linkcode bytes} and does not keep them.
 */
export class Secret implements Disposable {
  #bytes: Bytes | undefined;

  private constructor(buffer: ArrayBuffer) {
    this.#bytes = new Uint8Array(buffer);
    finalizer.register(this, this.#bytes, this);
  }

  /** A secret of `length` zero bytes, to be filled through {@linkcode bytes}. */
  static alloc(length: number): Secret {
    return new Secret(new ArrayBuffer(length));
  }

  /** A secret of `length` random bytes. */
  static random(length: number): Secret {
    const secret = Secret.alloc(length);
    crypto.getRandomValues(secret.bytes);
    return secret;
  }

  /** A copy of `bytes`. */
  static from(bytes: Uint8Array): Secret {
    const secret = Secret.alloc(bytes.length);
    secret.bytes.set(bytes);
    return secret;
  }

  /** A secret over memory that another thread moved here with {@linkcode release}. */
  static adopt(buffer: ArrayBuffer): Secret {
    return new Secret(buffer);
  }

  get length(): number {
    return this.bytes.length;
  }

  /** The bytes themselves, valid until {@linkcode dispose}. */
  get bytes(): Bytes {
    if (!this.#bytes) throw new KcapiError("EBADF", "key", "the key was disposed of");
    return this.#bytes;
  }

  get isDisposed(): boolean {
    return this.#bytes === undefined;
  }

  /** A copy of its own, to be disposed of separately. */
  clone(start = 0, end = this.length): Secret {
    return Secret.from(this.bytes.subarray(start, end));
  }

  /** Gives the memory away, to be moved to another thread. The secret is disposed of without zeroing it. */
  release(): ArrayBuffer {
    const { buffer } = this.bytes;
    this.#forget();
    return buffer;
  }

  /** Zeroes the bytes. Disposing again does nothing. */
  dispose(): void {
    this.#bytes?.fill(0);
    this.#forget();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #forget(): void {
    finalizer.unregister(this);
    this.#bytes = undefined;
  }
}

/** Calls `use` with a secret, and then disposes of it. `using` does the same, but WebKit has no `Symbol.dispose`. */
export async function useSecret<T>(secret: Secret, use: (secret: Secret) => Promise<T> | T): Promise<T> {
  try {
    return await use(secret);
  } finally {
    secret.dispose();
  }
}
