/**
 * What `seal`, `unseal` and `verify` take from the command line: keys, and the options of sealed streams.
 *
 * @module
 */

import type { EngineChoice, KeysetSealOptions, SealedFormatName, SealOptions } from "../../mod.ts";
import { checkFormat, FORMAT_NAMES } from "../sealed/format.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { Failure, wrongUsage } from "./failures.ts";
import { readStreamKeys, readWrappingKeys, type StreamKeys, type WrappingKeys } from "./sealing_keys.ts";
import { readAssociatedData } from "./secrets.ts";

/** All that options name as keys. */
export interface Keys extends Disposable {
  readonly inputs: StreamKeys["inputs"];
  readonly stream: StreamKeys | undefined;
  readonly wrapping: WrappingKeys | undefined;
}

export async function readKeys(args: Arguments, role: "recipient" | "identity"): Promise<Keys> {
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

/** The keys for a file that is not an envelope. */
export function streamKeysFor(name: string, { stream }: Keys): StreamKeys {
  if (stream) return stream;
  throw new Failure(
    3,
    `${name} is not wrapped for passphrases or public keys: it needs --key-file or --keyset, or it is damaged`,
  );
}

export function streamOptions(args: Arguments, { options }: StreamKeys): SealOptions | KeysetSealOptions {
  return "keyset" in options ? options : { ...options, format: formatOf(args) };
}

export function formatOf(args: Arguments): SealedFormatName | undefined {
  return args.get("format") as SealedFormatName | undefined;
}

export async function commonOptions(args: Arguments) {
  return {
    associatedData: await readAssociatedData(args),
    engine: (args.get("engine") ?? "auto") as EngineChoice,
  };
}

/** The failure that the first byte shows: the length of the header, which is public. Undefined if it is right. */
export function headerFailure(
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
