/**
 * `seal` and `unseal`.
 *
 * @module
 */

import {
  type EngineChoice,
  type KeysetSealOptions,
  openSealed,
  seal,
  type SealedFormatName,
  type SealOptions,
  unseal,
} from "../../mod.ts";
import { DEFAULT_ENVELOPE_FORMAT } from "../envelope/header.ts";
import { ENGINES } from "../sealed/engines.ts";
import { checkFormat, FORMAT_NAMES } from "../sealed/format.ts";
import { checkSealOptions } from "../sealed/options.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { readHeader, unwrap, wrapNewKey } from "./envelope.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput, rangesOf } from "./input.ts";
import { openOutput, type Output, refuseTerminal } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import {
  readStreamKeys,
  readWrappingKeys,
  STREAM_OPTIONS,
  type StreamKeys,
  type WrappingKeys,
  wrappingOptions,
} from "./sealing_keys.ts";
import { readAssociatedData } from "./secrets.ts";

export async function sealFile(args: Arguments): Promise<number> {
  refuseTerminal(args);
  if (STREAM_OPTIONS.some((name) => args.has(name)) && wrappingOptions("recipient").some((name) => args.has(name))) {
    throw wrongUsage("a file for recipients has a key of its own: leave out --key-file, --key-fd and --keyset");
  }
  using keys = await readKeys(args, "recipient");
  const { stream, wrapping } = keys;
  const common = await commonOptions(args);
  const input = await openInput(args.file("in"), keys.inputs);
  const format = formatOf(args) ?? DEFAULT_ENVELOPE_FORMAT;
  const wrapped = wrapping && await wrapNewKey(wrapping, format);
  using key = wrapped?.key;
  const options = { ...common, ...key ? { key: key.bytes, format } : streamOptions(args, stream!) };
  asUsage(() => checkSealOptions(options, ENGINES)).key.dispose();
  const output = await openOutput(args, [input, ...keys.inputs], 0o666);
  const pieces = seal({ ...options, inPlace: true }, chunksOf(input, output.free));
  await pump(pieces, output, new Progress("seal", pieces, input.size, args), wrapped?.header);
  return 0;
}

export async function unsealFile(args: Arguments): Promise<number> {
  const range = rangeOption(args.get("range"));
  using keys = await readKeys(args, "identity");
  const common = await commonOptions(args);
  const input = await openInput(args.file("in"), keys.inputs);
  if (range && input.size === undefined) throw wrongUsage("--range needs a file to read from: use --in");
  const envelope = await readHeader(input);
  if (envelope && args.has("format")) throw wrongUsage(`--format is not needed: ${input.name} tells its format`);
  using key = envelope && await unwrap(input, envelope.header, keys.wrapping);
  const options = {
    ...common,
    ...key ? { key: key.bytes, format: envelope!.header.format } : streamOptions(args, streamKeysFor(input, keys)),
  };
  asUsage(() => checkSealOptions(options, ENGINES)).key.dispose();
  const output = await openOutput(args, [input, ...keys.inputs], 0o600);
  const start = envelope?.length ?? 0;
  const firstByte = input.ahead[0];
  try {
    if (range) return await unsealRange(range, options, input, start, output, args);
    const pieces = unseal({ ...options, inPlace: true }, chunksOf(input, output.free));
    await pump(pieces, output, new Progress("unseal", pieces, input.size && input.size - start, args));
  } catch (error) {
    const isHeader = codeOf(error) === "EBADMSG" && !envelope && "key" in options;
    throw (isHeader ? headerFailure(input.name, firstByte, formatOf(args)) : undefined) ?? error;
  }
  return 0;
}

/** All that options name as keys. */
interface Keys extends Disposable {
  readonly inputs: StreamKeys["inputs"];
  readonly stream: StreamKeys | undefined;
  readonly wrapping: WrappingKeys | undefined;
}

async function readKeys(args: Arguments, role: "recipient" | "identity"): Promise<Keys> {
  const stream = await readStreamKeys(args);
  const wrapping = await readWrappingKeys(args, role);
  if (!stream && !wrapping) {
    throw wrongUsage(`no key: give --key-file, --keyset, --${role} or --passphrase (${NAME} keygen makes keys)`);
  }
  return {
    stream,
    wrapping,
    inputs: [...stream?.inputs ?? [], ...wrapping?.inputs ?? []],
    [Symbol.dispose]() {
      stream?.[Symbol.dispose]();
      wrapping?.[Symbol.dispose]();
    },
  };
}

/** The keys for a file that is no envelope. */
function streamKeysFor({ name }: Input, { stream }: Keys): StreamKeys {
  if (stream) return stream;
  throw new Failure(
    3,
    `${name} is not wrapped for passphrases or public keys: it needs --key-file or --keyset, or it is damaged`,
  );
}

function streamOptions(args: Arguments, { options }: StreamKeys): SealOptions | KeysetSealOptions {
  return "keyset" in options ? options : { ...options, format: formatOf(args) };
}

function formatOf(args: Arguments): SealedFormatName | undefined {
  return args.get("format") as SealedFormatName | undefined;
}

async function commonOptions(args: Arguments) {
  return {
    associatedData: await readAssociatedData(args),
    engine: (args.get("engine") ?? "auto") as EngineChoice,
  };
}

/** The failure that the first byte shows: the length of the header, which is public. Undefined if it is right. */
function headerFailure(
  name: string,
  firstByte: number | undefined,
  format: SealedFormatName | undefined,
): Failure | undefined {
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
  options: SealOptions | KeysetSealOptions,
  input: Input,
  offset: number,
  output: Output,
  args: Arguments,
): Promise<number> {
  using file = await openSealed(rangesOf(input, offset), options);
  const isNone = first === undefined ? last === 0 || file.size === 0 : first >= file.size;
  if (isNone) throw wrongUsage(`--range is outside the ${file.size} bytes of the plaintext`);
  const [start, end] = first === undefined ? [-last!] : [first, last === undefined ? undefined : last + 1];
  await pump(file.stream({ start, end }), output, new Progress("unseal", file, undefined, args));
  return 0;
}
