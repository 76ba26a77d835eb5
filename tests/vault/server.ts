/**
 * The vault's server on a runtime, in its own process. For tests and for the programs beside this file.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";

export type Runtime = "deno" | "bun" | "node";

export const RUNTIMES: readonly Runtime[] = ["deno", "bun", "node"];

/** Chromium or Chrome; undefined if there is none. */
export const CHROMIUM: string | undefined = ["/usr/bin/chromium", "/usr/bin/google-chrome"].find(existsSync);

const root = fileURLToPath(new URL("../..", import.meta.url));
const FLAGS = { deno: ["run", "--no-check", "-A"], bun: [], node: ["--disable-warning=ExperimentalWarning"] };

export class Server {
  /** The server's working directory. It has the key. */
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

  /** Its standard error so far. */
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

  /** Starts it where it is expected to refuse that. Resolves with its exit code, and what it wrote. */
  async startRefused(...options: string[]): Promise<{ code: number | null; stdout: string; stderr: string }> {
    this.errors = "";
    try {
      await this.start(...options);
      await this.kill();
    } catch {
      // It has ended.
    }
    return { code: await this.#ended, stdout: this.#output, stderr: this.errors };
  }

  /** @returns Its exit code. */
  stop(): Promise<number | null> {
    return this.#end("SIGTERM");
  }

  kill(): Promise<number | null> {
    return this.#end("SIGKILL");
  }

  #end(signal: "SIGTERM" | "SIGKILL"): Promise<number | null> {
    if (this.#process?.exitCode === null && this.#process.signalCode === null) process.kill(this.#process.pid!, signal);
    return this.#ended;
  }

  /** The stored files, and those of uploads under way: without the marker and the lock. */
  files(): string[] {
    return readdirSync(this.stored).filter((name) => !name.startsWith("."));
  }

  descriptors(): number {
    return readdirSync(`/proc/${this.#process!.pid}/fd`).length;
  }

  /** Bytes that it has read from files and sockets so far. */
  readBytes(): number {
    return Number(/^rchar: (\d+)$/m.exec(readFileSync(`/proc/${this.#process!.pid}/io`, "utf8"))![1]);
  }

  /** Seconds of processor time that it has used so far. */
  processorTime(): number {
    const stat = readFileSync(`/proc/${this.#process!.pid}/stat`, "utf8");
    const [user, system] = stat.slice(stat.lastIndexOf(")")).split(" ").slice(12).map(Number);
    return (user! + system!) / 100; // USER_HZ
  }

  /** Bytes of resident memory. */
  memory(): number {
    return this.#status("VmRSS");
  }

  /** The most bytes of resident memory so far. */
  mostMemory(): number {
    return this.#status("VmHWM");
  }

  #status(name: string): number {
    const status = readFileSync(`/proc/${this.#process!.pid}/status`, "utf8");
    return 1024 * Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)![1]);
  }
}

/** Waits until a condition holds. */
export async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition();) {
    if (Date.now() > end) throw new Error(`did not come true in 60 s: ${condition}`);
    await delay(10);
  }
}
