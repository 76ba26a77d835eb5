/**
 * The house: which room may use which, read from the sources. CONTRIBUTING.md has the map.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The rooms, from the lowest to the highest: each may use itself and those before it. */
const ROOMS: readonly (readonly [room: string, files: RegExp])[] = [
  ["errors", /^src\/errors\.ts$/],
  ["runtime", /^src\/runtime\//],
  ["ffi", /^ffi\//],
  ["the ground floor", /^src\/(?!errors\.ts|cli\.ts)[^/]+$/],
  ["system", /^src\/system\//],
  ["engines", /^src\/engines\//],
  ["streams", /^src\/streams\//],
  ["executors", /^src\/executors\//],
  ["cipher", /^src\/cipher\//],
  ["sealed", /^src\/sealed\//],
  ["workers", /^src\/workers\//],
  ["probe", /^src\/probe\//],
  ["mod.ts", /^mod\.ts$/],
  ["the tool", /^src\/cli(?:\.ts$|\/)/],
];

/** The number of a file's room; -1 where it has none. */
const roomOf = (file: string): number => ROOMS.findIndex(([, files]) => files.test(file));

/** What a file imports of the project's own: by `import` and `export … from`, by `import()` and in types, too. */
const IMPORT = /\b(?:from|import)\s*\(?\s*["'`](\.[^"'`]*)["'`]/g;

function importsOf(file: string, source: string): string[] {
  return [...source.matchAll(IMPORT)].map(([, path]) => join(dirname(file), path!));
}

/** Without comments, and without the rest of a line that has an address in it. */
function withoutComments(source: string): string {
  return source.replace(/\/\*[^]*?\*\/|\/\/.*/g, "");
}

function filesOf(directory: string): string[] {
  return readdirSync(join(root, directory), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts")).map((name) => join(directory, name));
}

/** The published sources, without comments, by their paths. */
const sources = new Map(
  ["mod.ts", ...filesOf("ffi"), ...filesOf("src")]
    .map((file) => [file, withoutComments(readFileSync(join(root, file), "utf8"))]),
);
const imports = new Map([...sources].map(([file, source]) => [file, importsOf(file, source)]));

/** The files of a circle that `file` is in, or undefined. */
function circleOf(file: string, graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
  const seen = new Set<string>();
  const search = (at: string, path: readonly string[]): string[] | undefined => {
    for (const next of graph.get(at) ?? []) {
      if (next === file) return [...path, next];
      if (seen.has(next)) continue;
      seen.add(next);
      const found = search(next, [...path, next]);
      if (found) return found;
    }
    return undefined;
  };
  return search(file, [file]);
}

/** What of a pattern stands in the sources of some rooms, or outside of them, as "file: what". */
function findings(rooms: readonly string[], pattern: RegExp, inside = true): string[] {
  const files = [...sources].filter(([file]) => rooms.includes(ROOMS[roomOf(file)]?.[0] ?? "") === inside);
  assert(files.length > 0, rooms.join());
  return files.flatMap(([file, source]) => [...source.matchAll(pattern)].map(([what]) => `${file}: ${what}`));
}

test("every file has its room, and uses only its own and those before it", { engine: "userspace" }, () => {
  assert(sources.size > 20);
  assert([...imports.values()].flat().length > 50);
  for (const [file, others] of imports) {
    const room = roomOf(file);
    assert(room >= 0, `${file} is in no room: give it a place in the order`);
    for (const other of others) {
      assert(sources.has(other), `${file} imports ${other}, which is not published`);
      assert(roomOf(other) <= room, `${file} (${ROOMS[room]![0]}) imports ${other} (${ROOMS[roomOf(other)]?.[0]})`);
    }
  }
});

test("no files import each other in a circle, of types neither", { engine: "userspace" }, () => {
  const three = { "a.ts": ["b.ts", "d.ts"], "b.ts": ["c.ts"], "c.ts": ["a.ts"], "d.ts": [] };
  assertEquals(circleOf("b.ts", new Map(Object.entries(three))), ["b.ts", "c.ts", "a.ts", "b.ts"]);
  assertEquals(circleOf("d.ts", new Map(Object.entries(three))), undefined);
  for (const file of imports.keys()) assertEquals(circleOf(file, imports), undefined);
});

test("no file is longer than 500 lines", { engine: "userspace" }, () => {
  for (const file of sources.keys()) {
    const lines = readFileSync(join(root, file), "utf8").split("\n").length - 1;
    assert(lines <= 500, `${file} has ${lines}`);
  }
});

test("imports are found however they are written", { engine: "userspace" }, () => {
  const source = `
    import { a } from "./a.ts"; import type { B } from './b.ts'; export * from "../c.ts"; import "./d.ts";
    export { type E } from "./e/e.ts"; await import(\`./f.ts\`); type G = typeof import("./g.ts"); import {
      h,
    } from "./h.ts";`;
  const paths = ["src/a.ts", "src/b.ts", "c.ts", "src/d.ts", "src/e/e.ts", "src/f.ts", "src/g.ts", "src/h.ts"];
  assertEquals(importsOf("src/x.ts", source), paths);
  assertEquals(importsOf("src/x.ts", withoutComments('/* from "./a.ts" */ // import "./b.ts"')), []);
});

/** A use of a runtime's own, or a way around this test; a mention in a message is none. */
const RUNTIME =
  /\b(?:Deno|Bun)\s*[.[]|\.\s*(?:Deno|Bun)\b|["'`](?:Deno|Bun|bun|bun:\w+|node:ffi)["'`]|globalThis\s*\[/g;

/** The APIs that call libraries. */
const FFI = /\bdlopen\s*\(|["'`](?:bun:ffi|node:ffi)["'`]/g;

test("only ffi/ and src/runtime/ name Deno or Bun, and only ffi/ uses their FFI", { engine: "userspace" }, () => {
  for (
    const use of [
      'Deno.open("x")',
      'Bun ["gc"]',
      '"Deno" in globalThis',
      'import "bun:ffi"',
      'getBuiltinModule("node:ffi")',
      "globalThis[name]",
      "g.Deno",
    ]
  ) {
    assert(use.match(RUNTIME), use);
  }
  for (const room of ["ffi", "runtime"]) assert(findings([room], RUNTIME).length > 0);
  assertEquals(findings(["ffi", "runtime"], RUNTIME, false), []);
  for (const use of ["Deno.dlopen (path)", '"bun:ffi"', 'getBuiltinModule("node:ffi")']) assert(use.match(FFI), use);
  assert(findings(["ffi"], FFI).length > 0);
  assertEquals(findings(["ffi"], FFI, false), []);
});

test("ffi/ knows no cipher: libkcapi's names, and nothing of what they are for", { engine: "userspace" }, () => {
  const cipher = /(?<!kcapi_)cipher|\baes\b|algorithm|\biv\b|\bsector|\bpadding/gi;
  assert("const cipher = 1".match(cipher) && !"kcapi_cipher_init".match(cipher));
  assertEquals(findings(["ffi"], cipher), []);
});

test("engines know no stream: they never wait, and name nothing of web streams", { engine: "userspace" }, () => {
  const stream = /\b(?:[A-Z]\w*Stream\w*|Promise|async|await|AbortSignal)\b/g;
  for (
    const word of ["ReadableStream", "CipherStream", "await x", "Promise<void>"]
  ) {
    assert(word.match(stream), word);
  }
  assertEquals(findings(["engines"], stream), []);
});
