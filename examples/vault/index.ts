/**
 * The names and sizes of the stored files, kept in memory: a list opens only files that are new or have changed.
 *
 * @module
 */

/** A stored file. */
export interface FileInfo {
  readonly name: string;
  /** Bytes of content. */
  readonly size: number;
  readonly etag: string;
}

/** A stored file that does not open. */
export interface DamagedFile {
  /** Its name on the disk: the name that it was stored under is sealed in it. */
  readonly id: string;
  /** EBADMSG if its contents are damaged; else why it cannot be read. */
  readonly code: string;
}

/** One page of the list. */
export interface Listing {
  /** Sorted by name. */
  readonly files: readonly FileInfo[];
  /** The name after which the next page begins. */
  readonly next?: string;
  /** The number of files, and their bytes, on all pages. */
  readonly count: number;
  readonly size: number;
  /** On the first page only, and at most a page of them. */
  readonly damaged: readonly DamagedFile[];
}

/** What a stored file turned out to be, and the version of the file on the disk that it was read from. */
interface Entry {
  readonly id: string;
  readonly version: string;
  readonly found: FileInfo | DamagedFile;
}

/** Where an index learns about files. */
export interface IndexSource {
  /** The names on the disk. */
  ids(): Promise<string[]>;
  /** Changes whenever a name is added or removed; undefined if that cannot be told. */
  idsVersion(): Promise<string | undefined>;
  /** Changes whenever the file does; undefined if there is none. */
  version(id: string): Promise<string | undefined>;
  /** Opens the file. Rejects if it does not open. */
  open(id: string): Promise<FileInfo>;
}

/** Called with each file that is found not to open, and why. */
type Report = (id: string, error: unknown) => void;

const PAGE_SIZE = 100;

/** Files that are opened at the same time. */
const MAX_OPENING = 8;

export class Index {
  readonly #source: IndexSource;
  readonly #entries = new Map<string, Entry>();
  /** What follows from the entries; undefined after a change. */
  #sorted: { files: Entry[]; damaged: Entry[]; size: number } | undefined;
  /** The version of the names that were read last. */
  #idsVersion: string | undefined;
  /** The last update: one at a time, so that no file is opened twice. */
  #update: Promise<void> = Promise.resolve();

  constructor(source: IndexSource) {
    this.#source = source;
  }

  /** Records what was just stored. */
  set(id: string, version: string, found: FileInfo | DamagedFile): void {
    this.#entries.set(id, { id, version, found });
    this.#sorted = undefined;
  }

  delete(id: string): void {
    this.#entries.delete(id);
    this.#sorted = undefined;
  }

  /** The page that begins after a name. Files that changed on the disk are opened again if they are on this page. */
  async page(after: string | undefined, report: Report): Promise<Listing> {
    await (this.#update = this.#update.catch(() => {}).then(() => this.#refresh(report)));
    const { files, damaged } = this.#sort();
    const start = after === undefined ? 0 : positionAfter(files, after);
    const shown = files.slice(start, start + PAGE_SIZE);
    const shownDamaged = after === undefined ? damaged.slice(0, PAGE_SIZE) : [];
    const next = start + shown.length < files.length ? nameOf(shown.at(-1)!) : undefined;
    await this.#verify([...shown, ...shownDamaged].map(({ id }) => id), report);
    const current = [...shown, ...shownDamaged].flatMap(({ id }) => this.#entries.get(id)?.found ?? []);
    return {
      files: current.filter((found) => "name" in found),
      ...next !== undefined && { next },
      count: this.#sort().files.length,
      size: this.#sort().size,
      damaged: current.filter((found) => "code" in found).sort((a, b) => a.id < b.id ? -1 : 1),
    };
  }

  /** Adds the files that are new on the disk, and removes those that are gone. */
  async #refresh(report: Report): Promise<void> {
    const version = await this.#source.idsVersion();
    if (version !== undefined && version === this.#idsVersion) return;
    const ids = await this.#source.ids();
    const present = new Set(ids);
    for (const id of this.#entries.keys()) if (!present.has(id)) this.delete(id);
    await this.#verify(ids.filter((id) => !this.#entries.has(id)), report);
    this.#idsVersion = version;
  }

  async #verify(ids: readonly string[], report: Report): Promise<void> {
    const rest = ids.values();
    const worker = async () => {
      for (const id of rest) await this.#verifyOne(id, report);
    };
    await Promise.all(Array.from({ length: MAX_OPENING }, worker));
  }

  async #verifyOne(id: string, report: Report): Promise<void> {
    const version = await this.#source.version(id);
    if (version === undefined) return this.delete(id);
    const known = this.#entries.get(id);
    if (known?.version === version) return;
    try {
      this.set(id, version, await this.#source.open(id));
    } catch (error) {
      report(id, error);
      const code = (error as { code?: string }).code ?? "error";
      // Only damage stays until the file changes. Others, EMFILE for one, may be over at the next list.
      this.set(id, code === "EBADMSG" ? version : "", { id, code });
    }
  }

  #sort(): { files: Entry[]; damaged: Entry[]; size: number } {
    if (this.#sorted) return this.#sorted;
    const files = [], damaged = [];
    let size = 0;
    for (const entry of this.#entries.values()) {
      if ("name" in entry.found) {
        files.push(entry);
        size += entry.found.size;
      } else damaged.push(entry);
    }
    files.sort((a, b) => nameOf(a) < nameOf(b) ? -1 : 1);
    damaged.sort((a, b) => a.id < b.id ? -1 : 1);
    return this.#sorted = { files, damaged, size };
  }
}

function nameOf({ found }: Entry): string {
  return (found as FileInfo).name;
}

/** The first position whose name is greater, by binary search. */
function positionAfter(files: readonly Entry[], name: string): number {
  let low = 0, high = files.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (nameOf(files[middle]!) <= name) low = middle + 1;
    else high = middle;
  }
  return low;
}
