/**
 * Where the data goes to: a file appears under its name only when it is complete.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import { isatty } from "node:tty";
import { promisify } from "node:util";
import type { Bytes } from "../bytes.ts";
import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { isNonblocking, isSameFile, openFile, writeAll } from "./descriptors.ts";
import { Failure, fileFailure, wrongUsage } from "./failures.ts";
import { atEnd, atEndOrSignal } from "./signals.ts";

/** Where output goes; one write is under way while the next piece is made. */
export interface Output {
  write(bytes: Bytes): Promise<void>;
  /** Resolves when nothing is being written from `memory`. */
  free(memory: ArrayBuffer): Promise<void>;
  /** Waits for the last write; a file gets its name. */
  finish(): Promise<void>;
}

function outputTo(fd: number, name: string, publish: () => Promise<void> | void = () => {}): Output {
  let writing: Promise<void> = Promise.resolve();
  let memory: ArrayBuffer | undefined;
  const nonblocking = isNonblocking(fd);
  const settle = async () => {
    try {
      await writing;
    } catch (error) {
      throw fileFailure(`cannot write ${name}`, error);
    }
  };
  return {
    async write(bytes) {
      await settle();
      memory = bytes.buffer;
      writing = writeAll(fd, bytes, nonblocking);
      writing.catch(() => {}); // it is awaited by the next call, unless the tool fails first
    },
    async free(asked) {
      if (asked === memory) await settle();
    },
    async finish() {
      await settle();
      try {
        await publish();
      } catch (error) {
        throw fileFailure(`cannot write ${name}`, error);
      }
    },
  };
}

/**
 * Opens the output. A file is written under a temporary name beside its own and gets that at the end; what is no file
 * (a device, a pipe) is written as it is.
 *
 * @param precious What must not be overwritten: the input, and where the secret came from.
 * @param mode Permissions of a new file, less the umask. A file that is replaced hands its own down.
 */
export async function openOutput(
  path: string | undefined,
  precious: Readonly<Record<string, fs.BigIntStats>>,
  mode: number,
): Promise<Output> {
  const name = path ?? "standard output";
  try {
    const stats = path === undefined
      ? fs.fstatSync(1, { bigint: true })
      : fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    for (const [what, other] of Object.entries(precious)) {
      if (stats && isSameFile(other, stats)) throw new Failure(1, `cannot write ${name}: it is the ${what}`);
    }
    if (path === undefined) return outputTo(1, name);
    if (stats?.isDirectory()) throw new Failure(1, `cannot write ${name}: it is a directory`);
    if (stats && !stats.isFile()) return outputTo(await openFile(path, "w"), name);
    if (stats) fs.accessSync(path, fs.constants.W_OK); // or a rename would replace what may not be written
    return openTemporary(path, mode, stats && Number(stats.mode & 0o777n));
  } catch (error) {
    throw error instanceof Failure ? error : fileFailure(`cannot write ${name}`, error);
  }
}

function openTemporary(path: string, mode: number, finalMode: number | undefined): Output {
  // Of a symbolic link, the file it leads to is replaced.
  const target = finalMode === undefined ? path : fs.realpathSync(path);
  const directory = dirname(target);
  const suffix = Buffer.from(crypto.getRandomValues(new Uint8Array(6))).toString("hex");
  const temporary = join(directory, `.${NAME}-${suffix}`);
  const keep = atEndOrSignal(() => fs.unlinkSync(temporary));
  const fd = fs.openSync(temporary, "wx", finalMode === undefined ? mode : 0o600);
  const leaveOpen = atEnd(() => fs.closeSync(fd));
  return outputTo(fd, path, async () => {
    if (finalMode !== undefined) fs.fchmodSync(fd, finalMode);
    // Or a crash of the system soon after could leave the name with nothing behind it.
    await promisify(fs.fsync)(fd);
    leaveOpen();
    fs.closeSync(fd);
    fs.renameSync(temporary, target);
    keep();
    syncDirectory(directory);
  });
}

/** Makes a rename last; not every file system can, and the file is complete without. */
export function syncDirectory(directory: string): void {
  try {
    const fd = fs.openSync(directory, "r");
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // As it was before.
  }
}

/** What is no text is not for the terminal. */
export function refuseTerminal(given: Arguments): void {
  if (!given.file("out") && isatty(1)) {
    throw wrongUsage("standard output is a terminal, which it would garble: use --out FILE or a pipe");
  }
}
