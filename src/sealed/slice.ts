/**
 * Ranges of the plaintext, counted as `Blob.slice()` does.
 *
 * @module
 */

import { wrongType } from "../bytes.ts";

/** The range from `start` to before `end` of `size` bytes: cut to the size, negative numbers from the end. */
export function sliceOf(size: number, start: number = 0, end: number = size): [from: number, to: number] {
  const from = clamp("start", start, size);
  return [from, Math.max(from, clamp("end", end, size))];
}

/** Web IDL's [Clamp], which `Blob.slice()` uses: rounded, and to even numbers from the middle. */
function clamp(name: string, value: unknown, size: number): number {
  if (typeof value !== "number") throw wrongType(name, "a number", value);
  const rounded = Math.round(value) || 0;
  const whole = rounded - value === 0.5 && rounded % 2 !== 0 ? rounded - 1 : rounded;
  return whole < 0 ? Math.max(0, size + whole) : Math.min(whole, size);
}
