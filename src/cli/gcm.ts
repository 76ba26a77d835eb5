/**
 * `encrypt` and `decrypt` with AES-GCM.
 *
 * @module
 */

import type { Direction } from "../engines/engine.ts";
import { decrypt, encrypt, openGcm } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import { userspaceHasGcm } from "../cipher/gcm_cipher.ts";
import { checkGcm, GCM } from "../cipher/gcm_options.ts";
import { namedGcm } from "../cipher_names.ts";
import { type Arguments, fromHex } from "./arguments.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput, rangesOf } from "./input.ts";
import { openOutput, type Output, refuseTerminal } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { readAssociatedData, readSecret } from "./secrets.ts";

/** Options that no other cipher has. */
const GCM_ONLY = ["associated-data", "associated-data-file", "tag", "tag-size", "max-size", "release-unverified"];
const OPTIONS = new Set([
  ...["in", "out", "no-clobber", "quiet", "cipher", "key-file", "key-fd", "iv", "iv-prefix", "engine"],
  ...GCM_ONLY,
]);

/** The options of the API. */
type Options = Parameters<typeof openGcm>[1] & Parameters<typeof decrypt>[1];

/** Whether the options choose AES-GCM, by any of its names. */
export function isGcm(args: Arguments): boolean {
  const name = args.get("cipher") ?? "";
  return name === GCM || namedGcm(name) !== undefined;
}

/** Refuses the options of AES-GCM for another cipher. */
export function refuseGcmOptions(args: Arguments): void {
  const name = GCM_ONLY.find((name) => args.has(name));
  if (name !== undefined) throw wrongUsage(`--${name} is for -c ${GCM} or aes-256-gcm`);
}

export async function cryptGcm(direction: Direction, args: Arguments): Promise<number> {
  const isDecryption = direction === "decrypt";
  const other = args.names.find((name) => !OPTIONS.has(name));
  if (other !== undefined) throw wrongUsage(`--${other} is not for ${GCM}`);
  if (!args.has("key-file") && !args.has("key-fd")) throw wrongUsage(`${GCM} needs --key-file or --key-fd`);
  if (!isDecryption) refuseTerminal(args);
  const options = optionsOf(direction, args);
  const key = await readSecret(args, false);
  const associatedData = await readAssociatedData(args);
  const input = await openInput(args.file("in"), [key]);
  const all: Options = { ...options, key: key.bytes, associatedData };
  try {
    checkKeySize(key.bytes, args.get("cipher")!);
    asUsage(() => checkGcm(direction, all).key.dispose());
    const output = await openOutput(args, [input, key], isDecryption ? 0o600 : 0o666);
    if (isDecryption) {
      await decryptFile(all, input, output, args);
    } else {
      const pieces = encrypt(GCM, all, chunksOf(input, output.free));
      await pump(pieces, output, new Progress(direction, pieces, input.size, args));
    }
  } catch (error) {
    throw addExplanation(error);
  } finally {
    key.bytes.fill(0);
  }
  return 0;
}

function optionsOf(direction: Direction, args: Arguments): Omit<Options, "key" | "associatedData"> {
  const [iv, ivPrefix] = [args.get("iv"), args.has("iv-prefix")];
  if (iv !== undefined && ivPrefix) throw wrongUsage("--iv and --iv-prefix exclude each other");
  if (iv === undefined && !ivPrefix) throw wrongUsage(`${GCM} needs --iv or --iv-prefix`);
  const tag = args.get("tag") ?? "end";
  const isPlace = tag === "end" || tag === "start";
  if (!isPlace && direction === "encrypt") throw wrongUsage("--tag expects end or start for encryption");
  const [tagSize, maxSize] = [args.integer("tag-size", 4, 16), args.integer("max-size", 0, Number.MAX_SAFE_INTEGER)];
  return {
    ...iv === undefined ? { ivPrefix } : { iv: fromHex("iv", iv) },
    tag: isPlace ? tag : fromHex("tag", tag),
    tagSize,
    ...maxSize !== undefined && { maxSize },
    engine: (args.get("engine") ?? "auto") as "auto",
  };
}

function checkKeySize(key: Bytes, name: string): void {
  const keySize = namedGcm(name)?.keySize;
  if (keySize === undefined || key.length === keySize) return;
  throw wrongUsage(`the key has ${key.length} bytes, ${name} takes ${keySize}`);
}

/**
 * Verifies before anything is seen: a file is read twice, an output that appears at its end is written at once, and
 * otherwise the message is held.
 */
async function decryptFile(options: Options, input: Input, output: Output, args: Arguments): Promise<void> {
  const inUserspace = userspaceHasGcm(options.key.byteLength);
  const releases = args.has("release-unverified");
  if (!releases && inUserspace && args.file("in") !== undefined && input.size !== undefined) {
    const { maxSize: _, ...rest } = options;
    using reader = await openGcm(rangesOf(input), rest);
    return await pump(reader.stream(), output, new Progress("decrypt", reader, reader.size, args));
  }
  const releaseUnverified = releases || inUserspace && output.appearsAtEnd;
  const pieces = decrypt(GCM, { ...options, releaseUnverified }, chunksOf(input, output.free));
  await pump(pieces, output, new Progress("decrypt", pieces, input.size, args));
}

function addExplanation(error: unknown): unknown {
  switch (codeOf(error)) {
    case "EBADMSG":
      return new Failure(
        3,
        "the data does not verify: wrong key, IV, tag or associated data, or it is damaged or cut short",
      );
    case "EMSGSIZE":
      return wrongUsage(
        "the message is too large to be held until it is verified: give --in FILE, --out FILE or a larger " +
          "--max-size, or take unverified bytes with --release-unverified",
      );
    default:
      return error;
  }
}
