/**
 * Reads system information from /proc, without permission prompts.
 *
 * @module
 */

import { platformInfo, readSystemFile } from "../runtime/mod.ts";

/** The system that hints and reports describe. Tests pass fakes. */
export interface System {
  /** The value of `process.platform`. */
  readonly platform: string;
  /** Returns the content of a text file, or the error that tells why it cannot be read. */
  read(path: string): string | Error;
}

/** The system this process runs on. */
export const thisSystem: System = {
  get platform(): string {
    return platformInfo().platform;
  },
  read: readSystemFile,
};

/** Returns the trimmed content of a small file, or undefined if it cannot be read. */
export function readText(system: System, path: string): string | undefined {
  const text = system.read(path);
  return typeof text === "string" ? text.trim() : undefined;
}

/**
 * Returns the sysctl crypto.af_alg_restrict of Linux 7.3, or undefined if it cannot be read or the kernel does not have
 * it.
 */
export function restriction(system: System): number | undefined {
  const value = readText(system, "/proc/sys/crypto/af_alg_restrict");
  return value && /^\d$/.test(value) ? Number(value) : undefined;
}

/** The privileges of this process, from /proc/self. */
export interface Privileges {
  /** The effective user ID. */
  uid: number;
  /** CAP_NET_ADMIN and CAP_SYS_ADMIN in the initial user namespace. The kernel accepts no other. */
  netAdmin: boolean;
  sysAdmin: boolean;
  /** Whether a seccomp filter is active, as in most containers. */
  seccomp: boolean;
}

// linux/capability.h
const CAP_NET_ADMIN = 12n;
const CAP_SYS_ADMIN = 21n;

/** Returns the privileges of this process, or undefined if /proc cannot be read. */
export function privilegesOf(system: System): Privileges | undefined {
  const status = readText(system, "/proc/self/status") ?? "";
  const uid = /^Uid:\s+\d+\s+(\d{1,10})\b/m.exec(status)?.[1];
  const effective = /^CapEff:\s+([0-9a-f]{16})$/m.exec(status)?.[1];
  if (!uid || !effective) return undefined;
  // The initial namespace maps each ID to itself (user_namespaces(7)).
  const isInitial = /^0\s+0\s+4294967295$/.test(readText(system, "/proc/self/uid_map") ?? "");
  const has = (capability: bigint) => isInitial && (BigInt(`0x${effective}`) >> capability & 1n) === 1n;
  return {
    uid: Number(uid),
    netAdmin: has(CAP_NET_ADMIN),
    sysAdmin: has(CAP_SYS_ADMIN),
    seccomp: /^Seccomp:\s+2$/m.test(status),
  };
}

/** An entry of /proc/crypto that describes a symmetric cipher, with the kernel's values. */
export interface KernelCipher {
  name: string;
  driver: string;
  module: string;
  priority: number;
  refCount: number;
  selftest: string;
  type: "skcipher" | "lskcipher";
  async: boolean;
  blockSize: number;
  minKeySize: number;
  maxKeySize: number;
  ivSize: number;
  chunkSize: number;
}

/** Returns the symmetric ciphers in /proc/crypto, or the error that tells why it cannot be read. */
export function kernelCiphers(system: System): KernelCipher[] | Error {
  const text = system.read("/proc/crypto");
  return typeof text === "string" ? parseProcCrypto(text) : text;
}

/**
 * Parses /proc/crypto. Skips entries that are not symmetric ciphers, that only the kernel may use, or that lack a
 * required field.
 */
export function parseProcCrypto(text: string): KernelCipher[] {
  return text.split(/\n\s*\n/).map(parseEntry).filter((cipher) => cipher !== undefined);
}

function parseEntry(entry: string): KernelCipher | undefined {
  const fields = new Map(
    entry.split("\n").map((line) => {
      const colon = line.indexOf(":");
      return [line.slice(0, Math.max(colon, 0)).trim(), line.slice(colon + 1).trim()];
    }),
  );
  const word = (key: string) => /^[\x21-\x7e]{1,128}$/.exec(fields.get(key) ?? "")?.[0];
  const count = (key: string) => Number(/^\d{1,10}$/.exec(fields.get(key) ?? "")?.[0] ?? NaN);
  const name = word("name");
  const driver = word("driver");
  const type = word("type");
  if (!name || !driver || (type !== "skcipher" && type !== "lskcipher") || word("internal") !== "no") return undefined;
  const blockSize = count("blocksize");
  const sizes = {
    blockSize,
    minKeySize: count("min keysize"),
    maxKeySize: count("max keysize"),
    ivSize: count("ivsize"),
    // Entries of type lskcipher may lack this field.
    chunkSize: count("chunksize") || blockSize,
  };
  if (Object.values(sizes).some(Number.isNaN)) return undefined;
  return {
    name,
    driver,
    type,
    module: word("module") ?? "unknown",
    priority: count("priority") || 0,
    refCount: count("refcnt") || 0,
    selftest: word("selftest") ?? "unknown",
    async: word("async") === "yes",
    ...sizes,
  };
}
