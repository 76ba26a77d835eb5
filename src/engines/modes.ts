/**
 * The modes of the userspace engine: the modes of `node:crypto`, and modes built from them (xts and cbc from ECB,
 * rfc3686 from CTR, cfb and ofb from CBC).
 *
 * @module
 */

import { cryptoBackend, nodeCrypto } from "../runtime/mod.ts";
import type { Algorithm } from "../algorithms.ts";
import { type Bytes, subarray } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { addBlocks } from "../position.ts";
import type { Direction } from "./engine.ts";
import {
  inputMemory,
  maskMemory,
  memory,
  once,
  type ScratchMemory,
  type Words,
  wordsOf,
  xor,
  xorWords,
} from "./scratch.ts";

/** The IV of modes without an IV. */
export const NO_IV: Bytes = new Uint8Array(0);

/** A cipher in one mode under one key. */
export interface Mode {
  /** Starts a message. */
  start(direction: Direction, iv: Bytes): void;
  /**
   * Processes whole chunks, or the end of the message. Returns the same number of bytes in new memory, which may be a
   * Buffer. The input may be the caller's object, with replaced methods.
   */
  run(input: Bytes): Uint8Array;
  /** Frees what the runtime holds for the message. */
  end(): void;
}

/** Makes a mode of a block cipher; undefined if the runtime does not support it. */
type Maker = (cipher: string, key: Bytes) => Mode | undefined;

/** By generic name. Names of drivers are for the kernel engine only. */
export const MAKERS: Readonly<Record<string, Maker>> = {
  "cbc(*)": cbc,
  "cfb(*)": cfb,
  "chacha20": (_, key) => native("chacha20", key, 16),
  "ctr(*)": ctr,
  "ecb(*)": (cipher, key) => block("ecb", cipher, key),
  "ofb(*)": ofb,
  "rfc3686(ctr(*))": rfc3686,
  "xts(*)": xts,
};

/** Block ciphers: `node:crypto`'s name, with the key's bits for `#`, and the block size. */
export const CIPHERS: Readonly<Record<string, readonly [stem: string, block: number]>> = {
  aes: ["aes-#", 16],
  aria: ["aria-#", 16],
  camellia: ["camellia-#", 16],
  des: ["des", 8],
  des3_ede: ["des-ede3", 8],
  sm4: ["sm4", 16],
};

/** The mode of an algorithm with a key; undefined if the runtime does not support it. */
export function make({ name, cipher = "" }: Algorithm, key: Bytes): Mode | undefined {
  if (cipher && !Object.hasOwn(CIPHERS, cipher)) return undefined;
  return MAKERS[name.replace(`(${cipher})`, "(*)")]?.(cipher, key);
}

/** The error of the kernel for a length that a mode does not accept. */
export function createLengthError(name: string, expected: string): KcapiError {
  return new KcapiError("EINVAL", "update", `${name} expects ${expected}`);
}

const works = new Map<string, boolean>();

/** A cipher of `node:crypto`; undefined if the runtime does not have it. */
function native(name: string, key: Bytes, ivSize: number): Mode | undefined {
  if (!works.has(name)) works.set(name, isSupported(name, key.length, ivSize));
  return works.get(name) ? createNative(name, key, ivSize) : undefined;
}

function isSupported(name: string, keySize: number, ivSize: number): boolean {
  const trial = createNative(name, new Uint8Array(keySize), ivSize);
  try {
    trial.start("encrypt", new Uint8Array(ivSize));
    trial.end();
    return true;
  } catch {
    return false;
  }
}

function createNative(name: string, key: Bytes, ivSize: number): Mode {
  let cipher: ReturnType<ReturnType<typeof nodeCrypto>["createCipheriv"]> | undefined;
  let running: Direction;
  function start(direction: Direction, iv: Bytes): void {
    // Without an IV there is no state, and one cipher serves every message.
    if (ivSize === 0 && cipher && running === direction) return;
    end();
    const create = direction === "encrypt" ? nodeCrypto().createCipheriv : nodeCrypto().createDecipheriv;
    cipher = create(name, key, ivSize > 0 ? iv : null);
    // Before the first update, because later Bun 1.4 loses the last block of a decryption.
    cipher.setAutoPadding(false);
    running = direction;
  }
  function end(): void {
    // Without final(), Deno keeps the cipher and its key forever. Bun and Node keep them until garbage collection.
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
  // Bun 1.4 knows des-ede3-ecb only as des-ede3.
  return native(name === "des-ede3-ecb" ? "des-ede3" : name, key, mode === "ecb" ? 0 : size);
}

/**
 * Whether AES over ECB with an XOR is faster than the mode of `node:crypto`. Measured at 64 KiB (bench/modes.ts):
 * RustCrypto (Deno) takes 115 µs for ctr and 168 µs for cbc decryption, and over ECB 34 and 30. OpenSSL (Node) takes 17
 * and 10, BoringSSL (Bun) 9 and 9, about as long as ECB alone.
 */
const isOverEcb = once(() => cryptoBackend() === "rustcrypto");

function ctr(cipher: string, key: Bytes): Mode | undefined {
  const ready = block("ctr", cipher, key);
  const ecb = cipher === "aes" && isOverEcb() ? block("ecb", cipher, key) : undefined;
  return ready && ecb ? bySize(ready, ctrOverEcb(ecb)) : ready;
}

/** Below this length, ECB with an XOR is not faster. */
const LEAST_OVER_ECB = 1024;

/** One mode for messages whose first input is short, another for the rest. */
function bySize(short: Mode, long: Mode): Mode {
  let running: Mode | undefined;
  let startShort = (): void => {};
  return {
    start(direction, iv) {
      const own = iv.slice();
      startShort = () => short.start(direction, own);
      long.start(direction, iv); // cheap: ECB creates no cipher per message
      running = undefined;
    },
    run(input) {
      if (!running) {
        running = input.length < LEAST_OVER_ECB ? short : long;
        if (running === short) startShort();
      }
      return running.run(input);
    },
    end() {
      short.end();
      long.end();
    },
  };
}

/** The keystream is E(counter), E(counter + 1) … The counter block is a big-endian number of 128 bits. */
function ctrOverEcb(ecb: Mode): Mode {
  /** The next counter block. */
  const counter = memory(16);
  /** The previous counter block, and how many bytes of its keystream were used. */
  let used = 0;
  const previous = memory(16);
  function start(_: Direction, iv: Bytes): void {
    ecb.start("encrypt", NO_IV);
    counter.bytes.set(iv);
    used = 0;
  }
  function run(chunk: Bytes): Uint8Array {
    const input = subarray(chunk, 0, chunk.length);
    const { bytes, words } = maskMemory();
    const rest = used;
    if (rest > 0) bytes.set(previous.bytes);
    const first = rest > 0 ? 1 : 0;
    const blocks = Math.ceil((rest + input.length) / 16);
    count(words.subarray(4 * first, 4 * blocks), counter);
    used = (rest + input.length) % 16;
    if (used > 0) previous.bytes.set(bytes.subarray(16 * blocks - 16, 16 * blocks));
    const stream = ecb.run(bytes.subarray(0, 16 * blocks));
    const output = rest === 0 ? stream.subarray(0, input.length) : stream.slice(rest, rest + input.length);
    xor(output, input);
    if (rest > 0) stream.fill(0);
    return output;
  }
  return { start, run, end: ecb.end };
}

/** Fills `words` with counter blocks and advances the counter. The words are signed, so that V8 allocates no number. */
function count(words: Words, counter: ScratchMemory): void {
  for (let i = 0; i < words.length;) {
    // The counter is big-endian and the machine little-endian. A step changes only the highest byte of the last word,
    // until that byte wraps around.
    const [a, b, c, d] = counter.words as Iterable<number> as [number, number, number, number];
    const end = Math.min(words.length, i + 4 * (0x100 - counter.bytes[15]!));
    const steps = (end - i) / 4;
    let last = d;
    if (steps % 2 === 1) {
      fillBlock(words, i, a, b, c, last);
      last = (last + 0x1000000) | 0;
      i += 4;
    }
    // Two blocks per step, in integers, take a third of the time of one block per step.
    for (; i < end; i += 8) {
      fillBlock(words, i, a, b, c, last);
      fillBlock(words, i + 4, a, b, c, (last + 0x1000000) | 0);
      last = (last + 0x2000000) | 0;
    }
    addBlocks(counter.bytes, steps);
  }
}

function fillBlock(words: Words, at: number, a: number, b: number, c: number, d: number): void {
  words[at] = a;
  words[at + 1] = b;
  words[at + 2] = c;
  words[at + 3] = d;
}

/** RFC 3686: the counter block is a nonce (the key's last 4 bytes), the IV, and a 32-bit counter from 1. */
function rfc3686(cipher: string, key: Bytes): Mode | undefined {
  const inner = ctr(cipher, key.subarray(0, -4));
  return inner && {
    ...inner,
    start: (direction, iv) => inner.start(direction, Uint8Array.of(...key.subarray(-4), ...iv, 0, 0, 0, 1)),
  };
}

function cbc(cipher: string, key: Bytes): Mode | undefined {
  const ready = block("cbc", cipher, key);
  const isBetter = cipher === "aes" && isOverEcb();
  if (ready && !isBetter) return ready;
  const ecb = block("ecb", cipher, key);
  const built = ecb && cbcOverEcb(ecb, blockSize(cipher));
  return ready && built ? byDirection(ready, built) : ready ?? built;
}

/** One mode to encrypt, another to decrypt. */
function byDirection(encrypting: Mode, decrypting: Mode): Mode {
  let running = encrypting;
  return {
    start(direction, iv) {
      running = direction === "encrypt" ? encrypting : decrypting;
      running.start(direction, iv);
    },
    run: (input) => running.run(input),
    end() {
      encrypting.end();
      decrypting.end();
    },
  };
}

/** Decryption is one call of ECB. Encryption is one call per block, because each needs the block before. */
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
  function decrypt(chunk: Bytes): Uint8Array {
    const input = subarray(chunk, 0, chunk.length);
    const output = ecb.run(input);
    xor(output.subarray(0, size), previous);
    xor(output.subarray(size), input);
    previous.set(input.subarray(-size));
    return output;
  }
  return { start, run: (input) => run(input), end: ecb.end };
}

/** CFB's keystream is E(IV), then E of each ciphertext block. Encryption is CBC over E(IV) and the plaintext. */
function cfb(cipher: string, key: Bytes): Mode | undefined {
  const chain = cbc(cipher, key);
  const ecb = block("ecb", cipher, key);
  if (!chain || !ecb) return undefined;
  return feedback(blockSize(cipher), { encrypt: chain, decrypt: ecb }, (blocks, input) => blocks.set(input));
}

/** OFB's keystream is E(IV), E(E(IV)) …, which is CBC over zeros. */
function ofb(cipher: string, key: Bytes): Mode | undefined {
  const chain = cbc(cipher, key);
  if (!chain) return undefined;
  return feedback(blockSize(cipher), { encrypt: chain, decrypt: chain }, (blocks) => blocks.fill(0));
}

/** A stream cipher. `source` turns the IV, and then the blocks that `feed` fills, into the keystream. */
function feedback(
  size: number,
  sources: Readonly<Record<Direction, Mode>>,
  feed: (blocks: Bytes, input: Uint8Array) => void,
): Mode {
  let source: Mode;
  /** The keystream's next block. */
  const next = new Uint8Array(size);
  function start(direction: Direction, iv: Bytes): void {
    source = sources[direction];
    source.start("encrypt", new Uint8Array(size));
    next.set(source.run(iv));
  }
  function run(input: Uint8Array): Uint8Array {
    const whole = Math.ceil(input.length / size) * size;
    const blocks = inputMemory().bytes.subarray(0, whole);
    const keystream = maskMemory().bytes;
    feed(blocks, input);
    keystream.set(next);
    keystream.set(source.run(blocks), size);
    next.set(keystream.subarray(whole, whole + size));
    const output = keystream.slice(0, input.length);
    xor(output, input);
    return output;
  }
  function end(): void {
    sources.encrypt.end();
    sources.decrypt.end();
  }
  return { start, run, end };
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
    if (input.length < 16) throw createLengthError("xts", "at least one block");
    const mask = maskMemory().words;
    double(tweak.words, mask, Math.ceil(input.length / 16));
    const rest = input.length % 16;
    if (rest === 0) return maskedECB(mask, input);
    const whole = input.length - rest;
    const lastMask = mask.subarray(whole / 4);
    // Ciphertext stealing encrypts the last whole block first. Decryption reverses the order: it exchanges the masks.
    if (decrypts) exchange(mask.subarray(whole / 4 - 4), lastMask);
    return steal(maskedECB(mask, input.subarray(0, whole)), input.subarray(whole), lastMask);
  }
  /** XOR with the mask, ECB, XOR with the mask. */
  function maskedECB(mask: Words, input: Uint8Array): Uint8Array {
    const count = input.length / 4;
    const inner = inputMemory();
    inner.bytes.set(input);
    xorWords(inner.words, mask, count);
    const output = data.run(inner.bytes.subarray(0, input.length));
    xorWords(wordsOf(output, count), mask, count);
    return output;
  }
  /**
   * Ciphertext stealing: the first bytes of the last whole block become the partial block at the end. The bytes of
   * `partial` replace them, and the whole block is processed again.
   */
  function steal(output: Uint8Array, partial: Uint8Array, mask: Words): Uint8Array {
    const result = new Uint8Array(output.length + partial.length);
    const last = result.subarray(output.length - 16, output.length);
    result.set(output);
    result.set(last.subarray(0, partial.length), output.length);
    last.set(partial);
    last.set(maskedECB(mask, last));
    return result;
  }
  function end(): void {
    data.end();
    tweaks.end();
  }
  return { start, run, end };
}

/** Fills `mask` for `blocks` blocks: the tweak, then each time the double of the last in GF(2^128), little-endian. */
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
