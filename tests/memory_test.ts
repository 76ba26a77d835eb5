/**
 * Runs `children/checked.ts` with a libkcapi that checks each pointer argument. It needs no AF_ALG.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  runtime,
  runtimeArgv,
  spawn,
  type SpawnResult,
  tempDir,
  test,
} from "./support/deps.ts";

const SOURCE = fileURLToPath(new URL("./native/checking_kcapi.c", import.meta.url));
/** With a single-threaded collector, V8 frees all buffers in one collection. Otherwise it needs a second one. */
const COLLECT = { deno: ["--v8-flags=--single-threaded-gc"], bun: [], node: ["--single-threaded-gc"] }[runtime];
const CHILD = [...runtimeArgv, ...COLLECT, fileURLToPath(new URL("./children/checked.ts", import.meta.url))];

const hasCompiler = await spawn(["cc", "--version"]).then(({ code }) => code === 0, () => false);
/** The library of AddressSanitizer, which LD_PRELOAD must name. Undefined if the compiler has none. */
const SANITIZER = hasCompiler
  ? await spawn(["cc", "-print-file-name=libasan.so"]).then(({ stdout }) =>
    stdout.startsWith("/") ? stdout.trim() : undefined
  )
  : undefined;
// Not on the kernel engine, where the same test would run again, only slower.
const COMPILED = { engine: "userspace", needs: { "a C compiler": hasCompiler } } as const;

/** Compiles the library, once for each set of flags. */
const libraries = new Map<string, Promise<string>>();
function library(...flags: string[]): Promise<string> {
  const known = libraries.get(flags.join());
  if (known) return known;
  const path = join(tempDir(), "libkcapi.so.1");
  const compiled = spawn(["cc", "-O2", "-Wall", "-shared", "-fPIC", ...flags, "-o", path, SOURCE])
    .then(({ code, stderr }) => {
      assertEquals([code, stderr], [0, ""]);
      return path;
    });
  libraries.set(flags.join(), compiled);
  return compiled;
}

/** Runs the child, with a deliberate fault if one is named. */
async function run(fault = "", { sanitized = false } = {}): Promise<SpawnResult> {
  const env = sanitized
    ? {
      KCAPI_LIBRARY: await library("-g", "-fsanitize=address"),
      LD_PRELOAD: SANITIZER,
      ASAN_OPTIONS: "detect_leaks=0,handle_segv=0", // V8 handles SIGSEGV itself
    }
    : { KCAPI_LIBRARY: await library() };
  return await spawn([...CHILD, ...fault ? [fault] : []], { env, timeout: 110_000 });
}

function assertClean({ code, stdout, stderr }: SpawnResult): void {
  assertEquals([code, stderr], [0, ""]);
  assert(Number(stdout) > 1_000, `${stdout} calls were checked`);
}

test(
  "every pointer refers to live memory of the caller that is long enough, even after garbage collection",
  COMPILED,
  async () => {
    assertClean(await run());
  },
);

// The same with a fault in the calls: this proves that the test above can fail.
for (
  const [fault, found] of [
    ["freed", "changed since it was announced"],
    ["freed after the update", "changed since it was announced"],
    ["short IV", "an IV of 16 bytes is not in what was announced"],
    ["few entries", "a list of 1 entries, which is referred to after the call"],
    ["too long", "is not in what was announced"],
  ] as const
) {
  test(`the check detects a fault: ${fault}`, COMPILED, async () => {
    const { code, stderr } = await run(fault);
    assertEquals(code, 86, stderr);
    assertStringIncludes(stderr, found);
  });
}

// AddressSanitizer checks memory of malloc(3). Deno allocates buffers with it, Bun has its own allocator.
const SANITIZED = {
  engine: "userspace",
  runtime: "deno",
  needs: { "a C compiler": hasCompiler, AddressSanitizer: SANITIZER !== undefined },
} as const;

test("AddressSanitizer finds nothing in the memory of Deno", SANITIZED, async () => {
  assertClean(await run("", { sanitized: true }));
});

test("AddressSanitizer finds freed memory of Deno", SANITIZED, async () => {
  const { code, stderr } = await run("freed", { sanitized: true });
  assert(code !== 0);
  assertStringIncludes(stderr, "heap-use-after-free");
});
