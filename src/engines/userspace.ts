/**
 * The runtime's own `node:crypto` behind the engine interface: the same bytes where AF_ALG is not to be had.
 *
 * What `node:crypto` lacks is built over what it has, where that is small: xts over ECB, rfc3686 over
 * CTR, cbc over ECB, cfb and ofb over CBC.
 *
 * @module
 */

import { type Algorithm, parseAlgorithm } from "../algorithms.ts";
import { type Bytes, scatter, viewOf } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { nearestAlgorithm } from "../system/nearest.ts";
import type { Direction, Engine } from "./engine.ts";

/** The kernel's default send buffer, so that both engines take the same messages. */
const WINDOW = 212_992;

/** The garbage collector frees fewer bytes than these, in one piece, at less than the call would cost. */
const LEAST_FREED = 4096;

const NO_IV: Bytes = new Uint8Array(0);

/** A cipher in one mode under one key. */
interface Mode {
  /** Starts a message. */
  start(direction: Direction, iv: Bytes): void;
  /** Processes whole chunks, or the end of the message. Gives as many bytes in fresh memory, maybe as a Buffer. */
  run(input: Uint8Array): Uint8Array;
  /** Frees what the runtime holds for the message. */
  end(): void;
}

/** Makes a mode over a block cipher; undefined where the runtime lacks what that takes. */
type Maker = (cipher: string, key: Bytes) => Mode | undefined;

/** By generic name. A driver's name is not here, for it insists on that driver. */
const MAKERS: Readonly<Record<string, Maker>> = {
  "cbc(*)": cbc,
  "cfb(*)": cfb,
  "chacha20": (_, key) => native("chacha20", key, 16),
  "ctr(*)": (cipher, key) => block("ctr", cipher, key),
  "ecb(*)": (cipher, key) => block("ecb", cipher, key),
  "ofb(*)": ofb,
  "rfc3686(ctr(*))": rfc3686,
  "xts(*)": xts,
};

/** Block ciphers: `node:crypto`'s name, with the key's bits for `#`, and the block size. */
const CIPHERS: Readonly<Record<string, readonly [stem: string, block: number]>> = {
  aes: ["aes-#", 16],
  aria: ["aria-#", 16],
  camellia: ["camellia-#", 16],
  des: ["des", 8],
  des3_ede: ["des-ede3", 8],
  sm4: ["sm4", 16],
};

/** The names of the algorithms that {@linkcode openUserspace} has in this runtime: tried, once. */
export const userspaceNames: () => readonly string[] = lazily(() => {
  const ciphers = Object.keys(CIPHERS);
  const names = Object.keys(MAKERS).flatMap((template) =>
    template.includes("*") ? ciphers.map((cipher) => template.replace("*", cipher)) : template
  );
  return names.filter((name) => userspaceHas(parseAlgorithm(name)));
});

/** Whether {@linkcode openUserspace} has this algorithm in this runtime, with some length of key at least. */
export function userspaceHas(algorithm: Algorithm): boolean {
  return algorithm.keySizes?.some((size) => make(algorithm, new Uint8Array(size))) ?? false;
}

/**
 * Opens `algorithm` in the runtime's `node:crypto`.
 *
 * @param algorithm What to open, by its generic name.
 * @param key The engine's from now on: zeroed when the last one that shares it is closed, or none is opened.
 * @returns The engine, without a stream.
 * @throws {KcapiError} ENOENT if this runtime has no such cipher, EINVAL if it takes no key of that length.
 */
export function openUserspace(algorithm: Algorithm, key: Bytes): Engine {
  try {
    if (!userspaceHas(algorithm)) throw missing(algorithm.name);
    checkKeySize(algorithm, key);
    return new UserspaceEngine(algorithm, new SharedKey(key));
  } catch (error) {
    key.fill(0);
    throw error;
  }
}

function checkKeySize({ name, keySizes }: Algorithm, { length }: Bytes): void {
  if (keySizes!.includes(length)) return;
  throw new KcapiError("EINVAL", "setkey", `${name} expects a key of ${keySizes!.join(" or ")} bytes, got ${length}`);
}

function make({ name, cipher = "" }: Algorithm, key: Bytes): Mode | undefined {
  if (cipher && !Object.hasOwn(CIPHERS, cipher)) return undefined;
  return MAKERS[name.replace(`(${cipher})`, "(*)")]?.(cipher, key);
}

function missing(name: string, key = ""): KcapiError {
  const nearest = nearestAlgorithm(name);
  return new KcapiError("ENOENT", "createCipheriv", `the userspace engine of this runtime has no ${name}${key}`, {
    hint: nearest
      ? `did you mean "${nearest}"?`
      : `the kernel engine may have it; this one has ${userspaceNames().join(", ")}`,
  });
}

/** A key, and how many engines use it. */
class SharedKey {
  readonly bytes: Bytes;
  #engines = 0;
  #isGone = false;

  constructor(bytes: Bytes) {
    this.bytes = bytes;
  }

  acquire(): void {
    if (this.#isGone) throw closed();
    this.#engines++;
  }

  release(): void {
    if (--this.#engines > 0) return;
    this.#isGone = true;
    this.bytes.fill(0);
  }
}

/** What an engine that nobody closed leaves behind; may not refer to the engine itself. */
interface Remains {
  readonly mode: Mode;
  readonly key: SharedKey;
}

/** One runtime keeps a cipher and its key until final(), whoever still holds it. */
const finalizer = new FinalizationRegistry<Remains>(({ mode, key }) => {
  mode.end();
  key.release();
});

/** Processes bytes when they are sent, so that nothing refers to the sender's memory afterwards. */
class UserspaceEngine implements Engine {
  readonly name = "userspace";
  readonly blockSize: number;
  readonly ivSize: number;
  readonly window = WINDOW;
  readonly #algorithm: Algorithm;
  readonly #key: SharedKey;
  readonly #mode: Mode;
  /** What is not yet received, behind the first `#received` bytes. */
  #output: Uint8Array[] = [];
  #received = 0;
  #isClosed = false;

  constructor(algorithm: Algorithm, key: SharedKey) {
    const mode = make(algorithm, key.bytes);
    if (!mode) throw missing(algorithm.name, ` with a key of ${key.bytes.length} bytes`);
    key.acquire();
    // A sector mode's shortest sector is a block.
    this.blockSize = algorithm.blockSize ?? (algorithm.shortestSector || 1);
    this.ivSize = algorithm.ivSize!;
    this.#algorithm = algorithm;
    this.#key = key;
    this.#mode = mode;
    finalizer.register(this, { mode, key }, this);
  }

  init(direction: Direction, iv: Bytes | null): void {
    if (this.#isClosed) throw closed();
    this.#drop();
    this.#mode.start(direction, iv ?? NO_IV);
  }

  update(list: readonly Bytes[]): void {
    const input = gather(list);
    if (input.length % (this.#algorithm.blockSize ?? 1) > 0) throw unfit(this.#algorithm.name, "whole blocks");
    if (input.length > 0) this.#output.push(this.#mode.run(input));
  }

  op(list: readonly Bytes[]): void {
    for (const target of list) this.#fill(target);
  }

  take(length: number): Bytes {
    if (this.#received === 0 && this.#output[0]?.length === length) return owned(this.#output.shift()!);
    const target = new Uint8Array(length);
    this.#fill(target);
    return target;
  }

  pass(bytes: Bytes, inPlace: boolean): Bytes {
    const output = this.#mode.run(bytes);
    if (!inPlace) return owned(output);
    scatter(output, [bytes]);
    discard(output);
    return bytes;
  }

  capacity(queued: number): number {
    return WINDOW - queued;
  }

  reinit(): Engine {
    return new UserspaceEngine(this.#algorithm, this.#key);
  }

  close(): void {
    finalizer.unregister(this);
    this.#isClosed = true;
    this.#drop();
    this.#mode.end();
    this.#key.release();
  }

  #fill(target: Bytes): void {
    let filled = 0;
    while (filled < target.length) {
      const first = this.#output[0]!;
      const part = first.subarray(this.#received, this.#received + target.length - filled);
      scatter(part, [viewOf(target, filled, filled + part.length)]);
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

/** Its key is zeroed: nothing may be encrypted with what is left. */
function closed(): KcapiError {
  return new KcapiError("EBADF", "userspace", "the cipher is closed");
}

/** What the kernel says of a length that a mode does not take. */
function unfit(name: string, expected: string): KcapiError {
  return new KcapiError("EINVAL", "update", `${name} expects ${expected}`);
}

/** `output` as a plain array: without a copy, where nobody else has its memory. */
function owned(output: Uint8Array): Bytes {
  if (!isAlone(output)) return new Uint8Array(output);
  const whole = new Uint8Array(output.buffer);
  return whole.length === output.length ? whole : whole.fill(0, output.length).subarray(0, output.length);
}

/** Frees the memory of `output` at once. Megabytes of it pile up where that is left to the garbage collector. */
function discard(output: Uint8Array): void {
  if (output.length >= LEAST_FREED && isAlone(output)) output.buffer.transfer(0);
}

/**
 * Whether `output` has its memory for itself, and is no slice of a pool. One runtime leaves room for one more block
 * behind it, holding whatever the heap held before.
 */
function isAlone(output: Uint8Array): output is Bytes {
  return output.byteOffset === 0 && output.buffer.byteLength - output.length <= 16;
}

function lazily<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => made ??= make();
}

type Words = Uint32Array;

interface Memory {
  readonly bytes: Bytes;
  readonly words: Words;
}

function memory(length: number): Memory {
  const buffer = new ArrayBuffer(length);
  return { bytes: new Uint8Array(buffer), words: new Uint32Array(buffer) };
}

// Intermediate bytes of one call. All engines share these, for no call interrupts another.
const gathered = lazily(() => memory(WINDOW));
const masked = lazily(() => memory(WINDOW));
const masks = lazily(() => memory(WINDOW + 16)); // `feedback` is a block ahead

/** A scatter list in one piece, so that the cipher is called once and its output is in one piece, too. */
function gather(list: readonly Bytes[]): Bytes {
  if (list.length === 1) return list[0]!;
  const { bytes } = gathered();
  let length = 0;
  for (const entry of list) {
    bytes.set(entry, length);
    length += entry.length;
  }
  return bytes.subarray(0, length);
}

/** `node:crypto`, loaded on first use: that takes as long as starting the runtime. */
const crypto = lazily(() => process.getBuiltinModule("node:crypto"));

const works = new Map<string, boolean>();

/** A cipher of `node:crypto`; undefined where this runtime does not have it. */
function native(name: string, key: Bytes, ivSize: number): Mode | undefined {
  if (!works.has(name)) works.set(name, tried(name, key.length, ivSize));
  return works.get(name) ? keyed(name, key, ivSize) : undefined;
}

function tried(name: string, keySize: number, ivSize: number): boolean {
  const trial = keyed(name, new Uint8Array(keySize), ivSize);
  try {
    trial.start("encrypt", new Uint8Array(ivSize));
    trial.end();
    return true;
  } catch {
    return false;
  }
}

function keyed(name: string, key: Bytes, ivSize: number): Mode {
  let cipher: ReturnType<ReturnType<typeof crypto>["createCipheriv"]> | undefined;
  let running: Direction;
  function start(direction: Direction, iv: Bytes): void {
    // Without an IV there is no state, and the cipher at hand does for every message.
    if (ivSize === 0 && cipher && running === direction) return;
    end();
    const create = direction === "encrypt" ? crypto().createCipheriv : crypto().createDecipheriv;
    cipher = create(name, key, ivSize > 0 ? iv : null);
    // At once: switched off after the first update, it costs one runtime a block in decryption.
    cipher.setAutoPadding(false);
    running = direction;
  }
  function end(): void {
    // Without final(), one runtime keeps the cipher and its key for ever, others until garbage collection.
    cipher?.final();
    cipher = undefined;
  }
  return { start, run: (input) => cipher!.update(input), end };
}

function blockSize(cipher: string): number {
  return CIPHERS[cipher]![1];
}

function block(mode: string, cipher: string, key: Bytes): Mode | undefined {
  const [stem, size] = CIPHERS[cipher]!;
  const name = `${stem.replace("#", `${8 * key.length}`)}-${mode}`;
  // Not every runtime knows this one by its mode.
  return native(name === "des-ede3-ecb" ? "des-ede3" : name, key, mode === "ecb" ? 0 : size);
}

/** RFC 3686: the counter block is a nonce (the key's last 4 bytes), the IV, and a 32-bit counter from 1. */
function rfc3686(cipher: string, key: Bytes): Mode | undefined {
  const ctr = block("ctr", cipher, key.subarray(0, -4));
  return ctr && {
    ...ctr,
    start: (direction, iv) => ctr.start(direction, Uint8Array.of(...key.subarray(-4), ...iv, 0, 0, 0, 1)),
  };
}

function cbc(cipher: string, key: Bytes): Mode | undefined {
  const ready = block("cbc", cipher, key);
  if (ready) return ready;
  const ecb = block("ecb", cipher, key);
  return ecb && cbcOverEcb(ecb, blockSize(cipher));
}

/** Decryption is one call of ECB; encryption one per block, for each needs the one before: slow, but right. */
function cbcOverEcb(ecb: Mode, size: number): Mode {
  let run: Mode["run"];
  /** The ciphertext block before the next. */
  const previous = new Uint8Array(size);
  function start(direction: Direction, iv: Bytes): void {
    ecb.start(direction, NO_IV);
    run = direction === "encrypt" ? encrypt : decrypt;
    previous.set(iv);
  }
  function encrypt(input: Uint8Array): Uint8Array {
    const output = new Uint8Array(input.length);
    for (let i = 0; i < input.length; i += size) {
      xor(previous, input.subarray(i, i + size));
      previous.set(ecb.run(previous));
      output.set(previous, i);
    }
    return output;
  }
  function decrypt(input: Uint8Array): Uint8Array {
    const output = ecb.run(input);
    xor(output.subarray(0, size), previous);
    xor(output.subarray(size), input);
    previous.set(input.subarray(-size));
    return output;
  }
  return { start, run: (input) => run(input), end: ecb.end };
}

/** CFB's key stream is E(IV), then E of each ciphertext block; in encryption, that is CBC over E(IV) and the plaintext. */
function cfb(cipher: string, key: Bytes): Mode | undefined {
  const chain = cbc(cipher, key);
  const ecb = block("ecb", cipher, key);
  if (!chain || !ecb) return undefined;
  return feedback(blockSize(cipher), { encrypt: chain, decrypt: ecb }, (blocks, input) => blocks.set(input));
}

/** OFB's key stream is E(IV), E(E(IV)) …: CBC over zeros. */
function ofb(cipher: string, key: Bytes): Mode | undefined {
  const chain = cbc(cipher, key);
  if (!chain) return undefined;
  return feedback(blockSize(cipher), { encrypt: chain, decrypt: chain }, (blocks) => blocks.fill(0));
}

/** A stream cipher whose key stream a source makes, first of the IV, then of the blocks that `feed` fills. */
function feedback(
  size: number,
  sources: Readonly<Record<Direction, Mode>>,
  feed: (blocks: Bytes, input: Uint8Array) => void,
): Mode {
  let source: Mode;
  /** The key stream's next block. */
  const next = new Uint8Array(size);
  function start(direction: Direction, iv: Bytes): void {
    source = sources[direction];
    source.start("encrypt", new Uint8Array(size));
    next.set(source.run(iv));
  }
  function run(input: Uint8Array): Uint8Array {
    const whole = Math.ceil(input.length / size) * size;
    const blocks = masked().bytes.subarray(0, whole);
    const keyStream = masks().bytes;
    feed(blocks, input);
    keyStream.set(next);
    keyStream.set(source.run(blocks), size);
    next.set(keyStream.subarray(whole, whole + size));
    const output = keyStream.slice(0, input.length);
    xor(output, input);
    return output;
  }
  function end(): void {
    sources.encrypt.end();
    sources.decrypt.end();
  }
  return { start, run, end };
}

/** `target ^= source`, for as many bytes as `target` has; by words where both are aligned to them. */
function xor(target: Uint8Array, source: Uint8Array): void {
  const words = (target.byteOffset | source.byteOffset) % 4 === 0 ? target.length >>> 2 : 0;
  if (words > 0) xorWords(wordsOf(target, words), wordsOf(source, words), words);
  for (let i = 4 * words; i < target.length; i++) target[i]! ^= source[i]!;
}

/** Not generic: code that sees two types of arrays is several times slower in one runtime. */
function xorWords(target: Words, source: Words, count: number): void {
  for (let i = 0; i < count; i++) target[i]! ^= source[i]!;
}

function wordsOf({ buffer, byteOffset }: Uint8Array, count: number): Words {
  return new Uint32Array(buffer, byteOffset, count);
}

function xts(cipher: string, key: Bytes): Mode | undefined {
  if (blockSize(cipher) !== 16) return undefined;
  const data = block("ecb", cipher, key.subarray(0, key.length / 2));
  const tweaks = block("ecb", cipher, key.subarray(key.length / 2));
  return data && tweaks && xtsOverEcb(data, tweaks);
}

/** IEEE 1619. One run is one message: the sector. */
function xtsOverEcb(data: Mode, tweaks: Mode): Mode {
  const tweak = memory(16);
  let decrypts: boolean;
  function start(direction: Direction, iv: Bytes): void {
    data.start(direction, NO_IV);
    tweaks.start("encrypt", NO_IV);
    tweak.bytes.set(tweaks.run(iv));
    decrypts = direction === "decrypt";
  }
  function run(input: Uint8Array): Uint8Array {
    if (input.length < 16) throw unfit("xts", "at least one block");
    const mask = masks().words;
    double(tweak.words, mask, Math.ceil(input.length / 16));
    const tail = input.length % 16;
    if (tail === 0) return between(mask, input);
    const whole = input.length - tail;
    const tailMask = mask.subarray(whole / 4);
    // Decryption undoes last what encryption did first: the last whole block is the tail's doing.
    if (decrypts) exchange(mask.subarray(whole / 4 - 4), tailMask);
    return steal(between(mask, input.subarray(0, whole)), input.subarray(whole), tailMask);
  }
  /** ECB between two XORs with the mask. */
  function between(mask: Words, input: Uint8Array): Uint8Array {
    const count = input.length / 4;
    const inner = masked();
    inner.bytes.set(input);
    xorWords(inner.words, mask, count);
    const output = data.run(inner.bytes.subarray(0, input.length));
    xorWords(wordsOf(output, count), mask, count);
    return output;
  }
  /** Ciphertext stealing: the last block of `output` fills up the tail, is cut to its length, and makes room for it. */
  function steal(output: Uint8Array, tail: Uint8Array, mask: Words): Uint8Array {
    const result = new Uint8Array(output.length + tail.length);
    const last = result.subarray(output.length - 16, output.length);
    result.set(output);
    result.set(last.subarray(0, tail.length), output.length);
    last.set(tail);
    last.set(between(mask, last));
    return result;
  }
  function end(): void {
    data.end();
    tweaks.end();
  }
  return { start, run, end };
}

/** Fills `mask` for so many blocks: the tweak, then twice the last one in GF(2^128), little-endian like the machine. */
function double(tweak: Words, mask: Words, blocks: number): void {
  let [a, b, c, d] = tweak as Iterable<number> as [number, number, number, number];
  for (let i = 0; i < 4 * blocks; i += 4) {
    mask[i] = a;
    mask[i + 1] = b;
    mask[i + 2] = c;
    mask[i + 3] = d;
    const carry = d >>> 31;
    d = (d << 1) | (c >>> 31);
    c = (c << 1) | (b >>> 31);
    b = (b << 1) | (a >>> 31);
    a = (a << 1) ^ (0x87 * carry);
  }
}

function exchange(one: Words, other: Words): void {
  for (let i = 0; i < 4; i++) [one[i], other[i]] = [other[i]!, one[i]!];
}
