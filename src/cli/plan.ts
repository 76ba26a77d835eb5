/**
 * The options of a cipher.
 *
 * @module
 */

import { padsByDefault, parseAlgorithm } from "../algorithms.ts";
import { CipherHandle, type EngineChoice, type IVMode, type KernelKey, type Padding } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import { isAEAD, namedCipher } from "../cipher_names.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { LONGEST_KEY } from "./secrets.ts";

/** The cipher of `encrypt` and `decrypt` without `--cipher`. */
export const DEFAULT_CIPHER = "cbc(aes)";

/** The checked options of a cipher. */
export interface CryptPlan {
  readonly cipher: string;
  /** The length of the key in bytes, if the options name one. */
  readonly keySize: number | undefined;
  readonly engine: EngineChoice;
  readonly padding: Padding | undefined;
  readonly sectorSize: number | undefined;
  readonly sector: bigint | undefined;
  readonly ivLargeSectors: boolean;
  readonly ivMode: IVMode | undefined;
  readonly position: number | undefined;
  readonly counterBits: 32 | 64 | 128 | undefined;
  readonly inPlace: true;
}

export function planOf(args: Arguments): CryptPlan {
  const sector = args.get("sector");
  if (sector !== undefined && !/^\d{1,20}$/.test(sector)) throw wrongUsage("--sector expects a whole number");
  const keyBits = args.integer("key-bits", 8, 8 * LONGEST_KEY);
  if (keyBits !== undefined && keyBits % 8 !== 0) throw wrongUsage("--key-bits expects a multiple of 8");
  const name = args.get("cipher") ?? DEFAULT_CIPHER;
  const { cipher, keySize = keyBits && keyBits / 8 } = cipherOf(name);
  if (keyBits !== undefined && keySize !== keyBits / 8) {
    throw wrongUsage(`${name} takes a key of ${8 * keySize!} bits, not of --key-bits ${keyBits}`);
  }
  return {
    keySize,
    cipher,
    engine: (args.get("engine") ?? "auto") as EngineChoice,
    padding: args.get("padding") as Padding | undefined,
    sectorSize: args.integer("sector-size", 1),
    sector: sector === undefined ? undefined : BigInt(sector),
    ivLargeSectors: args.has("iv-large-sectors"),
    ivMode: args.get("iv-mode") as IVMode | undefined,
    position: args.integer("position", 0, Number.MAX_SAFE_INTEGER),
    counterBits: args.integer("counter-bits", 32, 128) as CryptPlan["counterBits"],
    inPlace: true,
  };
}

/** The part of the plan that the API takes as options. */
export function optionsOf(
  { cipher: _cipher, keySize: _keySize, ...options }: CryptPlan,
): Omit<CryptPlan, "cipher" | "keySize"> {
  return options;
}

/** The kernel's name of a cipher. OpenSSL's names, such as aes-256-ctr or des3, also imply the key's length. */
export function cipherOf(name: string): { cipher: string; keySize?: number } {
  if (isAEAD(name)) {
    throw wrongUsage(`${name} is an AEAD, which also authenticates: use ${NAME} seal and unseal, or -c gcm(aes)`);
  }
  const { algorithm = name, keySize } = namedCipher(name) ?? {};
  return { cipher: algorithm, ...keySize && algorithm !== name && { keySize } };
}

/** Whether the plaintext is padded. */
export function pads({ cipher, padding }: CryptPlan): boolean {
  return (padding ?? (asUsage(() => padsByDefault(parseAlgorithm(cipher))) ? "pkcs7" : "none")) === "pkcs7";
}

/** The length of the IV that the cipher needs: 0 with sectors, whose number is the IV. */
export function ivSizeOf({ cipher, engine, sectorSize }: CryptPlan, key: Bytes | KernelKey): number {
  using handle = asUsage(() => CipherHandle.open(cipher, { key, engine }));
  return sectorSize === undefined ? handle.ivSize : 0;
}

/** The lengths of key and IV. Tries keys, the longest first: the cipher refuses a wrong length. */
export function sizesOf(plan: CryptPlan): { keySize: number; ivSize: number } {
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

/**
 * Turns a TypeError or RangeError of the API into a usage error. A promise rejects with it.
 *
 * @param where The file that the argument comes from, for the message.
 */
export function asUsage<T>(action: () => T, where?: string): T {
  const refuse = (error: unknown): never => {
    const isRefusal = error instanceof TypeError || error instanceof RangeError;
    throw isRefusal ? wrongUsage(where === undefined ? error.message : `${where}: ${error.message}`) : error;
  };
  try {
    const result = action();
    return result instanceof Promise ? result.catch(refuse) as T : result;
  } catch (error) {
    return refuse(error);
  }
}
