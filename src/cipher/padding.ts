/**
 * PKCS#7 padding (RFC 5652, section 6.3).
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";

/** The padding after `rest` bytes of the last block: 1 to `blockSize` bytes, each of which is their number. */
export function pad(blockSize: number, rest: number): Bytes {
  const length = blockSize - rest;
  return new Uint8Array(length).fill(length);
}

/**
 * The length of `bytes` without the padding of the last block; undefined if the padding is not valid. Always reads the
 * whole block, so that the time does not depend on its content.
 */
export function unpad(bytes: Bytes, blockSize: number): number | undefined {
  const length = bytes[bytes.length - 1]!;
  let wrong = Number(length === 0) | Number(length > blockSize);
  for (let i = 1; i <= blockSize; i++) wrong |= Number(i <= length) & Number(bytes[bytes.length - i] !== length);
  return wrong ? undefined : bytes.length - length;
}
