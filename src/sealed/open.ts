/**
 * {@linkcode openSealed}: random access to a sealed file.
 *
 * @module
 */

import { KcapiError } from "../errors.ts";
import { platformInfo } from "../runtime/mod.ts";
import { ENGINES } from "./engines.ts";
import { checkUnsealOptions, type KeysetSealOptions, type SealOptions } from "./options.ts";
import { checkReadOptions, READ_NAMES, type SealedReadOptions } from "./read_options.ts";
import { openReader, type SealedReader } from "./reader.ts";
import type { SealedSource } from "./source.ts";

/**
 * Opens a sealed file for random access.
 *
 * The promise resolves when the last segment is verified. So the size is authentic: a file that was truncated or
 * extended does not open, unless `allowDamage` is true. Other segments are verified when they are read.
 *
 * Opening takes one round trip to the source. Neighboring segments are read at once, and a large range uses several
 * reads at once. Small reads in sequence read each segment once.
 *
 * @param source A Blob (`Bun.file()`, `openAsBlob()` of Node), or an object with `size` and `read(start, end)`, as in
 * the second example. The second example works for files of any size.
 * @param options The key, the associated data and the format that the file was sealed with. How to read
 * the source. The signal closes the file.
 * @returns The open file.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If the key or a parameter of the format is of a wrong size.
 * @throws {KcapiError} EBADMSG if the data cannot be verified. EIO if the source returns another number of bytes than
 * requested, or changes its size.
 *
 * @example Usage
 * ```ts
 * import { openSealed, seal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = new Blob(await Array.fromAsync(seal({ key }, new TextEncoder().encode("attack at dawn"))));
 * using file = await openSealed(sealed, { key });
 * assertEquals(file.size, 14);
 * assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * ```
 *
 * @example A file, in Deno, Bun and Node
 * ```ts
 * import { openSealed, seal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 * import { mkdtemp, open, writeFile } from "node:fs/promises";
 * import { tmpdir } from "node:os";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const path = `${await mkdtemp(`${tmpdir()}/`)}/data.sealed`;
 * await writeFile(path, seal({ key }, new TextEncoder().encode("attack at dawn")));
 *
 * const handle = await open(path);
 * const source = {
 *   size: (await handle.stat()).size,
 *   async read(start: number, end: number) {
 *     const bytes = new Uint8Array(end - start);
 *     for (let at = 0; at < bytes.length;) {
 *       const { bytesRead } = await handle.read(bytes, at, bytes.length - at, start + at);
 *       if (bytesRead === 0) throw new Error("the file has become shorter");
 *       at += bytesRead;
 *     }
 *     return bytes;
 *   },
 * };
 * const file = await openSealed(source, { key });
 * assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * file.close();
 * await handle.close();
 * ```
 */
export async function openSealed(
  source: SealedSource,
  options: (SealOptions | KeysetSealOptions) & SealedReadOptions,
): Promise<SealedReader> {
  try {
    const readOptions = checkReadOptions(options);
    return await openReader(source, checkUnsealOptions(options, ENGINES, READ_NAMES), readOptions);
  } catch (error) {
    throw withSizeHint(source, error);
  }
}

/** Adds a hint where a Blob may have a wrong size. */
export function withSizeHint(source: SealedSource, error: unknown): unknown {
  const isUnsure = error instanceof KcapiError && (error.code === "EBADMSG" || error.code === "EIO") &&
    source instanceof Blob && platformInfo().runtime.name === "node";
  if (!isUnsure) return error;
  const hint = "for a file of 4 GiB or more, whose size Node's openAsBlob() gets wrong (nodejs/node#52585), " +
    "give an object with size and read(start, end)";
  return new KcapiError(error.code, error.operation, error.detail, { hint, cause: error.cause });
}
