/**
 * The input.
 *
 * @module
 */

import * as fs from "node:fs";
import type { Bytes } from "../bytes.ts";
import { fill, isSameFile, openFile } from "./descriptors.ts";
import { Failure, fileFailure } from "./failures.ts";
import type { SecretInput } from "./secrets.ts";

export interface Input {
  readonly fd: number;
  readonly name: string;
  readonly stats: fs.BigIntStats;
  /** Its length in bytes; undefined for what is no file. */
  readonly size: number | undefined;
  /** The first byte, once it has been read. */
  firstByte?: number | undefined;
}

/** Opens the input, which must not be the file or pipe of the secret. */
export async function openInput(path: string | undefined, secret?: SecretInput): Promise<Input> {
  const name = path ?? "standard input";
  const fd = path === undefined ? 0 : await openFile(path, "r");
  let stats;
  try {
    stats = fs.fstatSync(fd, { bigint: true });
  } catch (error) {
    throw fileFailure(`cannot read ${name}`, error);
  }
  if (stats.isDirectory()) throw new Failure(1, `cannot read ${name}: it is a directory`);
  if (secret?.stats && isSameFile(secret.stats, stats)) {
    throw new Failure(1, `cannot read ${name}: it is the ${secret.kind}`);
  }
  return { fd, name, stats, size: stats.isFile() ? Number(stats.size) : undefined };
}

/** Bytes of a buffer, into which input is read and in which it becomes output. */
const CHUNK = 1 << 20;

/**
 * The input in chunks, with one read ahead. Three buffers take turns: one is written, one is encrypted or decrypted,
 * and one is read. `free` resolves when the output in a buffer has been written.
 */
export async function* chunksOf(input: Input, free: (memory: ArrayBuffer) => Promise<void>): AsyncGenerator<Bytes> {
  const buffers = [0, 1, 2].map(() => new Uint8Array(CHUNK));
  const read = (buffer: Bytes) => {
    const reading = fill(input.fd, buffer, true);
    reading.catch(() => {}); // awaited below, unless the tool fails first
    return reading;
  };
  let next = read(buffers[0]!);
  for (let turn = 1;; turn = (turn + 1) % buffers.length) {
    let chunk;
    try {
      chunk = await next;
    } catch (error) {
      throw fileFailure(`cannot read ${input.name}`, error);
    }
    if (chunk.length === 0) return;
    input.firstByte ??= chunk[0]!;
    await free(buffers[turn]!.buffer);
    next = read(buffers[turn]!);
    yield chunk;
  }
}
