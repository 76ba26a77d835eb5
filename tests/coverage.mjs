/** Prints what `tests/coverage` has found: per runtime and file, the lines that were run on one engine or the other. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { relative, resolve } from "node:path";

/** What `deno coverage` has written: how often each line of each file was run (file → line → times). */
function readLcov(path, files) {
  let lines;
  for (const record of readFileSync(path, "utf8").split("\n")) {
    const [kind, rest = ""] = record.split(/:(.*)/s);
    if (kind === "SF") {
      const file = relative(process.cwd(), resolve(rest));
      lines = /^(src|ffi)\//.test(file) ? files.get(file) ?? new Map() : undefined;
      if (lines) files.set(file, lines);
    } else if (kind === "DA" && lines) {
      const [line, times] = rest.split(",").map(Number);
      lines.set(line, (lines.get(line) ?? 0) + times);
    }
  }
}

/** What statements have noted (tests/instrument.mjs). */
function readNotes(directory, files) {
  for (const note of readdirSync(directory).filter((name) => /^(src|ffi):.*\.notes$/.test(name))) {
    const file = note.replace(".notes", "").replaceAll(":", "/");
    const lines = files.get(file) ?? new Map();
    files.set(file, lines);
    readFileSync(`${directory}/${note}`).forEach((state, line) => {
      if (state > 0) lines.set(line + 1, (lines.get(line + 1) ?? 0) + state - 1);
    });
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
    const found = new Map();
    if (existsSync(`${directory}/lcov.info`)) readLcov(`${directory}/lcov.info`, found);
    else readNotes(directory, found);
    if (found.size === 0) throw new Error(`${directory} has no results`);
    for (const [file, lines] of found) {
      const all = files.get(file) ?? new Map();
      files.set(file, all);
      for (const [line, times] of lines) all.set(line, (all.get(line) ?? 0) + times);
    }
  }
  console.log(`\n${runtime} (${engines.join(" and ")})`);
  let all = 0, run = 0;
  const row = (name, done, of, missed) =>
    console.log(`${name.padEnd(26)} ${(100 * done / of).toFixed(1).padStart(6)} %  ${missed}`.trimEnd());
  for (const [name, lines] of [...files].filter(([, lines]) => lines.size > 0).sort(([a], [b]) => a < b ? -1 : 1)) {
    const missed = [...lines].filter(([, times]) => times === 0).map(([line]) => line).sort((a, b) => a - b);
    all += lines.size;
    run += lines.size - missed.length;
    row(name, lines.size - missed.length, lines.size, ranges(missed));
  }
  row("all", run, all, `${run} of ${all} lines`);
}
