/**
 * Keys and passphrases: from files, descriptors or the terminal, never from the command line or the environment.
 *
 * @module
 */

import * as fs from "node:fs";
import type { KernelKey } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import type { Arguments } from "./arguments.ts";
import { closeFile, fill, inheritedDescriptors, openFile } from "./descriptors.ts";
import { Failure, fileFailure, wrongUsage } from "./failures.ts";
import { askPassphrase, checkPassphrase } from "./passphrase.ts";

export interface SecretInput {
  readonly kind: "key" | "passphrase" | "keyset" | "recipient" | "identity";
  readonly bytes: Bytes;
  /** The file or descriptor that it was read from; absent for the terminal. */
  readonly stats?: fs.BigIntStats;
}

/** The most bytes of a key, more than any cipher needs. */
export const LONGEST_KEY = 4096;

const NAMES = ["key-file", "key-fd", "kernel-key", "key-serial", "passphrase-file", "passphrase-fd"];

/** The one of these options that is given. */
export function onlyOption(args: Arguments, names: readonly string[]): string | undefined {
  const [first, second] = names.filter((name) => args.has(name));
  if (second !== undefined) throw wrongUsage(`--${first} and --${second} exclude each other: one secret is enough`);
  return first;
}

/** The kernel key that an option names, if one does. */
export function kernelKeyOf(args: Arguments): KernelKey | undefined {
  const name = onlyOption(args, NAMES);
  if (name === "key-serial") return { serial: args.integer(name, 1)! };
  if (name !== "kernel-key") return undefined;
  const [, type, description] = /^(logon|user|encrypted|trusted):(.+)$/s.exec(args.get(name)!) ?? [];
  if (!type) throw wrongUsage("--kernel-key expects logon, user, encrypted or trusted, a colon and a description");
  return { type, description } as KernelKey;
}

export async function readSecret(args: Arguments, confirm: boolean): Promise<SecretInput> {
  const name = onlyOption(args, NAMES);
  if (!name) return { kind: "passphrase", bytes: await askPassphrase(confirm) };
  const value = args.get(name)!;
  return name.startsWith("key") ? await readKey(args, name, value) : await readPassphrase(args, name, value);
}

/** Reads the key that an option names. */
export async function readKey(args: Arguments, name: string, value: string): Promise<SecretInput> {
  const { bytes, stats } = await readSecretFile(args, name, value);
  if (bytes.length > LONGEST_KEY) throw wrongUsage(`--${name} has more than ${LONGEST_KEY} bytes, too many for a key`);
  refuseText(name, bytes);
  return { kind: "key", bytes, stats };
}

/** Reads the passphrase that an option names: the first line. */
export async function readPassphrase(args: Arguments, name: string, value: string): Promise<SecretInput> {
  const { bytes, stats } = await readSecretFile(args, name, value);
  const end = bytes.indexOf(10);
  return { kind: "passphrase", bytes: checkPassphrase(end < 0 ? bytes : bytes.subarray(0, end)), stats };
}

const TEXT_KEYS = [
  {
    what: "hexadecimal digits",
    characters: "0123456789abcdefABCDEF",
    lengths: [32, 48, 64, 128],
    command: "xxd -r -p",
  },
  {
    what: "base64",
    characters: "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=",
    lengths: [24, 32, 44, 88],
    command: "base64 -d",
  },
];

/**
 * Refuses a line of hexadecimal digits or base64 of the length of a usual key: as bytes, it would be another key.
 * Compares bytes, because a string cannot be zeroed.
 */
function refuseText(name: string, bytes: Bytes): void {
  if (bytes.at(-1) !== 10) return;
  const text = bytes.subarray(0, bytes.at(-2) === 13 ? -2 : -1);
  for (const { what, characters, lengths, command } of TEXT_KEYS) {
    if (lengths.includes(text.length) && text.every((byte) => characters.includes(String.fromCharCode(byte)))) {
      throw wrongUsage(`--${name} is a line of ${what}, but a key is bytes: ${command} makes them`);
    }
  }
}

/** The associated data: the bytes of an option or of a file. */
export async function readAssociatedData(args: Arguments): Promise<Bytes> {
  const [text, file] = [args.get("associated-data"), args.get("associated-data-file")];
  if (file === undefined) return new TextEncoder().encode(text);
  if (text !== undefined) throw wrongUsage("--associated-data and --associated-data-file exclude each other");
  const { bytes } = await readStart("associated-data-file", file, LONGEST_ASSOCIATED_DATA + 1);
  if (bytes.length <= LONGEST_ASSOCIATED_DATA) return bytes;
  throw wrongUsage(`--associated-data-file expects at most ${LONGEST_ASSOCIATED_DATA} bytes`);
}

const LONGEST_ASSOCIATED_DATA = 1 << 20;

async function readSecretFile(args: Arguments, name: string, value: string): Promise<FileStart> {
  if (!name.endsWith("-fd")) return await readStart(name, value, LONGEST_KEY + 1);
  const number = args.integer(name, 0)!;
  if (number === 0 && !args.file("in")) throw wrongUsage(`--${name} 0 is standard input, which is the data: use --in`);
  const inherited = inheritedDescriptors();
  if (!inherited) throw new Failure(1, `--${name} needs /proc/self/fd, which cannot be read`);
  if (!inherited.has(number)) {
    throw wrongUsage(`--${name}: the tool was not started with a descriptor ${number} to read`);
  }
  // Opened by name, because Deno only reads descriptors that it has opened itself.
  return await readStart(name, `/dev/fd/${number}`, LONGEST_KEY + 1);
}

interface FileStart {
  readonly bytes: Bytes;
  readonly stats: fs.BigIntStats;
}

/** The first `length` bytes of the file that an option names. */
export async function readStart(name: string, path: string, length: number): Promise<FileStart> {
  const fd = await openFile(path, "r");
  try {
    const stats = fs.fstatSync(fd, { bigint: true });
    return { bytes: await fill(fd, new Uint8Array(length)), stats };
  } catch (error) {
    throw fileFailure(`cannot read --${name}`, error);
  } finally {
    closeFile(fd);
  }
}
