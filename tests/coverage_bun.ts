/**
 * Preloaded into each Bun of a coverage run, those that tests start included, which `bun test --coverage` does not see:
 * makes every statement of src/ and ffi/ note that it was run, in a file per source file in KCAPI_COVERAGE. That has
 * a byte for each line: 0 no statement begins there, 1 one does, 2 it was run. It is mapped into memory, so that it
 * is complete however the process ends.
 */
import { plugin } from "bun";
import { linkSync, readFileSync, unlinkSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";
import process from "node:process";
import ts from "typescript";

const directory = process.env.KCAPI_COVERAGE!;
const root = join(import.meta.dir, "..");

/** `text` with marks, and the lines that statements begin on. */
function instrument(text: string, marks: string): { contents: string; lines: Set<number> } {
  const source = ts.createSourceFile("source.ts", text, ts.ScriptTarget.Latest, true);
  const lines = new Set<number>();
  const inserted: { at: number; text: string }[] = [];
  const mark = (node: ts.Node) => {
    const line = source.getLineAndCharacterOfPosition(node.getStart()).line;
    lines.add(line);
    return `${marks}[${line}]=2`;
  };
  const visit = (node: ts.Node): void => {
    if (ts.isArrowFunction(node) && !ts.isBlock(node.body)) {
      inserted.push({ at: node.body.getStart(), text: `(${mark(node.body)},` }, { at: node.body.getEnd(), text: ")" });
    } else if (isRun(node)) {
      if (ts.isBlock(node.parent) || ts.isSourceFile(node.parent) || ts.isCaseOrDefaultClause(node.parent)) {
        inserted.push({ at: node.getStart(), text: `${mark(node)};` });
      } else if (!ts.isLabeledStatement(node.parent)) { // what an if or a loop has without a block
        inserted.push({ at: node.getStart(), text: `{${mark(node)};` }, { at: node.getEnd(), text: "}" });
      }
    }
    ts.forEachChild(node, visit);
  };
  visit(source);
  let contents = "", from = 0;
  for (const { at, text: mark } of inserted.toSorted((a, b) => a.at - b.at)) {
    contents += text.slice(from, at) + mark;
    from = at;
  }
  return { contents: contents + text.slice(from), lines };
}

/** Whether a node is a statement that does something: neither a block nor a declaration. */
function isRun(node: ts.Node): boolean {
  return ts.isStatement(node) && !ts.isBlock(node) && !ts.isFunctionDeclaration(node) && !ts.isClassDeclaration(node) &&
    !ts.isInterfaceDeclaration(node) && !ts.isTypeAliasDeclaration(node) && !ts.isImportDeclaration(node) &&
    !ts.isExportDeclaration(node) && !ts.isEmptyStatement(node);
}

/** The bytes of a source file, in memory that all processes share. */
function map(name: string, lines: Set<number>): Uint8Array {
  const path = join(directory, name.replaceAll("/", ":"));
  const fresh = `${path}.${process.pid}`;
  writeFileSync(fresh, Uint8Array.from({ length: Math.max(...lines) + 1 }, (_, line) => lines.has(line) ? 1 : 0));
  try {
    linkSync(fresh, path);
  } catch {
    // Another process was first.
  }
  unlinkSync(fresh);
  return Bun.mmap(path, { shared: true });
}

plugin({
  name: "coverage",
  setup(build) {
    build.onLoad({ filter: new RegExp(`^${root}/(?:src|ffi)/.*\\.ts$`) }, ({ path }) => {
      const name = relative(root, path);
      const marks = `__${name.replace(/\W/g, "_")}`;
      const { contents, lines } = instrument(readFileSync(path, "utf8"), marks);
      Object.assign(globalThis, { [marks]: map(name, lines) });
      return { contents, loader: "ts" };
    });
  },
});
