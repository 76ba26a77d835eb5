/**
 * Keys out of the kernel's keyring, which the kernel itself copies into a cipher: they never enter this process.
 *
 * libkcapi has no call for that, so the socket that has a handle's key is asked directly. The keyring's own calls have no
 * functions in libc: they go through `syscall`.
 *
 * @module
 */

import type { Address, Library } from "../../ffi/adapter.ts";
import { load } from "../../ffi/mod.ts";
import { platformInfo } from "../runtime/mod.ts";
import type { Algorithm } from "../algorithms.ts";
import { ERRNO, errorCode, KcapiError } from "../errors.ts";
import type { KernelKey } from "../kernel_key.ts";
import { formatHint } from "../system/hints.ts";
import { diagnoseKey, type KeyCall, TOO_OLD } from "../system/key_hints.ts";
import { descriptorsOf } from "./descriptors.ts";

// linux/socket.h, linux/if_alg.h
const SOL_ALG = 279;
const ALG_SET_KEY_BY_KEY_SERIAL = 7;

/** linux/keyctl.h; KEY_SPEC_SESSION_KEYRING, -3, as the int that it is. */
const KEYCTL_SEARCH = 10;
const SESSION_KEYRING = 2 ** 32 - 3;

const SET_KEY = "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)";

/** The numbers of system calls, by the architecture as `process.arch` has it (asm/unistd.h). */
const NUMBERS: Readonly<Record<string, { add_key: number; request_key: number; keyctl: number }>> = {
  x64: { add_key: 248, request_key: 249, keyctl: 250 },
  arm64: { add_key: 217, request_key: 218, keyctl: 219 },
};

/**
 * Sets the key of a handle of libkcapi.
 *
 * @throws {KcapiError} With its hint.
 */
export function setKernelKey(library: Library, handle: Address, algorithm: Algorithm, key: KernelKey): void {
  const socket = descriptorsOf(library, handle)?.keySocket;
  if (socket === undefined) {
    throw new KcapiError("EOPNOTSUPP", SET_KEY, "the socket of this libkcapi's handle cannot be told for certain", {
      hint: "use libkcapi 1.1.0 or later, or give the key's bytes",
    });
  }
  // No key has this serial: kernels that know the option say EINVAL.
  if (setSerial(library, socket, 0) === -ERRNO.ENOPROTOOPT) {
    throw new KcapiError("ENOPROTOOPT", SET_KEY, `${algorithm.name} failed`, {
      hint: formatHint(TOO_OLD),
    });
  }
  const result = setSerial(library, socket, serialOf(library, key));
  if (result < 0) throw keyError(-result, SET_KEY, `${algorithm.name} failed`, algorithm.keySizes);
}

/**
 * The serial of a key, as this thread finds it; another thread of the process may use it, if it may search the key.
 *
 * @throws {KcapiError} ENOKEY, and what else keeps it from being found, with its hint.
 */
export function serialOf(library: Library, key: KernelKey): number {
  if (key.serial !== undefined) return key.serial;
  const [memory, type, name] = textOf(library, key.type, key.description);
  const none = library.word(0);
  // Without text for who could make the key (request-key(8)): it is searched for, and nothing else.
  let result = keyringCall(library, "request_key", type, name, none, none);
  if (result === -ERRNO.ENOKEY) result = reasonInSession(library, type, name) ?? result;
  memory.fill(0); // which keeps it in memory up to here
  if (result < 0) throw keyError(-result, "request_key", `no ${key.type} key was found`);
  return result;
}

/**
 * Why the key that the session's keyring has cannot be used. Where the thread or the process has a keyring, too,
 * request_key(2) says of it that there is none (search_process_keyrings_rcu in security/keys/process_keys.c).
 */
function reasonInSession(library: Library, type: Address, name: Address): number | undefined {
  const { word } = library;
  const found = keyringCall(library, "keyctl", word(KEYCTL_SEARCH), word(SESSION_KEYRING), type, name, word(0));
  return found === -ERRNO.EACCES || found === -ERRNO.EKEYREVOKED ? found : undefined;
}

/** The same for who has no library in hand, such as the one who sends a key to another thread. */
export function resolveKernelKey(key: KernelKey): number {
  return key.serial ?? serialOf(load(), key);
}

/** The error of a failed call. */
export function keyError(errno: number, call: KeyCall, message: string, keySizes?: readonly number[]): KcapiError {
  const diagnosis = diagnoseKey(errorCode(errno), call, keySizes);
  return new KcapiError(errno, call, message, { hint: diagnosis && formatHint(diagnosis) });
}

/** A system call of the keyring's. @returns Its result, or the errno below zero. */
export function keyringCall(
  library: Library,
  name: "add_key" | "request_key" | "keyctl",
  ...[a, b, c, d = library.word(0), e = library.word(0)]: [Address, Address, Address, Address?, Address?]
): number {
  const { arch } = platformInfo();
  const number = NUMBERS[arch]?.[name];
  if (number === undefined) {
    throw new KcapiError("EOPNOTSUPP", name, `the number of this system call is not known for ${arch}`, {
      hint: "give the key by its serial",
    });
  }
  return resultOf(library, () => library.call.syscall(library.word(number), a, b, c, d, e));
}

/** Two C strings: their memory, which must outlive their use, and their addresses. */
export function textOf(library: Library, first: string, second: string): [memory: Uint8Array, Address, Address] {
  const text = new TextEncoder().encode(`${first}\0${second}\0`);
  const memory = new Uint8Array(new ArrayBuffer(text.length));
  memory.set(text);
  return [memory, addressOf(library, memory), addressOf(library, memory.subarray(text.indexOf(0) + 1))];
}

export function addressOf({ call, word }: Library, memory: Uint8Array): Address {
  return call.memmove(memory, word(0), word(0));
}

function setSerial(library: Library, socket: number, serial: number): number {
  const value = new Uint8Array(Int32Array.of(serial).buffer);
  return resultOf(
    library,
    () => library.call.setsockopt(socket, SOL_ALG, ALG_SET_KEY_BY_KEY_SERIAL, value, value.length),
  );
}

/** How often a call is made that fails with another errno each time. */
const MOST_TRIES = 10;

/**
 * The result of a function of libc, or below zero its errno, which libc keeps for each thread.
 *
 * In between, the runtime has its turn: a collector or a signal's handler may fail in a call of its own. So an errno is
 * believed when it comes twice in a row; these calls may be made again, for what failed has changed nothing.
 */
function resultOf({ call, word }: Library, run: () => number): number {
  const errno = new Int32Array(new ArrayBuffer(8));
  const memory = new Uint8Array(errno.buffer, 0, 4);
  const location = call.__errno_location();
  let earlier = 0;
  for (let tries = 0; tries < MOST_TRIES; tries++) {
    const result = run();
    if (result >= 0) return result;
    call.memmove(memory, location, word(memory.length));
    if (errno[0] === earlier) break;
    earlier = errno[0]!;
  }
  return -earlier;
}
