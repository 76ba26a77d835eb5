/**
 * Completions for the shell.
 *
 * @module
 */

import { NAME } from "./about.ts";
import type { Command, Option } from "./arguments.ts";

/** The shells that have completions. */
export const SHELLS = ["bash", "zsh", "fish"];

/** The completions for one of {@linkcode SHELLS}. */
export function completions(shell: string, commands: readonly Command[]): string {
  return shell === "zsh" ? zsh(commands) : shell === "fish" ? fish(commands) : bash(commands);
}

/** Text in single quotes, in which every shell only interprets the single quote itself. */
function quote(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

/** A function for bash. Cipher names are quoted because of their parentheses. */
function bash(commands: readonly Command[]): string {
  const words = (options: readonly Option[]) =>
    options.flatMap(({ name, short }) => short ? [`--${name}`, `-${short}`] : [`--${name}`]).join(" ");
  const names = (option: Option) => option.short ? `--${option.name}|-${option.short}` : `--${option.name}`;
  const all = [...new Map(commands.flatMap(({ options }) => options).map((option) => [option.name, option])).values()];
  const values = all.filter(({ value }) => value).map((option) => {
    if (option.value === "FILE") {
      return `    ${names(option)}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;`;
    }
    if (!option.choices) return `    ${names(option)}) return ;;`;
    const words = option.choices.map((choice) => `'${choice}'`).join(" ");
    return `    ${names(option)}) choices=(${words}) ;;`;
  });
  const cases = commands.map(({ name, options, operands = [] }) => {
    const choices = operands.flatMap(({ choices = [] }) => choices);
    const isFile = operands.some(({ name }) => name === "FILE");
    return `    ${name}) options='${[...choices, words(options)].join(" ")}'${isFile ? " files=1" : ""} ;;`;
  });
  return `# bash completions for ${NAME}: source this
_kcapi_streams() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} choices=() choice options files=0
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '${commands.map(({ name }) => name).join(" ")} --help --version' -- "$word")
    return
  fi
  case $previous in
${values.join("\n")}
  esac
  if ((\${#choices[@]} > 0)); then
    for choice in "\${choices[@]}"; do
      [[ $choice != "$word"* ]] || COMPREPLY+=("$(printf %q "$choice")")
    done
    return
  fi
  case \${COMP_WORDS[1]} in
${cases.join("\n")}
    *) return ;;
  esac
  ((files)) && compopt -o filenames
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word"; ((files)) && compgen -f -- "$word")
}
complete -F _kcapi_streams ${NAME}
`;
}

/** A function for zsh. Its \_arguments interprets brackets, colons and parentheses that are not escaped. */
function zsh(commands: readonly Command[]): string {
  const escape = (text: string) => text.replace(/[[\]:()\\]/g, "\\$&");
  const value = ({ value, choices }: Option) => {
    if (!value) return "";
    const action = choices ? `(${choices.map(escape).join(" ")})` : value === "FILE" ? "_files" : " ";
    return `:${escape(value)}:${action}`;
  };
  const argument = (option: Option) => {
    const { name, short, many, text } = option;
    const names = short ? [`-${short}`, `--${name}`] : [`--${name}`];
    const others = many ? "*" : names.length > 1 ? `(${names.join(" ")})` : "";
    return names.map((each) => quote(`${others}${each}[${escape(text)}]${value(option)}`)).join(" ");
  };
  const list = commands.map(({ name, summary }) => quote(`${name}:${escape(summary)}`)).join(" ");
  const cases = commands.map(({ name, options, operands = [] }) => {
    const specs = options.map(argument);
    for (const [i, { name, choices, many }] of operands.entries()) {
      const action = choices ? `(${choices.map(escape).join(" ")})` : name === "FILE" ? "_files" : " ";
      specs.push(quote(`${many ? "*" : i + 1}:${name}:${action}`));
    }
    return `    ${name}) _arguments ${specs.join(" \\\n      ")} ;;`;
  });
  return `#compdef ${NAME}
# zsh completions for ${NAME}: source this, or put it into a directory of fpath as _${NAME}
_kcapi_streams() {
  if ((CURRENT == 2)); then
    local -a commands=(${list} '--help:help' '--version:the version')
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
${cases.join("\n")}
  esac
}
compdef _kcapi_streams ${NAME}
`;
}

/** Lines for fish. It evaluates lists of words, so their words are quoted within the quotes. */
function fish(commands: readonly Command[]): string {
  const escape = (text: string) => `'${text.replace(/['\\]/g, "\\$&")}'`;
  const line = (command: string, { name, short, value, choices, text }: Option) => {
    const takes = choices ? `-x -a ${escape(choices.map(escape).join(" "))}` : value === "FILE" ? "-r -F" : "-x";
    return `complete -c ${NAME} -n '__fish_seen_subcommand_from ${command}' -l ${name}${short ? ` -s ${short}` : ""}${
      value ? ` ${takes}` : ""
    } -d ${escape(text)}`;
  };
  return [
    `# fish completions for ${NAME}: source this`,
    `complete -c ${NAME} -f`,
    ...["help", "version"].map((name) => `complete -c ${NAME} -n __fish_use_subcommand -l ${name}`),
    ...commands.flatMap(({ name, summary, options, operands = [] }) => [
      `complete -c ${NAME} -n __fish_use_subcommand -a ${name} -d ${escape(summary)}`,
      ...operands.filter(({ name, choices }) => choices || name === "FILE").map(({ choices }) =>
        `complete -c ${NAME} -n '__fish_seen_subcommand_from ${name}' ${
          choices ? `-a ${escape(choices.join(" "))}` : "-F"
        }`
      ),
      ...options.map((option) => line(name, option)),
    ]),
    "",
  ].join("\n");
}
