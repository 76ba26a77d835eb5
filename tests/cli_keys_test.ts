/**
 * The tool's keys: rotation, keysets, recipients, passphrases, and what is refused.
 */
import { Buffer } from "node:buffer";
import { spawn as spawnProcess } from "node:child_process";
import { generateKeyPairSync, type KeyObject } from "node:crypto";
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { EnvelopeSealStream, openEnvelope } from "../src/envelope/mod.ts";
import { checkFormat, type SealedParameters } from "../src/sealed/format.ts";
import { encodeKey, typeUrlOf } from "../src/tink/key_proto.ts";
import { parseKeyset } from "../src/tink/mod.ts";
import vectors from "./fixtures/tink_vectors.json" with { type: "json" };
import { exitStatus, run, runEach, temporaryOf, tool, until } from "./support/cli_support.ts";
import { assert, assertEquals, assertNotEquals, assertStringIncludes, spawn, tempDir, test } from "./support/deps.ts";
import { type Bytes, bytes } from "./support/support.ts";

const USERSPACE = { engine: "userspace" } as const;
const INPUT = bytes(200_000, 81);
const PASSPHRASE = "corrêct horse";

type Path = (name: string) => string;
const read = (path: string): Bytes => new Uint8Array(readFileSync(path));

/** A directory with an input, a passphrase, keys of every kind, and their public parts. */
async function files(): Promise<Path> {
  const directory = tempDir();
  const path = (name: string) => join(directory, name);
  writeFileSync(path("in"), INPUT);
  writeFileSync(path("passphrase"), `${PASSPHRASE}\nanother line\n`);
  const results = await runEach([
    ["keygen", "--type", "x25519", "-o", "me.jwk"],
    ["keygen", "--type", "x25519", "-o", "stranger.jwk"],
    ["keygen", "--type", "aes", "-o", "aes.jwk"],
    ["keygen", "-o", "key"],
  ], directory);
  assertEquals(results.map(({ code, stderr }) => [code, stderr]), Array(4).fill([0, ""]));
  writeFileSync(path("me.pub"), results[0]!.stdout);
  writeFileSync(path("stranger.pub"), results[1]!.stdout);
  return path;
}

const codes = (results: readonly { code: number }[]) => results.map(({ code }) => code);

/** What `unseal` gives with these options. */
async function unsealed(path: Path, ...options: string[]): Promise<Bytes> {
  const { code, output, stderr } = await spawn([...tool, "unseal", ...options], { cwd: path(".") });
  assertEquals([code, stderr], [0, ""]);
  return new Uint8Array(output);
}

test("keygen --type writes the private part for the user alone, and prints the public part", USERSPACE, async () => {
  const path = await files();
  const me = JSON.parse(readFileSync(path("me.jwk"), "utf8"));
  const { d, ...publicKey } = me;
  assertEquals([me.kty, me.crv, Buffer.from(d, "base64url").length], ["OKP", "X25519", 32]);
  assertEquals(JSON.parse(readFileSync(path("me.pub"), "utf8")), publicKey);
  const aes = JSON.parse(readFileSync(path("aes.jwk"), "utf8"));
  assertEquals([aes.kty, Buffer.from(aes.k, "base64url").length], ["oct", 32]);
  for (const name of ["me.jwk", "aes.jwk"]) assertEquals(statSync(path(name)).mode & 0o777, 0o600);
  assertNotEquals(read(path("me.jwk")), read(path("stranger.jwk")));

  const lists = [
    ["keygen", "--type", "x25519", "-o", "me.jwk"],
    ["keygen", "--type", "tink", "--format", "AES256_GCM_HKDF_1MB", "-o", "keyset"],
    ["keygen", "--type", "aes", "--bits", "128", "-o", "no"],
    ["keygen", "--type", "x25519", "--format", "AES256_GCM_HKDF_1MB", "-o", "no"],
    ["keygen", "--type", "rsa", "-o", "no"],
  ];
  const results = await runEach(lists, path("."));
  assertEquals(codes(results), [1, 0, 2, 2, 2]);
  assertEquals(results[0]!.stdout, "");
  assert(!existsSync(path("no")));
  using keyset = parseKeyset(readFileSync(path("keyset"), "utf8"));
  assertEquals(keyset.keys[0]!.format!.segmentSize, 1_048_576);
  assertEquals(statSync(path("keyset")).mode & 0o777, 0o600);

  // To a pipe goes the private part, and the public one to standard error.
  const { stdout, stderr } = await spawn([...tool, "keygen", "--type", "x25519"]);
  assertEquals(JSON.parse(stdout).x, JSON.parse(stderr).x);
  assert(!stderr.includes('"d"'));
});

/** Key files of other programs: what openssl writes, JWKs and JWK sets. */
function keysOfOthers(path: Path): Record<string, { recipient: string; identity: string; line: string }> {
  const rsa = generateKeyPairSync("rsa", { modulusLength: 2048 });
  const ec = generateKeyPairSync("ec", { namedCurve: "P-256" });
  const write = (name: string, data: string) => {
    writeFileSync(path(name), data);
    return name;
  };
  const jwk = (key: KeyObject) => key.export({ format: "jwk" });
  const [rsaPublic, rsaPrivate] = [jwk(rsa.publicKey), jwk(rsa.privateKey)];
  const [ecPublic, ecPrivate] = [jwk(ec.publicKey), jwk(ec.privateKey)];
  const stranger = JSON.parse(readFileSync(path("stranger.jwk"), "utf8"));
  return {
    "X25519": { recipient: "me.pub", identity: "me.jwk", line: "a public key of X25519 (ECDH-ES+A256KW)" },
    "AES": { recipient: "aes.jwk", identity: "aes.jwk", line: "a symmetric key (A256KW)" },
    "RSA": {
      recipient: write("rsa.pub", JSON.stringify(rsaPublic)),
      identity: write("rsa.jwk", JSON.stringify({ ...rsaPrivate, key_ops: ["unwrapKey"] })),
      line: "a public key of RSA (RSA-OAEP-256)",
    },
    "RSA in PEM": {
      recipient: write("rsa.pub.pem", rsa.publicKey.export({ type: "spki", format: "pem" }) as string),
      identity: write("rsa.pem", rsa.privateKey.export({ type: "pkcs1", format: "pem" }) as string),
      line: "a public key of RSA (RSA-OAEP-256)",
    },
    "P-256 in a JWK set": {
      recipient: write("ec.pub", JSON.stringify({ keys: [{ ...ecPublic, use: "sig" }, { ...ecPublic, kid: "2026" }] })),
      identity: write("ec.jwks", JSON.stringify({ keys: [stranger, { ...ecPrivate, key_ops: ["unwrapKey"] }] })),
      line: 'a public key of P-256 (ECDH-ES+A256KW, key "2026")',
    },
    "P-256 in PEM": {
      recipient: write("ec.pub.pem", ec.publicKey.export({ type: "spki", format: "pem" }) as string),
      identity: write("ec.pem", ec.privateKey.export({ type: "sec1", format: "pem" }) as string),
      line: "a public key of P-256 (ECDH-ES+A256KW)",
    },
  };
}

test(
  "what is sealed for recipients is opened by the private key of each, and shows who they are",
  USERSPACE,
  async () => {
    const path = await files();
    const kinds = Object.values(keysOfOthers(path));
    await run(
      "seal",
      ...kinds.flatMap(({ recipient }) => ["--recipient", path(recipient)]),
      "-i",
      path("in"),
      "-o",
      path("sealed"),
    );
    const results = await runEach([
      ["recipients", "sealed"],
      ["recipients", "--json", "sealed"],
      ...kinds.map(({ identity }) => ["unseal", "--identity", identity, "-i", "sealed", "-o", `by-${identity}`]),
      ["unseal", "--identity", "stranger.jwk", "--identity", "me.jwk", "-i", "sealed", "-o", "by-both", "--range=-5"],
      ["unseal", "--identity", "stranger.jwk", "-i", "sealed", "-o", "no"],
    ], path("."));
    assertEquals(codes(results), [0, 0, ...kinds.map(() => 0), 0, 3]);
    assertEquals(results[0]!.stdout, kinds.map(({ line }) => `${line}\n`).join(""));
    assertEquals(JSON.parse(results[1]!.stdout).length, kinds.length);
    for (const { identity } of kinds) assertEquals(read(path(`by-${identity}`)), INPUT, identity);
    assertEquals(read(path("by-both")), INPUT.slice(-5));
    assertEquals(statSync(path("by-both")).mode & 0o777, 0o600);
    assertStringIncludes(
      results.at(-1)!.stderr,
      "no identity fits this file: its key is wrapped for: a public key of X25519, a symmetric key, a public key of RSA",
    );
    assert(!existsSync(path("no")));
  },
);

test("the tool and the API open each other's envelopes, through files and pipes", USERSPACE, async () => {
  const path = await files();
  const [me, publicKey] = ["me.jwk", "me.pub"].map((name) => JSON.parse(readFileSync(path(name), "utf8")));
  const sealing = await spawn([...tool, "seal", "--recipient", path("me.pub"), "--associated-data", "a name"], {
    input: INPUT,
  });
  assertEquals([sealing.code, sealing.stderr], [0, ""]);
  const associatedData = new TextEncoder().encode("a name");
  using reader = await openEnvelope(new Blob([new Uint8Array(sealing.output)]), { identities: [me], associatedData });
  assertEquals(await reader.bytes(), INPUT);
  for (const format of ["AES256_GCM_HKDF_1MB", "AES128_CTR_HMAC_SHA256_4KB"] as const) {
    const stream = new EnvelopeSealStream({ recipients: [publicKey], format, associatedData });
    const sealed = await new Response(new Blob([INPUT]).stream().pipeThrough(stream)).bytes();
    const unseal = ["unseal", "--identity", path("me.jwk"), "--associated-data", "a name"];
    const { code, output } = await spawn([...tool, ...unseal], { input: sealed });
    assertEquals(code, 0);
    assertEquals(new Uint8Array(output), INPUT);
  }
});

test("a passphrase opens a file, alone or beside a recipient, from a file or a descriptor", USERSPACE, async () => {
  const path = await files();
  const script = `exec "$@" seal --passphrase-fd 7 --recipient me.pub -i in -o sealed 7<passphrase`;
  assertEquals((await spawn(["sh", "-c", script, "-", ...tool], { cwd: path(".") })).code, 0);
  assertEquals(await unsealed(path, "--passphrase-file", "passphrase", "-i", "sealed"), INPUT);
  assertEquals(await unsealed(path, "--identity", "me.jwk", "-i", "sealed"), INPUT);
  writeFileSync(path("wrong"), "correct horse\n");
  const results = await runEach([
    ["recipients", "sealed"],
    ["unseal", "--passphrase-file", "wrong", "-i", "sealed", "-o", "no"],
    ["unseal", "--passphrase-file", "wrong", "--identity", "me.jwk", "-i", "sealed", "-o", "out"],
  ], path("."));
  assertEquals(codes(results), [0, 3, 0]);
  assertStringIncludes(results[0]!.stdout, "a passphrase (PBES2-HS512+A256KW, 600000 iterations)\n");
  assertStringIncludes(
    results[1]!.stderr,
    "no identity fits this file: its key is wrapped for: a public key of X25519, a passphrase",
  );
  assertEquals(read(path("out")), INPUT);
});

test("rewrap changes the recipients and nothing else, also in place", USERSPACE, async () => {
  const path = await files();
  await run("seal", "--recipient", path("me.pub"), "-i", path("in"), "-o", path("sealed"));
  const body = (name: string) => {
    const file = read(path(name));
    return file.subarray(file.indexOf(10, 20) + 1);
  };
  const before = body("sealed").slice();
  const other = ["--recipient", "stranger.pub", "--new-passphrase-file", "passphrase"];
  const results = await runEach([
    ["rewrap", "--identity", "me.jwk", ...other, "-i", "sealed", "-o", "rewrapped"],
    ["rewrap", "--passphrase-file", "passphrase", "--recipient", "aes.jwk", "-i", "rewrapped", "-o", "rewrapped"],
    ["unseal", "--identity", "aes.jwk", "-i", "rewrapped", "-o", "out"],
    ["unseal", "--identity", "stranger.jwk", "--identity", "me.jwk", "-i", "rewrapped", "-o", "no"],
    ["rewrap", "--identity", "stranger.jwk", "--recipient", "aes.jwk", "-i", "sealed", "-o", "sealed"],
    ["rewrap", "--identity", "me.jwk", "--recipient", "aes.jwk", "-i", "sealed", "-o", "aes.jwk"],
    ["rewrap", "--identity", "me.jwk", "--recipient", "aes.jwk", "-i", "sealed", "-o", "sealed", "--no-clobber"],
    ["rewrap", "--identity", "me.jwk", "-i", "sealed", "-o", "no"],
    ["rewrap", "--recipient", "me.pub", "-i", "sealed", "-o", "no"],
    ["rewrap", "--identity", "me.jwk", "--recipient", "aes.jwk", "-i", "in", "-o", "no"],
    ["unseal", "--identity", "me.jwk", "-i", "sealed", "-o", "still"],
  ], path("."));
  assertEquals(codes(results), [0, 0, 0, 3, 3, 1, 1, 2, 2, 3, 0]);
  for (const name of ["sealed", "rewrapped"]) assertEquals(body(name), before, name);
  for (const name of ["out", "still"]) assertEquals(read(path(name)), INPUT);
  assertStringIncludes(results[5]!.stderr, "cannot write aes.jwk: it is the recipient");
  assertStringIncludes(results[7]!.stderr, "--recipient or --new-passphrase");
  assertEquals(readdirSync(path(".")).filter((name) => name.startsWith(".") || name === "no"), []);
});

test("several key files: seal uses the first, and unseal finds the one that fits", USERSPACE, async () => {
  const path = await files();
  for (const name of ["a", "b", "c"]) writeFileSync(path(name), crypto.getRandomValues(new Uint8Array(32)));
  const keys = (...names: string[]) => names.flatMap((name) => ["--key-file", name]);
  const results = await runEach([
    ["seal", ...keys("a", "b"), "-i", "in", "-o", "sealed"],
    ["unseal", ...keys("c", "b", "a"), "-i", "sealed", "-o", "out"],
    ["unseal", ...keys("c", "a"), "-i", "sealed", "-o", "part", "--range=100-199"],
    ["unseal", ...keys("b", "c"), "-i", "sealed", "-o", "no"],
    ["unseal", ...keys("b", "a"), "-i", "sealed", "-o", "b"],
  ], path("."));
  assertEquals(codes(results), [0, 0, 0, 3, 1]);
  assertEquals([read(path("out")), read(path("part"))], [INPUT, INPUT.slice(100, 200)]);
  assertStringIncludes(results[3]!.stderr, "does not verify");
  assertStringIncludes(results[4]!.stderr, "cannot write b: it is the key");
});

test("keyset makes, shows and changes a keyset, which seals with its primary key", USERSPACE, async () => {
  const path = await files();
  const keyset = (...args: string[]) => ["keyset", ...args];
  const [created, added] = await runEach([
    keyset("create", "ks", "--format", "AES256_GCM_HKDF_4KB"),
    keyset("add", "ks", "--format", "AES128_CTR_HMAC_SHA256_1MB"),
  ], path("."));
  const [first, second] = [created!.stdout.trim(), added!.stdout.trim()] as [string, string];
  writeFileSync(path("old"), read(path("ks")));
  const results = await runEach([
    ["seal", "--keyset", "ks", "-i", "in", "-o", "by-first"],
    keyset("promote", "ks", second),
    ["seal", "--keyset", "ks", "-i", "in", "-o", "by-second"],
    ["unseal", "--keyset", "ks", "-i", "by-first", "-o", "one"],
    ["unseal", "--keyset", "old", "-i", "by-second", "-o", "two"],
    ["unseal", "--keyset", "ks", "-i", "by-second", "-o", "three", "--range=-9"],
    keyset("disable", "ks", first),
    keyset("list", "ks"),
    ["unseal", "--keyset", "ks", "-i", "by-first", "-o", "no"],
    keyset("enable", "ks", first),
    keyset("remove", "ks", first),
    keyset("list", "--json", "ks"),
  ], path("."));
  assertEquals(codes(results), [0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0]);
  for (const name of ["one", "two"]) assertEquals(read(path(name)), INPUT, name);
  assertEquals(read(path("three")), INPUT.slice(-9));
  const rows = results[7]!.stdout.trim().split("\n").map((line) => line.split(/\s+/));
  assertEquals(rows.slice(1), [
    [first, "DISABLED", "AES256_GCM_HKDF_4KB"],
    [second, "PRIMARY", "AES128_CTR_HMAC_SHA256_1MB"],
  ]);
  assertEquals(JSON.parse(results[11]!.stdout).map(({ id }: { id: number }) => String(id)), [second]);
  assertEquals(statSync(path("ks")).mode & 0o777, 0o600);

  const before = read(path("ks"));
  const refused = await runEach([
    keyset("create", "ks"),
    keyset("remove", "ks", second),
    keyset("disable", "ks", second),
    keyset("promote", "ks", first),
    keyset("promote", "ks"),
    keyset("promote", "ks", "first"),
    keyset("add", "ks", second),
    keyset("list", "ks", "--format", "AES256_GCM_HKDF_4KB"),
    keyset("add", "ks", "--json"),
    keyset("rotate", "ks"),
    keyset("list"),
    keyset("list", "me.jwk"),
    keyset("add", "in"),
    ["seal", "--keyset", "ks", "--format", "AES256_GCM_HKDF_4KB", "-i", "in", "-o", "no"],
    ["seal", "--keyset", "ks", "--key-file", "key", "-i", "in", "-o", "no"],
    ["seal", "--keyset", "ks", "-i", "in", "-o", "ks"],
  ], path("."));
  assertEquals(codes(refused), [1, ...Array(14).fill(2), 1]);
  assertStringIncludes(refused[9]!.stderr, 'unknown action "rotate"');
  assertEquals(read(path("ks")), before);
  assertEquals(readdirSync(path(".")).filter((name) => name.startsWith(".") || name === "no"), []);
});

test(
  "with keysets of the keys of Tink's test vectors, unseal opens and refuses what Tink does",
  USERSPACE,
  async () => {
    const path = await files();
    const all = vectors.filter(({ ciphertext }) => ciphertext !== undefined);
    const some = all.filter((_, i) => i % 6 === 0);
    const lists = some.map((vector, i) => {
      const { format: cipher, keySize, hkdfHash, macHash, tagSize, segmentSize, ikm, associatedData } = vector;
      const format = checkFormat({ cipher, keySize, hkdfHash, macHash, tagSize, segmentSize } as SealedParameters);
      const value = Buffer.from(encodeKey(format, new Uint8Array(Buffer.from(ikm, "hex")))).toString("base64");
      const keyData = { typeUrl: typeUrlOf(format), value, keyMaterialType: "SYMMETRIC" };
      const key = [{ keyData, status: "ENABLED", keyId: i + 1, outputPrefixType: "RAW" }];
      writeFileSync(path(`${i}.keyset`), JSON.stringify({ primaryKeyId: i + 1, key }));
      writeFileSync(path(`${i}.ad`), Buffer.from(associatedData, "hex"));
      writeFileSync(path(`${i}.sealed`), Buffer.from(vector.ciphertext!, "hex"));
      const options = ["--keyset", `${i}.keyset`, "--associated-data-file", `${i}.ad`];
      return ["unseal", ...options, "-i", `${i}.sealed`, "-o", `${i}.out`];
    });
    const results = await runEach(lists, path("."));
    for (const [i, { name, refused, plaintextLength }] of some.entries()) {
      assertEquals(results[i]!.code, refused ? 3 : 0, name);
      if (!refused) assertEquals(statSync(path(`${i}.out`)).size, plaintextLength as number, name);
    }
    assertEquals(new Set(codes(results)).size, 2);
  },
);

test("an encrypted keyset is refused with what to do", USERSPACE, async () => {
  const path = await files();
  writeFileSync(path("ks"), JSON.stringify({ encryptedKeyset: "AA==", keysetInfo: {} }));
  const [result] = await runEach([["seal", "--keyset", "ks", "-i", "in", "-o", "no"]], path("."));
  assertEquals([result!.code, result!.stderr], [
    2,
    "kcapi-streams: ks is an encrypted keyset: the tool asks no KMS, so decrypt it first\n",
  ]);
});

test("seal, unseal and recipients refuse what they cannot use, and say which option does it", USERSPACE, async () => {
  const path = await files();
  writeFileSync(path("text"), "correct horse battery staple");
  writeFileSync(path("latin1"), Uint8Array.of(0xe9, 10));
  writeFileSync(path("empty.jwks"), '{"keys":[]}');
  writeFileSync(path("zero.jwk"), JSON.stringify({ kty: "oct", k: "A".repeat(43) }));
  writeFileSync(path("ed.jwk"), JSON.stringify({ kty: "OKP", crv: "Ed25519", x: "A".repeat(43) }));
  writeFileSync(path("broken.pem"), "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n");
  await run("seal", "--recipient", path("me.pub"), "-i", path("in"), "-o", path("sealed"));
  await run("seal", "--key-file", path("key"), "-i", path("in"), "-o", path("raw"));
  const seal = ["seal", "-i", "in", "-o", "no"], unseal = ["unseal", "-o", "no", "-i"];
  const cases: [list: string[], code: number, says: string][] = [
    [seal, 2, "no key: give --key-file, --keyset, --recipient or --passphrase"],
    [[...unseal, "sealed"], 2, "no key: give --key-file, --keyset, --identity or --passphrase"],
    [
      [...unseal, "sealed", "--key-file", "key"],
      3,
      "sealed has a key of its own, wrapped for a public key of X25519: give --identity",
    ],
    [[...unseal, "raw", "--identity", "me.jwk"], 3, "raw is not wrapped for passphrases or public keys"],
    [[...unseal, "sealed", "--identity", "me.jwk", "--format", "AES256_GCM_HKDF_4KB"], 2, "--format is not needed"],
    [[...unseal, "sealed", "--identity", "me.pub"], 2, 'me.pub: "identities[0]" expected a private key'],
    [[...unseal, "sealed", "--recipient", "me.pub"], 2, 'unknown option "--recipient"'],
    [[...seal, "--recipient", "me.pub", "--key-file", "key"], 2, "a file for recipients has a key of its own"],
    [[...seal, "--passphrase", "--keyset", "missing"], 2, "a file for recipients has a key of its own"],
    [
      [...seal, "--passphrase-fd", "7", "--passphrase-file", "passphrase"],
      2,
      "--passphrase-file and --passphrase-fd exclude each other",
    ],
    [[...seal, "--passphrase=hunter2"], 2, "--passphrase"],
    [[...seal, "--passphrase", "hunter2"], 2, "unexpected argument"],
    [[...seal, "--passphrase"], 2, "no terminal"],
    [[...seal, "--passphrase-file", "latin1"], 2, "--passphrase-file expected UTF-8"],
    [[...seal, "--key", "hunter2"], 2, "did you mean --key-file?"],
    [[...seal, "--recipient", "text"], 2, "text expected JSON, got other text"],
    [[...seal, "--recipient", "empty.jwks"], 2, "a JWK set without one"],
    [[...seal, "--recipient", "zero.jwk"], 2, "nothing but zero bytes"],
    [[...seal, "--recipient", "ed.jwk"], 2, "X25519, P-256"],
    [[...seal, "--recipient", "broken.pem"], 2, "expected a public key in PEM"],
    [[...seal, "--recipient", "missing"], 1, "cannot open missing"],
    [[...seal, "--recipient", "me.pub", "--engine", "kernel"], 2, "AES-CTR-HMAC"],
    [["seal", "--recipient", "me.pub", "-i", "in", "-o", "me.pub"], 1, "it is the recipient"],
    [["unseal", "--identity", "me.jwk", "-i", "sealed", "-o", "me.jwk"], 1, "it is the identity"],
    [["unseal", "--identity", "me.jwk", "-i", "sealed", "-o", "sealed"], 1, "it is the input"],
    [["recipients", "raw"], 3, "raw is not an envelope"],
    [["recipients"], 2, "no FILE"],
    [["recipients", "a", "b"], 2, "more than one FILE"],
  ];
  const results = await runEach(cases.map(([list]) => list), path("."));
  results.forEach(({ code, stdout, stderr }, i) => {
    const [list, expected, says] = cases[i]!;
    assertEquals([code, stdout], [expected, ""], `${list.join(" ")}: ${stderr}`);
    assertStringIncludes(stderr, says);
    assert(!/hunter2|horse/.test(stderr), stderr);
  });
  assert(!existsSync(path("no")));
});

test("a hostile header ends with 3 before any key is tried, and cannot control the terminal", USERSPACE, async () => {
  const path = await files();
  await run("seal", "--recipient", path("me.pub"), "-i", path("in"), "-o", path("sealed"));
  const sealed = read(path("sealed"));
  const end = sealed.indexOf(10, 15);
  const header = JSON.parse(new TextDecoder().decode(sealed.subarray(15, end)));
  const write = (name: string, line: string) =>
    writeFileSync(path(name), Buffer.concat([Buffer.from(`kcapi-sealed/1\n${line}`), sealed.subarray(end)]));
  const [recipient] = header.recipients;
  const changed = (members: object) => JSON.stringify({ ...header, ...members });
  const iterations = { header: { alg: "PBES2-HS512+A256KW", p2s: "AAAA", p2c: 2 ** 31 }, encrypted_key: "AAAA" };
  const bell = { ...recipient, header: { ...recipient.header, kid: "\u001b[2J\u0007\u202e" } };
  write("twice", JSON.stringify(header).replace("{", '{"tag":"AA",'));
  write("huge", changed({ aad: "A".repeat(70_000) }));
  write("iterations", changed({ recipients: [iterations] }));
  write("text", "{");
  write("bell", changed({ recipients: [bell, { header: { alg: "\u001b[2J" }, encrypted_key: "AAAA" }] }));
  writeFileSync(path("cut"), sealed.subarray(0, end));
  const hostile = {
    twice: "twice",
    huge: "longer",
    iterations: "iterations",
    text: "not JSON",
    cut: "within the header",
  };
  const names = Object.keys(hostile);
  const results = await runEach([
    ...names.map((name) => ["unseal", "--identity", "me.jwk", "-i", name, "-o", "no"]),
    ...names.map((name) => ["recipients", name]),
    ["recipients", "bell"],
    ["unseal", "--identity", "aes.jwk", "-i", "bell"],
  ], path("."));
  results.slice(0, 2 * names.length).forEach(({ code, stderr }, i) => {
    assertEquals(code, 3, stderr);
    assertStringIncludes(stderr, Object.values(hostile)[i % names.length]!);
  });
  const [shown, refused] = results.slice(-2);
  assertEquals([shown!.code, refused!.code], [0, 3]);
  assert(/^[ -~\n]*$/.test(shown!.stdout + refused!.stderr), shown!.stdout);
  assert(!existsSync(path("no")));
});

const hasJose = await spawn(["jose", "fmt", "-j", "{}"]).then(({ code }) => code === 0, () => false);

test("keys of Debian's jose work, and it unwraps the key of a file for one of them", {
  engine: "userspace",
  needs: { "the program jose": hasJose },
}, async () => {
  const path = await files();
  const seal = `"$@" seal --recipient ec.pub --recipient oct.jwk -i in -o sealed --format AES256_CTR_HMAC_SHA256_4KB`;
  const script = `
    jose jwk gen -i '{"kty":"EC","crv":"P-256"}' -o ec.jwk
    jose jwk gen -i '{"alg":"A256KW"}' -o oct.jwk
    jose jwk pub -i ec.jwk -o ec.pub
    ${seal}
    "$@" unseal --identity ec.jwk -i sealed | cmp - in
    "$@" unseal --identity oct.jwk -i sealed | cmp - in
    sed -n 2p sealed | tr -d '\\n' | jose jwe dec -i- -k ec.jwk -O file-key
    header=$(head -n 2 sealed | wc -c)
    tail -c +$((header + 1)) sealed | "$@" unseal --key-file file-key --format AES256_CTR_HMAC_SHA256_4KB | cmp - in`;
  const { code, stderr } = await spawn(["bash", "-euo", "pipefail", "-c", script, "-", ...tool], { cwd: path(".") });
  assertEquals([code, stderr], [0, ""]);
});

test("a signal during seal and rewrap leaves every file as it was", USERSPACE, async () => {
  const path = await files();
  await run("seal", "--recipient", path("me.pub"), "-i", path("in"), "-o", path("sealed"));
  const before = readdirSync(path(".")).sort();
  const sealed = read(path("sealed"));
  const commands = [
    ["seal", "--recipient", "me.pub", "-o", "sealed"],
    ["rewrap", "--identity", "me.jwk", "--recipient", "aes.jwk", "-o", "sealed"],
  ];
  for (const args of commands) {
    const [program, ...rest] = [...tool, ...args] as [string, ...string[]];
    const child = spawnProcess(program, rest, { cwd: path("."), stdio: ["pipe", "ignore", "ignore"] });
    const status = exitStatus(child);
    child.stdin!.on("error", () => {}); // the tool ends before it has read all
    child.stdin!.write(sealed); // and no end
    await until(() => temporaryOf(readdirSync(path("."))) !== undefined);
    process.kill(child.pid!, "SIGINT");
    child.stdin!.destroy();
    assertEquals(await status, 130);
  }
  assertEquals(readdirSync(path(".")).sort(), before);
  assertEquals(read(path("sealed")), sealed);
});
