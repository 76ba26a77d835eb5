/**
 * What files are sealed and unsealed with: keys, keysets, recipients and identities.
 *
 * @module
 */

import { createPrivateKey, createPublicKey } from "node:crypto";
import type { JoseKey, JWK, Passphrase } from "../envelope/recipients.ts";
import { type Keyset, parseKeyset } from "../tink/mod.ts";
import type { Bytes } from "../bytes.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { codeOf, Failure, wrongUsage } from "./failures.ts";
import { askPassphrase } from "./passphrase.ts";
import { asUsage } from "./plan.ts";
import { onlyOption, readKey, readPassphrase, readStart, type SecretInput } from "./secrets.ts";

/** What a sealed stream takes: keys, or a keyset. */
export interface StreamKeys extends Disposable {
  readonly inputs: readonly SecretInput[];
  readonly options: { readonly key: readonly Bytes[] } | { readonly keyset: Keyset };
}

/** The recipients of a file, or the identities that open it. */
export interface WrappingKeys extends Disposable {
  readonly inputs: readonly SecretInput[];
  readonly keys: readonly JoseKey[];
}

/** Bytes of a file with keys. */
const LONGEST_FILE = 1 << 20;

/** The options for keys without recipients. */
export const STREAM_OPTIONS: readonly string[] = ["key-file", "key-fd", "keyset"];

/** The kinds of keys that a file has, and the options that name them. */
const ROLES = {
  recipient: { list: "recipients", what: "a public key" },
  identity: { list: "identities", what: "a private key" },
} as const;

type Role = keyof typeof ROLES;

/** The names of the options for a passphrase. */
function passphraseOptions(prefix: string): readonly string[] {
  return ["passphrase", "passphrase-file", "passphrase-fd"].map((name) => `${prefix}${name}`);
}

/** The options for recipients or identities. */
export function wrappingOptions(role: Role): readonly string[] {
  return [role, ...passphraseOptions("")];
}

/** Reads the keys or the keyset, if options name any. */
export async function readStreamKeys(args: Arguments): Promise<StreamKeys | undefined> {
  const name = onlyOption(args, STREAM_OPTIONS);
  if (name === undefined) return undefined;
  if (name === "keyset") return await readKeyset(args);
  const inputs: SecretInput[] = [];
  for (const value of args.all(name)) inputs.push(await readKey(args, name, value));
  for (const { bytes } of inputs) {
    if (bytes.length > 0 && bytes.every((byte) => byte === 0)) {
      throw wrongUsage(`--${name} has only zero bytes, so it is not a key`);
    }
  }
  const key = inputs.map(({ bytes }) => bytes);
  return { inputs, options: { key }, [Symbol.dispose]: () => key.forEach((bytes) => bytes.fill(0)) };
}

async function readKeyset(args: Arguments): Promise<StreamKeys> {
  if (args.has("format")) throw wrongUsage("--keyset and --format exclude each other: a keyset has formats");
  const path = args.get("keyset")!;
  const input = await readKeyFile("keyset", path);
  const keyset = keysetOf(path, input.bytes);
  return { inputs: [input], options: { keyset }, [Symbol.dispose]: () => keyset.close() };
}

/** Parses the keyset of a file, whose bytes are zeroed. */
export function keysetOf(path: string, bytes: Bytes): Keyset {
  const json = parseJSON(path, textOf(path, bytes));
  if (typeof json === "object" && json !== null && "encryptedKeyset" in json) {
    throw wrongUsage(`${path} is an encrypted keyset: the tool asks no KMS, so decrypt it first`);
  }
  return asUsage(() => parseKeyset(json as object), path);
}

/**
 * Reads the files and the passphrase of recipients or identities, if options name any.
 *
 * @param prefix Of the names of the options for the passphrase.
 */
export async function readWrappingKeys(args: Arguments, role: Role, prefix = ""): Promise<WrappingKeys | undefined> {
  const [flag, ...sources] = passphraseOptions(prefix) as [string, ...string[]];
  const name = onlyOption(args, sources) ?? onlyOption(args, [flag]);
  const paths = args.all(role);
  if (name === undefined && paths.length === 0) return undefined;
  const { checkList, importKeys, disposeKeys } = await loadWrapping();
  const inputs: SecretInput[] = [];
  const keys: JoseKey[] = [];
  const add = async (path: string, list: readonly (JWK | Passphrase)[]) => {
    const { list: name } = ROLES[role];
    keys.push(...await asUsage(() => importKeys(name, checkList(name, list)), path));
  };
  for (const path of paths) {
    const input = await readKeyFile(role, path);
    inputs.push(input);
    await add(path, jwksOf(path, role, input.bytes));
  }
  if (name !== undefined) {
    const input: SecretInput = name === flag
      ? {
        kind: "passphrase",
        bytes: await askPassphrase(role === "recipient", prefix ? "New passphrase: " : undefined),
      }
      : await readPassphrase(args, name, args.get(name)!);
    inputs.push(input);
    await add(`--${name}`, [{ passphrase: textOf(`--${name}`, input.bytes) }]);
  }
  return { inputs, keys, [Symbol.dispose]: () => disposeKeys(keys) };
}

/** The part of envelopes that needs the package jose, which is an optional peer dependency. */
export async function loadWrapping() {
  try {
    return { ...await import("../envelope/recipients.ts"), ...await import("../envelope/wrapping.ts") };
  } catch (error) {
    if (codeOf(error) !== "ERR_MODULE_NOT_FOUND") throw error;
    throw new Failure(
      1,
      `passphrases and public keys need the package jose, which is not installed: npm install jose ` +
        `(npm install -g jose, if ${NAME} was installed with -g)`,
    );
  }
}

export async function readKeyFile(kind: SecretInput["kind"], path: string): Promise<SecretInput> {
  const { bytes, stats } = await readStart(kind, path, LONGEST_FILE + 1);
  if (bytes.length > LONGEST_FILE) throw wrongUsage(`${path} has more than ${LONGEST_FILE} bytes`);
  return { kind, bytes, stats };
}

/** The keys of a file: a JWK, a JWK set (RFC 7517) without its keys for signatures, or PEM. Its bytes are zeroed. */
function jwksOf(path: string, role: Role, bytes: Bytes): readonly JWK[] {
  const text = textOf(path, bytes);
  if (text.trimStart().startsWith("-----BEGIN ")) return [jwkOfPEM(path, role, text)];
  const json = parseJSON(path, text) as JWK | { readonly keys: readonly JWK[] } | null;
  if (!Array.isArray(json?.keys)) return [json as JWK];
  const list = (json.keys as readonly JWK[]).filter((key) => key?.use !== "sig");
  if (list.length === 0) throw wrongUsage(`${path} expected ${ROLES[role].what}, got a JWK set without one`);
  return list;
}

function jwkOfPEM(path: string, role: Role, file: string): JWK {
  // openssl ecparam writes the parameters in front of the key.
  const text = file.replace(/-----BEGIN EC PARAMETERS-----[^-]*-----END EC PARAMETERS-----/, "").trim();
  try {
    const key = role === "recipient" ? createPublicKey(text) : createPrivateKey(text);
    return key.export({ format: "jwk" }) as JWK;
  } catch {
    throw wrongUsage(`${path} expected ${ROLES[role].what} in PEM that is not encrypted`);
  }
}

/** The text of bytes, which are zeroed. Strings cannot be zeroed, but JSON and jose take nothing else. */
function textOf(name: string, bytes: Bytes): string {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw wrongUsage(`${name} expected UTF-8, got other bytes`);
  } finally {
    bytes.fill(0);
  }
}

function parseJSON(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    throw wrongUsage(`${path} expected JSON, got other text`); // the runtime's message quotes the text
  }
}
