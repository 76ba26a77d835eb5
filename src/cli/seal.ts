/**
 * `keygen`, `seal` and `unseal`.
 *
 * @module
 */

import * as fs from "node:fs";
import { dirname } from "node:path";
import { promisify } from "node:util";
import { type EngineChoice, openSealed, seal, type SealedFormatName, type SealOptions, unseal } from "../../mod.ts";
import { ENGINES } from "../sealed/engines.ts";
import { checkFormat, FORMAT_NAMES } from "../sealed/format.ts";
import { checkSealOptions } from "../sealed/options.ts";
import { Secret } from "../secret.ts";
import type { Arguments } from "./arguments.ts";
import { writeAll } from "./descriptors.ts";
import { codeOf, Failure, fileFailure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput } from "./input.ts";
import { openOutput, type Output, refuseTerminal, syncDirectory } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { readAssociatedData, readKey } from "./secrets.ts";
import { atEndOrSignal } from "./signals.ts";

const LONGEST = 8 * 4096;

/** Writes a random key to a pipe, or to a new file that only the user can read. */
export async function keygen(args: Arguments): Promise<number> {
  const bits = args.integer("bits", 8, LONGEST) ?? 256;
  if (bits % 8 !== 0) throw wrongUsage("--bits expects a multiple of 8");
  refuseTerminal(args);
  using key = Secret.random(bits / 8);
  const path = args.file("out");
  try {
    if (path === undefined) await writeAll(1, key.bytes);
    else await writeNew(path, key.bytes);
    return 0;
  } catch (error) {
    throw fileFailure(`cannot write ${path ?? "standard output"}`, error);
  }
}

/** Never replaces a file: it may be the only copy of another key. */
async function writeNew(path: string, key: Uint8Array): Promise<void> {
  const fd = fs.openSync(path, "wx", 0o600);
  const keep = atEndOrSignal(() => fs.unlinkSync(path));
  try {
    await writeAll(fd, key);
    fs.fsyncSync(fd);
  } finally {
    fs.closeSync(fd);
  }
  keep();
  syncDirectory(dirname(path));
}

export async function sealFile(args: Arguments): Promise<number> {
  refuseTerminal(args);
  await withOptions(args, 0o666, async (options, input, output) => {
    const pieces = asUsage(() => seal({ ...options, inPlace: true }, chunksOf(input, output.free)));
    await pump(pieces, output, new Progress("seal", pieces, input.size, args));
  });
  return 0;
}

export async function unsealFile(args: Arguments): Promise<number> {
  const range = rangeOption(args.get("range"));
  await withOptions(args, 0o600, async (options, input, output) => {
    try {
      if (range) return await unsealRange(range, options, input, output, args);
      const pieces = asUsage(() => unseal({ ...options, inPlace: true }, chunksOf(input, output.free)));
      await pump(pieces, output, new Progress("unseal", pieces, input.size, args));
    } catch (error) {
      throw (codeOf(error) === "EBADMSG" ? headerFailure(input, options.format) : undefined) ?? error;
    }
  });
  return 0;
}

/** The failure that the first byte shows: the length of the header, which is public. Undefined if it is right. */
function headerFailure({ name, firstByte }: Input, format: SealedFormatName | undefined): Failure | undefined {
  const { headerSize, keySize } = checkFormat(format);
  if (firstByte === undefined || firstByte === headerSize) return undefined;
  const others = FORMAT_NAMES.filter((other) => checkFormat(other).headerSize === firstByte);
  if (others.length === 0) return new Failure(3, `${name} was not sealed: its first byte is not that of a header`);
  const bits = 8 * checkFormat(others[0]).keySize;
  return new Failure(
    3,
    `${name} was sealed in a format of AES-${bits}, not of AES-${8 * keySize}: use another --format`,
  );
}

type FileOptions = SealOptions & { readonly format: SealedFormatName | undefined };

/** Reads the key, which is zeroed at the end, and opens the input and the output. */
async function withOptions(
  args: Arguments,
  mode: number,
  run: (options: FileOptions, input: Input, output: Output) => Promise<void>,
): Promise<void> {
  const key = await readKey(args);
  const associatedData = await readAssociatedData(args);
  const input = await openInput(args.file("in"), key);
  if (args.has("range") && input.size === undefined) throw wrongUsage("--range needs a file to read from: use --in");
  const protectedFiles = { input: input.stats, ...(key.stats && { key: key.stats }) };
  const output = await openOutput(args, protectedFiles, mode);
  try {
    await run(
      {
        key: key.bytes,
        associatedData,
        format: args.get("format") as SealedFormatName | undefined,
        engine: (args.get("engine") ?? "auto") as EngineChoice,
      },
      input,
      output,
    );
  } finally {
    key.bytes.fill(0);
  }
}

/** The first and the last byte, as in HTTP's Range. Without `first`, `last` is the number of bytes at the end. */
interface RangeOption {
  readonly first: number | undefined;
  readonly last: number | undefined;
}

function rangeOption(text: string | undefined): RangeOption | undefined {
  if (text === undefined) return undefined;
  const [, first, last] = /^(\d{0,15})-(\d{0,15})$/.exec(text) ?? [];
  const range = { first: first ? Number(first) : undefined, last: last ? Number(last) : undefined };
  if (range.first === undefined ? range.last === undefined : range.first > (range.last ?? Infinity)) {
    throw wrongUsage(
      "--range expects A-B, A- or (as --range=-N) -N: the bytes from A to B, both included, or the last N",
    );
  }
  return range;
}

async function unsealRange(
  { first, last }: RangeOption,
  options: SealOptions,
  input: Input,
  output: Output,
  args: Arguments,
): Promise<void> {
  const source = { size: input.size!, read: (start: number, end: number) => readRange(input, start, end) };
  asUsage(() => checkSealOptions(options, ENGINES));
  using file = await openSealed(source, options);
  const isNone = first === undefined ? last === 0 || file.size === 0 : first >= file.size;
  if (isNone) throw wrongUsage(`--range is outside the ${file.size} bytes of the plaintext`);
  const [start, end] = first === undefined ? [-last!] : [first, last === undefined ? undefined : last + 1];
  await pump(file.stream({ start, end }), output, new Progress("unseal", file, undefined, args));
}

const readAt = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;

async function readRange(input: Input, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  const { fd, name } = input;
  const bytes = new Uint8Array(end - start);
  let length = 0;
  try {
    while (length < bytes.length) {
      const { bytesRead } = await readAt(fd, bytes, length, bytes.length - length, start + length);
      if (bytesRead === 0) throw new Failure(3, `${name} became shorter while it was read`);
      length += bytesRead;
    }
    if (start === 0) input.firstByte ??= bytes[0];
  } catch (error) {
    throw error instanceof Failure ? error : fileFailure(`cannot read ${name}`, error);
  }
  return bytes;
}
