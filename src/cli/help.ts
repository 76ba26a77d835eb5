/**
 * The help of the tool and of each command.
 *
 * @module
 */

import { NAME } from "./about.ts";
import type { Command, Operand, Option } from "./arguments.ts";
import { EXIT_CODES } from "./failures.ts";
import { list, wrap } from "./text.ts";

function termOf({ name, short, value }: Option): string {
  return `${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""}`;
}

/** The operands as a synopsis has them. */
export function usageOf(operands: readonly Operand[]): string {
  return operands.map(({ name, isOptional, many }) => {
    const word = many ? `${name}…` : name;
    return isOptional ? ` [${word}]` : ` ${word}`;
  }).join("");
}

export const PURPOSE =
  "Encrypts and decrypts files with the ciphers of the Linux kernel (AF_ALG, through libkcapi), or of the " +
  "runtime if the kernel does not have the cipher.";

export function overview(commands: readonly Command[]): string {
  return [
    `Usage: ${NAME} COMMAND [OPTION…]`,
    "",
    ...wrap(PURPOSE, ""),
    "",
    "Commands:",
    list(commands.map(({ name, summary }) => [name, summary])),
    "",
    list([["--help, -h", "the same as help"], ["--version, -V", "the same as version"]]),
    "",
    "Exit codes:",
    list(EXIT_CODES),
    "",
  ].join("\n");
}

export function help({ name, summary, text, operands = [], options }: Command): string {
  return [
    `Usage: ${NAME} ${name} [OPTION…]${usageOf(operands)}`,
    "",
    ...wrap(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`, ""),
    ...(text ? ["", ...wrap(text, "")] : []),
    "",
    "Options:",
    list(options.map((option) => [termOf(option), option.text])),
    "",
  ].join("\n");
}
