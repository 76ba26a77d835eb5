/**
 * What the vault's figures are measured against: takes the place of examples/vault/vault.ts, and stores plaintext. All else is
 * the same: a temporary file, fsync, rename, fsync of the directory; positional reads of 64 KiB.
 */
import { Buffer } from "node:buffer";
import { type FileHandle, mkdir, open, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";

type Bytes = Uint8Array<ArrayBuffer>;
type Condition = (etag: string | undefined) => void;

export const MOST_NAME = 100;

const PIECE = 65_536;

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
      const path = this.#path(name);
      const old = await stat(path).then(etagOf, () => undefined);
      condition(old);
      await rename(temporary, path);
      const directory = await open(this.#directory);
      await directory.sync().finally(() => directory.close());
      return { isNew: old === undefined, etag: etagOf(await file.stat()) };
    } catch (error) {
      await rm(temporary, { force: true });
      throw error;
    } finally {
      await file.close();
    }
  }

  async get(name: string): Promise<StoredFile | undefined> {
    const file = await open(this.#path(name)).catch(() => undefined);
    if (!file) return undefined;
    const about = await file.stat();
    return new StoredFile(file, about.size, etagOf(about));
  }

  async list(): Promise<{ files: { name: string; size: number }[]; damaged: number }> {
    const names = await readdir(this.#directory);
    const files = names.map(async (id) => ({
      name: Buffer.from(id, "hex").toString(),
      size: (await stat(join(this.#directory, id))).size,
    }));
    return { files: await Promise.all(files), damaged: 0 };
  }

  #path(name: string): string {
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
        const { bytesRead, buffer } = await this.#file.read(new Uint8Array(Math.min(PIECE, end - at)), {
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
