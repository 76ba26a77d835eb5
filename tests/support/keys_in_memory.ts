/** Keys that two processes can derive, so that no key is sent between them. */

/** How many keys are used in a `Secret` alone. */
export const SECRETS = 20;

/** A key, and the other inputs of its derived keys. */
export interface KeyUse {
  /** The stream that used it, and how the stream ended. */
  of: string;
  by: string;
  seed: number;
  /** The salt of a sealed stream, in hexadecimal. */
  salt?: string;
}

/** Fills `key` byte by byte from `seed`, so that the bytes are nowhere else in memory. */
export function fillKey(key: Uint8Array, seed: number): void {
  let state = (seed + 1) * 0x9e3779b1 >>> 0;
  for (let i = 0; i < key.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    key[i] = state >>> 7;
  }
}
