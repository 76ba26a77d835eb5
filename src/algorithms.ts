/**
 * What each algorithm of the kernel needs: does its state carry on from one op to the next, and what
 * are its sizes. Decided by rule from the name, because templates nest without end.
 *
 * @module
 */

import { isAEAD, namedCipher } from "./cipher_names.ts";

/**
 * How an algorithm may be cut into ops (rule F5). Measured, 64-byte ops against one op over the same bytes:
 *
 * - `stream`: state carries on, any cut gives the same bytes.
 * - `counter`: restarts at every op, but the IV holds the block counter, so it can be advanced.
 * - `sector`: a sector is one op whose IV is its number; without sectors, one message.
 * - `message`: everything in one op.
 */
export type Kind = "stream" | "counter" | "sector" | "message";

/** What the name of an algorithm tells about it. */
export interface Algorithm {
  /** The name as given: the kernel's name or a driver's. */
  readonly name: string;
  readonly kind: Kind;
  /** The outermost template or stream cipher, such as `cbc`, `xts`, `chacha20`. */
  readonly mode: string;
  /** The block cipher inside, such as `aes`, where it is known. */
  readonly cipher: string | undefined;
  /** Bytes in which the kernel works: `chunksize` in /proc/crypto, or a multiple of it. */
  readonly chunkSize: number;
  /** Input must be a multiple of this many bytes; undefined where only the engine knows. */
  readonly blockSize: number | undefined;
  /** The IV's length; undefined where only the engine knows. */
  readonly ivSize: number | undefined;
  /** The key lengths there are; undefined where only the engine knows. */
  readonly keySizes: readonly number[] | undefined;
  /** `counter`: where in the IV the 32-bit little-endian block counter is. */
  readonly counterOffset: number;
  /** `sector`: the shortest last sector; 0 where a sector must be whole. */
  readonly shortestSector: number;
  /** The state of the stream lies in the key: a second stream under it would go on where the first ended. */
  readonly oneStreamPerKey: boolean;
}

/** A multiple of every chunk size there is: what to use where the true one is not known. */
const SAFE_CHUNK = 64;

const AES_KEYS = [16, 24, 32];

/** Block ciphers: block size and, where they are a short list, key sizes. */
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

/** What a mode adds to the sizes of its cipher; sizes are functions of the cipher's block. */
export interface ModeRule {
  readonly kind: Kind;
  /** Input length must be a multiple of the cipher's block. */
  readonly wholeBlocks?: boolean;
  readonly iv: number | "block";
  /** Key length from the cipher's. */
  readonly key?: (size: number) => number;
  readonly keys?: readonly number[];
  readonly chunk?: number;
  readonly counterOffset?: number;
  readonly shortestSector?: number;
}

const CARRIES_ON: ModeRule = { kind: "stream", iv: "block" };
const CHAINED: ModeRule = { kind: "stream", iv: "block", wholeBlocks: true };
// crypto/chacha_generic.c: the counter is word 12 of the state, taken from the IV's start (chacha20)
// or from byte 24 of it (xchacha: 16 + 8 bytes of nonce stand in front).
const CHACHA: ModeRule = { kind: "counter", iv: 16, keys: [32], chunk: 64, counterOffset: 0 };
const XCHACHA: ModeRule = { kind: "counter", iv: 32, keys: [32], chunk: 64, counterOffset: 24 };

export const MODES: Readonly<Record<string, ModeRule>> = {
  cbc: CHAINED,
  pcbc: CHAINED,
  ecb: { kind: "stream", iv: 0, wholeBlocks: true },
  lrw: { kind: "stream", iv: 16, wholeBlocks: true, key: (size) => size + 16 },
  ctr: CARRIES_ON,
  cfb: CARRIES_ON,
  ofb: CARRIES_ON,
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

/** Wrappers that change how a cipher is run but not its bytes. */
const TRANSPARENT = /^(?:cryptd|simd|fpu)\((.*)\)$/;

const HASH =
  /^(?:sha\d|md[45]|hmac|cmac|xcbc|cbcmac|vmac|crc|ghash|poly(?:1305|val)|nhpoly1305|blake2|sm3|rmd\d|wp\d|tgr\d|streebog|michael_mic|xxhash|digest_null)/;

/**
 * Reads an algorithm's name.
 *
 * Names nobody has measured are `message`: unsafe to continue until proven.
 *
 * @throws {TypeError} If the name is not a string or has characters no algorithm has.
 * @throws {RangeError} If it is longer than the kernel's 63 bytes, or names what is not a cipher to stream, or is the
 * name that OpenSSL or WebCrypto has for one: the error gives the kernel's.
 */
export function parseAlgorithm(name: string): Algorithm {
  checkName(name);
  const bare = unwrap(name);
  const mode = /^[a-z0-9_]*/i.exec(bare)![0];
  const rule = Object.hasOwn(MODES, mode) ? MODES[mode] : undefined;
  const cipher = rule?.keys ? undefined : innerCipher(bare.slice(mode.length));
  const [block, cipherKeys] = cipher === undefined ? [undefined, undefined] : CIPHERS[cipher]!;
  // essiv takes the key of the mode inside, which is the cipher's own only in cbc.
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
    counterOffset: rule?.counterOffset ?? 0,
    shortestSector: rule?.shortestSector ?? 0,
    // crypto/arc4.c before Linux 6.8
    oneStreamPerKey: cipher === "arc4",
  };
}

/** Whether a stream can be cut into sectors. */
export function hasSectors({ kind, mode }: Algorithm): boolean {
  return kind === "sector" || mode === "cbc";
}

/** The algorithm as it encrypts sectors: each one is a message, also in cbc (dm-crypt's aes-cbc-plain64). */
export function inSectors(algorithm: Algorithm): Algorithm {
  return { ...algorithm, kind: "sector" };
}

/** Whether PKCS#7 is the custom in this mode: the padding's default. */
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
  // sockaddr_alg.salg_name has 64 bytes; libkcapi cuts longer names, which could name another algorithm.
  if (name.length > 63) {
    throw new RangeError(`"algorithm" expected a name of at most 63 characters, got ${name.length}`);
  }
  if (isAEAD(name)) {
    throw new RangeError(
      `"algorithm" ${name} is an AEAD, which also authenticates: use sealed streams, such as SealStream or seal()`,
    );
  }
  if (HASH.test(name)) {
    throw new RangeError(`"algorithm" ${name} is a hash, not a cipher: use node:crypto's createHash or createHmac`);
  }
  if (Object.hasOwn(CIPHERS, name)) {
    throw new RangeError(`"algorithm" ${name} is a block cipher without a mode: name one, such as "cbc(${name})"`);
  }
  checkLibrary(name);
}

/** The names of other libraries are not the kernel's. */
function checkLibrary(name: string): void {
  const { library, algorithm, keySize } = namedCipher(name) ?? {};
  if (library === undefined || algorithm === name) return;
  const ours = algorithm === undefined
    ? "which this module does not have: listCiphers() tells what there is"
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

/** The first block cipher named in `inside`, as in `(aes)`, `(ecb(aes-generic))` or `-aes-aesni`. */
function innerCipher(inside: string): string | undefined {
  return inside.split(/[^a-z0-9_]+/i).find((word) => Object.hasOwn(CIPHERS, word));
}
