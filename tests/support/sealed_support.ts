/** Formats, options and Tink's vectors for the tests of sealed streams. Browsers run it, too. */
import { KcapiError, type RangeSource, type SealedFormat, type SealedParameters, type SealOptions } from "../../mod.ts";
import { ENGINES } from "../../src/sealed/engines.ts";
import { sealFactory } from "../../src/sealed/rules.ts";
import { checkSealOptions } from "../../src/sealed/options.ts";
import { TransformIterator } from "../../src/streams/iterate.ts";
import { openerOf } from "../../src/streams/source.ts";
import vectors from "../fixtures/tink_vectors.json" with { type: "json" };
import { type Bytes, bytes, collect, fromHex } from "./bytes.ts";
import { assert, assertEquals, assertRejects } from "./deps.ts";

export const KEY: Bytes = bytes(32, 61);
export const NAME: Bytes = new TextEncoder().encode("a name");

/** A small format, so that files of a few segments are short: plaintext 72 bytes in the first segment, then 96 each. */
export const SMALL = {
  cipher: "AES-CTR-HMAC",
  keySize: 16,
  hkdfHash: "SHA-256",
  macHash: "SHA-256",
  tagSize: 32,
  segmentSize: 128,
} as const satisfies SealedParameters;
export const SMALL_GCM = {
  cipher: "AES-GCM-HKDF",
  keySize: 16,
  hkdfHash: "SHA-256",
  tagSize: 16,
  segmentSize: 112,
} as const satisfies SealedParameters;
export const FORMATS = { "AES-CTR-HMAC": SMALL, "AES-GCM-HKDF": SMALL_GCM } as const;
/** Bytes of the header of both. */
export const HEADER = 24;
/** Bytes of plaintext in a full segment of both. */
export const STRIDE = 96;
/** Bytes of plaintext in the first segment. */
export const FIRST = STRIDE - HEADER;

type Engine = NonNullable<SealOptions["engine"]>;

/** The engine of a leg, in which AES-GCM-HKDF is left to `node:crypto`: the kernel does not run it. */
export function engineOf(format: SealedFormat, engine: Engine): Engine {
  const isGcm = typeof format === "string" ? format.includes("GCM") : format.cipher === "AES-GCM-HKDF";
  return isGcm && engine !== "webcrypto" ? "auto" : engine;
}

/** How each of Tink's vectors was made. */
export interface Vector {
  name: string;
  format: SealedParameters["cipher"];
  keySize: 16 | 32;
  hkdfHash: SealedParameters["hkdfHash"];
  macHash?: SealedParameters["hkdfHash"];
  tagSize: number;
  segmentSize: number;
  ikm: string;
  associatedData: string;
  plaintextLength: number;
  salt: string;
  noncePrefix: string;
  ciphertextLength: number;
  ciphertextSHA256: string;
  ciphertext?: string;
}

const ALL = vectors as (Vector & { refused?: boolean })[];
/** What Tink writes and reads. */
export const VECTORS: readonly Vector[] = ALL.filter(({ refused }) => !refused);
/** What Tink refuses to read. */
export const REFUSED_VECTORS: readonly Vector[] = ALL.filter(({ refused }) => refused);

/** The parameters of a vector's format. */
export function parametersOf(
  { format: cipher, keySize, hkdfHash, macHash, tagSize, segmentSize }: Vector,
): SealedParameters & { readonly tagSize: number } {
  return { cipher, keySize, hkdfHash, macHash, tagSize, segmentSize };
}

/** The plaintext of Tink's vectors. */
export function plaintextOf(length: number): Bytes {
  return new Uint8Array(length).map((_, i) => 7 * i + 13 * Math.floor(i / 2 ** 8) + 29 * Math.floor(i / 2 ** 16));
}

export async function sha256(data: Bytes): Promise<Bytes> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", data));
}

/** Seals with a given header, which only internal functions accept. */
export function sealedAs(
  { salt, noncePrefix }: Pick<Vector, "salt" | "noncePrefix">,
  options: SealOptions,
  input: Bytes | Iterable<Bytes>,
): Promise<Bytes> {
  const header = { salt: fromHex(salt), prefix: fromHex(noncePrefix) };
  return collect(new TransformIterator(sealFactory(checkSealOptions(options, ENGINES), header), openerOf(input)));
}

export const DAMAGED = "the sealed data is damaged or truncated, or the key or the associated data is wrong";
/** The message of `openSealed()` for an empty source, whose size it knows. */
export const EMPTY = "the source is empty: its size is 0";

/** Expects a KcapiError EBADMSG with the one message. In Node, a Blob adds a hint, which is always the same. */
export async function refused(promise: Promise<unknown>, detail: string = DAMAGED): Promise<void> {
  const error = await assertRejects(() => promise, KcapiError);
  assertEquals([error.code, error.operation, error.detail], ["EBADMSG", "unseal", detail]);
  if (error.hint !== undefined) {
    assertEquals(["process" in globalThis, error.hint.includes("openAsBlob")], [true, true]);
  }
  assertEquals(error.message, `unseal: ${detail} (EBADMSG)${error.hint === undefined ? "" : `: ${error.hint}`}`);
}

/** A source that learns its size by `readEnds`, as one over HTTP does. */
export function learningSource(content: Bytes): RangeSource & { signals: AbortSignal[] } {
  let size: number | undefined;
  const signals: AbortSignal[] = [];
  return {
    signals,
    get size() {
      return size;
    },
    read(start, end, { signal }) {
      assert(size !== undefined, "readEnds() comes first");
      signals.push(signal);
      return Promise.resolve(content.slice(start, end));
    },
    readEnds(head, tail) {
      assertEquals(size, undefined, "once");
      size = content.length;
      return Promise.resolve({ size, head: content.slice(0, head), tail: content.slice(size - Math.min(tail, size)) });
    },
  };
}
