/**
 * Checks of the objects that hold options.
 *
 * @module
 */

import { describe } from "./bytes.ts";
import { nearestWord } from "./edit_distance.ts";

/** Every name of an interface of options. The compiler refuses a list that lacks one. */
export type OptionNames<T> = Readonly<Record<keyof Required<T>, true>>;

/**
 * Checks that a value is an object with no option but these. An option that is misspelled would have no effect.
 *
 * @param argument What the object is called in messages.
 * @throws {TypeError} If it is none, or has another option, which the message names.
 */
export function checkOptions(argument: string, options: unknown, names: Readonly<Record<string, true>>): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError(`"${argument}" expected an object, got ${describe(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    const known = Object.keys(names);
    const nearest = nearestWord(name, known);
    const advice = nearest === undefined ? `it has ${known.join(", ")}` : `did you mean "${nearest}"?`;
    throw new TypeError(`"${argument}" has no option ${JSON.stringify(name.slice(0, 40))}: ${advice}`);
  }
}
