/**
 * Completions for the shell.
 *
 * @module
 */

import { NAME } from "./about.ts";
import type { Command, Option } from "./arguments.ts";

/** A function for bash; cipher names are quoted, for their parentheses mean something to it. */
export function completions(commands: readonly Command[]): string {
  const words = (options: readonly Option[]) =>
    options.flatMap(({ name, short }) => short ? [`--${name}`, `-${short}`] : [`--${name}`]).join(" ");
  const names = (option: Option) => option.short ? `--${option.name}|-${option.short}` : `--${option.name}`;
  const all = [...new Map(commands.flatMap(({ options }) => options).map((option) => [option.name, option])).values()];
  const values = all.filter(({ value }) => value).map((option) => {
    if (option.value === "FILE") {
      return `    ${names(option)}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;`;
    }
    if (!option.choices) return `    ${names(option)}) return ;;`;
    const quoted = option.choices.map((choice) => `'${choice}'`).join(" ");
    return `    ${names(option)}) choices=(${quoted}) ;;`;
  });
  const cases = commands.map(({ name, options }) => `    ${name}) options='${words(options)}' ;;`);
  return `# bash completions for ${NAME}: source this
_kcapi_streams() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} choices=() choice options
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
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -F _kcapi_streams ${NAME}
`;
}
