/**
 * Envelopes: `recipients`, `rewrap`, and the header that `seal` writes and `unseal` reads.
 *
 * @module
 */

import type { SealedFormatName } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import {
  createTruncatedHeaderError,
  type EnvelopeHeader,
  type EnvelopeRecipient,
  HeaderReader,
  kindOf,
  MAGIC,
} from "../envelope/header.ts";
import { Secret } from "../secret.ts";
import type { Arguments } from "./arguments.ts";
import { print } from "./descriptors.ts";
import { Failure, wrongUsage } from "./failures.ts";
import { chunksOf, type Input, openInput, readInput } from "./input.ts";
import { openOutput, refuseTerminal } from "./output.ts";
import { asUsage } from "./plan.ts";
import { Progress, pump } from "./progress.ts";
import { loadWrapping, readWrappingKeys, type WrappingKeys } from "./sealing_keys.ts";

/** Bytes to read at once: most headers are short. */
const CHUNK = 4096;

/** A new key for a file, and the header that wraps it. */
export async function wrapNewKey({ keys }: WrappingKeys, format: SealedFormatName) {
  const key = Secret.random(32);
  try {
    return { key, header: await wrap(key, format, keys) };
  } catch (error) {
    key.dispose();
    throw error;
  }
}

async function wrap(key: Secret, format: SealedFormatName, keys: WrappingKeys["keys"]): Promise<Bytes> {
  const { makeHeader } = await loadWrapping();
  return await asUsage(() => makeHeader(key, format, keys));
}

/** A header, and its length. */
interface ReadHeader {
  readonly header: EnvelopeHeader;
  readonly length: number;
}

/**
 * Reads the header of an envelope. What was read and does not belong to it remains in `input.ahead`.
 *
 * @returns Undefined if the input does not begin with the first line of an envelope.
 */
export async function readHeader(input: Input): Promise<ReadHeader | undefined> {
  let chunk = await readInput(input, new Uint8Array(MAGIC.length));
  if (new TextDecoder("latin1").decode(chunk) !== MAGIC) {
    input.ahead = chunk;
    return undefined;
  }
  const reading = new HeaderReader();
  for (;;) {
    const complete = reading.add(chunk);
    if (complete) {
      input.ahead = complete.rest;
      return complete;
    }
    chunk = await readInput(input, new Uint8Array(CHUNK), true);
    if (chunk.length === 0) throw createTruncatedHeaderError();
  }
}

/** Unwraps the key of an envelope. */
export async function unwrap(
  { name }: Pick<Input, "name">,
  header: EnvelopeHeader,
  keys: WrappingKeys | undefined,
): Promise<Secret> {
  if (!keys) {
    throw new Failure(
      3,
      `${name} has a key of its own, wrapped for ${kindsOf(header)}: give --identity or --passphrase`,
    );
  }
  const { unwrapKey } = await loadWrapping();
  return await unwrapKey(header, keys.keys);
}

function kindsOf({ recipients }: EnvelopeHeader): string {
  return [...new Set(recipients.map(kindOf))].join(", ");
}

/** Opens a file that has to be an envelope. */
async function readEnvelope(input: Input): Promise<ReadHeader> {
  const found = await readHeader(input);
  if (found) return found;
  throw new Failure(3, `${input.name} is not an envelope: its first line is not ${MAGIC.trim()}`);
}

/** Shows the recipients of a file. */
export async function recipients(args: Arguments): Promise<number> {
  const [path] = args.operands;
  const input = await openInput(path === "-" ? undefined : path, []);
  const { header } = await readEnvelope(input);
  if (args.has("json")) return await print(`${JSON.stringify(header.recipients, undefined, 2)}\n`);
  return await print(header.recipients.map((recipient) => `${describeRecipient(recipient)}\n`).join(""));
}

/** In one line. The name of a key is text of the file: quoted, it cannot control the terminal. */
function describeRecipient(recipient: EnvelopeRecipient): string {
  const { algorithm, iterations, kid } = recipient;
  const details = [
    quoteUnlessName(algorithm),
    ...iterations === undefined ? [] : [`${iterations} iterations`],
    ...kid === undefined ? [] : [`key ${quote(kid)}`],
  ];
  return `${kindOf(recipient)} (${details.join(", ")})`;
}

function quoteUnlessName(text: string): string {
  return /^[\w+-]{1,40}$/.test(text) ? text : quote(text);
}

/** JSON in ASCII. */
function quote(text: string): string {
  return JSON.stringify(text).replace(/[^ -~]/g, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

/** Wraps the key of a file for other recipients. The file may be replaced by the result. */
export async function rewrap(args: Arguments): Promise<number> {
  refuseTerminal(args);
  using identities = await readWrappingKeys(args, "identity");
  if (!identities) throw wrongUsage("no identity: give --identity or --passphrase");
  using recipients = await readWrappingKeys(args, "recipient", "new-");
  if (!recipients) throw wrongUsage("no recipient: give --recipient or --new-passphrase");
  const secrets = [...identities.inputs, ...recipients.inputs];
  const input = await openInput(args.file("in"), secrets);
  const { header, length } = await readEnvelope(input);
  using key = await unwrap(input, header, identities);
  const newHeader = await wrap(key, header.format, recipients.keys);
  const output = await openOutput(args, input.stats.isFile() ? secrets : [input, ...secrets], 0o666);
  const size = input.size && input.size - length;
  const pieces = chunksOf(input, output.free);
  await pump(pieces, output, new Progress("rewrap", undefined, size, args), newHeader);
  return 0;
}
