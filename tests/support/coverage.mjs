/** Prints the results of `tests/coverage`: for each runtime and file, the lines that no engine ran. */
import { readdirSync, readFileSync } from "node:fs";
import { relative, resolve } from "node:path";

/** Parses an lcov report into files, lines and counts. */
function* readLcov(path) {
  let file;
  for (const record of readFileSync(path, "utf8").split("\n")) {
    const [kind, rest = ""] = record.split(/:(.*)/s);
    if (kind === "SF") {
      file = relative(process.cwd(), resolve(rest));
    } else if (kind === "DA" && /^(src|ffi)\//.test(file)) {
      const [line, times] = rest.split(",").map(Number);
      yield [file, line, times];
    }
  }
}

/** Formats line numbers as `3, 7–9`. */
function ranges(numbers) {
  const found = [];
  for (const number of numbers) {
    const last = found.at(-1);
    if (last && number === last[1] + 1) last[1] = number;
    else found.push([number, number]);
  }
  return found.map(([from, to]) => from === to ? `${from}` : `${from}–${to}`).join(", ");
}

for (const runtime of process.argv.slice(2)) {
  const files = new Map();
  const engines = readdirSync(`coverage/${runtime}`);
  for (const engine of engines) {
    const directory = `coverage/${runtime}/${engine}`;
    let isEmpty = true;
    for (const [file, line, times] of readLcov(`${directory}/lcov.info`)) {
      const lines = files.get(file) ?? new Map();
      files.set(file, lines.set(line, (lines.get(line) ?? 0) + times));
      isEmpty = false;
    }
    if (isEmpty) throw new Error(`${directory} has no results`);
  }
  console.log(`\n${runtime} (${engines.join(" and ")})`);
  let all = 0, run = 0;
  const row = (name, done, of, missed) =>
    console.log(`${name.padEnd(26)} ${(100 * done / of).toFixed(1).padStart(6)} %  ${missed}`.trimEnd());
  for (const [name, lines] of [...files].sort(([a], [b]) => a < b ? -1 : 1)) {
    const missed = [...lines].filter(([, times]) => times === 0).map(([line]) => line).sort((a, b) => a - b);
    all += lines.size;
    run += lines.size - missed.length;
    row(name, lines.size - missed.length, lines.size, ranges(missed));
  }
  row("all", run, all, `${run} of ${all} lines`);
}
