/**
 * Checks what `@kcapi/streams/sealed` costs a page: its size, minified and gzipped, and that it names nothing of a
 * server. Not included is what a page can do without: `httpSource()`, which a bundler leaves out if it is not imported,
 * and the module of `openSealed()`, which a bundler that splits code has loaded by the first call.
 */
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ROOT } from "./run.ts";

const MOST = 12 * 1024;
const IMPORTS = "KcapiError, openSealed, seal, sealedRange, sealedSize, SealStream, unseal, unsealedSize, UnsealStream";
/** Names of a server's API in code. */
const SERVER = /\b(?:Deno|Bun|process|Buffer|require)\s*[.(?[]|["'`](?:node|bun):|dlopen|getBuiltinModule/g;

/** @throws {Error} If it is too large, or refers to a server. */
export async function checkSize(): Promise<void> {
  const { success, logs, outputs } = await Bun.build({
    entrypoints: ["page"],
    target: "browser",
    minify: true,
    throw: false,
    plugins: [{
      name: "page",
      setup(build) {
        build.onResolve({ filter: /^page$/ }, () => ({ path: "page", namespace: "page" }));
        build.onLoad({ filter: /^page$/, namespace: "page" }, () => ({
          contents: `export { ${IMPORTS} } from ${JSON.stringify(join(ROOT, "src/sealed/mod.ts"))};`,
          loader: "ts",
        }));
        build.onResolve({ filter: /^\.\/reader\.ts$/ }, ({ path }) => ({ path, external: true }));
      },
    }],
  });
  if (!success) throw new Error(logs.join("\n"));
  const text = await outputs[0]!.text();
  const { length } = gzipSync(text, { level: 9 });
  console.log(`check: @kcapi/streams/sealed has ${length} of ${MOST} bytes`);
  if (!text.includes("./reader.ts")) throw new Error("openSealed() does not load its module by import()");
  if (length > MOST) throw new Error(`@kcapi/streams/sealed has ${length} bytes, at most ${MOST} are allowed`);
  const [name] = text.match(SERVER) ?? [];
  if (name) throw new Error(`@kcapi/streams/sealed refers to a server's API: ${name}`);
}
