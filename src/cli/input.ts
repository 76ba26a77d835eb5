/**
 * The input.
 *
 * @module
 */

import * as fs from "node:fs";
import { promisify } from "node:util";
import type { Bytes } from "../bytes.ts";
import { fill, isSameFile, openFile } from "./descriptors.ts";
import { Failure, fileFailure } from "./failures.ts";
import type { SecretInput } from "./secrets.ts";

export interface Input {
  readonly kind: "input";
  readonly fd: number;
  readonly name: string;
  readonly stats: fs.BigIntStats;
  /** Its length in bytes. Undefined if it is not a file. */
  readonly size: number | undefined;
  /** Bytes that were read from its start, and are still to be processed. */
  ahead: Bytes;
}

/** Opens the input, which must not be the file or pipe of a secret. */
export async function openInput(path: string | undefined, secrets: readonly SecretInput[]): Promise<Input> {
  const name = path ?? "standard input";
  const fd = path === undefined ? 0 : await openFile(path, "r");
  let stats;
  try {
    stats = fs.fstatSync(fd, { bigint: true });
  } catch (error) {
    throw fileFailure(`cannot read ${name}`, error);
  }
  if (stats.isDirectory()) throw new Failure(1, `cannot read ${name}: it is a directory`);
  for (const { kind, stats: other } of secrets) {
    if (other && isSameFile(other, stats)) throw new Failure(1, `cannot read ${name}: it is the ${kind}`);
  }
  const size = stats.isFile() ? Number(stats.size) : undefined;
  return { kind: "input", fd, name, stats, size, ahead: new Uint8Array(0) };
}

/** Reads the input: until the buffer is full or the input ends, with `atOnce` once. */
export async function readInput({ fd, name }: Input, buffer: Bytes, atOnce = false): Promise<Bytes> {
  try {
    return await fill(fd, buffer, atOnce);
  } catch (error) {
    throw fileFailure(`cannot read ${name}`, error);
  }
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
    const reading = readInput(input, buffer, true);
    reading.catch(() => {}); // awaited below, unless the tool fails first
    return reading;
  };
  const { ahead } = input;
  const [first] = buffers as [Bytes];
  first.set(ahead);
  let next = read(first.subarray(ahead.length)).then(({ length }) => first.subarray(0, ahead.length + length));
  next.catch(() => {});
  for (let turn = 1;; turn = (turn + 1) % buffers.length) {
    const chunk = await next;
    if (chunk.length === 0) return;
    await free(buffers[turn]!.buffer);
    next = read(buffers[turn]!);
    yield chunk;
  }
}

/** A file as a source of ranges. */
export function rangesOf(input: Input) {
  return { size: input.size!, read: (start: number, end: number) => readRange(input, start, end) };
}

const readAt = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: number,
) => Promise<{ bytesRead: number }>;

async function readRange({ fd, name }: Input, start: number, end: number): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(end - start);
  let length = 0;
  try {
    while (length < bytes.length) {
      const { bytesRead } = await readAt(fd, bytes, length, bytes.length - length, start + length);
      if (bytesRead === 0) throw new Failure(3, `${name} became shorter while it was read`);
      length += bytesRead;
    }
  } catch (error) {
    throw error instanceof Failure ? error : fileFailure(`cannot read ${name}`, error);
  }
  return bytes;
}
