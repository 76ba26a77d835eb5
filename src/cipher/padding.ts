/**
 * PKCS#7 padding (RFC 5652, section 6.3).
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** The padding that follows `rest` bytes of the last block: 1 to `blockSize` bytes, each their count. */
export function pad(blockSize: number, rest: number): Bytes {
  const length = blockSize - rest;
  return new Uint8Array(length).fill(length);
}

/**
 * The length of `bytes`, whose last block is padded, without the padding; undefined where that is not valid. Looks at
 * the whole block whatever it finds, so that the time it takes tells nothing of it.
 */
export function unpad(bytes: Bytes, blockSize: number): number | undefined {
  const length = bytes[bytes.length - 1]!;
  let wrong = Number(length === 0) | Number(length > blockSize);
  for (let i = 1; i <= blockSize; i++) wrong |= Number(i <= length) & Number(bytes[bytes.length - i] !== length);
  return wrong ? undefined : bytes.length - length;
}
