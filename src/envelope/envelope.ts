/**
 * Envelopes: sealed streams that carry their own key, wrapped for recipients.
 *
 * @module
 */

import { untilAborted } from "../abort.ts";
import { type Bytes, type BytesLike, describe, inOnePiece, toUint8Array } from "../bytes.ts";
import { ENGINES } from "../sealed/engines.ts";
import { openSealed } from "../sealed/open.ts";
import { checkReadOptions, READ_NAMES, type SealedReadOptions } from "../sealed/read_options.ts";
import type { SealedReader } from "../sealed/reader.ts";
import { anySource, type SealedSource, sourceAfter } from "../sealed/source.ts";
import { FORMAT_NAMES, type SealedFormatName } from "../sealed/format.ts";
import { checkSealOptions, type SealOptions, type SealStreamOptions } from "../sealed/options.ts";
import { SealStream, UnsealStream } from "../sealed/streams.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import { deferStream } from "../streams/deferred.ts";
import { Secret, useSecret } from "../secret.ts";
import {
  createTruncatedHeaderError,
  DEFAULT_ENVELOPE_FORMAT,
  type EnvelopeHeader,
  type EnvelopeRecipient,
  FIRST_READ,
  HeaderReader,
  readHeaderOf,
} from "./header.ts";
import { checkList, type Identity, importKeys, type Recipient } from "./recipients.ts";
import { makeHeader, unwrapKey } from "./wrapping.ts";

/** Options of {@linkcode EnvelopeSealStream}. */
export interface EnvelopeSealOptions extends SealStreamOptions {
  /** The recipients. Each of them can open the file. */
  recipients: readonly Recipient[];
  /** The format of the sealed stream, by name; stored in the header. `"AES256_GCM_HKDF_64KB"` by default. */
  format?: SealedFormatName | undefined;
}

/** Options of {@linkcode EnvelopeUnsealStream} and {@linkcode openEnvelope}. */
export interface EnvelopeOpenOptions extends SealStreamOptions {
  /** The identities. Each is tried. */
  identities: readonly Identity[];
}

/** Options of {@linkcode rewrap}. */
export interface RewrapOptions {
  /** The identities, one of which must open the file. */
  identities: readonly Identity[];
  /** The recipients who can open the new file. */
  recipients: readonly Recipient[];
}

const STREAM_NAMES: OptionNames<SealStreamOptions> = {
  associatedData: true,
  engine: true,
  signal: true,
  inPlace: true,
  pool: true,
};
const SEAL_NAMES: OptionNames<EnvelopeSealOptions> = { ...STREAM_NAMES, recipients: true, format: true };
const OPEN_NAMES: OptionNames<EnvelopeOpenOptions> = { ...STREAM_NAMES, identities: true };
const REWRAP_NAMES: OptionNames<RewrapOptions> = { identities: true, recipients: true };

/**
 * Seals a stream under a new random key, and writes that key in front, wrapped for the recipients.
 *
 * @example Usage
 * ```ts
 * import { EnvelopeSealStream, EnvelopeUnsealStream } from "@kcapi/streams/envelope";
 * import { assertEquals } from "@std/assert";
 *
 * const passphrase = "correct horse battery staple";
 * const sealed = new Blob(["attack at dawn"]).stream()
 *   .pipeThrough(new EnvelopeSealStream({ recipients: [{ passphrase }] }));
 * const plaintext = sealed.pipeThrough(new EnvelopeUnsealStream({ identities: [{ passphrase }] }));
 * assertEquals(await new Response(plaintext).text(), "attack at dawn");
 * ```
 */
export class EnvelopeSealStream {
  /** The output: the sealed file. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Where the plaintext goes in. */
  readonly writable: WritableStream<BytesLike>;

  /**
   * Creates the stream. The key is wrapped when the first chunk is written.
   *
   * @param options The recipients, and options of sealed streams.
   * @throws {TypeError} or {RangeError} if an option is wrong. A key that cannot be imported errors the stream.
   */
  constructor(options: EnvelopeSealOptions) {
    checkOptions("options", options, SEAL_NAMES);
    const { format = DEFAULT_ENVELOPE_FORMAT, recipients: _, ...rest } = options;
    const recipients = checkList("recipients", options.recipients);
    if (!FORMAT_NAMES.includes(format)) {
      throw new TypeError(`"format" expected one of ${FORMAT_NAMES.join(", ")}, got another value`);
    }
    checkStreamOptions({ ...rest, format });
    const open = (chunk?: Bytes) =>
      useSecret(Secret.random(32), async (key) => {
        const prefix = await makeHeader(key, format, await importKeys("recipients", recipients));
        return { stream: new SealStream({ ...rest, key: key.bytes, format }), prefix, rest: chunk };
      });
    ({ readable: this.readable, writable: this.writable } = deferStream({ add: open, end: open }, rest.signal));
  }
}

/**
 * Unseals what {@linkcode EnvelopeSealStream} sealed.
 *
 * Each chunk of the output is authentic. A truncated stream fails at its end, as with `UnsealStream`.
 */
export class EnvelopeUnsealStream {
  /** Where the plaintext comes out. */
  readonly readable: ReadableStream<Uint8Array<ArrayBuffer>>;
  /** Where the sealed file goes in. */
  readonly writable: WritableStream<BytesLike>;

  /**
   * Creates the stream. The key is unwrapped when the header is complete.
   *
   * The stream errors with KcapiError EKEYREJECTED if no identity fits, and EBADMSG if the data is damaged or no
   * envelope.
   *
   * @param options The identities, and options of sealed streams.
   * @throws {TypeError} or {RangeError} if an option is wrong.
   */
  constructor(options: EnvelopeOpenOptions) {
    const { identities, ...rest } = checkOpenOptions(options);
    const reading = new HeaderReader();
    const open = async (header: EnvelopeHeader, first: Bytes) =>
      await useSecret(await unwrapKey(header, await importKeys("identities", identities)), (key) => ({
        stream: new UnsealStream({ ...rest, key: key.bytes, format: header.format }),
        rest: first,
      }));
    ({ readable: this.readable, writable: this.writable } = deferStream({
      add(chunk) {
        const complete = reading.add(chunk);
        return complete && open(complete.header, complete.rest);
      },
      end: () => Promise.reject(createTruncatedHeaderError()),
    }, rest.signal));
  }
}

/**
 * Opens an envelope to be read from anywhere, as `openSealed()` does.
 *
 * @param source A Blob, or an object with `size` and `read(start, end)`.
 * @param options The identities, and options of `openSealed()`.
 * @returns The reader.
 * @throws {KcapiError} EKEYREJECTED if no identity fits; what `openSealed()` throws.
 */
export async function openEnvelope(
  source: SealedSource,
  options: EnvelopeOpenOptions & SealedReadOptions,
): Promise<SealedReader> {
  checkOptions("options", options, { ...OPEN_NAMES, ...READ_NAMES });
  const { readSize, readAhead, cacheSize, allowDamage, ...others } = options;
  const readOptions = checkReadOptions({ readSize, readAhead, cacheSize, allowDamage });
  const { identities, ...rest } = checkOpenOptions(others);
  const { header, length } = await untilAborted(readHeader(source), rest.signal);
  const sealed = sourceAfter(source, length);
  const key = await unwrapKey(header, await importKeys("identities", identities));
  const { format } = header;
  return await useSecret(key, ({ bytes }) => openSealed(sealed, { ...rest, ...readOptions, key: bytes, format }));
}

/**
 * Returns the recipients of an envelope. They are not authenticated. This needs no secret.
 *
 * @param source A Blob, or an object with `size` and `read(start, end)`.
 * @returns The recipients, in the file's order.
 * @throws {KcapiError} EBADMSG if it is no envelope.
 */
export async function envelopeRecipients(source: SealedSource): Promise<readonly EnvelopeRecipient[]> {
  return (await readHeader(source)).header.recipients;
}

/**
 * Wraps the key of an envelope for other recipients. The data is copied and keeps its key. So someone who opened the
 * old file and stored its key can open the new one.
 *
 * @param source A stream of the envelope.
 * @param options The identities that open it, and the new recipients.
 * @returns A stream of the new envelope. It errors with KcapiError EKEYREJECTED if no identity fits.
 */
export function rewrap(
  source: ReadableStream<BytesLike>,
  options: RewrapOptions,
): ReadableStream<Uint8Array<ArrayBuffer>> {
  checkOptions("options", options, REWRAP_NAMES);
  const identities = checkList("identities", options.identities);
  const recipients = checkList("recipients", options.recipients);
  if (!(source instanceof ReadableStream)) {
    throw new TypeError(`"source" expected a ReadableStream, got ${describe(source)}`);
  }
  const reader = source.getReader();
  const reading = new HeaderReader();
  let isOpen = false;
  async function next(): Promise<Bytes | undefined> {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        if (isOpen) return undefined;
        throw createTruncatedHeaderError();
      }
      const chunk = toUint8Array("source", value);
      if (isOpen) return chunk;
      const complete = reading.add(chunk);
      if (!complete) continue;
      isOpen = true;
      const { format } = complete.header;
      const key = await unwrapKey(complete.header, await importKeys("identities", identities));
      const wrap = async (key: Secret) => makeHeader(key, format, await importKeys("recipients", recipients));
      return inOnePiece([await useSecret(key, wrap), complete.rest]);
    }
  }
  return new ReadableStream<Bytes>({
    async pull(controller) {
      try {
        const chunk = await next();
        if (chunk) controller.enqueue(chunk);
        else controller.close();
      } catch (error) {
        reader.cancel(error).catch(() => {});
        throw error;
      }
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

async function readHeader(source: SealedSource): Promise<{ header: EnvelopeHeader; length: number }> {
  const any = anySource(source);
  const { head } = await any.readEnds(FIRST_READ, 0, { signal: new AbortController().signal });
  return await readHeaderOf(any, head);
}

/** Checks and copies options, as far as they do not depend on the file. */
function checkOpenOptions(options: EnvelopeOpenOptions): EnvelopeOpenOptions {
  checkOptions("options", options, OPEN_NAMES);
  const { identities, ...rest } = options;
  checkStreamOptions(rest);
  return { ...rest, identities: checkList("identities", identities) };
}

/** Checks options of sealed streams, whose key comes later. */
function checkStreamOptions(options: SealStreamOptions & Pick<SealOptions, "format">): void {
  checkSealOptions({ ...options, key: crypto.getRandomValues(new Uint8Array(32)) }, ENGINES).key.dispose();
}
