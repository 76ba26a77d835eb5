/**
 * Commands and their options, and the parser of the command line.
 *
 * @module
 */

import { parseArgs } from "node:util";
import type { Bytes } from "../bytes.ts";
import { nearestWord } from "../edit_distance.ts";
import { NAME } from "./about.ts";
import { codeOf, wrongUsage } from "./failures.ts";

export interface Option {
  readonly name: string;
  readonly short?: string;
  /** The name of its value in the help; absent for a flag. Shells complete FILE as a file name. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** The option may be repeated. */
  readonly many?: boolean;
  readonly text: string;
  /** How to give a value that is not UTF-8; added to an error. */
  readonly otherBytes?: string;
}

export interface Operand {
  /** The name in the help. Shells complete FILE as a file name. */
  readonly name: string;
  readonly choices?: readonly string[];
  readonly isOptional?: boolean;
  /** It may be repeated. Only the last operand may. */
  readonly many?: boolean;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly text?: string;
  /** The arguments that are no options, in their order. */
  readonly operands?: readonly Operand[];
  readonly options: readonly Option[];
  /** Returns the exit code. */
  readonly run: (args: Arguments) => number | Promise<number>;
}

/** The options and the operands of a command line. */
export class Arguments {
  readonly #values: ReadonlyMap<string, readonly string[]>;
  readonly operands: readonly string[];

  constructor(values: ReadonlyMap<string, readonly string[]>, operands: readonly string[]) {
    this.#values = values;
    this.operands = operands;
  }

  /** The names of the options that are given. */
  get names(): readonly string[] {
    return [...this.#values.keys()];
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** The name of a file; undefined, also for `-`, stands for standard input or output. */
  file(name: string): string | undefined {
    const value = this.get(name);
    return value === "-" ? undefined : value;
  }

  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  integer(name: string, least: number, most = 2 ** 31 - 1): number | undefined {
    const value = this.get(name);
    return value === undefined ? undefined : wholeNumber(name, value, least, most);
  }
}

export function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = /^\d{1,16}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw wrongUsage(`--${name} expects a whole number from ${least} to ${most}`);
}

/** The bytes of hexadecimal digits. */
export function fromHex(name: string, hex: string): Bytes {
  if (!/^(?:[0-9a-f]{2})*$/i.test(hex)) throw wrongUsage(`--${name} expects an even number of hexadecimal digits`);
  return Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}

export function parse({ name, options, operands = [] }: Command, args: readonly string[]): Arguments {
  let tokens;
  try {
    ({ tokens } = parseArgs({
      args: [...args],
      options: Object.fromEntries(options.map(({ name, short, value }) => [name, {
        type: value ? "string" as const : "boolean" as const,
        ...(short ? { short } : {}),
      }])),
      tokens: true,
      allowPositionals: operands.length > 0,
    }));
  } catch (error) {
    throw wrongUsage(`${problemOf(error, options)} (see ${NAME} ${name} --help)`);
  }
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const option = options.find(({ name }) => name === token.name)!;
    const value = token.value ?? "";
    const earlier = values.get(option.name);
    if (earlier && !option.many) throw wrongUsage(`--${option.name} is given twice`);
    // The runtimes replace bytes that are not UTF-8 by U+FFFD, so that different names would become the same one.
    if (value.includes("\ufffd")) throw wrongUsage(`--${option.name} expects UTF-8${option.otherBytes ?? ""}`);
    if (option.choices && option.value !== "NAME" && !option.choices.includes(value)) {
      throw wrongUsage(`--${option.name} expects ${option.choices.join(" or ")}`);
    }
    values.set(option.name, [...earlier ?? [], value]);
  }
  const words = tokens.flatMap((token) => token.kind === "positional" ? [token.value] : []);
  // With --help, required options may be missing.
  if (!values.has("help")) checkOperands(name, operands, words);
  return new Arguments(values, words);
}

function checkOperands(command: string, operands: readonly Operand[], words: readonly string[]): void {
  const see = `(see ${NAME} ${command} --help)`;
  if (words.length > operands.length && !operands.at(-1)?.many) {
    throw wrongUsage(`more than ${operands.map(({ name }) => `one ${name}`).join(", ")} ${see}`);
  }
  for (const [i, { name, choices, isOptional }] of operands.entries()) {
    const word = words[i];
    if (word === undefined && !isOptional) throw wrongUsage(`no ${name} ${see}`);
    if (word?.includes("\ufffd")) throw wrongUsage(`${name} expects UTF-8`);
    if (word !== undefined && choices && !choices.includes(word)) {
      throw wrongUsage(`${unknown(name.toLowerCase(), word, choices)} ${see}`);
    }
  }
}

/**
 * The error for a name that is not among `known`, with the nearest of them. It quotes only what looks like a name: a
 * secret may stand in the wrong place.
 */
export function unknown(what: string, name: string, known: readonly string[]): string {
  if (!/^[\w-]{1,20}$/.test(name)) return `unknown ${what}`;
  const nearest = known.find((each) => each.startsWith(`${name}-`)) ?? nearestWord(name, known);
  return `unknown ${what} "${name}"${nearest === undefined ? "" : `: did you mean ${nearest}?`}`;
}

/** The error of the arguments. It quotes no values, because a secret may be in the wrong place. */
function problemOf(error: unknown, options: readonly Option[]): string {
  const [sentence = ""] = (error as Error).message.split(/\.\s|\n/);
  switch (codeOf(error)) {
    case "ERR_PARSE_ARGS_UNKNOWN_OPTION": {
      // Bun leaves out the dash of a short one.
      const [, dashes, name] = /'(-*)([^'=]*)/.exec(sentence) ?? [];
      return unknown("option", `${dashes || "-"}${name}`, options.map(({ name }) => `--${name}`));
    }
    case "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL":
      return "unexpected argument: name files with --in and --out";
    default:
      return sentence.charAt(0).toLowerCase() + sentence.slice(1);
  }
}
