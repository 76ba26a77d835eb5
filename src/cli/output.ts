/**
 * The output. A file appears under its name only when it is complete.
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
import { codeOf, Failure, fileFailure, wrongUsage } from "./failures.ts";
import { atEnd, atEndOrSignal, procFile } from "./signals.ts";

/** The output. The next piece is processed during a write. */
export interface Output {
  /** The file gets its name only when it is complete. */
  readonly appearsAtEnd: boolean;
  write(bytes: Bytes): Promise<void>;
  /** Resolves when no write from `memory` is pending. */
  free(memory: ArrayBuffer): Promise<void>;
  /** Waits for the last write, and renames a file to its name. */
  finish(): Promise<void>;
}

function outputTo(fd: number, name: string, publish?: () => Promise<void>): Output {
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
    appearsAtEnd: publish !== undefined,
    async write(bytes) {
      await settle();
      memory = bytes.buffer;
      writing = writeAll(fd, bytes, nonblocking);
      writing.catch(() => {}); // awaited by the next call, unless the tool fails first
    },
    async free(asked) {
      if (asked === memory) await settle();
    },
    async finish() {
      await settle();
      try {
        await publish?.();
      } catch (error) {
        throw error instanceof Failure ? error : fileFailure(`cannot write ${name}`, error);
      }
    },
  };
}

/** A file that must not be overwritten: the input, or a file with a secret. */
export interface ProtectedFile {
  readonly kind: string;
  /** Absent for the terminal. */
  readonly stats?: fs.BigIntStats;
}

/**
 * Opens the output. A file is written under a temporary name in the same directory, and renamed at the end. Anything
 * else, such as a device or a pipe, is written directly.
 *
 * @param mode Permissions of a new file, less the umask. A file keeps its own when it is replaced.
 */
export function openOutput(args: Arguments, protectedFiles: readonly ProtectedFile[], mode: number): Promise<Output> {
  return openOutputFile(args.file("out"), args.has("no-clobber"), protectedFiles, mode);
}

/** Replaces a file as a whole. */
export async function replaceFile(path: string, bytes: Bytes): Promise<void> {
  const output = await openOutputFile(path, false, [], 0o600);
  await output.write(bytes);
  await output.finish();
}

async function openOutputFile(
  path: string | undefined,
  mustBeNew: boolean,
  protectedFiles: readonly ProtectedFile[],
  mode: number,
): Promise<Output> {
  const name = path ?? "standard output";
  try {
    const stats = path === undefined
      ? fs.fstatSync(1, { bigint: true })
      : fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    for (const { kind, stats: other } of protectedFiles) {
      if (stats && other && isSameFile(other, stats)) throw new Failure(1, `cannot write ${name}: it is the ${kind}`);
    }
    if (path === undefined) return outputTo(1, name);
    if (stats?.isDirectory()) throw new Failure(1, `cannot write ${name}: it is a directory`);
    if (stats && !stats.isFile()) return outputTo(await openFile(path, "w"), name);
    if (mustBeNew) {
      if (fs.lstatSync(path, { throwIfNoEntry: false })) throw existsFailure(path);
      return openTemporary(path, path, mode, undefined, true);
    }
    if (!stats) return openTemporary(path, path, mode, undefined, false);
    // A rename would replace a file that the user may not write. In Deno, access() checks only the mode, also for root.
    fs.closeSync(fs.openSync(path, fs.constants.O_WRONLY));
    const target = fs.realpathSync(path); // replaces the target of a symbolic link
    if (isMountPoint(target)) {
      throw new Failure(1, `cannot write ${name}: it is a mount point, which cannot be replaced (use > ${name})`);
    }
    return openTemporary(path, target, 0o600, stats, false);
  } catch (error) {
    throw error instanceof Failure ? error : fileFailure(`cannot write ${name}`, error);
  }
}

function existsFailure(path: string): Failure {
  return new Failure(1, `cannot write ${path}: it exists (--no-clobber)`);
}

/** Whether a path is a mount point. Containers mount single files. */
function isMountPoint(path: string): boolean {
  return procFile("mountinfo").split("\n").some((line) =>
    line.split(" ")[4]?.replace(/\\(\d{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8))) === path
  );
}

function openTemporary(
  path: string,
  target: string,
  mode: number,
  replaced: fs.BigIntStats | undefined,
  mustBeNew: boolean,
): Output {
  const directory = dirname(target);
  const suffix = Buffer.from(crypto.getRandomValues(new Uint8Array(6))).toString("hex");
  const temporary = join(directory, `.${NAME}-${suffix}`);
  const keep = atEndOrSignal(() => fs.unlinkSync(temporary));
  const fd = createFile(path, temporary, mode);
  const leaveOpen = atEnd(() => fs.closeSync(fd));
  return outputTo(fd, path, async () => {
    if (replaced) handDown(fd, replaced);
    // Otherwise, after a crash of the system, the file may have its name but not its data.
    await promisify(fs.fsync)(fd);
    leaveOpen();
    fs.closeSync(fd);
    if (mustBeNew) renameToNew(temporary, target);
    else fs.renameSync(temporary, target);
    keep();
    syncDirectory(directory);
  });
}

function createFile(path: string, temporary: string, mode: number): number {
  try {
    return fs.openSync(temporary, "wx", mode);
  } catch (error) {
    const isDirectory = ["EACCES", "EPERM", "EROFS"].includes(codeOf(error) ?? "");
    throw isDirectory
      ? fileFailure(`cannot write ${path}: no file can be created in ${dirname(temporary)}`, error)
      : error;
  }
}

/** Gives a file the owner, group and permissions of the file that it replaces, if the system permits it. */
function handDown(fd: number, { uid, gid, mode }: fs.BigIntStats): void {
  const permissions = Number(mode & 0o777n);
  const { uid: ownUid, gid: ownGid } = fs.fstatSync(fd, { bigint: true });
  const hasOwner = uid === ownUid || succeeds(() => fs.fchownSync(fd, Number(uid), Number(ownGid)));
  const owner = Number(hasOwner ? uid : ownUid);
  const hasGroup = gid === ownGid || succeeds(() => fs.fchownSync(fd, owner, Number(gid)));
  // If the group differs, it gets only the permissions of everybody.
  fs.fchmodSync(fd, hasGroup ? permissions : permissions & (~0o070 | (permissions & 0o007) << 3));
}

function succeeds(action: () => void): boolean {
  try {
    action();
    return true;
  } catch {
    return false;
  }
}

/** A rename that replaces no file. On file systems without hard links, it is a plain rename. */
function renameToNew(from: string, to: string): void {
  try {
    fs.linkSync(from, to);
  } catch (error) {
    if (codeOf(error) === "EEXIST" || fs.lstatSync(to, { throwIfNoEntry: false })) throw existsFailure(to);
    return fs.renameSync(from, to);
  }
  fs.unlinkSync(from);
}

/** Makes a rename durable, if the file system supports that. The file is complete in any case. */
export function syncDirectory(directory: string): void {
  try {
    const fd = fs.openSync(directory, "r");
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // The rename is not durable yet.
  }
}

/** Refuses to write bytes to a terminal. */
export function refuseTerminal(args: Arguments): void {
  if (!args.file("out") && isatty(1)) {
    throw wrongUsage("standard output is a terminal: use --out FILE or a pipe");
  }
}
