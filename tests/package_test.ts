/**
 * Tests of the published packages: the npm package, installed and used on all runtimes, and the JSR package.
 */
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { absoluteLinks } from "../scripts/release.ts";
import { OLDEST } from "../src/runtime/oldest.ts";
import { tool } from "./support/cli_support.ts";
import { assert, assertEquals, assertStringIncludes, spawn, tempDir, test } from "./support/deps.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const bin = join(root, "node_modules/.bin");
const json = (path: string) => JSON.parse(readFileSync(join(root, path), "utf8"));

/** The releases of Node in `tests/runtimes`, in ascending order. */
const NODES = ["node22", "node24", "node"].map((name) =>
  join(root, "node_modules", `${name}-linux-${process.arch}`, "bin/node")
);

/**
 * Runs a shell command, which must succeed. A shell, because Deno's node:child_process changes the arguments of a Deno.
 * Standard input is not a socket, because bash then acts as a remote shell and reads its startup file.
 */
async function shell(command: string, cwd: string, path = `${bin}:${process.env.PATH}`): Promise<string> {
  const env = { PATH: path, NO_COLOR: "1", npm_config_loglevel: "error" };
  const { code, stdout, stderr } = await spawn(["bash", "--norc", "-c", command], { cwd, env, timeout: 110_000 });
  assertEquals(code, 0, `${command}\n${stdout}\n${stderr}`);
  return stdout + stderr;
}

test("package.json names the oldest supported releases", () => {
  const { engines } = json("package.json");
  assertEquals(engines, { deno: `>=${OLDEST.Deno}`, bun: `>=${OLDEST.Bun}`, node: `>=${OLDEST.Node}` });
});

test(
  "deno.json, package.json, the tool and the changelog have the same version, and the packages the same name",
  { engine: "userspace" },
  async () => {
    const { name, version, exports } = json("deno.json");
    assertEquals([json("package.json").name, json("package.json").version], [name, version]);
    assertEquals(Object.keys(json("package.json").exports), Object.keys(exports));
    assertEquals((await spawn([...tool, "--version"])).stdout, `kcapi-streams ${version}\n`);
    const [, newest] = /^## (\d\S*)$/m.exec(readFileSync(join(root, "CHANGELOG.md"), "utf8"))!;
    assertEquals(newest, version);
  },
);

test("the release script sets the repository, makes links absolute, and refuses a tag of another version", async () => {
  const checkout = tempDir();
  for (const file of ["README.md", "SECURITY.md", "CHANGELOG.md", "package.json", "deno.json"]) {
    copyFileSync(join(root, file), join(checkout, file));
  }
  const { version } = json("package.json");
  const release = (ref: string, repository = "owner/name") =>
    spawn([join(bin, "bun"), join(root, "scripts/release.ts")], {
      cwd: checkout,
      env: { GITHUB_REPOSITORY: repository, GITHUB_REF_NAME: ref },
    });
  const wrong = await release("v99.0.0");
  assertEquals(wrong.code, 1);
  assertStringIncludes(wrong.stderr, `the tag is "v99.0.0"`);
  assertEquals((await release(`v${version}`, "")).code, 1);
  assertEquals(readFileSync(join(checkout, "README.md")), readFileSync(join(root, "README.md")));

  const { code, stderr } = await release(`v${version}`);
  assertEquals([code, stderr], [0, ""]);
  const { repository, ...rest } = JSON.parse(readFileSync(join(checkout, "package.json"), "utf8"));
  assertEquals(repository, { type: "git", url: "git+https://github.com/owner/name.git" });
  assertEquals(rest, json("package.json"));
  for (const file of ["README.md", "SECURITY.md", "CHANGELOG.md"]) {
    const links = [...readFileSync(join(checkout, file), "utf8").matchAll(/\]\(([^)\s]+)/g)].map(([, address]) =>
      address!
    );
    for (const link of links) assert(/^(?:https?:\/\/|#|mailto:)/.test(link), `${file}: ${link}`);
  }
  // Each link names an existing file.
  const readme = readFileSync(join(checkout, "README.md"), "utf8");
  const own = [...readme.matchAll(/https:\/\/github\.com\/owner\/name\/(?:blob|raw)\/v[\d.]+\/([^)\s"#]+)/g)];
  assert(own.length > 0);
  for (const [, path] of own) assert(existsSync(join(root, path!)), path);
});

test("absoluteLinks() changes only relative links and images", () => {
  const links: [string, string][] = [
    ["[a](docs/a.md)", "[a](https://x/blob/v1/docs/a.md)"],
    ["[a](./docs/a.md#part)", "[a](https://x/blob/v1/docs/a.md#part)"],
    ["![a](b.png)", "![a](https://x/raw/v1/b.png)"],
    ["[![a](b.svg)](c/)", "[![a](https://x/raw/v1/b.svg)](https://x/blob/v1/c/)"],
    ['<img src="b.svg">', '<img src="https://x/raw/v1/b.svg">'],
    ["[a](https://y/z) [b](#c) [d](mailto:e)", "[a](https://y/z) [b](#c) [d](mailto:e)"],
  ];
  for (const [text, expected] of links) assertEquals(absoluteLinks(text, "https://x", "v1"), expected);
});

function sources(): string[] {
  return ["ffi", "src"].flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((path) => path.endsWith(".ts")).map((path) => join(folder, path))
  );
}

// The tests do not depend on the engine, and the compilers are slow in a guest.
const NPM = { engine: "userspace", runtime: "bun" } as const;
const JSR = { engine: "userspace", runtime: "deno" } as const;

const USE = `
import { type CipherStreamOptions, decrypt, DecryptionStream, EncryptionStream } from "@kcapi/streams";
import { main } from "@kcapi/streams/cli";
import { openSealed, seal, type SealOptions } from "@kcapi/streams/sealed";

const options: CipherStreamOptions = { key: new Uint8Array(16), iv: new Uint8Array(16) };
const ciphertext: ReadableStream<Uint8Array<ArrayBuffer>> = new Blob(["attack at dawn"]).stream()
  .pipeThrough(new EncryptionStream("ctr(aes)", options));
console.log(await new Response(ciphertext.pipeThrough(new DecryptionStream("ctr(aes)", options))).text());
for await (const chunk of decrypt("ctr(aes)", options, new Uint8Array(3))) console.log(chunk.length);
const sealOptions: SealOptions = { key: new Uint8Array(32).fill(1) };
const pieces: Uint8Array<ArrayBuffer>[] = [];
for await (const piece of seal(sealOptions, new Blob(["attack at dawn"]))) pieces.push(piece);
const file = await openSealed(new Blob(pieces), sealOptions);
console.log(file.engine, new TextDecoder().decode(await file.bytes()));
file.close();
const code: number = await main(["--version"]);
console.log(code);
// @ts-expect-error: a key is needed
({}) satisfies CipherStreamOptions;
`;

/** Uses Workers, whose module is a separate file. Prints the number of output bytes, or the missing module. */
const USE_WORKERS = `
import { WorkerPool, encrypt } from "@kcapi/streams";

const pool = new WorkerPool(2);
const options = { key: new Uint8Array(16), iv: new Uint8Array(16), engine: "userspace" as const, pool };
let length = 0;
try {
  for await (const chunk of encrypt("ctr(aes)", options, new Uint8Array(3_000_000))) length += chunk.length;
  console.log(length);
} catch (error) {
  console.log(String(error));
}
`;

/** The worker module is an entry of the bundle. */
const WORKER = 'import "@kcapi/streams/worker";\n';

/** The types accept all kinds of buffers and refuse other values, also without BufferSource (lib.dom). */
const USE_TYPES = `
import { CipherHandle, decrypt, encrypt, EncryptionStream, type KernelKey, WorkerPool } from "@kcapi/streams";
declare const bytes: Uint8Array, view: DataView, generator: AsyncGenerator<Uint8Array>, list: Uint8Array[];
declare const stream: ReadableStream<Uint8Array>, owned: ReadableStream<Uint8Array<ArrayBuffer>>;
const options = { key: bytes, iv: view };
for (const source of [bytes, view, generator, list, stream, owned, bytes.buffer as ArrayBuffer]) {
  encrypt("ctr(aes)", options, source);
}
const encryption: TransformStream<Uint8Array, Uint8Array> = new EncryptionStream("ctr(aes)", options);
const piped: ReadableStream<Uint8Array<ArrayBuffer>> = stream.pipeThrough(new EncryptionStream("ctr(aes)", options));
encryption.writable.getWriter().write(bytes);
new EncryptionStream("ctr(aes)", options).writable.getWriter().write(view);
const handle = CipherHandle.open("ctr(aes)", { key: bytes });
handle.streamInitEnc(bytes);
handle.streamUpdate(bytes, view, new ArrayBuffer(1));
handle.streamOpInto(bytes);
decrypt("ctr(aes)", options, piped);
// @ts-expect-error: a number is no key
CipherHandle.open("ctr(aes)", { key: 42 });
// @ts-expect-error: a number is no IV
new EncryptionStream("ctr(aes)", { key: bytes, iv: 42 });
// @ts-expect-error: nor is it a source
encrypt("ctr(aes)", options, 42);
// @ts-expect-error: nor a string
encrypt("ctr(aes)", options, ["text"]);
// @ts-expect-error: nor bytes
handle.streamUpdate(42);
const keys: KernelKey[] = [{ type: "logon", description: "a:b" }, { serial: 42 }];
// @ts-expect-error: a key has a description or a serial number
keys.push({ type: "logon", description: "a:b", serial: 42 });
// @ts-expect-error: what looks like a pool is none
encrypt("ctr(aes)", { ...options, pool: { size: 2 } }, bytes);
// @ts-expect-error: a number of bytes is no any
for await (const chunk of encrypt("ctr(aes)", { ...options, pool: new WorkerPool(2) }, bytes)) chunk satisfies number;
`;

/**
 * Creates a directory for PATH with one runtime, npm for Node, bunx for Bun, and the programs of the tool's first line.
 */
async function pathWith(name: string, program: string): Promise<string> {
  const path = tempDir();
  const { stdout } = await spawn(["bash", "-c", "type -P bash sh env readlink npm npx"]);
  const [bash, sh, env, readlink, npm, npx] = stdout.trim().split("\n") as [
    string,
    string,
    string,
    string,
    string,
    string,
  ];
  const programs = {
    ...{ bash, sh, env, readlink },
    ...(program && { [name]: program }),
    ...(name === "node" && { npm, npx }),
    ...(name === "bun" && { bunx: program }),
  };
  for (const [name, target] of Object.entries(programs)) symlinkSync(target, join(path, name));
  return path;
}

/** The tool of an installed package names the optional package jose where it needs it, and uses it once it is there. */
async function checkOptionalJose(project: string): Promise<void> {
  const directory = tempDir();
  writeFileSync(join(directory, "in"), "attack at dawn");
  const packages = join(project, "node_modules");
  const entry = join(packages, "@kcapi/streams/dist/src/cli.js");
  const runtimes = [[NODES[0]!], [NODES[2]!], [join(bin, "bun")], [join(bin, "deno"), "run", "-A"]];
  const use = (runtime: string[], ...args: string[]) => spawn([...runtime, entry, ...args], { cwd: directory });
  for (const [i, runtime] of runtimes.entries()) {
    const { code, stdout } = await use(runtime, "keygen", "--type", "x25519", "-o", `${i}.jwk`);
    assertEquals(code, 0, runtime[0]);
    writeFileSync(join(directory, `${i}.pub`), stdout);
    const refused = await use(runtime, "seal", "--recipient", `${i}.pub`, "-i", "in", "-o", "no");
    assertEquals(refused.code, 1, runtime[0]);
    assertStringIncludes(refused.stderr, "need the package jose, which is not installed: npm install jose");
  }
  cpSync(realpathSync(join(root, "node_modules/jose")), join(packages, "jose"), { recursive: true });
  for (const [i, runtime] of runtimes.entries()) {
    const sealing = await use(runtime, "seal", "--recipient", `${i}.pub`, "-i", "in", "-o", `${i}.sealed`);
    assertEquals([sealing.code, sealing.stderr], [0, ""], runtime[0]);
    const { stdout } = await use(runtime, "unseal", "--identity", `${i}.jwk`, "-i", `${i}.sealed`);
    assertEquals(stdout, "attack at dawn", runtime[0]);
  }
  rmSync(join(packages, "jose"), { recursive: true });
}

test(
  "npm pack includes the compiled modules, their types and the documents, and the package runs on all runtimes",
  NPM,
  async () => {
    // Uses a copy, because packing compiles, and other processes may use the checkout.
    const checkout = join(tempDir(), "checkout");
    const documents = ["CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "package.json"];
    mkdirSync(checkout);
    for (const path of [...documents, "mod.ts"]) copyFileSync(join(root, path), join(checkout, path));
    for (const folder of ["ffi", "scripts", "src"]) {
      cpSync(join(root, folder), join(checkout, folder), { recursive: true });
    }
    symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"));
    const { version } = json("package.json");
    await shell("npm pack --offline --ignore-scripts=false", checkout);
    const tarball = join(checkout, `kcapi-streams-${version}.tgz`);

    const modules = ["mod.ts", ...sources()].map((path) => `package/dist/${path.slice(0, -".ts".length)}`);
    const expected = [
      ...documents.map((name) => `package/${name}`),
      "package/dist/before_typescript_5.7.d.ts",
      "package/dist/kcapi-streams.1",
      ...modules.flatMap((path) => [`${path}.js`, `${path}.d.ts`]),
    ];
    const packed = (await shell(`tar tzf '${tarball}'`, checkout)).trim().split("\n");
    assertEquals(packed.sort(), expected.sort());

    const project = join(dirname(checkout), "project");
    mkdirSync(project);
    writeFileSync(join(project, "package.json"), '{ "name": "project", "type": "module" }\n');
    writeFileSync(join(project, "use.ts"), USE);
    writeFileSync(join(project, "types.ts"), USE_TYPES);
    await shell(`npm install --offline --no-audit --no-fund '${tarball}'`, project);
    assertEquals(readdirSync(join(project, "node_modules")).filter((name) => !name.startsWith(".")), ["@kcapi"]);
    const output = `attack at dawn\n3\nwebcrypto attack at dawn\nkcapi-streams ${version}\n0\n`;
    assertEquals(await shell("bun use.ts", project), output);
    assertEquals(await shell("deno run --no-check -A use.ts", project), output);
    for (const node of NODES) {
      assertEquals(await shell(`${node} --disable-warning=ExperimentalWarning use.ts`, project), output, node);
    }

    // Workers: from the package, from a bundle with the worker module, and from a bundle without it.
    writeFileSync(join(project, "workers.ts"), USE_WORKERS);
    const count = "3000000\n";
    assertEquals(await shell("bun workers.ts", project), count);
    assertEquals(await shell("deno run --no-check -A workers.ts", project), count);
    for (const node of NODES) {
      assertEquals(await shell(`${node} --disable-warning=ExperimentalWarning workers.ts`, project), count, node);
    }
    const bundles = join(dirname(checkout), "bundles");
    const entry = join(project, "cipher_worker.ts");
    writeFileSync(entry, WORKER);
    await shell(`bun build workers.ts cipher_worker.ts --target bun --outdir '${bundles}/all'`, project);
    await shell(`bun build workers.ts --target bun --outdir '${bundles}/part'`, project);
    await shell(`bun build workers.ts cipher_worker.ts --target node --outdir '${bundles}/node'`, project);
    await shell(`bun build --compile workers.ts cipher_worker.ts --outfile '${bundles}/program'`, project);
    await shell(`bun build --compile workers.ts --outfile '${bundles}/part_of_it'`, project);
    const run = "--disable-warning=ExperimentalWarning node/workers.js";
    for (
      const command of [
        "bun all/workers.js",
        "./program",
        `'${NODES[2]}' ${run}`,
        "deno run -A node/workers.js",
      ]
    ) assertEquals(await shell(command, bundles), count, command);
    for (const command of ["bun part/workers.js", "./part_of_it"]) {
      assertStringIncludes(
        await shell(command, bundles),
        'an entry point cipher_worker.js that contains import "@kcapi/streams/worker"',
      );
    }
    rmSync(join(project, "workers.ts"));
    rmSync(entry);

    // The tool, with only one runtime in PATH.
    for (
      const [name, program, ...commands] of [
        ["node", NODES[2]!, "npx --offline @kcapi/streams", "npx --offline kcapi-streams"],
        ["node", NODES[0]!, "npx --offline kcapi-streams"],
        ["bun", join(bin, "bun"), "bunx kcapi-streams", "bunx @kcapi/streams"],
        ["deno", join(bin, "deno"), "deno run -A npm:@kcapi/streams/cli", "deno run -A npm:@kcapi/streams"],
      ] as const
    ) {
      const path = await pathWith(name, program);
      // A symbolic link, as a global installation creates it. Not every runtime resolves it.
      symlinkSync(join(project, "node_modules/.bin/kcapi-streams"), join(path, "kcapi-streams"));
      for (const command of [...commands, "node_modules/.bin/kcapi-streams", "kcapi-streams"]) {
        assertEquals(await shell(`${command} --version`, project, path), `kcapi-streams ${version}\n`, command);
        const { stdout } = await spawn(["bash", "--norc", "-c", `${command} doctor --json`], {
          cwd: project,
          env: { PATH: path },
        });
        assertEquals(JSON.parse(stdout).runtime.name, name, command);
      }
    }
    // PATH has nothing else, not even the other runtimes that the tool's first line looks for.
    for (const [name, program] of Object.entries({ node: NODES[2]!, bun: join(bin, "bun"), deno: join(bin, "deno") })) {
      const path = tempDir();
      symlinkSync(program, join(path, name));
      const { stdout, stderr } = await spawn([join(project, "node_modules/.bin/kcapi-streams"), "doctor", "--json"], {
        cwd: project,
        env: { PATH: path },
      });
      assertEquals([JSON.parse(stdout).runtime.name, stderr], [name, ""]);
    }
    await checkOptionalJose(project);
    const none = await spawn(["node_modules/.bin/kcapi-streams"], {
      cwd: project,
      env: { PATH: await pathWith("none", "") },
    });
    assertEquals([none.code, none.stderr], [127, "kcapi-streams: needs Bun, Deno or Node\n"]);
    assertEquals(readdirSync(project).sort(), [
      "node_modules",
      "package-lock.json",
      "package.json",
      "types.ts",
      "use.ts",
    ]);
    assert(existsSync(join(project, "node_modules/@kcapi/streams/dist/kcapi-streams.1")));

    // Types: without declarations of a runtime, and with each kind of module resolution.
    const tsc = "tsc --noEmit --strict --target esnext --lib esnext,dom --types ''";
    await shell(`${tsc} --module nodenext use.ts`, project);
    await shell(`${tsc} --module esnext --moduleResolution bundler use.ts`, project);
    // With old libraries and declarations, and without skipLibCheck.
    const old = "--noEmit --strict --target es2022 --lib es2022,dom --module esnext --moduleResolution bundler use.ts";
    await shell(`tsc --types '' ${old}`, project);
    // The oldest supported TypeScript, and the release before, for which unknown types are `any`.
    const typescript = (version: string) =>
      `'${join(root, "node_modules", `typescript-${version}`, "bin/tsc")}' --typeRoots none --skipLibCheck ${old}`;
    await shell(typescript("5.7"), project);
    const refusal = await shell(`! ${typescript("5.6")}`, project);
    assertStringIncludes(refusal, "has no exported member");
    // The configuration of `bun init`, with only the runtime's own declarations, and without skipLibCheck.
    const bunTypes = `--lib esnext --types bun --typeRoots '${join(root, "node_modules/@types")}'`;
    for (const types of ["--lib esnext,dom --types ''", bunTypes]) {
      const strict = `tsc --noEmit --strict --exactOptionalPropertyTypes --target esnext ${types}`;
      await shell(`${strict} --module preserve --moduleResolution bundler types.ts`, project);
    }
    // In a project for Node, with a copy of the vault.
    mkdirSync(join(project, "vault"));
    for (
      const name of ["conditions.ts", "handler.ts", "index.ts", "node.ts", "open_files.ts", "start.ts", "vault.ts"]
    ) {
      const source = readFileSync(join(root, "examples/vault", name), "utf8");
      writeFileSync(join(project, "vault", name), source.replace("../../mod.ts", "@kcapi/streams"));
    }
    const nodeTypes = `--lib esnext --types node --typeRoots '${join(root, "node_modules/@types")}'`;
    const strict = `tsc --noEmit --strict --exactOptionalPropertyTypes --target esnext ${nodeTypes} --module nodenext`;
    await shell(`${strict} --allowImportingTsExtensions use.ts types.ts vault/node.ts`, project);
    await shell("deno check use.ts types.ts", project);
  },
);

test("deno publish --dry-run succeeds, and publishes exactly the files of the package", JSR, async () => {
  const output = await shell("deno publish --dry-run --allow-dirty", root);
  assertStringIncludes(output, `Simulating publish of @kcapi/streams@${json("deno.json").version} with files:`);
  assert(!/warning/i.test(output), output);
  const files = [...output.matchAll(/file:\/\/(\S+) \(/g)].map(([, path]) => decodeURI(path!).slice(root.length));
  const documents = ["CHANGELOG.md", "LICENSE", "README.md", "SECURITY.md", "deno.json"];
  assertEquals(files.sort(), [...documents, "mod.ts", ...sources()].sort());
});

test("Workers of a module from a server like JSR need only the permission to import from it", JSR, async () => {
  const types = { "content-type": "application/typescript" };
  const server = createServer(({ url }, response) => {
    response.writeHead(200, types).end(readFileSync(join(root, url!)));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const host = `127.0.0.1:${(server.address() as { port: number }).port}`;
  const directory = tempDir();
  writeFileSync(join(directory, "workers.ts"), USE_WORKERS.replace("@kcapi/streams", `http://${host}/mod.ts`));
  const deno = `DENO_DIR='${directory}/cache' deno run -q --no-check --no-prompt --allow-import=${host}`;
  try {
    assertEquals(await shell(`${deno} workers.ts`, directory), "3000000\n");
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
});

test("the package imports only its own modules and built-in modules", JSR, async () => {
  const { modules } = JSON.parse(await shell("deno info --json src/cli.ts", root));
  const specifiers: string[] = modules.map(({ specifier }: { specifier: string }) => specifier);
  const isOwn = (specifier: string) => specifier.startsWith(new URL("..", import.meta.url).href);
  assertEquals(specifiers.filter((specifier) => !isOwn(specifier) && !/^(node|bun):/.test(specifier)), []);
  assert(specifiers.filter(isOwn).length > 20);
  const { dependencies, optionalDependencies, peerDependenciesMeta } = json("package.json");
  // `jose` is for the entry `envelope` alone.
  assertEquals([dependencies, optionalDependencies], [undefined, undefined]);
  assertEquals(peerDependenciesMeta, { jose: { optional: true } });
});

test("deno doc --lint finds documentation for all public symbols", JSR, async () => {
  await shell("deno doc --lint mod.ts src/cli.ts src/workers/cipher_worker.ts", root);
});

test("deno test --doc runs every example of the doc comments", JSR, async () => {
  // The import map replaces JSR, which not every machine can reach.
  const output = await shell("deno test --doc -A --import-map=tests/support/imports.json mod.ts src", root);
  const count = Number(/ok \| (\d+) passed/.exec(output)![1]);
  const examples = ["mod.ts", ...sources()]
    .map((path) => readFileSync(join(root, path), "utf8").match(/^[ *]*```ts$/gm)?.length ?? 0);
  assertEquals(count, examples.reduce((sum, n) => sum + n));
});
