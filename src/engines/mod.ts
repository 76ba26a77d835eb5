/**
 * Chooses the engine of a cipher, once, when it is opened.
 *
 * @module
 */

import { load, loadIfGranted } from "../../ffi/mod.ts";
import type { Algorithm } from "../algorithms.ts";
import { type ErrorCode, KcapiError } from "../errors.ts";
import { disposeKey, type KernelKey, type Key } from "../keyring/kernel_key.ts";
import { requireServer } from "../runtime/mod.ts";
import { Secret } from "../secret.ts";
import { withHint } from "../system/hints.ts";
import type { CipherEngineName, Engine } from "./engine.ts";
import { openKernel } from "./kernel.ts";
import { openUserspace } from "./userspace.ts";

/**
 * Which engine to use. `"auto"` uses the kernel engine if it supports the algorithm on this system, otherwise the
 * userspace engine.
 */
export type EngineChoice = "auto" | CipherEngineName;

/** Errors that mean: the kernel engine does not support this algorithm on this system. Other errors are thrown. */
const FALL_BACK: ReadonlySet<ErrorCode> = new Set([
  "ELIBACC",
  "EACCES",
  "EPERM",
  "EAFNOSUPPORT",
  "ENOENT",
  "EPROTONOSUPPORT",
  "ELIBBAD",
]);

/**
 * Opens a keyed cipher.
 *
 * @param key Owned by this call, also if it fails. With the kernel engine, this call disposes of it. The userspace
 * engine disposes of it in `close()`. A key of the kernel's keyring needs the kernel engine, whatever the choice.
 * @throws {KcapiError} If the chosen engine does not support the algorithm, or with `"auto"` neither engine. ENOSYS if
 * this is no server runtime.
 */
export function openEngine(algorithm: Algorithm, key: Key, choice: EngineChoice): Engine {
  try {
    requireServer("open");
  } catch (error) {
    disposeKey(key);
    throw error;
  }
  if (!(key instanceof Secret)) return openWithKernelKey(algorithm, key);
  if (choice === "userspace") return openUserspace(algorithm, key);
  try {
    const library = choice === "kernel" ? load() : loadIfGranted();
    if (library instanceof KcapiError) throw library;
    const engine = openKernel(library, algorithm, key);
    key.dispose();
    return engine;
  } catch (error) {
    if (choice === "auto" && error instanceof KcapiError && FALL_BACK.has(error.code)) {
      return openUserspaceInstead(algorithm, key, error);
    }
    key.dispose();
    throw error instanceof KcapiError ? withHint(error, algorithm.name) : error;
  }
}

/** Results of {@linkcode chooseEngine}, by its arguments. */
const choices = new Map<string, CipherEngineName>();

/**
 * The engine that {@linkcode openEngine} uses for keys of `keySize` bytes. The first call opens a cipher with a key of
 * zeros. Later calls return the cached result. Errors are not cached.
 *
 * @throws {KcapiError} What `openEngine` throws.
 */
export function chooseEngine(algorithm: Algorithm, keySize: number, choice: EngineChoice): CipherEngineName {
  const id = `${choice} ${keySize} ${algorithm.name}`;
  const known = choices.get(id);
  if (known) return known;
  const engine = openEngine(algorithm, Secret.alloc(keySize), choice);
  engine.close();
  choices.set(id, engine.name);
  return engine.name;
}

function openWithKernelKey(algorithm: Algorithm, key: KernelKey): Engine {
  try {
    return openKernel(load(), algorithm, key);
  } catch (error) {
    throw error instanceof KcapiError ? withHint(error, algorithm.name) : error;
  }
}

function openUserspaceInstead(algorithm: Algorithm, key: Secret, refusal: KcapiError): Engine {
  try {
    return openUserspace(algorithm, key);
  } catch (userspace) {
    if (!(userspace instanceof KcapiError)) throw userspace;
    const kernel = withHint(refusal, algorithm.name);
    throw new KcapiError(kernel.errno, "open", `no engine supports ${algorithm.name}`, {
      cause: new AggregateError([kernel, userspace]),
      hint: `kernel: ${kernel.message}; userspace: ${userspace.message}`,
    });
  }
}
