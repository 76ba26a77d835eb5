/**
 * `keygen`: random keys, key pairs and keysets.
 *
 * @module
 */

import * as fs from "node:fs";
import { dirname } from "node:path";
import type { SealedFormatName } from "../../mod.ts";
import { toBase64Url } from "../base64url.ts";
import type { Bytes } from "../bytes.ts";
import { Secret } from "../secret.ts";
import { DEFAULT_FORMAT } from "../sealed/format.ts";
import { createKeyset, type Keyset } from "../tink/mod.ts";
import type { Arguments } from "./arguments.ts";
import { print, printError, writeAll } from "./descriptors.ts";
import { fileFailure, wrongUsage } from "./failures.ts";
import { refuseTerminal, syncDirectory } from "./output.ts";
import { atEndOrSignal } from "./signals.ts";

const LONGEST = 8 * 4096;

/** The kinds of keys besides plain bytes. */
export const KEY_TYPES = ["aes", "x25519", "tink"];

/** Writes a new key to a pipe, or to a new file that only the user can read. Prints its public part, if it has one. */
export async function keygen(args: Arguments): Promise<number> {
  const bits = args.integer("bits", 8, LONGEST) ?? 256;
  if (bits % 8 !== 0) throw wrongUsage("--bits expects a multiple of 8");
  const type = args.get("type");
  if (type !== undefined && args.has("bits")) throw wrongUsage("--bits is for keys without --type");
  if (type !== "tink" && args.has("format")) throw wrongUsage("--format is for keys of --type tink");
  refuseTerminal(args);
  const path = args.file("out");
  switch (type) {
    case "aes":
      return await writeAESKey(path);
    case "x25519":
      return await writeKeyPair(path);
    case "tink": {
      using keyset = newKeyset(args);
      return await writeKey(path, encodeKeyset(keyset));
    }
    default: {
      using key = Secret.random(bits / 8);
      return await writeKey(path, key.bytes);
    }
  }
}

async function writeAESKey(path: string | undefined): Promise<number> {
  using key = Secret.random(32);
  return await writeKey(path, encodeJSON({ kty: "oct", k: toBase64Url(key.bytes), alg: "A256KW" }));
}

/** A key pair of X25519. The public part goes to standard output, or to standard error beside the private one. */
async function writeKeyPair(path: string | undefined): Promise<number> {
  const pair = await crypto.subtle.generateKey({ name: "X25519" }, true, ["deriveBits"]) as CryptoKeyPair;
  const { kty, crv, x, d } = await crypto.subtle.exportKey("jwk", pair.privateKey);
  const publicKey = { kty, crv, x, alg: "ECDH-ES+A256KW" };
  await writeKey(path, encodeJSON({ ...publicKey, d }));
  const line = `${JSON.stringify(publicKey)}\n`;
  if (path !== undefined) return await print(line);
  printError(line);
  return 0;
}

/** A keyset in the format that an option names. */
export function newKeyset(args: Arguments): Keyset {
  return createKeyset((args.get("format") ?? DEFAULT_FORMAT) as SealedFormatName);
}

/** The secret file of a keyset. */
export function encodeKeyset(keyset: Keyset): Bytes {
  return encodeJSON(keyset);
}

function encodeJSON(value: unknown): Bytes {
  return new TextEncoder().encode(`${JSON.stringify(value)}\n`);
}

/** Writes a secret, and zeroes it. */
export async function writeKey(path: string | undefined, key: Bytes): Promise<number> {
  try {
    if (path === undefined) await writeAll(1, key);
    else await writeNew(path, key);
    return 0;
  } catch (error) {
    throw fileFailure(`cannot write ${path ?? "standard output"}`, error);
  } finally {
    key.fill(0);
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
