/**
 * The command line tool: its files, its exit codes, its words, and what it leaves behind.
 */
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn as spawnProcess, spawnSync } from "node:child_process";
import { pbkdf2Sync } from "node:crypto";
import {
  chmodSync,
  chownSync,
  constants as fsConstants,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { open } from "node:fs/promises";
import { constants } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { setTimeout as delay } from "node:timers/promises";
import { listCiphers, probe } from "../mod.ts";
import { independent, run, runEach, tool } from "./cli_support.ts";
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
} from "./deps.ts";
import { type Bytes, bytes, concat, reference } from "./support.ts";

const NO_THROW = { throwIfNoEntry: false } as const;
const IV = "000102030405060708090a0b0c0d0e0f";

interface Place {
  /** A path in the directory. */
  at: (name: string) => string;
  /** The names in it. */
  names: () => string[];
  plain: Bytes;
}

/** A directory with a key, a passphrase and a plaintext; `cbc` is that under the key, `salted` under the passphrase. */
async function place(size = 100_000): Promise<Place> {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const plain = bytes(size);
  writeFileSync(at("plain"), plain);
  writeFileSync(at("key"), bytes(32, 2));
  writeFileSync(at("passphrase"), "correct horse\nbattery staple\n");
  await run("encrypt", "-i", at("plain"), "-o", at("cbc"), "--key-file", at("key"), "--iv", IV, "--engine", engine);
  // With a salt that is always the same: with a random one, a wrong passphrase finds good padding once in 256 times.
  const salt = bytes(8, 4);
  const derived = new Uint8Array(pbkdf2Sync("correct horse", salt, 10, 48, "sha256"));
  const options = { key: derived.slice(0, 32), iv: derived.slice(32), padding: "pkcs7" } as const;
  writeFileSync(
    at("salted"),
    concat([Buffer.from("Salted__"), salt, reference("encrypt", "cbc(aes)", options, plain)]),
  );
  return { at, names: () => readdirSync(directory).sort(), plain };
}

function read(path: string): Bytes {
  return new Uint8Array(readFileSync(path));
}

// ---- What works ---------------------------------------------------------------------------------------------------

test("encrypt and decrypt give any file back, with each kind of secret and IV", async () => {
  const { at } = await place();
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
      assertEquals(read(at("back")), plain, `${size} bytes, ${form.join(" ")}`);
    }
  }
});

independent("--key-bits chooses the length of the key that a passphrase gives, OpenSSL's names the same", async () => {
  const { at, plain } = await place(1000);
  const passphrase = ["--passphrase-file", at("passphrase"), "--iter", "10", "--engine", engine];
  await run("encrypt", ...passphrase, "--key-bits", "192", "-i", at("plain"), "-o", at("192"));
  await run("decrypt", ...passphrase, "-c", "aes-192-cbc", "-i", at("192"), "-o", at("back"));
  assertEquals(read(at("back")), plain);
  await run("encrypt", ...passphrase, "-i", at("plain"), "-o", at("256"));
  await run("decrypt", ...passphrase, "-c", "aes-256-cbc", "-i", at("256"), "-o", at("back"));
  assertEquals(read(at("back")), plain);
});

independent("salts and IVs are random: the same input is never encrypted twice to the same output", async () => {
  const { at } = await place(1000);
  for (
    const form of [["--passphrase-file", at("passphrase"), "--iter", "1"], ["--key-file", at("key"), "--iv-prefix"]]
  ) {
    await run("encrypt", ...form, "-i", at("plain"), "-o", at("one"));
    await run("encrypt", ...form, "-i", at("plain"), "-o", at("two"));
    const [one, two] = [read(at("one")), read(at("two"))];
    assertEquals(one.length, two.length);
    assertNotEquals(Buffer.from(one.subarray(8, 16)).toString("hex"), Buffer.from(two.subarray(8, 16)).toString("hex"));
    assertNotEquals(Buffer.from(one.subarray(16)).toString("hex"), Buffer.from(two.subarray(16)).toString("hex"));
  }
});

independent("data goes from standard input to standard output, secrets come from descriptors", async () => {
  const { at, plain } = await place(300_001);
  const quoted = tool.map((word) => `'${word}'`).join(" ");
  const script = `${quoted} encrypt --engine ${engine} --iter 10 --passphrase-fd 7 7<passphrase <plain |
    ${quoted} decrypt --engine ${engine} --iter 10 --passphrase-fd 8 8<passphrase |
    ${quoted} encrypt --engine ${engine} --key-fd 9 --iv ${IV} 9< <(cat key)`;
  const { code, output, stderr } = await spawn(["bash", "-c", `set -o pipefail; cd '${at("")}'; ${script}`]);
  assertEquals([code, stderr], [0, ""]);
  assertEquals(output, Buffer.from(read(at("cbc"))));
  assertEquals(plain.length % 16, 1);
});

independent(
  "OpenSSL's and WebCrypto's names of ciphers are those of the kernel, with the length of the key",
  async () => {
    const { at } = await place(96);
    const names = [["aes256", "cbc(aes)"], ["AES-CTR", "ctr(aes)"], ["aes-256-ecb", "ecb(aes)"]];
    for (const [name = "", cipher = ""] of names) {
      const args = ["encrypt", "-i", at("plain"), "--key-file", at("key"), ...name.endsWith("ecb") ? [] : ["--iv", IV]];
      await run(...args, "-c", name, "-o", at("one"));
      await run(...args, "-c", cipher, "-o", at("other"));
      assertEquals(read(at("one")), read(at("other")));
    }
  },
);

independent("what openssl enc made without -iter, with -a or with -nosalt is refused with what to do", async () => {
  const { at, names } = await place(1000);
  const openssl = async (...args: string[]) => {
    const pass = ["-pbkdf2", "-pass", `file:${at("passphrase")}`, "-in", at("plain")];
    assertEquals((await spawn(["openssl", "enc", "-aes-256-cbc", ...pass, ...args])).code, 0);
  };
  // A fixed salt: with a random one, a wrong key finds good padding once in 256 times. OpenSSL 3 does not write it.
  const salt = "0102030405060708";
  await openssl("-out", at("bare"), "-S", salt);
  writeFileSync(at("default"), concat([Buffer.from("Salted__"), Buffer.from(salt, "hex"), read(at("bare"))]));
  await openssl("-out", at("text"), "-a");
  await openssl("-out", at("unsalted"), "-nosalt");
  const before = names();
  const options = ["--passphrase-file", "passphrase"];
  const results = await runEach([
    ["decrypt", ...options, "-i", "default", "-o", "new"],
    ["decrypt", ...options, "-c", "aes-256-ctr", "-i", "default", "-o", "new"],
    ["decrypt", ...options, "-i", "text", "-o", "new"],
    ["decrypt", ...options, "-i", "unsalted", "-o", "new"],
    ["decrypt", ...options, "-i", "default", "-o", "back", "--iter", "10000"],
  ], at(""));
  const says = ["--iter 10000", "--iter 10000", "decode it first, with openssl base64 -d", "-nosalt", ""];
  assertEquals(results.map(({ code }) => code), [3, 2, 3, 3, 0], results.map(({ stderr }) => stderr).join());
  results.forEach(({ stderr }, i) => assertStringIncludes(stderr, says[i]!));
  assertEquals(names(), ["back", ...before]);
  assertEquals(read(at("back")), read(at("plain")));
});

independent("data goes through descriptors that do not block", async () => {
  const { at, plain } = await place(500_000);
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

independent("a slow reader gets what it would have got at once, in whatever drops the input comes", async () => {
  const { at } = await place(16);
  // The last pieces wait for the reader while chunks too small to give output pass, and the next ones are read.
  const drops = [65_536, 65_536, 5, 3, 65_536, 7, 65_536, 1];
  writeFileSync(at("in"), bytes(drops.reduce((sum, n) => sum + n)));
  const feed = drops.map((n) => `head -c ${n}; sleep 0.1`).join("; ");
  const script = `exec 3<in; { ${feed}; } <&3 | "$@" encrypt --key-file key --iv ${IV} | { sleep 2; cat; } >out`;
  const { code, stderr } = await spawn(["bash", "-c", `set -o pipefail; ${script}`, "-", ...tool], { cwd: at("") });
  assertEquals([code, stderr], [0, ""]);
  await run("encrypt", "-i", at("in"), "-o", at("at once"), "--key-file", at("key"), "--iv", IV);
  assertEquals(read(at("out")), read(at("at once")));
});

independent("memory does not grow with the input", async () => {
  const { at } = await place(16);
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

// ---- Files --------------------------------------------------------------------------------------------------------

independent("a new ciphertext has the umask's permissions, a new plaintext is the user's alone", async () => {
  const { at } = await place(16);
  const before = process.umask(0o027);
  try {
    await run("encrypt", "-i", at("plain"), "-o", at("c"), "--key-file", at("key"), "--iv", IV);
    await run("decrypt", "-i", at("c"), "-o", at("p"), "--key-file", at("key"), "--iv", IV);
  } finally {
    process.umask(before);
  }
  assertEquals(statSync(at("c")).mode & 0o777, 0o640);
  assertEquals(statSync(at("p")).mode & 0o777, 0o600);
});

independent("a file that is replaced keeps its permissions, a symbolic link to it stays one", async () => {
  const { at, plain } = await place(1000);
  writeFileSync(at("old"), "old");
  chmodSync(at("old"), 0o664);
  symlinkSync("old", at("link"));
  await run("decrypt", "-i", at("cbc"), "-o", at("link"), "--key-file", at("key"), "--iv", IV, "--engine", engine);
  assert(lstatSync(at("link")).isSymbolicLink());
  assertEquals(statSync(at("old")).mode & 0o777, 0o664);
  assertEquals(read(at("old")), plain);
});

independent("a run that is refused or fails says why in one line, and leaves every file as it was", async () => {
  const { at, names } = await place();
  mkdirSync(at("directory"));
  writeFileSync(at("old"), "old");
  symlinkSync("plain", at("symlink"));
  linkSync(at("plain"), at("hardlink"));
  symlinkSync("nowhere", at("dangling"));
  writeFileSync(at("cut"), read(at("cbc")).subarray(0, 50_000));
  writeFileSync(at("odd"), read(at("cbc")).subarray(0, 50_001));
  writeFileSync(at("salt cut"), "Salted__1234");
  writeFileSync(at("wrong key"), bytes(32, 3));
  writeFileSync(at("long key"), bytes(33, 3));
  writeFileSync(at("no key"), bytes(5000));
  writeFileSync(at("base64"), Buffer.from(read(at("salted"))).toString("base64"));
  writeFileSync(at("hex key"), `${"0f".repeat(32)}\n`);
  writeFileSync(at("empty"), "");
  writeFileSync(at("too long"), "x".repeat(1024));
  writeFileSync(at("zero"), "a\0b\n");
  const key = ["--key-file", "key", "--iv", IV, "--engine", engine];
  const passphrase = ["--passphrase-file", "passphrase", "--iter", "10", "--engine", engine];
  const files = ["-i", "plain", "-o", "new"];
  const cases: [args: string[], code: number, says: string][] = [
    // Files
    [["encrypt", ...key, "-i", "missing", "-o", "new"], 1, "cannot open missing: no such file or directory"],
    [["encrypt", ...key, "-i", "directory", "-o", "new"], 1, "cannot read directory: it is a directory"],
    [["encrypt", ...key, "-i", "plain", "-o", "directory"], 1, "cannot write directory: it is a directory"],
    [["encrypt", ...key, "-i", "plain", "-o", "missing/new"], 1, "cannot write missing/new: no such file or directory"],
    [["encrypt", ...key, "-i", "plain", "-o", "plain/new"], 1, "cannot write plain/new: not a directory"],
    [["encrypt", ...key, "-i", "plain", "-o", "plain"], 1, "cannot write plain: it is the input"],
    [["encrypt", ...key, "-i", "plain", "-o", "./directory/../plain"], 1, "it is the input"],
    [["encrypt", ...key, "-i", "plain", "-o", "symlink"], 1, "cannot write symlink: it is the input"],
    [["encrypt", ...key, "-i", "symlink", "-o", "hardlink"], 1, "cannot write hardlink: it is the input"],
    [["encrypt", ...key, "-i", "plain", "-o", "key"], 1, "cannot write key: it is the key"],
    [["encrypt", ...passphrase, "-i", "plain", "-o", "passphrase"], 1, "cannot write passphrase: it is the passphrase"],
    [["encrypt", ...key, "-i", "plain", "-o", "old", "--no-clobber"], 1, "cannot write old: it exists"],
    [["encrypt", ...key, "-i", "plain", "-o", "dangling", "--no-clobber"], 1, "cannot write dangling: it exists"],
    [["encrypt", ...key, "-i", "plain", "-o", "/dev/full"], 1, "cannot write /dev/full: no space left on device"],
    [["encrypt", "--key-file", "missing", "--iv", IV, ...files], 1, "cannot open missing: no such file or directory"],
    [
      ["encrypt", "--key-file", "directory", "--iv", IV, ...files],
      1,
      "cannot read --key-file: illegal operation on a directory",
    ],
    [["encrypt", "--key-fd", "987", "--iv", IV, ...files], 2, "the tool was not started with a descriptor 987 to read"],
    [["encrypt", "--key-file", "plain", "--iv", IV, "-i", "hardlink", "-o", "new"], 2, "--key-file has more than"],
    [["encrypt", "--key-file", "key", "--iv", IV, "-i", "key", "-o", "new"], 1, "cannot read key: it is the key"],
    [
      ["encrypt", "--passphrase-file", "passphrase", "-i", "./passphrase", "-o", "new"],
      1,
      "cannot read ./passphrase: it is the passphrase",
    ],
    [["encrypt", "--key-file", "hex key", "--iv", IV, ...files], 2, "--key-file is a line of hexadecimal digits"],
    // Data
    [["decrypt", ...key, "-i", "cut", "-o", "old"], 3, "wrong key or passphrase, or it is damaged or cut short"],
    [["decrypt", ...key, "-i", "odd", "-o", "old"], 3, "wrong key or passphrase, or it is damaged or cut short"],
    [["decrypt", ...key, "-i", "empty", "-o", "old"], 3, "wrong key or passphrase, or it is damaged or cut short"],
    [["decrypt", "--key-file", "wrong key", "--iv", IV, "-i", "cbc", "-o", "old"], 3, "wrong key or passphrase"],
    [
      ["decrypt", "--passphrase-file", "old", "--iter", "10", "-i", "salted", "-o", "new"],
      3,
      "wrong key or passphrase",
    ],
    [["decrypt", ...passphrase.with(3, "11"), "-i", "salted", "-o", "new"], 3, "wrong key or passphrase"],
    [["decrypt", ...passphrase, "-i", "cbc", "-o", "old"], 3, 'cbc does not begin with "Salted__"'],
    [["decrypt", ...passphrase, "-i", "base64", "-o", "old"], 3, "base64 is Base64, as openssl enc -a writes it"],
    [["decrypt", "--passphrase-file", "passphrase", "-i", "salted", "-o", "old"], 3, "for its files, --iter 10000"],
    [
      ["decrypt", "--passphrase-file", "passphrase", "-c", "ctr(aes)", "-i", "salted", "-o", "old"],
      2,
      "--iter is missing",
    ],
    [["encrypt", "--passphrase-file", "passphrase", "--padding", "none", ...files], 2, "for its files, --iter 10000"],
    [
      ["decrypt", ...passphrase, "-i", "salt cut", "-o", "old"],
      3,
      "salt cut is cut short: it ends within OpenSSL's header",
    ],
    [
      ["decrypt", "--key-file", "key", "--iv-prefix", "-i", "zero", "-o", "old"],
      3,
      "zero is cut short: it ends within its IV",
    ],
    [
      ["encrypt", ...key, "--padding", "none", "-i", "odd", "-o", "old"],
      3,
      "whole blocks of 16 bytes, got 1 bytes too many",
    ],
    [
      ["encrypt", ...key.slice(0, 2), "-c", "xts(aes)", "--sector-size", "80", "-i", "odd", "-o", "old"],
      3,
      "last sector",
    ],
    // Usage
    [[], 2, "no command (see kcapi-streams --help)"],
    [["frobnicate"], 2, 'unknown command "frobnicate" (see kcapi-streams --help)'],
    [
      ["encrypt", ...key, "--frobnicate", ...files],
      2,
      'unknown option "--frobnicate" (see kcapi-streams encrypt --help)',
    ],
    [["encrpt"], 2, 'unknown command "encrpt": did you mean encrypt? (see kcapi-streams --help)'],
    [["encrypt", ...key, "--keyfile", "key"], 2, 'unknown option "--keyfile": did you mean --key-file?'],
    [["Encrypt"], 2, 'unknown command "Encrypt": did you mean encrypt?'],
    [["DOCTOR"], 2, 'unknown command "DOCTOR": did you mean doctor?'],
    [["--verison"], 2, 'unknown option "--verison": did you mean --version? (see kcapi-streams --help)'],
    [["--hepl"], 2, 'unknown option "--hepl": did you mean --help?'],
    [["-x"], 2, 'unknown option "-x" (see kcapi-streams --help)'],
    [["correct horse battery 5eC8e7"], 2, "unknown command (see"],
    [["--key=5eC8e7"], 2, "unknown option (see"],
    [["encrypt", ...files, "--key=5eC8e7"], 2, 'unknown option "--key"'],
    [["encrypt", ...files, "--key"], 2, 'unknown option "--key": did you mean --key-file?'],
    [["encrypt", ...files, "--passphrase"], 2, 'unknown option "--passphrase": did you mean --passphrase-file?'],
    [["help", "encrpt"], 2, 'unknown command "encrpt": did you mean encrypt?'],
    [["help", "seal", "unseal"], 2, "more than one COMMAND"],
    [["version", "5eC8e7"], 2, "an argument that is no option"],
    [["encrypt", ...files, "-K5eC8e7"], 2, 'unknown option "-K"'],
    [["encrypt", ...files, "5eC8e7"], 2, "an argument that is no option"],
    [["encrypt", ...files, "--iv-prefix=5eC8e7"], 2, "'--iv-prefix' does not take an argument"],
    [["encrypt", ...files, "--key-file"], 2, "'--key-file <value>' argument missing"],
    [["encrypt", ...key, ...files, "-i", "old"], 2, "--in is given twice"],
    [["encrypt", ...key, ...passphrase, ...files], 2, "--engine is given twice"],
    [
      ["encrypt", ...key, "--passphrase-file", "passphrase", ...files],
      2,
      "--key-file and --passphrase-file exclude each other",
    ],
    [["encrypt", ...files], 2, "no secret: give --key-file, --key-fd, --passphrase-file or --passphrase-fd"],
    [["encrypt", "--key-fd", "0", "-o", "new"], 2, "--key-fd 0 is standard input, which is the data"],
    [["encrypt", "--key-fd", "5eC8e7", ...files], 2, "--key-fd expects a whole number"],
    [["encrypt", ...key.slice(0, 2), ...files], 2, "cbc(aes) needs --iv or --iv-prefix"],
    [["encrypt", ...key, "--iv-prefix", ...files], 2, "--iv and --iv-prefix exclude each other"],
    [
      ["encrypt", ...key.slice(0, 2), "--iv", "5eC8e", ...files],
      2,
      "--iv expects an even number of hexadecimal digits",
    ],
    [["encrypt", ...key.slice(0, 2), "--iv", "5eC8e7", ...files], 2, '"iv" expected 16 bytes for cbc(aes), got 3'],
    [["encrypt", ...key.slice(0, 2), "-c", "ecb(aes)", "--iv-prefix", ...files], 2, "ecb(aes) has no IV"],
    [["encrypt", ...key, "--iter", "5", ...files], 2, "--iter is for passphrases"],
    [["encrypt", ...key, "--key-bits", "128", ...files], 2, "--key-bits is for passphrases"],
    [["encrypt", ...passphrase, "--iv", IV, ...files], 2, "--iv is for keys"],
    [["encrypt", ...passphrase, "--iv-prefix", ...files], 2, "--iv-prefix is for keys"],
    [["encrypt", ...passphrase, "--key-bits", "100", ...files], 2, "--key-bits expects a multiple of 8"],
    [
      ["encrypt", ...passphrase, "--key-bits", "64", ...files],
      2,
      '"key" expected 16 or 24 or 32 bytes for cbc(aes), got 8',
    ],
    [["encrypt", ...passphrase.with(3, "0"), ...files], 2, "--iter expects a whole number from 1 to 2147483647"],
    [["encrypt", ...key, "--padding", "zero", ...files], 2, "--padding expects pkcs7 or none"],
    [["encrypt", ...key.with(5, "quantum"), ...files], 2, "--engine expects auto or kernel or userspace"],
    [
      ["encrypt", ...key, "-c", "ctr(aes)", "--padding", "pkcs7", ...files],
      2,
      '"padding" expected "none" for ctr(aes)',
    ],
    [["encrypt", ...key, "--sector-size", "512", ...files], 2, '"sectorSize" is for modes that encrypt sectors'],
    [["encrypt", ...key, "-c", "xts(aes)", "--sector-size", "20", ...files], 2, "sectorSize"],
    [["encrypt", ...key, "-c", "xts(aes)", "--sector", "-1", ...files], 2, "--sector"],
    [["encrypt", ...key, "-c", "aes-128-cbc", ...files], 2, "the key has 32 bytes, aes-128-cbc takes 16"],
    [["encrypt", ...key.with(1, "long key"), ...files], 2, '"key" expected 16 or 24 or 32 bytes for cbc(aes), got 33'],
    [["encrypt", ...key.with(1, "no key"), ...files], 2, "--key-file has more than 4096 bytes"],
    [["encrypt", "--passphrase-file", "empty", ...files], 2, "the passphrase is empty"],
    [["encrypt", "--passphrase-file", "too long", ...files], 2, "the passphrase has more than 1023 bytes"],
    [["encrypt", "--passphrase-file", "zero", ...files], 2, "the passphrase has a zero byte"],
    [["encrypt", ...key, "-c", "gcm(aes)", ...files], 2, "AEAD"],
    [["encrypt", ...key, "-c", "aes-256-gcm", ...files], 2, "AEAD, which also authenticates: use kcapi-streams seal"],
    [["encrypt", ...key, "-c", "AES-GCM", ...files], 2, "AEAD, which also authenticates: use kcapi-streams seal"],
    [["encrypt", ...key, "-c", "des3", ...files], 2, "the key has 32 bytes, des3 takes 24"],
    [["encrypt", ...key, "-c", "aes128", ...files], 2, "the key has 32 bytes, aes128 takes 16"],
    [["encrypt", ...key, "-c", "camellia-192-ctr", ...files], 2, "camellia-192-ctr takes 24"],
    [["speed", "--seconds", "0"], 2, "--seconds expects a number above 0"],
    [["speed", "--size", "0"], 2, "--size expects a whole number from 1"],
    // Engines
    [["encrypt", ...key, "-c", "cbc(rot13)", ...files], 4, "cbc(rot13)"],
  ];
  const before = new Map(names().map((name) => [name, statSync(at(name), NO_THROW)?.isFile() ? read(at(name)) : ""]));
  const results = await runEach(cases.map(([args]) => args), at(""));
  for (const [i, [args, code, says]] of cases.entries()) {
    const { stdout, stderr, ...result } = results[i]!;
    assertEquals([result.code, stdout], [code, ""], `${args.join(" ")}: ${stderr}`);
    assertStringIncludes(stderr, says);
    assert(/^kcapi-streams: [^\n]+\n$/.test(stderr), `one line: ${stderr}`);
    assert(!stderr.includes("5eC8e7"), `no values: ${stderr}`);
  }
  assertEquals(names(), [...before.keys()]);
  for (const [name, content] of before) if (content !== "") assertEquals(read(at(name)), content, name);
});

independent("a file that may not be written is not replaced", async () => {
  const { at, names } = await place(16);
  const before = names();
  chmodSync(at("cbc"), 0o444);
  // Root may write to all files; without its capabilities it is like any other user.
  const drop = process.getuid!() === 0 ? ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] : [];
  const command = [
    ...drop,
    ...tool,
    "encrypt",
    "-i",
    at("plain"),
    "-o",
    at("cbc"),
    "--key-file",
    at("key"),
    "--iv",
    IV,
  ];
  const { code, stderr } = await spawn(command);
  assertEquals([code, stderr], [1, `kcapi-streams: cannot write ${at("cbc")}: permission denied\n`]);
  assertEquals(names(), before);
});

independent("a directory that may not be written is named as the cause", async () => {
  const { at, names } = await place(16);
  mkdirSync(at("closed"), 0o555);
  const before = names();
  const drop = process.getuid!() === 0 ? ["setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override"] : [];
  const args = ["encrypt", "-i", "plain", "-o", "closed/new", "--key-file", "key", "--iv", IV];
  const { code, stderr } = await spawn([...drop, ...tool, ...args], { cwd: at("") });
  assertEquals([code, stderr], [
    1,
    "kcapi-streams: cannot write closed/new: no file can be created in closed: permission denied\n",
  ]);
  assertEquals(names(), before);
});

independent("--no-clobber writes a new file", async () => {
  const { at, names } = await place(1000);
  const before = names();
  await run("encrypt", "-i", at("plain"), "-o", at("new"), "--key-file", at("key"), "--iv", IV, "--no-clobber");
  assertEquals(read(at("new")), read(at("cbc")));
  assertEquals(names(), [...before, "new"].sort());
});

independent("--no-clobber does not replace a file that appears while the tool works", async () => {
  const { at, names } = await place(16);
  const secret = ["--key-file", at("key"), "--iv", IV];
  const [command, ...rest] = [...tool, "encrypt", ...secret, "-o", at("new"), "--no-clobber"];
  const child = spawnProcess(command!, rest, { stdio: ["pipe", "ignore", "pipe"] });
  const stderr = textOf(child);
  const status = exitStatus(child);
  await until(() => temporary(names()) !== undefined);
  writeFileSync(at("new"), "new");
  child.stdin!.end("plaintext");
  const message = `kcapi-streams: cannot write ${at("new")}: it exists (--no-clobber)\n`;
  assertEquals([await status, stderr()], [1, message]);
  assertEquals([readFileSync(at("new"), "utf8"), temporary(names())], ["new", undefined]);
});

const asRoot = process.getuid!() === 0 ? independent : test.if(false, "needs root");

asRoot("a file that is replaced keeps its owner and group", async () => {
  const { at } = await place(16);
  writeFileSync(at("old"), "old");
  chownSync(at("old"), 12_345, 23_456);
  chmodSync(at("old"), 0o664);
  await run("decrypt", "-i", at("cbc"), "-o", at("old"), "--key-file", at("key"), "--iv", IV);
  const { uid, gid, mode } = statSync(at("old"));
  assertEquals([uid, gid, mode & 0o777], [12_345, 23_456, 0o664]);
  // Without the right to do that, the tool's own group may do what everybody may.
  chownSync(at("old"), 0, 23_456);
  const drop = ["setpriv", "--bounding-set=-chown", "--inh-caps=-chown"];
  const args = ["decrypt", "-i", at("cbc"), "-o", at("old"), "--key-file", at("key"), "--iv", IV];
  const { code, stderr } = await spawn([...drop, ...tool, ...args]);
  assertEquals([code, stderr], [0, ""]);
  const after = statSync(at("old"));
  assertEquals([after.uid, after.gid, after.mode & 0o777], [0, process.getgid!(), 0o644]);
});

const canUnshare = spawnSync("unshare", ["--mount", "true"]).status === 0;

(canUnshare ? independent : test.if(false, "no mount namespace can be made here"))(
  "an output on which something is mounted is refused before the work",
  async () => {
    const { at, names } = await place(16);
    writeFileSync(at("a file"), "mounted");
    writeFileSync(at("the output"), "");
    const before = names();
    // The input never ends: only what is found out before the work can end the tool.
    const encryption = `exec "$@" encrypt -i /dev/zero -o "the output" --key-file key --iv ${IV}`;
    const script = `mount --bind "a file" "the output" && ${encryption}`;
    const { code, stderr } = await spawn(["unshare", "--mount", "sh", "-c", script, "-", ...tool], { cwd: at("") });
    assertEquals([code, stderr], [
      1,
      "kcapi-streams: cannot write the output: it is a mount point, which cannot be replaced (use > the output)\n",
    ]);
    assertEquals(names(), before);
  },
);

// A file system of 1 MiB, if one can be mounted. In a namespace of its own it is gone with the process that sees it.
const onSmallDisk = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  'mount -t tmpfs -o size=1m none "$0" && "$@"; e=$?; ls -A "$0"; cat "$0/old"; exit $e',
];
const canMount = spawnSync(onSmallDisk[0]!, [...onSmallDisk.slice(1), tempDir(), "true"]).status === 0;

test.if(canMount, "no tmpfs can be mounted here")("a full disk fails the run and leaves no half file", async () => {
  const { at } = await place(3_000_000);
  mkdirSync(at("small"));
  const script =
    `printf old >small/old; exec "$@" encrypt -i plain -o small/old --key-file key --iv ${IV} --engine ${engine}`;
  const command = [...onSmallDisk, at("small"), "sh", "-c", script, "-", ...tool];
  const { code, stdout, stderr } = await spawn(command, { cwd: at("") });
  assertEquals([code, stderr], [1, "kcapi-streams: cannot write small/old: no space left on device\n"]);
  assertEquals(stdout, "old\nold");
});

independent("a reader that goes away ends the tool without a word", async () => {
  const { at } = await place(3_000_000);
  const amidst = `"$@" encrypt -i plain --key-file key --iv ${IV} | head -c 100 >/dev/null; exit \${PIPESTATUS[0]}`;
  // What fits into the pipe is written without an error for as long as the reader is there: it must be gone first.
  const before = `exec 3> >(true); wait $!; exec "$@" man >&3`;
  for (const words of [amidst, before]) {
    const { code, stderr } = await spawn(["bash", "-c", `cd '${at("")}'; ${words}`, "-", ...tool]);
    assertEquals([code, stderr], [141, ""]);
  }
});

/** The tool at work on `plain`, waiting for somebody to read the named pipe that its output is. */
async function waitingTool(at: (name: string) => string, prefix: string) {
  assertEquals((await spawn(["mkfifo", at("pipe")])).code, 0);
  const args = [
    "encrypt",
    "-i",
    at("plain"),
    "-o",
    at("pipe"),
    "--key-file",
    at("key"),
    "--iv",
    IV,
    "--engine",
    engine,
  ];
  const child = spawnProcess("sh", ["-c", `${prefix} exec "$@"`, "-", ...tool, ...args], { stdio: "ignore" });
  const closed = exitStatus(child);
  const open = `/proc/${child.pid}/fd`;
  const reads = (path: string) => readdirSync(open).some((fd) => linkOf(join(open, fd)) === path);
  await until(() => reads(at("plain")));
  return { pid: child.pid!, closed };
}

function linkOf(path: string): string | undefined {
  try {
    return readlinkSync(path);
  } catch {
    return undefined; // closed in the meantime
  }
}

independent("a signal ends the tool where it waits for the other end of a named pipe", async () => {
  const { at } = await place(16);
  const { pid, closed } = await waitingTool(at, "");
  process.kill(pid, "SIGTERM");
  assertEquals(await closed, 143);
});

const ignoring = runtime === "node" ? test.if(false, "Node takes signals that its parent ignores") : independent;

ignoring("the tool ignores the signals that its parent ignores: nohup works", async () => {
  const { at, plain } = await place(16);
  const { pid, closed } = await waitingTool(at, 'trap "" HUP INT QUIT;');
  for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT"]) process.kill(pid, signal);
  const { code } = await spawn(["cp", at("pipe"), at("out")]);
  assertEquals([code, await closed], [0, 0]);
  assertEquals(read(at("out")), read(at("cbc")));
  assertEquals(plain.length, 16);
});

independent("a signal ends the tool with 128 plus its number, and its temporary file is removed", async () => {
  const { at, names } = await place(16);
  writeFileSync(at("old"), "old");
  const before = names();
  const signals = { SIGHUP: 129, SIGINT: 130, SIGQUIT: 131, SIGTERM: 143, SIGXCPU: 152, SIGXFSZ: 153 };
  for (const [signal, code] of Object.entries(signals)) {
    // Bun and Node start with this one ignored: a write fails instead.
    if (signal === "SIGXFSZ" && runtime !== "deno") continue;
    const args = [
      "encrypt",
      "-i",
      "/dev/zero",
      "-o",
      at("old"),
      "--key-file",
      at("key"),
      "--iv",
      IV,
      "--engine",
      engine,
    ];
    const [command, ...rest] = [...tool, ...args];
    const child = spawnProcess(command!, rest, { stdio: ["ignore", "ignore", "pipe"] });
    const stderr = textOf(child);
    const closed = exitStatus(child);
    await until(() => names().length > before.length && statSync(at(temporary(names()))).size > 0);
    assertEquals(statSync(at(temporary(names()))).mode & 0o077, 0, "others may not read what is not finished");
    process.kill(child.pid!, signal); // Deno's child.kill() reports an exit code of 128 + n as the signal's doing
    assertEquals([await closed, stderr()], [code, ""]);
    assertEquals(names(), before);
    assertEquals(readFileSync(at("old"), "utf8"), "old");
  }
});

independent("the tool writes to a pipe that blocks, and a signal ends it while the pipe is full", async () => {
  const { at } = await place(1_000_000);
  assertEquals((await spawn(["mkfifo", at("pipe")])).code, 0);
  const [command, ...rest] = [...tool, "encrypt", "-i", at("plain"), "--key-file", at("key"), "--iv", IV];
  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    const pipe = await open(at("pipe"), "r+");
    const child = spawnProcess(command!, rest, { stdio: ["ignore", pipe.fd, "inherit"] });
    const status = exitStatus(child);
    try {
      await pipe.read(new Uint8Array(1), 0, 1); // now the tool is in a write of more than the pipe has room for
      const flags = parseInt(/^flags:\s*(\d+)/m.exec(readFileSync(`/proc/${child.pid}/fdinfo/1`, "utf8"))![1]!, 8);
      assertEquals(flags & fsConstants.O_NONBLOCK, 0, "a pipe that does not block takes 4,096 bytes at a time");
      process.kill(child.pid!, signal);
      await until(() => !isRunning(child.pid!));
    } finally {
      if (isRunning(child.pid!)) process.kill(child.pid!, "SIGKILL");
      await pipe.close();
    }
    assertEquals(await status, code);
  }
});

/** Whether a process exists and is no zombie. */
function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** The exit code as a shell tells it. */
function exitStatus(child: ChildProcess): Promise<number> {
  return new Promise((resolve) =>
    child.on("close", (code, signal) => resolve(code ?? 128 + constants.signals[signal as NodeJS.Signals]))
  );
}

function temporary(names: string[]): string {
  return names.find((name) => name.startsWith(".kcapi-streams-"))!;
}

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !condition();) {
    assert(Date.now() < end, `waited in vain for ${condition}`);
    await delay(10);
  }
}

/** What the process has written to standard error so far. */
function textOf(child: ChildProcess): () => string {
  let text = "";
  child.stderr!.on("data", (chunk) => text += chunk);
  return () => text;
}

// ---- Terminals ----------------------------------------------------------------------------------------------------

/** A command with a terminal, at which somebody sits. */
class Terminal {
  shown = "";
  readonly ended: Promise<number | null>;
  readonly #child: ChildProcess;

  constructor(command: string, cwd: string) {
    // SHELL: script(1) runs the command by it.
    this.#child = spawnProcess("script", ["-qefc", command, "/dev/null"], {
      cwd,
      env: { ...process.env, SHELL: "/bin/bash" },
    });
    this.#child.stdout!.on("data", (chunk) => this.shown += chunk);
    this.ended = new Promise((resolve) => this.#child.on("close", resolve));
  }

  /** Waits until the terminal shows `text`, behind what it showed before. */
  async expect(text: string): Promise<void> {
    await until(() => this.shown.includes(text));
    this.shown = this.shown.slice(this.shown.indexOf(text) + text.length);
  }

  type(keys: string): void {
    this.#child.stdin!.write(keys);
  }

  /** Hangs up when the command has ended. */
  async end(): Promise<number | null> {
    const code = await this.ended;
    this.#child.stdin!.destroy();
    return code;
  }
}

const hasTerminals = (await spawn(["script", "-qefc", "tty", "/dev/null"])).stdout.includes("/dev/pts/");
const onTerminal = test.if(hasTerminals, "no script(1), or no pseudo-terminals");
const withPassphrases = hasTerminals ? independent : onTerminal;
const toolInShell = tool.map((word) => `'${word}'`).join(" ");

withPassphrases("a passphrase is asked for without an echo, twice to encrypt, and can be edited", async () => {
  const { at, plain } = await place(1000);
  const encryption = new Terminal(`${toolInShell} encrypt --iter 10 -i plain -o new; echo "code $?"; stty`, at(""));
  await encryption.expect("Passphrase: ");
  encryption.type("wrong\x15correctä\x7f hoo\x7frse\r");
  await encryption.expect("The same again: ");
  encryption.type("correct horse\r");
  await encryption.expect("code 0");
  assertEquals(await encryption.end(), 0);
  assert(!/correct|wrong|horse/.test(encryption.shown), encryption.shown);
  assert(!/-echo\b|-icanon/.test(encryption.shown), `the terminal is as it was: ${encryption.shown}`);
  const decryption = new Terminal(`${toolInShell} decrypt --iter 10 -o back <new`, at(""));
  await decryption.expect("Passphrase: ");
  decryption.type("correct horse\n");
  assertEquals(await decryption.end(), 0);
  assertEquals(read(at("back")), plain);
});

withPassphrases("control characters and arrow keys do not become part of a passphrase", async () => {
  const { at, plain } = await place(1000);
  const options = "--iter 10 -i plain -o new";
  const encryption = new Terminal(`${toolInShell} encrypt ${options}; echo "code $?"`, at(""));
  await encryption.expect("Passphrase: ");
  // Ctrl-Z, an arrow (in both forms), Delete, F5, Tab, Ctrl-A and Escape
  encryption.type("corr\x1aect\x1b[A\x1bOB ho\x1b[3~r\x1b[15~s\te\x01\x1b\r");
  await encryption.expect("The same again: ");
  encryption.type("correct horse\r");
  await encryption.expect("code 0");
  await encryption.end();
  await run("decrypt", "--iter", "10", "--passphrase-file", at("passphrase"), "-i", at("new"), "-o", at("back"));
  assertEquals(read(at("back")), plain);
});

withPassphrases("passphrases that differ, and Ctrl-C where one is asked for, write nothing", async () => {
  const { at, names } = await place(16);
  const before = names();
  const answers: [first: string, second: string | undefined, code: number, says: string][] = [
    ["one\r", "two\r", 2, "the passphrases differ"],
    ["\r", undefined, 2, "the passphrase is empty"],
    ["one\x03", undefined, 130, ""],
    ["one\x1c", undefined, 131, ""], // Ctrl-\\
  ];
  for (const [first, second, code, says] of answers) {
    const terminal = new Terminal(`${toolInShell} encrypt -i plain -o new; echo "code $?"; stty`, at(""));
    await terminal.expect("Passphrase: ");
    terminal.type(first);
    if (second !== undefined) {
      await terminal.expect("The same again: ");
      terminal.type(second);
    }
    if (says) await terminal.expect(says);
    await terminal.expect(`code ${code}`);
    assertEquals(await terminal.end(), 0);
    assert(!/-echo\b|-icanon/.test(terminal.shown), `the terminal is as it was: ${terminal.shown}`);
  }
  assertEquals(names(), before);
});

withPassphrases("a signal where a passphrase is asked for gives the terminal its echo back", async () => {
  const { at } = await place(16);
  const inner = `echo "pid $$;"; exec "$@" encrypt -i plain -o new`;
  const terminal = new Terminal(`bash -c '${inner}' - ${toolInShell}; echo "code $?"; stty`, at(""));
  await terminal.expect("pid ");
  await until(() => terminal.shown.includes(";"));
  const pid = Number(/\d+/.exec(terminal.shown)![0]);
  await terminal.expect("Passphrase: ");
  process.kill(pid, "SIGTERM");
  await terminal.expect("code 143");
  await terminal.end();
  assert(!/-echo\b|-icanon/.test(terminal.shown), `the terminal is as it was: ${terminal.shown}`);
});

onTerminal("a terminal sees how far the work is, and the engine; ciphertext it does not see", async () => {
  const { at } = await place(16);
  truncateSync(at("plain"), 8_000_000);
  const secret = `--key-file key --iv ${IV} --engine ${engine}`;
  const work = new Terminal(`${toolInShell} encrypt ${secret} -i plain -o new`, at(""));
  assertEquals(await work.end(), 0);
  const line = new RegExp(
    `encrypt: [\\d.]+ [kM]B, \\d+ %, \\d+:\\d\\d left, \\d+ MB/s, ${engine} engine\x1b\\[\\?7h\r`,
  );
  assert(line.test(work.shown), work.shown);
  assert(new RegExp(`encrypt: 8.00 MB in \\d+.\\d s, \\d+ MB/s, ${engine} engine\r\n$`).test(work.shown), work.shown);
  // Between these, a terminal that is too narrow does not begin a new line (DECAWM).
  assertEquals(work.shown.split("encrypt: ").slice(0, -2).filter((before) => !before.endsWith("\x1b[?7l")), []);
  const quiet = new Terminal(`${toolInShell} encrypt ${secret} -i plain -o new --quiet`, at(""));
  assertEquals([await quiet.end(), quiet.shown], [0, ""]);
  const refused = new Terminal(`${toolInShell} encrypt ${secret} -i plain`, at(""));
  assertEquals(await refused.end(), 2);
  assertStringIncludes(refused.shown, "standard output is a terminal");
});

// ---- The other commands -------------------------------------------------------------------------------------------

test("ciphers lists what the engines have: as a table, and as JSON", async () => {
  const [table, json] = await runEach([["ciphers"], ["ciphers", "--json"]], tempDir());
  assertEquals([table!.code, json!.code], [0, 0]);
  probe(); // has the kernel load the usual modules here, too
  const ciphers = listCiphers().filter(({ engines }) => engines.length > 0);
  const listed: typeof ciphers = JSON.parse(json!.stdout);
  assertEquals(listed.map(({ name, engines }) => [name, engines]), ciphers.map(({ name, engines }) => [name, engines]));
  const rows = table!.stdout.split("\n").slice(1, -1).map((line) => line.trimEnd().split(/ {2,}/));
  assertEquals(rows.filter(([, , , , kernel, userspace]) => kernel !== "yes" && userspace !== "yes"), []);
  assertEquals(rows.map(([name]) => name), [...new Set(ciphers.map(({ name }) => name))]);
  const [, use, keyBits, ivBits, ...engines] = rows.find(([name]) => name === "xts(aes)")!;
  assertEquals([use, keyBits, ivBits], ["sectors", "256-512", "128"]);
  assertEquals(engines.slice(0, 2), [engine === "kernel" ? "yes" : engines[0], "yes"]);
});

test("doctor says what works and why the rest does not, and exits with 1 without the kernel engine", async () => {
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

test.if(runtime !== "bun", "Bun has no permissions")("doctor exits with 1 where FFI is not permitted", async () => {
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

independent("each command has help, which names all its options; the manual has them all", async () => {
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
});

const hasGroff = spawnSync("groff", ["--version"]).status === 0;

const withGroff = hasGroff ? independent : test.if(false, "no groff");

withGroff("the manual is a page that groff sets without a warning", async () => {
  const [manual] = await runEach([["man"]], tempDir());
  const { code, stdout, stderr } = await spawn(["groff", "-man", "-ww", "-Tascii", "-P-c", "-P-bou"], {
    input: manual!.stdout,
  });
  assertEquals([code, stderr], [0, ""]);
  for (const heading of ["NAME", "SYNOPSIS", "COMMANDS", "EXIT STATUS", "EXAMPLES"]) {
    assertStringIncludes(stdout, heading);
  }
});

independent("bash completes commands, options, ciphers, engines and file names", async () => {
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
