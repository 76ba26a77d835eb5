/**
 * The distance between two words, and which word was meant.
 *
 * @module
 */

/** How many letters must be inserted, deleted, replaced, or exchanged with the next one to turn `a` into `b`. */
export function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    const above = rows[i - 1]!;
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(above[j]! + 1, row[j - 1]! + 1, above[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
      if (a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]) row[j] = Math.min(row[j]!, rows[i - 2]![j - 2]! + 1);
    }
    rows.push(row);
  }
  return rows[a.length]![b.length]!;
}

/** The one of `known` that `word` is probably meant to be; undefined if each differs by more than a third of it. */
export function nearestWord(word: string, known: readonly string[]): string | undefined {
  const distances = known.map((each) => editDistance(word.toLowerCase(), each.toLowerCase()));
  const least = Math.min(...distances);
  return least <= Math.max(1, word.length / 3) ? known[distances.indexOf(least)] : undefined;
}
