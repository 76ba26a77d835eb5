/**
 * The command line tool: encrypt and decrypt, the other commands, help and completions.
 */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createCipheriv, getCipherInfo, getCiphers } from "node:crypto";
import { truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { listCiphers, probe } from "../mod.ts";
import { IV, readBytes, run, runEach, tool, workspace } from "./support/cli_support.ts";
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStringIncludes,
  engine,
  runtime,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes, concat } from "./support/support.ts";

test("encrypt and decrypt give back the same file, with each kind of secret and IV", async () => {
  const { at } = await workspace();
  const key = ["--key-file", at("key")];
  const forms = [
    ["--passphrase-file", at("passphrase"), "--iter", "10"],
    ["--passphrase-file", at("passphrase"), "--iter", "10", "-c", "aes-128-ctr"],
    [...key, "--iv", IV],
    [...key, "--iv", IV.toUpperCase(), "-c", "aes-256-cbc"],
    [...key, "--iv-prefix", "-c", "ctr(aes)"],
    [...key, "-c", "ecb(aes)"],
    [...key, "-c", "xts(aes)", "--sector-size", "512", "--sector", "18446744073709551000"],
  ];
  // The largest is read into each of the tool's buffers, and into the first one again.
  for (const size of [0, 1, 15, 16, 17, 4095, 3_500_001]) {
    const plain = bytes(size, size);
    writeFileSync(at("in"), plain);
    for (const form of size > 10_000 ? forms.slice(0, 2) : forms) {
      if (form.includes("xts(aes)") && size % 512 < 16 && size % 512 > 0) continue; // a sector has at least 16 bytes
      await run("encrypt", "--engine", engine, ...form, "-i", at("in"), "-o", at("out"));
      await run("decrypt", "--engine", engine, ...form, "-i", at("out"), "-o", at("back"));
      assertEquals(readBytes(at("back")), plain, `${size} bytes, ${form.join(" ")}`);
    }
  }
});

test("--key-bits chooses the length of the key of a passphrase, as OpenSSL's names do", {
  engine: "userspace",
}, async () => {
  const { at, plain } = await workspace(1000);
  const passphrase = ["--passphrase-file", at("passphrase"), "--iter", "10", "--engine", engine];
  await run("encrypt", ...passphrase, "--key-bits", "192", "-i", at("plain"), "-o", at("192"));
  await run("decrypt", ...passphrase, "-c", "aes-192-cbc", "-i", at("192"), "-o", at("back"));
  assertEquals(readBytes(at("back")), plain);
  await run("encrypt", ...passphrase, "-i", at("plain"), "-o", at("256"));
  await run("decrypt", ...passphrase, "-c", "aes-256-cbc", "-i", at("256"), "-o", at("back"));
  assertEquals(readBytes(at("back")), plain);
});

test(
  "salts and IVs are random: the same input is never encrypted twice to the same output",
  { engine: "userspace" },
  async () => {
    const { at } = await workspace(1000);
    for (
      const form of [["--passphrase-file", at("passphrase"), "--iter", "1"], ["--key-file", at("key"), "--iv-prefix"]]
    ) {
      await run("encrypt", ...form, "-i", at("plain"), "-o", at("one"));
      await run("encrypt", ...form, "-i", at("plain"), "-o", at("two"));
      const [one, two] = [readBytes(at("one")), readBytes(at("two"))];
      assertEquals(one.length, two.length);
      assertNotEquals(
        Buffer.from(one.subarray(8, 16)).toString("hex"),
        Buffer.from(two.subarray(8, 16)).toString("hex"),
      );
      assertNotEquals(Buffer.from(one.subarray(16)).toString("hex"), Buffer.from(two.subarray(16)).toString("hex"));
    }
  },
);

test(
  "data goes from standard input to standard output, and secrets come from descriptors",
  { engine: "userspace" },
  async () => {
    const { at, plain } = await workspace(300_001);
    const quoted = tool.map((word) => `'${word}'`).join(" ");
    const script = `${quoted} encrypt --engine ${engine} --iter 10 --passphrase-fd 7 7<passphrase <plain |
    ${quoted} decrypt --engine ${engine} --iter 10 --passphrase-fd 8 8<passphrase |
    ${quoted} encrypt --engine ${engine} --key-fd 9 --iv ${IV} 9< <(cat key)`;
    const { code, output, stderr } = await spawn(["bash", "-c", `set -o pipefail; cd '${at("")}'; ${script}`]);
    assertEquals([code, stderr], [0, ""]);
    assertEquals(output, Buffer.from(readBytes(at("cbc"))));
    assertEquals(plain.length % 16, 1);
  },
);

test("OpenSSL's and WebCrypto's names of ciphers are accepted, with their key length", {
  engine: "userspace",
}, async () => {
  const { at } = await workspace(96);
  const names = [["aes256", "cbc(aes)"], ["AES-CTR", "ctr(aes)"], ["aes-256-ecb", "ecb(aes)"]];
  for (const [name = "", cipher = ""] of names) {
    const args = ["encrypt", "-i", at("plain"), "--key-file", at("key"), ...name.endsWith("ecb") ? [] : ["--iv", IV]];
    await run(...args, "-c", name, "-o", at("one"));
    await run(...args, "-c", cipher, "-o", at("other"));
    assertEquals(readBytes(at("one")), readBytes(at("other")));
  }
});

test(
  "a file that openssl enc made with other options is refused, and the error names the options",
  { engine: "userspace" },
  async () => {
    const { at, names } = await workspace(1000);
    const openssl = async (...args: string[]) => {
      const pass = ["-pbkdf2", "-pass", `file:${at("passphrase")}`, "-in", at("plain")];
      assertEquals((await spawn(["openssl", "enc", "-aes-256-cbc", ...pass, ...args])).code, 0);
    };
    // A fixed salt: with a random one, a wrong key finds good padding once in 256 times. OpenSSL 3 does not write it.
    const salt = "0102030405060708";
    await openssl("-out", at("bare"), "-S", salt);
    writeFileSync(at("default"), concat([Buffer.from("Salted__"), Buffer.from(salt, "hex"), readBytes(at("bare"))]));
    await openssl("-out", at("text"), "-a", "-S", salt);
    await openssl("-out", at("unsalted"), "-nosalt");
    const before = names();
    const options = ["--passphrase-file", "passphrase"];
    const results = await runEach([
      ["decrypt", ...options, "-i", "default", "-o", "new"],
      ["decrypt", ...options, "-c", "aes-256-ctr", "-i", "default", "-o", "new"],
      ["decrypt", ...options, "-i", "text", "-o", "new"],
      ["decrypt", ...options, "-i", "unsalted", "-o", "new"],
      ["decrypt", ...options, "-i", "default", "-o", "new", "--nosalt"],
      ["decrypt", ...options, "-i", "default", "-o", "new", "--kdf", "evp", "--md", "md5"],
      ["decrypt", ...options, "-i", "default", "-o", "new", "--base64"],
      ["decrypt", ...options, "-i", "default", "-o", "back", "--iter", "10000"],
    ], at(""));
    const says = [
      "try --iter 10000 (openssl enc -pbkdf2), or --kdf evp --md sha256 (openssl enc without -pbkdf2), or " +
      "--kdf evp --md md5 (OpenSSL before 1.1.0, CryptoJS and gibberish-aes)\n",
      "--iter 10000",
      "(--nosalt) or -S (--salt)",
      "(--nosalt) or -S (--salt)",
      'begins with "Salted__" and its salt: leave out --nosalt',
      "try --kdf pbkdf2 --iter 10000 --md sha256 (openssl enc -pbkdf2), or --kdf evp --md sha256 (openssl enc",
      "the input is not base64",
      "",
    ];
    const messages = results.map(({ stderr }) => stderr).join();
    assertEquals(results.map(({ code }) => code), [3, 2, 3, 3, 3, 3, 3, 0], messages);
    results.forEach(({ stderr }, i) => assertStringIncludes(stderr, says[i]!));
    assertEquals(names(), ["back", ...before]);
    assertEquals(readBytes(at("back")), readBytes(at("plain")));
  },
);

test("encrypt takes the names that ciphers shows as node:crypto does, with a key of their length only", {
  engine: "userspace",
}, async () => {
  const { at, plain } = await workspace(96);
  const [json] = await runEach([["ciphers", "--json"]], tempDir());
  const listed: { engines: string[]; opensslNames: string[] }[] = JSON.parse(json!.stdout);
  const names = listed.filter(({ engines }) => engines.includes("userspace")).flatMap((each) => each.opensslNames);
  const known = names.filter((name) => getCiphers().includes(name) && !/-(?:xts|gcm)$/.test(name));
  assert(known.includes("aes-256-cbc") && known.includes("des-ede3-cbc"), known.join());
  for (const name of known) {
    const { keyLength, ivLength = 0 } = getCipherInfo(name)!;
    const [key, iv] = [bytes(keyLength, 5), bytes(name.endsWith("-ecb") ? 0 : ivLength, 6)];
    writeFileSync(at("key"), key);
    const options = ["-c", name, "--key-file", at("key"), ...iv.length > 0 ? ["--iv", iv.toHex()] : []];
    await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
    const cipher = createCipheriv(name, key, iv.length > 0 ? iv : null);
    assertEquals(readBytes(at("ours")), concat([cipher.update(plain), cipher.final()]), name);
  }
  writeFileSync(at("key"), bytes(16));
  const [wrong, conflict] = await runEach([
    ["encrypt", "-c", "aes-256-cbc", "--key-file", "key", "--iv", IV, "-i", "plain", "-o", "new"],
    [
      "encrypt",
      "-c",
      "aes-256-cbc",
      "--key-bits",
      "128",
      "--passphrase-file",
      "passphrase",
      "-i",
      "plain",
      "-o",
      "new",
    ],
  ], at(""));
  assertEquals([wrong!.code, conflict!.code], [2, 2]);
  assertStringIncludes(wrong!.stderr, "the key has 16 bytes, aes-256-cbc takes 32");
  assertStringIncludes(conflict!.stderr, "aes-256-cbc takes a key of 256 bits, not of --key-bits 128");
});

test("the tool works with non-blocking descriptors", { engine: "userspace" }, async () => {
  const { at, plain } = await workspace(500_000);
  // Sets O_NONBLOCK on both ends, then is the tool; the neighbours are slow.
  const nonblocking =
    "use Fcntl; fcntl($_, F_SETFL, fcntl($_, F_GETFL, 0) | O_NONBLOCK) for *STDIN, *STDOUT; exec @ARGV";
  const script =
    `(sleep 0.5; cat cbc) | perl -e '${nonblocking}' "$@" decrypt --key-file key --iv ${IV} | (sleep 1; cat)`;
  const { code, output, stderr } = await spawn([
    "bash",
    "-c",
    `set -o pipefail; cd '${at("")}'; ${script}`,
    "-",
    ...tool,
  ]);
  assertEquals([code, stderr], [0, ""]);
  assertEquals(output, Buffer.from(plain));
});

test(
  "a slow reader and a slow writer give the same output",
  { engine: "userspace" },
  async () => {
    const { at } = await workspace(16);
    // The last pieces wait for the reader while chunks too small to give output pass, and the next ones are read.
    const drops = [65_536, 65_536, 5, 3, 65_536, 7, 65_536, 1];
    writeFileSync(at("in"), bytes(drops.reduce((sum, n) => sum + n)));
    const feed = drops.map((n) => `head -c ${n}; sleep 0.1`).join("; ");
    const script = `exec 3<in; { ${feed}; } <&3 | "$@" encrypt --key-file key --iv ${IV} | { sleep 2; cat; } >out`;
    const { code, stderr } = await spawn(["bash", "-c", `set -o pipefail; ${script}`, "-", ...tool], { cwd: at("") });
    assertEquals([code, stderr], [0, ""]);
    await run("encrypt", "-i", at("in"), "-o", at("at once"), "--key-file", at("key"), "--iv", IV);
    assertEquals(readBytes(at("out")), readBytes(at("at once")));
  },
);

test("memory does not grow with the input", { engine: "userspace" }, async () => {
  const { at } = await workspace(16);
  writeFileSync(at("small"), "");
  writeFileSync(at("large"), "");
  truncateSync(at("small"), 8 << 20);
  truncateSync(at("large"), 160 << 20);
  const args = (
    name: string,
  ) => [
    "encrypt",
    "--engine",
    engine,
    "-c",
    "ctr(aes)",
    "--key-file",
    "key",
    "--iv",
    IV,
    "-i",
    name,
    "-o",
    "/dev/null",
  ];
  const [small, large] = await runEach([args("small"), args("large")], at(""));
  assertEquals([small!.code, large!.code], [0, 0]);
  const growth = large!.memory - small!.memory;
  assert(growth < 64 << 20, `20 times the input took ${growth} bytes more`);
});

test("ciphers lists the ciphers of the engines, as a table and as JSON", async () => {
  const [table, json] = await runEach([["ciphers"], ["ciphers", "--json"]], tempDir());
  assertEquals([table!.code, json!.code], [0, 0]);
  probe(); // has the kernel load the usual modules here, too
  const ciphers = listCiphers().filter(({ engines }) => engines.length > 0);
  const listed: typeof ciphers = JSON.parse(json!.stdout);
  assertEquals(listed.map(({ name, engines }) => [name, engines]), ciphers.map(({ name, engines }) => [name, engines]));
  const rows = table!.stdout.split("\n").slice(1, -1).map((line) => line.trimEnd().split(/ {2,}/));
  assertEquals(rows.filter(([, , , , kernel, userspace]) => kernel !== "yes" && userspace !== "yes"), []);
  assertEquals(rows.map(([name]) => name), [...new Set(ciphers.map(({ name }) => name))]);
  assertEquals(rows.find(([name]) => name === "ctr(aes)")!.at(-1), "aes-128-ctr aes-192-ctr aes-256-ctr");
  const [, use, keyBits, ivBits, ...engines] = rows.find(([name]) => name === "xts(aes)")!;
  assertEquals([use, keyBits, ivBits], ["sectors", "256-512", "128"]);
  assertEquals(engines.slice(0, 2), [engine === "kernel" ? "yes" : engines[0], "yes"]);
});

test("doctor reports what works and the causes of problems, and exits with 1 without the kernel engine", async () => {
  const [text, json] = await runEach([["doctor"], ["doctor", "--json"]], tempDir());
  const report = probe();
  const isUsable = report.ciphers.kernel.length > 0;
  assert(isUsable || engine === "userspace");
  assertEquals([text!.code, json!.code], isUsable ? [0, 0] : [1, 1]);
  assertEquals(JSON.parse(json!.stdout).problems, report.problems);
  const words = text!.stdout.replace(/\s+/g, " ");
  assertStringIncludes(words, `The kernel engine is ${isUsable ? "usable." : "not usable; the userspace engine is."}`);
  assertStringIncludes(words, `libkcapi: ${report.library!.version}, ${report.library!.path}`);
  for (const { what, cause, remedy } of report.problems) {
    assertStringIncludes(words, `problem: ${what} why: ${cause} remedy: ${remedy}`);
  }
});

test("doctor exits with 1 if FFI is not permitted", { runtime: ["deno", "node"] }, async () => {
  const flags = runtime === "deno" ? ["run", "--no-prompt"] : ["--permission", "--allow-fs-read=*"];
  // By exec, or Deno's child_process would find the Deno in it and hand its permissions down.
  const { code, stdout } = await spawn(["sh", "-c", `exec '${tool[0]}' ${flags.join(" ")} '${tool.at(-1)}' doctor`]);
  assertEquals(code, 1);
  assertStringIncludes(stdout, "--allow-ffi");
});

test("speed measures both engines, and draws a chart", async () => {
  const args = ["speed", "--seconds", "0.02", "-c", "ctr(aes)", "-c", "xts(aes)", "-s", "4096", "-s", "100000"];
  const [chart, json, none] = await runEach(
    [args, [...args, "--json"], ["speed", "-c", "cbc(rot13)", "-s", "16"]],
    tempDir(),
  );
  assertEquals([chart!.code, json!.code, none!.code], [0, 0, 0]);
  const figures: { cipher: string; size: number; engine: string; rate?: number; error?: string }[] = JSON.parse(
    json!.stdout,
  );
  assertEquals(figures.length, 8);
  for (const { engine: measured, rate, error } of figures) {
    if (measured === engine || measured === "userspace") assert(rate! > 0, error);
    else assert(rate! > 0 || error !== undefined);
  }
  const bars = chart!.stdout.split("\n").filter((line) =>
    /^ +(4096 B|4 KiB|100000 B)? +(kernel|userspace) +[█#]+ +[\d.]+ MB\/s$/.test(line)
  );
  assertEquals(bars.length, figures.filter(({ rate }) => rate).length, chart!.stdout);
  assertEquals(none!.stdout.match(/not available: E[A-Z]+/g)?.length, 2, none!.stdout);
});

test(
  "the help of each command and the manual name all its options",
  { engine: "userspace" },
  async () => {
    const commands = [
      "seal",
      "unseal",
      "keygen",
      "encrypt",
      "decrypt",
      "ciphers",
      "doctor",
      "speed",
      "completions",
      "man",
    ];
    commands.push("help", "version");
    const [overview, manual, version, ...others] = await runEach(
      [
        ["--help"],
        ["man"],
        ["--version"],
        ...commands.map((name) => [name, "--help"]),
        ...commands.map((name) => ["help", name]),
        ...["-V", "version"].map((name) => [name]),
        ...["-h", "help"].map((name) => [name]),
      ],
      tempDir(),
    );
    const helps = others.slice(0, commands.length);
    assertEquals(others.slice(commands.length, -4).map(({ stdout }) => stdout), helps.map(({ stdout }) => stdout));
    const expected = [version, version, overview, overview].map((result) => result!.stdout);
    assertEquals(others.slice(-4).map(({ stdout }) => stdout), expected);
    assert(/^kcapi-streams \d+\.\d+\.\d+\n$/.test(version!.stdout));
    for (const [i, name] of commands.entries()) {
      const { code, stdout } = helps[i]!;
      const usage = `Usage: kcapi-streams ${name} [OPTION…]${name === "help" ? " [COMMAND]" : ""}`;
      assertEquals([code, stdout.split("\n")[0]], [0, usage]);
      assert(stdout.split("\n").every((line) => line.length <= 80), stdout);
      assertStringIncludes(overview!.stdout, `\n  ${name} `);
      for (const [option] of stdout.matchAll(/--[a-z-]+(?= )/g)) {
        assertStringIncludes(manual!.stdout, option.replaceAll("-", "\\-"));
      }
    }
    for (const code of [0, 1, 2, 3, 4, 129, 141]) assert(new RegExp(`^  ${code}\\b`, "m").test(overview!.stdout));
  },
);

const hasGroff = spawnSync("groff", ["--version"]).status === 0;

test(
  "groff formats the manual without a warning",
  { engine: "userspace", needs: { groff: hasGroff } },
  async () => {
    const [manual] = await runEach([["man"]], tempDir());
    const { code, stdout, stderr } = await spawn(["groff", "-man", "-ww", "-Tascii", "-P-c", "-P-bou"], {
      input: manual!.stdout,
    });
    assertEquals([code, stderr], [0, ""]);
    for (const heading of ["NAME", "SYNOPSIS", "COMMANDS", "EXIT STATUS", "EXAMPLES"]) {
      assertStringIncludes(stdout, heading);
    }
  },
);

test("bash completes commands, options, ciphers, engines and file names", { engine: "userspace" }, async () => {
  const directory = tempDir();
  writeFileSync(join(directory, "a file"), "");
  const [completions] = await runEach([["completions"]], directory);
  const cases: [words: string[], expected: string[]][] = [
    [["en"], ["encrypt"]],
    [["do"], ["doctor"]],
    [["encrypt", "--key-"], ["--key-file", "--key-fd", "--key-serial", "--key-bits"]],
    [["doctor", "--"], ["--json", "--help"]],
    [["encrypt", "--engine", "k"], ["kernel"]],
    [["encrypt", "-c", "ct"], ["ctr\\(aes\\)"]],
    [["decrypt", "--in", "a"], ["a file"]],
    [["decrypt", "--iv", ""], []],
    [["nonsense", "--"], []],
    [["help", "un"], ["unseal"]],
    [["he"], ["help"]],
  ];
  const script = [
    completions!.stdout,
    "compopt() { :; }", // works only while the shell completes
    ...cases.map(([words]) => {
      const quoted = ["kcapi-streams", ...words].map((word) => `'${word}'`).join(" ");
      return `COMP_WORDS=(${quoted}) COMP_CWORD=${words.length}; _kcapi_streams; printf '%s|' "\${COMPREPLY[@]}"; echo`;
    }),
  ].join("\n");
  const { code, stdout, stderr } = await spawn(["bash", "-eu"], { cwd: directory, input: script });
  assertEquals([code, stderr], [0, ""]);
  const expected = cases.map(([, replies]) => `${replies.join("|")}|\n`).join("");
  assertEquals(stdout, expected);
});
