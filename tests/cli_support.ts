/**
 * Running the command line tool in tests.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { main } from "../src/cli.ts";
import { assertEquals, engine, runtimeArgv, spawn, tempDir, test } from "./deps.ts";

/** This runtime, about to run `script`. */
export function runtimeCommand(script: string): string[] {
  return [...runtimeArgv, fileURLToPath(new URL(script, import.meta.url))];
}

/** For what is the same whatever engine runs. */
export const independent = test.if(engine === "userspace", "does not depend on the engine: runs on the userspace legs");

/** The tool as a process of its own. */
export const tool: readonly string[] = runtimeCommand("../src/cli.ts");

/** Runs the tool in this process, for what shows in files: much faster than to start a runtime. */
export async function run(...args: string[]): Promise<void> {
  assertEquals(await main(args), 0, `the exit code of ${args.join(" ")}`);
}

export interface ToolResult {
  code: number;
  stdout: string;
  stderr: string;
  /** The most memory the process has had up to then, in bytes. */
  memory: number;
}

/** Runs the tool for each argument list, one after the other, in one process without a terminal. */
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
