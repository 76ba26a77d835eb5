/**
 * The progress line on standard error.
 *
 * @module
 */

import { isatty } from "node:tty";
import type { EngineName } from "../../mod.ts";
import type { Bytes } from "../bytes.ts";
import type { Arguments } from "./arguments.ts";
import { printError } from "./descriptors.ts";
import { Failure } from "./failures.ts";
import type { Output } from "./output.ts";

/** The engine that runs. */
interface WithEngine {
  readonly engine: EngineName;
}

/** Writes the pieces, and then renames the output. */
export async function pump(pieces: AsyncIterable<Bytes>, output: Output, progress: Progress, header?: Bytes) {
  try {
    if (header) await output.write(header);
    for await (const piece of pieces) {
      await output.write(piece);
      progress.add(piece.length);
    }
    await output.finish();
  } catch (error) {
    progress.clear();
    // The options were checked before, so a RangeError here is about the data.
    throw error instanceof RangeError ? new Failure(3, error.message) : error;
  }
  progress.finish();
}

/** On a narrow terminal, the line is cut off instead of wrapped, so that each update overwrites it (DECAWM). */
const CUT_LINES = "\x1b[?7l";
const WRAP_LINES = "\x1b[?7h";

/** Shows the progress in one line on standard error, if that is a terminal. */
export class Progress {
  readonly #what: string;
  readonly #pieces: WithEngine | undefined;
  readonly #size: number | undefined;
  readonly #isShown: boolean;
  readonly #start = performance.now();
  #shown = -Infinity;
  #bytes = 0;

  constructor(what: string, pieces: WithEngine | undefined, size: number | undefined, args: Arguments) {
    // The line would garble plaintext on the same terminal. `verify` writes none.
    const isClean = args.file("out") !== undefined || !isatty(1) || what === "verify";
    this.#isShown = !args.has("quiet") && isatty(2) && isClean;
    this.#what = what;
    this.#pieces = pieces;
    this.#size = size;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    const now = performance.now();
    if (!this.#isShown || now - this.#shown < 200) return;
    this.#shown = now;
    this.#show(`${CUT_LINES}${this.#line(now)}${WRAP_LINES}`);
  }

  clear(): void {
    if (this.#shown > 0) this.#show("");
  }

  finish(): void {
    if (!this.#isShown) return;
    const seconds = (performance.now() - this.#start) / 1000;
    this.#show(`${this.#what}: ${sizeText(this.#bytes)} in ${seconds.toFixed(1)} s, ${this.#rate(seconds)}\n`);
  }

  #line(now: number): string {
    const seconds = (now - this.#start) / 1000;
    const parts = [`${this.#what}: ${sizeText(this.#bytes)}`];
    if (this.#size) {
      const done = Math.min(1, this.#bytes / this.#size);
      parts.push(`${Math.floor(100 * done)} %`, `${timeText(seconds / done - seconds)} left`);
    }
    return [...parts, this.#rate(seconds)].join(", ");
  }

  #rate(seconds: number): string {
    const rate = `${(this.#bytes / 1e6 / Math.max(seconds, 0.001)).toFixed(0)} MB/s`;
    return this.#pieces ? `${rate}, ${this.#pieces.engine} engine` : rate;
  }

  #show(line: string): void {
    printError(`\r\x1b[K${line}`);
  }
}

function sizeText(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toPrecision(3)} ${units[unit]}`;
}

function timeText(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const digits = (n: number) => String(n).padStart(2, "0");
  return `${hours > 0 ? `${hours}:${digits(minutes)}` : minutes}:${digits(whole % 60)}`;
}
