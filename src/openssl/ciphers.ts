/**
 * OpenSSL's names of ciphers, which `node:crypto` and `openssl enc` use.
 *
 * @module
 */

/** A cipher by the kernel's name, with the sizes that OpenSSL's name implies. */
export interface NamedCipher {
  /** The kernel's name, such as `"cbc(aes)"`. */
  readonly algorithm: string;
  /** Bytes of the key. */
  readonly keySize: number;
  /** Bytes of the IV; 0 where there is none. */
  readonly ivSize: number;
}

const SIZED: Readonly<Record<string, string>> = { aes: "aes", aria: "aria", camellia: "camellia" };
const MODES: Readonly<Record<string, string>> = {
  cbc: "cbc",
  cfb: "cfb",
  cfb128: "cfb",
  ctr: "ctr",
  ecb: "ecb",
  ofb: "ofb",
};
const BLOCK = 16;
const DES_BLOCK = 8;

/** Names without a pattern. */
const OTHERS: Readonly<Record<string, NamedCipher>> = {
  "chacha20": { algorithm: "chacha20", keySize: 32, ivSize: 16 },
  "des3": { algorithm: "cbc(des3_ede)", keySize: 24, ivSize: DES_BLOCK },
  "des-ede3": { algorithm: "ecb(des3_ede)", keySize: 24, ivSize: 0 },
};

/**
 * The cipher that OpenSSL means by a name, in upper or lower case.
 *
 * @param name Such as `"aes-256-cbc"`, `"aes256"`, `"des-ede3-cbc"` or `"chacha20"`.
 * @returns Undefined if OpenSSL has no such name, or this module no such cipher.
 */
export function cipherOfOpenSSL(name: string): NamedCipher | undefined {
  const lower = name.toLowerCase();
  if (Object.hasOwn(OTHERS, lower)) return OTHERS[lower];
  // `aes256` is the short name of `aes-256-cbc`.
  const [, cipher, bits, mode = "cbc"] = /^(aes|aria|camellia)-?(128|192|256)(?:-(\w+))?$/.exec(lower) ?? [];
  if (cipher && bits) {
    if (mode === "xts" && cipher === "aes" && bits !== "192") {
      return { algorithm: "xts(aes)", keySize: 2 * Number(bits) / 8, ivSize: BLOCK };
    }
    return modeOf(mode, SIZED[cipher]!, Number(bits) / 8, BLOCK);
  }
  const [, plain, plainMode = "cbc"] = /^(sm4|des-ede3|bf|cast5|seed)(?:-(\w+))?$/.exec(lower) ?? [];
  if (plain === "sm4") return modeOf(plainMode, "sm4", 16, BLOCK);
  if (plain === "des-ede3") return modeOf(plainMode, "des3_ede", 24, DES_BLOCK);
  if (plain === "bf") return modeOf(plainMode, "blowfish", 16, DES_BLOCK);
  if (plain === "cast5") return modeOf(plainMode, "cast5", 16, DES_BLOCK);
  return undefined;
}

function modeOf(mode: string, cipher: string, keySize: number, block: number): NamedCipher | undefined {
  if (!Object.hasOwn(MODES, mode)) return undefined;
  return { algorithm: `${MODES[mode]!}(${cipher})`, keySize, ivSize: MODES[mode] === "ecb" ? 0 : block };
}
