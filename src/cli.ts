/**
 * The command line tool, `kcapi-streams`, which encrypts and decrypts files.
 *
 * Its parts are in `cli/` and use the public API. Secrets come from files, descriptors or the terminal, never from the
 * command line or the environment. An output file appears under its name only when it is complete.
 *
 * @module
 */

import { realpathSync } from "node:fs";
import { NAME } from "./cli/about.ts";
import { parse, unknown } from "./cli/arguments.ts";
import { commandOf } from "./cli/commands.ts";
import { print, printError } from "./cli/descriptors.ts";
import { failureOf, wrongUsage } from "./cli/failures.ts";
import { help } from "./cli/help.ts";
import { process } from "./cli/process.ts";
import { withCleanup } from "./cli/signals.ts";

/**
 * Runs the tool.
 *
 * It uses the process's standard input, output and error. While it has a temporary file or asks for a passphrase, it
 * handles the signals that end a process, such as SIGINT and SIGTERM: it cleans up, and ends the process.
 *
 * @param args The arguments, the command's name first, such as `["encrypt", "--in", "a", "--out", "b"]`.
 * @returns The exit code.
 *
 * @example Usage
 * ```ts
 * import { main } from "@kcapi/streams/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--version"]), 0);
 * ```
 */
export async function main(args: readonly string[]): Promise<number> {
  try {
    return await withCleanup(() => dispatch(args));
  } catch (error) {
    const { exitCode, message } = failureOf(error);
    if (message) printError(`${NAME}: ${message.replace(/\s*\n\s*/g, " ")}\n`);
    return exitCode;
  }
}

/** Options in the place of a command. */
const OPTIONS: Readonly<Record<string, string>> = {
  "--help": "help",
  "-h": "help",
  "--version": "version",
  "-V": "version",
};

async function dispatch([first, ...words]: readonly string[]): Promise<number> {
  const name = first !== undefined && Object.hasOwn(OPTIONS, first) ? OPTIONS[first] : first;
  if (name === undefined) throw wrongUsage(`no command (see ${NAME} --help)`);
  if (name.startsWith("-")) {
    throw wrongUsage(`${unknown("option", name, ["--help", "--version"])} (see ${NAME} --help)`);
  }
  const command = commandOf(name);
  const args = parse(command, words);
  return args.has("help") ? await print(help(command)) : await command.run(args);
}

// Node has no import.meta.main before 24.2.
if (import.meta.main ?? realpathSync(process.argv[1]!) === import.meta.filename) {
  process.exit(await main(process.argv.slice(2)));
}
