/**
 * A vault that stores plaintext, which the figures of the sealed one are compared with. It replaces
 * examples/vault/vault.ts. The rest is the same: a temporary file, fsync, rename, fsync of the directory, and
 * positional reads of 64 KiB.
 */
import { Buffer } from "node:buffer";
import { type FileHandle, mkdir, open, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

type Bytes = Uint8Array<ArrayBuffer>;
type Condition = (etag: string | undefined) => void;

export const MAX_NAME = 100;

export const LOCK = ".lock";

const READ_SIZE = 65_536;

export class Vault {
  readonly #directory: string;

  private constructor(directory: string) {
    this.#directory = directory;
  }

  static async open(directory: string): Promise<Vault> {
    await mkdir(directory, { recursive: true });
    return new Vault(directory);
  }

  async put(
    name: string,
    content: ReadableStream<Bytes>,
    condition: Condition,
  ): Promise<{ isNew: boolean; etag: string }> {
    const temporary = join(this.#directory, `${crypto.randomUUID()}.part`);
    const file = await open(temporary, "wx");
    try {
      await content.pipeTo(new WritableStream({ write: (chunk) => file.appendFile(chunk) }));
      await file.sync();
      const path = this.pathOf(name);
      const before = await stat(path).then(etagOf, () => undefined);
      condition(before);
      await rename(temporary, path);
      const directory = await open(this.#directory);
      await directory.sync().finally(() => directory.close());
      return { isNew: before === undefined, etag: etagOf(await file.stat()) };
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  async get(name: string): Promise<StoredFile | undefined> {
    const file = await open(this.pathOf(name)).catch(() => undefined);
    if (!file) return undefined;
    const about = await file.stat();
    return new StoredFile(file, about.size, etagOf(about));
  }

  clean(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  pathOf(name: string): string {
    return join(this.#directory, Buffer.from(name).toString("hex"));
  }
}

class StoredFile {
  readonly size: number;
  readonly etag: string;
  readonly #file: FileHandle;

  constructor(file: FileHandle, size: number, etag: string) {
    this.#file = file;
    this.size = size;
    this.etag = etag;
  }

  stream(start: number, end: number): ReadableStream<Bytes> {
    let at = start;
    return new ReadableStream({
      pull: async (controller) => {
        if (at === end) {
          await this.close();
          return controller.close();
        }
        const { bytesRead, buffer } = await this.#file.read(new Uint8Array(Math.min(READ_SIZE, end - at)), {
          position: at,
        });
        at += bytesRead;
        controller.enqueue(buffer.subarray(0, bytesRead));
      },
      cancel: () => this.close(),
    }, { highWaterMark: 0 });
  }

  async close(): Promise<void> {
    await this.#file.close();
  }
}

function etagOf({ ino, mtimeMs }: { ino: number; mtimeMs: number }): string {
  return `"${ino}-${mtimeMs}"`;
}
