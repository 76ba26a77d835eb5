/**
 * Passphrases: the files of `openssl enc`.
 *
 * @module
 */

import { type Bytes, inOnePiece } from "../bytes.ts";
import { base64Decoder, codecIterable } from "../openssl/base64.ts";
import { HEADER_SIZE, headerOf, maybeBase64, maybeHeader, randomSalt, SALT_SIZE, saltOf } from "../openssl/header.ts";
import { checkDerivation, type Derivation, derive, otherDerivations } from "../openssl/key.ts";
import { Secret } from "../secret.ts";
import { NAME } from "./about.ts";
import { type Arguments, fromHex } from "./arguments.ts";
import { Failure, wrongUsage } from "./failures.ts";
import { type Input, readInput } from "./input.ts";
import { type CryptPlan, pads, sizesOf } from "./plan.ts";

/** Iterations of PBKDF2. */
export const DEFAULT_ITERATIONS = 600_000;

/** The options that need a passphrase. */
export const PASSPHRASE_OPTIONS = ["iter", "md", "kdf", "salt", "nosalt", "key-bits"];

/** How the options say that a file is made. */
export interface OpenSSLFormat {
  readonly derivation: Derivation;
  /** Undefined if it is in the header of the file. */
  readonly salt: Bytes | undefined;
}

/** The format that the options name. */
export function formatOf(args: Arguments, plan: CryptPlan): OpenSSLFormat {
  for (const name of ["iv", "iv-prefix", "position", "counter-bits"]) {
    if (args.has(name)) throw wrongUsage(`--${name} is for keys: a passphrase gives the IV as well`);
  }
  const kdf = (args.get("kdf") ?? "pbkdf2") as Derivation["kdf"];
  const digest = (args.get("md") ?? "sha256") as Derivation["digest"];
  const asked = args.integer("iter", 1, 2 ** 31 - 1);
  if (kdf === "evp") {
    if (asked !== undefined) throw wrongUsage("--iter is for --kdf pbkdf2: evp always has one iteration");
    return { derivation: checkDerivation({ kdf, digest }), salt: saltOption(args) };
  }
  if (asked === undefined && !pads(plan)) {
    throw wrongUsage(
      `--iter is missing: without padding, a wrong number of iterations is not detected (${NAME}'s default is ` +
        `--iter ${DEFAULT_ITERATIONS}, that of openssl enc -pbkdf2 --iter 10000)`,
    );
  }
  const iterations = asked ?? DEFAULT_ITERATIONS;
  return { derivation: checkDerivation({ kdf, digest, iterations }), salt: saltOption(args) };
}

function saltOption(args: Arguments): Bytes | undefined {
  const hex = args.get("salt");
  if (hex === undefined) return args.has("nosalt") ? new Uint8Array(0) : undefined;
  if (args.has("nosalt")) throw wrongUsage("--salt and --nosalt exclude each other");
  const salt = fromHex("salt", hex);
  if (salt.length !== SALT_SIZE) throw wrongUsage(`--salt expects ${2 * SALT_SIZE} hexadecimal digits`);
  return salt;
}

/** The key and the IV, in memory of their own. */
export async function keyFor(
  plan: CryptPlan,
  passphrase: Bytes,
  { derivation }: OpenSSLFormat,
  salt: Bytes,
): Promise<{ key: Bytes; iv?: Bytes }> {
  const { keySize, ivSize } = sizesOf(plan);
  using secret = Secret.from(passphrase);
  using derived = await derive(secret, salt, derivation, keySize + ivSize);
  const key = Secret.from(derived.bytes.subarray(0, keySize)).bytes;
  return ivSize > 0 ? { key, iv: derived.bytes.slice(keySize) } : { key };
}

/** The salt of a new file, and its header. */
export function newSalt({ salt }: OpenSSLFormat): { salt: Bytes; header: Bytes } {
  if (salt) return { salt, header: new Uint8Array(0) };
  const made = randomSalt();
  return { salt: made, header: headerOf(made) };
}

/** A file whose salt is known. */
interface OpenedFile {
  readonly salt: Bytes;
  /** Bytes of the input in front of the ciphertext. */
  readonly headerSize: number;
  readonly isBase64: boolean;
  /** The ciphertext, of which the first part has been read. */
  readonly ciphertext: (chunks: AsyncIterable<Bytes>) => AsyncIterable<Bytes>;
}

/** Reads the header. A header in base64 shows that the file is base64. */
export async function openFile(input: Input, { salt }: OpenSSLFormat, base64: boolean): Promise<OpenedFile> {
  const raw = await readInput(input, new Uint8Array(HEADER_SIZE));
  const isBase64 = base64 || salt === undefined && !maybeHeader(raw) && raw.length === HEADER_SIZE && maybeBase64(raw);
  const decoder = isBase64 ? base64Decoder() : undefined;
  let start = decoder ? decoder.add(raw) : raw;
  for (let more = raw; decoder && start.length < HEADER_SIZE && more.length > 0;) {
    more = await readInput(input, new Uint8Array(HEADER_SIZE));
    start = inOnePiece([start, more.length > 0 ? decoder.add(more) : decoder.end()]);
  }
  const hasHeader = start.length >= HEADER_SIZE && maybeHeader(start);
  if (salt && hasHeader) {
    const option = salt.length > 0 ? "--salt" : "--nosalt";
    throw new Failure(3, `${input.name} begins with "Salted__" and its salt: leave out ${option}`);
  }
  if (!salt && !hasHeader) throw new Failure(3, whyNoHeader(input.name, start));
  const rest = salt ? start : start.slice(HEADER_SIZE);
  return {
    salt: salt ?? saltOf(start.subarray(0, HEADER_SIZE)),
    headerSize: salt ? 0 : HEADER_SIZE,
    isBase64,
    async *ciphertext(chunks) {
      if (rest.length > 0) yield rest;
      yield* decoder ? codecIterable(decoder, chunks) : chunks;
    },
  };
}

function whyNoHeader(name: string, start: Bytes): string {
  if (start.length < HEADER_SIZE && (maybeHeader(start) || maybeBase64(start))) {
    return `${name} is cut short: it ends within OpenSSL's header`;
  }
  return `${name} does not begin with "Salted__": it was encrypted with a key (--key-file), by openssl enc -nosalt ` +
    "(--nosalt) or -S (--salt), or by another program";
}

/** What to add to the options if the passphrase does not fit. */
export function otherWays({ derivation }: OpenSSLFormat): string {
  const ways = otherDerivations(derivation).map(({ by, kdf, digest, iterations }) => {
    const options = [
      ...kdf === derivation.kdf && kdf === "pbkdf2" ? [] : [`--kdf ${kdf}`],
      ...kdf === "pbkdf2" ? [`--iter ${iterations}`] : [],
      ...kdf === "evp" || digest !== derivation.digest ? [`--md ${digest}`] : [],
    ];
    return `${options.join(" ")} (${by})`;
  });
  return `if the passphrase is right, the file was made in another way: try ${ways.join(", or ")}`;
}
