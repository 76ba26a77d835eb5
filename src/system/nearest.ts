/**
 * Finds the algorithm that was meant by a name that is none.
 *
 * @module
 */

import { CIPHERS, MODES } from "../algorithms.ts";
import { editDistance } from "../edit_distance.ts";
import { kernelCiphers, type System, thisSystem } from "./files.ts";

/**
 * The algorithm that a name was probably meant to be: a misspelt one, or one in OpenSSL's or WebCrypto's words.
 *
 * @param name What was asked for.
 * @param system Whose /proc/crypto to consult, too.
 * @returns Undefined if the name is right, or nothing is near.
 */
export function nearestAlgorithm(name: string, system: System = thisSystem): string | undefined {
  const listed = kernelCiphers(system);
  const ciphers = listed instanceof Error ? [] : listed;
  const known = [...knownNames(), ...ciphers.map((cipher) => cipher.name)];
  if (known.includes(name) || ciphers.some(({ driver }) => driver === name)) return undefined;
  const given = wordsOf(name);
  let nearest: string | undefined;
  let least = Infinity;
  for (const candidate of known) {
    const distance = distanceOf(given, wordsOf(candidate));
    if (distance < least) [nearest, least] = [candidate, distance];
  }
  return nearest;
}

/** Templates that take another one, as they are used. */
const NESTED = [
  "cts(cbc(aes))",
  "rfc3686(ctr(aes))",
  "essiv(cbc(aes),sha256)",
  "adiantum(xchacha12,aes)",
  "adiantum(xchacha20,aes)",
];

/** Words that mean what they say, also where this module does not do it: no slips of the pen. */
const RIGHT_WORDS: ReadonlySet<string> = new Set([
  ...Object.keys(MODES),
  ...Object.keys(CIPHERS),
  ...["ccm", "eax", "gcm", "ige", "ocb", "siv", "wrap"],
]);

/** Every mode over every cipher, the likeliest first. */
function knownNames(): string[] {
  const nested = new Set(["hctr2_base", ...NESTED.map((name) => wordsOf(name)[0])]);
  const simple = Object.entries(MODES).filter(([mode]) => !nested.has(mode)).flatMap(([mode, { keys }]) =>
    keys ? [mode] : Object.keys(CIPHERS).map((cipher) => `${mode}(${cipher})`)
  );
  return [...simple, ...NESTED];
}

/** The words of a name, of any convention, without key lengths. */
function wordsOf(name: string): string[] {
  return name.toLowerCase()
    .replace(/des3_ede|des-ede3|triple-?des|des3|3des/, "des3ede")
    .replace(/(?<!\d|sha)(?:128|192|256)(?!\d)|plain64/g, "")
    .split(/[^a-z0-9]+/)
    .filter((word) => word !== "");
}

/** How far `given` is from a name: Infinity where a word is too far, or the name's mode is not among them. */
function distanceOf(given: readonly string[], name: readonly string[]): number {
  if (given.join("") === name.join("")) return 0;
  const matched = new Set<string>();
  let sum = 0;
  for (const word of given) {
    const distances = name.map((other) => wordDistance(word, other));
    const least = Math.min(...distances);
    sum += least;
    matched.add(name[distances.indexOf(least)]!);
  }
  // Words left out weigh less than slips: cts(aes) is short for cts(cbc(aes)).
  return matched.size === given.length && matched.has(name[0]!) ? sum + (name.length - given.length) / 4 : Infinity;
}

/** The edits between two words; Infinity if they are many, or in digits: another number is another algorithm. */
function wordDistance(a: string, b: string): number {
  if (a === b) return 0;
  if (RIGHT_WORDS.has(a) || a.replace(/\D/g, "") !== b.replace(/\D/g, "")) return Infinity;
  const distance = editDistance(a, b);
  return distance <= (b.length > 5 ? 2 : 1) ? distance : Infinity;
}
