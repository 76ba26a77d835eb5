/**
 * Compares the command line tool with openssl enc, kcapi-enc, and LUKS images of qemu-img.
 */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decrypt, encrypt } from "../mod.ts";
import { run } from "./support/cli_support.ts";
import { assert, assertEquals, engine, spawn, tempDir, test } from "./support/deps.ts";
import { type Bytes, bytes, collect, concat } from "./support/support.ts";

function read(path: string): Bytes {
  return new Uint8Array(readFileSync(path));
}

function has(command: string, ...args: string[]): boolean {
  return spawnSync(command, args).status === 0;
}

/** Runs another tool, which must succeed. */
async function other(...command: string[]): Promise<void> {
  const { code, stderr } = await spawn(command);
  assertEquals(code, 0, `${command.join(" ")}: ${stderr}`);
}

const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

// ---- openssl enc --------------------------------------------------------------------------------------------------

const ENGINE_INDEPENDENT = { engine: "userspace" } as const;
const FORMS = ["cbc", "ctr", "ecb"].flatMap((mode) => [128, 192, 256].map((bits) => ({ mode, bits })));
/** Sizes around multiples of the block, the buffers of openssl, and the window. */
const SIZES = [0, 1, 15, 16, 17, 4096, 8193, 212_992, 300_001];

for (const [i, { mode, bits }] of FORMS.entries()) {
  const name = `aes-${bits}-${mode}`;
  const size = SIZES[i]!;

  const forms = bits === 256 ? {} : { engine: "userspace" } as const; // Processes are slow in a guest.
  test(
    `openssl enc -${name} -K and encrypt --key-file give the same bytes, and decrypt reads them`,
    forms,
    async () => {
      const directory = tempDir();
      const at = (name: string) => join(directory, name);
      const [key, iv] = [bytes(bits / 8, 2), bytes(16, 3)];
      const ivOptions = mode === "ecb" ? [] : ["--iv", hex(iv)];
      const options = ["-c", `${mode}(aes)`, "--key-file", at("key"), "--engine", engine, ...ivOptions];
      writeFileSync(at("plain"), bytes(size));
      writeFileSync(at("key"), key);
      const openssl = ["openssl", "enc", `-${name}`, "-K", hex(key), ...mode === "ecb" ? [] : ["-iv", hex(iv)]];
      await other(...openssl, "-in", at("plain"), "-out", at("theirs"));
      await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
      assertEquals(read(at("ours")), read(at("theirs")));
      await run("decrypt", ...options, "-i", at("theirs"), "-o", at("back"));
      assertEquals(read(at("back")), bytes(size));
    },
  );

  test(
    `openssl enc -${name} -pbkdf2 and the tool read each other's files with a passphrase`,
    ENGINE_INDEPENDENT,
    async () => {
      const directory = tempDir();
      const at = (name: string) => join(directory, name);
      // A passphrase is the bytes up to the end of the line, with a carriage return.
      writeFileSync(at("passphrase"), `corréct horse #${i} $x"'\\\r\nnot this\n`);
      const iterations = String(1 + 999 * (i % 2));
      writeFileSync(at("plain"), bytes(size));
      const options = ["-c", name, "--passphrase-file", at("passphrase"), "--iter", iterations, "--engine", engine];
      const openssl = [
        "openssl",
        "enc",
        `-${name}`,
        "-pbkdf2",
        "-iter",
        iterations,
        "-pass",
        `file:${at("passphrase")}`,
      ];
      await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
      await other(...openssl, "-d", "-in", at("ours"), "-out", at("their back"));
      assertEquals(read(at("their back")), bytes(size));
      await other(...openssl, "-in", at("plain"), "-out", at("theirs"));
      await run("decrypt", ...options, "-i", at("theirs"), "-o", at("our back"));
      assertEquals(read(at("our back")), bytes(size));
    },
  );
}

test(
  "the default for a passphrase matches openssl enc -aes-256-cbc -pbkdf2 -iter 600000 -md sha256",
  ENGINE_INDEPENDENT,
  async () => {
    const directory = tempDir();
    const at = (name: string) => join(directory, name);
    writeFileSync(at("passphrase"), "x".repeat(1022) + "y");
    writeFileSync(at("plain"), bytes(1000));
    const openssl = ["openssl", "enc", "-aes-256-cbc", "-pbkdf2", "-iter", "600000", "-md", "sha256"];
    await run("encrypt", "--passphrase-file", at("passphrase"), "-i", at("plain"), "-o", at("ours"));
    await other(...openssl, "-d", "-pass", `file:${at("passphrase")}`, "-in", at("ours"), "-out", at("back"));
    assertEquals(read(at("back")), bytes(1000));
  },
);

test("--padding none matches openssl enc -nopad", ENGINE_INDEPENDENT, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const [key, iv] = [bytes(32, 2), bytes(16, 3)];
  writeFileSync(at("plain"), bytes(1600));
  writeFileSync(at("key"), key);
  await other(
    ...["openssl", "enc", "-aes-256-cbc", "-K", hex(key), "-iv", hex(iv), "-nopad"],
    ...["-in", at("plain"), "-out", at("theirs")],
  );
  const options = ["--key-file", at("key"), "--iv", hex(iv), "--padding", "none", "--engine", engine];
  await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
  assertEquals(read(at("ours")), read(at("theirs")));
});

test("--iv-prefix writes the IV, then the output of openssl enc -iv", ENGINE_INDEPENDENT, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const key = bytes(32, 2);
  writeFileSync(at("plain"), bytes(1000));
  writeFileSync(at("key"), key);
  const options = ["-c", "ctr(aes)", "--key-file", at("key"), "--iv-prefix", "--engine", engine];
  await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
  const ours = read(at("ours"));
  writeFileSync(at("bare"), ours.subarray(16));
  const openssl = ["openssl", "enc", "-d", "-aes-256-ctr", "-K", hex(key), "-iv", hex(ours.subarray(0, 16))];
  await other(...openssl, "-in", at("bare"), "-out", at("back"));
  assertEquals(read(at("back")), bytes(1000));
});

test("--position decrypts the rest of a file of openssl enc -aes-256-ctr", ENGINE_INDEPENDENT, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const [key, iv] = [bytes(32, 2), new Uint8Array(16).fill(255)];
  writeFileSync(at("plain"), bytes(70_000));
  writeFileSync(at("key"), key);
  const openssl = ["openssl", "enc", "-aes-256-ctr", "-K", hex(key), "-iv", hex(iv)];
  await other(...openssl, "-in", at("plain"), "-out", at("theirs"));
  writeFileSync(at("rest"), read(at("theirs")).subarray(33_333));
  const options = ["-c", "aes-256-ctr", "--key-file", at("key"), "--iv", hex(iv), "--engine", engine];
  await run("decrypt", ...options, "--position", "33333", "-i", at("rest"), "-o", at("back"));
  assertEquals(read(at("back")), bytes(70_000).subarray(33_333));
  // 32 bits of ones: the next counter is 0, and the rest of the IV is the same.
  const counter = { name: "AES-CTR", counter: iv, length: 32 };
  const imported = await crypto.subtle.importKey("raw", key, "AES-CTR", false, ["encrypt"]);
  const whole = new Uint8Array(await crypto.subtle.encrypt(counter, imported, bytes(70_000)));
  await run("encrypt", ...options, "--counter-bits", "32", "-i", at("plain"), "-o", at("ours"));
  assertEquals(read(at("ours")), whole);
});

// ---- kcapi-enc ----------------------------------------------------------------------------------------------------

const KCAPI_ENC = {
  engine: "kernel",
  needs: { "kcapi-enc (package kcapi-tools)": engine === "kernel" && has("kcapi-enc", "--version") },
} as const;

/** Runs kcapi-enc on a file, with the key from a descriptor. -d without unpadding, which crashes on some kernels. */
async function kcapiEnc(
  at: (name: string) => string,
  direction: "-e" | "-d",
  options: string[],
  [from, to]: [string, string],
) {
  const unpadding = direction === "-d" ? ["--nounpad"] : [];
  const command = ["kcapi-enc", "--keyfd", "10", direction, ...unpadding, ...options, "-i", at(from), "-o", at(to)];
  await other("bash", "-c", `exec "$@" 10<'${at("key")}'`, "-", ...command);
}

// kcapi-enc does not pad whole blocks. It pads other lengths with PKCS#7, except in stream modes.
for (
  const [cipher, size, padding] of [
    ["cbc(aes)", 70_001, "pkcs7"],
    ["cbc(aes)", 31, "pkcs7"],
    ["cbc(aes)", 70_000, "none"],
    ["ecb(aes)", 1001, "pkcs7"],
    ["ecb(aes)", 1008, "none"],
    ["ctr(aes)", 70_001, "none"],
    ["ctr(aes)", 70_000, "none"],
  ] as const
) {
  test(
    `kcapi-enc -c '${cipher}' of ${size} bytes and encrypt --padding ${padding} read each other`,
    KCAPI_ENC,
    async () => {
      const directory = tempDir();
      const at = (name: string) => join(directory, name);
      const ivOptions = cipher === "ecb(aes)" ? [] : ["--iv", hex(bytes(16, 3))];
      const theirs = ["-c", cipher, ...ivOptions];
      const ours = [...theirs, "--key-file", at("key"), "--padding", padding, "--engine", engine];
      writeFileSync(at("key"), bytes(32, 2));
      writeFileSync(at("plain"), bytes(size));
      await kcapiEnc(at, "-e", theirs, ["plain", "theirs"]);
      await run("encrypt", ...ours, "-i", at("plain"), "-o", at("ours"));
      assertEquals(read(at("ours")), read(at("theirs")));
      await run("decrypt", ...ours, "-i", at("theirs"), "-o", at("our back"));
      assertEquals(read(at("our back")), bytes(size));
      await kcapiEnc(at, "-d", theirs, ["ours", "their back"]);
      const pad = padding === "pkcs7" ? 16 - size % 16 : 0;
      assertEquals(read(at("their back")), concat([bytes(size), new Uint8Array(pad).fill(pad)]));
    },
  );
}

// ---- LUKS ---------------------------------------------------------------------------------------------------------

const hasLuks = has("qemu-img", "--version") && has("/usr/sbin/cryptsetup", "--version");

test(
  "xts(aes) with sectors reads the payload of a LUKS image of qemu-img (aes-xts-plain64) with its volume key",
  { needs: { "qemu-img and cryptsetup (packages qemu-utils, cryptsetup-bin)": hasLuks } },
  async () => {
    const directory = tempDir();
    const at = (name: string) => join(directory, name);
    const plain = bytes(300 * 512);
    writeFileSync(at("plain"), plain);
    writeFileSync(at("password"), "password");
    const convert = [
      "qemu-img",
      "convert",
      "--object",
      `secret,id=s0,file=${at("password")}`,
      "-f",
      "raw",
      "-O",
      "luks",
    ];
    const command = [...convert, "-o", "key-secret=s0,iter-time=10", at("plain"), at("image")];
    // qemu-img measures its speed, and fails if other processes use the CPU.
    for (let tries = 1; (await spawn(command)).stderr.includes("Unable to get accurate CPU usage"); tries++) {
      assert(tries < 20, "qemu-img gives up");
    }
    await other(
      ...["/usr/sbin/cryptsetup", "luksDump", "--dump-volume-key", "--volume-key-file", at("key")],
      ...["--key-file", at("password"), "--batch-mode", at("image")],
    );
    const image = read(at("image"));
    assertEquals(Buffer.from(image.subarray(0, 4)).toString("latin1"), "LUKS");
    const payload = image.subarray(512 * new DataView(image.buffer).getUint32(104));
    assertEquals(payload.length, plain.length);

    const options = { key: read(at("key")), sectorSize: 512, engine };
    assertEquals(options.key.length, 64);
    assertEquals(await collect(decrypt("xts(aes)", options, payload)), plain);
    assertEquals(await collect(encrypt("xts(aes)", options, plain)), new Uint8Array(payload));
    // Decrypts from the middle. The sector number is the IV.
    const rest = decrypt("xts(aes)", { ...options, sector: 100 }, payload.subarray(100 * 512));
    assertEquals(await collect(rest), plain.subarray(100 * 512));

    writeFileSync(at("payload"), payload);
    const xts = ["-c", "xts(aes)", "--key-file", at("key"), "--sector-size", "512", "--engine", engine];
    await run("decrypt", ...xts, "-i", at("payload"), "-o", at("back"));
    assertEquals(read(at("back")), plain);
    assert(payload.some((byte, i) => byte !== plain[i]));
  },
);
