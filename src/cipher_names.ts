/**
 * The names that OpenSSL (`openssl enc`, `node:crypto`) and WebCrypto have for the kernel's ciphers.
 *
 * @module
 */

/** What another library's name of a cipher stands for. */
export interface NamedCipher {
  readonly library: "OpenSSL" | "WebCrypto";
  /** The kernel's name, such as `cbc(aes)`; undefined if it has no such cipher. */
  readonly algorithm: string | undefined;
  /** The key's length in bytes, if the name implies one. */
  readonly keySize: number | undefined;
}

const MODES: Readonly<Record<string, string>> = {
  cbc: "cbc",
  cfb: "cfb",
  cfb128: "cfb",
  ctr: "ctr",
  ecb: "ecb",
  ofb: "ofb",
  xts: "xts",
};

/** OpenSSL's ciphers with one length of the key, in bytes. */
const ONE_KEY_SIZE: Readonly<Record<string, readonly [cipher: string, keySize: number, mode: string]>> = {
  "3des": ["des3_ede", 24, "cbc"],
  "bf": ["blowfish", 16, "cbc"],
  "blowfish": ["blowfish", 16, "cbc"],
  "cast": ["cast5", 16, "cbc"],
  "cast5": ["cast5", 16, "cbc"],
  "des3": ["des3_ede", 24, "cbc"],
  "des-ede3": ["des3_ede", 24, "ecb"], // OpenSSL's des-ede3 is ECB, its des3 CBC
  "des": ["des", 8, "cbc"], // behind the names that begin with it
  "seed": ["seed", 16, "cbc"],
  "sm4": ["sm4", 16, "cbc"],
};

const UNSIZED = new RegExp(`^(${Object.keys(ONE_KEY_SIZE).join("|")})(?:-(\\w+))?$`);

/** OpenSSL's full names, in which `*` is a mode. */
const FULL_NAMES = [
  ...["aes", "aria", "camellia"].flatMap((cipher) => [128, 192, 256].map((bits) => `${cipher}-${bits}-*`)),
  ...["bf", "cast5", "des", "des-ede3", "seed", "sm4"].map((cipher) => `${cipher}-*`),
];

/** The ciphers that OpenSSL has in a mode, if it has not all of them. */
const LIMITED: Readonly<Record<string, RegExp>> = { ctr: /^(?:aes|aria|camellia|sm4)\b/, xts: /^aes-(?:128|256)\b/ };

/** OpenSSL's full names of a cipher of the kernel, one for each length of the key: `aes-128-cbc`, …  */
export function opensslNames(algorithm: string): readonly string[] {
  const modes = ["cbc", "cfb", "ctr", "ecb", "ofb", "xts"];
  const all = FULL_NAMES.flatMap((name) =>
    modes.filter((mode) => LIMITED[mode]?.test(name) ?? true).map((mode) => name.replace("*", mode))
  );
  const gcm = algorithm === "gcm(aes)" ? [128, 192, 256].map((bits) => `aes-${bits}-gcm`) : [];
  return [...all, "chacha20"].filter((name) => namedCipher(name)?.algorithm === algorithm).concat(gcm);
}

/**
 * The cipher of an OpenSSL or WebCrypto name, in upper or lower case.
 *
 * @param name Such as `aes-256-cbc`, `aes256`, `des3`, `chacha20` or `AES-CTR`.
 * @returns Undefined if it is no such name.
 */
export function namedCipher(name: string): NamedCipher | undefined {
  const lower = name.toLowerCase();
  if (lower === "chacha20") return { library: "OpenSSL", algorithm: lower, keySize: 32 };
  const [, webMode] = /^aes-(cbc|ctr|kw)$/.exec(lower) ?? [];
  if (webMode) return { library: "WebCrypto", algorithm: `${webMode}(aes)`, keySize: undefined };
  // `aes256` is short for `aes-256-cbc`.
  const [, sized, bits, sizedMode = "cbc"] = /^(aes|aria|camellia)-?(128|192|256)(?:-([\w-]+))?$/.exec(lower) ?? [];
  if (sized) return inMode(sizedMode, sized, Number(bits) / 8);
  // Not in the kernel: 3DES with two keys, which is another length of the key, and others.
  if (/^(?:des-ede|desx|idea|rc2|rc4)(?:-\w+)*$/.test(lower)) return inMode("none", lower, 0);
  const [, unsized, unsizedMode] = UNSIZED.exec(lower) ?? [];
  if (!unsized) return undefined;
  const [cipher, keySize, mode] = ONE_KEY_SIZE[unsized]!;
  return inMode(unsizedMode ?? mode, cipher, keySize);
}

function inMode(name: string, cipher: string, size: number): NamedCipher {
  const mode = Object.hasOwn(MODES, name) ? MODES[name] : undefined;
  const keySize = mode === "xts" ? 2 * size : size;
  return { library: "OpenSSL", algorithm: mode && `${mode}(${cipher})`, keySize };
}

const KERNEL_AEAD =
  /^(?:gcm|ccm|rfc4106|rfc4309|rfc4543|rfc7539(?:esp)?|authenc(?:esn)?|seqiv|echainiv|krb5enc|aegis\d+\w*|morus\d+)\b/;
const OTHER_AEAD = /(?:^|[^a-z])(?:gcm|ccm|ocb|siv|eax)(?![a-z0-9])|^x?chacha20-?poly1305$/i;

/** Whether a name is that of an AEAD, in the kernel, OpenSSL or WebCrypto. */
export function isAEAD(name: string): boolean {
  return KERNEL_AEAD.test(name) || OTHER_AEAD.test(name);
}

/**
 * What OpenSSL's or WebCrypto's name of AES-GCM implies: `aes-256-gcm`, `aes256gcm`, `id-aes256-GCM`, `AES-GCM`.
 *
 * @returns The key's length in bytes, if the name has one. Undefined if it is no such name.
 */
export function namedGcm(name: string): { readonly keySize: number | undefined } | undefined {
  const [match, bits] = /^(?:id-)?aes(?:-?(128|192|256))?-?gcm$/i.exec(name) ?? [];
  return match === undefined ? undefined : { keySize: bits === undefined ? undefined : Number(bits) / 8 };
}
