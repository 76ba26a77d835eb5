/**
 * `seal` and `unseal`.
 *
 * @module
 */

import { seal, unseal } from "../../mod.ts";
import { DEFAULT_ENVELOPE_FORMAT } from "../envelope/header.ts";
import { ENGINES } from "../sealed/engines.ts";
import { checkSealOptions } from "../sealed/options.ts";
import type { Arguments } from "./arguments.ts";
import { readHeader, unwrap, wrapNewKey } from "./envelope.ts";
import { codeOf, wrongUsage } from "./failures.ts";
import { chunksOf, openInput } from "./input.ts";
import { openOutput, refuseTerminal } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { isURL, unsealRanges } from "./ranges.ts";
import { STREAM_OPTIONS, wrappingOptions } from "./sealing_keys.ts";
import { commonOptions, formatOf, headerFailure, readKeys, streamKeysFor, streamOptions } from "./sealing_options.ts";

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
  using keys = await readKeys(args, "identity");
  if (args.has("range") || args.has("rescue") || isURL(args.file("in"))) return await unsealRanges(args, keys);
  const common = await commonOptions(args);
  const input = await openInput(args.file("in"), keys.inputs);
  const envelope = await readHeader(input);
  if (envelope && args.has("format")) throw wrongUsage(`--format is not needed: ${input.name} tells its format`);
  using key = envelope && await unwrap(input, envelope.header, keys.wrapping);
  const options = {
    ...common,
    ...key ? { key: key.bytes, format: envelope!.header.format } : streamOptions(args, streamKeysFor(input.name, keys)),
  };
  asUsage(() => checkSealOptions(options, ENGINES)).key.dispose();
  const output = await openOutput(args, [input, ...keys.inputs], 0o600);
  const start = envelope?.length ?? 0;
  const firstByte = input.ahead[0];
  try {
    const pieces = unseal({ ...options, inPlace: true }, chunksOf(input, output.free));
    await pump(pieces, output, new Progress("unseal", pieces, input.size && input.size - start, args));
  } catch (error) {
    const isHeader = codeOf(error) === "EBADMSG" && !envelope && "key" in options;
    throw (isHeader ? headerFailure(input.name, firstByte, formatOf(args)) : undefined) ?? error;
  }
  return 0;
}
