/**
 * The vault's server of a runtime, in a process of its own; for tests and for the programs beside this file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export type Runtime = "deno" | "bun" | "node";

export const RUNTIMES: readonly Runtime[] = ["deno", "bun", "node"];

/** Debian's browser, or one that is there; undefined if there is none. */
export const CHROMIUM: string | undefined = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

const root = fileURLToPath(new URL("../..", import.meta.url));
const FLAGS = { deno: ["run", "--no-check", "-A"], bun: [], node: ["--disable-warning=ExperimentalWarning"] };

export class Server {
  /** Where its files and its key lie. */
  readonly directory: string;
  readonly stored: string;
  readonly #runtime: Runtime;
  readonly #source: string;
  #process: ChildProcess | undefined;
  #ended: Promise<number | null> = Promise.resolve(0);
  #output = "";

  /** @param source The directory with the start files. */
  constructor(runtime: Runtime, directory: string, source: string = join(root, "examples/vault")) {
    this.#runtime = runtime;
    this.#source = source;
    this.directory = directory;
    this.stored = join(directory, "vault-files");
  }

  get url(): string {
    return this.#output.split("\n")[0]!;
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  /** What it has written to its standard error. */
  errors = "";

  async start(...options: string[]): Promise<void> {
    const program = join(root, "node_modules/.bin", this.#runtime);
    const args = [...FLAGS[this.#runtime], join(this.#source, `${this.#runtime}.ts`), "--port", "0", ...options];
    const child = spawn(program, args, { cwd: this.directory, stdio: ["ignore", "pipe", "pipe"] });
    this.#process = child;
    this.#output = "";
    child.stdout.on("data", (chunk) => this.#output += chunk);
    child.stderr.on("data", (chunk) => this.errors += chunk);
    let hasEnded = false;
    this.#ended = new Promise((resolve) => child.on("close", resolve)).then((code) => {
      hasEnded = true;
      return code as number | null;
    });
    await until(() => hasEnded || this.#output.includes("\n"));
    if (hasEnded) throw new Error(`The server ended: ${this.errors}`);
  }

  /** @returns Its exit code. */
  stop(): Promise<number | null> {
    return this.#end("SIGTERM");
  }

  kill(): Promise<number | null> {
    return this.#end("SIGKILL");
  }

  #end(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    if (this.#process?.exitCode === null) process.kill(this.#process.pid!, signal);
    return this.#ended;
  }

  files(): string[] {
    return readdirSync(this.stored);
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.#process!.pid}/fd`).length;
  }

  /** Bytes that it has read so far, from files and sockets. */
  readBytes(): number {
    return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${this.#process!.pid}/io`, "utf8"))![1]);
  }

  /** Seconds of processor time that it has taken so far. */
  processorTime(): number {
    const stat = readFileSync(`/proc/${this.#process!.pid}/stat`, "utf8");
    const [user, system] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12).map(Number);
    return (user! + system!) / 100; // USER_HZ
  }

  /** Bytes of memory that it has in RAM. */
  memory(): number {
    return this.#status("VmRSS");
  }

  /** The most that it has had so far. */
  mostMemory(): number {
    return this.#status("VmHWM");
  }

  #status(name: string): number {
    const status = readFileSync(`/proc/${this.#process!.pid}/status`, "utf8");
    return 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)![1]);
  }
}

/** Waits for something to be so. */
export async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition();) {
    if (Date.now() > end) throw new Error(`waited in vain for ${condition}`);
    await delay(10);
  }
}
