/**
 * `encrypt` and `decrypt`.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { type CipherStreamOptions, decrypt, encrypt, type KernelKey } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import { Secret } from "../secret.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { fill } from "./descriptors.ts";
import { codeOf, Failure, failureOf, fileFailure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput } from "./input.ts";
import { openOutput, refuseTerminal } from "./output.ts";
import { asUsage, type CryptPlan, ivSizeOf, optionsOf, pads, planOf, sizesOf } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { kernelKeyOf, readSecret } from "./secrets.ts";

/** Iterations of PBKDF2. */
export const DEFAULT_ITERATIONS = 600_000;

type CryptDirection = "encrypt" | "decrypt";

/** OpenSSL's format is these bytes, a salt, and the ciphertext. */
const MAGIC = Buffer.from("Salted__");
const MAGIC_AS_BASE64 = "U2FsdGVkX1";
const SALT_SIZE = 8;

export async function crypt(direction: CryptDirection, args: Arguments): Promise<number> {
  const plan = planOf(args);
  if (direction === "encrypt") refuseTerminal(args);
  const kernelKey = kernelKeyOf(args);
  const secret = kernelKey ? undefined : await readSecret(args, direction === "encrypt");
  const input = await openInput(args.file("in"), secret);
  const { header, ...options } = secret?.kind === "passphrase"
    ? await keyingFromPassphrase(direction, args, plan, secret.bytes, input)
    : keyingFromKey(args, plan, kernelKey ?? secret!.bytes);
  const protectedFiles = { input: input.stats, ...(secret?.stats && { [secret.kind]: secret.stats }) };
  // New ciphertext gets the permissions of the umask, new plaintext is readable for the user alone.
  const output = await openOutput(args, protectedFiles, direction === "encrypt" ? 0o666 : 0o600);
  const start = direction === "encrypt" ? encrypt : decrypt;
  const chunks = chunksOf(input, output.free);
  const pieces = asUsage(() => start(plan.cipher, { ...optionsOf(plan), ...options }, chunks));
  if ("fill" in options.key) options.key.fill(0);
  secret?.bytes.fill(0);
  const size = input.size === undefined ? undefined : input.size - (direction === "decrypt" ? header.length : 0);
  const progress = new Progress(direction, pieces, size, args);
  try {
    await pump(pieces, output, progress, direction === "encrypt" ? header : undefined);
  } catch (error) {
    const mayNeedIterations = codeOf(error) === "EBADMSG" && secret?.kind === "passphrase" && !args.has("iter");
    throw mayNeedIterations ? new Failure(3, `${failureOf(error).message}; ${OPENSSL_ITERATIONS}`) : error;
  }
  return 0;
}

const OPENSSL_ITERATIONS = "openssl enc -pbkdf2 has a default of 10,000 iterations: for its files, use --iter 10000";

/** The key, the IV, and the header in front of the ciphertext. */
interface Keying extends Pick<CipherStreamOptions, "iv" | "ivPrefix"> {
  readonly key: Bytes | KernelKey;
  readonly header: Bytes;
}

const NOTHING: Bytes = new Uint8Array(0);

/** With a key there is no header. */
function keyingFromKey(args: Arguments, plan: CryptPlan, key: Bytes | KernelKey): Keying {
  for (const name of ["iter", "key-bits"]) {
    if (args.has(name)) throw wrongUsage(`--${name} is for passphrases, not for keys`);
  }
  if (args.has("iv") && args.has("iv-prefix")) throw wrongUsage("--iv and --iv-prefix exclude each other");
  if (args.has("iv-prefix") && args.has("position")) {
    throw wrongUsage("--iv-prefix and --position exclude each other: read the IV from the front, and give it as --iv");
  }
  const { cipher, keySize, sectorSize } = plan;
  if (keySize !== undefined) checkKeySize(key, keySize, args.get("cipher")!, cipher);
  const ivSize = ivSizeOf(plan, key);
  const ivHex = args.get("iv");
  if (ivHex !== undefined) return { key, iv: fromHex(ivHex), header: NOTHING };
  const ivPrefix = args.has("iv-prefix");
  if (ivSize > 0 && sectorSize === undefined && !ivPrefix) {
    throw wrongUsage(`${cipher} needs --iv or --iv-prefix (a sector mode: or --sector-size)`);
  }
  return { key, ivPrefix, header: NOTHING };
}

function checkKeySize(key: Bytes | KernelKey, keySize: number, asked: string, cipher: string): void {
  if (!("length" in key)) {
    throw wrongUsage(`the length of a kernel key is unknown: use ${cipher}, not ${asked}`);
  }
  if (key.length !== keySize) throw wrongUsage(`the key has ${key.length} bytes, ${asked} takes ${keySize}`);
}

/** A passphrase gives OpenSSL's format. PBKDF2 derives the key and, behind it, the IV. */
async function keyingFromPassphrase(
  direction: CryptDirection,
  args: Arguments,
  plan: CryptPlan,
  passphrase: Bytes,
  input: Input,
): Promise<Keying> {
  for (const name of ["iv", "iv-prefix", "position", "counter-bits"]) {
    if (args.has(name)) throw wrongUsage(`--${name} is for keys: a passphrase gives the IV as well`);
  }
  const iterations = args.integer("iter", 1, 2 ** 31 - 1) ?? DEFAULT_ITERATIONS;
  if (!args.has("iter") && !pads(plan)) {
    throw wrongUsage(
      `--iter is missing: without padding, a wrong number of iterations is not detected (${NAME}'s default is ` +
        `--iter ${DEFAULT_ITERATIONS}; ${OPENSSL_ITERATIONS})`,
    );
  }
  const { keySize, ivSize } = sizesOf(plan);
  const header = direction === "encrypt"
    ? new Uint8Array([...MAGIC, ...crypto.getRandomValues(new Uint8Array(SALT_SIZE))])
    : await readHeader(input, MAGIC.length + SALT_SIZE);
  if (!MAGIC.equals(header.subarray(0, MAGIC.length))) throw new Failure(3, whyNotSalted(input.name, header));
  const salt = header.subarray(MAGIC.length);
  const secret = await crypto.subtle.importKey("raw", passphrase, "PBKDF2", false, ["deriveBits"]);
  const parameters = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  using bytes = Secret.adopt(await crypto.subtle.deriveBits(parameters, secret, 8 * (keySize + ivSize)));
  const key = Secret.from(bytes.bytes.subarray(0, keySize)).bytes;
  const iv = bytes.bytes.slice(keySize);
  return ivSize > 0 ? { key, iv, header } : { key, header };
}

function whyNotSalted(name: string, header: Bytes): string {
  if (Buffer.from(header).toString("latin1").startsWith(MAGIC_AS_BASE64)) {
    return `${name} is Base64, as openssl enc -a writes it: decode it first, with openssl base64 -d`;
  }
  return `${name} does not begin with "Salted__": it was encrypted with a key, by another program, or by openssl enc ` +
    "-nosalt, whose passphrases are not supported (openssl enc -p shows the key and the IV)";
}

async function readHeader(input: Input, size: number): Promise<Bytes> {
  let header;
  try {
    header = await fill(input.fd, new Uint8Array(size));
  } catch (error) {
    throw fileFailure(`cannot read ${input.name}`, error);
  }
  if (header.length < size) throw new Failure(3, `${input.name} is cut short: it ends within OpenSSL's header`);
  return header;
}

function fromHex(hex: string): Bytes {
  if (!/^(?:[0-9a-f]{2})*$/i.test(hex)) throw wrongUsage("--iv expects an even number of hexadecimal digits");
  return Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}
