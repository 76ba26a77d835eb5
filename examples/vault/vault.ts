/**
 * Files kept sealed in a directory.
 *
 * Each is stored in one file, whose name on the disk is an HMAC of the name that it was given: a name is data, never a
 * path. The plaintext is the name's length (2 bytes), the name, and the content. The name on the disk is its associated
 * data, so that a file that was renamed, or put in another's place, does not open.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHmac, hkdfSync, randomUUID } from "node:crypto";
import { readSync, statSync } from "node:fs";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { openSealed, type SealedReader, type SealOptions, SealStream, type WorkerPool } from "../../mod.ts";
import { type FileInfo, Index, type Listing } from "./index.ts";
import { type FileVersion, type Lease, OpenFiles } from "./open_files.ts";

/** The most bytes that a name may have, as UTF-8. */
export const MAX_NAME = 1024;

/** A sealed file without content. It opens only with the key that the directory was first used with. */
const MARKER = ".vault";

/** The file that a running server locks, and what the names of all files begin with that belong to the lock. */
export const LOCK = ".lock";

/** Half the processor time of the default format in Bun and Node, and the same in Deno. The kernel does not run it. */
const FORMAT = "AES256_GCM_HKDF_64KB";

/** How many files stay open between requests. */
const MOST_OPEN = 64;

/** The most bytes of a range that is read at once, and not as a stream. It has parts of at most three segments. */
const SMALL_RANGE = 128 * 1024;
const SMALL_READ = 3 * 64 * 1024;

/** A disk needs no reads ahead, which would be memory of each response that a slow client reads. */
const READS = { readSize: 256 * 1024, readAhead: 0 };

type Bytes = Uint8Array<ArrayBuffer>;

/** Throws unless the entity tag of what is stored is as required; it is undefined if nothing is stored. */
export type Condition = (etag: string | undefined) => void;

/** A sealed file that is open. */
class OpenFile {
  readonly file: FileHandle;
  readonly sealed: SealedReader;
  readonly etag: string;

  constructor(file: FileHandle, sealed: SealedReader, etag: string) {
    this.file = file;
    this.sealed = sealed;
    this.etag = etag;
  }

  async close(): Promise<void> {
    this.sealed.close();
    await this.file.close();
  }
}

/** A directory of sealed files. */
export class Vault {
  readonly #directory: string;
  readonly #key: Bytes;
  readonly #nameKey: Uint8Array;
  readonly #pool: WorkerPool | undefined;
  readonly #index: Index;
  readonly #openFiles: OpenFiles<OpenFile>;
  /** The last change of each name that is being changed. */
  readonly #commits = new Map<string, Promise<unknown>>();

  private constructor(directory: string, key: Bytes, pool: WorkerPool | undefined) {
    this.#directory = directory;
    this.#key = key;
    this.#pool = pool;
    this.#nameKey = new Uint8Array(hkdfSync("sha256", key, "", "names", 32));
    this.#index = new Index({
      ids: async () => (await readdir(directory)).filter(isId),
      idsVersion: async () => {
        const { mtimeMs } = await stat(directory);
        // Changes within some milliseconds have the same time: Linux before 6.13 takes it from the timer interrupt.
        return Date.now() - mtimeMs > 1000 ? String(mtimeMs) : undefined;
      },
      version: (id) => versionOf(stat(this.#path(id), { bigint: true })),
      open: (id) => this.#examine(id),
    });
    this.#openFiles = new OpenFiles({
      version: (id) => fileVersion(this.#path(id)),
      open: (id) => this.#open(id),
    }, MOST_OPEN);
  }

  /**
   * Opens a directory, which no other process may have open.
   *
   * @param pool It seals the uploads; without one, this thread does.
   * @throws {Error} If the directory was used with another key, or has other things in it.
   */
  static async open(directory: string, key: Bytes, pool?: WorkerPool): Promise<Vault> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const vault = new Vault(directory, key, pool);
    await vault.#checkKey();
    return vault;
  }

  /** Removes what uploads left behind when an earlier process ended in their middle. */
  async clean(): Promise<void> {
    const names = await readdir(this.#directory);
    await Promise.all(names.filter(isPartial).map((name) => rm(join(this.#directory, name))));
  }

  /** Stores a file, or the next version of it. If anything fails, what was there before stays. */
  async put(
    name: string,
    content: ReadableStream<Bytes>,
    condition: Condition,
  ): Promise<{ isNew: boolean; etag: string }> {
    const id = this.#idOf(name);
    condition(await this.#etag(id));
    let size = 0;
    const framed = new TransformStream<Bytes, Bytes>({
      start: (controller) => controller.enqueue(frame(name)),
      transform(chunk, controller) {
        size += chunk.length;
        controller.enqueue(chunk);
      },
    });
    return await this.#store(id, content.pipeThrough(framed), condition, async (file, etag) => {
      this.#index.set(id, (await versionOf(file.stat({ bigint: true })))!, { name, size, etag });
    });
  }

  /** Opens a file; undefined if there is none. Its size is verified, and that nothing was cut off. */
  async get(name: string): Promise<StoredFile | undefined> {
    const lease = await this.#openFiles.use(this.#idOf(name));
    return lease && new StoredFile(lease, frame(name).length);
  }

  /** Closes the files that stay open between requests. */
  async close(): Promise<void> {
    await this.#openFiles.close();
  }

  /** @returns Whether there was one. */
  async delete(name: string, condition: Condition): Promise<boolean> {
    const id = this.#idOf(name);
    return await this.#commit(id, async (path, etag) => {
      condition(etag);
      await rm(path, { force: true });
      await this.#openFiles.drop(id);
      this.#index.delete(id);
      return etag !== undefined;
    });
  }

  /** Deletes a file that does not open, by its name on the disk. */
  async deleteDamaged(id: string): Promise<"deleted" | "missing" | "intact"> {
    return await this.#commit(id, async (path, etag) => {
      if (etag === undefined) return "missing";
      if (await this.#opens(id)) return "intact";
      await rm(path, { force: true });
      await this.#openFiles.drop(id);
      this.#index.delete(id);
      return "deleted";
    });
  }

  /**
   * A page of names and sizes, as they were sealed, and the files that do not open.
   *
   * @param after The name that the page before ended with.
   * @param report Called with the path of each file that is found not to open, and why.
   */
  async list(after: string | undefined, report: (path: string, error: unknown) => void): Promise<Listing> {
    return await this.#index.page(after, (id, error) => report(this.#path(id), error));
  }

  /** The path on the disk of what is stored under a name. */
  pathOf(name: string): string {
    return this.#path(this.#idOf(name));
  }

  #idOf(name: string): string {
    return createHmac("sha256", this.#nameKey).update(name).digest("hex");
  }

  #path(id: string): string {
    return join(this.#directory, id);
  }

  async #checkKey(): Promise<void> {
    if (await this.#etag(MARKER) !== undefined) {
      if (await this.#opens(MARKER)) return;
      throw new Error(`${this.#path(MARKER)} does not open: this is not the key of these files, or it is damaged`);
    }
    const names = (await readdir(this.#directory)).filter((name) => !name.startsWith(LOCK) && !isPartial(name));
    // Files without a marker: a backup that was restored without it. One that opens shows that the key is theirs.
    let isTheirs = names.length === 0;
    for (const id of names.filter(isId)) isTheirs ||= await this.#opens(id);
    if (!isTheirs) throw new Error(`${this.#directory}: has files in it, and none opens with this key`);
    await this.#store(MARKER, new Blob().stream(), () => {});
  }

  async #opens(id: string): Promise<boolean> {
    try {
      const opened = await this.#open(id);
      await opened?.close();
      return opened !== undefined;
    } catch (error) {
      if ((error as { code?: string }).code === "EBADMSG") return false;
      throw error;
    }
  }

  /** Seals into a temporary file, which takes the place of the one before when it is complete and on the disk. */
  async #store(
    id: string,
    plaintext: ReadableStream<Bytes>,
    condition: Condition,
    stored?: (file: FileHandle, etag: string) => Promise<void>,
  ): Promise<{ isNew: boolean; etag: string }> {
    const temporary = join(this.#directory, `${randomUUID()}.part`);
    const file = await open(temporary, "wx+", 0o600);
    try {
      await plaintext
        .pipeThrough(new SealStream(this.#options(id)))
        .pipeTo(new WritableStream({ write: (chunk) => file.appendFile(chunk) }));
      await file.sync();
      const etag = await etagOf(file);
      const isNew = await this.#commit(id, async (path, before) => {
        condition(before);
        await rename(temporary, path);
        await this.#openFiles.drop(id);
        await stored?.(file, etag);
        return before === undefined;
      });
      return { isNew, etag };
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  /** The options that everything is sealed and opened with. */
  #options(id: string): SealOptions {
    return { key: this.#key, format: FORMAT, associatedData: new TextEncoder().encode(id), pool: this.#pool };
  }

  async #open(id: string): Promise<OpenFile | undefined> {
    const file = await openIfThere(this.#path(id));
    if (!file) return undefined;
    try {
      const { size } = await file.stat();
      const read = async (start: number, end: number) =>
        end - start <= SMALL_READ ? readRangeSync(file, start, end) : await readRange(file, start, end);
      const etag = await etagOf(file);
      const options = { ...this.#options(id), ...READS };
      return new OpenFile(file, await openSealed({ size, read }, options), etag);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** What is sealed in a file. */
  async #examine(id: string): Promise<FileInfo> {
    const opened = await this.#open(id);
    if (!opened) throw Object.assign(new Error("the file is gone"), { code: "ENOENT" });
    const { sealed, etag } = opened;
    try {
      const start = await sealed.bytes(0, 2 + MAX_NAME);
      const length = new DataView(start.buffer).getUint16(0);
      return { name: Buffer.from(start.buffer, 2, length).toString(), size: sealed.size - 2 - length, etag };
    } finally {
      await opened.close();
    }
  }

  async #etag(id: string): Promise<string | undefined> {
    const file = await openIfThere(this.#path(id));
    try {
      return file && await etagOf(file);
    } finally {
      await file?.close();
    }
  }

  /** Changes what is stored under a name, one change after the other, so that a condition still holds. */
  async #commit<T>(id: string, change: (path: string, etag: string | undefined) => Promise<T>): Promise<T> {
    const before = this.#commits.get(id)?.catch(() => {});
    const commit = Promise.resolve(before).then(async () => await change(this.#path(id), await this.#etag(id)));
    this.#commits.set(id, commit);
    try {
      const result = await commit;
      await syncDirectory(this.#directory);
      return result;
    } finally {
      if (this.#commits.get(id) === commit) this.#commits.delete(id);
    }
  }
}

/** A file in use, until its stream ends, fails or is canceled, or until `close()`. */
export class StoredFile {
  /** Bytes of content. */
  readonly size: number;
  readonly etag: string;
  readonly #lease: Lease<OpenFile>;
  readonly #offset: number;

  constructor(lease: Lease<OpenFile>, offset: number) {
    this.#lease = lease;
    this.#offset = offset;
    this.size = lease.file.sealed.size - offset;
    this.etag = lease.file.etag;
  }

  /**
   * The content from `start` to before `end`.
   *
   * @param onError Called with what errors the stream.
   * @throws {KcapiError} EBADMSG if the first segment is damaged. Damage to later ones errors the stream.
   */
  async stream(start: number, end: number, onError: (error: unknown) => void): Promise<ReadableStream<Bytes>> {
    const { sealed } = this.#lease.file;
    const [from, to] = [this.#offset + start, this.#offset + end];
    if (to - from <= SMALL_RANGE) {
      return streamOf(await this.#readAll(sealed, from, to));
    }
    const reader = sealed.stream({ start: from, end: to }).getReader();
    const read = async () => {
      try {
        const result = await reader.read();
        if (result.done) await this.close();
        return result;
      } catch (error) {
        await this.#lease.release(true);
        throw error;
      }
    };
    let next: Awaited<ReturnType<typeof read>> | undefined = await read();
    return new ReadableStream({
      async pull(controller) {
        try {
          const { done, value } = next ?? await read();
          next = undefined;
          if (done) controller.close();
          else controller.enqueue(value);
        } catch (error) {
          onError(error);
          throw error;
        }
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  async #readAll(sealed: SealedReader, from: number, to: number): Promise<Bytes> {
    let isRead = false;
    try {
      const bytes = await sealed.bytes(from, to);
      isRead = true;
      return bytes;
    } finally {
      await this.#lease.release(!isRead);
    }
  }

  async close(): Promise<void> {
    await this.#lease.release();
  }
}

function streamOf(bytes: Bytes): ReadableStream<Bytes> {
  return new ReadableStream({
    start(controller) {
      if (bytes.length > 0) controller.enqueue(bytes);
      controller.close();
    },
  });
}

/** What is sealed in front of the content. */
function frame(name: string): Bytes {
  const bytes = new TextEncoder().encode(name);
  const framed = new Uint8Array(2 + bytes.length);
  new DataView(framed.buffer).setUint16(0, bytes.length);
  framed.set(bytes, 2);
  return framed;
}

/** Whether a name on the disk is that of a stored file. */
function isId(name: string): boolean {
  return /^[0-9a-f]{64}$/.test(name);
}

function isPartial(name: string): boolean {
  return name.endsWith(".part");
}

/**
 * A strong entity tag: 16 bytes of the file's salt, which is random, new for each upload, and public. A file with a
 * changed salt does not open.
 */
async function etagOf(file: FileHandle): Promise<string> {
  return `"${Buffer.from(await readRange(file, 1, 17)).toString("hex")}"`;
}

/**
 * The version of a file on the disk. Changes within some milliseconds may have the same time: Linux before 6.13 takes
 * it from the timer interrupt.
 *
 * This is synchronous: what Linux knows about an open file is in memory, and another thread would cost more.
 */
function fileVersion(path: string): FileVersion | undefined {
  const about = statSync(path, { throwIfNoEntry: false });
  if (!about) return undefined;
  const { ino, size, ctimeMs } = about;
  return { value: `${ino}-${size}-${ctimeMs}`, isSettled: Date.now() - ctimeMs > 1000 };
}

/** A value that changes whenever a file on the disk does; undefined if there is none. */
async function versionOf(stats: Promise<Record<"ino" | "size" | "mtimeNs" | "ctimeNs", bigint>>) {
  const about = await unlessMissing(stats);
  return about && [about.ino, about.size, about.mtimeNs, about.ctimeNs].join("-");
}

/** The bytes of a range, fewer if the file ends before it. */
async function readRange(file: FileHandle, start: number, end: number): Promise<Bytes> {
  const bytes = new Uint8Array(end - start);
  let length = 0;
  while (length < bytes.length) {
    const { bytesRead } = await file.read(bytes, length, bytes.length - length, start + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return bytes.subarray(0, length);
}

/**
 * The same for a few segments, in this thread: to have another one read them from the cache of the disk costs more than
 * the read. nginx reads files in this way, too.
 */
function readRangeSync(file: FileHandle, start: number, end: number): Bytes {
  const bytes = new Uint8Array(end - start);
  let length = 0;
  while (length < bytes.length) {
    const bytesRead = readSync(file.fd, bytes, length, bytes.length - length, start + length);
    if (bytesRead === 0) break;
    length += bytesRead;
  }
  return bytes.subarray(0, length);
}

function openIfThere(path: string): Promise<FileHandle | undefined> {
  return unlessMissing(open(path));
}

async function unlessMissing<T>(promise: Promise<T>): Promise<T | undefined> {
  try {
    return await promise;
  } catch (error) {
    if ((error as { code?: string }).code === "ENOENT") return undefined;
    throw error;
  }
}

/** A rename is on the disk once the directory is. */
async function syncDirectory(path: string): Promise<void> {
  const directory = await open(path);
  try {
    await directory.sync();
  } finally {
    await directory.close();
  }
}
