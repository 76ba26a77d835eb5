/**
 * Files that stay open for the next request: opening one costs more than reading a range of it.
 *
 * @module
 */

/** What is opened. */
interface Closable {
  close(): Promise<void>;
}

/** How files are opened. */
export interface FileSource<T> {
  /** Undefined if there is none. */
  open(id: string): Promise<T | undefined>;
  /** Undefined if there is none. */
  version(id: string): FileVersion | undefined;
}

/** What tells a file from its earlier contents. */
export interface FileVersion {
  /** Changes whenever the file does. */
  readonly value: string;
  /** False if the file has just changed: another change could leave the value as it is. */
  readonly isSettled: boolean;
}

/** An open file. */
interface Entry<T> {
  readonly id: string;
  readonly version: string;
  readonly opening: Promise<T | undefined>;
  /** Requests that have not released it. */
  uses: number;
  /** Whether it stays open when no request uses it. */
  isKept: boolean;
}

/** An open file in use. */
export interface Lease<T> {
  readonly file: T;
  /**
   * Ends the use. It may be called again.
   *
   * @param hasFailed Whether a read failed: the next request opens the file again.
   */
  release(hasFailed?: boolean): Promise<void>;
}

/** Keeps the files open that were used last. */
export class OpenFiles<T extends Closable> {
  readonly #source: FileSource<T>;
  readonly #most: number;
  /** In the order of their last use. */
  readonly #entries = new Map<string, Entry<T>>();

  /** @param most How many stay open, besides those in use. */
  constructor(source: FileSource<T>, most: number) {
    this.#source = source;
    this.#most = most;
  }

  /** Opens a file, unless it is open; undefined if there is none. */
  async use(id: string): Promise<Lease<T> | undefined> {
    const version = this.#source.version(id);
    let entry = this.#entries.get(id);
    let dropped: Promise<void> | undefined;
    if (entry?.version !== version?.value) {
      dropped = this.drop(id);
      entry = undefined;
    }
    entry ??= version && this.#open(id, version.value, version.isSettled);
    if (entry) entry.uses++;
    await Promise.all([dropped, entry && this.#keep(entry)]);
    return entry && await this.#lease(entry);
  }

  #open(id: string, version: string, isKept: boolean): Entry<T> {
    return { id, version, opening: this.#source.open(id), uses: 0, isKept };
  }

  /** Makes an entry the last one, and drops the first one if there are too many. */
  async #keep(entry: Entry<T>): Promise<void> {
    if (!entry.isKept) return;
    this.#entries.delete(entry.id);
    this.#entries.set(entry.id, entry);
    const [first] = this.#entries.keys();
    if (this.#entries.size > this.#most) await this.drop(first!);
  }

  async #lease(entry: Entry<T>): Promise<Lease<T> | undefined> {
    let isReleased = false;
    const release = async (hasFailed = false) => {
      if (isReleased) return;
      isReleased = true;
      entry.uses--;
      if (hasFailed) this.#forget(entry);
      await closeUnused(entry);
    };
    let file: T | undefined;
    try {
      file = await entry.opening;
      return file && { file, release };
    } finally {
      if (!file) this.#forget(entry);
    }
  }

  /** The file has changed or is gone. Requests that use it go on with what they have opened. */
  async drop(id: string): Promise<void> {
    const entry = this.#entries.get(id);
    if (!entry) return;
    this.#forget(entry);
    await closeUnused(entry);
  }

  /** Closes the files; those in use when they are released. */
  async close(): Promise<void> {
    await Promise.all([...this.#entries.keys()].map((id) => this.drop(id)));
  }

  #forget(entry: Entry<T>): void {
    entry.isKept = false;
    if (this.#entries.get(entry.id) === entry) this.#entries.delete(entry.id);
  }
}

async function closeUnused<T extends Closable>({ opening, uses, isKept }: Entry<T>): Promise<void> {
  if (uses > 0 || isKept) return;
  const file = await opening.catch(() => undefined); // the error is that of the requests
  await file?.close();
}
