/**
 * The userspace engine: the runtime's own `node:crypto`, with the same output as AF_ALG.
 *
 * @module
 */

import { type Algorithm, parseAlgorithm } from "../algorithms.ts";
import { type Bytes, scatter, subarray } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import type { Secret } from "../secret.ts";
import { nearestAlgorithm } from "../system/nearest.ts";
import { type Direction, type Engine, MAX_WINDOW } from "./engine.ts";
import { CIPHERS, createLengthError, make, MAKERS, type Mode, NO_IV } from "./modes.ts";
import { discard, gather, once, toOwned, wipeScratch } from "./scratch.ts";

/** The names of the algorithms that {@linkcode openUserspace} supports in this runtime. */
export const userspaceNames: () => readonly string[] = once(() => {
  const ciphers = Object.keys(CIPHERS);
  const names = Object.keys(MAKERS).flatMap((template) =>
    template.includes("*") ? ciphers.map((cipher) => template.replace("*", cipher)) : template
  );
  return names.filter((name) => userspaceHas(parseAlgorithm(name)));
});

/** Whether {@linkcode openUserspace} supports this algorithm in this runtime, with a key of at least one length. */
export function userspaceHas(algorithm: Algorithm): boolean {
  return algorithm.keySizes?.some((size) => make(algorithm, new Uint8Array(size))) ?? false;
}

/**
 * Opens `algorithm` in the runtime's `node:crypto`.
 *
 * @param algorithm What to open, by its generic name.
 * @param key Owned by the engine, which disposes of it in `close()`. If this call fails, it disposes of the key.
 * @returns The engine, without a stream.
 * @throws {KcapiError} ENOENT if this runtime has no such cipher, EINVAL if it takes no key of that length.
 */
export function openUserspace(algorithm: Algorithm, key: Secret): Engine {
  try {
    if (!userspaceHas(algorithm)) throw createMissingError(algorithm.name);
    checkKeySize(algorithm, key);
    return new UserspaceEngine(algorithm, key);
  } catch (error) {
    key.dispose();
    throw error;
  }
}

function checkKeySize({ name, keySizes }: Algorithm, { length }: Secret): void {
  if (keySizes!.includes(length)) return;
  throw new KcapiError("EINVAL", "setkey", `${name} expects a key of ${keySizes!.join(" or ")} bytes, got ${length}`);
}

function createMissingError(name: string, key = ""): KcapiError {
  const nearest = nearestAlgorithm(name);
  return new KcapiError("ENOENT", "createCipheriv", `the userspace engine of this runtime has no ${name}${key}`, {
    hint: nearest
      ? `did you mean "${nearest}"?`
      : `the kernel engine may have it; the userspace engine has ${userspaceNames().join(", ")}`,
  });
}

/** What the finalizer releases if an engine was not closed. It must not refer to the engine. */
interface FinalizerState {
  readonly mode: Mode;
  readonly key: Secret;
}

/** Deno keeps a cipher and its key until final(), even if nothing refers to the cipher any more. */
const finalizer = new FinalizationRegistry<FinalizerState>(({ mode, key }) => {
  mode.end();
  key.dispose();
});

/** Processes bytes in `update()`, so that it keeps no reference to the input buffers. */
class UserspaceEngine implements Engine {
  readonly name = "userspace";
  readonly blockSize: number;
  readonly ivSize: number;
  readonly window = MAX_WINDOW;
  readonly #algorithm: Algorithm;
  readonly #key: Secret;
  readonly #mode: Mode;
  /** Output that was not received. `#received` bytes of the first entry were. */
  #output: Uint8Array[] = [];
  #received = 0;
  #isClosed = false;

  constructor(algorithm: Algorithm, key: Secret) {
    const mode = make(algorithm, key.bytes);
    if (!mode) throw createMissingError(algorithm.name, ` with a key of ${key.length} bytes`);
    // A sector mode's shortest sector is a block.
    this.blockSize = algorithm.blockSize ?? (algorithm.shortestSector || 1);
    this.ivSize = algorithm.ivSize!;
    this.#algorithm = algorithm;
    this.#key = key;
    this.#mode = mode;
    finalizer.register(this, { mode, key }, this);
  }

  init(direction: Direction, iv: Bytes | null): void {
    if (this.#isClosed) throw createClosedError();
    this.#drop();
    this.#mode.start(direction, iv ?? NO_IV);
  }

  update(list: readonly Bytes[]): void {
    const input = gather(list);
    if (input.length % (this.#algorithm.blockSize ?? 1) > 0) {
      throw createLengthError(this.#algorithm.name, "whole blocks");
    }
    if (input.length > 0) this.#output.push(this.#mode.run(input));
  }

  op(list: readonly Bytes[]): void {
    for (const target of list) this.#fill(target);
  }

  take(length: number): Bytes {
    if (this.#received === 0 && this.#output[0]?.length === length) return toOwned(this.#output.shift()!);
    const target = new Uint8Array(length);
    this.#fill(target);
    return target;
  }

  pass(bytes: Bytes, inPlace: boolean): Bytes {
    const output = this.#mode.run(bytes);
    if (!inPlace) return toOwned(output);
    scatter(output, [bytes]);
    discard(output);
    return bytes;
  }

  capacity(queued: number): number {
    return MAX_WINDOW - queued;
  }

  reinit(): Engine {
    if (this.#isClosed) throw createClosedError();
    return new UserspaceEngine(this.#algorithm, this.#key.clone());
  }

  close(): void {
    finalizer.unregister(this);
    this.#isClosed = true;
    this.#drop();
    this.#mode.end();
    wipeScratch();
    this.#key.dispose();
  }

  #fill(target: Bytes): void {
    let filled = 0;
    while (filled < target.length) {
      const first = this.#output[0]!;
      const part = first.subarray(this.#received, this.#received + target.length - filled);
      scatter(part, [subarray(target, filled, filled + part.length)]);
      filled += part.length;
      this.#received += part.length;
      if (this.#received === first.length) {
        discard(this.#output.shift()!);
        this.#received = 0;
      }
    }
  }

  #drop(): void {
    this.#output = [];
    this.#received = 0;
  }
}

/** A closed engine refuses work, because its key is zeroed. */
function createClosedError(): KcapiError {
  return new KcapiError("EBADF", "userspace", "the cipher is closed");
}
