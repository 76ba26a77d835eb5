/** Keys that two processes can make, so that one need not tell them to the other. */

/** One key, and what else its derived keys are made from. */
export interface KeyUse {
  /** What used it, and how that ended. */
  of: string;
  by: string;
  seed: number;
  /** The salt of a sealed stream, in hexadecimal. */
  salt?: string;
}

/** Fills `key` by a rule of `seed`, byte by byte: the bytes are nowhere else in memory. */
export function fillKey(key: Uint8Array, seed: number): void {
  let state = (seed + 1) * 0x9e3779b1 >>> 0;
  for (let i = 0; i < key.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    key[i] = state >>> 7;
  }
}
