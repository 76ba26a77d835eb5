/**
 * No pointer is wrong: `children/checked.ts` over a libkcapi that checks each one it is given. It needs no AF_ALG.
 */
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  engine,
  runtime,
  runtimeArgv,
  spawn,
  type SpawnResult,
  tempDir,
  test,
} from "./support/deps.ts";

const SOURCE = fileURLToPath(new URL("./native/checking_kcapi.c", import.meta.url));
/** In one thread, V8 has freed all buffers when a collection ends. Otherwise that takes a second collection. */
const COLLECT = { deno: ["--v8-flags=--single-threaded-gc"], bun: [], node: ["--single-threaded-gc"] }[runtime];
const CHILD = [...runtimeArgv, ...COLLECT, fileURLToPath(new URL("./children/checked.ts", import.meta.url))];

const hasCompiler = await spawn(["cc", "--version"]).then(({ code }) => code === 0, () => false);
/** The sanitizer's own library, which the runtime must be started with; undefined where the compiler has none. */
const SANITIZER = hasCompiler
  ? await spawn(["cc", "-print-file-name=libasan.so"]).then(({ stdout }) =>
    stdout.startsWith("/") ? stdout.trim() : undefined
  )
  : undefined;
// On the kernel engine's legs the same would run once more, and slower.
const checked = test.if(hasCompiler && engine === "userspace", "needs a C compiler, and is run in the userspace legs");

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

/** The child with a fault to commit, or with none. */
async function run(fault = "", { sanitized = false } = {}): Promise<SpawnResult> {
  const env = sanitized
    ? {
      KCAPI_LIBRARY: await library("-g", "-fsanitize=address"),
      LD_PRELOAD: SANITIZER,
      ASAN_OPTIONS: "detect_leaks=0,handle_segv=0", // V8 has uses for signals of its own
    }
    : { KCAPI_LIBRARY: await library() };
  return await spawn([...CHILD, ...fault ? [fault] : []], { env, timeout: 110_000 });
}

function assertClean({ code, stdout, stderr }: SpawnResult): void {
  assertEquals([code, stderr], [0, ""]);
  assert(Number(stdout) > 1_000, `${stdout} calls were checked`);
}

checked(
  "every pointer is into memory that is alive, the caller's, and long enough, whenever garbage is collected",
  async () => {
    assertClean(await run());
  },
);

// The same with a fault in the calls: what is found is not missed above.
for (
  const [fault, found] of [
    ["freed", "changed since it was announced"],
    ["freed after the update", "changed since it was announced"],
    ["short IV", "an IV of 16 bytes is not in what was announced"],
    ["few entries", "a list of 1 entries, which is referred to after the call"],
    ["too long", "is not in what was announced"],
  ] as const
) {
  checked(`the check finds a fault: ${fault}`, async () => {
    const { code, stderr } = await run(fault);
    assertEquals(code, 86, stderr);
    assertStringIncludes(stderr, found);
  });
}

// Deno has its buffers from malloc(3), which AddressSanitizer watches; Bun from an allocator of its own.
const sanitizable = hasCompiler && engine === "userspace" && runtime === "deno" && SANITIZER !== undefined;
const sanitized = test.if(sanitizable, "needs Deno and AddressSanitizer, and is run in the userspace legs");

sanitized("AddressSanitizer finds nothing in the memory of Deno", async () => {
  assertClean(await run("", { sanitized: true }));
});

sanitized("AddressSanitizer finds memory of Deno that was freed", async () => {
  const { code, stderr } = await run("freed", { sanitized: true });
  assert(code !== 0);
  assertStringIncludes(stderr, "heap-use-after-free");
});
