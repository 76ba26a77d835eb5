/**
 * Files kept sealed in a directory.
 *
 * Each lies in one file of its own, whose name is an HMAC of the name it was given: a name is data, never a path. What is
 * sealed is the name's length (2 bytes), the name, and the content; it is bound to the file's name on the disk, so that one
 * that was renamed, or put in another's place, does not open.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { createHmac, hkdfSync, randomUUID } from "node:crypto";
import { type FileHandle, mkdir, open, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { openSealed, type SealedReader, type SealOptions, SealStream, type WorkerPool } from "../../mod.ts";

/** The most bytes that a name may have, as UTF-8. */
export const MOST_NAME = 1024;

type Bytes = Uint8Array<ArrayBuffer>;

/** Throws unless what is stored under a name has the entity tag it should have; undefined where nothing is. */
export type Condition = (etag: string | undefined) => void;

interface OpenFile {
  readonly file: FileHandle;
  readonly sealed: SealedReader;
  readonly etag: string;
}

/** A directory of sealed files. */
export class Vault {
  readonly #directory: string;
  readonly #key: Bytes;
  readonly #nameKey: Uint8Array;
  readonly #pool: WorkerPool | undefined;
  /** The last change of each name that is being changed. */
  readonly #commits = new Map<string, Promise<boolean>>();

  private constructor(directory: string, key: Bytes, pool: WorkerPool | undefined) {
    this.#directory = directory;
    this.#key = key;
    this.#pool = pool;
    this.#nameKey = new Uint8Array(hkdfSync("sha256", key, "", "names", 32));
  }

  /**
   * Opens a directory, which no other process may have open: uploads that were broken off by a crash are removed.
   *
   * @param pool Its Workers seal the uploads; by default that is done by this thread.
   */
  static async open(directory: string, key: Bytes, pool?: WorkerPool): Promise<Vault> {
    await mkdir(directory, { recursive: true, mode: 0o700 });
    const names = await readdir(directory);
    await Promise.all(names.filter((name) => name.endsWith(".part")).map((name) => rm(join(directory, name))));
    return new Vault(directory, key, pool);
  }

  /** Stores a file, or the next version of it; where anything fails, what was there before stays. */
  async put(
    name: string,
    content: ReadableStream<Bytes>,
    condition: Condition,
  ): Promise<{ isNew: boolean; etag: string }> {
    const id = this.#idOf(name);
    condition(await this.#etag(id));
    const temporary = join(this.#directory, `${randomUUID()}.part`);
    const file = await open(temporary, "wx+", 0o600);
    try {
      await content
        .pipeThrough(new TransformStream({ start: (controller) => controller.enqueue(frame(name)) }))
        .pipeThrough(new SealStream(this.#options(id)))
        .pipeTo(new WritableStream({ write: (chunk) => file.appendFile(chunk) }));
      await file.sync();
      const etag = await etagOf(file);
      const isNew = await this.#commit(id, condition, (path) => rename(temporary, path));
      return { isNew, etag };
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  /** Opens a file; undefined if there is none. Its size is verified, and that nothing was cut off. */
  async get(name: string): Promise<StoredFile | undefined> {
    const opened = await this.#open(this.#idOf(name));
    return opened && new StoredFile(opened, frame(name).length);
  }

  /** @returns Whether there was one. */
  async delete(name: string, condition: Condition): Promise<boolean> {
    return !await this.#commit(this.#idOf(name), condition, (path) => rm(path, { force: true }));
  }

  /** Names and sizes, as they were sealed; and how many files do not open. */
  async list(): Promise<{ files: { name: string; size: number }[]; damaged: number }> {
    const files = [];
    let damaged = 0;
    for (const id of await readdir(this.#directory)) {
      if (id.endsWith(".part")) continue;
      try {
        const file = await this.#entry(id);
        if (file) files.push(file);
      } catch {
        damaged++;
      }
    }
    return { files: files.sort((a, b) => a.name < b.name ? -1 : 1), damaged };
  }

  #idOf(name: string): string {
    return createHmac("sha256", this.#nameKey).update(name).digest("hex");
  }

  /** What everything is sealed and opened with. */
  #options(id: string): SealOptions {
    return { key: this.#key, associatedData: new TextEncoder().encode(id), pool: this.#pool };
  }

  async #open(id: string): Promise<OpenFile | undefined> {
    const file = await openIfThere(join(this.#directory, id));
    if (!file) return undefined;
    try {
      const { size } = await file.stat();
      const read = (start: number, end: number) => readRange(file, start, end);
      return { file, etag: await etagOf(file), sealed: await openSealed({ size, read }, this.#options(id)) };
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async #entry(id: string): Promise<{ name: string; size: number } | undefined> {
    const opened = await this.#open(id);
    if (!opened) return undefined;
    const { file, sealed } = opened;
    try {
      const start = await sealed.bytes(0, 2 + MOST_NAME);
      const length = new DataView(start.buffer).getUint16(0);
      return { name: Buffer.from(start.buffer, 2, length).toString(), size: sealed.size - 2 - length };
    } finally {
      sealed.close();
      await file.close();
    }
  }

  async #etag(id: string): Promise<string | undefined> {
    const file = await openIfThere(join(this.#directory, id));
    try {
      return file && await etagOf(file);
    } finally {
      await file?.close();
    }
  }

  /**
   * Changes what is stored under a name, one change after the other, so that a condition still holds.
   *
   * @returns Whether nothing was there.
   */
  async #commit(id: string, condition: Condition, change: (path: string) => Promise<void>): Promise<boolean> {
    const before = this.#commits.get(id)?.catch(() => {});
    const commit = Promise.resolve(before).then(async () => {
      const etag = await this.#etag(id);
      condition(etag);
      await change(join(this.#directory, id));
      return etag === undefined;
    });
    this.#commits.set(id, commit);
    try {
      const isNew = await commit;
      await syncDirectory(this.#directory);
      return isNew;
    } finally {
      if (this.#commits.get(id) === commit) this.#commits.delete(id);
    }
  }
}

/** A file that is open until its stream ends, however that is, or `close()` is called. */
export class StoredFile {
  /** Bytes of content. */
  readonly size: number;
  readonly etag: string;
  readonly #file: FileHandle;
  readonly #sealed: SealedReader;
  readonly #offset: number;

  constructor({ file, sealed, etag }: OpenFile, offset: number) {
    this.#file = file;
    this.#sealed = sealed;
    this.#offset = offset;
    this.size = sealed.size - offset;
    this.etag = etag;
  }

  /** The content from `start` to before `end`. Damage to its first segment rejects here, later damage errors the stream. */
  async stream(start: number, end: number): Promise<ReadableStream<Bytes>> {
    const reader = this.#sealed.stream({ start: this.#offset + start, end: this.#offset + end }).getReader();
    const read = async () => {
      try {
        const result = await reader.read();
        if (result.done) await this.close();
        return result;
      } catch (error) {
        await this.close();
        throw error;
      }
    };
    let next: Awaited<ReturnType<typeof read>> | undefined = await read();
    return new ReadableStream({
      async pull(controller) {
        const { done, value } = next ?? await read();
        next = undefined;
        if (done) controller.close();
        else controller.enqueue(value);
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  async close(): Promise<void> {
    this.#sealed.close();
    await this.#file.close();
  }
}

/** What is sealed in front of the content. */
function frame(name: string): Bytes {
  const bytes = new TextEncoder().encode(name);
  const framed = new Uint8Array(2 + bytes.length);
  new DataView(framed.buffer).setUint16(0, bytes.length);
  framed.set(bytes, 2);
  return framed;
}

/**
 * A strong entity tag: 16 bytes of the salt, which is random, another one for each upload, and no secret. A file that has
 * another one's salt does not open.
 */
async function etagOf(file: FileHandle): Promise<string> {
  return `"${Buffer.from(await readRange(file, 1, 17)).toString("hex")}"`;
}

/** The bytes of a range, fewer where the file ends before; whatever the position is. */
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

async function openIfThere(path: string): Promise<FileHandle | undefined> {
  try {
    return await open(path);
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
