/** How the scripts run programs. */
import { spawnSync } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The checkout. */
export const ROOT: string = dirname(dirname(fileURLToPath(import.meta.url)));

/** A program that did not end with 0. */
export class CommandError extends Error {
  /** What it wrote, standard output first. */
  readonly output: string;

  constructor(command: readonly string[], code: number | null, output: string) {
    super(`${command.join(" ")} ended with ${code}`);
    this.output = output;
  }
}

/**
 * Runs a program to its end, in the checkout; those of node_modules are found first.
 *
 * @returns Its standard output.
 * @throws {CommandError} If it does not end with 0.
 */
export function run(command: readonly string[], env: Record<string, string> = {}): string {
  const PATH = `${join(ROOT, "node_modules/.bin")}:${process.env.PATH}`;
  const [program, ...args] = command;
  const { status, stdout, stderr, error } = spawnSync(program!, args, {
    cwd: ROOT,
    env: { ...process.env, PATH, ...env },
    encoding: "utf8",
    maxBuffer: 2 ** 28,
  });
  if (error) throw error;
  if (status !== 0) throw new CommandError(command, status, stdout + stderr);
  return stdout;
}
