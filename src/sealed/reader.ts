/**
 * {@linkcode openSealed}: random access to a sealed file.
 *
 * @module
 */

import { openSession } from "./batches.ts";
import { parseHeader, SegmentLayout } from "./format.ts";
import { checkUnsealOptions, type KeysetSealOptions, type SealOptions, type SealPlan } from "./options.ts";
import { CONSTRUCT, RangeReader, SegmentReader } from "./range_reader.ts";
import { choosePlan, trialSize } from "./rotation.ts";
import { anySource, rejectSize, type SealedSource, withSizeHint } from "./source.ts";

/** A sealed file that {@linkcode openSealed} opened for random access. Any number of reads may run at once. */
export class SealedReader extends RangeReader {
  /** The key that opened the file: its position in the list of the option `key`, or in the keyset. */
  readonly keyIndex: number;

  /**
   * Use {@linkcode openSealed}.
   *
   * @ignore
   */
  constructor(token: symbol, reader: SegmentReader, keyIndex: number) {
    super(token, reader);
    this.keyIndex = keyIndex;
  }
}

/**
 * Opens a sealed file for random access.
 *
 * The promise resolves when the last segment is verified. So the size is authentic: a file that was truncated or
 * extended does not open. Other segments are verified when they are read.
 *
 * @param source A Blob (`Bun.file()`, `openAsBlob()` of Node), or an object with `size` and `read(start, end)`, as in
 * the second example. The second example works for files of any size.
 * @param options The key, the associated data and the format that the file was sealed with. The signal closes the file.
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
  options: SealOptions | KeysetSealOptions,
): Promise<SealedReader> {
  const range = anySource(source);
  const plans = checkUnsealOptions(options);
  try {
    await range.learnSize(1, { signal: new AbortController().signal });
    const reader = new SegmentReader(range, plans[0].signals);
    try {
      return new SealedReader(CONSTRUCT, reader, await open(reader, plans, source));
    } catch (error) {
      reader.close(error);
      throw error;
    }
  } catch (error) {
    throw withSizeHint(source, error);
  } finally {
    for (const { key } of plans) key.dispose();
  }
}

/**
 * Chooses the key, reads the header, and verifies the end.
 *
 * @returns The position of the key.
 */
async function open(reader: SegmentReader, plans: readonly SealPlan[], source: SealedSource): Promise<number> {
  const { size } = reader;
  const possible = plans.filter(({ format }) => new SegmentLayout(format).measure(size));
  if (possible.length === 0) await reader.wait(rejectSize(source, size));
  const plan = possible.length === 1 ? possible[0]! : await choose(reader, possible);
  const { format, index } = plan;
  const layout = new SegmentLayout(format);
  const { segments, plaintextSize } = layout.measure(size)!;
  const header = parseHeader(format, await reader.read(0, format.headerSize));
  const session = openSession("unseal", plan, header);
  const { sealed: stored, plaintext } = layout;
  reader.open({ session, stored, plaintext, segments, end: size, plaintextSize });
  const { error } = await reader.decrypt(segments - 1, 1);
  if (error !== undefined) throw error;
  return index;
}

async function choose(reader: SegmentReader, plans: readonly SealPlan[]): Promise<SealPlan> {
  const start = await reader.read(0, Math.min(trialSize(plans), reader.size));
  return await reader.wait(choosePlan(plans, start));
}
