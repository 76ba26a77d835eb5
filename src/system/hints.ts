/**
 * Finds the likely cause of a kernel engine error on this system, and the remedy.
 *
 * @module
 */

import { type ErrorCode, KcapiError } from "../errors.ts";
import { nearestAlgorithm } from "./nearest.ts";
import {
  type KernelCipher,
  kernelCiphers,
  privilegesOf,
  readText,
  restriction,
  type System,
  thisSystem,
} from "./files.ts";

/** The likely cause of a failure, and its remedy. */
export interface Diagnosis {
  cause: string;
  remedy: string;
}

/** Formats a diagnosis as a hint. */
export function formatHint({ cause, remedy }: Diagnosis): string {
  return `${cause}; ${remedy}`;
}

/** A failed call and its system. */
interface FailedCall {
  readonly operation: string;
  readonly algorithm: string;
  readonly system: System;
}

/**
 * Returns the hint for a {@linkcode KcapiError}, in one line.
 *
 * @param code The name of the errno.
 * @param operation The call that failed.
 * @param algorithm The algorithm of the call.
 * @param system The system on which it failed.
 * @returns Undefined if nothing is known beyond the errno.
 */
export function explain(
  code: ErrorCode,
  operation: string,
  algorithm: string,
  system: System = thisSystem,
): string | undefined {
  const diagnosis = diagnose(code, operation, algorithm, system);
  return diagnosis && formatHint(diagnosis);
}

/** Returns the error of a failed libkcapi call with a hint, added if it has none. */
export function withHint(error: KcapiError, algorithm: string): KcapiError {
  if (error.hint !== undefined) return error;
  const { errno, code, operation } = error;
  return new KcapiError(errno, operation, `${algorithm} failed`, { hint: explain(code, operation, algorithm) });
}

/**
 * Like {@linkcode explain}, but returns cause and remedy separately. Neither names the algorithm, so that a report can
 * group algorithms that fail for the same reason.
 */
export function diagnose(
  code: ErrorCode,
  operation: string,
  algorithm: string,
  system: System = thisSystem,
): Diagnosis | undefined {
  return DIAGNOSES[code]?.({ operation, algorithm, system });
}

const DIAGNOSES: Readonly<Record<string, (failure: FailedCall) => Diagnosis | undefined>> = {
  EAFNOSUPPORT: diagnoseNoAfAlg,
  EPERM: diagnoseRefusal,
  EACCES: diagnoseRefusal,
  ENOENT: diagnoseNotFound,
  EINVAL: diagnoseKeyLength,
  EMFILE: diagnoseDescriptorLimit,
  EPROTONOSUPPORT: () => ({
    cause: "the kernel does not support NETLINK_CRYPTO, from which libkcapi reads a cipher's sizes",
    remedy: "as root, load its module: modprobe crypto_user",
  }),
  ELIBBAD: () => ({
    cause: "the kernel's implementation failed its self-test",
    remedy: "see the kernel's log, and open another driver by its name, which listCiphers() returns",
  }),
  ENFILE: () => ({
    cause: "the system has reached its limit of open files (fs.file-max), or the user has reached the limit of pipes " +
      "(fs.pipe-user-pages-hard)",
    remedy: "close unused handles and streams, or raise the limit",
  }),
  ENOMEM: diagnoseMemory,
  ENOBUFS: diagnoseMemory,
  ENOKEY: () => ({ cause: "the cipher has no key", remedy: "set a key before the first stream" }),
  EKEYREJECTED: () => ({ cause: "the kernel refuses this key because it is weak", remedy: "use another key" }),
};

function diagnoseNoAfAlg({ system }: FailedCall): Diagnosis {
  if (system.platform !== "linux") {
    return { cause: "only Linux has AF_ALG", remedy: "use the userspace engine" };
  }
  if (restriction(system) === 2) {
    return {
      cause: "crypto.af_alg_restrict is 2, which disables AF_ALG",
      remedy: "as root: sysctl crypto.af_alg_restrict=1",
    };
  }
  const absent = "AF_ALG is not built into this kernel, or its module is missing or blocked (modprobe.d, gVisor)";
  const load = "as root, load it: modprobe -a af_alg algif_skcipher";
  if (privilegesOf(system)?.seccomp === false) return { cause: absent, remedy: load };
  return {
    cause: `${absent}, or a seccomp filter hides it (systemd's RestrictAddressFamilies, a container's profile)`,
    remedy: `${load}, or allow AF_ALG in that filter`,
  };
}

function diagnoseRefusal({ system }: FailedCall): Diagnosis {
  if (privilegesOf(system)?.seccomp === false) {
    return {
      cause: "a security policy refuses AF_ALG (AppArmor, SELinux)",
      remedy: "allow it there (see the audit log)",
    };
  }
  return {
    cause: "a seccomp filter refuses AF_ALG (Docker since 29.4.2, Kubernetes RuntimeDefault), " +
      "or a security policy does (AppArmor, SELinux)",
    remedy: "run the container with a seccomp profile that allows socket(AF_ALG), or allow it in the policy",
  };
}

/** The ciphers that crypto.af_alg_restrict = 1 (Linux 7.3) allows for all processes, and for privileged ones. */
const ALLOWED = /^(?:xts\((?:aes|camellia|serpent|twofish)\)|adiantum\(xchacha(?:12|20),aes\)|hctr2\(aes\))$/;
const ALLOWED_PRIVILEGED = /^(?:(?:cbc|ctr|ecb)\(aes\)|cbc\(des(?:3_ede)?\)|ecb\(des\))$/;

function diagnoseNotFound({ algorithm, system }: FailedCall): Diagnosis {
  const nearest = nearestAlgorithm(algorithm, system);
  if (nearest) return { cause: "there is no algorithm with this name", remedy: `did you mean "${nearest}"?` };
  const restricted = restriction(system);
  if (restricted === 1 && !ALLOWED.test(algorithm)) {
    const lift = "as root: sysctl crypto.af_alg_restrict=0";
    if (!ALLOWED_PRIVILEGED.test(algorithm)) {
      return { cause: "AF_ALG does not serve this algorithm while crypto.af_alg_restrict is 1", remedy: lift };
    }
    const { netAdmin, sysAdmin } = privilegesOf(system) ?? {};
    if (!netAdmin && !sysAdmin) {
      return {
        cause: "while crypto.af_alg_restrict is 1, AF_ALG serves this algorithm only to processes with " +
          "CAP_NET_ADMIN or CAP_SYS_ADMIN in the initial user namespace",
        remedy: `run with one of them, or ${lift}`,
      };
    }
  }
  if (readText(system, "/proc/sys/crypto/fips_enabled") === "1") {
    return { cause: "the kernel is in FIPS mode", remedy: "use an approved algorithm, such as cbc(aes)" };
  }
  if (findCipher(algorithm, system)) {
    return {
      cause: "the kernel has this algorithm, but has not loaded the module that provides ciphers to processes",
      remedy: "as root: modprobe algif_skcipher",
    };
  }
  const cause = "the kernel has no algorithm with this name, or may not load its module";
  return {
    cause: kernelCiphers(system) instanceof Error
      ? `${cause} or algif_skcipher, or crypto.af_alg_restrict (Linux 7.3 and later) denies it to this process`
      : cause,
    remedy: "use an algorithm of listCiphers(), or load the module as root, for example: modprobe crypto-xts",
  };
}

function diagnoseKeyLength({ operation, algorithm, system }: FailedCall): Diagnosis | undefined {
  if (operation !== "kcapi_cipher_setkey") return undefined;
  const { minKeySize: min, maxKeySize: max } = findCipher(algorithm, system) ?? {};
  return {
    cause: "the algorithm does not accept a key of this length, or the key is weak",
    remedy: min === undefined
      ? "see /proc/crypto for the key lengths"
      : `use a key of ${min === max ? min : `${min} to ${max}`} bytes`,
  };
}

function diagnoseDescriptorLimit({ system }: FailedCall): Diagnosis {
  const limit = /^Max open files\s+(\d+)/m.exec(readText(system, "/proc/self/limits") ?? "")?.[1];
  return {
    cause: `the process has reached its limit of ${limit ? `${limit} ` : ""}open descriptors; a stream needs 4`,
    remedy: "close unused handles and streams, open the key once and reinit() it (3 descriptors each), " +
      "or raise the limit (ulimit -n)",
  };
}

function diagnoseMemory(): Diagnosis {
  return {
    cause: "the memory of this socket (net.core.optmem_max), of the container or of the system is exhausted",
    remedy: "close unused handles and streams, or raise the limit",
  };
}

function findCipher(algorithm: string, system: System): KernelCipher | undefined {
  const ciphers = kernelCiphers(system);
  if (ciphers instanceof Error) return undefined;
  return ciphers.find(({ name, driver }) => name === algorithm || driver === algorithm);
}
