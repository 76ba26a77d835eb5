/**
 * The format of sealed streams: Tink's streaming AEAD.
 *
 *     sealed  = header | segment 0 | segment 1 | … | segment k
 *     header  = its length (1 byte) | salt (as long as the AES key) | nonce prefix (7 bytes)
 *     segment = ciphertext | tag
 *
 * A segment has `segmentSize` bytes, including its tag. The first segment is shorter by the size of the header, and the
 * last one has the rest. The file contains none of the parameters.
 *
 * @module
 */

import { type Bytes, wrongType } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { checkOptions, oneOf, type OptionNames } from "../options.ts";
import { sliceOf } from "./slice.ts";

/** A hash of HKDF or HMAC. */
export type SealedHash = "SHA-1" | "SHA-256" | "SHA-512";

/** The parameters of a format. */
export interface SealedParameters {
  /** `"AES-CTR-HMAC"`, which the kernel can run, or `"AES-GCM-HKDF"`, which `node:crypto` runs. */
  readonly cipher: "AES-CTR-HMAC" | "AES-GCM-HKDF";
  /** Bytes of the AES key that is derived for each stream: 16 or 32. */
  readonly keySize: 16 | 32;
  /** The hash of HKDF (RFC 5869), which derives that key. */
  readonly hkdfHash: SealedHash;
  /** The hash of HMAC. AES-GCM-HKDF has none: there it is optional and has no effect. */
  readonly macHash?: SealedHash | undefined;
  /** Bytes of a tag: from 10 to the length of `macHash`. With AES-GCM-HKDF it is optional, and 16. */
  readonly tagSize?: number | undefined;
  /** Bytes of a segment including its tag, at most 16 MiB. */
  readonly segmentSize: number;
}

/** The formats with a name: those of Tink, and the same with segments of 64 KiB. */
export type SealedFormatName =
  | `AES${128 | 256}_CTR_HMAC_SHA256_${"4KB" | "64KB" | "1MB"}`
  | `AES${128 | 256}_GCM_HKDF_${"4KB" | "64KB" | "1MB"}`;

/** A format by its name or its parameters. */
export type SealedFormat = SealedFormatName | SealedParameters;

/** A checked format, with all parameters. */
export interface Format extends SealedParameters {
  readonly tagSize: number;
  readonly headerSize: number;
}

/** Bytes of the nonce prefix, and of the length at the start of the header. */
export const PREFIX_SIZE = 7;
const LENGTH_SIZE = 1;

/** Bytes of the key of HMAC. */
const MAC_KEY = 32;

/** The most bytes of a segment, so that a hostile configuration cannot exhaust the memory. */
const MOST_SEGMENT = 16 * 1024 * 1024;

/** A segment index has 32 bits. Like some writers of Tink, this one does not use the last index. */
export const MOST_SEGMENTS = 2 ** 32 - 1;

const LEAST_TAG = 10;
const GCM_TAG = 16;
const HASH_SIZES: Readonly<Record<SealedHash, number>> = { "SHA-1": 20, "SHA-256": 32, "SHA-512": 64 };
const HASHES = Object.keys(HASH_SIZES);

const SEGMENT_SIZES = { "4KB": 4096, "64KB": 65_536, "1MB": 1_048_576 };

/** The default. The kernel can run it, and a thousand streams can each buffer a segment. */
export const DEFAULT_FORMAT: SealedFormatName = "AES256_CTR_HMAC_SHA256_64KB";

const PARAMETER_NAMES: OptionNames<SealedParameters> = {
  cipher: true,
  keySize: true,
  hkdfHash: true,
  macHash: true,
  tagSize: true,
  segmentSize: true,
};

const NAMED: ReadonlyMap<string, Format> = new Map(
  ["CTR_HMAC_SHA256", "GCM_HKDF"].flatMap((family) =>
    ([16, 32] as const).flatMap((keySize) =>
      Object.entries(SEGMENT_SIZES).map(([size, segmentSize]): [string, Format] => [
        `AES${8 * keySize}_${family}_${size}`,
        checkParameters({
          keySize,
          hkdfHash: "SHA-256",
          segmentSize,
          ...(family === "GCM_HKDF"
            ? { cipher: "AES-GCM-HKDF" }
            : { cipher: "AES-CTR-HMAC", macHash: "SHA-256", tagSize: 32 }),
        }),
      ])
    )
  ),
);

/** The names there are. */
export const FORMAT_NAMES: readonly string[] = [...NAMED.keys()];

/** Checks the option `format`. */
export function checkFormat(format: unknown = DEFAULT_FORMAT): Format {
  if (typeof format === "object" && format !== null) return checkParameters(format as SealedParameters);
  if (typeof format !== "string") {
    throw wrongType("format", "a name or parameters", format);
  }
  const named = NAMED.get(format);
  if (named) return named;
  throw new TypeError(
    `"format" expected one of ${FORMAT_NAMES.join(", ")}, got ${JSON.stringify(format.slice(0, 40))}`,
  );
}

function checkParameters(parameters: SealedParameters): Format {
  checkOptions("format", parameters, PARAMETER_NAMES);
  const { cipher, keySize, hkdfHash, macHash, tagSize, segmentSize } = parameters;
  oneOf("cipher", cipher, ["AES-CTR-HMAC", "AES-GCM-HKDF"]);
  oneOf("keySize", keySize, [16, 32]);
  oneOf("hkdfHash", hkdfHash, HASHES);
  const isGcm = cipher === "AES-GCM-HKDF";
  if (!isGcm || macHash !== undefined) oneOf("macHash", macHash, HASHES);
  const [least, most] = isGcm ? [GCM_TAG, GCM_TAG] : [LEAST_TAG, HASH_SIZES[macHash!]];
  const tag = tagSize === undefined && isGcm ? GCM_TAG : integer("tagSize", tagSize, least, most);
  const headerSize = LENGTH_SIZE + keySize + PREFIX_SIZE;
  // The first segment has space for the header and at least one byte.
  integer("segmentSize", segmentSize, headerSize + tag + 1, MOST_SEGMENT);
  return { cipher, keySize, hkdfHash, ...(macHash && { macHash }), tagSize: tag, segmentSize, headerSize };
}

function integer(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number") throw wrongType(name, "a number", value);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`"${name}" expected an integer from ${least} to ${most}, got ${value}`);
}

/** Bytes that are derived for each stream: the AES key, and behind it the key of HMAC if there is one. */
export function derivedSize({ cipher, keySize }: Format): number {
  return keySize + (cipher === "AES-GCM-HKDF" ? 0 : MAC_KEY);
}

/** The parsed header of a stream. */
export interface Header {
  readonly salt: Bytes;
  readonly prefix: Bytes;
}

/** Creates the header of a new stream. */
export function randomHeader({ keySize }: Format): Header {
  return {
    salt: crypto.getRandomValues(new Uint8Array(keySize)),
    prefix: crypto.getRandomValues(new Uint8Array(PREFIX_SIZE)),
  };
}

/** Encodes a header. */
export function headerBytes({ headerSize }: Format, { salt, prefix }: Header): Bytes {
  return Uint8Array.of(headerSize, ...salt, ...prefix);
}

/**
 * Decodes a header.
 *
 * @throws {KcapiError} EBADMSG if `bytes` is not a header of this format.
 */
export function parseHeader({ headerSize, keySize }: Format, bytes: Bytes): Header {
  if (bytes.length !== headerSize || bytes[0] !== headerSize) throw createBadMessageError();
  return { salt: bytes.slice(LENGTH_SIZE, LENGTH_SIZE + keySize), prefix: bytes.slice(LENGTH_SIZE + keySize) };
}

/** Decodes a header whose first byte may be damaged: it is always the same, and no key depends on it. */
export function parseDamagedHeader(format: Format, bytes: Bytes): Header {
  const header = bytes.slice(0, format.headerSize);
  header[0] = format.headerSize;
  return parseHeader(format, header);
}

/** The one error for all faults of sealed data, because an error that names the fault helps an attacker. */
export function createBadMessageError(): KcapiError {
  return new KcapiError(
    "EBADMSG",
    "unseal",
    "the sealed data is damaged or truncated, or the key or the associated data is wrong",
  );
}

/** @throws {KcapiError} EOVERFLOW, so that no number is used twice. */
export function checkIndex(index: number): number {
  if (index < MOST_SEGMENTS) return index;
  throw new KcapiError("EOVERFLOW", "seal", `a sealed stream ends here, after ${MOST_SEGMENTS} segments`, {
    hint: "take a format with larger segments",
  });
}

/** The positions of full segments, in the plaintext or in the sealed stream. */
export class SegmentSide {
  readonly #step: number;
  readonly #headerSize: number;
  readonly #origin: number;

  /**
   * @param step Bytes of a segment, except the first one, which is shorter by the header.
   * @param origin The position of the first segment.
   */
  constructor(step: number, headerSize: number, origin: number) {
    this.#step = step;
    this.#headerSize = headerSize;
    this.#origin = origin;
  }

  /** The position of segment `index`. */
  start(index: number): number {
    return index === 0 ? this.#origin : index * this.#step - this.#headerSize + this.#origin;
  }

  /** The index of the segment with the byte at `position`. */
  indexAt(position: number): number {
    return Math.floor((position - this.#origin + this.#headerSize) / this.#step);
  }

  /** The number of bytes in `count` segments from segment `index` on. */
  lengthOf(index: number, count: number): number {
    return count * this.#step - (index === 0 ? this.#headerSize : 0);
  }

  /** The number of full segments in `length` bytes from segment `index` on. */
  countOf(index: number, length: number): number {
    return Math.max(0, Math.floor((length + (index === 0 ? this.#headerSize : 0)) / this.#step));
  }
}

/** The positions and sizes of the segments of a format. */
export class SegmentLayout {
  readonly plaintext: SegmentSide;
  /** Positions include the header, lengths do not. */
  readonly sealed: SegmentSide;
  readonly #format: Format;

  constructor(format: Format) {
    const { segmentSize, tagSize, headerSize } = format;
    this.plaintext = new SegmentSide(segmentSize - tagSize, headerSize, 0);
    this.sealed = new SegmentSide(segmentSize, headerSize, headerSize);
    this.#format = format;
  }

  /** The sealed size of `plaintextSize` bytes. Undefined if they need too many segments. */
  sealedSize(plaintextSize: number): number | undefined {
    const { tagSize, headerSize } = this.#format;
    const segments = plaintextSize === 0 ? 1 : this.plaintext.indexAt(plaintextSize - 1) + 1;
    return segments > MOST_SEGMENTS ? undefined : headerSize + plaintextSize + segments * tagSize;
  }

  /** Measures a sealed stream of `size` bytes. Undefined if no sealed stream has this size. */
  measure(size: number): { readonly segments: number; readonly plaintextSize: number } | undefined {
    const { tagSize, headerSize } = this.#format;
    const segments = this.sealed.indexAt(Math.max(0, size - 1)) + 1;
    const last = size - this.sealed.start(segments - 1);
    if (!Number.isSafeInteger(size) || last < tagSize || segments > MOST_SEGMENTS) return undefined;
    return { segments, plaintextSize: size - headerSize - segments * tagSize };
  }

  /**
   * Measures a stream of `size` bytes that may have been truncated or extended anywhere. `end` is the end of its last
   * segment. Fewer bytes than a tag after a segment belong to no segment. Undefined if there is no header.
   */
  measureDamaged(
    size: number,
  ): { readonly segments: number; readonly plaintextSize: number; readonly end: number } | undefined {
    const { tagSize, headerSize } = this.#format;
    const measured = this.measure(size);
    if (measured) return { ...measured, end: size };
    if (size < headerSize) return undefined;
    if (size < headerSize + tagSize) return { segments: 1, plaintextSize: 0, end: size };
    const end = this.sealed.start(this.sealed.indexAt(size - 1));
    const whole = this.measure(end);
    return whole && { ...whole, end };
  }
}

/**
 * Computes the sealed size from the size of the plaintext, for example for a Content-Length.
 *
 * @param plaintextSize Bytes of plaintext.
 * @param format The format, `"AES256_CTR_HMAC_SHA256_64KB"` by default.
 * @returns The size in bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If there is no sealed stream of this many bytes.
 *
 * @example Usage
 * ```ts
 * import { sealedSize, unsealedSize } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(sealedSize(0), 72);
 * assertEquals(unsealedSize(sealedSize(1_000_000)), 1_000_000);
 * ```
 */
export function sealedSize(plaintextSize: number, format?: SealedFormat): number {
  const checked = checkFormat(format);
  const size = new SegmentLayout(checked).sealedSize(
    integer("plaintextSize", plaintextSize, 0, Number.MAX_SAFE_INTEGER),
  );
  if (size !== undefined && Number.isSafeInteger(size)) return size;
  throw new RangeError(`"plaintextSize" expected a size that fits ${MOST_SEGMENTS} segments, got ${plaintextSize}`);
}

/**
 * Computes the size of the plaintext from the sealed size. It verifies nothing: an attacker may have changed the size.
 *
 * @param sealedSize Bytes of the sealed stream.
 * @param format The format it was sealed in, `"AES256_CTR_HMAC_SHA256_64KB"` by default.
 * @returns The size in bytes.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If no sealed stream has this size.
 *
 * @example Usage
 * ```ts
 * import { unsealedSize } from "@kcapi/streams";
 * import { assertEquals, assertThrows } from "@std/assert";
 *
 * assertEquals(unsealedSize(72), 0);
 * assertThrows(() => unsealedSize(71), RangeError);
 * ```
 */
export function unsealedSize(sealedSize: number, format?: SealedFormat): number {
  const checked = checkFormat(format);
  const measured = new SegmentLayout(checked).measure(integer("sealedSize", sealedSize, 0, Number.MAX_SAFE_INTEGER));
  if (measured) return measured.plaintextSize;
  throw new RangeError(`"sealedSize" expected a size that a sealed stream can have, got ${sealedSize}`);
}

/** A range of bytes: from `start` to before `end`. */
export interface ByteRange {
  /** The first byte. */
  readonly start: number;
  /** The byte after the last one. */
  readonly end: number;
}

/**
 * The bytes of a sealed stream that a range of its plaintext needs, for programs that fetch them on their own: whole
 * segments. To open them takes the header, too: the first `1 + keySize + 7` bytes (40 with AES-256, 24 with AES-128).
 *
 * Nothing is verified. `openSealed()` also reads the end of the file, because only that proves the size.
 *
 * @param start The first byte of the plaintext, counted as `Blob.slice()` does.
 * @param end The byte after the last one; undefined for the end of the plaintext.
 * @param sealedSize Bytes of the sealed stream.
 * @param format The format it was sealed in, `"AES256_CTR_HMAC_SHA256_64KB"` by default.
 * @returns The range, which is empty if the range of the plaintext is.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If no sealed stream has this size.
 *
 * @example Usage
 * ```ts
 * import { sealedRange, sealedSize } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * // Byte 100,000 is in the second segment of 64 KiB.
 * assertEquals(sealedRange(100_000, 100_001, sealedSize(1_000_000)), { start: 65_536, end: 131_072 });
 * ```
 */
export function sealedRange(
  start: number,
  end: number | undefined,
  sealedSize: number,
  format?: SealedFormat,
): ByteRange {
  const { plaintext, sealed } = new SegmentLayout(checkFormat(format));
  const [from, to] = sliceOf(unsealedSize(sealedSize, format), start, end);
  const first = sealed.start(plaintext.indexAt(from));
  if (from === to) return { start: Math.min(first, sealedSize), end: Math.min(first, sealedSize) };
  return { start: first, end: Math.min(sealedSize, sealed.start(plaintext.indexAt(to - 1) + 1)) };
}
