/**
 * The command line tool with AES-GCM: files and pipes, and what is not authentic.
 */
import { Buffer } from "node:buffer";
import { createCipheriv } from "node:crypto";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { readBytes, run, runEach, tool } from "./support/cli_support.ts";
import { assert, assertEquals, assertStringIncludes, runtime, spawn, tempDir, test } from "./support/deps.ts";
import { type Bytes, bytes, concat } from "./support/support.ts";

const ONCE = { engine: "userspace" } as const;
const KEY = bytes(32, 1);
const IV = bytes(12, 2);
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString("hex");

function sealed(plaintext: Bytes, { key = KEY, iv = IV, associatedData = new Uint8Array(0), tagSize = 16 } = {}) {
  const name = `aes-${8 * key.length}-gcm` as "aes-256-gcm";
  const cipher = createCipheriv(name, key, iv, { authTagLength: tagSize });
  cipher.setAAD(associatedData);
  const ciphertext = concat([cipher.update(plaintext), cipher.final()]);
  return { ciphertext, tag: new Uint8Array(cipher.getAuthTag()) };
}

/** A directory with keys, a plaintext of some segments, and its message, good and forged. */
function workspace() {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const plain = bytes(500_000, 3);
  const { ciphertext, tag } = sealed(plain);
  const message = concat([ciphertext, tag]);
  writeFileSync(at("key"), KEY);
  writeFileSync(at("plain"), plain);
  writeFileSync(at("message"), message);
  writeFileSync(at("forged"), message.map((byte, i) => i === 400_000 ? byte ^ 1 : byte));
  return { at, directory, plain, message };
}

test("encrypt and decrypt give what node:crypto gives, under each name and layout", ONCE, async () => {
  const { at, plain } = workspace();
  const associatedData = bytes(9, 5);
  writeFileSync(at("data"), associatedData);
  for (const [name, size] of [["gcm(aes)", 16], ["gcm(aes)", 32], ["aes-128-gcm", 16], ["AES-GCM", 32]] as const) {
    const key = bytes(size, 7);
    writeFileSync(at("key"), key);
    const { ciphertext, tag } = sealed(plain, { key, associatedData, tagSize: 12 });
    const common = ["-c", name, "--key-file", at("key"), "--iv", hex(IV), "--associated-data-file", at("data")];
    for (const place of ["end", "start"]) {
      const options = [...common, "--tag-size", "12", "--tag", place];
      await run("encrypt", ...options, "-i", at("plain"), "-o", at("out"));
      assertEquals(readBytes(at("out")), concat(place === "end" ? [ciphertext, tag] : [tag, ciphertext]));
      await run("decrypt", ...options, "-i", at("out"), "-o", at("back"));
      assertEquals(readBytes(at("back")), plain);
    }
    writeFileSync(at("apart"), ciphertext);
    await run("decrypt", ...common, "--tag", hex(tag), "-i", at("apart"), "-o", at("back"));
    assertEquals(readBytes(at("back")), plain);
  }
  writeFileSync(at("key"), KEY);
  const options = ["-c", "aes-256-gcm", "--key-file", at("key"), "--iv-prefix", "--associated-data", "näme"];
  await run("encrypt", ...options, "-i", at("plain"), "-o", at("out"));
  const output = readBytes(at("out"));
  const expected = sealed(plain, { iv: output.slice(0, 12), associatedData: new TextEncoder().encode("näme") });
  assertEquals(output.slice(12), concat([expected.ciphertext, expected.tag]));
  await run("decrypt", ...options, "-i", at("out"), "-o", at("back"));
  assertEquals(readBytes(at("back")), plain);
});

test("AES-192 in each runtime", ONCE, async () => {
  const { at, plain } = workspace();
  writeFileSync(at("key"), bytes(24, 7));
  const options = ["-c", "aes-192-gcm", "--key-file", at("key"), "--iv", hex(IV)];
  await run("encrypt", ...options, "-i", at("plain"), "-o", at("out"));
  await run("decrypt", ...options, "-i", at("out"), "-o", at("back"));
  assertEquals(readBytes(at("back")), plain);
  if (runtime === "deno") return; // whose node:crypto has no AES-192-GCM
  const { ciphertext, tag } = sealed(plain, { key: bytes(24, 7) });
  assertEquals(readBytes(at("out")), concat([ciphertext, tag]));
});

test("nothing unverified comes out of files and pipes, unless --release-unverified asks for it", ONCE, async () => {
  const { at, directory, plain } = workspace();
  const decrypt = `${tool.map((word) => `'${word}'`).join(" ")} decrypt -c aes-256-gcm --key-file key --iv ${hex(IV)}`;
  const cases: [command: string, code: number, size: number, message: string][] = [
    [`${decrypt} -i message`, 0, plain.length, ""],
    [`cat message | ${decrypt}`, 0, plain.length, ""],
    [`${decrypt} < message`, 0, plain.length, ""],
    [`cat message | ${decrypt} -o piped`, 0, 0, ""],
    [`cat message | ${decrypt} --max-size 500000`, 0, plain.length, ""],
    [`cat message | ${decrypt} --max-size 499999`, 2, 0, "--release-unverified"],
    [`cat message | ${decrypt} --max-size 5 -o small`, 0, 0, ""],
    [`${decrypt} --max-size 5 -i message`, 0, plain.length, ""],
    [`cat message | ${decrypt} --max-size 5 --release-unverified`, 0, plain.length, ""],
    [`${decrypt} -i forged`, 3, 0, "does not verify"],
    [`${decrypt} -i forged -o no1`, 3, 0, "does not verify"],
    [`cat forged | ${decrypt}`, 3, 0, "does not verify"],
    [`cat forged | ${decrypt} -o no2`, 3, 0, "does not verify"],
    [`head -c 300000 message | ${decrypt}`, 3, 0, "does not verify"],
    [`head -c 5 message | ${decrypt} -o no3`, 3, 0, "does not verify"],
    [`${decrypt} -i forged --release-unverified`, 3, plain.length, "does not verify"],
    [`${decrypt} -i forged --release-unverified -o no4`, 3, 0, "does not verify"],
  ];
  const lines = cases.map(([command], i) => `(set -o pipefail; ${command}) >${i}.out 2>${i}.err; echo $?\n`);
  writeFileSync(at("script"), lines.join("")); // not -c, which Deno changes if it finds its own path there
  const { stdout } = await spawn(["bash", "script"], { cwd: directory });
  const codes = stdout.trim().split("\n").map(Number);
  for (const [i, [command, code, size, message]] of cases.entries()) {
    const errors = new TextDecoder().decode(readBytes(at(`${i}.err`)));
    assertEquals(codes[i], code, `${command}: ${errors}`);
    assertEquals(readBytes(at(`${i}.out`)).length, size, command);
    if (size > 0 && code === 0) assertEquals(readBytes(at(`${i}.out`)), plain, command);
    assertStringIncludes(errors, message);
    if (code === 0) assertEquals(errors, "", command);
  }
  for (const name of ["piped", "small"]) assertEquals(readBytes(at(name)), plain);
  for (const name of ["no1", "no2", "no3", "no4"]) assert(!existsSync(at(name)), name);
});

test("options that do not fit are refused by name, and leave no output", ONCE, async () => {
  const { at, directory } = workspace();
  const good = ["-c", "gcm(aes)", "--key-file", "key", "--iv", hex(IV), "-i", "plain", "-o", "out"];
  const without = (name: string) => good.filter((_, i) => good[i] !== name && good[i - 1] !== name);
  writeFileSync(at("passphrase"), "correct horse\n");
  const cases: [words: string[], message: string][] = [
    [["encrypt", ...without("--iv")], "gcm(aes) needs --iv or --iv-prefix"],
    [["encrypt", ...good, "--iv-prefix"], "--iv and --iv-prefix exclude each other"],
    [["encrypt", ...without("--key-file")], "gcm(aes) needs --key-file or --key-fd"],
    [["encrypt", ...without("--key-file"), "--passphrase-file", "passphrase"], "--passphrase-file is not for gcm(aes)"],
    [["encrypt", ...good, "--padding", "none"], "--padding is not for gcm(aes)"],
    [["encrypt", ...good, "--position", "16"], "--position is not for gcm(aes)"],
    [["encrypt", ...good, "--sector-size", "512"], "--sector-size is not for gcm(aes)"],
    [["encrypt", ...good, "--engine", "kernel"], "AF_ALG takes"],
    [["encrypt", ...good, "--tag", hex(bytes(16))], "--tag expects end or start for encryption"],
    [["decrypt", ...good, "--tag", "front"], "--tag expects an even number of hexadecimal digits"],
    [["decrypt", ...good, "--tag", "0011"], '"tag" expected 4 or 8'],
    [["encrypt", ...good, "--tag-size", "5"], '"tagSize" expected 4 or 8'],
    [["encrypt", ...good, "--tag-size", "17"], "--tag-size expects a whole number from 4 to 16"],
    [["encrypt", ...good, "--max-size", "x"], "--max-size expects a whole number"],
    [["encrypt", ...good, "--release-unverified"], "release-unverified"],
    [["encrypt", ...good, "--associated-data", "x", "--associated-data-file", "key"], "exclude each other"],
    [["encrypt", "-c", "ctr(aes)", ...good.slice(2), "--tag", "end"], "--tag is for -c gcm(aes) or aes-256-gcm"],
    [
      ["decrypt", "-c", "ctr(aes)", ...good.slice(2), "--release-unverified"],
      "--release-unverified is for -c gcm(aes)",
    ],
    [["encrypt", "-c", "ccm(aes)", ...good.slice(2)], "AEAD"],
    [["encrypt", "-c", "aes-128-gcm", ...good.slice(2)], "the key has 32 bytes, aes-128-gcm takes 16"],
  ];

  const results = await runEach(cases.map(([words]) => words), directory);
  for (const [i, [words, message]] of cases.entries()) {
    assertStringIncludes(results[i]!.stderr, message, words.join(" "));
    assertEquals(results[i]!.code, 2, words.join(" "));
  }
  assert(!existsSync(at("out")));
});
