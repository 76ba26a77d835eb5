/**
 * The tool's `keygen`, `seal` and `unseal`, and the completions for each shell.
 */
import { Buffer } from "node:buffer";
import { chmodSync, existsSync, readdirSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { basename, join } from "node:path";
import { openSealed } from "../mod.ts";
import { run, runEach, tool } from "./support/cli_support.ts";
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStringIncludes,
  engine,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes } from "./support/support.ts";

const KEY = bytes(32, 71);
const INPUT = bytes(200_000, 72);
const bytesOf = (path: string) => new Uint8Array(readFileSync(path));

/** A directory with a key, an input, and what is sealed of it. */
async function files(): Promise<(name: string) => string> {
  const directory = tempDir();
  const path = (name: string) => join(directory, name);
  writeFileSync(path("key"), KEY);
  writeFileSync(path("in"), INPUT);
  await run("seal", "--engine", engine, "--key-file", path("key"), "-i", path("in"), "-o", path("sealed"));
  return path;
}

test("seal and unseal: a file, which the API also opens", async () => {
  const path = await files();
  await run("unseal", "--engine", engine, "--key-file", path("key"), "-i", path("sealed"), "-o", path("out"));
  assertEquals(bytesOf(path("out")), INPUT);
  assertEquals(statSync(path("out")).mode & 0o777, 0o600);
  using file = await openSealed(new Blob([bytesOf(path("sealed"))]), { key: KEY });
  assertEquals(await file.bytes(), INPUT);
});

test("seal and unseal: pipes, a format by name, associated data", { engine: "userspace" }, async () => {
  const path = await files();
  for (const format of ["AES128_CTR_HMAC_SHA256_4KB", "AES256_GCM_HKDF_1MB"]) {
    const options = ["--key-file", path("key"), "--format", format, "--associated-data", "a name"];
    const { code, output, stderr } = await spawn([...tool, "seal", ...options], { input: INPUT });
    assertEquals([code, stderr], [0, ""]);
    const opened = await spawn([...tool, "unseal", ...options], { input: output });
    assertEquals(opened.code, 0);
    assertEquals(new Uint8Array(opened.output), INPUT);
    const other = await spawn([...tool, "unseal", ...options.slice(0, -1), "another"], { input: output });
    assertEquals([other.code, other.output.length], [3, 0]);
    assertStringIncludes(other.stderr, "does not verify");
  }
});

test("data that cannot be verified ends with 3, and no file appears", { engine: "userspace" }, async () => {
  const path = await files();
  const sealed = bytesOf(path("sealed"));
  writeFileSync(path("cut"), sealed.subarray(0, -1));
  writeFileSync(path("cut-at-segment"), sealed.subarray(0, 131_072));
  writeFileSync(path("changed"), sealed.map((byte, i) => i === 150_000 ? byte ^ 1 : byte));
  writeFileSync(path("empty"), "");
  writeFileSync(path("other-key"), bytes(32, 5));
  writeFileSync(path("kept"), "what was there");
  const lists = ["cut", "cut-at-segment", "changed", "empty"].map((
    name,
  ) => ["--key-file", path("key"), "-i", path(name)]);
  lists.push(["--key-file", path("other-key"), "-i", path("sealed")]);
  for (const out of ["new", "kept"]) {
    const results = await runEach(lists.map((list) => ["unseal", ...list, "-o", path(out)]), path("."));
    for (const { code, stderr } of results) {
      assertEquals(code, 3, stderr);
      assertStringIncludes(stderr, "wrong key, associated data or format, or it is damaged or cut short");
    }
  }
  assert(!existsSync(path("new")));
  assertEquals(readFileSync(path("kept"), "utf8"), "what was there");
  // To a pipe what came before is written, and the exit code tells.
  const { code, output } = await spawn([...tool, "unseal", "--key-file", path("key"), "-i", path("changed")]);
  assertEquals(code, 3);
  assertEquals(new Uint8Array(output), INPUT.subarray(0, output.length));
});

test("unseal --range writes the bytes of a range, counted as in HTTP", { engine: "userspace" }, async () => {
  const path = await files();
  const ranges: Record<string, [number, number]> = {
    "0-0": [0, 1],
    "65000-70000": [65_000, 70_001],
    "199999-": [199_999, 200_000],
    "100-9999999": [100, 200_000],
    "-10": [199_990, 200_000],
    "-300000": [0, 200_000],
  };
  for (const [range, [start, end]] of Object.entries(ranges)) {
    await run("unseal", "--key-file", path("key"), "-i", path("sealed"), "-o", path("out"), `--range=${range}`);
    assertEquals(bytesOf(path("out")), INPUT.slice(start, end), range);
  }
  const bad = ["200000-", "-0", "5-4", "-", "x", "1-2,4-5", ""].map((
    range,
  ) => [`--range=${range}`, "-i", path("sealed")]);
  bad.push(["--range=0-1"]);
  const lists = bad.map((list) => ["unseal", "--key-file", path("key"), ...list, "-o", path("none")]);
  for (const { code, stderr } of await runEach(lists, path("."))) {
    assertEquals(code, 2);
    assertStringIncludes(stderr, "--range");
  }
  assert(!existsSync(path("none")));
  // Another segment may be damaged.
  writeFileSync(path("changed"), bytesOf(path("sealed")).map((byte, i) => i === 5000 ? byte ^ 1 : byte));
  await run("unseal", "--key-file", path("key"), "-i", path("changed"), "-o", path("out"), "--range=70000-70009");
  assertEquals(bytesOf(path("out")), INPUT.slice(70_000, 70_010));
});

test(
  "keygen makes a new key each time, which only the user can read, and replaces no file",
  { engine: "userspace" },
  async () => {
    const path = await files();
    const results = await runEach([
      ["keygen", "-o", path("new")],
      ["keygen", "-o", path("new")],
      ["keygen", "--bits", "128", "-o", path("short")],
      ["keygen", "--bits", "12", "-o", path("odd")],
      ["keygen", "-o", path("missing/key")],
    ], path("."));
    assertEquals(results.map(({ code }) => code), [0, 1, 0, 2, 1]);
    assertEquals([bytesOf(path("new")).length, bytesOf(path("short")).length], [32, 16]);
    assertEquals(statSync(path("new")).mode & 0o777, 0o600);
    assert(!existsSync(path("odd")));
    const { code, output } = await spawn([...tool, "keygen"]);
    assertEquals([code, output.length], [0, 32]);
    assertNotEquals(new Uint8Array(output), bytesOf(path("new")));
  },
);

test("the first byte distinguishes data that was never sealed from a format with another key length", {
  engine: "userspace",
}, async () => {
  const path = await files();
  const key = ["--key-file", path("key"), "-o", path("out")];
  const results = await runEach([
    ["unseal", ...key, "-i", path("in")],
    ["unseal", ...key, "-i", path("in"), "--range=0-9"],
    ["unseal", ...key, "-i", path("sealed"), "--format", "AES128_GCM_HKDF_4KB"],
    ["unseal", ...key, "-i", path("sealed"), "--format", "AES128_CTR_HMAC_SHA256_64KB", "--range=0-9"],
  ], path("."));
  const says = [
    "/in was not sealed: its first byte is not that of a header",
    "/in was not sealed: its first byte is not that of a header",
    "/sealed was sealed in a format of AES-256, not of AES-128: use another --format",
    "/sealed was sealed in a format of AES-256, not of AES-128: use another --format",
  ];
  results.forEach(({ code, stderr }, i) => {
    assertEquals(code, 3);
    assertStringIncludes(stderr, says[i]!);
  });
});

test("keygen writes the whole key or no file, and syncs the directory", { engine: "userspace" }, async () => {
  const directory = tempDir();
  // 1,024 of the 4,096 bytes can be written. In Bun and Node, SIGXFSZ is ignored anyway.
  const limited = `trap "" XFSZ; ulimit -f 1; exec "$@" keygen --bits 32768 -o cut`;
  const { code, stderr } = await spawn(["bash", "-c", limited, "-", ...tool], { cwd: directory });
  assertEquals([code, stderr], [1, "kcapi-streams: cannot write cut: file too large\n"]);
  assertEquals(readdirSync(directory), []);
});

const hasStrace = await spawn(["strace", "-o", "/dev/null", "true"]).then(({ code }) => code === 0, () => false);

test(
  "keygen and seal sync the file and then the directory",
  { engine: "userspace", needs: { strace: hasStrace } },
  async () => {
    const path = await files();
    const calls = async (args: string[]) => {
      const trace = ["strace", "-fyo", path("trace"), "-e", "trace=fsync,rename,renameat,renameat2"];
      assertEquals((await spawn([...trace, ...tool, ...args])).code, 0);
      // Deno syncs files of its own, too.
      const lines = readFileSync(path("trace"), "utf8").split("\n").filter((line) => line.includes(path(".")));
      return lines.map((line) => /(fsync|rename).*\/([^/>]*)[>"]/.exec(line)!.slice(1));
    };
    const directory = basename(path("."));
    assertEquals(await calls(["keygen", "-o", path("new")]), [["fsync", "new"], ["fsync", directory]]);
    const [first, ...others] = await calls(["seal", "--key-file", path("key"), "-i", path("in"), "-o", path("out")]);
    assertEquals(first![0], "fsync");
    assertEquals(others, [["rename", "out"], ["fsync", directory]]);
  },
);

test("descriptors that the tool was not started with are refused as a key, of any kind", {
  engine: "userspace",
}, async () => {
  const path = await files();
  const numbers = Array.from({ length: 60 }, (_, i) => String(i + 3));
  const results = await runEach(
    numbers.map((fd) => ["seal", "--key-fd", fd, "-i", path("in"), "-o", path("new")]),
    path("."),
  );
  for (const [i, { code, stderr }] of results.entries()) {
    assertEquals([code, existsSync(path("new"))], [2, false], `descriptor ${numbers[i]}: ${stderr}`);
  }
  // A key that is the input, by any name.
  symlinkSync("key", path("link"));
  const script = `exec "$@" seal --key-fd 7 -i key -o new 7<link`;
  const { code, stderr } = await spawn(["sh", "-c", script, "-", ...tool], { cwd: path(".") });
  assertEquals([code, stderr], [1, "kcapi-streams: cannot read key: it is the key\n"]);
});

test(
  "associated data that is not UTF-8 comes from a file, and is refused on the command line",
  { engine: "userspace" },
  async () => {
    const path = await files();
    writeFileSync(path("name"), Uint8Array.of(0xff));
    writeFileSync(path("other"), Uint8Array.of(0xfe));
    writeFileSync(path("long"), bytes((1 << 20) + 1));
    const key = ["--key-file", path("key")];
    await run("seal", ...key, "-i", path("in"), "-o", path("bound"), "--associated-data-file", path("name"));
    await run("unseal", ...key, "-i", path("bound"), "-o", path("out"), "--associated-data-file", path("name"));
    assertEquals(bytesOf(path("out")), INPUT);
    const unseal = ["unseal", ...key, "-i", path("bound"), "-o", path("out")];
    const [other, both, long] = await runEach([
      [...unseal, "--associated-data-file", path("other")],
      [...unseal, "--associated-data-file", path("name"), "--associated-data", "x"],
      [...unseal, "--associated-data-file", path("long")],
    ], path("."));
    assertEquals([other!.code, both!.code, long!.code], [3, 2, 2]);
    assertStringIncludes(both!.stderr, "--associated-data and --associated-data-file exclude each other");
    assertStringIncludes(long!.stderr, "at most 1048576 bytes");
    for (const option of ["associated-data", "in", "out", "key-file"]) {
      const script = `exec "$@" --${option} "$(printf '\\377')"`;
      const result = await spawn(["bash", "-c", script, "-", ...tool, "seal"], { cwd: path(".") });
      assertEquals(result.code, 2);
      assertStringIncludes(result.stderr, `--${option} expects UTF-8`);
    }
  },
);

test("seal refuses no key, a short key, the input as output and an unknown format", {
  engine: "userspace",
}, async () => {
  const path = await files();
  writeFileSync(path("short"), bytes(16));
  writeFileSync(path("zeros"), new Uint8Array(32));
  writeFileSync(path("hex"), `${Buffer.from(KEY).toString("hex")}\r\n`);
  writeFileSync(path("base64"), `${Buffer.from(KEY).toString("base64")}\n`);
  const lists: [string[], number, string][] = [
    [["seal", "--key-file", path("zeros"), "-i", path("in"), "-o", path("x")], 2, "--key-file has only zero bytes"],
    [["unseal", "--key-file", path("zeros"), "-i", path("sealed"), "-o", path("x")], 2, "has only zero bytes"],
    [["seal", "--key-file", path("hex"), "-i", path("in"), "-o", path("x")], 2, "is a line of hexadecimal digits"],
    [["seal", "--key-file", path("base64"), "-i", path("in"), "-o", path("x")], 2, "is a line of base64"],
    [["seal", "-i", path("in"), "-o", path("x")], 2, "keygen"],
    [["seal", "--key-file", path("short"), "-i", path("in"), "-o", path("x")], 2, "at least 32 bytes, got 16"],
    [
      ["unseal", "--key-file", path("short"), "-i", path("in"), "-o", path("x"), "--range=0-1"],
      2,
      "at least 32 bytes",
    ],
    [["seal", "--key-file", path("key"), "-i", path("in"), "-o", path("in")], 1, "it is the input"],
    [["seal", "--key-file", path("key"), "-i", path("in"), "-o", path("key")], 1, "it is the key"],
    [["seal", "--key-file", path("key"), "-i", path("none"), "-o", path("x")], 1, "cannot open"],
    [
      ["seal", "--key-file", path("key"), "--format", "AES", "-i", path("in"), "-o", path("x")],
      2,
      "--format expects",
    ],
    [
      [
        "seal",
        "--key-file",
        path("key"),
        "--format",
        "AES128_GCM_HKDF_4KB",
        "--engine",
        "kernel",
        "-i",
        path("in"),
        "-o",
        path("x"),
      ],
      2,
      "AES-CTR-HMAC",
    ],
  ];
  const results = await runEach(lists.map(([list]) => list), path("."));
  results.forEach(({ code, stderr }, i) => {
    assertEquals(code, lists[i]![1], stderr);
    assertStringIncludes(stderr, lists[i]![2]);
  });
  assert(!existsSync(path("x")));
  assertEquals(bytesOf(path("in")), INPUT);
});

// ---- Completions ------------------------------------------------------------------------------------------------

const has = async (shell: string) => await spawn([shell, "-c", ":"]).then(({ code }) => code === 0, () => false);

/** A script of `shell` with the completions in front. */
async function complete(shell: string, script: string): Promise<string> {
  const file = join(tempDir(), "script");
  const completions = (await spawn([...tool, "completions", "--shell", shell])).stdout;
  writeFileSync(file, `${completions}\n${script}`);
  chmodSync(file, 0o700);
  const { code, stdout, stderr } = await spawn([shell, file], { env: { HOME: tempDir(), LC_ALL: "C" } });
  assertEquals([code, stderr], [0, ""]);
  return stdout;
}

test("fish completes commands, options and the names of ciphers", {
  engine: "userspace",
  needs: { fish: await has("fish") },
}, async () => {
  const lines = async (line: string) =>
    (await complete("fish", `complete -C '${line}'`)).split("\n").map((each) => each.split("\t")[0]);
  assertEquals((await lines("kcapi-streams un")).filter(Boolean), ["unseal"]);
  assert((await lines("kcapi-streams encrypt --cip")).includes("--cipher"));
  assert((await lines("kcapi-streams encrypt --cipher ")).includes("cbc(aes)"));
  assert(!(await lines("kcapi-streams seal --")).includes("--padding"));
});

test("zsh completes commands, options and the names of ciphers", {
  engine: "userspace",
  needs: { zsh: await has("zsh") },
}, async () => {
  // What _describe and _arguments are given; their own work takes a terminal.
  const script = `
_describe() { print -rl -- "\${(@P)2}"; }
_arguments() { print -rl -- "$@"; }
words=(kcapi-streams un); CURRENT=2; _kcapi_streams
words=(kcapi-streams encrypt --cip); CURRENT=3; _kcapi_streams
`;
  const file = join(tempDir(), "script");
  const completions = (await spawn([...tool, "completions", "--shell", "zsh"])).stdout;
  writeFileSync(file, `compdef() { :; }\n${completions}\n${script}`);
  const { code, stdout, stderr } = await spawn(["zsh", "-f", file]);
  assertEquals([code, stderr], [0, ""]);
  assertStringIncludes(stdout, "unseal:verifies");
  assertStringIncludes(stdout, "--cipher[");
  assertStringIncludes(stdout, "cbc\\(aes\\)");
});

test("completions for bash are the default, and another shell is refused", { engine: "userspace" }, async () => {
  const [bash, named, other] = await runEach([["completions"], ["completions", "--shell", "bash"], [
    "completions",
    "--shell",
    "csh",
  ]], tempDir());
  assertEquals(bash!.stdout, named!.stdout);
  assertEquals([other!.code, other!.stdout], [2, ""]);
});
