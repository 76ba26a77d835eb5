/**
 * Keys and passphrases: from files, descriptors or the terminal, never from the command line or the environment.
 *
 * @module
 */

import * as fs from "node:fs";
import type { KernelKey } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { fill, openFile } from "./descriptors.ts";
import { fileFailure, wrongUsage } from "./failures.ts";
import { askPassphrase, checkPassphrase } from "./passphrase.ts";

export interface Secret {
  readonly kind: "key" | "passphrase";
  readonly bytes: Bytes;
  /** The file or descriptor it came from; absent for the terminal. */
  readonly stats?: fs.BigIntStats;
}

/** More than any cipher takes. */
export const LONGEST_KEY = 4096;

const NAMES = ["key-file", "key-fd", "keyring", "key-serial", "passphrase-file", "passphrase-fd"];

/** What the key or the passphrase is taken from, if an option tells. */
function sourceOf(given: Arguments): string | undefined {
  const names = NAMES.filter((name) => given.has(name));
  if (names.length > 1) throw wrongUsage(`--${names[0]} and --${names[1]} are both given: one secret is enough`);
  return names[0];
}

/** A key of the kernel's, if that is what is given: no secret, but the name of one. */
export function kernelKeyOf(given: Arguments): KernelKey | undefined {
  const name = sourceOf(given);
  if (name === "key-serial") return { serial: given.integer(name, 1)! };
  if (name !== "keyring") return undefined;
  const [, type, description] = /^(logon|user|encrypted|trusted):(.+)$/s.exec(given.get(name)!) ?? [];
  if (!type) throw wrongUsage("--keyring expects logon, user, encrypted or trusted, a colon and a description");
  return { type, description } as KernelKey;
}

export async function readSecret(given: Arguments, confirm: boolean): Promise<Secret> {
  const name = sourceOf(given);
  if (!name) return { kind: "passphrase", bytes: await askPassphrase(confirm) };
  const { bytes, stats } = await readSecretFile(given, name);
  if (name.startsWith("key")) {
    if (bytes.length > LONGEST_KEY) throw wrongUsage(`--${name} has more than ${LONGEST_KEY} bytes, which is no key`);
    return { kind: "key", bytes, stats };
  }
  const end = bytes.indexOf(10);
  return { kind: "passphrase", bytes: checkPassphrase(end < 0 ? bytes : bytes.subarray(0, end)), stats };
}

/** A key, where nothing else will do. */
export async function readKey(given: Arguments): Promise<Secret> {
  if (given.has("key-file") || given.has("key-fd")) return await readSecret(given, false);
  throw wrongUsage(`no key: give --key-file or --key-fd (${NAME} keygen makes one)`);
}

async function readSecretFile(given: Arguments, name: string): Promise<{ bytes: Bytes; stats: fs.BigIntStats }> {
  const isDescriptor = name.endsWith("-fd");
  const number = isDescriptor ? given.integer(name, 0)! : undefined;
  if (number === 0 && !given.file("in")) throw wrongUsage(`--${name} 0 is standard input, which is the data: use --in`);
  // Opened by name: not every runtime reads a descriptor that it did not open itself.
  const fd = await openFile(isDescriptor ? `/dev/fd/${number}` : given.get(name)!, "r");
  try {
    const stats = fs.fstatSync(fd, { bigint: true });
    return { bytes: await fill(fd, new Uint8Array(LONGEST_KEY + 1)), stats };
  } catch (error) {
    throw fileFailure(`cannot read --${name}`, error);
  }
}
