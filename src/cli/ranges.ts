/**
 * Sealed files that are read by ranges, from a disk or from a URL: `unseal` with `--range` or `--rescue`.
 *
 * @module
 */

import {
  type ByteRange,
  httpSource,
  KcapiError,
  openSealed,
  type RangeSource,
  type SealedReader,
  type SealedSource,
} from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import { FIRST_READ, MAGIC, readHeaderOf } from "../envelope/header.ts";
import { ENGINES } from "../sealed/engines.ts";
import { checkSealOptions } from "../sealed/options.ts";
import { anySource, sourceAfter } from "../sealed/source.ts";
import type { Arguments } from "./arguments.ts";
import { printError } from "./descriptors.ts";
import { unwrap } from "./envelope.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { type Input, openInput, rangesOf } from "./input.ts";
import { openOutput } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { commonOptions, formatOf, headerFailure, type Keys, streamKeysFor, streamOptions } from "./sealing_options.ts";

/** A source that is read by ranges. */
export interface Ranges {
  readonly name: string;
  readonly source: RangeSource;
  /** Undefined for a URL. */
  readonly input: Input | undefined;
}

/** Whether an operand or the value of `--in` is read over HTTP. */
export function isURL(path: string | undefined): path is string {
  return path !== undefined && /^https?:\/\//i.test(path);
}

/** Opens a file or a URL. */
export async function openRanges(path: string | undefined, { inputs }: Keys, what: string): Promise<Ranges> {
  if (isURL(path)) return openURL(path);
  const input = await openInput(path, inputs);
  if (input.size === undefined) throw wrongUsage(`${what} needs a file to read from, not ${input.name}`);
  return { name: input.name, source: rangesOf(input), input };
}

/** The query of a URL may be a secret, so it is not in the name. */
function openURL(path: string): Ranges {
  const url = asUsage(() => URL.parse(path)) ?? undefined;
  if (!url) throw wrongUsage("the URL is not valid");
  const name = `${url.origin}${url.pathname}`;
  const http = httpSource(url);
  const failing = async <T>(answer: Promise<T>): Promise<T> => {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof KcapiError)) throw error;
      const hint = error.hint === undefined ? "" : ` (${error.hint})`;
      throw new Failure(1, `cannot read ${name}: ${error.detail.replace(`${name}: `, "")}${hint}`);
    }
  };
  const source: RangeSource = {
    get size() {
      return http.size;
    },
    read: (start, end, options) => failing(http.read(start, end, options)),
    readEnds: (head, tail, options) => failing(http.readEnds!(head, tail, options)),
  };
  return { name, source, input: undefined };
}

/** Opens the sealed file in it, which may be an envelope. */
export async function openReader(
  { name, source }: Ranges,
  keys: Keys,
  args: Arguments,
  allowDamage: boolean,
): Promise<SealedReader> {
  const common = await commonOptions(args);
  const any = anySource(source);
  const { head } = await any.readEnds(FIRST_READ, 0, { signal: new AbortController().signal });
  if (new TextDecoder("latin1").decode(head.subarray(0, MAGIC.length)) === MAGIC) {
    if (args.has("format")) throw wrongUsage(`--format is not needed: ${name} tells its format`);
    const { header, length } = await readHeaderOf(any, head);
    using key = await unwrap({ name }, header, keys.wrapping);
    return await openWith(
      sourceAfter(source, length),
      { ...common, key: key.bytes, format: header.format },
      allowDamage,
    );
  }
  try {
    return await openWith(source, { ...common, ...streamOptions(args, streamKeysFor(name, keys)) }, allowDamage);
  } catch (error) {
    const isHeader = codeOf(error) === "EBADMSG" && !args.has("keyset");
    throw (isHeader ? headerFailure(name, head[0], formatOf(args)) : undefined) ?? error;
  }
}

async function openWith(
  source: SealedSource,
  options: Parameters<typeof openSealed>[1],
  allowDamage: boolean,
): Promise<SealedReader> {
  asUsage(() => checkSealOptions(options, ENGINES)).key.dispose();
  return await openSealed(source, { ...options, allowDamage });
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

/** Unseals a file or a URL by ranges: all of it, a part, or the intact segments. */
export async function unsealRanges(args: Arguments, keys: Keys): Promise<number> {
  const range = rangeOption(args.get("range"));
  const isRescue = args.has("rescue");
  if (range && isRescue) throw wrongUsage("--range and --rescue exclude each other");
  if (isRescue && !args.file("out")) throw wrongUsage("--rescue needs --out FILE");
  const ranges = await openRanges(args.file("in"), keys, isRescue ? "--rescue" : "--range");
  using file = await openReader(ranges, keys, args, isRescue);
  if (isRescue) return await rescue(file, ranges, args, keys);
  const [start, end] = range ? positionsOf(range, file.size) : [0, file.size];
  const output = await openRangesOutput(ranges, args, keys);
  await pump(file.stream({ start, end }), output, new Progress("unseal", file, end - start, args));
  return 0;
}

async function openRangesOutput({ input }: Ranges, args: Arguments, { inputs }: Keys) {
  return await openOutput(args, input ? [input, ...inputs] : inputs, 0o600);
}

function positionsOf({ first, last }: RangeOption, size: number): [start: number, end: number] {
  const isNone = first === undefined ? last === 0 || size === 0 : first >= size;
  if (isNone) throw wrongUsage(`--range is outside the ${size} bytes of the plaintext`);
  return first === undefined ? [Math.max(0, size - last!), size] : [first, Math.min(size, (last ?? size) + 1)];
}

/** Writes the intact ranges, and zeros in place of the damaged ones. */
async function rescue(file: SealedReader, ranges: Ranges, args: Arguments, keys: Keys): Promise<number> {
  const { isIntact, damaged } = await verifyWithProgress(file, args);
  if (isNothingIntact(file, damaged)) throw new Failure(3, `${ranges.name}: ${NOTHING_VERIFIES}`);
  const output = await openRangesOutput(ranges, args, keys);
  await pump(withZeros(file, damaged), output, new Progress("unseal", file, file.size, args));
  if (isIntact) return 0;
  for (const line of describeDamage(file, damaged)) printError(`${ranges.name}: ${line}\n`);
  const zeros = damaged.reduce((sum, { start, end }) => sum + end - start, 0);
  if (zeros > 0) printError(`${ranges.name}: ${zeros} of ${file.size} bytes are zeros in ${args.file("out")}\n`);
  return 4;
}

/** Verifies a file, with a line of progress. */
export async function verifyWithProgress(file: SealedReader, args: Arguments) {
  const progress = new Progress("verify", file, file.size, args);
  let done = 0;
  try {
    return await file.verify({
      onProgress(checked) {
        progress.add(checked - done);
        done = checked;
      },
    });
  } finally {
    progress.clear();
  }
}

export const NOTHING_VERIFIES =
  "no part of it verifies: wrong key, associated data or format, or the header is damaged";

/** Whether nothing was verified: neither a byte nor the end. */
export function isNothingIntact({ size, isSizeVerified }: SealedReader, damaged: readonly ByteRange[]): boolean {
  const [range] = damaged;
  return !isSizeVerified && range !== undefined && range.start === 0 && range.end === size;
}

/** A line for each damaged range, as `--range` counts, and for a damaged end. */
export function describeDamage({ isSizeVerified }: SealedReader, damaged: readonly ByteRange[]): string[] {
  const lines = damaged.filter(({ start, end }) => end > start)
    .map(({ start, end }) => `damaged: bytes ${start}-${end - 1}`);
  if (!isSizeVerified) lines.push("damaged: its end does not verify, so bytes may be missing or have been added there");
  return lines.length > 0 ? lines : ["damaged: its header, or bytes that were added to its end"];
}

/** Bytes of zeros to write at once. */
const ZEROS = 1 << 20;

async function* withZeros(file: SealedReader, damaged: readonly ByteRange[]): AsyncGenerator<Bytes> {
  let at = 0;
  for (const { start, end } of [...damaged, { start: file.size, end: file.size }]) {
    if (start > at) yield* file.stream({ start: at, end: start });
    for (let left = end - start; left > 0; left -= ZEROS) yield new Uint8Array(Math.min(left, ZEROS));
    at = end;
  }
}
