/**
 * {@linkcode KeySource}: several keys with their formats, for sealed streams.
 *
 * @module
 */

import { wrongType } from "../bytes.ts";
import type { Secret } from "../secret.ts";
import type { Format } from "./format.ts";

/** The value of the option `keyset`: a `Keyset` of `@kcapi/streams/tink`. */
export interface KeySource {
  /** The id of the key that seals. */
  readonly primaryKeyId: number;
}

/** One key of a source. */
export interface SourceKey {
  /** Its position in the source, which a reader reports as `keyIndex`. */
  readonly index: number;
  readonly format: Format;
  /** A copy, which the stream disposes of. Empty if there is a `cryptoKey`. */
  readonly key: Secret;
  readonly cryptoKey?: CryptoKey | undefined;
}

const sources = new WeakMap<KeySource, () => readonly SourceKey[]>();

/**
 * Makes an object a key source.
 *
 * @param keys Returns the usable keys. The first one seals. To open, they are tried in this order.
 */
export function registerKeySource(source: KeySource, keys: () => readonly SourceKey[]): void {
  sources.set(source, keys);
}

/**
 * The usable keys of a source.
 *
 * @throws {TypeError} If it is no key source.
 */
export function keysOfSource(source: unknown): readonly SourceKey[] {
  const keys = sources.get(source as KeySource);
  if (!keys) throw wrongType("keyset", "a Keyset of @kcapi/streams/tink", source);
  return keys();
}
