/**
 * The tool's `verify`, `unseal --rescue`, and sealed files at a URL.
 */
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { runEach, tool } from "./support/cli_support.ts";
import { assert, assertEquals, assertStringIncludes, spawn, tempDir, test } from "./support/deps.ts";
import { HttpFile } from "./support/http_file.ts";
import { bytes, concat } from "./support/support.ts";
import { startServer } from "./support/web_servers.ts";

const USERSPACE = { engine: "userspace" } as const;
const KEY = bytes(32, 71);
const INPUT = bytes(24_000, 72);
const FORMAT = "AES256_GCM_HKDF_4KB";
/** Bytes of plaintext in a full segment, and of the header. */
const [STRIDE, HEADER] = [4080, 40];
const KEY_OPTIONS = ["--key-file", "key", "--format", FORMAT];
const bytesOf = (path: string) => new Uint8Array(readFileSync(path));

/** The plaintext range of segments, as the tool prints it. */
const range = (first: number, end: number, size = INPUT.length) =>
  `bytes ${Math.max(0, first * STRIDE - HEADER)}-${Math.min(end * STRIDE - HEADER, size) - 1}`;

/** A directory with a key, a sealed file, and what became of it. */
async function files(): Promise<(name: string) => string> {
  const directory = tempDir();
  const path = (name: string) => join(directory, name);
  writeFileSync(path("key"), KEY);
  writeFileSync(path("other-key"), bytes(32, 5));
  const { output } = await spawn([...tool, "seal", "--key-file", path("key"), "--format", FORMAT], { input: INPUT });
  const sealed = new Uint8Array(output);
  const damaged = (...positions: number[]) => sealed.map((byte, i) => positions.includes(i) ? byte ^ 1 : byte);
  writeFileSync(path("sealed"), sealed);
  writeFileSync(path("first"), damaged(100));
  writeFileSync(path("several"), damaged(5000, 9000, 17_000));
  writeFileSync(path("last"), damaged(sealed.length - 1));
  writeFileSync(path("cut"), sealed.subarray(0, 4096 * 3));
  writeFileSync(path("cut-inside"), sealed.subarray(0, 4096 * 3 + 100));
  writeFileSync(path("extended"), concat([sealed, bytes(3)]));
  writeFileSync(path("length"), damaged(0));
  writeFileSync(path("salt"), damaged(5));
  writeFileSync(path("empty"), "");
  return path;
}

const END = "damaged: its end does not verify, so bytes may be missing or have been added there";
const NOTHING = "no part of it verifies: wrong key, associated data or format, or the header is damaged";
const CUT = 3 * STRIDE - HEADER;

test("verify tells which bytes are damaged, and ends with 3 if any are", USERSPACE, async () => {
  const path = await files();
  const expected: Record<string, string[]> = {
    sealed: ["intact, 24000 bytes"],
    first: [`damaged: ${range(0, 1)}`],
    several: [`damaged: ${range(1, 3)}`, `damaged: ${range(4, 5)}`],
    last: [`damaged: ${range(5, 6)}`, END],
    cut: [END],
    "cut-inside": [`damaged: ${range(3, 4, CUT + 84)}`, END],
    extended: [`damaged: ${range(5, 6, INPUT.length + 3)}`, END],
    length: ["damaged: its header, or bytes that were added to its end"],
    salt: [NOTHING],
  };
  const lists = Object.keys(expected).map((name) => ["verify", ...KEY_OPTIONS, name]);
  const results = await runEach([...lists, ["verify", ...KEY_OPTIONS, ...Object.keys(expected)]], path("."));
  for (const [i, [name, lines]] of Object.entries(expected).entries()) {
    const { code, stdout, stderr } = results[i]!;
    assertEquals(stdout, lines.map((line) => `${name}: ${line}\n`).join(""));
    assertEquals([code, stderr], [name === "sealed" ? 0 : 3, ""]);
  }
  const all = results.at(-1)!;
  assertEquals([all.code, all.stdout], [3, results.slice(0, -1).map(({ stdout }) => stdout).join("")]);
});

test("verify goes on after a file that it cannot read, and refuses what is no file", USERSPACE, async () => {
  const path = await files();
  const [missing, empty, wrong, none, noKey] = await runEach([
    ["verify", ...KEY_OPTIONS, "missing", "sealed"],
    ["verify", ...KEY_OPTIONS, "empty", "sealed"],
    ["verify", "--key-file", "other-key", "--format", FORMAT, "sealed"],
    ["verify", ...KEY_OPTIONS],
    ["verify", "sealed"],
  ], path("."));
  assertEquals([missing!.code, missing!.stdout], [1, "sealed: intact, 24000 bytes\n"]);
  assertStringIncludes(missing!.stderr, "missing");
  assertEquals([empty!.code, empty!.stdout], [3, "sealed: intact, 24000 bytes\n"]);
  assertEquals([wrong!.code, wrong!.stdout], [3, `sealed: ${NOTHING}\n`]);
  assertEquals([none!.code, noKey!.code], [2, 2]);
  const piped = await spawn([...tool, "verify", "--key-file", path("key"), "-"], { input: bytesOf(path("sealed")) });
  assertEquals(piped.code, 2);
  assertStringIncludes(piped.stderr, "needs a file to read from");
});

test("unseal --rescue writes what is intact, and zeros for the rest", USERSPACE, async () => {
  const path = await files();
  const zeros = (first: number, end: number, size = INPUT.length) => {
    const result = INPUT.slice(0, size);
    result.fill(0, Math.max(0, first * STRIDE - HEADER), end * STRIDE - HEADER);
    return result;
  };
  const expected: Record<string, Uint8Array> = {
    sealed: INPUT,
    first: zeros(0, 1),
    several: zeros(1, 3).map((byte, i) => i >= 4 * STRIDE - HEADER && i < 5 * STRIDE - HEADER ? 0 : byte),
    last: zeros(5, 6),
    cut: INPUT.slice(0, CUT),
    "cut-inside": concat([INPUT.slice(0, CUT), bytes(84).fill(0)]),
    extended: concat([INPUT.slice(0, 5 * STRIDE - HEADER), bytes(INPUT.length + 3 - (5 * STRIDE - HEADER)).fill(0)]),
    length: INPUT,
  };
  const names = Object.keys(expected);
  const results = await runEach(
    names.map((name) => ["unseal", "--rescue", ...KEY_OPTIONS, "-i", name, "-o", `${name}.out`]),
    path("."),
  );
  for (const [i, name] of names.entries()) {
    const { code, stdout, stderr } = results[i]!;
    assertEquals([name, code, stdout], [name, name === "sealed" ? 0 : 4, ""]);
    assertEquals(bytesOf(path(`${name}.out`)), new Uint8Array(expected[name]!), name);
    if (name === "sealed") assertEquals(stderr, "");
    else assertStringIncludes(stderr, `${name}: damaged`);
  }
  assertStringIncludes(results[names.indexOf("several")]!.stderr, `several: damaged: ${range(1, 3)}\n`);
});

test("unseal --rescue makes no file if nothing verifies, and refuses what it cannot do", USERSPACE, async () => {
  const path = await files();
  const before = readdirSync(path("."));
  const rescue = ["unseal", "--rescue", ...KEY_OPTIONS];
  const results = await runEach([
    [...rescue, "-i", "salt", "-o", "out"],
    ["unseal", "--rescue", "--key-file", "other-key", "--format", FORMAT, "-i", "sealed", "-o", "out"],
    [...rescue, "-i", "empty", "-o", "out"],
    [...rescue, "-i", "sealed"],
    [...rescue, "-i", "sealed", "-o", "out", "--range", "1-2"],
  ], path("."));
  assertEquals(results.map(({ code }) => code), [3, 3, 3, 2, 2]);
  assertStringIncludes(results[0]!.stderr, NOTHING);
  assertEquals(readdirSync(path(".")), before);
});

test("a URL is read by ranges: unseal, with --range and --rescue, and verify", USERSPACE, async () => {
  const path = await files();
  const several = new HttpFile(bytesOf(path("several")));
  const intact = new HttpFile(bytesOf(path("sealed")));
  await using server = await startServer((request, response) => {
    const file = request.url!.startsWith("/several") ? several : intact;
    const { status, headers, body } = file.answer(new Headers(request.headers as Record<string, string>));
    response.writeHead(status, headers).end(body);
  });
  const at = (name: string) => `${server.url}/${name}?signature=secret`;
  const [whole, part, rescued, verified, damaged, cut] = await runEach([
    ["unseal", ...KEY_OPTIONS, "-i", at("sealed"), "-o", "whole"],
    ["unseal", ...KEY_OPTIONS, "-i", at("sealed"), "--range", "4000-4999", "-o", "part"],
    ["unseal", ...KEY_OPTIONS, "-i", at("several"), "--rescue", "-o", "rescued"],
    ["verify", ...KEY_OPTIONS, at("sealed"), at("several")],
    ["unseal", ...KEY_OPTIONS, "-i", at("several"), "-o", "damaged"],
    ["verify", ...KEY_OPTIONS, "http://127.0.0.1:1/nothing?signature=secret"],
  ], path("."));
  assertEquals([whole!.code, part!.code, rescued!.code, damaged!.code, cut!.code], [0, 0, 4, 3, 1], whole!.stderr);
  assertEquals(bytesOf(path("whole")), INPUT);
  assertEquals(bytesOf(path("part")), INPUT.slice(4000, 5000));
  assertEquals(bytesOf(path("rescued")).slice(0, 4040), INPUT.slice(0, 4040));
  assert(!existsSync(path("damaged")));
  assertEquals(verified!.code, 3);
  assertEquals(
    verified!.stdout,
    `${server.url}/sealed: intact, 24000 bytes\n${server.url}/several: damaged: ${range(1, 3)}\n` +
      `${server.url}/several: damaged: ${range(4, 5)}\n`,
  );
  for (const { stdout, stderr } of [rescued!, verified!, damaged!, cut!]) {
    assert(!`${stdout}${stderr}`.includes("secret"), "the query of a URL may be a secret");
  }
  assertStringIncludes(cut!.stderr, "cannot read http://127.0.0.1:1/nothing");
});

test("files with their own key are verified and rescued with a passphrase", USERSPACE, async () => {
  const path = await files();
  writeFileSync(path("passphrase"), "correct horse");
  writeFileSync(path("in"), INPUT);
  const passphrase = ["--passphrase-file", "passphrase"];
  const [made] = await runEach([["seal", ...passphrase, "--format", FORMAT, "-i", "in", "-o", "own"]], path("."));
  assertEquals(made!.code, 0, made!.stderr);
  const own = bytesOf(path("own"));
  writeFileSync(path("own-damaged"), own.map((byte, i) => i === own.length - 5000 ? byte ^ 1 : byte));
  const [intact, damaged, rescued] = await runEach([
    ["verify", ...passphrase, "own"],
    ["verify", ...passphrase, "own-damaged"],
    ["unseal", "--rescue", ...passphrase, "-i", "own-damaged", "-o", "out"],
  ], path("."));
  assertEquals([intact!.code, intact!.stdout], [0, "own: intact, 24000 bytes\n"]);
  assertEquals([damaged!.code, damaged!.stdout], [3, `own-damaged: damaged: ${range(4, 5)}\n`]);
  assertEquals(rescued!.code, 4);
  assertEquals(bytesOf(path("out")).slice(0, 4 * STRIDE - HEADER), INPUT.slice(0, 4 * STRIDE - HEADER));
});
