/**
 * The command line tool: signals.
 */
import { spawn as spawnProcess } from "node:child_process";
import { constants as fsConstants, readdirSync, readFileSync, readlinkSync, statSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import process from "node:process";
import {
  exitStatus,
  isRunning,
  IV,
  readBytes,
  temporaryOf,
  textOf,
  tool,
  until,
  workspace,
} from "./support/cli_support.ts";
import { assertEquals, engine, runtime, spawn, test } from "./support/deps.ts";

/** Starts the tool on `plain`; it waits until a named pipe, its output, is opened for reading. */
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

test("a signal ends the tool while it waits for the other end of a named pipe", { engine: "userspace" }, async () => {
  const { at } = await workspace(16);
  const { pid, closed } = await waitingTool(at, "");
  process.kill(pid, "SIGTERM");
  assertEquals(await closed, 143);
});

test("the tool ignores the signals that its parent ignores: nohup works", {
  engine: "userspace",
  runtime: ["deno", "bun"],
}, async () => {
  const { at, plain } = await workspace(16);
  const { pid, closed } = await waitingTool(at, 'trap "" HUP INT QUIT;');
  for (const signal of ["SIGHUP", "SIGINT", "SIGQUIT"]) process.kill(pid, signal);
  const { code } = await spawn(["cp", at("pipe"), at("out")]);
  assertEquals([code, await closed], [0, 0]);
  assertEquals(readBytes(at("out")), readBytes(at("cbc")));
  assertEquals(plain.length, 16);
});

test(
  "a signal ends the tool with 128 plus its number, and its temporary file is removed",
  { engine: "userspace" },
  async () => {
    const { at, names } = await workspace(16);
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
      await until(() => names().length > before.length && statSync(at(temporaryOf(names()))).size > 0);
      assertEquals(statSync(at(temporaryOf(names()))).mode & 0o077, 0, "others may not read what is not finished");
      process.kill(child.pid!, signal); // Deno's child.kill() reports an exit code of 128 + n as the signal's doing
      assertEquals([await closed, stderr()], [code, ""]);
      assertEquals(names(), before);
      assertEquals(readFileSync(at("old"), "utf8"), "old");
    }
  },
);

test(
  "the tool writes to a pipe that blocks, and a signal ends it while the pipe is full",
  { engine: "userspace" },
  async () => {
    const { at } = await workspace(1_000_000);
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
  },
);
