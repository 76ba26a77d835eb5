/**
 * Which layer may import which, checked in the sources. CONTRIBUTING.md describes the layers.
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));

/** The layers, from the lowest to the highest. A layer may import itself and those before it. */
const LAYERS: readonly (readonly [layer: string, files: RegExp])[] = [
  ["errors", /^src\/err(?:ors|no)\.ts$/],
  ["runtime", /^src\/runtime\//],
  ["ffi", /^ffi\//],
  ["shared", /^src\/(?!err(?:ors|no)\.ts|cli\.ts)[^/]+$/],
  ["sources", /^src\/sources\//],
  ["system", /^src\/system\//],
  ["keyring", /^src\/keyring\//],
  ["engines", /^src\/engines\//],
  ["streams", /^src\/streams\//],
  ["executors", /^src\/executors\//],
  ["cipher", /^src\/cipher\//],
  ["openssl", /^src\/openssl\//],
  ["sealed", /^src\/sealed\//],
  ["gcm", /^src\/gcm\//],
  ["envelope", /^src\/envelope\//],
  ["tink", /^src\/tink\//],
  ["workers", /^src\/workers\//],
  ["probe", /^src\/probe\//],
  ["mod.ts", /^mod\.ts$/],
  ["the tool", /^src\/cli(?:\.ts$|\/)/],
];

/** The number of a file's layer; -1 if it has none. */
const layerOf = (file: string): number => LAYERS.findIndex(([, files]) => files.test(file));

/** The files of the project that a file imports: `import`, `export … from`, `import()`, types included. */
const IMPORT = /\b(?:from|import)\s*\(?\s*["'`](\.[^"'`]*)["'`]/g;

function importsOf(file: string, source: string): string[] {
  return [...source.matchAll(IMPORT)].map(([, path]) => join(dirname(file), path!));
}

/** Removes comments, and the rest of each line after the `//` of an address. */
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

/** The files of an import cycle that `file` is in, or undefined. */
function cycleOf(file: string, graph: ReadonlyMap<string, readonly string[]>): string[] | undefined {
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

/** The matches of a pattern in the sources of some layers, or outside them, as "file: match". */
function findings(layers: readonly string[], pattern: RegExp, inside = true): string[] {
  const files = [...sources].filter(([file]) => layers.includes(LAYERS[layerOf(file)]?.[0] ?? "") === inside);
  assert(files.length > 0, layers.join());
  return files.flatMap(([file, source]) => [...source.matchAll(pattern)].map(([what]) => `${file}: ${what}`));
}

test("every file has a layer, and imports only its own and lower ones", { engine: "userspace" }, () => {
  assert(sources.size > 20);
  assert([...imports.values()].flat().length > 50);
  for (const [file, others] of imports) {
    const layer = layerOf(file);
    assert(layer >= 0, `${file} is in no layer: add it to LAYERS`);
    for (const other of others) {
      assert(sources.has(other), `${file} imports ${other}, which is not published`);
      assert(
        layerOf(other) <= layer,
        `${file} (${LAYERS[layer]![0]}) imports ${other} (${LAYERS[layerOf(other)]?.[0]})`,
      );
    }
  }
});

test("there are no import cycles, including type-only ones", { engine: "userspace" }, () => {
  const three = { "a.ts": ["b.ts", "d.ts"], "b.ts": ["c.ts"], "c.ts": ["a.ts"], "d.ts": [] };
  assertEquals(cycleOf("b.ts", new Map(Object.entries(three))), ["b.ts", "c.ts", "a.ts", "b.ts"]);
  assertEquals(cycleOf("d.ts", new Map(Object.entries(three))), undefined);
  for (const file of imports.keys()) assertEquals(cycleOf(file, imports), undefined);
});

test("no file is longer than 500 lines", { engine: "userspace" }, () => {
  for (const file of sources.keys()) {
    const lines = readFileSync(join(root, file), "utf8").split("\n").length - 1;
    assert(lines <= 500, `${file} has ${lines}`);
  }
});

test("the search finds every form of import", { engine: "userspace" }, () => {
  const source = `
    import { a } from "./a.ts"; import type { B } from './b.ts'; export * from "../c.ts"; import "./d.ts";
    export { type E } from "./e/e.ts"; await import(\`./f.ts\`); type G = typeof import("./g.ts"); import {
      h,
    } from "./h.ts";`;
  const paths = ["src/a.ts", "src/b.ts", "c.ts", "src/d.ts", "src/e/e.ts", "src/f.ts", "src/g.ts", "src/h.ts"];
  assertEquals(importsOf("src/x.ts", source), paths);
  assertEquals(importsOf("src/x.ts", withoutComments('/* from "./a.ts" */ // import "./b.ts"')), []);
});

/** A use of an API of Deno, Bun or node:ffi, or a way around this test. A mention in a message does not match. */
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
  for (const layer of ["ffi", "runtime"]) assert(findings([layer], RUNTIME).length > 0);
  assertEquals(findings(["ffi", "runtime"], RUNTIME, false), []);
  for (const use of ["Deno.dlopen (path)", '"bun:ffi"', 'getBuiltinModule("node:ffi")']) assert(use.match(FFI), use);
  assert(findings(["ffi"], FFI).length > 0);
  assertEquals(findings(["ffi"], FFI, false), []);
});

test("ffi/ names no cipher outside of libkcapi's function names", { engine: "userspace" }, () => {
  const cipher = /(?<!kcapi_)cipher|\baes\b|algorithm|\biv\b|\bsector|\bpadding/gi;
  assert("const cipher = 1".match(cipher) && !"kcapi_cipher_init".match(cipher));
  assertEquals(findings(["ffi"], cipher), []);
});

test("engines never wait, and use no web streams", { engine: "userspace" }, () => {
  const stream = /\b(?:[A-Z]\w*Stream\w*|Promise|async|await|AbortSignal)\b/g;
  for (
    const word of ["ReadableStream", "CipherStream", "await x", "Promise<void>"]
  ) {
    assert(word.match(stream), word);
  }
  assertEquals(findings(["engines"], stream), []);
});

/** The files that a module loads, at once or later: not those of which it imports only types. */
function loadedBy(file: string): Set<string> {
  const loaded = new Set<string>();
  const visit = (at: string) => {
    if (loaded.has(at)) return;
    loaded.add(at);
    const values = sources.get(at)!.replace(/\b(?:import|export) type\b[^;]*;/g, "");
    importsOf(at, values).forEach(visit);
  };
  visit(file);
  return loaded;
}

test("the entry for sealed streams alone loads nothing that needs a server", { engine: "userspace" }, () => {
  const loaded = [...loadedBy("src/sealed/mod.ts")];
  assert(loaded.includes("src/sealed/reader.ts") && loaded.includes("src/streams/driver.ts"), loaded.join());
  const layers = new Set(loaded.map((file) => LAYERS[layerOf(file)]![0]));
  assertEquals([...layers].sort(), ["errors", "executors", "runtime", "sealed", "shared", "sources", "streams"]);
  assertEquals(loaded.filter((file) => file.startsWith("src/runtime/")), ["src/runtime/web.ts"]);
  // Compilers make `using` need Symbol.dispose, which WebKitGTK 2.50 does not have.
  const server = /\busing \w+ =|\bprocess\s*[.?]|\bBuffer\s*\.|["'`]node:/g;
  for (const file of loaded) {
    const source = sources.get(file)!;
    assertEquals([...source.matchAll(RUNTIME), ...source.matchAll(server)].map(([use]) => `${file}: ${use}`), []);
  }
  assert([...sources.get("src/runtime/mod.ts")!.matchAll(server)].length > 0);
});

test("each other entry first checks the runtime", { engine: "userspace" }, () => {
  for (const entry of ["mod.ts", "src/tink/mod.ts", "src/envelope/mod.ts", "src/workers/cipher_worker.ts"]) {
    const [first] = importsOf(entry, sources.get(entry)!);
    assertEquals(first, "src/runtime/oldest.ts", entry);
  }
});

test("the entry for sealed streams alone knows the numbers of its errors", { engine: "userspace" }, () => {
  const [table] = /new Map<string, number>\([^]*?\)\)/.exec(sources.get("src/errors.ts")!)!;
  const known = [...table.matchAll(/\bE[A-Z]+\b/g)].map(([code]) => code);
  assert(known.includes("EBADMSG"));
  for (const file of loadedBy("src/sealed/mod.ts")) {
    for (const [, code] of sources.get(file)!.matchAll(/"(E[A-Z]{2,})"/g)) {
      assert(known.includes(code!), `${file}: ${code} is not in the table of src/errors.ts`);
    }
  }
});
