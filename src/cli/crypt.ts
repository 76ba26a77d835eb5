/**
 * `encrypt` and `decrypt`.
 *
 * @module
 */

import type { Direction } from "../engines/engine.ts";
import { type CipherStreamOptions, decrypt, encrypt, KcapiError, type KernelKey } from "../../mod.ts";
import { hasPositions, parseAlgorithm } from "../algorithms.ts";
import type { Bytes } from "../bytes.ts";
import { base64Decoder, base64Encoder, codecIterable } from "../openssl/base64.ts";
import { type Arguments, fromHex } from "./arguments.ts";
import { Failure, failureOf, wrongUsage } from "./failures.ts";
import { cryptGcm, isGcm, refuseGcmOptions } from "./gcm.ts";
import { chunksOf, type Input, openInput } from "./input.ts";
import { formatOf, keyFor, newSalt, openFile, type OpenSSLFormat, otherWays, PASSPHRASE_OPTIONS } from "./openssl.ts";
import { openOutput, refuseTerminal } from "./output.ts";
import { asUsage, type CryptPlan, ivSizeOf, optionsOf, planOf } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { kernelKeyOf, readSecret } from "./secrets.ts";

export async function crypt(direction: Direction, args: Arguments): Promise<number> {
  if (isGcm(args)) return await cryptGcm(direction, args);
  refuseGcmOptions(args);
  const plan = planOf(args);
  const base64 = args.has("base64") || args.has("one-line");
  if (direction === "encrypt" && !base64) refuseTerminal(args);
  const kernelKey = kernelKeyOf(args);
  const secret = kernelKey ? undefined : await readSecret(args, direction === "encrypt");
  const format = secret?.kind === "passphrase" ? formatOf(args, plan) : undefined;
  const secrets = secret ? [secret] : [];
  const input = await openInput(args.file("in"), secrets);
  const { header = NOTHING, headerSize = 0, isBase64 = base64, ciphertext, ...options } = format
    ? await keyingFromPassphrase(direction, plan, secret!.bytes, format, input, base64)
    : keyingFromKey(args, plan, kernelKey ?? secret!.bytes);
  // New ciphertext gets the permissions of the umask, new plaintext is readable for the user alone.
  const output = await openOutput(args, [input, ...secrets], direction === "encrypt" ? 0o666 : 0o600);
  const chunks = chunksOf(input, output.free);
  const all = { ...optionsOf(plan), ...options };
  const pieces = asUsage(() =>
    direction === "encrypt"
      ? encrypt(plan.cipher, all, chunks)
      : decrypt(plan.cipher, all, ciphertext?.(chunks) ?? (base64 ? codecIterable(base64Decoder(), chunks) : chunks))
  );
  if ("fill" in options.key) options.key.fill(0);
  secret?.bytes.fill(0);
  const isText = base64 && direction === "encrypt";
  const outputs = isText ? codecIterable(base64Encoder(!args.has("one-line")), after(header, pieces)) : pieces;
  const size = sizeOfOutput(direction, input, isBase64, headerSize);
  const progress = new Progress(direction, pieces, size, args);
  try {
    await pump(outputs, output, progress, direction === "encrypt" && !isText ? header : undefined);
  } catch (error) {
    const isUnfit = error instanceof KcapiError && error.code === "EBADMSG" && error.operation !== "base64";
    throw isUnfit && format ? new Failure(3, `${failureOf(error).message}; ${otherWays(format)}`) : error;
  }
  return 0;
}

const NOTHING: Bytes = new Uint8Array(0);

async function* after(first: Bytes, pieces: AsyncIterable<Bytes>): AsyncGenerator<Bytes> {
  yield first;
  yield* pieces;
}

/** The number of output bytes, which the progress counts. With base64 it is an estimate. */
function sizeOfOutput(direction: Direction, { size }: Input, isBase64: boolean, headerSize: number) {
  if (size === undefined) return undefined;
  if (!isBase64) return size - headerSize;
  return direction === "encrypt" ? size / 3 * 4 : size / 4 * 3;
}

/** The key, the IV, and what is in front of the ciphertext. */
interface Keying extends Pick<CipherStreamOptions, "iv" | "ivPrefix"> {
  readonly key: Bytes | KernelKey;
  /** Encryption: the header to write. */
  readonly header?: Bytes;
  /** Decryption: bytes of the header that was read, and whether the file is base64. */
  readonly headerSize?: number;
  readonly isBase64?: boolean;
  /** Decryption: the ciphertext in the chunks that follow the header. */
  readonly ciphertext?: (chunks: AsyncIterable<Bytes>) => AsyncIterable<Bytes>;
}

async function keyingFromPassphrase(
  direction: Direction,
  plan: CryptPlan,
  passphrase: Bytes,
  format: OpenSSLFormat,
  input: Input,
  base64: boolean,
): Promise<Keying> {
  const { salt, ...file } = direction === "encrypt" ? newSalt(format) : await openFile(input, format, base64);
  return { ...file, ...await keyFor(plan, passphrase, format, salt) };
}

/** With a key there is no header. */
function keyingFromKey(args: Arguments, plan: CryptPlan, key: Bytes | KernelKey): Keying {
  for (const name of PASSPHRASE_OPTIONS) {
    if (args.has(name)) throw wrongUsage(`--${name} is for passphrases, not for keys`);
  }
  if (args.has("iv") && args.has("iv-prefix")) throw wrongUsage("--iv and --iv-prefix exclude each other");
  if (args.has("iv-prefix") && args.has("position")) {
    throw wrongUsage("--iv-prefix and --position exclude each other: read the IV from the front, and give it as --iv");
  }
  const { cipher, keySize, sectorSize } = plan;
  if (args.has("position") && !asUsage(() => hasPositions(parseAlgorithm(cipher)))) {
    throw wrongUsage(
      `--position is for counter modes, such as ctr(aes) and chacha20, not for ${cipher}: for a disk, use ` +
        "--sector-size and --sector",
    );
  }
  if (keySize !== undefined) checkKeySize(key, keySize, args.get("cipher")!, cipher);
  const ivSize = ivSizeOf(plan, key);
  const ivHex = args.get("iv");
  if (ivHex !== undefined) return { key, iv: fromHex("iv", ivHex) };
  const ivPrefix = args.has("iv-prefix");
  if (ivSize > 0 && sectorSize === undefined && !ivPrefix) {
    throw wrongUsage(`${cipher} needs --iv or --iv-prefix (a sector mode: or --sector-size)`);
  }
  return { key, ivPrefix };
}

function checkKeySize(key: Bytes | KernelKey, keySize: number, asked: string, cipher: string): void {
  if (!("length" in key)) {
    throw wrongUsage(`the length of a kernel key is unknown: use ${cipher}, not ${asked}`);
  }
  if (key.length !== keySize) throw wrongUsage(`the key has ${key.length} bytes, ${asked} takes ${keySize}`);
}
