/**
 * v8_lines.mjs DIRECTORY: converts the profiles in DIRECTORY (NODE_V8_COVERAGE) to lcov, for src/ and ffi/. It does not
 * count lines with only types, comments, imports or closing brackets.
 */
import { readdirSync, readFileSync } from "node:fs";
import { stripTypeScriptTypes } from "node:module";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const [directory] = process.argv.slice(2);
const own = new RegExp(`^file://${process.cwd()}/(?:src|ffi)/`);

/** Returns the start and the end of each counted line, without surrounding white space. */
function linesOf(path) {
  const source = stripTypeScriptTypes(readFileSync(path, "utf8"))
    .replace(/\/\*[^]*?\*\//g, (comment) => comment.replace(/[^\n]/g, " "))
    .replace(/^import\b[^]*?;$/gm, (imports) => imports.replace(/[^\n]/g, " "));
  const lines = [];
  let offset = 0;
  for (const [index, line] of source.split("\n").entries()) {
    const code = line.replace(/^\s*\/\/.*/, "");
    if (/[^\s)}\];,]/.test(code)) {
      lines.push({ number: index + 1, from: offset + code.search(/\S/), to: offset + code.trimEnd().length });
    }
    offset += line.length + 1;
  }
  return lines;
}

/** Whether a process ran a line. The smallest range around the line decides. */
function wasRun({ from, to }, functions) {
  let least = Infinity, count = 0;
  for (const { ranges } of functions) {
    for (const range of ranges) {
      const size = range.endOffset - range.startOffset;
      if (range.startOffset <= from && range.endOffset >= to && size <= least) [least, count] = [size, range.count];
    }
  }
  return count > 0;
}

const files = new Map(); // path → its lines, and which of them were run
for (const name of readdirSync(directory)) {
  for (const { url, functions } of JSON.parse(readFileSync(join(directory, name), "utf8")).result) {
    if (!own.test(url)) continue;
    const path = fileURLToPath(url);
    const lines = files.get(path) ?? linesOf(path);
    files.set(path, lines);
    for (const line of lines) line.run ||= wasRun(line, functions);
  }
}
for (const [path, lines] of files) {
  console.log(`SF:${path}`);
  for (const { number, run } of lines) console.log(`DA:${number},${run ? 1 : 0}`);
  console.log("end_of_record");
}
