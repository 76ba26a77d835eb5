/**
 * instrument.mjs TREE: makes every statement of TREE's src/ and ffi/ note that it was run, for Bun: its own coverage does
 * not see the processes that tests start. The notes are files in the directory KCAPI_COVERAGE, one for each source file, with a
 * byte for each line: 0 no statement begins there, 1 one does, 2 it was run. They are mapped into memory by all
 * processes, so that they are complete however these end.
 */
import { readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import * as is from "typescript/unstable/ast/is";
import { API } from "typescript/unstable/sync";

const tree = process.argv[2];
const NOT_RUN = [
  ...[is.isBlock, is.isEmptyStatement, is.isFunctionDeclaration, is.isClassDeclaration, is.isInterfaceDeclaration],
  ...[is.isTypeAliasDeclaration, is.isImportDeclaration, is.isExportDeclaration],
];

/** The text of a source file with notes to `notes`, and its lines. */
function instrument(source, notes) {
  const { text } = source;
  const lines = new Array(text.split("\n").length).fill(0);
  const inserted = [];
  const insert = (at, text) => inserted.push({ at, text });
  const note = (node) => {
    const line = text.slice(0, node.getStart()).split("\n").length - 1;
    lines[line] = 1;
    return `${notes}[${line}]=2`;
  };
  const visit = (node) => {
    const { parent } = node;
    if (is.isArrowFunction(parent) && node === parent.body && !is.isBlock(node)) {
      insert(node.getStart(), `(${note(node)},`);
      insert(node.end, ")");
    } else if (is.isStatement(node) && !NOT_RUN.some((isOne) => isOne(node))) {
      if (is.isBlock(parent) || is.isSourceFile(parent) || is.isCaseClause(parent) || is.isDefaultClause(parent)) {
        insert(node.getStart(), `${note(node)};`);
      } else if (!is.isLabeledStatement(parent)) { // what an if or a loop has without a block
        insert(node.getStart(), `{${note(node)};`);
        insert(node.end, "}");
      }
    }
    node.forEachChild(visit);
  };
  source.forEachChild(visit);
  let result = "", from = 0;
  for (const { at, text: mark } of inserted.toSorted((a, b) => a.at - b.at)) {
    result += text.slice(from, at) + mark;
    from = at;
  }
  return { text: result + text.slice(from), lines };
}

const api = new API({ cwd: tree });
const [project] = api.updateSnapshot({ openProjects: [join(tree, "tsconfig.json")] }).getProjects();
const lists = {};
for (const directory of ["src", "ffi"]) {
  for (const file of readdirSync(join(tree, directory), { recursive: true }).filter((name) => name.endsWith(".ts"))) {
    const name = `${directory}/${file}`;
    const { text, lines } = instrument(project.program.getSourceFile(join(tree, name)), `notes["${name}"]`);
    lists[name] = lines;
    const up = "../".repeat(name.split("/").length - 1);
    // On the first line, so that all keep their numbers.
    writeFileSync(join(tree, name), `import { notes } from "${up}coverage_notes.ts"; ${text}`);
  }
}
api.close();

writeFileSync(
  join(tree, "coverage_notes.ts"),
  `import { linkSync, unlinkSync, writeFileSync } from "node:fs";
export const notes: Record<string, Uint8Array> = {};
for (const [name, lines] of Object.entries(${JSON.stringify(lists)})) {
  try {
    const path = process.env.KCAPI_COVERAGE + "/" + name.replaceAll("/", ":") + ".notes";
    const fresh = path + "." + process.pid + "." + Math.random();
    writeFileSync(fresh, Uint8Array.from(lines));
    try { linkSync(fresh, path); } catch { /* another process was first */ }
    unlinkSync(fresh);
    notes[name] = Bun.mmap(path, { shared: true });
  } catch {
    notes[name] = new Uint8Array(lines.length); // a process that may write no files
  }
}
`,
);
