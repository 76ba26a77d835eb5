/**
 * Why a key in the kernel's keyring is not found or cannot be set, and what would change that.
 *
 * @module
 */

import type { ErrorCode } from "../errors.ts";
import type { Diagnosis } from "../system/hints.ts";

/** The calls that can fail, as `KcapiError.operation` names them. */
export type KeyCall = "add_key" | "request_key" | "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)";

/** What to do if there is no such key. */
const LOAD =
  "load it where this process finds it: keyctl padd logon DESCRIPTION @u, and keyctl link @u @s in its session " +
  "(a systemd unit: KeyringMode=shared)";

/**
 * The cause of a failed call; undefined if it is not known.
 *
 * @param keySizes The key lengths of the cipher in bytes, if they are known.
 */
export function diagnoseKey(code: ErrorCode, call: KeyCall, keySizes?: readonly number[]): Diagnosis | undefined {
  if (call === "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)" && Object.hasOwn(SETTING, code)) return SETTING[code]!(keySizes);
  return FINDING[code]?.(call);
}

const SETTING: Readonly<Record<string, (keySizes?: readonly number[]) => Diagnosis>> = {
  ENOPROTOOPT: () => ({
    cause:
      "it is not a key of the type logon, user, encrypted or trusted, or this kernel has that type as a module only",
    remedy: "keyctl describe SERIAL tells the type",
  }),
  ENOKEY: () => ({
    cause: "there is no key of this serial, or none that this process may know of",
    remedy:
      "serials are new with each start of the system: give the key by its type and description, or look at /proc/keys",
  }),
  EINVAL: (keySizes) => ({
    cause:
      "the key's length does not fit the cipher, or the cipher refuses it as a weak one, which cannot be told before: " +
      "this process never sees the key",
    remedy: `load one of ${keySizes ? keySizes.join(" or ") : "the cipher's number of"} bytes`,
  }),
};

const FINDING: Readonly<Record<string, (call: KeyCall) => Diagnosis>> = {
  ENOKEY: () => ({
    cause: "no key of this type and description, or only one that has expired, is where this process searches: its " +
      "thread's, its process's and its session keyring, and the keyrings linked there",
    remedy: LOAD,
  }),
  EACCES: () => ({
    cause: "the key, or a keyring on the way to it, does not grant this process the permission to search",
    remedy:
      "grant it to the user (keyctl setperm SERIAL 0x3f080000), or link the key into this process's session keyring",
  }),
  EKEYEXPIRED: () => ({
    cause: "the key has expired",
    remedy: "load it anew, with a later or no timeout (keyctl timeout)",
  }),
  EKEYREVOKED: () => ({ cause: "the key was revoked", remedy: "load a key anew, under the same description" }),
  EKEYREJECTED: () => ({
    cause: "the key was rejected by what should have made it",
    remedy: "load a key in its place",
  }),
  EPERM: diagnoseFilter,
  ENOSYS: diagnoseFilter,
  EDQUOT: () => ({
    cause: "the user's quota of keys is used up (kernel.keys.maxkeys, kernel.keys.maxbytes)",
    remedy: "unlink keys that are of no more use, or raise the quota",
  }),
};

function diagnoseFilter(call: KeyCall): Diagnosis {
  return {
    cause: `a seccomp filter refuses ${call}, as those of containers do, or this kernel has no keyrings`,
    remedy: call === "request_key"
      ? "allow it there, or find the key outside and give its serial, which needs no such call"
      : "allow add_key, request_key and keyctl there",
  };
}

/** The cause if any key is refused with ENOPROTOOPT. */
export const TOO_OLD: Diagnosis = {
  cause: "this kernel takes no keys out of its keyring: it is older than Linux 6.2, or built without keyrings",
  remedy: "use Linux 6.2 or later, or give the key's bytes",
};
