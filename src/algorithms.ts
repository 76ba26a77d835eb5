/**
 * The properties of the kernel's algorithms: sizes, and whether the state continues from one op to the next. They
 * follow from the name by rules, because templates can be nested in any way.
 *
 * @module
 */

import { isAEAD, namedCipher, namedGcm } from "./cipher_names.ts";

/**
 * How a stream of an algorithm may be split into ops (rule F5). Measured: 64-byte ops against one op over the same
 * bytes.
 *
 * - `stream`: the state continues, so any split gives the same bytes.
 * - `counter`: the mode restarts at every op. The IV contains the block counter, which can be advanced.
 * - `sector`: each sector is one op, and its IV is its number. Without sectors, the stream is one message.
 * - `message`: the whole message is one op.
 */
export type Kind = "stream" | "counter" | "sector" | "message";

/** A block counter in the IV. */
interface Counter {
  /** The first byte of it. */
  readonly offset: number;
  /** Its bytes; undefined: all that are left of the IV. */
  readonly size: number | undefined;
  readonly isLittleEndian: boolean;
  /** It continues at 0 after its last number. Otherwise, the stream ends there. */
  readonly wraps: boolean;
}

/** The properties that follow from the name of an algorithm. */
export interface Algorithm {
  /** The name that was passed: the kernel's name, or the name of a driver. */
  readonly name: string;
  readonly kind: Kind;
  /** The outermost template or stream cipher, such as `cbc`, `xts`, `chacha20`. */
  readonly mode: string;
  /** The block cipher inside, such as `aes`, if it is known. */
  readonly cipher: string | undefined;
  /** The kernel processes multiples of this many bytes: `chunksize` in /proc/crypto, or a multiple of it. */
  readonly chunkSize: number;
  /** The input must be a multiple of this many bytes. Undefined if only the engine knows. */
  readonly blockSize: number | undefined;
  /** The IV's length. Undefined if only the engine knows. */
  readonly ivSize: number | undefined;
  /** The possible key lengths. Undefined if only the engine knows. */
  readonly keySizes: readonly number[] | undefined;
  /** The block counter in the IV, in modes that have one. */
  readonly counter: Counter | undefined;
  /** `sector`: the shortest last sector. 0 if a sector must be whole. */
  readonly shortestSector: number;
  /** The kernel keeps the state of the stream with the key: a second stream would continue the first one. */
  readonly oneStreamPerKey: boolean;
}

/** A multiple of every chunk size of the kernel, for algorithms whose chunk size is not known. */
const SAFE_CHUNK = 64;

const AES_KEYS = [16, 24, 32];

/** Block ciphers: the block size, and the key sizes if they are a short list. */
export const CIPHERS: Readonly<Record<string, readonly [block: number, keys?: readonly number[]]>> = {
  aes: [16, AES_KEYS],
  anubis: [16],
  arc4: [1],
  aria: [16, AES_KEYS],
  blowfish: [8],
  camellia: [16, AES_KEYS],
  cast5: [8],
  cast6: [16],
  des: [8, [8]],
  des3_ede: [8, [24]],
  fcrypt: [8, [8]],
  khazad: [8, [16]],
  seed: [16, [16]],
  serpent: [16],
  sm4: [16, [16]],
  tea: [8, [16]],
  twofish: [16, AES_KEYS],
  xeta: [8, [16]],
  xtea: [8, [16]],
};

/** The properties of a mode. Sizes may depend on its cipher. */
export interface ModeRule {
  readonly kind: Kind;
  /** Input length must be a multiple of the cipher's block. */
  readonly wholeBlocks?: boolean;
  readonly iv: number | "block";
  /** The key length, from the cipher's key length. */
  readonly key?: (size: number) => number;
  readonly keys?: readonly number[];
  readonly chunk?: number;
  readonly counter?: Counter;
  readonly shortestSector?: number;
}

const CONTINUES: ModeRule = { kind: "stream", iv: "block" };
const CHAINED: ModeRule = { kind: "stream", iv: "block", wholeBlocks: true };
// crypto/chacha_generic.c: the counter is word 12 of the state. It comes from the start of the IV (chacha20), or from
// byte 24 (xchacha: after 16 + 8 bytes of nonce).
const CHACHA: ModeRule = { kind: "counter", iv: 16, keys: [32], chunk: 64, counter: chachaCounter(0) };
const XCHACHA: ModeRule = { kind: "counter", iv: 32, keys: [32], chunk: 64, counter: chachaCounter(24) };

/** In the kernel, it wraps around into keystream that was used before, so that a stream must end there. */
function chachaCounter(offset: number): Counter {
  return { offset, size: 4, isLittleEndian: true, wraps: false };
}

export const MODES: Readonly<Record<string, ModeRule>> = {
  cbc: CHAINED,
  pcbc: CHAINED,
  ecb: { kind: "stream", iv: 0, wholeBlocks: true },
  lrw: { kind: "stream", iv: 16, wholeBlocks: true, key: (size) => size + 16 },
  // SP 800-38A: all of the IV is one number.
  ctr: { ...CONTINUES, counter: { offset: 0, size: undefined, isLittleEndian: false, wraps: true } },
  cfb: CONTINUES,
  ofb: CONTINUES,
  chacha20: CHACHA,
  xchacha20: XCHACHA,
  xchacha12: XCHACHA,
  xts: { kind: "sector", iv: 16, key: (size) => 2 * size, shortestSector: 16 },
  essiv: { kind: "sector", iv: "block", wholeBlocks: true },
  adiantum: { kind: "sector", iv: 32, keys: [32], shortestSector: 16 },
  hctr2: { kind: "sector", iv: 32, shortestSector: 16 },
  hctr2_base: { kind: "sector", iv: 32, shortestSector: 16 },
  cts: { kind: "message", iv: "block" },
  rfc3686: { kind: "message", iv: 8, key: (size) => size + 4 },
  xctr: { kind: "message", iv: 16 },
  kw: { kind: "message", iv: 8 },
};

/** Templates that change how the kernel runs a cipher, but not its output. */
const TRANSPARENT = /^(?:cryptd|simd|fpu)\((.*)\)$/;

const HASHES =
  "sha\\d md[45] hmac cmac xcbc cbcmac vmac crc ghash poly(?:1305|val) nhpoly1305 blake2 sm3 rmd\\d wp\\d " +
  "tgr\\d streebog michael_mic xxhash digest_null";
const HASH = new RegExp(`^(?:${HASHES.replaceAll(" ", "|")})`);

/**
 * Parses an algorithm's name.
 *
 * An unknown mode has the kind `message`, because to continue it may be unsafe.
 *
 * @throws {TypeError} If the name is not a string, or has characters that no algorithm has.
 * @throws {RangeError} If the name is longer than the kernel's 63 bytes, if the algorithm cannot be streamed (an AEAD,
 * a hash, a block cipher without a mode), or if it is OpenSSL's or WebCrypto's name. Then the error gives the kernel's.
 */
export function parseAlgorithm(name: string): Algorithm {
  checkName(name);
  const bare = unwrap(name);
  const mode = /^[a-z0-9_]*/i.exec(bare)![0];
  const rule = Object.hasOwn(MODES, mode) ? MODES[mode] : undefined;
  const cipher = rule?.keys ? undefined : innerCipher(bare.slice(mode.length));
  const [block, cipherKeys] = cipher === undefined ? [undefined, undefined] : CIPHERS[cipher]!;
  // essiv uses the key of the inner mode. Only for cbc, its length is that of the cipher.
  const knowsKeys = rule !== undefined && (mode !== "essiv" || bare.startsWith("essiv(cbc"));
  const kind = rule?.kind ?? "message";
  return {
    name,
    kind,
    mode,
    cipher,
    chunkSize: rule?.chunk ?? (rule && block) ?? SAFE_CHUNK,
    blockSize: kind === "stream" || kind === "counter" ? (rule!.wholeBlocks ? block : 1) : undefined,
    ivSize: rule?.iv === "block" ? block : rule?.iv,
    keySizes: rule?.keys ?? (knowsKeys ? cipherKeys?.map(rule.key ?? ((size) => size)) : undefined),
    counter: rule?.counter,
    shortestSector: rule?.shortestSector ?? 0,
    // crypto/arc4.c before Linux 6.8
    oneStreamPerKey: cipher === "arc4",
  };
}

/** Whether a stream can be split into sectors. */
export function hasSectors({ kind, mode }: Algorithm): boolean {
  return kind === "sector" || mode === "cbc";
}

/** The algorithm with sectors: each sector is a message, also in cbc (dm-crypt's aes-cbc-plain64). */
export function inSectors(algorithm: Algorithm): Algorithm {
  return { ...algorithm, kind: "sector" };
}

/** Whether a stream can start at any byte of the keystream. */
export function hasPositions({ counter, mode }: Algorithm): boolean {
  return counter !== undefined || mode === "rfc3686" || mode === "xctr";
}

/**
 * ctr with a counter of fewer bits than the block. It wraps around without a carry into the rest of the IV. The
 * counter of the engines does carry, so that a new op with another IV starts at the wrap.
 */
export function countingIn(algorithm: Algorithm, bits: number, ivSize: number): Algorithm {
  const size = bits / 8;
  if (size === ivSize) return algorithm;
  return {
    ...algorithm,
    kind: "counter",
    counter: { offset: ivSize - size, size, isLittleEndian: false, wraps: true },
  };
}

/** Whether this mode uses PKCS#7 by default. */
export function padsByDefault({ mode, kind }: Algorithm): boolean {
  if (kind === "sector") return false;
  return mode === "cbc" || mode === "ecb" || mode === "pcbc";
}

function checkName(name: string): void {
  if (typeof name !== "string") {
    throw new TypeError(`"algorithm" expected a string, got ${typeof name}`);
  }
  if (!/^[\w(][\w(),.\/-]*$/.test(name)) {
    throw new TypeError(
      `"algorithm" expected a name such as "cbc(aes)", got ${JSON.stringify(name.slice(0, 63))}`,
    );
  }
  // sockaddr_alg.salg_name has 64 bytes. libkcapi truncates longer names, and the result may be another algorithm.
  if (name.length > 63) {
    throw new RangeError(`"algorithm" expected a name of at most 63 characters, got ${name.length}`);
  }
  if (isAEAD(name)) {
    throw new RangeError(`"algorithm" ${name} is an AEAD, which also authenticates: ${adviceFor(name)}`);
  }
  if (HASH.test(name)) {
    throw new RangeError(`"algorithm" ${name} is a hash, not a cipher: use node:crypto's createHash or createHmac`);
  }
  if (Object.hasOwn(CIPHERS, name)) {
    throw new RangeError(`"algorithm" ${name} is a block cipher without a mode: name one, such as "cbc(${name})"`);
  }
  checkLibrary(name);
}

/** What to use for an AEAD. */
function adviceFor(name: string): string {
  if (name === "gcm(aes)") return "EncryptionStream, DecryptionStream, encrypt(), decrypt() and openGcm() take it";
  const { keySize } = namedGcm(name) ?? {};
  const key = keySize === undefined ? "" : `, with a key of ${keySize} bytes`;
  return `use sealed streams, such as SealStream or seal(); for data of other programs "gcm(aes)"${key}`;
}

/** Refuses the names of other libraries. */
function checkLibrary(name: string): void {
  const { library, algorithm, keySize } = namedCipher(name) ?? {};
  if (library === undefined || algorithm === name) return;
  const ours = algorithm === undefined
    ? "which this module does not support: listCiphers() lists the names"
    : `the kernel's is "${algorithm}"${keySize === undefined ? "" : `, with a key of ${keySize} bytes`}`;
  throw new RangeError(`"algorithm" ${name} is ${library}'s name of a cipher: ${ours}`);
}

function unwrap(name: string): string {
  for (;;) {
    const inner = TRANSPARENT.exec(name)?.[1];
    if (inner === undefined) return name.replace(/^_+/, "");
    name = inner;
  }
}

/** The first block cipher in `inside`, such as `(aes)`, `(ecb(aes-generic))` or `-aes-aesni`. */
function innerCipher(inside: string): string | undefined {
  return inside.split(/[^a-z0-9_]+/i).find((word) => Object.hasOwn(CIPHERS, word));
}
