/**
 * Tink's keysets for sealed streams: several keys with their formats, rotated and encrypted by a KMS.
 *
 * @example Usage
 * ```ts
 * import { createKeyset, parseKeyset } from "@kcapi/streams/tink";
 *
 * using keyset = createKeyset("AES256_GCM_HKDF_1MB");
 * const json = JSON.stringify(keyset); // secret: store it like a key
 * using same = parseKeyset(json);
 * console.log(same.keys.length, "key");
 * ```
 *
 * @module
 */

import "../runtime/oldest.ts"; // first: it refuses runtimes that are too old

export {
  createKeyset,
  type EncryptedKeysetJSON,
  Keyset,
  type KeysetCipher,
  type KeysetJSON,
  type KeysetKey,
  parseKeyset,
} from "./keyset.ts";
export type { KeyStatus } from "./keyset_proto.ts";
