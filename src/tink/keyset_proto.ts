/**
 * Tink's message of a keyset, which encrypted keysets contain.
 *
 *     Keyset    { primary_key_id = 1, repeated key = 2 }
 *     key       { key_data = 1, status = 2, key_id = 3, output_prefix_type = 4 }
 *     key_data  { type_url = 1, value = 2, key_material_type = 3 }
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { readMessage, writeFields } from "./protobuf.ts";

/** `KeyStatusType` of Tink, without UNKNOWN_STATUS. */
export type KeyStatus = "ENABLED" | "DISABLED" | "DESTROYED";

/** The statuses in the order of their numbers, from 1. */
export const STATUSES: readonly KeyStatus[] = ["ENABLED", "DISABLED", "DESTROYED"];

/** A key of a keyset, as JSON and protobuf have it. */
export interface KeyRecord {
  readonly id: number;
  readonly status: KeyStatus;
  /** Undefined, as `value`, once the key is destroyed. */
  readonly typeUrl: string | undefined;
  /** The key's own message; secret. */
  readonly value: Bytes | undefined;
}

/** A keyset, as JSON and protobuf have it. */
export interface KeysetRecord {
  readonly primaryKeyId: number;
  readonly keys: readonly KeyRecord[];
}

const SYMMETRIC = 1;
const RAW = 3;

/** A keyset as its message. */
export function encodeKeyset({ primaryKeyId, keys }: KeysetRecord): Bytes {
  return writeFields({
    1: primaryKeyId,
    2: keys.map(({ id, status, typeUrl, value }) =>
      writeFields({
        1: value ? writeFields({ 1: new TextEncoder().encode(typeUrl), 2: value, 3: SYMMETRIC }) : [],
        2: STATUSES.indexOf(status) + 1,
        3: id,
        4: RAW,
      })
    ),
  });
}

/**
 * Reads a keyset's message.
 *
 * @throws {TypeError} If it is none.
 */
export function decodeKeyset(bytes: Bytes): KeysetRecord {
  const keyset = readMessage("the keyset", bytes, [1], [2]);
  return {
    primaryKeyId: keyset.number(1),
    keys: keyset.list(2).map((key, i) => decodeEntry(`key ${i} of the keyset`, key)),
  };
}

function decodeEntry(name: string, bytes: Bytes): KeyRecord {
  const key = readMessage(name, bytes, [1, 2, 3, 4]);
  const status = STATUSES[key.number(2) - 1];
  if (!status) throw new TypeError(`${name} expected the status ${STATUSES.join(" or ")}`);
  if (key.number(4) !== RAW) throw new TypeError(`${name} expected the output prefix type RAW`);
  const id = key.number(3);
  if (!key.has(1)) return { id, status, typeUrl: undefined, value: undefined };
  const data = readMessage(`the key data of ${name}`, key.bytes(1), [1, 2, 3]);
  if (data.number(3) !== SYMMETRIC) throw new TypeError(`${name} expected symmetric key material`);
  return { id, status, typeUrl: new TextDecoder().decode(data.bytes(1)), value: copyKey(data.bytes(2)) };
}

/** A copy in an ArrayBuffer of its own, so that zeroing it leaves no other (see `Secret`). */
function copyKey(bytes: Bytes): Bytes {
  const copy = new Uint8Array(new ArrayBuffer(bytes.length));
  copy.set(bytes);
  return copy;
}
