/**
 * What the options of a command say of a cipher.
 *
 * @module
 */

import { CipherHandle, type EngineChoice, type KernelKey, type Padding } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import type { Arguments } from "./arguments.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { LONGEST_KEY } from "./secrets.ts";

/** What is used where nothing is named. */
export const DEFAULT_CIPHER = "cbc(aes)";

/** What the options say of the cipher. */
export interface Plan {
  readonly cipher: string;
  /** The key's length in bytes, where it was asked for. */
  readonly keySize: number | undefined;
  readonly engine: EngineChoice;
  readonly padding: Padding | undefined;
  readonly sectorSize: number | undefined;
  readonly sector: bigint | undefined;
  readonly inPlace: true;
}

export function planOf(given: Arguments): Plan {
  const sector = given.get("sector");
  if (sector !== undefined && !/^\d{1,20}$/.test(sector)) throw wrongUsage("--sector expects a whole number");
  const keyBits = given.integer("key-bits", 8, 8 * LONGEST_KEY);
  if (keyBits !== undefined && keyBits % 8 !== 0) throw wrongUsage("--key-bits expects a multiple of 8");
  return {
    keySize: keyBits && keyBits / 8,
    ...cipherOf(given.get("cipher") ?? DEFAULT_CIPHER),
    engine: (given.get("engine") ?? "auto") as EngineChoice,
    padding: given.get("padding") as Padding | undefined,
    sectorSize: given.integer("sector-size", 1),
    sector: sector === undefined ? undefined : BigInt(sector),
    inPlace: true,
  };
}

/** The kernel's name; from one of OpenSSL's for AES, the key's length, too. */
function cipherOf(name: string): { cipher: string; keySize?: number } {
  const [, bits, mode] = /^aes-(128|192|256)-(cbc|cfb|ctr|ecb|ofb|xts)$/i.exec(name) ?? [];
  if (!bits || !mode) return { cipher: name };
  return { cipher: `${mode.toLowerCase()}(aes)`, keySize: Number(bits) / 8 * (mode.toLowerCase() === "xts" ? 2 : 1) };
}

/** The length of the IV that the cipher needs from us: with sectors, none. */
export function ivSizeOf({ cipher, engine, sectorSize }: Plan, key: Bytes | KernelKey): number {
  using handle = asUsage(() => CipherHandle.open(cipher, { key, engine }));
  return sectorSize === undefined ? handle.ivSize : 0;
}

/** The lengths to derive. The cipher itself tells which keys it takes, by refusing others. */
export function sizesOf(plan: Plan): { keySize: number; ivSize: number } {
  const keySizes = plan.keySize === undefined ? [64, 32, 24, 16, 8] : [plan.keySize];
  let refusal: unknown;
  for (const keySize of keySizes) {
    try {
      return { keySize, ivSize: ivSizeOf(plan, crypto.getRandomValues(new Uint8Array(keySize))) };
    } catch (error) {
      const isLength = error instanceof Failure || codeOf(error) === "EINVAL";
      if (!isLength) throw error;
      refusal = error;
    }
  }
  throw refusal;
}

/** What the API refuses before it begins is an option's fault. */
export function asUsage<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw error instanceof TypeError || error instanceof RangeError ? wrongUsage(error.message) : error;
  }
}
