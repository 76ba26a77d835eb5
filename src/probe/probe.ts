/**
 * Reports what this system supports: {@linkcode probe} and {@linkcode listCiphers}.
 *
 * @module
 */

import type { Library } from "../../ffi/adapter.ts";
import { GCM, IV_SIZE } from "../cipher/gcm_options.ts";
import { hasFFI, loadIfGranted } from "../../ffi/mod.ts";
import { platformInfo, requireServer } from "../runtime/mod.ts";
import { parseAlgorithm } from "../algorithms.ts";
import type { CipherEngineName } from "../engines/engine.ts";
import { measureLimits, openKernel } from "../engines/kernel.ts";
import { userspaceNames } from "../engines/userspace.ts";
import { type ErrorCode, KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { diagnose, type Diagnosis } from "../system/hints.ts";
import type { KernelKey } from "../keyring/kernel_key.ts";
import { diagnoseKey, type KeyCall, TOO_OLD } from "../keyring/hints.ts";
import { withRandomKey } from "../keyring/syscalls.ts";
import {
  type KernelCipher,
  kernelCiphers,
  privilegesOf,
  readText,
  restriction,
  type System,
  thisSystem,
} from "../system/files.ts";

/** A problem of the kernel engine, or of the report. */
export interface Problem {
  /** What does not work. */
  what: string;
  /** The likely cause. */
  cause: string;
  /** How to fix it. */
  remedy: string;
}

/** The result of {@linkcode probe}. A value that cannot be determined is null, and `problems` has the cause. */
export interface ProbeReport {
  /** The JavaScript runtime, such as `{ name: "deno", version: "2.9.6" }`. */
  runtime: { name: string; version: string };
  /** The operating system, such as `"linux"`. */
  platform: string;
  /** The processor's architecture, such as `"x64"`. */
  arch: string;
  /** The kernel's release, such as `"6.1.176"`. */
  kernel: string | null;
  /** Whether this process may call native libraries. `"missing"` if the runtime has no FFI, as Node before 26.1. */
  ffi: "granted" | "refused" | "missing";
  /** The path of libkcapi, and its version, such as `"1.4.0"`. */
  library: { path: string; version: string } | null;
  /** `"works"` if the process can open an AF_ALG socket, otherwise the error. */
  afAlg: "works" | ErrorCode;
  /** Whether libkcapi can read the sizes of ciphers by NETLINK_CRYPTO. Null if no cipher opens for another reason. */
  netlinkCrypto: "works" | ErrorCode | null;
  /**
   * Whether ciphers can use keys of the kernel's keyring (`KernelKey`). The test adds a random key and removes it. Null
   * if no common cipher opens.
   */
  keyring: "works" | ErrorCode | null;
  /** The sysctl crypto.af_alg_restrict of Linux 7.3. Null also if the kernel does not have it. */
  afAlgRestrict: number | null;
  /** The effective user ID, and the capabilities in the initial user namespace. */
  privileges: { uid: number; netAdmin: boolean; sysAdmin: boolean } | null;
  /** The send buffer of an AF_ALG socket in bytes. */
  sendBuffer: number | null;
  /** The bytes of the send buffer that a stream uses: the longest message of a mode that cannot be split. */
  window: number | null;
  /**
   * The ciphers that each engine opened in this call. The kernel engine tried those in /proc/crypto and common ones.
   */
  ciphers: Record<CipherEngineName, string[]>;
  /** The problems, with their causes and remedies. */
  problems: Problem[];
}

/** One implementation of a cipher. Sizes are in bytes. Fields from /proc/crypto are absent if it cannot be read. */
export interface CipherInfo {
  /** The algorithm to open, such as `"cbc(aes)"`. */
  name: string;
  /**
   * How a stream may be split: anywhere (`"stream"`, `"counter"`), into sectors of `sectorSize` bytes (`"sector"`), or
   * not at all (`"message"`, and `"sector"` without a size). A stream that cannot be split has at most `probe().window`
   * bytes.
   */
  kind: "stream" | "counter" | "sector" | "message";
  /** The engines that opened the algorithm in this call. */
  engines: CipherEngineName[];
  /** The block size; 1 for stream ciphers. */
  blockSize: number;
  /** The shortest key. */
  minKeySize: number;
  /** The longest key. */
  maxKeySize: number;
  /** The length of the IV. 0 if the cipher has none. */
  ivSize: number;
  /** The number of bytes that the kernel processes at once. */
  chunkSize: number;
  /** The name of the implementation, such as `"cbc-aes-aesni"`. Open this name to use exactly this implementation. */
  driver?: string;
  /** The kernel module of the implementation, `"kernel"` if it is built in. */
  module?: string;
  /** The priority. The kernel chooses the implementation with the highest one. */
  priority?: number;
  /** The type: `"skcipher"`, or since Linux 6.8 `"lskcipher"`. This module treats both in the same way. */
  type?: "skcipher" | "lskcipher";
  /** The result of the kernel's self-test, such as `"passed"`. */
  selftest?: string;
  /** Whether the implementation may work asynchronously, on other hardware or another thread. */
  async?: boolean;
  /** The current number of users. */
  refCount?: number;
}

/** The fields of {@linkcode CipherInfo} that are always known. */
type Sizes = Pick<CipherInfo, "name" | "blockSize" | "minKeySize" | "maxKeySize" | "ivSize" | "chunkSize">;

/** The system and the library to report on. Tests pass fakes. */
interface Target {
  readonly system: System;
  readonly library: Library | KcapiError;
}

const UNKNOWN_REMEDY = "unknown; please report this problem";

/** The longest key that is tried, because a driver may claim any length in /proc/crypto. */
const MAX_KEY_SIZE = 1024;

/** The algorithms that are always tried. The kernel lists an algorithm only after its first use. */
const COMMON: readonly string[] = ["cbc(aes)", "ctr(aes)", "ecb(aes)", "xts(aes)", "chacha20"];

/**
 * Reports what this system supports, what it does not, and how to change that.
 *
 * It opens each cipher with a random key and closes it. The kernel may load modules for that. It causes no permission
 * prompt: a missing permission is reported as a problem. The report is plain data for `JSON.stringify()`.
 *
 * @returns The report.
 * @throws {KcapiError} ENOSYS in a browser.
 *
 * @example Usage
 * ```ts
 * import { probe } from "@kcapi/streams";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const report = probe();
 * for (const { what, cause, remedy } of report.problems) console.warn(`${what}: ${cause}; ${remedy}`);
 * assert(report.ciphers.userspace.includes("ctr(aes)"));
 * assertEquals(JSON.parse(JSON.stringify(report)), report);
 * ```
 */
export function probe(): ProbeReport {
  requireServer("probe");
  return report({ system: thisSystem, library: loadIfGranted() });
}

/**
 * Lists the available ciphers: one entry for each implementation in /proc/crypto, and one for each other algorithm that
 * an engine opened, sorted by name and priority.
 *
 * The kernel lists an algorithm only after its first use. This function opens the common ones, which may load modules.
 * An algorithm that is not in the list may still open. If /proc/crypto cannot be read (in Deno without `--allow-all`,
 * and on other systems than Linux), the list has only the common algorithms and those of the userspace engine, and
 * `probe().problems` reports that. The list excludes algorithms that this module does not stream (hashes, and AEADs
 * other than `gcm(aes)`), and those that only the kernel may use.
 *
 * @returns The list.
 * @throws {KcapiError} ENOSYS in a browser.
 *
 * @example Usage
 * ```ts
 * import { listCiphers } from "@kcapi/streams";
 * import { assert } from "@std/assert";
 *
 * const cipher = listCiphers().find(({ name }) => name === "ctr(aes)");
 * assert(cipher);
 * assert(cipher.engines.includes("userspace"));
 * console.log(cipher.driver, cipher.minKeySize, cipher.maxKeySize);
 * ```
 */
export function listCiphers(): CipherInfo[] {
  requireServer("listCiphers");
  return list({ system: thisSystem, library: loadIfGranted() });
}

/** {@linkcode probe} for a target. Exported for its tests. */
export function report({ system, library }: Target): ProbeReport {
  const { opened, failed } = tryKernel(system, library);
  const limits = library instanceof KcapiError ? library : attempt(() => measureLimits(library.call));
  const noAfAlg = limits instanceof KcapiError ? failed[0]?.error ?? limits : undefined;
  const { sendBuffer, window } = limits instanceof KcapiError ? { sendBuffer: null, window: null } : limits;
  const privileges = privilegesOf(system);
  const common = COMMON.find((name) => opened.includes(name));
  const keyring = common === undefined || library instanceof KcapiError ? null : tryKeyring(library, common) ?? "works";
  const { runtime, arch } = platformInfo();
  return {
    runtime,
    platform: system.platform,
    arch,
    kernel: readText(system, "/proc/sys/kernel/osrelease") ?? null,
    ffi: library instanceof KcapiError && library.code === "EACCES" ? "refused" : hasFFI() ? "granted" : "missing",
    library: library instanceof KcapiError ? null : describeLibrary(library, system),
    afAlg: noAfAlg?.code ?? "works",
    netlinkCrypto: opened.length > 0 ? "works" : failed.map(codeOf).find((code) => code === "EPROTONOSUPPORT") ?? null,
    keyring: keyring instanceof KcapiError ? keyring.code : keyring,
    afAlgRestrict: restriction(system) ?? null,
    privileges: privileges
      ? { uid: privileges.uid, netAdmin: privileges.netAdmin, sysAdmin: privileges.sysAdmin }
      : null,
    sendBuffer,
    window,
    ciphers: { kernel: opened, userspace: [...userspaceNames()] },
    problems: [
      ...(noAfAlg ? [describeEngineProblem(noAfAlg, system)] : describeCipherProblems(failed, system)),
      ...(keyring instanceof KcapiError ? [describeKeyringProblem(keyring)] : []),
      ...describeProcProblems(system),
    ],
  };
}

/** {@linkcode listCiphers} for a target. Exported for its tests. */
export function list({ system, library }: Target): CipherInfo[] {
  const { opened } = tryKernel(system, library);
  const listed = listStreamable(system);
  const unlisted = new Set([...opened, ...userspaceNames()]);
  for (const { name } of listed) unlisted.delete(name);
  const infos = [...listed, ...Array.from(unlisted, knownSizes)].map(({ name, ...rest }): CipherInfo => {
    const engines: CipherEngineName[] = [];
    if (opened.includes(name)) engines.push("kernel");
    if (userspaceNames().includes(name)) engines.push("userspace");
    return { name, kind: parseAlgorithm(name).kind, engines, ...rest };
  });
  infos.push(describeGcm());
  return infos.sort((a, b) => a.name === b.name ? (b.priority ?? 0) - (a.priority ?? 0) : a.name < b.name ? -1 : 1);
}

/** `gcm(aes)`, with the usual length of the IV. A `CipherHandle` does not open it. */
function describeGcm(): CipherInfo {
  return {
    name: GCM,
    kind: "stream",
    engines: ["userspace"],
    blockSize: 1,
    minKeySize: 16,
    maxKeySize: 32,
    ivSize: IV_SIZE,
    chunkSize: 16,
  };
}

/** Returns the sizes of an algorithm that are known without the kernel. */
function knownSizes(name: string): Sizes {
  const { blockSize, shortestSector, keySizes, ivSize, chunkSize } = parseAlgorithm(name);
  return {
    name,
    blockSize: blockSize ?? (shortestSector || 1),
    minKeySize: keySizes!.at(0)!,
    maxKeySize: keySizes!.at(-1)!,
    ivSize: ivSize!,
    chunkSize,
  };
}

/** Lists the entries of /proc/crypto that this module can stream. Returns none if the file cannot be read. */
function listStreamable(system: System): KernelCipher[] {
  const ciphers = kernelCiphers(system);
  if (ciphers instanceof Error) return [];
  return ciphers.filter(({ name }) => {
    try {
      return parseAlgorithm(name);
    } catch {
      return false;
    }
  });
}

/** An algorithm that did not open, and the error. */
interface FailedOpen {
  readonly name: string;
  readonly error: KcapiError;
}

/** Opens each candidate with a random key, and closes it. */
function tryKernel(system: System, library: Library | KcapiError): { opened: string[]; failed: FailedOpen[] } {
  const opened: string[] = [];
  const failed: FailedOpen[] = [];
  for (const { name, minKeySize, maxKeySize } of listCandidates(system)) {
    const keySize = maxKeySize <= MAX_KEY_SIZE ? maxKeySize : Math.min(minKeySize, MAX_KEY_SIZE);
    using key = Secret.random(keySize);
    const engine = library instanceof KcapiError
      ? library
      : attempt(() => openKernel(library, parseAlgorithm(name), key));
    if (engine instanceof KcapiError) {
      failed.push({ name, error: engine });
    } else {
      engine.close();
      opened.push(name);
    }
  }
  return { opened, failed };
}

/** Yields the common algorithms, then the others in /proc/crypto, which may have grown in the meantime. */
function* listCandidates(system: System): Generator<Pick<KernelCipher, "name" | "minKeySize" | "maxKeySize">> {
  yield* COMMON.map(knownSizes);
  const others = new Map(listStreamable(system).map((cipher) => [cipher.name, cipher]));
  for (const name of COMMON) others.delete(name);
  yield* others.values();
}

/** Opens a cipher with a random key of the keyring. @returns The error, or undefined. */
function tryKeyring(library: Library, name: string): KcapiError | undefined {
  const algorithm = parseAlgorithm(name);
  const open = (key: KernelKey) => openKernel(library, algorithm, key).close();
  return attempt(() => {
    withRandomKey(library, algorithm.keySizes!.at(-1)!, open);
    return undefined;
  });
}

function attempt<T>(action: () => T): T | KcapiError {
  try {
    return action();
  } catch (error) {
    if (error instanceof KcapiError) return error;
    throw error;
  }
}

/** Describes why the kernel engine is not available. */
function describeEngineProblem(error: KcapiError, system: System): Problem {
  const { code, operation, hint, detail } = error;
  const what = `the kernel engine is not available (${code})`;
  if (system.platform !== "linux") return { what, ...diagnose("EAFNOSUPPORT", operation, "", system)! };
  // An error of the loader has its own remedy.
  if (operation === "dlopen" && hint) return { what, cause: detail, remedy: hint };
  return { what, ...diagnoseFailure({ name: COMMON[0]!, error }, system) };
}

/** Describes why ciphers cannot use keys of the keyring. */
function describeKeyringProblem({ code, operation, detail, hint = UNKNOWN_REMEDY }: KcapiError): Problem {
  // ENOPROTOOPT means an old kernel: every kernel with this option accepts the type of the key that was tried.
  const diagnosis = code === "ENOPROTOOPT" ? TOO_OLD : diagnoseKey(code, operation as KeyCall);
  return {
    what: `the kernel engine cannot use keys of the kernel's keyring (${code})`,
    ...diagnosis ?? { cause: detail, remedy: hint },
  };
}

/** Groups the algorithms that fail for the same reason into one problem. */
function describeCipherProblems(failed: readonly FailedOpen[], system: System): Problem[] {
  const reasons = Map.groupBy(failed, (failure) => JSON.stringify([codeOf(failure), diagnoseFailure(failure, system)]));
  return Array.from(reasons, ([reason, failures]) => {
    const [code, diagnosis] = JSON.parse(reason) as [ErrorCode, Diagnosis];
    return {
      what: `the kernel engine cannot open ${failures.map(({ name }) => name).join(", ")} (${code})`,
      ...diagnosis,
    };
  });
}

function diagnoseFailure({ name, error }: FailedOpen, system: System): Diagnosis {
  const { code, operation, message } = error;
  return diagnose(code, operation, name, system) ?? { cause: message, remedy: UNKNOWN_REMEDY };
}

function codeOf({ error }: FailedOpen): ErrorCode {
  return error.code;
}

/** Describes why the report lacks the information in /proc. */
function describeProcProblems(system: System): Problem[] {
  const text = system.platform === "linux" ? system.read("/proc/crypto") : "";
  if (typeof text === "string") return [];
  return [{
    what: "the kernel's ciphers, its release and the privileges of this process are not known",
    cause: text.message,
    remedy: "run this report with all permissions (ciphers and streams do not need these files)",
  }];
}

function describeLibrary({ call, path }: Library, system: System): { path: string; version: string } {
  const number = call.kcapi_version();
  const version = [number / 1_000_000, number / 10_000 % 100, number / 100 % 100].map(Math.trunc).join(".");
  // The dynamic linker resolved a bare name, and /proc/self/maps has the result.
  const mapped = /\/\S*libkcapi\.so\S*/.exec(path.includes("/") ? "" : readText(system, "/proc/self/maps") ?? "");
  return { path: mapped?.[0] ?? path, version };
}
