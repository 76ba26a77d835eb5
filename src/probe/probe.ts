/**
 * What this system offers: {@linkcode probe} and {@linkcode listCiphers}.
 *
 * @module
 */

import type { Library } from "../../ffi/adapter.ts";
import { hasFFI, loadIfGranted } from "../../ffi/mod.ts";
import { platformInfo } from "../runtime/mod.ts";
import { parseAlgorithm } from "../algorithms.ts";
import type { EngineName } from "../engines/engine.ts";
import { measureLimits, openKernel } from "../engines/kernel.ts";
import { userspaceNames } from "../engines/userspace.ts";
import { type ErrorCode, KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { diagnose, type Diagnosis } from "../system/hints.ts";
import { diagnoseKey, type KeyCall, TOO_OLD } from "../system/key_hints.ts";
import { tryKeyring } from "./keyring.ts";
import {
  type KernelCipher,
  kernelCiphers,
  privilegesOf,
  restriction,
  type System,
  textOf,
  thisSystem,
} from "../system/files.ts";

/** Something that keeps the kernel engine, or a part of the report, from what it could be. */
export interface Problem {
  /** What does not work. */
  what: string;
  /** Why, most likely. */
  cause: string;
  /** What would change that. */
  remedy: string;
}

/** What {@linkcode probe} found. Null stands for what could not be found out; `problems` tells why. */
export interface ProbeReport {
  /** The JavaScript runtime, such as `{ name: "deno", version: "2.9.6" }`. */
  runtime: { name: string; version: string };
  /** The operating system, such as `"linux"`. */
  platform: string;
  /** The processor's architecture, such as `"x64"`. */
  arch: string;
  /** The kernel's release, such as `"6.1.176"`. */
  kernel: string | null;
  /** Whether the runtime lets this process call libraries; `"missing"` where it cannot at all, as Node before 26.1. */
  ffi: "granted" | "refused" | "missing";
  /** libkcapi: where it is, and its version, such as `"1.4.0"`. */
  library: { path: string; version: string } | null;
  /** Whether an AF_ALG socket can be had; if not, the error. */
  afAlg: "works" | ErrorCode;
  /** Whether libkcapi learns the sizes of ciphers by NETLINK_CRYPTO; null while none opens for another reason. */
  netlinkCrypto: "works" | ErrorCode | null;
  /**
   * Whether the kernel takes keys out of its keyring (`KernelKey`), tried with a random one that is removed again; null
   * where no usual cipher opens.
   */
  keyring: "works" | ErrorCode | null;
  /** The sysctl crypto.af_alg_restrict of Linux 7.3; null where the kernel does not have it, too. */
  afAlgRestrict: number | null;
  /** The effective user, and capabilities that count in the initial user namespace. */
  privileges: { uid: number; netAdmin: boolean; sysAdmin: boolean } | null;
  /** The send buffer of an AF_ALG socket in bytes. */
  sendBuffer: number | null;
  /** How much of it a stream uses: the longest message of a mode that takes everything in one. */
  window: number | null;
  /** The ciphers that each engine opened just now. The kernel was asked for those it lists and for the usual ones. */
  ciphers: Record<EngineName, string[]>;
  /** What is amiss, why, and what would help. */
  problems: Problem[];
}

/** A cipher in one implementation. Sizes are in bytes. What only /proc/crypto tells is absent where it does not. */
export interface CipherInfo {
  /** The algorithm, such as `"cbc(aes)"`: what to open. */
  name: string;
  /**
   * How a stream over it is cut: anywhere (`"stream"`, `"counter"`), into sectors of `sectorSize`, or not at all
   * (`"message"`, and `"sector"` without a size): then it is at most `probe().window` long.
   */
  kind: "stream" | "counter" | "sector" | "message";
  /** The engines that opened the algorithm just now. */
  engines: EngineName[];
  /** The block size; 1 for stream ciphers. */
  blockSize: number;
  /** The shortest key. */
  minKeySize: number;
  /** The longest key. */
  maxKeySize: number;
  /** The IV's length; 0 where there is none. */
  ivSize: number;
  /** The bytes in which the kernel works. */
  chunkSize: number;
  /** The name of the implementation, such as `"cbc-aes-aesni"`. Opening it by this name insists on it. */
  driver?: string;
  /** The kernel module it is in, `"kernel"` if it is built in. */
  module?: string;
  /** Of several implementations the kernel takes the one with the highest priority. */
  priority?: number;
  /** `"skcipher"`, or since Linux 6.8 `"lskcipher"`, which makes no difference here. */
  type?: "skcipher" | "lskcipher";
  /** Whether the kernel's self-test of it `"passed"`. */
  selftest?: string;
  /** Whether it may hand work on to other hardware or another thread. */
  async?: boolean;
  /** How many users it has now. */
  refCount?: number;
}

/** The part of {@linkcode CipherInfo} that there always is. */
type Sizes = Pick<CipherInfo, "name" | "blockSize" | "minKeySize" | "maxKeySize" | "ivSize" | "chunkSize">;

/** Where to look: tests hand in others. */
interface Surroundings {
  readonly system: System;
  readonly library: Library | KcapiError;
}

/** The longest key that a cipher is tried with, whatever /proc/crypto says: there, a driver may claim any length. */
const MOST_TRIED = 1024;

/** What the kernel is asked for whether it lists it or not: it lists an algorithm only once somebody asked for it. */
const USUAL: readonly string[] = ["cbc(aes)", "ctr(aes)", "ecb(aes)", "xts(aes)", "chacha20"];

/**
 * What this system offers, and where that is less than it could be, why and what would change it.
 *
 * Nothing is guessed: each cipher is opened, with a random key, and closed. This may make the kernel load modules. The
 * user is never asked for a permission: what needs one that is not granted is reported as a problem. The report is
 * plain data: `JSON.stringify(probe())` has all of it.
 *
 * @returns The report.
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
  return report({ system: thisSystem, library: loadIfGranted() });
}

/**
 * The ciphers at hand: one entry for each implementation in /proc/crypto, and one for each other algorithm that an
 * engine opened, sorted by name and priority.
 *
 * The kernel lists an algorithm only once somebody asked for it. This function asks for the usual ones, which may load
 * modules; others that are missing here may open all the same. Where /proc/crypto cannot be read (in Deno without
 * `--allow-all`, and on systems other than Linux), there are only the usual ones and the userspace engine's, and
 * `probe().problems` says so. Algorithms that this module does not stream (AEADs, hashes) and those that only the
 * kernel itself may use are left out.
 *
 * @returns The list.
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
  return list({ system: thisSystem, library: loadIfGranted() });
}

/** {@linkcode probe} of given surroundings; exported for its tests. */
export function report({ system, library }: Surroundings): ProbeReport {
  const { opened, failed } = tryKernel(system, library);
  const limits = library instanceof KcapiError ? library : attempt(() => measureLimits(library.call));
  const noAfAlg = limits instanceof KcapiError ? failed[0]?.error ?? limits : undefined;
  const { sendBuffer, window } = limits instanceof KcapiError ? { sendBuffer: null, window: null } : limits;
  const privileges = privilegesOf(system);
  const usual = USUAL.find((name) => opened.includes(name));
  const keyring = usual === undefined || library instanceof KcapiError ? null : tryKeyring(library, usual) ?? "works";
  const { runtime, arch } = platformInfo();
  return {
    runtime,
    platform: system.platform,
    arch,
    kernel: textOf(system, "/proc/sys/kernel/osrelease") ?? null,
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
      ...(noAfAlg ? [engineProblem(noAfAlg, system)] : cipherProblems(failed, system)),
      ...(keyring instanceof KcapiError ? [keyringProblem(keyring)] : []),
      ...procProblems(system),
    ],
  };
}

/** {@linkcode listCiphers} of given surroundings; exported for its tests. */
export function list({ system, library }: Surroundings): CipherInfo[] {
  const { opened } = tryKernel(system, library);
  const listed = streamable(system);
  const unlisted = new Set([...opened, ...userspaceNames()]);
  for (const { name } of listed) unlisted.delete(name);
  const infos = [...listed, ...Array.from(unlisted, sizesOf)].map(({ name, ...rest }): CipherInfo => {
    const engines: EngineName[] = [];
    if (opened.includes(name)) engines.push("kernel");
    if (userspaceNames().includes(name)) engines.push("userspace");
    return { name, kind: parseAlgorithm(name).kind, engines, ...rest };
  });
  return infos.sort((a, b) => a.name === b.name ? (b.priority ?? 0) - (a.priority ?? 0) : a.name < b.name ? -1 : 1);
}

/** What is known without the kernel of an algorithm that has a rule. */
function sizesOf(name: string): Sizes {
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

/** What /proc/crypto lists, if it can be read, of what this module streams. */
function streamable(system: System): KernelCipher[] {
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

/** An algorithm that did not open, and why. */
interface Failure {
  readonly name: string;
  readonly error: KcapiError;
}

/** Opens each candidate once, with a random key, and closes it. */
function tryKernel(system: System, library: Library | KcapiError): { opened: string[]; failed: Failure[] } {
  const opened: string[] = [];
  const failed: Failure[] = [];
  for (const { name, minKeySize, maxKeySize } of candidates(system)) {
    const keySize = maxKeySize <= MOST_TRIED ? maxKeySize : Math.min(minKeySize, MOST_TRIED);
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

/** The usual algorithms, and then what the kernel lists by now. */
function* candidates(system: System): Generator<Pick<KernelCipher, "name" | "minKeySize" | "maxKeySize">> {
  yield* USUAL.map(sizesOf);
  const others = new Map(streamable(system).map((cipher) => [cipher.name, cipher]));
  for (const name of USUAL) others.delete(name);
  yield* others.values();
}

function attempt<T>(action: () => T): T | KcapiError {
  try {
    return action();
  } catch (error) {
    if (error instanceof KcapiError) return error;
    throw error;
  }
}

/** Why the kernel engine is not there at all. */
function engineProblem(error: KcapiError, system: System): Problem {
  const { code, operation, hint, detail } = error;
  const what = `the kernel engine is not available (${code})`;
  if (system.platform !== "linux") return { what, ...diagnose("EAFNOSUPPORT", operation, "", system)! };
  // A failure to load the library comes with a remedy of its own.
  if (operation === "dlopen" && hint) return { what, cause: detail, remedy: hint };
  return { what, ...diagnosisOf({ name: USUAL[0]!, error }, system) };
}

/** Why no key of the kernel's can be used. */
function keyringProblem({ code, operation, detail, hint = "not known: please report it" }: KcapiError): Problem {
  // The key that was tried is of a type that every kernel takes which takes any.
  const diagnosis = code === "ENOPROTOOPT" ? TOO_OLD : diagnoseKey(code, operation as KeyCall);
  return {
    what: `the kernel engine cannot use keys of the kernel's keyring (${code})`,
    ...diagnosis ?? { cause: detail, remedy: hint },
  };
}

/** One problem for all the algorithms that do not open for the same reason. */
function cipherProblems(failed: readonly Failure[], system: System): Problem[] {
  const reasons = Map.groupBy(failed, (failure) => JSON.stringify([codeOf(failure), diagnosisOf(failure, system)]));
  return Array.from(reasons, ([reason, failures]) => {
    const [code, diagnosis] = JSON.parse(reason) as [ErrorCode, Diagnosis];
    return {
      what: `the kernel engine does not open ${failures.map(({ name }) => name).join(", ")} (${code})`,
      ...diagnosis,
    };
  });
}

function diagnosisOf({ name, error }: Failure, system: System): Diagnosis {
  const { code, operation, message } = error;
  return diagnose(code, operation, name, system) ?? { cause: message, remedy: "not known: please report it" };
}

function codeOf({ error }: Failure): ErrorCode {
  return error.code;
}

/** Why the report has nothing from the system's files. */
function procProblems(system: System): Problem[] {
  const text = system.platform === "linux" ? system.read("/proc/crypto") : "";
  if (typeof text === "string") return [];
  return [{
    what: "what the kernel lists, its release and this process's privileges are not known",
    cause: text.message,
    remedy: "run this report with all permissions; ciphers and streams need none of those files",
  }];
}

function describeLibrary({ call, path }: Library, system: System): { path: string; version: string } {
  const number = call.kcapi_version();
  const version = [number / 1_000_000, number / 10_000 % 100, number / 100 % 100].map(Math.trunc).join(".");
  // A bare name was found by the dynamic linker, and only the kernel knows where.
  const mapped = /\/\S*libkcapi\.so\S*/.exec(path.includes("/") ? "" : textOf(system, "/proc/self/maps") ?? "");
  return { path: mapped?.[0] ?? path, version };
}
