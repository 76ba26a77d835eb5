/**
 * `encrypt` and `decrypt`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type CipherStreamOptions, decrypt, encrypt, type KernelKey } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import type { Arguments } from "./arguments.ts";
import { fill } from "./descriptors.ts";
import { Failure, fileFailure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput } from "./input.ts";
import { openOutput, refuseTerminal } from "./output.ts";
import { asUsage, ivSizeOf, type Plan, planOf, sizesOf } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { kernelKeyOf, readSecret } from "./secrets.ts";

/** Rounds of PBKDF2. */
export const DEFAULT_ITERATIONS = 600_000;

type Direction = "encrypt" | "decrypt";

/** OpenSSL's format: these bytes, a salt, the ciphertext. */
const MAGIC = Buffer.from("Salted__");
const SALT_SIZE = 8;

export async function crypt(direction: Direction, given: Arguments): Promise<number> {
  const plan = planOf(given);
  if (direction === "encrypt") refuseTerminal(given);
  const kernelKey = kernelKeyOf(given);
  const secret = kernelKey ? undefined : await readSecret(given, direction === "encrypt");
  const input = await openInput(given.file("in"), secret);
  const { header, ...options } = secret?.kind === "passphrase"
    ? await derived(direction, given, plan, secret.bytes, input)
    : await keyed(direction, given, plan, kernelKey ?? secret!.bytes, input);
  const precious = { input: input.stats, ...(secret?.stats && { [secret.kind]: secret.stats }) };
  // Ciphertext is for everyone the umask admits; plaintext is the user's own until he says otherwise.
  const output = await openOutput(given.file("out"), precious, direction === "encrypt" ? 0o666 : 0o600);
  const start = direction === "encrypt" ? encrypt : decrypt;
  const chunks = chunksOf(input, output.free);
  const pieces = asUsage(() => start(plan.cipher, { ...plan, ...options }, chunks));
  if ("fill" in options.key) options.key.fill(0);
  secret?.bytes.fill(0);
  const size = input.size === undefined ? undefined : input.size - (direction === "decrypt" ? header.length : 0);
  await pump(
    pieces,
    output,
    new Progress(direction, pieces, size, given),
    direction === "encrypt" ? header : undefined,
  );
  return 0;
}

/** The key and the IV, and what stands in front of the ciphertext. */
interface Keying extends Pick<CipherStreamOptions, "iv"> {
  readonly key: Bytes | KernelKey;
  readonly header: Bytes;
}

const NOTHING: Bytes = new Uint8Array(0);

/** A key from the user: bare ciphertext, or with `--iv-prefix` the IV in front of it. */
async function keyed(
  direction: Direction,
  given: Arguments,
  plan: Plan,
  key: Bytes | KernelKey,
  input: Input,
): Promise<Keying> {
  for (const name of ["iter", "key-bits"]) {
    if (given.has(name)) throw wrongUsage(`--${name} is for passphrases, not for keys`);
  }
  if (given.has("iv") && given.has("iv-prefix")) throw wrongUsage("--iv and --iv-prefix are both given");
  const { cipher, keySize, sectorSize } = plan;
  if (keySize !== undefined) checkKeySize(key, keySize, given.get("cipher")!, cipher);
  const ivSize = ivSizeOf(plan, key);
  const ivHex = given.get("iv");
  if (ivHex !== undefined) return { key, iv: fromHex(ivHex), header: NOTHING };
  if (!given.has("iv-prefix")) {
    if (ivSize > 0 && sectorSize === undefined) {
      throw wrongUsage(`${cipher} needs --iv or --iv-prefix (a sector mode: or --sector-size)`);
    }
    return { key, header: NOTHING };
  }
  if (ivSize === 0) throw wrongUsage(`--iv-prefix is given, but ${cipher} has no IV`);
  const iv = direction === "encrypt"
    ? crypto.getRandomValues(new Uint8Array(ivSize))
    : await readHeader(input, ivSize, "its IV");
  return { key, iv, header: iv };
}

function checkKeySize(key: Bytes | KernelKey, keySize: number, asked: string, cipher: string): void {
  if (!("length" in key)) {
    throw wrongUsage(`the length of a key in the kernel cannot be told: use ${cipher}, not ${asked}`);
  }
  if (key.length !== keySize) throw wrongUsage(`the key has ${key.length} bytes, ${asked} takes ${keySize}`);
}

/** A passphrase: OpenSSL's format. PBKDF2 gives the key and behind it the IV. */
async function derived(
  direction: Direction,
  given: Arguments,
  plan: Plan,
  passphrase: Bytes,
  input: Input,
): Promise<Keying> {
  for (const name of ["iv", "iv-prefix"]) {
    if (given.has(name)) throw wrongUsage(`--${name} is for keys: a passphrase gives the IV, too`);
  }
  const iterations = given.integer("iter", 1, 2 ** 31 - 1) ?? DEFAULT_ITERATIONS;
  const { keySize, ivSize } = sizesOf(plan);
  const header = direction === "encrypt"
    ? new Uint8Array([...MAGIC, ...crypto.getRandomValues(new Uint8Array(SALT_SIZE))])
    : await readHeader(input, MAGIC.length + SALT_SIZE, "OpenSSL's header");
  if (!MAGIC.equals(header.subarray(0, MAGIC.length))) {
    throw new Failure(3, `${input.name} does not begin with "Salted__": it was not encrypted with a passphrase`);
  }
  const salt = header.subarray(MAGIC.length);
  const secret = await crypto.subtle.importKey("raw", passphrase, "PBKDF2", false, ["deriveBits"]);
  const parameters = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  const bytes = new Uint8Array(await crypto.subtle.deriveBits(parameters, secret, 8 * (keySize + ivSize)));
  const key = bytes.slice(0, keySize);
  const iv = bytes.slice(keySize);
  bytes.fill(0);
  return ivSize > 0 ? { key, iv, header } : { key, header };
}

async function readHeader(input: Input, size: number, what: string): Promise<Bytes> {
  let header;
  try {
    header = await fill(input.fd, new Uint8Array(size));
  } catch (error) {
    throw fileFailure(`cannot read ${input.name}`, error);
  }
  if (header.length < size) throw new Failure(3, `${input.name} is cut short: it ends within ${what}`);
  return header;
}

function fromHex(hex: string): Bytes {
  if (!/^(?:[0-9a-f]{2})*$/i.test(hex)) throw wrongUsage("--iv expects an even number of hexadecimal digits");
  return Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}
