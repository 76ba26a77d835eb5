/**
 * The system calls that find a key in the kernel's keyring and set it as a cipher's key. The key's bytes never enter
 * this process.
 *
 * libkcapi has no call for this, so setsockopt(2) is called on the socket that holds a handle's key. libc has no
 * functions for the calls of the keyring: they go through syscall(2).
 *
 * @module
 */

import type { Address, Library } from "../../ffi/adapter.ts";
import { load } from "../../ffi/mod.ts";
import { platformInfo } from "../runtime/mod.ts";
import type { Algorithm } from "../algorithms.ts";
import { ERRNO } from "../errno.ts";
import { errorCode, KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import { formatHint } from "../system/hints.ts";
import { diagnoseKey, type KeyCall, TOO_OLD } from "./hints.ts";
import type { KernelKey } from "./kernel_key.ts";

// linux/socket.h, linux/if_alg.h
const SOL_ALG = 279;
const ALG_SET_KEY_BY_KEY_SERIAL = 7;

/** linux/keyctl.h. The keyrings are KEY_SPEC_THREAD_KEYRING, -1, and KEY_SPEC_SESSION_KEYRING, -3, as unsigned ints. */
const KEYCTL_UNLINK = 9;
const KEYCTL_SEARCH = 10;
const THREAD_KEYRING = 2 ** 32 - 1;
const SESSION_KEYRING = 2 ** 32 - 3;

const SET_KEY = "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)";

/** The numbers of system calls, by architecture as `process.arch` names it (asm/unistd.h). */
const NUMBERS: Readonly<Record<string, { add_key: number; request_key: number; keyctl: number }>> = {
  x64: { add_key: 248, request_key: 249, keyctl: 250 },
  arm64: { add_key: 217, request_key: 218, keyctl: 219 },
};

/**
 * Sets the key of a cipher.
 *
 * @param socket The socket that holds the key of a libkcapi handle; undefined if it was not found.
 * @throws {KcapiError} With a hint.
 */
export function setKernelKey(library: Library, socket: number | undefined, algorithm: Algorithm, key: KernelKey): void {
  if (socket === undefined) {
    throw new KcapiError("EOPNOTSUPP", SET_KEY, "this version of libkcapi does not show the socket of its handle", {
      hint: "use libkcapi 1.1.0 or later, or pass the key's bytes",
    });
  }
  // No key has the serial 0: a kernel that knows the option returns EINVAL.
  if (setSerial(library, socket, 0) === -ERRNO.ENOPROTOOPT) {
    throw new KcapiError("ENOPROTOOPT", SET_KEY, `${algorithm.name} failed`, { hint: formatHint(TOO_OLD) });
  }
  const result = setSerial(library, socket, serialOf(library, key));
  if (result < 0) throw createKeyError(-result, SET_KEY, `${algorithm.name} failed`, algorithm.keySizes);
}

/**
 * The serial of a key, found from this thread. Another thread of the process may use the serial if it may search the
 * key.
 *
 * @throws {KcapiError} ENOKEY or another error of request_key(2), with a hint.
 */
export function serialOf(library: Library, key: KernelKey): number {
  if (key.serial !== undefined) return key.serial;
  const [memory, type, name] = encodeStrings(library, key.type, key.description);
  const none = library.word(0);
  // Without callout information, request_key(2) only searches and starts no program that makes a key.
  let result = callKeyring(library, "request_key", type, name, none, none);
  if (result === -ERRNO.ENOKEY) result = searchSession(library, type, name) ?? result;
  memory.fill(0); // keeps it alive until here
  if (result < 0) throw createKeyError(-result, "request_key", `no ${key.type} key was found`);
  return result;
}

/**
 * The negative errno of a search in the session keyring. If the thread or the process has a keyring, too,
 * request_key(2) returns ENOKEY in place of that errno (search_process_keyrings_rcu in security/keys/process_keys.c).
 */
function searchSession(library: Library, type: Address, name: Address): number | undefined {
  const { word } = library;
  const result = callKeyring(library, "keyctl", word(KEYCTL_SEARCH), word(SESSION_KEYRING), type, name, word(0));
  return result === -ERRNO.EACCES || result === -ERRNO.EKEYREVOKED ? result : undefined;
}

/** The serial of a key, for callers that have not loaded the library, such as a pool that sends it to a Worker. */
export function resolveKernelKey(key: KernelKey): number {
  return key.serial ?? serialOf(load(), key);
}

/**
 * Calls `use` with a random key in the keyring of this thread, and removes the key again. The thread's keyring is
 * visible to no other thread.
 *
 * @throws {KcapiError} If the kernel does not take the key, or what `use` throws.
 */
export function withRandomKey(library: Library, size: number, use: (key: KernelKey) => void): void {
  const { word } = library;
  const [memory, type, description] = encodeStrings(library, "user", "kcapi-streams:probe");
  using key = Secret.random(size);
  const payload = addressOf(library, key.bytes);
  const serial = callKeyring(library, "add_key", type, description, payload, word(size), word(THREAD_KEYRING));
  memory.fill(0); // keeps it alive until here
  if (serial < 0) throw createKeyError(-serial, "add_key", "the kernel refused a random key");
  try {
    use({ serial });
  } finally {
    callKeyring(library, "keyctl", word(KEYCTL_UNLINK), word(serial), word(THREAD_KEYRING));
  }
}

function createKeyError(errno: number, call: KeyCall, message: string, keySizes?: readonly number[]): KcapiError {
  const diagnosis = diagnoseKey(errorCode(errno), call, keySizes);
  return new KcapiError(errno, call, message, { hint: diagnosis && formatHint(diagnosis) });
}

/** A system call of the keyring. @returns Its result, or the errno below zero. */
function callKeyring(
  library: Library,
  name: "add_key" | "request_key" | "keyctl",
  ...[a, b, c, d = library.word(0), e = library.word(0)]: [Address, Address, Address, Address?, Address?]
): number {
  const { arch } = platformInfo();
  const number = NUMBERS[arch]?.[name];
  if (number === undefined) {
    throw new KcapiError("EOPNOTSUPP", name, `the number of this system call is not known for ${arch}`, {
      hint: "pass the key's serial",
    });
  }
  return resultOf(library, () => library.call.syscall(library.word(number), a, b, c, d, e));
}

/** Two C strings: their memory, which must outlive their use, and their addresses. */
function encodeStrings(library: Library, first: string, second: string): [memory: Uint8Array, Address, Address] {
  const text = new TextEncoder().encode(`${first}\0${second}\0`);
  const memory = new Uint8Array(new ArrayBuffer(text.length));
  memory.set(text);
  return [memory, addressOf(library, memory), addressOf(library, memory.subarray(text.indexOf(0) + 1))];
}

function addressOf({ call, word }: Library, memory: Uint8Array): Address {
  return call.memmove(memory, word(0), word(0));
}

function setSerial(library: Library, socket: number, serial: number): number {
  const value = new Uint8Array(Int32Array.of(serial).buffer);
  return resultOf(
    library,
    () => library.call.setsockopt(socket, SOL_ALG, ALG_SET_KEY_BY_KEY_SERIAL, value, value.length),
  );
}

/** The most attempts of a call that fails with another errno each time. */
const MAX_TRIES = 10;

/**
 * The result of a libc function, or its errno below zero.
 *
 * Between the call and the read of errno, a garbage collector or a signal handler of the runtime may set errno, too. So
 * an errno is valid if it comes twice in a row. These calls can be repeated, because a failed one changes nothing.
 */
function resultOf({ call, word }: Library, run: () => number): number {
  const errno = new Int32Array(new ArrayBuffer(8));
  const memory = new Uint8Array(errno.buffer, 0, 4);
  const location = call.__errno_location();
  let earlier = 0;
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    const result = run();
    if (result >= 0) return result;
    call.memmove(memory, location, word(memory.length));
    if (errno[0] === earlier) break;
    earlier = errno[0]!;
  }
  return -earlier;
}
