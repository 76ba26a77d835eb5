/**
 * Reading and writing descriptors, which may be pipes, devices or non-blocking.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import { promisify } from "node:util";
import type { Bytes } from "../bytes.ts";
import { marksInheritedDescriptors } from "../runtime/mod.ts";
import { codeOf, fileFailure } from "./failures.ts";
import { atEnd, procFile } from "./signals.ts";

const readFrom = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: null,
) => Promise<{ bytesRead: number }>;
const writeTo = promisify(fs.write) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: null,
) => Promise<{ bytesWritten: number }>;

/** Repeats an action on a non-blocking descriptor until it has data or room. */
async function retryOnEagain<T>(action: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (codeOf(error) !== "EAGAIN") throw error;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

/** A non-blocking pipe takes this many bytes whole or not at all (PIPE_BUF of limits.h). */
const ATOMIC = 4096;

/** The flags of open(2). */
function flagsOf(fd: number | string): number {
  return parseInt(/^flags:\s*([0-7]+)/m.exec(procFile(`fdinfo/${fd}`))?.[1] ?? "0", 8);
}

export function isNonblocking(fd: number): boolean {
  return (flagsOf(fd) & fs.constants.O_NONBLOCK) !== 0;
}

/**
 * The readable descriptors that this process was started with, while the tool has not opened any itself. Undefined if
 * /proc cannot be read.
 *
 * Some descriptors belong to the runtime: sockets, epoll and the like, and pipes with both ends in this process. Deno
 * has files, too, with FD_CLOEXEC set.
 */
export function inheritedDescriptors(): ReadonlySet<number> | undefined {
  let descriptors;
  try {
    descriptors = fs.readdirSync("/proc/self/fd").map(Number).flatMap(describeDescriptor);
  } catch {
    return undefined;
  }
  const written = new Set(descriptors.filter(({ flags }) => flags & WRITABLE).map(({ inode }) => inode));
  const inherited = descriptors.filter(({ flags, isPipe, inode }) =>
    flags & fs.constants.O_WRONLY
      ? false
      : isPipe
      ? !written.has(inode)
      : marksInheritedDescriptors() || !(flags & O_CLOEXEC)
  );
  return new Set(inherited.map(({ fd }) => fd));
}

const WRITABLE = fs.constants.O_WRONLY | fs.constants.O_RDWR;
const O_CLOEXEC = 0o2000000; // asm-generic/fcntl.h

function describeDescriptor(fd: number) {
  try {
    const stats = fs.statSync(`/proc/self/fd/${fd}`); // in Deno, fstat() does not know them
    const isReadable = stats.isFile() || stats.isFIFO() || stats.isCharacterDevice();
    return isReadable ? [{ fd, flags: flagsOf(fd), isPipe: stats.isFIFO(), inode: stats.ino }] : [];
  } catch {
    return []; // the descriptor of the directory itself
  }
}

/** Reads into `buffer` until it is full or the input ends, with `atOnce` once. Returns the bytes read. */
export async function fill(fd: number, buffer: Bytes, atOnce = false): Promise<Bytes> {
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await retryOnEagain(() => readFrom(fd, buffer, length, buffer.length - length, null));
    length += bytesRead;
    if (bytesRead === 0 || atOnce) break;
  }
  return buffer.subarray(0, length);
}

/**
 * Writes all bytes. On a non-blocking descriptor it writes pieces that are never split: Deno does not tell how much of
 * a piece was written before it would block.
 */
export async function writeAll(fd: number, bytes: Uint8Array, nonblocking = isNonblocking(fd)): Promise<void> {
  for (let offset = 0; offset < bytes.length;) {
    const length = Math.min(bytes.length - offset, nonblocking ? ATOMIC : Infinity);
    const write = () => writeTo(fd, bytes, offset, length, null);
    const { bytesWritten } = await (nonblocking ? retryOnEagain(write) : write());
    offset += bytesWritten;
  }
}

/** Writes text to standard output. */
export async function print(text: string): Promise<number> {
  try {
    await writeAll(1, Buffer.from(text));
  } catch (error) {
    throw fileFailure("cannot write standard output", error);
  }
  return 0;
}

/** Writes text to standard error. Its failure must not hide the error that it prints. */
export function printError(text: string): void {
  try {
    fs.writeSync(2, text);
  } catch {
    // Standard error is closed.
  }
}

/** What takes back that the end of the tool closes a descriptor. */
const leftOpen = new Map<number, () => void>();

/** Opens a file. Asynchronous, because opening a named pipe waits for its other end. */
export async function openFile(path: string, flags: "r" | "w"): Promise<number> {
  try {
    const fd = await promisify(fs.open)(path, flags);
    leftOpen.set(fd, atEnd(() => fs.closeSync(fd)));
    return fd;
  } catch (error) {
    throw fileFailure(`cannot open ${path}`, error);
  }
}

/** Closes what {@linkcode openFile} opened. */
export function closeFile(fd: number): void {
  leftOpen.get(fd)?.();
  fs.closeSync(fd);
}

/** Whether two descriptors are of the same file, pipe or block device. */
export function isSameFile(a: fs.BigIntStats, b: fs.BigIntStats): boolean {
  if (a.isBlockDevice() && b.isBlockDevice()) return a.rdev === b.rdev;
  return (a.isFile() || a.isFIFO()) && a.dev === b.dev && a.ino === b.ino;
}
