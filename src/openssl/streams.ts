/**
 * The files of `openssl enc`, as streams: header, key derivation, cipher and base64.
 *
 * @module
 */

import { checkSignal } from "../abort.ts";
import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, type BytesLike, describe } from "../bytes.ts";
import { namedCipher } from "../cipher_names.ts";
import { DecryptionStream, EncryptionStream } from "../cipher/streams.ts";
import { checkEngine, checkPadding } from "../cipher/options.ts";
import type { CipherStreamOptions } from "../cipher/prepare.ts";
import { KcapiError } from "../errors.ts";
import { checkPool } from "../executors/executor.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import type { Secret } from "../secret.ts";
import { deferStream, type StreamSides } from "../streams/deferred.ts";
import { base64Decoder, base64Encoder, codecStream } from "./base64.ts";
import { HEADER_SIZE, headerOf, maybeBase64, maybeHeader, randomSalt, saltOf } from "./header.ts";
import {
  checkDerivation,
  checkSalt,
  type Derivation,
  derive,
  type OpenSSLDerivation,
  otherDerivations,
  passphraseSecret,
} from "./key.ts";

/** Options of {@linkcode OpenSSLEncryptionStream} and {@linkcode OpenSSLDecryptionStream}. */
export interface OpenSSLOptions
  extends OpenSSLDerivation, Pick<CipherStreamOptions, "engine" | "padding" | "signal" | "pool"> {
  /** The passphrase: text as UTF-8, or bytes. A copy is taken, and zeroed when the key is derived. */
  passphrase: string | BytesLike;
  /**
   * Leave this out for the usual header: `Salted__` and a random salt. Without a header, give the salt of 8 bytes
   * (`openssl enc -S`), or none at all as an empty array (`-nosalt`).
   */
  salt?: BytesLike | undefined;
  /**
   * Whether the file is base64 (`openssl enc -a`). Encryption writes lines of 64 characters, or with `"one line"` a
   * single one (`-A`). Decryption reads both; white space does not matter. Default: false.
   */
  base64?: boolean | "one line" | undefined;
}

const NAMES: OptionNames<OpenSSLOptions> = {
  passphrase: true,
  salt: true,
  base64: true,
  kdf: true,
  digest: true,
  iterations: true,
  engine: true,
  padding: true,
  signal: true,
  pool: true,
};

/** A cipher by the kernel's name, with the sizes in bytes of what is derived for it. */
interface Cipher {
  readonly algorithm: string;
  readonly keySize: number;
  readonly ivSize: number;
}

interface OpenSSLPlan {
  readonly cipher: Cipher;
  readonly derivation: Derivation;
  readonly passphrase: Secret;
  /** Undefined where it is in the header. */
  readonly salt: Bytes | undefined;
  readonly base64: boolean | "one line";
  readonly options: Pick<CipherStreamOptions, "engine" | "padding" | "signal" | "pool">;
}

/**
 * Encrypts as `openssl enc` does, with a passphrase. Nothing is authenticated: for new files, use sealed streams.
 *
 * @example Usage
 * ```ts
 * import { OpenSSLDecryptionStream, OpenSSLEncryptionStream } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const options = { passphrase: "hunter2", iterations: 100_000 }; // openssl enc -aes-256-cbc -pbkdf2 -iter 100000
 * const text = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new OpenSSLEncryptionStream("aes-256-cbc", options))
 *   .pipeThrough(new OpenSSLDecryptionStream("aes-256-cbc", options));
 * assertEquals(await new Response(text).text(), "attack at dawn");
 * ```
 */
export class OpenSSLEncryptionStream {
  /** The output: the file. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Where the plaintext goes in. */
  readonly writable: WritableStream<BytesLike>;

  /**
   * Creates the stream. The key is derived when the first chunk is written.
   *
   * @param cipher OpenSSL's name, such as `"aes-256-cbc"`.
   * @param options The passphrase, and how a key is derived from it.
   * @throws {TypeError} If an argument is of a wrong type, or there is no such cipher.
   * @throws {RangeError} If a value is out of range.
   */
  constructor(cipher: string, options: OpenSSLOptions) {
    const plan = check(cipher, options);
    const salt = plan.salt ?? randomSalt();
    const prefix = plan.salt ? undefined : headerOf(salt);
    const open = async (rest?: Bytes) => ({ stream: await openCipher(EncryptionStream, plan, salt), prefix, rest });
    const stream = deferStream({ add: open, end: open }, plan.options.signal);
    this.writable = stream.writable;
    this.readable = plan.base64
      ? stream.readable.pipeThrough(codecStream(base64Encoder(plan.base64 !== "one line")))
      : stream.readable;
  }
}

/**
 * Decrypts a file of `openssl enc` that was made with a passphrase.
 *
 * Nothing is authenticated. In modes with padding, a wrong passphrase, digest, derivation or number of iterations is
 * EBADMSG, except in about 1 of 256 cases. In modes without padding, it is not detected.
 */
export class OpenSSLDecryptionStream {
  /** Where the plaintext comes out. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Where the file goes in. */
  readonly writable: WritableStream<BytesLike>;

  /**
   * Creates the stream. The key is derived when the header is complete.
   *
   * @param cipher OpenSSL's name, such as `"aes-256-cbc"`.
   * @param options The passphrase, and how a key is derived from it. `salt` and `base64` as the file was made.
   * @throws {TypeError} If an argument is of a wrong type, or there is no such cipher.
   * @throws {RangeError} If a value is out of range.
   */
  constructor(cipher: string, options: OpenSSLOptions) {
    const plan = check(cipher, options);
    const opening = plan.salt ? openingWithSalt(plan, plan.salt) : openingWithHeader(plan);
    const explain = (error: unknown) => withOtherWays(error, plan.derivation);
    const stream = deferStream({ ...opening, explain }, plan.options.signal);
    this.readable = stream.readable;
    if (!plan.base64) {
      this.writable = stream.writable;
      return;
    }
    const decoder = codecStream(base64Decoder());
    decoder.readable.pipeTo(stream.writable).catch(() => {}); // both sides get the error
    this.writable = decoder.writable as WritableStream<BytesLike>;
  }
}

function openingWithSalt(plan: OpenSSLPlan, salt: Bytes) {
  const open = async (rest?: Bytes) => ({ stream: await openCipher(DecryptionStream, plan, salt), rest });
  return { add: open, end: open };
}

function openingWithHeader(plan: OpenSSLPlan) {
  const header = new Uint8Array(HEADER_SIZE);
  let length = 0;
  return {
    add(chunk: Bytes) {
      const taken = Math.min(chunk.length, HEADER_SIZE - length);
      header.set(new Uint8Array(chunk.buffer, chunk.byteOffset, taken), length);
      length += taken;
      const start = header.subarray(0, length);
      if (!maybeHeader(start)) throw createHeaderError(start);
      if (length < HEADER_SIZE) return undefined;
      const rest = chunk.slice(taken);
      return openCipher(DecryptionStream, plan, saltOf(header)).then((stream) => ({ stream, rest }));
    },
    end: () => Promise.reject(new KcapiError("EBADMSG", "decrypt", "the input ends within OpenSSL's header")),
  };
}

/** Creates the error for a file without OpenSSL's header. */
function createHeaderError(start: Bytes): KcapiError {
  const hint = maybeBase64(start)
    ? "it is base64: set base64 to true"
    : "if it was made with -nosalt or -S, give the salt (an empty one for -nosalt)";
  return new KcapiError("EBADMSG", "decrypt", 'the input does not begin with "Salted__"', { hint });
}

/** The error of a passphrase that does not fit, with what else the file may be made with. */
function withOtherWays(error: unknown, derivation: Derivation): unknown {
  if (!(error instanceof KcapiError) || error.code !== "EBADMSG" || error.hint !== undefined) return error;
  if (error.operation !== "decrypt") return error;
  const ways = otherDerivations(derivation).map(({ by, kdf, digest, iterations }) => {
    const rounds = kdf === "pbkdf2" ? `, iterations: ${iterations.toLocaleString("en")}` : "";
    return `kdf: "${kdf}", digest: "${digest}"${rounds} (${by})`;
  });
  const hint = `if the passphrase is right, the file was made in another way, such as ${ways.join("; ")}`;
  return new KcapiError(error.code, error.operation, error.detail, { hint, cause: error.cause });
}

async function openCipher(
  Stream: typeof EncryptionStream | typeof DecryptionStream,
  { cipher, derivation, passphrase, options }: OpenSSLPlan,
  salt: Bytes,
): Promise<StreamSides> {
  const { algorithm, keySize, ivSize } = cipher;
  try {
    using derived = await derive(passphrase, salt, derivation, keySize + ivSize);
    const key = derived.bytes.subarray(0, keySize);
    const iv = ivSize > 0 ? derived.bytes.subarray(keySize) : undefined;
    return new Stream(algorithm, { ...options, key, iv });
  } finally {
    passphrase.dispose();
  }
}

function check(name: string, options: OpenSSLOptions): OpenSSLPlan {
  checkOptions("options", options, NAMES);
  if (typeof name !== "string") throw new TypeError(`"cipher" expected a string, got ${describe(name)}`);
  const cipher = cipherOf(name);
  const { engine, padding, signal, pool, salt, base64 = false } = options;
  if (typeof base64 !== "boolean" && base64 !== "one line") {
    throw new TypeError(`"base64" expected a boolean or "one line", got ${describe(base64)}`);
  }
  checkEngine(engine);
  checkPadding(parseAlgorithm(cipher.algorithm), padding);
  checkSignal(signal);
  checkPool(pool);
  return {
    cipher,
    derivation: checkDerivation(options),
    salt: salt === undefined ? undefined : checkSalt(salt),
    base64,
    options: { engine, padding, signal, pool },
    passphrase: passphraseSecret(options.passphrase),
  };
}

function cipherOf(name: string): Cipher {
  const { library, algorithm, keySize } = namedCipher(name) ?? {};
  if (library !== "OpenSSL" || algorithm === undefined || keySize === undefined) {
    throw new TypeError(
      `"cipher" expected OpenSSL's name of a cipher, such as "aes-256-cbc", got ${JSON.stringify(name.slice(0, 40))}`,
    );
  }
  return { algorithm, keySize, ivSize: parseAlgorithm(algorithm).ivSize! };
}
