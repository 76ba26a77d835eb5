/**
 * Runs the command line tool in tests.
 */
import { Buffer } from "node:buffer";
import type { ChildProcess } from "node:child_process";
import { pbkdf2Sync } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { constants } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { main } from "../../src/cli.ts";
import { assert, assertEquals, engine, runtimeArgv, spawn, tempDir } from "./deps.ts";
import { type Bytes, bytes, concat, reference } from "./support.ts";

/** The command that runs `script` on this runtime. */
export function runtimeCommand(script: string): string[] {
  return [...runtimeArgv, fileURLToPath(new URL(script, new URL("../", import.meta.url)))];
}

/** Runs the tool in a process. */
export const tool: readonly string[] = runtimeCommand("../src/cli.ts");

/** Runs the tool in this process, which is much faster. Only its files are visible to the test. */
export async function run(...args: string[]): Promise<void> {
  assertEquals(await main(args), 0, `the exit code of ${args.join(" ")}`);
}

export interface ToolResult {
  code: number;
  stdout: string;
  stderr: string;
  /** The maximum memory of the process so far, in bytes. */
  memory: number;
}

/** Runs the tool for each argument list in turn, in one process without a terminal. */
export async function runEach(lists: readonly (readonly string[])[], cwd: string): Promise<ToolResult[]> {
  const file = join(tempDir(), "lists.json");
  writeFileSync(file, JSON.stringify(lists));
  const command = ["setsid", "--wait", ...runtimeCommand("children/cli.ts"), file];
  const { code, stdout, stderr } = await spawn(command, { cwd });
  assertEquals([code, stdout.split("\x1e").length], [0, lists.length + 1], `the processes' end: ${stderr}`);
  const messages = stderr.split("\x1e");
  return stdout.split("\x1e").slice(0, -1).map((record, i) => {
    const [text, status] = record.split("\x1f");
    const [code, memory] = status!.split(" ").map(Number);
    return { code: code!, memory: memory!, stdout: text!, stderr: messages[i]! };
  });
}

export const NO_THROW = { throwIfNoEntry: false } as const;
export const IV = "000102030405060708090a0b0c0d0e0f";

export interface Workspace {
  /** Returns the path of a file in the directory. */
  at: (name: string) => string;
  /** Lists the names in the directory. */
  names: () => string[];
  plain: Bytes;
}

/**
 * Creates a directory with a key, a passphrase, a plaintext, and its ciphertexts: `cbc` (key), `salted` (passphrase).
 */
export async function workspace(size = 100_000): Promise<Workspace> {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const plain = bytes(size);
  writeFileSync(at("plain"), plain);
  writeFileSync(at("key"), bytes(32, 2));
  writeFileSync(at("passphrase"), "correct horse\nbattery staple\n");
  await run("encrypt", "-i", at("plain"), "-o", at("cbc"), "--key-file", at("key"), "--iv", IV, "--engine", engine);
  // The salt is constant. With a random one, 1 in 256 wrong passphrases gives valid padding.
  const salt = bytes(8, 4);
  const derived = new Uint8Array(pbkdf2Sync("correct horse", salt, 10, 48, "sha256"));
  const options = { key: derived.slice(0, 32), iv: derived.slice(32), padding: "pkcs7" } as const;
  writeFileSync(
    at("salted"),
    concat([Buffer.from("Salted__"), salt, reference("encrypt", "cbc(aes)", options, plain)]),
  );
  return { at, names: () => readdirSync(directory).sort(), plain };
}

export function readBytes(path: string): Bytes {
  return new Uint8Array(readFileSync(path));
}

/** Whether a process exists and is not a zombie. */
export function isRunning(pid: number): boolean {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** The exit code as a shell reports it. */
export function exitStatus(child: ChildProcess): Promise<number> {
  return new Promise((resolve) =>
    child.on("close", (code, signal) => resolve(code ?? 128 + constants.signals[signal as NodeJS.Signals]))
  );
}

/** Returns the name of the temporary file among `names`. */
export function temporaryOf(names: string[]): string {
  return names.find((name) => name.startsWith(".kcapi-streams-"))!;
}

/** Waits for a condition that depends on another process. */
export async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 30_000; !condition();) {
    assert(Date.now() < end, `waited in vain for ${condition}`);
    await delay(10);
  }
}

/** Collects the standard error of a process. Returns a function that returns the text so far. */
export function textOf(child: ChildProcess): () => string {
  let text = "";
  child.stderr!.on("data", (chunk) => text += chunk);
  return () => text;
}
