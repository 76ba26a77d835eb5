/**
 * Envelopes and other programs: Debian's jose, and a reader in Python.
 */
import { spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { SealStream, UnsealStream } from "../mod.ts";
import type { Identity, Recipient } from "../src/envelope/mod.ts";
import { bytes, concat } from "./support/bytes.ts";
import { assertEquals, tempDir, test } from "./support/deps.ts";
import {
  bytesOf,
  cut,
  DATA,
  headerOf,
  P256,
  PASSPHRASE,
  sealedFor,
  unsealedBy,
  X25519,
} from "./support/envelope_support.ts";

const hasJose = spawnSync("jose", ["fmt", "-j", "{}"]).status === 0;

test("Debian's jose unwraps the key of a file for P-256", {
  engine: "userspace",
  needs: { "the program jose": hasJose },
}, async () => {
  const directory = tempDir();
  const file = await sealedFor([P256.recipient as Recipient]);
  writeFileSync(join(directory, "header.jwe"), headerOf(file).line);
  writeFileSync(join(directory, "key.jwk"), JSON.stringify(P256.identity));
  const { stdout, status } = spawnSync("jose", ["jwe", "dec", "-i", "header.jwe", "-k", "key.jwk"], { cwd: directory });
  assertEquals(status, 0);
  const plain = cut(file.slice(headerOf(file).end), 65_536);
  const stream = plain.pipeThrough(new UnsealStream({ key: new Uint8Array(stdout), format: "AES256_GCM_HKDF_64KB" }));
  assertEquals(await bytesOf(stream), DATA);
});

test("a file with a header from Debian's jose opens", {
  engine: "userspace",
  needs: { "the program jose": hasJose },
}, async () => {
  const directory = tempDir();
  const key = crypto.getRandomValues(new Uint8Array(32));
  writeFileSync(join(directory, "key"), key);
  writeFileSync(join(directory, "public.jwk"), JSON.stringify(P256.recipient));
  const template = {
    protected: { enc: "A256GCM", format: "AES256_GCM_HKDF_4KB" },
    unprotected: { alg: "ECDH-ES+A256KW" },
  };
  const args = ["jwe", "enc", "-i", JSON.stringify(template), "-I", "key", "-k", "public.jwk"];
  const { stdout, stderr, status } = spawnSync("jose", args, { cwd: directory, encoding: "utf8" });
  assertEquals(status, 0, stderr);
  const sealed = await bytesOf(cut(DATA, 65_536).pipeThrough(new SealStream({ key, format: "AES256_GCM_HKDF_4KB" })));
  const file = concat([new TextEncoder().encode(`kcapi-sealed/1\n${stdout.trim()}\n`), sealed]);
  assertEquals(await unsealedBy([P256.identity as Identity], file), DATA);
});

const python = "/usr/bin/python3";
const hasPython = spawnSync(python, ["-c", "import cryptography"]).status === 0;

test("a Python reader, written from docs/envelope.md, opens a file by its passphrase", {
  engine: "userspace",
  needs: { "Python's cryptography": hasPython },
}, async () => {
  const directory = tempDir();
  for (const size of [0, 1, 65_481, 200_000]) {
    writeFileSync(join(directory, "file"), await sealedFor([X25519.recipient as Recipient, PASSPHRASE], bytes(size)));
    const reader = fileURLToPath(new URL("native/envelope_reader.py", import.meta.url));
    const { stdout, stderr, status } = spawnSync(python, [reader, "file"], {
      cwd: directory,
      input: PASSPHRASE.passphrase,
      maxBuffer: 1 << 24,
    });
    assertEquals(status, 0, stderr.toString());
    assertEquals(new Uint8Array(stdout), bytes(size));
  }
});
