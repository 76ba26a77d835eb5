/** Prints what `tests/coverage` has found: per runtime and file, the lines that were run on one engine or the other. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { relative, resolve } from "node:path";

/** What `deno coverage` has written: file, line, and how often that was run. */
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

/** The same of what statements have noted (tests/instrument.mjs). */
function* readNotes(directory) {
  for (const note of readdirSync(directory).filter((name) => /^(src|ffi):.*\.notes$/.test(name))) {
    const file = note.replace(".notes", "").replaceAll(":", "/");
    for (const [line, state] of readFileSync(`${directory}/${note}`).entries()) {
      if (state > 0) yield [file, line + 1, state - 1];
    }
  }
}

/** `3, 7–9` */
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
    for (
      const [file, line, times] of existsSync(`${directory}/lcov.info`)
        ? readLcov(`${directory}/lcov.info`)
        : readNotes(directory)
    ) {
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
