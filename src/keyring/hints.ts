/**
 * Finds why a key of the kernel's keyring is not found or cannot be set, and the remedy.
 *
 * @module
 */

import type { ErrorCode } from "../errors.ts";
import type { Diagnosis } from "../system/hints.ts";

/** The calls that can fail, as `KcapiError.operation` names them. */
export type KeyCall = "add_key" | "request_key" | "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)";

/** The remedy if there is no such key. */
const LOAD =
  "load it into a keyring that this process searches: keyctl padd logon DESCRIPTION @u, and keyctl link @u @s in its " +
  "session (a systemd unit: KeyringMode=shared)";

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
      "it is not a key of the type logon, user, encrypted or trusted, or this kernel has that type only as a module",
    remedy: "see its type by keyctl describe SERIAL",
  }),
  ENOKEY: () => ({
    cause: "there is no key with this serial, or this process may not see it",
    remedy: "serials change with each start of the system: pass the key's type and description, or look at /proc/keys",
  }),
  EINVAL: (keySizes) => ({
    cause:
      "the key's length does not fit the cipher, or the cipher refuses it as weak; this process cannot check that, " +
      "because it never sees the key",
    remedy: `load a key of ${keySizes ? keySizes.join(" or ") : "the cipher's number of"} bytes`,
  }),
};

const FINDING: Readonly<Record<string, (call: KeyCall) => Diagnosis>> = {
  ENOKEY: () => ({
    cause: "there is no key with this type and description, or it has expired, in the keyrings that this process " +
      "searches: its thread, process and session keyring, and the keyrings linked there",
    remedy: LOAD,
  }),
  EACCES: () => ({
    cause: "the key, or a keyring that links to it, does not grant this process the permission to search",
    remedy:
      "grant it to the user (keyctl setperm SERIAL 0x3f080000), or link the key into this process's session keyring",
  }),
  EKEYEXPIRED: () => ({
    cause: "the key has expired",
    remedy: "load it again, with a longer timeout or none (keyctl timeout)",
  }),
  EKEYREVOKED: () => ({ cause: "the key was revoked", remedy: "load a key again, with the same description" }),
  EKEYREJECTED: () => ({
    cause: "the program that should have created the key rejected it",
    remedy: "load a key with this description",
  }),
  EPERM: diagnoseFilter,
  ENOSYS: diagnoseFilter,
  EDQUOT: () => ({
    cause: "the user's quota of keys is used up (kernel.keys.maxkeys, kernel.keys.maxbytes)",
    remedy: "unlink unused keys, or raise the quota",
  }),
};

function diagnoseFilter(call: KeyCall): Diagnosis {
  return {
    cause: `a seccomp filter refuses ${call}, as in most containers, or this kernel has no keyrings`,
    remedy: call === "request_key"
      ? "allow it in the filter, or find the key outside and pass its serial"
      : "allow add_key, request_key and keyctl in the filter",
  };
}

/** The diagnosis if the kernel refuses every key with ENOPROTOOPT. */
export const TOO_OLD: Diagnosis = {
  cause: "ciphers of this kernel cannot use keys of its keyring: it is older than Linux 6.2, or has no keyrings",
  remedy: "use Linux 6.2 or later, or pass the key's bytes",
};
