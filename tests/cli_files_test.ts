/**
 * The command line tool: output files, and what is refused or fails.
 */
import { Buffer } from "node:buffer";
import { spawn as spawnProcess, spawnSync } from "node:child_process";
import {
  chmodSync,
  chownSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import process from "node:process";
import {
  exitStatus,
  IV,
  NO_THROW,
  readBytes,
  run,
  runEach,
  temporaryOf,
  textOf,
  tool,
  until,
  workspace,
} from "./support/cli_support.ts";
import { assert, assertEquals, assertStringIncludes, engine, spawn, tempDir, test } from "./support/deps.ts";
import { bytes } from "./support/support.ts";

test(
  "new ciphertext has the permissions of the umask, and only the user can read new plaintext",
  { engine: "userspace" },
  async () => {
    const { at } = await workspace(16);
    const before = process.umask(0o027);
    try {
      await run("encrypt", "-i", at("plain"), "-o", at("c"), "--key-file", at("key"), "--iv", IV);
      await run("decrypt", "-i", at("c"), "-o", at("p"), "--key-file", at("key"), "--iv", IV);
    } finally {
      process.umask(before);
    }
    assertEquals(statSync(at("c")).mode & 0o777, 0o640);
    assertEquals(statSync(at("p")).mode & 0o777, 0o600);
  },
);

test(
  "a replaced file keeps its permissions, and a symbolic link to it stays a link",
  { engine: "userspace" },
  async () => {
    const { at, plain } = await workspace(1000);
    writeFileSync(at("old"), "old");
    chmodSync(at("old"), 0o664);
    symlinkSync("old", at("link"));
    await run("decrypt", "-i", at("cbc"), "-o", at("link"), "--key-file", at("key"), "--iv", IV, "--engine", engine);
    assert(lstatSync(at("link")).isSymbolicLink());
    assertEquals(statSync(at("old")).mode & 0o777, 0o664);
    assertEquals(readBytes(at("old")), plain);
  },
);

test(
  "a run that fails prints the reason in one line, and changes no file",
  { engine: "userspace" },
  async () => {
    const { at, names } = await workspace();
    mkdirSync(at("directory"));
    writeFileSync(at("old"), "old");
    symlinkSync("plain", at("symlink"));
    linkSync(at("plain"), at("hardlink"));
    symlinkSync("nowhere", at("dangling"));
    writeFileSync(at("cut"), readBytes(at("cbc")).subarray(0, 50_000));
    writeFileSync(at("odd"), readBytes(at("cbc")).subarray(0, 50_001));
    writeFileSync(at("salt cut"), "Salted__1234");
    writeFileSync(at("wrong key"), bytes(32, 3));
    writeFileSync(at("long key"), bytes(33, 3));
    writeFileSync(at("no key"), bytes(5000));
    writeFileSync(at("base64"), Buffer.from(readBytes(at("salted"))).toString("base64"));
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
      [
        ["encrypt", ...key, "-i", "plain", "-o", "missing/new"],
        1,
        "cannot write missing/new: no such file or directory",
      ],
      [["encrypt", ...key, "-i", "plain", "-o", "plain/new"], 1, "cannot write plain/new: not a directory"],
      [["encrypt", ...key, "-i", "plain", "-o", "plain"], 1, "cannot write plain: it is the input"],
      [["encrypt", ...key, "-i", "plain", "-o", "./directory/../plain"], 1, "it is the input"],
      [["encrypt", ...key, "-i", "plain", "-o", "symlink"], 1, "cannot write symlink: it is the input"],
      [["encrypt", ...key, "-i", "symlink", "-o", "hardlink"], 1, "cannot write hardlink: it is the input"],
      [["encrypt", ...key, "-i", "plain", "-o", "key"], 1, "cannot write key: it is the key"],
      [
        ["encrypt", ...passphrase, "-i", "plain", "-o", "passphrase"],
        1,
        "cannot write passphrase: it is the passphrase",
      ],
      [["encrypt", ...key, "-i", "plain", "-o", "old", "--no-clobber"], 1, "cannot write old: it exists"],
      [["encrypt", ...key, "-i", "plain", "-o", "dangling", "--no-clobber"], 1, "cannot write dangling: it exists"],
      [["encrypt", ...key, "-i", "plain", "-o", "/dev/full"], 1, "cannot write /dev/full: no space left on device"],
      [["encrypt", "--key-file", "missing", "--iv", IV, ...files], 1, "cannot open missing: no such file or directory"],
      [
        ["encrypt", "--key-file", "directory", "--iv", IV, ...files],
        1,
        "cannot read --key-file: illegal operation on a directory",
      ],
      [
        ["encrypt", "--key-fd", "987", "--iv", IV, ...files],
        2,
        "the tool was not started with a descriptor 987 to read",
      ],
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
      [["decrypt", ...passphrase, "-i", "base64", "-o", "old", "--nosalt"], 3, "the file was made in another way"],
      [["decrypt", ...passphrase, "-i", "base64", "-o", "old", "--salt", "12"], 2, "--salt expects 16 hexadecimal"],
      [["decrypt", ...passphrase, "-i", "base64", "-o", "old", "--md", "sha"], 2, "--md expects md5 or sha1"],
      [["decrypt", ...passphrase, "-i", "base64", "-o", "old", "--kdf", "evp"], 2, "--iter is for --kdf pbkdf2"],
      [["decrypt", ...key, "--position", "16", ...files], 2, "use --sector-size and --sector"],
      [["encrypt", ...key, "--kdf", "evp", ...files], 2, "--kdf is for passphrases, not for keys"],
      [
        ["decrypt", "--passphrase-file", "passphrase", "-i", "salted", "-o", "old"],
        3,
        "try --iter 10000 (openssl enc -pbkdf2)",
      ],
      [
        ["decrypt", "--passphrase-file", "passphrase", "-c", "ctr(aes)", "-i", "salted", "-o", "old"],
        2,
        "--iter is missing",
      ],
      [
        ["encrypt", "--passphrase-file", "passphrase", "--padding", "none", ...files],
        2,
        "that of openssl enc -pbkdf2 --iter 10000",
      ],
      [
        ["decrypt", ...passphrase, "-i", "salt cut", "-o", "old"],
        3,
        "salt cut is cut short: it ends within OpenSSL's header",
      ],
      [
        ["decrypt", "--key-file", "key", "--iv-prefix", "-i", "zero", "-o", "old"],
        3,
        "the data does not decrypt: wrong key or passphrase, or it is damaged or cut short",
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
      [["version", "5eC8e7"], 2, "unexpected argument"],
      [["encrypt", ...files, "-K5eC8e7"], 2, 'unknown option "-K"'],
      [["encrypt", ...files, "5eC8e7"], 2, "unexpected argument"],
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
      [
        ["encrypt", ...key.slice(0, 2), "-c", "xts(aes)", "--sector-size", "512", "--iv-prefix", ...files],
        2,
        '"ivPrefix" expected no "sectorSize"',
      ],
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
      [
        ["encrypt", ...key, "-c", "ctr(aes)", "--sector-size", "512", ...files],
        2,
        '"sectorSize" is for cbc and modes that encrypt sectors',
      ],
      [["encrypt", ...key, "-c", "xts(aes)", "--sector-size", "20", ...files], 2, "sectorSize"],
      [["encrypt", ...key, "-c", "xts(aes)", "--sector", "-1", ...files], 2, "--sector"],
      [["encrypt", ...key, "-c", "aes-128-cbc", ...files], 2, "the key has 32 bytes, aes-128-cbc takes 16"],
      [
        ["encrypt", ...key.with(1, "long key"), ...files],
        2,
        '"key" expected 16 or 24 or 32 bytes for cbc(aes), got 33',
      ],
      [["encrypt", ...key.with(1, "no key"), ...files], 2, "--key-file has more than 4096 bytes"],
      [["encrypt", "--passphrase-file", "empty", ...files], 2, "the passphrase is empty"],
      [["encrypt", "--passphrase-file", "too long", ...files], 2, "the passphrase has more than 1023 bytes"],
      [["encrypt", "--passphrase-file", "zero", ...files], 2, "the passphrase has a zero byte"],
      [["encrypt", ...key, "-c", "ccm(aes)", ...files], 2, "AEAD"],
      [["encrypt", ...key, "-c", "aes-256-ccm", ...files], 2, "AEAD, which also authenticates: use kcapi-streams seal"],
      [["encrypt", ...key, "-c", "aes-128-gcm", ...files], 2, "the key has 32 bytes, aes-128-gcm takes 16"],
      [["encrypt", ...key, "-c", "des3", ...files], 2, "the key has 32 bytes, des3 takes 24"],
      [["encrypt", ...key, "-c", "aes128", ...files], 2, "the key has 32 bytes, aes128 takes 16"],
      [["encrypt", ...key, "-c", "camellia-192-ctr", ...files], 2, "camellia-192-ctr takes 24"],
      [["speed", "--seconds", "0"], 2, "--seconds expects a number above 0"],
      [["speed", "--size", "0"], 2, "--size expects a whole number from 1"],
      // Engines
      [["encrypt", ...key, "-c", "cbc(rot13)", ...files], 4, "cbc(rot13)"],
    ];
    const before = new Map(
      names().map((name) => [name, statSync(at(name), NO_THROW)?.isFile() ? readBytes(at(name)) : ""]),
    );
    const results = await runEach(cases.map(([args]) => args), at(""));
    for (const [i, [args, code, says]] of cases.entries()) {
      const { stdout, stderr, ...result } = results[i]!;
      assertEquals([result.code, stdout], [code, ""], `${args.join(" ")}: ${stderr}`);
      assertStringIncludes(stderr, says);
      assert(/^kcapi-streams: [^\n]+\n$/.test(stderr), `one line: ${stderr}`);
      assert(!stderr.includes("5eC8e7"), `no values: ${stderr}`);
    }
    assertEquals(names(), [...before.keys()]);
    for (const [name, content] of before) if (content !== "") assertEquals(readBytes(at(name)), content, name);
  },
);

test("a file without write permission is not replaced", { engine: "userspace" }, async () => {
  const { at, names } = await workspace(16);
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

test("the error names a directory without write permission", { engine: "userspace" }, async () => {
  const { at, names } = await workspace(16);
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

test("--no-clobber writes a new file", { engine: "userspace" }, async () => {
  const { at, names } = await workspace(1000);
  const before = names();
  await run("encrypt", "-i", at("plain"), "-o", at("new"), "--key-file", at("key"), "--iv", IV, "--no-clobber");
  assertEquals(readBytes(at("new")), readBytes(at("cbc")));
  assertEquals(names(), [...before, "new"].sort());
});

test("--no-clobber does not replace a file that appears while the tool works", { engine: "userspace" }, async () => {
  const { at, names } = await workspace(16);
  const secret = ["--key-file", at("key"), "--iv", IV];
  const [command, ...rest] = [...tool, "encrypt", ...secret, "-o", at("new"), "--no-clobber"];
  const child = spawnProcess(command!, rest, { stdio: ["pipe", "ignore", "pipe"] });
  const stderr = textOf(child);
  const status = exitStatus(child);
  await until(() => temporaryOf(names()) !== undefined);
  writeFileSync(at("new"), "new");
  child.stdin!.end("plaintext");
  const message = `kcapi-streams: cannot write ${at("new")}: it exists (--no-clobber)\n`;
  assertEquals([await status, stderr()], [1, message]);
  assertEquals([readFileSync(at("new"), "utf8"), temporaryOf(names())], ["new", undefined]);
});

test("a replaced file keeps its owner and group", {
  engine: "userspace",
  needs: { root: process.getuid!() === 0 },
}, async () => {
  const { at } = await workspace(16);
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

test("an output that is a mount point is refused before any work", {
  engine: "userspace",
  needs: { "a mount namespace": canUnshare },
}, async () => {
  const { at, names } = await workspace(16);
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
});

// A file system of 1 MiB, if one can be mounted. In a namespace of its own it is gone with the process that sees it.
const onSmallDisk = [
  "unshare",
  "--mount",
  "sh",
  "-c",
  'mount -t tmpfs -o size=1m none "$0" && "$@"; e=$?; ls -A "$0"; cat "$0/old"; exit $e',
];
const canMount = spawnSync(onSmallDisk[0]!, [...onSmallDisk.slice(1), tempDir(), "true"]).status === 0;

test(
  "with a full disk, the run fails and leaves no partial file",
  { needs: { "the right to mount a tmpfs": canMount } },
  async () => {
    const { at } = await workspace(3_000_000);
    mkdirSync(at("small"));
    const script =
      `printf old >small/old; exec "$@" encrypt -i plain -o small/old --key-file key --iv ${IV} --engine ${engine}`;
    const command = [...onSmallDisk, at("small"), "sh", "-c", script, "-", ...tool];
    const { code, stdout, stderr } = await spawn(command, { cwd: at("") });
    assertEquals([code, stderr], [1, "kcapi-streams: cannot write small/old: no space left on device\n"]);
    assertEquals(stdout, "old\nold");
  },
);

test("a reader that closes the pipe ends the tool without an error message", { engine: "userspace" }, async () => {
  const { at } = await workspace(3_000_000);
  const amidst = `"$@" encrypt -i plain --key-file key --iv ${IV} | head -c 100 >/dev/null; exit \${PIPESTATUS[0]}`;
  // What fits into the pipe is written without an error for as long as the reader is there: it must be gone first.
  const before = `exec 3> >(true); wait $!; exec "$@" man >&3`;
  for (const words of [amidst, before]) {
    const { code, stderr } = await spawn(["bash", "-c", `cd '${at("")}'; ${words}`, "-", ...tool]);
    assertEquals([code, stderr], [141, ""]);
  }
});
