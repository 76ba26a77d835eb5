/**
 * Whether this kernel takes keys out of its keyring: tried with one that is thrown away.
 *
 * @module
 */

import type { Library } from "../../ffi/adapter.ts";
import { parseAlgorithm } from "../algorithms.ts";
import { openKernel } from "../engines/kernel.ts";
import { addressOf, keyError, keyringCall, textOf } from "../engines/keyring.ts";
import { KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";

/** KEY_SPEC_THREAD_KEYRING, -1, as the int that it is: nobody else sees it, and it goes with the thread. */
const THREAD_KEYRING = 2 ** 32 - 1;
/** linux/keyctl.h */
const KEYCTL_UNLINK = 9;

/**
 * Opens a cipher with a random key of the kernel's, which is removed again.
 *
 * @param name A cipher that opens with a key in bytes.
 * @returns What keeps it from that, or undefined.
 */
export function tryKeyring(library: Library, name: string): KcapiError | undefined {
  const algorithm = parseAlgorithm(name);
  try {
    const serial = addRandomKey(library, algorithm.keySizes!.at(-1)!);
    try {
      openKernel(library, algorithm, { serial }).close();
    } finally {
      unlink(library, serial);
    }
    return undefined;
  } catch (error) {
    if (error instanceof KcapiError) return error;
    throw error;
  }
}

function addRandomKey(library: Library, size: number): number {
  const { word } = library;
  const [memory, type, description] = textOf(library, "user", "kcapi-streams:probe");
  using key = Secret.random(size);
  const payload = addressOf(library, key.bytes);
  const serial = keyringCall(library, "add_key", type, description, payload, word(size), word(THREAD_KEYRING));
  memory.fill(0); // which keeps it in memory up to here
  if (serial < 0) throw keyError(-serial, "add_key", "a random key was not taken");
  return serial;
}

function unlink(library: Library, serial: number): void {
  const { word } = library;
  keyringCall(library, "keyctl", word(KEYCTL_UNLINK), word(serial), word(THREAD_KEYRING));
}
