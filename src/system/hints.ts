/**
 * Turns an errno of the kernel engine into its likely cause on this system and what would change it.
 *
 * @module
 */

import { type ErrorCode, KcapiError } from "../errors.ts";
import { nearestAlgorithm } from "./nearest.ts";
import {
  type KernelCipher,
  kernelCiphers,
  privilegesOf,
  restriction,
  type System,
  textOf,
  thisSystem,
} from "./files.ts";

/** Why something failed, and what would change that. */
export interface Diagnosis {
  cause: string;
  remedy: string;
}

/** The hint that says it in one line. */
export function hintOf({ cause, remedy }: Diagnosis): string {
  return `${cause}; ${remedy}`;
}

/** A failed call, and the system it failed on. */
interface Failure {
  readonly operation: string;
  readonly algorithm: string;
  readonly system: System;
}

/**
 * The hint of a {@linkcode KcapiError}, in one line.
 *
 * @param code The errno's name.
 * @param operation The call that failed.
 * @param algorithm The algorithm it was about.
 * @param system Where it failed.
 * @returns Undefined where nothing is known that the errno does not say.
 */
export function explain(
  code: ErrorCode,
  operation: string,
  algorithm: string,
  system: System = thisSystem,
): string | undefined {
  const diagnosis = diagnose(code, operation, algorithm, system);
  return diagnosis && hintOf(diagnosis);
}

/** The error of a failed call of libkcapi, with the hint for it if it has none. */
export function withHint(error: KcapiError, algorithm: string): KcapiError {
  if (error.hint !== undefined) return error;
  const { errno, code, operation } = error;
  return new KcapiError(errno, operation, `${algorithm} failed`, { hint: explain(code, operation, algorithm) });
}

/** The same with cause and remedy apart. Neither names the algorithm, so that what fails alike reads alike. */
export function diagnose(
  code: ErrorCode,
  operation: string,
  algorithm: string,
  system: System = thisSystem,
): Diagnosis | undefined {
  return DIAGNOSES[code]?.({ operation, algorithm, system });
}

const DIAGNOSES: Readonly<Record<string, (failure: Failure) => Diagnosis | undefined>> = {
  EAFNOSUPPORT: noAfAlg,
  EPERM: refused,
  EACCES: refused,
  ENOENT: notFound,
  EINVAL: badKey,
  EMFILE: tooManyDescriptors,
  EPROTONOSUPPORT: () => ({
    cause: "the kernel does not answer on NETLINK_CRYPTO, which libkcapi asks for a cipher's sizes",
    remedy: "as root, load its module: modprobe crypto_user",
  }),
  ELIBBAD: () => ({
    cause: "the kernel's implementation failed its self-test",
    remedy: "see the kernel's log, and open another driver of it by name (listCiphers() has them)",
  }),
  ENFILE: () => ({
    cause: "the system's limit of open files (fs.file-max) or the user's of pipes (fs.pipe-user-pages-hard) is reached",
    remedy: "close what is not in use, or raise the limit",
  }),
  ENOMEM: outOfMemory,
  ENOBUFS: outOfMemory,
  ENOKEY: () => ({ cause: "the cipher has no key", remedy: "set one before the first stream" }),
  EKEYREJECTED: () => ({ cause: "the kernel refuses this key as a weak one", remedy: "use another key" }),
};

function noAfAlg({ system }: Failure): Diagnosis {
  if (system.platform !== "linux") {
    return { cause: "AF_ALG is Linux's alone", remedy: "use the userspace engine" };
  }
  if (restriction(system) === 2) {
    return {
      cause: "crypto.af_alg_restrict is 2, which switches AF_ALG off",
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

function refused({ system }: Failure): Diagnosis {
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

/** What crypto.af_alg_restrict = 1 leaves (Linux 7.3), to everyone and to privileged processes. */
const ALLOWED = /^(?:xts\((?:aes|camellia|serpent|twofish)\)|adiantum\(xchacha(?:12|20),aes\)|hctr2\(aes\))$/;
const ALLOWED_PRIVILEGED = /^(?:(?:cbc|ctr|ecb)\(aes\)|cbc\(des(?:3_ede)?\)|ecb\(des\))$/;

function notFound({ algorithm, system }: Failure): Diagnosis {
  const nearest = nearestAlgorithm(algorithm, system);
  if (nearest) return { cause: "no algorithm has this name", remedy: `did you mean "${nearest}"?` };
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
  if (textOf(system, "/proc/sys/crypto/fips_enabled") === "1") {
    return { cause: "the kernel is in FIPS mode", remedy: "use an approved algorithm, such as cbc(aes)" };
  }
  if (kernelEntry(algorithm, system)) {
    return {
      cause: "the kernel has this algorithm, but not the module that serves ciphers to processes",
      remedy: "as root: modprobe algif_skcipher",
    };
  }
  const cause = "the kernel has no algorithm of this name, or may not load the module it is in";
  return {
    cause: kernelCiphers(system) instanceof Error
      ? `${cause} or algif_skcipher, or crypto.af_alg_restrict keeps it from this process (Linux 7.3 and later)`
      : cause,
    remedy: "take one of listCiphers(), or find out as root what is missing: modprobe crypto-xts (for xts)",
  };
}

function badKey({ operation, algorithm, system }: Failure): Diagnosis | undefined {
  if (operation !== "kcapi_cipher_setkey") return undefined;
  const { minKeySize: least, maxKeySize: most } = kernelEntry(algorithm, system) ?? {};
  return {
    cause: "the key is of a length the algorithm does not take, or a weak one",
    remedy: least === undefined
      ? "/proc/crypto has the lengths"
      : `the kernel takes ${least === most ? least : `${least} to ${most}`} bytes`,
  };
}

function tooManyDescriptors({ system }: Failure): Diagnosis {
  const limit = /^Max open files\s+(\d+)/m.exec(textOf(system, "/proc/self/limits") ?? "")?.[1];
  return {
    cause: `the process has reached its limit of ${
      limit ? `${limit} ` : ""
    }open descriptors, of which a stream takes 4`,
    remedy: "close what is not in use, open the key once and reinit() it (3 each), or raise the limit (ulimit -n)",
  };
}

function outOfMemory(): Diagnosis {
  return {
    cause: "the kernel has no memory left for this socket (net.core.optmem_max), this container or this system",
    remedy: "close what is not in use, or raise the limit",
  };
}

function kernelEntry(algorithm: string, system: System): KernelCipher | undefined {
  const ciphers = kernelCiphers(system);
  if (ciphers instanceof Error) return undefined;
  return ciphers.find(({ name, driver }) => name === algorithm || driver === algorithm);
}
