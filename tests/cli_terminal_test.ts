/**
 * The command line tool on a terminal: the passphrase prompt and the progress line.
 */
import { type ChildProcess, spawn as spawnProcess } from "node:child_process";
import { truncateSync } from "node:fs";
import { open } from "node:fs/promises";
import process from "node:process";
import { isRunning, IV, readBytes, run, tool, until, workspace } from "./support/cli_support.ts";
import { assert, assertEquals, assertStringIncludes, engine, spawn, test } from "./support/deps.ts";

/** A command with a terminal, and the user who types there. */
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
const TERMINALS = { "script(1) and pseudo-terminals": hasTerminals };
const toolInShell = tool.map((word) => `'${word}'`).join(" ");

test("the passphrase prompt has no echo, asks twice to encrypt, and can be edited", {
  engine: "userspace",
  needs: TERMINALS,
}, async () => {
  const { at, plain } = await workspace(1000);
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
  assertEquals(readBytes(at("back")), plain);
});

test("seal and rewrap ask twice for a new passphrase, and unseal and rewrap once for the old one", {
  engine: "userspace",
  needs: TERMINALS,
}, async () => {
  const { at, plain } = await workspace(1000);
  const commands: [command: string, prompts: [prompt: string, answer: string][]][] = [
    ["seal --passphrase -i plain -o sealed", [["Passphrase: ", "one"], ["The same again: ", "two"]]],
    ["seal --passphrase -i plain -o sealed", [["Passphrase: ", "one"], ["The same again: ", "one"]]],
    ["rewrap --passphrase --new-passphrase -i sealed -o sealed", [
      ["Passphrase: ", "one"],
      ["New passphrase: ", "two"],
      ["The same again: ", "two"],
    ]],
    ["unseal --passphrase -i sealed -o back", [["Passphrase: ", "two"]]],
  ];
  for (const [i, [command, prompts]] of commands.entries()) {
    const terminal = new Terminal(`${toolInShell} ${command}; echo "code $?"`, at(""));
    for (const [prompt, answer] of prompts) {
      await terminal.expect(prompt);
      terminal.type(`${answer}\r`);
    }
    await terminal.expect(i === 0 ? "code 2" : "code 0");
    await terminal.end();
    assert(!/one|two/.test(terminal.shown), terminal.shown);
  }
  assertEquals(readBytes(at("back")), plain);
});

test(
  "control characters and arrow keys do not become part of a passphrase",
  { engine: "userspace", needs: TERMINALS },
  async () => {
    const { at, plain } = await workspace(1000);
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
    assertEquals(readBytes(at("back")), plain);
  },
);

test("passphrases that differ, Ctrl-C and Ctrl-\\ at the prompt write nothing", {
  engine: "userspace",
  needs: TERMINALS,
}, async () => {
  const { at, names } = await workspace(16);
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

test("a signal at the passphrase prompt turns the echo of the terminal on again", {
  engine: "userspace",
  needs: TERMINALS,
}, async () => {
  const { at } = await workspace(16);
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

test(
  "after the passphrase prompt, a signal ends the tool while its output pipe is full",
  { engine: "userspace", needs: TERMINALS },
  async () => {
    const { at } = await workspace(16);
    const passphrase = ["--passphrase-file", at("passphrase"), "--iter", "10"];
    await run("encrypt", ...passphrase, "-i", "/dev/null", "-o", at("long"));
    truncateSync(at("long"), 1_000_000); // in a stream mode, this decrypts to noise
    assertEquals((await spawn(["mkfifo", at("pipe")])).code, 0);
    const pipe = await open(at("pipe"), "r+");
    const inner = `echo "pid $$;" >&2; exec "$@" decrypt --iter 10 -c aes-256-ctr -i long >pipe`;
    const terminal = new Terminal(`bash -c '${inner}' - ${toolInShell}; echo "code $?"`, at(""));
    await terminal.expect("pid ");
    await until(() => terminal.shown.includes(";"));
    const pid = Number(/\d+/.exec(terminal.shown)![0]);
    try {
      await terminal.expect("Passphrase: ");
      terminal.type("correct horse\r");
      await pipe.read(new Uint8Array(1), 0, 1); // now the tool is in a write of more than the pipe has room for
      process.kill(pid, "SIGTERM");
      await terminal.expect("code 143");
    } finally {
      if (isRunning(pid)) process.kill(pid, "SIGKILL");
      await pipe.close();
    }
    await terminal.end();
  },
);

test(
  "a terminal shows the progress and the engine, and no ciphertext",
  { needs: TERMINALS },
  async () => {
    const { at } = await workspace(16);
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
  },
);
