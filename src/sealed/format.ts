/**
 * The format of sealed streams: Tink's streaming AEAD.
 *
 *     sealed  = header | segment 0 | segment 1 | … | segment k
 *     header  = its length (1 byte) | salt (as long as the AES key) | nonce prefix (7 bytes)
 *     segment = ciphertext | tag
 *
 * A segment has `segmentSize` bytes with its tag; the first is shorter by the header, the last as short as what is
 * left. None of the parameters is in the file.
 *
 * @module
 */

import { checkOptions, type OptionNames } from "../options.ts";
import { type Bytes, describe } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { sliceOf } from "./slice.ts";

/** A hash of HKDF or HMAC. */
export type SealedHash = "SHA-1" | "SHA-256" | "SHA-512";

/** The parameters of a format. */
export interface SealedParameters {
  /** `"AES-CTR-HMAC"`: what the kernel can run; `"AES-GCM-HKDF"`: the runtime's AES-GCM. */
  readonly cipher: "AES-CTR-HMAC" | "AES-GCM-HKDF";
  /** Bytes of the AES key that is derived for each stream: 16 or 32. */
  readonly keySize: 16 | 32;
  /** The hash of HKDF (RFC 5869), by which that is derived. */
  readonly hkdfHash: SealedHash;
  /** The hash of HMAC; with AES-GCM-HKDF, which has none, it may be left out and says nothing. */
  readonly macHash?: SealedHash | undefined;
  /** Bytes of a tag: 10 to the length of `macHash`; with AES-GCM-HKDF 16, which may be left out. */
  readonly tagSize?: number | undefined;
  /** Bytes of a segment with its tag, at most 16 MiB. */
  readonly segmentSize: number;
}

/** Formats that have a name: Tink's, and those with segments of 64 KiB. */
export type SealedFormatName =
  | `AES${128 | 256}_CTR_HMAC_SHA256_${"4KB" | "64KB" | "1MB"}`
  | `AES${128 | 256}_GCM_HKDF_${"4KB" | "64KB" | "1MB"}`;

/** A format by its name or its parameters. */
export type SealedFormat = SealedFormatName | SealedParameters;

/** A checked format, complete. */
export interface Format extends SealedParameters {
  readonly tagSize: number;
  readonly headerSize: number;
}

/** The header's bytes besides the salt: its length, and the nonce prefix. */
export const PREFIX_SIZE = 7;
const LENGTH_SIZE = 1;

/** A hostile configuration is not to take all memory. */
const MOST_SEGMENT = 16 * 1024 * 1024;

/** Segments are numbered by 32 bits. As some of Tink's writers, none is written with the last number. */
export const MOST_SEGMENTS = 2 ** 32 - 1;

const LEAST_TAG = 10;
const GCM_TAG = 16;
const HASH_SIZES: Readonly<Record<SealedHash, number>> = { "SHA-1": 20, "SHA-256": 32, "SHA-512": 64 };

const SEGMENT_SIZES = { "4KB": 4096, "64KB": 65_536, "1MB": 1_048_576 };

/** The default: what the kernel can run, in segments of which a thousand streams can hold one each. */
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
  (["CTR_HMAC_SHA256", "GCM_HKDF"] as const).flatMap((cipher) =>
    ([128, 256] as const).flatMap((bits) =>
      Object.entries(SEGMENT_SIZES).map(([size, segmentSize]): [string, Format] => [
        `AES${bits}_${cipher}_${size}`,
        checkParameters(
          cipher === "GCM_HKDF"
            ? { cipher: "AES-GCM-HKDF", keySize: bits === 128 ? 16 : 32, hkdfHash: "SHA-256", segmentSize }
            : {
              cipher: "AES-CTR-HMAC",
              keySize: bits === 128 ? 16 : 32,
              hkdfHash: "SHA-256",
              macHash: "SHA-256",
              tagSize: 32,
              segmentSize,
            },
        ),
      ])
    )
  ),
);

/** The names there are. */
export const FORMAT_NAMES: readonly string[] = [...NAMED.keys()];

/** The format asked for. */
export function checkFormat(format: unknown = DEFAULT_FORMAT): Format {
  if (typeof format === "object" && format !== null) return checkParameters(format as SealedParameters);
  if (typeof format !== "string") {
    throw new TypeError(`"format" expected a name or parameters, got ${describe(format)}`);
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
  oneOf("hkdfHash", hkdfHash, Object.keys(HASH_SIZES));
  const isGcm = cipher === "AES-GCM-HKDF";
  if (!isGcm || macHash !== undefined) oneOf("macHash", macHash, Object.keys(HASH_SIZES));
  const [least, most] = isGcm ? [GCM_TAG, GCM_TAG] : [LEAST_TAG, HASH_SIZES[macHash!]];
  const tag = tagSize === undefined && isGcm ? GCM_TAG : integer("tagSize", tagSize, least, most);
  const headerSize = LENGTH_SIZE + keySize + PREFIX_SIZE;
  // The first segment has room for the header, and for a byte.
  integer("segmentSize", segmentSize, headerSize + tag + 1, MOST_SEGMENT);
  return { cipher, keySize, hkdfHash, ...(macHash && { macHash }), tagSize: tag, segmentSize, headerSize };
}

function oneOf(name: string, value: unknown, values: readonly unknown[]): void {
  if (values.includes(value)) return;
  const got = typeof value === "string" || typeof value === "number" ? JSON.stringify(value) : describe(value);
  const message = `"${name}" expected ${values.map((each) => JSON.stringify(each)).join(" or ")}, got ${got}`;
  throw typeof value === "number" ? new RangeError(message) : new TypeError(message);
}

function integer(name: string, value: unknown, least: number, most: number): number {
  if (typeof value !== "number") throw new TypeError(`"${name}" expected a number, got ${describe(value)}`);
  if (Number.isInteger(value) && value >= least && value <= most) return value;
  throw new RangeError(`"${name}" expected an integer from ${least} to ${most}, got ${value}`);
}

/** What the header of a stream says. */
export interface Header {
  readonly salt: Bytes;
  readonly prefix: Bytes;
}

/** The header of a new stream. */
export function randomHeader({ keySize }: Format): Header {
  return {
    salt: crypto.getRandomValues(new Uint8Array(keySize)),
    prefix: crypto.getRandomValues(new Uint8Array(PREFIX_SIZE)),
  };
}

/** The bytes of a header. */
export function headerBytes({ headerSize }: Format, { salt, prefix }: Header): Bytes {
  return Uint8Array.of(headerSize, ...salt, ...prefix);
}

/**
 * Reads a header.
 *
 * @throws {KcapiError} EBADMSG if `bytes` is none.
 */
export function parseHeader({ headerSize, keySize }: Format, bytes: Bytes): Header {
  if (bytes.length !== headerSize || bytes[0] !== headerSize) throw badMessage();
  return { salt: bytes.slice(LENGTH_SIZE, LENGTH_SIZE + keySize), prefix: bytes.slice(LENGTH_SIZE + keySize) };
}

/** One error for everything that can be wrong with sealed data: telling the cases apart would help an attacker. */
export function badMessage(): KcapiError {
  return new KcapiError(
    "EBADMSG",
    "unseal",
    "what was sealed is damaged or cut, or the key or associated data is wrong",
  );
}

/** Full segments, by number: in the plaintext, or in the sealed stream. */
export class SegmentSide {
  readonly #step: number;
  readonly #headerSize: number;
  readonly #origin: number;

  /**
   * @param step Bytes of a segment, except the first one, which is shorter by the header.
   * @param origin Where the first one begins.
   */
  constructor(step: number, headerSize: number, origin: number) {
    this.#step = step;
    this.#headerSize = headerSize;
    this.#origin = origin;
  }

  /** Where segment `index` begins. */
  start(index: number): number {
    return index === 0 ? this.#origin : index * this.#step - this.#headerSize + this.#origin;
  }

  /** The segment that the byte at `position` is in. */
  indexAt(position: number): number {
    return Math.floor((position - this.#origin + this.#headerSize) / this.#step);
  }

  /** The bytes of `count` segments from number `index` on. */
  lengthOf(index: number, count: number): number {
    return count * this.#step - (index === 0 ? this.#headerSize : 0);
  }

  /** The number of full segments that `length` bytes have from segment `index` on. */
  countOf(index: number, length: number): number {
    return Math.max(0, Math.floor((length + (index === 0 ? this.#headerSize : 0)) / this.#step));
  }
}

/** Where the segments of a format lie, and how long they are. */
export class SegmentLayout {
  readonly plaintext: SegmentSide;
  /** Positions count the header, lengths do not. */
  readonly sealed: SegmentSide;
  readonly #format: Format;

  constructor(format: Format) {
    const { segmentSize, tagSize, headerSize } = format;
    this.plaintext = new SegmentSide(segmentSize - tagSize, headerSize, 0);
    this.sealed = new SegmentSide(segmentSize, headerSize, headerSize);
    this.#format = format;
  }

  /** The size of `plaintextSize` bytes when sealed. Undefined if they take too many segments. */
  sealedSize(plaintextSize: number): number | undefined {
    const { tagSize, headerSize } = this.#format;
    const segments = plaintextSize === 0 ? 1 : this.plaintext.indexAt(plaintextSize - 1) + 1;
    return segments > MOST_SEGMENTS ? undefined : headerSize + plaintextSize + segments * tagSize;
  }

  /** What a sealed stream of `size` bytes has. Undefined if none has this size. */
  measure(size: number): { readonly segments: number; readonly plaintextSize: number } | undefined {
    const { tagSize, headerSize } = this.#format;
    const segments = this.sealed.indexAt(Math.max(0, size - 1)) + 1;
    const last = size - this.sealed.start(segments - 1);
    if (!Number.isSafeInteger(size) || last < tagSize || segments > MOST_SEGMENTS) return undefined;
    return { segments, plaintextSize: size - headerSize - segments * tagSize };
  }
}

/**
 * The size of what is sealed, from the size of its plaintext: for a Content-Length.
 *
 * @param plaintextSize Bytes of plaintext.
 * @param format The format, `"AES256_CTR_HMAC_SHA256_64KB"` by default.
 * @returns Bytes.
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
  throw new RangeError(`"plaintextSize" expected what fits ${MOST_SEGMENTS} segments, got ${plaintextSize}`);
}

/**
 * The size of the plaintext, from the size of what was sealed. Nothing is verified: an attacker may have cut it.
 *
 * @param sealedSize Bytes of the sealed stream.
 * @param format The format it was sealed in, `"AES256_CTR_HMAC_SHA256_64KB"` by default.
 * @returns Bytes.
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
