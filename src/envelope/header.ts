/**
 * The header of an envelope: the line `kcapi-sealed/1`, and a line with a JWE (RFC 7516) that wraps the file's key.
 *
 * @module
 */

import type { FlattenedJWE, GeneralJWE, JWEHeaderParameters } from "jose";
import { fromBase64Url } from "../base64url.ts";
import { type Bytes, subarray } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { FORMAT_NAMES, type SealedFormatName } from "../sealed/format.ts";
import type { AnySource } from "../sealed/source.ts";

/** The first line of an envelope. */
export const MAGIC = "kcapi-sealed/1\n";
const MAGIC_BYTES: Uint8Array = new TextEncoder().encode(MAGIC);
const NEWLINE = 10;
/** The most bytes of a header, both lines with their newlines. */
export const MOST_HEADER = 65_536;
/** The most iterations for one file, for all its recipients together. They take some seconds. */
export const MOST_ITERATIONS = 10_000_000;

/** The format of the sealed stream, if none is given. */
export const DEFAULT_ENVELOPE_FORMAT: SealedFormatName = "AES256_GCM_HKDF_64KB";

/** The description of one recipient in a file. Not authenticated. */
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
   * @returns When the header is complete: the header, its length in bytes, and a copy of the bytes after it.
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

/** Bytes of a source to read first: most headers are shorter. */
export const FIRST_READ = 4096;

/**
 * Reads the header of a source.
 *
 * @param first The first bytes of the source, at most {@linkcode FIRST_READ}.
 * @returns The header, and its length.
 */
export async function readHeaderOf(
  source: AnySource,
  first: Bytes,
): Promise<{ header: EnvelopeHeader; length: number }> {
  const reading = new HeaderReader();
  let bytes = first;
  for (let at = 0;;) {
    const complete = reading.add(bytes);
    if (complete) return complete;
    at += bytes.length;
    const end = Math.min(source.size!, MOST_HEADER);
    if (at >= end) throw createTruncatedHeaderError();
    bytes = await source.read(at, end, { signal: new AbortController().signal });
  }
}

/** Creates the error for an input that ends within the header. */
export function createTruncatedHeaderError(): KcapiError {
  return createHeaderError("the input ends within the header");
}

/** The kind of a recipient, in words. */
export function kindOf({ algorithm, curve }: EnvelopeRecipient): string {
  if (algorithm.startsWith("PBES2-")) return "a passphrase";
  if (algorithm.startsWith("ECDH-ES")) return `a public key of ${isName(curve) ? curve : "an elliptic curve"}`;
  if (algorithm.startsWith("RSA-OAEP")) return "a public key of RSA";
  return /^A\d+KW$/.test(algorithm) ? "a symmetric key" : "a recipient of an unknown kind";
}

/** Whether text from a file may be part of an error message. */
function isName(text: string | undefined): boolean {
  return text !== undefined && /^[\w-]{1,20}$/.test(text);
}

// ---- parsing ----

function parseHeader(line: Bytes): EnvelopeHeader {
  const jwe = parseObject(line);
  const protectedHeader = parseObject(decode(jwe.protected));
  const { format } = protectedHeader;
  if (typeof format !== "string" || !FORMAT_NAMES.includes(format)) {
    throw createHeaderError("the header names a format that is not known");
  }
  for (const name of ["iv", "ciphertext", "tag"]) decode(jwe[name]);
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
    decode(encrypted_key);
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
    throw createHeaderError(`a recipient's number of PBKDF2 iterations is not from 1 to ${MOST_ITERATIONS}`);
  }
  return {
    algorithm: alg,
    ...(typeof curve === "string" && { curve }),
    ...(typeof kid === "string" && { kid }),
    ...(isPassphrase && { iterations: p2c as number }),
  };
}

/**
 * Parses a JSON object. Refuses members that occur twice and text that is not UTF-8, because readers disagree on them.
 */
function parseObject(bytes: Uint8Array): Record<string, unknown> {
  let text: string;
  let value: unknown;
  let members: number;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    value = JSON.parse(text);
    members = countMembers(value); // throws if the nesting is too deep for the stack
  } catch {
    throw createHeaderError("the header is not JSON");
  }
  const colons = text.replace(/"(?:[^"\\]|\\.)*"/g, "").split(":").length - 1;
  if (colons !== members) throw createHeaderError("the header has a member twice");
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

/** Decodes canonical base64url. */
function decode(value: unknown): Bytes {
  const bytes = typeof value === "string" ? fromBase64Url(value) : undefined;
  if (!bytes) throw createHeaderError("the header has text that is not canonical base64url");
  return bytes;
}

/** Creates the error for a file that is not an envelope, or that must not be opened. */
export function createHeaderError(message: string): KcapiError {
  return new KcapiError("EBADMSG", "open", message);
}
