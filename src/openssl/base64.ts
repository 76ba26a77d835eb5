/**
 * Base64 as `openssl enc -a` writes and reads it, over streams.
 *
 * @module
 */

import { type Bytes, inOnePiece } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { nodeBuffer } from "../runtime/mod.ts";

/** Bytes of a line of 64 characters. */
const LINE = 48;

/** Encodes bytes: in lines of 64 characters, or in one line. */
export function base64Encoder(inLines: boolean): TransformStream<Bytes, Bytes> {
  const unit = inLines ? LINE : 3;
  let tail: Bytes = new Uint8Array(0);
  const Buffer = nodeBuffer();
  const encode = (bytes: Bytes): Bytes => {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
    return new TextEncoder().encode(inLines ? text.replace(/.{1,64}/g, "$&\n") : text);
  };
  return new TransformStream({
    transform(chunk, controller) {
      const bytes = tail.length === 0 ? chunk : inOnePiece([tail, chunk]);
      const whole = bytes.length - bytes.length % unit;
      tail = bytes.slice(whole);
      if (whole > 0) controller.enqueue(encode(bytes.subarray(0, whole)));
    },
    flush(controller) {
      if (tail.length > 0) controller.enqueue(encode(tail));
    },
  });
}

/** Decodes base64 with white space anywhere. Anything else is EBADMSG. */
export function base64Decoder(): TransformStream<Bytes, Bytes> {
  let rest = "";
  let isPadded = false;
  const Buffer = nodeBuffer();
  return new TransformStream({
    transform(chunk, controller) {
      const added = Buffer.from(chunk.buffer, chunk.byteOffset, chunk.length).toString("latin1").replace(/\s+/g, "");
      if (isPadded && added !== "") throw createBase64Error();
      const text = rest + added;
      const whole = text.length - text.length % 4;
      rest = text.slice(whole);
      if (whole === 0) return;
      const quads = text.slice(0, whole);
      isPadded = quads.endsWith("=");
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(quads) || isPadded && rest !== "") throw createBase64Error();
      controller.enqueue(new Uint8Array(Buffer.from(quads, "base64")));
    },
    flush() {
      if (rest !== "") throw createBase64Error();
    },
  });
}

function createBase64Error(): KcapiError {
  return new KcapiError("EBADMSG", "base64", "the input is not base64");
}
