/**
 * Shared helpers: bytes, streams, promises, and reference results of `node:crypto`.
 */
import { createCipheriv, createDecipheriv, getCiphers } from "node:crypto";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { CipherHandle, KcapiError } from "../../mod.ts";
import { parseAlgorithm } from "../../src/algorithms.ts";
import { type Bytes, bytes, concat, cut } from "./bytes.ts";
import { engine } from "./leg.ts";

export type Direction = "encrypt" | "decrypt";

/** The kernel's default send buffer (net.core.wmem_default). Both engines use this window. */
export const WINDOW = 212_992;

export * from "./bytes.ts";
export * from "./promises.ts";

// ---- node:crypto ------------------------------------------------------------------------------------------------

export interface ReferenceOptions {
  key: Bytes;
  iv?: Bytes | undefined;
  padding?: "pkcs7" | "none" | undefined;
  sectorSize?: number | undefined;
  sector?: number | bigint | undefined;
}

/**
 * Returns the result of one `node:crypto` call for the whole `input`. If a runtime lacks an AES mode, it is computed
 * with ECB.
 */
export function reference(direction: Direction, algorithm: string, options: ReferenceOptions, input: Bytes): Bytes {
  const { key, iv, padding = "none", sectorSize } = options;
  const mode = algorithm.replace("(aes)", "");
  if (mode === "xts") {
    return sectorSize === undefined
      ? xts(direction, key, [iv!], input.length, input)
      : xts(direction, key, sectorIVs(input.length, sectorSize, options.sector), sectorSize, input);
  }
  const name = mode === algorithm ? mode : `aes-${8 * key.length}-${mode}`;
  if (getCiphers().includes(name)) return native(direction, name, key, iv, padding, input);
  if (mode !== "cbc") throw new Error(`node:crypto of this runtime has no ${name}`);
  return cbc(direction, key, iv!, padding, input);
}

/** Whether this runtime's node:crypto supports a cipher with OpenSSL's name. */
export function hasCipher(name: string): boolean {
  return getCiphers().includes(name);
}

function native(
  direction: Direction,
  name: string,
  key: Bytes,
  iv: Bytes | undefined,
  padding: "pkcs7" | "none",
  input: Bytes,
): Bytes {
  const cipher = (direction === "encrypt" ? createCipheriv : createDecipheriv)(name, key, iv ?? null);
  cipher.setAutoPadding(padding === "pkcs7");
  return concat([cipher.update(input), cipher.final()]);
}

function ecb(direction: Direction, key: Bytes, blocks: Bytes): Bytes {
  return native(direction, `aes-${8 * key.length}-ecb`, key, undefined, "none", blocks);
}

/** Returns `a ^ b`, with the length of `a`. */
function xor(a: Bytes, b: Uint8Array): Bytes {
  return a.map((byte, i) => byte ^ b[i]!);
}

function cbc(direction: Direction, key: Bytes, iv: Bytes, padding: "pkcs7" | "none", input: Bytes): Bytes {
  if (direction === "decrypt") {
    const output = xor(ecb("decrypt", key, input), concat([iv, input.subarray(0, -16)]));
    return padding === "pkcs7" ? output.slice(0, -output.at(-1)!) : output;
  }
  const size = 16 - input.length % 16;
  const padded = padding === "pkcs7" ? concat([input, new Uint8Array(size).fill(size)]) : input;
  const cipher = createCipheriv(`aes-${8 * key.length}-ecb`, key, null);
  const output = new Uint8Array(padded.length);
  let previous: Uint8Array = iv;
  for (let i = 0; i < padded.length; i += 16) {
    previous = cipher.update(xor(padded.subarray(i, i + 16), previous));
    output.set(previous, i);
  }
  cipher.final();
  return output;
}

/** Returns the IV of a sector as in dm-crypt plain64: its number in 64 bits, little-endian, then zeros. */
export function plain64(sector: bigint): Bytes {
  const iv = new Uint8Array(16);
  for (let i = 0; i < 8; i++) iv[i] = Number((sector >> BigInt(8 * i)) & 0xffn);
  return iv;
}

/** dm-crypt counts units of 512 bytes. Sector sizes that it does not support count sectors. */
function sectorIVs(length: number, size: number, first: number | bigint = 0): Bytes[] {
  const step = size % 512 === 0 ? size / 512 : 1;
  return Array.from({ length: Math.ceil(length / size) }, (_, i) => plain64(BigInt(first) + BigInt(i * step)));
}

/** IEEE 1619, with ciphertext stealing in the last unit. */
function xts(direction: Direction, key: Bytes, ivs: Bytes[], unit: number, input: Bytes): Bytes {
  const [dataKey, tweakKey] = [key.slice(0, key.length / 2), key.slice(key.length / 2)];
  const firsts = [...cut(ecb("encrypt", tweakKey, concat(ivs)), [16])];
  const masks = concat(firsts.map((first) => tweaks(first, Math.ceil(Math.min(unit, input.length) / 16))));
  const run = (blocks: Bytes, mask: Bytes) => xor(ecb(direction, dataKey, xor(blocks, mask)), mask);
  const rest = input.length % 16;
  if (rest === 0) return run(input, masks);
  const whole = input.length - rest;
  const start = whole - 16;
  const steal = [masks.slice(start, whole), masks.slice(whole, whole + 16)];
  const [first, second] = direction === "encrypt" ? steal : steal.reverse();
  const stolen = run(input.slice(start, whole), first!);
  const completed = concat([input.slice(whole), stolen.slice(rest)]);
  return concat([run(input.slice(0, start), masks), run(completed, second!), stolen.slice(0, rest)]);
}

/** Returns `count` tweaks. Each is the previous one, doubled in GF(2^128). */
function tweaks(first: Bytes, count: number): Bytes {
  const result = new Uint8Array(16 * count);
  let tweak = first;
  for (let i = 0; i < count; i++) {
    result.set(tweak, 16 * i);
    const carry = tweak[15]! >> 7;
    tweak = tweak.map((byte, j) => (byte << 1) ^ (j === 0 ? 0x87 * carry : tweak[j - 1]! >> 7));
  }
  return result;
}

// ---- garbage ----------------------------------------------------------------------------------------------------

/** Collects garbage and lets finalizers run, several times or until `enough` returns true. */
export async function collectGarbage(enough: () => boolean = () => false): Promise<void> {
  const bun = (globalThis as { Bun?: { gc(force: boolean): void } }).Bun;
  setFlagsFromString("--expose-gc");
  const gc: () => void = bun ? () => bun.gc(true) : runInNewContext("gc");
  for (let i = 0; i < 10 && !enough(); i++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 1)); // Finalizers run in a later turn.
  }
}

// ---- chacha20 ---------------------------------------------------------------------------------------------------

/** The columns and diagonals of the state. */
const QUARTERS = [
  [0, 4, 8, 12],
  [1, 5, 9, 13],
  [2, 6, 10, 14],
  [3, 7, 11, 15],
  [0, 5, 10, 15],
  [1, 6, 11, 12],
  [2, 7, 8, 13],
  [3, 4, 9, 14],
] as [a: number, b: number, c: number, d: number][];

/** ChaCha20 (RFC 8439), for runtimes without it. The IV is a 32-bit little-endian counter and the nonce. */
export function chacha20(key: Bytes, iv: Bytes, input: Bytes): Bytes {
  const state = new Uint32Array(concat([new TextEncoder().encode("expand 32-byte k"), key, iv]).buffer);
  const x = new Uint32Array(16);
  const mix = (a: number, b: number, d: number, by: number) => {
    const mixed = x[d]! ^ (x[a]! += x[b]!);
    x[d] = (mixed << by) | (mixed >>> (32 - by));
  };
  const output = input.slice();
  const stream = new Uint8Array(x.buffer);
  for (let start = 0; start < input.length; start += 64, state[12]!++) {
    x.set(state);
    for (let round = 0; round < 10; round++) {
      for (const [a, b, c, d] of QUARTERS) {
        mix(a, b, d, 16);
        mix(c, d, b, 12);
        mix(a, b, d, 8);
        mix(c, d, b, 7);
      }
    }
    for (let i = 0; i < 16; i++) x[i]! += state[i]!;
    for (let i = start; i < Math.min(start + 64, input.length); i++) output[i]! ^= stream[i - start]!;
  }
  return output;
}

// ---- availability -----------------------------------------------------------------------------------------------

/** Whether the engine of this leg supports an algorithm on this system. */
export function opens(algorithm: string): boolean {
  const key = bytes(parseAlgorithm(algorithm).keySizes?.[0] ?? 16);
  try {
    CipherHandle.open(algorithm, { key, engine }).close();
    return true;
  } catch (error) {
    if (error instanceof KcapiError && error.code === "ENOENT") return false;
    throw error;
  }
}
