/**
 * The header of an envelope: the line `kcapi-sealed/1`, and a line with a JWE (RFC 7516) that wraps the file's key.
 *
 * @module
 */

import { flattenedDecrypt, type FlattenedJWE, GeneralEncrypt, type GeneralJWE, type JWEHeaderParameters } from "jose";
import { type Bytes, subarray } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { FORMAT_NAMES, type SealedFormatName } from "../sealed/format.ts";
import { type JoseKey, MOST_ITERATIONS } from "./recipients.ts";

const MAGIC = "kcapi-sealed/1\n";
const MAGIC_BYTES: Uint8Array = new TextEncoder().encode(MAGIC);
const NEWLINE = 10;
/** The most bytes of a header, both lines with their newlines. */
export const MOST_HEADER = 65_536;
const KEY_SIZE = 32;
const CONTENT_ALGORITHMS = ["A256GCM", "A192GCM", "A128GCM", "A256CBC-HS512", "A192CBC-HS384", "A128CBC-HS256"];

/** What a file says of one recipient. Not authenticated. */
export interface EnvelopeRecipient {
  /** The JWE algorithm, such as `"ECDH-ES+A256KW"`. */
  readonly algorithm: string;
  /** The curve of the ephemeral key, such as `"X25519"`. */
  readonly curve?: string | undefined;
  /** The name of the recipient's key, if it has one. */
  readonly kid?: string | undefined;
  /** The PBKDF2 iterations of a passphrase. */
  readonly iterations?: number | undefined;
}

/** A header that was parsed, with nothing verified. */
export interface EnvelopeHeader {
  readonly format: SealedFormatName;
  readonly recipients: readonly EnvelopeRecipient[];
  readonly jwes: readonly FlattenedJWE[];
}

/** Collects a header from chunks. */
export class HeaderReader {
  readonly #bytes: Bytes = new Uint8Array(MOST_HEADER);
  #length = 0;

  /**
   * Adds a chunk.
   *
   * @returns Once the header is complete, the header, its length in bytes, and a copy of what came behind it.
   * @throws {KcapiError} EBADMSG if the bytes are no header.
   */
  add(chunk: Bytes): { header: EnvelopeHeader; length: number; rest: Bytes } | undefined {
    const start = this.#length;
    const taken = subarray(chunk, 0, Math.min(chunk.length, MOST_HEADER - start));
    this.#bytes.set(taken, start);
    this.#length += taken.length;
    const bytes = this.#bytes.subarray(0, this.#length);
    if (MAGIC_BYTES.subarray(0, bytes.length).some((byte, i) => byte !== bytes[i])) {
      throw createHeaderError(`the input does not begin with the line ${MAGIC.trim()}`);
    }
    const end = bytes.indexOf(NEWLINE, Math.max(start, MAGIC_BYTES.length));
    if (end < 0) {
      if (bytes.length === MOST_HEADER) throw createHeaderError(`the header is longer than ${MOST_HEADER} bytes`);
      return undefined;
    }
    const header = parseHeader(bytes.subarray(MAGIC_BYTES.length, end));
    return { header, length: end + 1, rest: subarray(chunk, end + 1 - start, chunk.length).slice() };
  }
}

/** The error where the input ends before the header does. */
export function createTruncatedHeaderError(): KcapiError {
  return createHeaderError("the input ends within the header");
}

/** A header that wraps `key` for all recipients. */
export async function makeHeader(
  key: Secret,
  format: SealedFormatName,
  recipients: readonly JoseKey[],
): Promise<Bytes> {
  const jwe = new GeneralEncrypt(key.bytes).setProtectedHeader({ enc: "A256GCM", format });
  for (const { algorithm, kid, key, iterations } of recipients) {
    const recipient = jwe.addRecipient(key)
      .setUnprotectedHeader({ alg: algorithm, ...(kid !== undefined && { kid }) });
    if (iterations !== undefined) recipient.setKeyManagementParameters({ p2c: iterations });
  }
  const wrapped = await jwe.encrypt().catch((cause) => {
    throw new TypeError('"recipients" expected keys that can be used, got a public key that is not on its curve', {
      cause,
    });
  });
  const bytes = new TextEncoder().encode(`${MAGIC}${JSON.stringify(wrapped)}\n`);
  if (bytes.length > MOST_HEADER) {
    throw new RangeError(`"recipients" expected a header of at most ${MOST_HEADER} bytes, got ${bytes.length}`);
  }
  return bytes;
}

/**
 * Unwraps the key of a file.
 *
 * @throws {KcapiError} EKEYREJECTED if no identity fits. The message names the kinds of recipients, and not which
 * was close.
 */
export async function unwrapKey({ recipients, jwes }: EnvelopeHeader, identities: readonly JoseKey[]): Promise<Secret> {
  let budget = MOST_ITERATIONS;
  for (const [i, jwe] of jwes.entries()) {
    const { algorithm, kid, iterations = 0 } = recipients[i]!;
    for (const identity of identities) {
      if (identity.algorithm !== algorithm) continue;
      if (kid !== undefined && identity.kid !== undefined && kid !== identity.kid) continue;
      budget -= iterations;
      if (budget < 0) throw createHeaderError(`the file asks for more than ${MOST_ITERATIONS} iterations of PBKDF2`);
      const key = await tryUnwrap(jwe, identity);
      if (key) return key;
    }
  }
  throw noIdentityFits(recipients);
}

async function tryUnwrap(jwe: FlattenedJWE, { algorithm, key }: JoseKey): Promise<Secret | undefined> {
  try {
    const { plaintext } = await flattenedDecrypt(jwe, key, {
      keyManagementAlgorithms: [algorithm],
      contentEncryptionAlgorithms: CONTENT_ALGORITHMS,
      maxPBES2Count: MOST_ITERATIONS,
    });
    try {
      return plaintext.length === KEY_SIZE ? Secret.from(plaintext) : undefined;
    } finally {
      plaintext.fill(0);
    }
  } catch {
    return undefined; // which step failed would help those who guess
  }
}

function noIdentityFits(recipients: readonly EnvelopeRecipient[]): KcapiError {
  const kinds = [...new Set(recipients.map(kindOf))].join(", ");
  return new KcapiError("EKEYREJECTED", "open", "no identity fits this file", {
    hint: `its key is wrapped for: ${kinds}`,
  });
}

/** The kind of a recipient, in words. */
function kindOf({ algorithm, curve }: EnvelopeRecipient): string {
  if (algorithm.startsWith("PBES2-")) return "a passphrase";
  if (algorithm.startsWith("ECDH-ES")) return `a public key of ${curve ?? "an elliptic curve"}`;
  if (algorithm.startsWith("RSA-OAEP")) return "a public key of RSA";
  return /^A\d+KW$/.test(algorithm) ? "a symmetric key" : "a recipient of an unknown kind";
}

// ---- parsing ----

function parseHeader(line: Bytes): EnvelopeHeader {
  const jwe = parseObject(line);
  const protectedHeader = parseObject(fromBase64Url(jwe.protected));
  const { format } = protectedHeader;
  if (typeof format !== "string" || !FORMAT_NAMES.includes(format)) {
    throw createHeaderError("the header names a format that is not known");
  }
  for (const name of ["iv", "ciphertext", "tag"]) fromBase64Url(jwe[name]);
  const jwes = flatten(jwe as unknown as GeneralJWE & FlattenedJWE);
  return {
    format: format as SealedFormatName,
    jwes,
    recipients: jwes.map(({ header, unprotected }) => recipientOf({ ...protectedHeader, ...unprotected, ...header })),
  };
}

/** A JWE for each recipient. Both JSON serializations of RFC 7516, section 7.2, are read. */
function flatten({ recipients, header, encrypted_key, ...common }: GeneralJWE & FlattenedJWE): FlattenedJWE[] {
  if (recipients !== undefined && (header !== undefined || encrypted_key !== undefined)) {
    throw createHeaderError("the header is neither a general nor a flattened JWE");
  }
  const list = recipients ?? [{ ...(header && { header }), ...(encrypted_key !== undefined && { encrypted_key }) }];
  if (!Array.isArray(list) || list.length === 0) throw createHeaderError("the header has no recipients");
  return list.map((recipient: unknown) => {
    const { header, encrypted_key } = asObject(recipient);
    fromBase64Url(encrypted_key);
    return {
      ...common,
      encrypted_key: encrypted_key as string,
      ...(header !== undefined && { header: asObject(header) as JWEHeaderParameters }),
    };
  });
}

function recipientOf({ alg, kid, p2c, epk }: Record<string, unknown>): EnvelopeRecipient {
  if (typeof alg !== "string") throw createHeaderError("a recipient has no algorithm");
  const curve = typeof epk === "object" && epk !== null ? (epk as { crv?: unknown }).crv : undefined;
  const isPassphrase = alg.startsWith("PBES2-");
  if (isPassphrase && !(typeof p2c === "number" && Number.isInteger(p2c) && p2c > 0 && p2c <= MOST_ITERATIONS)) {
    throw createHeaderError(`a recipient asks for no number of PBKDF2 iterations from 1 to ${MOST_ITERATIONS}`);
  }
  return {
    algorithm: alg,
    ...(typeof curve === "string" && { curve }),
    ...(typeof kid === "string" && { kid }),
    ...(isPassphrase && { iterations: p2c as number }),
  };
}

/** A JSON object. What can be read in two ways is refused: members that come twice, and text that is not UTF-8. */
function parseObject(bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  let value: unknown;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
  } catch {
    throw createHeaderError("the header is not JSON");
  }
  const colons = text.replace(/"(?:[^"\\]|\\.)*"/g, "").split(":").length - 1;
  if (colons !== countMembers(value)) throw createHeaderError("the header has a member twice");
  return asObject(value);
}

function countMembers(value: unknown): number {
  if (typeof value !== "object" || value === null) return 0;
  const values = Object.values(value);
  return values.reduce<number>((sum, each) => sum + countMembers(each), Array.isArray(value) ? 0 : values.length);
}

function asObject(value: unknown): Record<string, unknown> {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Record<string, unknown>;
  throw createHeaderError("the header is not a JWE");
}

/** Canonical base64url without padding: the only encoding of its bytes. */
function fromBase64Url(value: unknown): Uint8Array {
  if (typeof value !== "string" || !/^[\w-]*$/.test(value)) {
    throw createHeaderError("the header has text that is not base64url");
  }
  let binary: string;
  try {
    binary = atob(value.replaceAll("-", "+").replaceAll("_", "/"));
  } catch {
    throw createHeaderError("the header has text that is not base64url");
  }
  const canonical = btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
  if (canonical !== value) throw createHeaderError("the header has base64url that is not canonical");
  return Uint8Array.from(binary, (character) => character.charCodeAt(0));
}

function createHeaderError(message: string): KcapiError {
  return new KcapiError("EBADMSG", "open", message);
}
