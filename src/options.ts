/**
 * Checks option objects.
 *
 * @module
 */

import { describe, wrongType } from "./bytes.ts";
import { nearestWord } from "./edit_distance.ts";

/** The names of an options interface. The compiler refuses a list that lacks one. */
export type OptionNames<T> = Readonly<Record<keyof Required<T>, true>>;

/**
 * Checks that a value is one of a list.
 *
 * @throws {TypeError} If it is not, or {RangeError} if it is a wrong number. The message names the list.
 */
export function oneOf<T extends string | number>(name: string, value: unknown, values: readonly T[]): T {
  if (values.includes(value as T)) return value as T;
  const isNumber = typeof value === "number" && typeof values[0] === "number";
  const got = typeof value === "string" ? JSON.stringify(value.slice(0, 40)) : isNumber ? value : describe(value);
  const message = `"${name}" expected ${values.map((each) => JSON.stringify(each)).join(" or ")}, got ${got}`;
  throw isNumber ? new RangeError(message) : new TypeError(message);
}

/** @throws {TypeError} If the value is not a boolean. */
export function checkBoolean(name: string, value: unknown): asserts value is boolean {
  if (typeof value !== "boolean") throw wrongType(name, "a boolean", value);
}

/**
 * Checks that a value is an object and has no unknown options. A misspelled option would otherwise have no effect.
 *
 * @param argument The name of the argument in messages.
 * @param options The value to check.
 * @param names The known options.
 * @throws {TypeError} If the value is not an object, or has an unknown option. The message names the option.
 */
export function checkOptions(argument: string, options: unknown, names: Readonly<Record<string, true>>): void {
  if (typeof options !== "object" || options === null) {
    throw wrongType(argument, "an object", options);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(names, name)) continue;
    const known = Object.keys(names);
    const nearest = nearestWord(name, known);
    const advice = nearest === undefined ? `it has ${known.join(", ")}` : `did you mean "${nearest}"?`;
    throw new TypeError(`"${argument}" has no option ${JSON.stringify(name.slice(0, 40))}: ${advice}`);
  }
}
