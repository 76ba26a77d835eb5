/**
 * The option `ivPrefix`: encryption generates a random IV and puts it in front of the ciphertext, decryption reads it
 * from there.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import { ByteQueue } from "../byte_queue.ts";
import { type Bytes, cloneBytes, IovCursor } from "../bytes.ts";
import type { EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { Transform } from "../streams/transform.ts";
import { type CipherPlan, createBadMessageError } from "./cipher_transform.ts";
import { checkBoolean } from "../options.ts";

/** A cipher that is open, but has no IV yet. */
export interface CipherWithoutIV {
  readonly engine: EngineName;
  readonly ivSize: number;
  /** Starts the stream, which becomes the owner of the cipher, also if this fails. */
  start(iv: Bytes): Transform;
  /** Releases the cipher. Only if no stream was started. */
  close(): void;
}

/**
 * Checks the option `ivPrefix`, and the options that exclude it.
 *
 * @returns Whether the IV is in front of the ciphertext.
 * @throws {TypeError} If it is not a boolean, if another option sets the IV, or if the algorithm is known to have none.
 */
export function checkIVPrefix(
  { name, mode, ivSize }: Algorithm,
  options: { ivPrefix?: unknown; iv?: unknown; sectorSize?: unknown; sector?: unknown; position?: unknown },
): boolean {
  const { ivPrefix = false, iv, sectorSize, sector, position } = options;
  checkBoolean("ivPrefix", ivPrefix);
  if (!ivPrefix) return false;
  if (iv !== undefined) throw new TypeError('"ivPrefix" and "iv" exclude each other: give one of them');
  if (sectorSize !== undefined || sector !== undefined) {
    throw new TypeError('"ivPrefix" expected no "sectorSize" and no "sector": the IV of a sector is its number');
  }
  if (position !== undefined) {
    throw new TypeError(
      '"ivPrefix" expected no "position": read the IV from the front of the ciphertext, give it as "iv"',
    );
  }
  if (ivSize === 0) throw new TypeError(noIV(name));
  // crypto/keywrap.c makes the IV itself, and AF_ALG does not return it, so the output could not be decrypted.
  if (mode === "kw") throw new TypeError(`"ivPrefix" expected another algorithm than ${name}, which makes its own IV`);
  return true;
}

function noIV(name: string): string {
  return `"ivPrefix" expected an algorithm with an IV: ${name} has no IV`;
}

/**
 * The stream of a cipher, with the IV in front of the ciphertext.
 *
 * @param cipher Owned by the stream, also if this fails.
 * @throws {KcapiError} EINVAL if the cipher has no IV.
 */
export function withIVPrefix({ direction, algorithm }: CipherPlan, cipher: CipherWithoutIV): Transform {
  if (cipher.ivSize === 0) {
    cipher.close();
    throw new KcapiError("EINVAL", "stream_init", noIV(algorithm.name));
  }
  return direction === "encrypt" ? new IVWriter(cipher, randomIV(algorithm, cipher.ivSize)) : new IVReader(cipher);
}

/** A random IV. A block counter in it starts at 0, because a random counter could reach its end, 2^32, at any time. */
function randomIV({ kind, counter }: Algorithm, ivSize: number): Bytes {
  const iv = crypto.getRandomValues(new Uint8Array(ivSize));
  if (kind === "counter") iv.fill(0, counter!.offset, counter!.offset + counter!.size!);
  return iv;
}

/** Returns the IV before the first output. */
class IVWriter implements Transform {
  readonly engine: EngineName;
  readonly #inner: Transform;
  /** The IV, until it was read. */
  #iv: Bytes | undefined;

  constructor(cipher: CipherWithoutIV, iv: Bytes) {
    this.#inner = cipher.start(cloneBytes(iv)); // a copy, because the reader becomes the owner of the other one
    this.#iv = iv;
    this.engine = cipher.engine;
  }

  get pending(): boolean {
    return this.#inner.pending;
  }

  get progress(): Promise<void> | undefined {
    return this.#inner.progress;
  }

  pass(bytes: Bytes): Bytes | undefined {
    return this.#iv ? undefined : this.#inner.pass?.(bytes);
  }

  write(list: readonly Bytes[]): void {
    this.#inner.write(list);
  }

  end(): void {
    this.#inner.end();
  }

  read(): Bytes | undefined {
    const iv = this.#iv;
    this.#iv = undefined;
    return iv ?? this.#inner.read();
  }

  close(): void {
    this.#inner.close();
  }
}

/** Reads the IV from the front of the input, and then starts the cipher. */
class IVReader implements Transform {
  readonly engine: EngineName;
  readonly #front: ByteQueue;
  /** The cipher, until it was started. */
  #cipher: CipherWithoutIV | undefined;
  #inner: Transform | undefined;
  #input: IovCursor | undefined;

  constructor(cipher: CipherWithoutIV) {
    this.engine = cipher.engine;
    this.#cipher = cipher;
    this.#front = new ByteQueue(cipher.ivSize);
  }

  get pending(): boolean {
    return this.#input !== undefined || (this.#inner?.pending ?? false);
  }

  get progress(): Promise<void> | undefined {
    return this.#inner?.progress;
  }

  pass(bytes: Bytes): Bytes | undefined {
    return this.#inner?.pass?.(bytes);
  }

  write(list: readonly Bytes[]): void {
    if (this.#inner) this.#inner.write(list);
    else this.#input = new IovCursor(list);
  }

  end(): void {
    if (this.#inner) return this.#inner.end();
    this.close();
    throw createBadMessageError();
  }

  read(): Bytes | undefined {
    try {
      if (this.#input) this.#readIV(this.#input, this.#cipher!);
    } catch (error) {
      this.close();
      throw error;
    }
    return this.#inner?.read();
  }

  close(): void {
    this.#inner?.close();
    this.#cipher?.close();
    this.#cipher = undefined;
  }

  #readIV(input: IovCursor, cipher: CipherWithoutIV): void {
    input.verify();
    this.#front.add(input, Math.min(cipher.ivSize - this.#front.length, input.remaining));
    this.#input = undefined;
    if (this.#front.length < cipher.ivSize) return;
    this.#cipher = undefined;
    this.#inner = cipher.start(cloneBytes(this.#front.bytes));
    if (input.remaining > 0) this.#inner.write(input.peek(input.remaining));
  }
}
