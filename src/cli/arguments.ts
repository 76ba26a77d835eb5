/**
 * Commands and their options, and what is given of them on the command line.
 *
 * @module
 */

import { parseArgs } from "node:util";
import { edits } from "../edits.ts";
import { NAME } from "./about.ts";
import { codeOf, wrongUsage } from "./failures.ts";

export interface Option {
  readonly name: string;
  readonly short?: string;
  /** What its value is called; absent for a flag. Values called FILE are completed as file names. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly many?: boolean;
  readonly text: string;
  /** How to give a value that is not UTF-8; added to an error. */
  readonly otherBytes?: string;
}

export interface Command {
  readonly name: string;
  readonly summary: string;
  readonly text?: string;
  /** What its one argument besides the options is called, and what it may be; it may be left out. */
  readonly operand?: { readonly name: string; readonly choices: readonly string[] };
  readonly options: readonly Option[];
  readonly run: (given: Arguments) => number | Promise<number>;
}

/** The options given. */
export class Arguments {
  readonly #values: ReadonlyMap<string, readonly string[]>;
  readonly operand: string | undefined;

  constructor(values: ReadonlyMap<string, readonly string[]>, operand?: string) {
    this.#values = values;
    this.operand = operand;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** A file's name; absent, or `-`, is for standard input or output. */
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
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw wrongUsage(`--${name} expects a whole number from ${least} to ${most}`);
}

export function parse({ name, options, operand }: Command, args: readonly string[]): Arguments {
  let tokens;
  try {
    ({ tokens } = parseArgs({
      args: [...args],
      options: Object.fromEntries(options.map(({ name, short, value }) => [name, {
        type: value ? "string" as const : "boolean" as const,
        ...(short ? { short } : {}),
      }])),
      tokens: true,
      allowPositionals: operand !== undefined,
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
    // A runtime turns bytes that are not UTF-8 into U+FFFD: different names would become the same one.
    if (value.includes("\ufffd")) throw wrongUsage(`--${option.name} expects UTF-8${option.otherBytes ?? ""}`);
    if (option.choices && option.value !== "NAME" && !option.choices.includes(value)) {
      throw wrongUsage(`--${option.name} expects ${option.choices.join(" or ")}`);
    }
    values.set(option.name, [...earlier ?? [], value]);
  }
  const operands = tokens.flatMap((token) => token.kind === "positional" ? [token.value] : []);
  if (operands.length > 1) throw wrongUsage(`more than one ${operand!.name} (see ${NAME} ${name} --help)`);
  return new Arguments(values, operands[0]);
}

/**
 * What was given where one of `known` was expected, and the nearest of them. It is quoted only where it looks like one: it
 * may be a secret in a wrong place.
 */
export function unknown(what: string, given: string, known: readonly string[]): string {
  if (!/^[\w-]{1,20}$/.test(given)) return `unknown ${what}`;
  const distances = known.map((name) => edits(given.toLowerCase(), name));
  const least = Math.min(...distances);
  const nearest = known.find((name) => name.startsWith(`${given}-`)) ??
    (least <= Math.max(1, given.length / 3) ? known[distances.indexOf(least)] : undefined);
  return `unknown ${what} "${given}"${nearest === undefined ? "" : `: did you mean ${nearest}?`}`;
}

/** What is wrong with the arguments, without their values: one of them may be a secret in a wrong place. */
function problemOf(error: unknown, options: readonly Option[]): string {
  const [sentence = ""] = (error as Error).message.split(/\.\s|\n/);
  switch (codeOf(error)) {
    case "ERR_PARSE_ARGS_UNKNOWN_OPTION": {
      // Not every runtime tells the dashes of a short one.
      const [, dashes, name] = /'(-*)([^'=]*)/.exec(sentence) ?? [];
      return unknown("option", `${dashes || "-"}${name}`, options.map(({ name }) => `--${name}`));
    }
    case "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL":
      return "an argument that is no option: files are given with --in and --out";
    default:
      return sentence.charAt(0).toLowerCase() + sentence.slice(1);
  }
}
