/**
 * Base64 as `openssl enc -a` writes and reads it.
 *
 * @module
 */

import { type Bytes, inOnePiece } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { nodeBuffer } from "../runtime/mod.ts";

/** Encodes or decodes bytes that come in pieces. */
export interface Codec {
  /** The output that a piece completes, perhaps none. */
  add(piece: Bytes): Bytes;
  /** The rest of the output. */
  end(): Bytes;
}

/** Bytes of a line of 64 characters. */
const LINE = 48;
const NOTHING: Bytes = new Uint8Array(0);

/** Encodes bytes: in lines of 64 characters, or in one line. */
export function base64Encoder(inLines: boolean): Codec {
  const step = inLines ? LINE : 3;
  const Buffer = nodeBuffer();
  let rest = NOTHING;
  const encode = (bytes: Bytes): Bytes => {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
    return new TextEncoder().encode(inLines ? text.replace(/.{1,64}/g, "$&\n") : text);
  };
  return {
    add(piece) {
      const bytes = rest.length === 0 ? piece : inOnePiece([rest, piece]);
      const whole = bytes.length - bytes.length % step;
      rest = bytes.slice(whole);
      return encode(bytes.subarray(0, whole));
    },
    end: () => encode(rest),
  };
}

/** Decodes base64 with white space anywhere. Anything else is EBADMSG. */
export function base64Decoder(): Codec {
  const Buffer = nodeBuffer();
  let rest = "";
  let isPadded = false;
  return {
    add(piece) {
      const added = Buffer.from(piece.buffer, piece.byteOffset, piece.length).toString("latin1").replace(/\s+/g, "");
      if (isPadded && added !== "") throw createBase64Error();
      const text = rest + added;
      const whole = text.length - text.length % 4;
      rest = text.slice(whole);
      if (whole === 0) return NOTHING;
      const quads = text.slice(0, whole);
      isPadded = quads.endsWith("=");
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(quads) || isPadded && rest !== "") throw createBase64Error();
      return new Uint8Array(Buffer.from(quads, "base64"));
    },
    end() {
      if (rest !== "") throw createBase64Error();
      return NOTHING;
    },
  };
}

/** A codec as a stream. */
export function codecStream(codec: Codec): TransformStream<Bytes, Bytes> {
  const enqueue = (output: Bytes, controller: TransformStreamDefaultController<Bytes>) => {
    if (output.length > 0) controller.enqueue(output);
  };
  return new TransformStream({
    transform: (piece, controller) => enqueue(codec.add(piece), controller),
    flush: (controller) => enqueue(codec.end(), controller),
  });
}

/** The output of a codec for the pieces of `source`. */
export async function* codecIterable(codec: Codec, source: AsyncIterable<Bytes>): AsyncGenerator<Bytes> {
  for await (const piece of source) {
    const output = codec.add(piece);
    if (output.length > 0) yield output;
  }
  const end = codec.end();
  if (end.length > 0) yield end;
}

function createBase64Error(): KcapiError {
  return new KcapiError("EBADMSG", "base64", "the input is not base64");
}
