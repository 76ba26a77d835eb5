/**
 * Suggests an algorithm for an unknown name.
 *
 * @module
 */

import { CIPHERS, MODES } from "../algorithms.ts";
import { editDistance } from "../edit_distance.ts";
import { kernelCiphers, type System, thisSystem } from "./files.ts";

/**
 * Returns the algorithm that an unknown name probably means. Finds misspellings, and names of OpenSSL and WebCrypto.
 *
 * @param name The requested name.
 * @param system The system whose /proc/crypto adds names.
 * @returns Undefined if the name is known, or no known name is similar.
 */
export function nearestAlgorithm(name: string, system: System = thisSystem): string | undefined {
  const listed = kernelCiphers(system);
  const ciphers = listed instanceof Error ? [] : listed;
  const known = [...listNames(), ...ciphers.map((cipher) => cipher.name)];
  if (known.includes(name) || ciphers.some(({ driver }) => driver === name)) return undefined;
  const words = splitName(name);
  let nearest: string | undefined;
  let least = Infinity;
  for (const candidate of known) {
    const distance = nameDistance(words, splitName(candidate));
    if (distance < least) [nearest, least] = [candidate, distance];
  }
  return nearest;
}

/** Templates with a template as argument. */
const NESTED = [
  "cts(cbc(aes))",
  "rfc3686(ctr(aes))",
  "essiv(cbc(aes),sha256)",
  "adiantum(xchacha12,aes)",
  "adiantum(xchacha20,aes)",
];

/** Words that are correct even if this module does not support them. They are not misspellings. */
const RIGHT_WORDS: ReadonlySet<string> = new Set([
  ...Object.keys(MODES),
  ...Object.keys(CIPHERS),
  ...["ccm", "eax", "gcm", "ige", "ocb", "siv", "wrap"],
]);

/** Lists every mode with every cipher, the most common first. */
function listNames(): string[] {
  const nested = new Set(["hctr2_base", ...NESTED.map((name) => splitName(name)[0])]);
  const simple = Object.entries(MODES).filter(([mode]) => !nested.has(mode)).flatMap(([mode, { keys }]) =>
    keys ? [mode] : Object.keys(CIPHERS).map((cipher) => `${mode}(${cipher})`)
  );
  return [...simple, ...NESTED];
}

/** Splits a name of any convention into words, without key lengths. */
function splitName(name: string): string[] {
  return name.toLowerCase()
    .replace(/des3_ede|des-ede3|triple-?des|des3|3des/, "des3ede")
    .replace(/(?<!\d|sha)(?:128|192|256)(?!\d)|plain64/g, "")
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== "");
}

/** Returns the distance of `words` from a name: Infinity if a word differs too much, or the name's mode is missing. */
function nameDistance(words: readonly string[], name: readonly string[]): number {
  if (words.join("") === name.join("")) return 0;
  const matched = new Set<string>();
  let sum = 0;
  for (const word of words) {
    const distances = name.map((other) => wordDistance(word, other));
    const least = Math.min(...distances);
    sum += least;
    matched.add(name[distances.indexOf(least)]!);
  }
  // A missing word counts less than a misspelling: cts(aes) is short for cts(cbc(aes)).
  return matched.size === words.length && matched.has(name[0]!) ? sum + (name.length - words.length) / 4 : Infinity;
}

/**
 * Returns the edit distance of two words: Infinity if it is large or the digits differ, because another number is
 * another algorithm.
 */
function wordDistance(a: string, b: string): number {
  if (a === b) return 0;
  if (RIGHT_WORDS.has(a) || a.replace(/\D/g, "") !== b.replace(/\D/g, "")) return Infinity;
  const distance = editDistance(a, b);
  return distance <= (b.length > 5 ? 2 : 1) ? distance : Infinity;
}
