/**
 * Measures whole processes: files against `kcapi-enc` (B3), and memory (B7). Bun runs it for both runtimes.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { randomFillSync } from "node:crypto";
import { closeSync, mkdtempSync, openSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { Baseline, iv, key, MiB, record, roundsOr, runBars, statistics, takeTurns, where, WINDOW } from "./measure.ts";

const [BUN, DENO] = ["bun", "deno"].map((name) => join(import.meta.dirname!, "../node_modules/.bin", name)) as [
  string,
  string,
];
const RUNTIMES: Record<string, string[]> = { Bun: [BUN, "run"], Deno: [DENO, "run", "-A", "--no-check"] };

await runBars({ B3: measureFiles, B7: measureMemory });

/** Files for a program: its standard input and output, and its descriptor 3. */
interface Redirection {
  input: string;
  output: string;
  key: string;
}

/** Runs a program to its end. Resolves with what it prints, unless that is redirected, and its seconds. */
function run(command: string[], files?: Redirection): Promise<{ output: string; seconds: number }> {
  const descriptors = files ? [openSync(files.input, "r"), openSync(files.output, "w"), openSync(files.key, "r")] : [];
  const [input, printed, key] = descriptors;
  return new Promise((resolve, reject) => {
    const start = performance.now();
    const child = spawn(command[0]!, command.slice(1), {
      stdio: [input ?? "ignore", printed ?? "pipe", "inherit", ...(key === undefined ? [] : [key])],
    });
    let output = "";
    child.stdout?.on("data", (data) => output += data);
    child.on("error", reject);
    child.on("close", (code) => {
      const seconds = (performance.now() - start) / 1000;
      for (const descriptor of descriptors) closeSync(descriptor);
      if (code === 0) resolve({ output, seconds });
      else reject(new Error(`${command.join(" ")} exited with code ${code}`));
    });
  });
}

function script(runtime: string, name: string, ...args: string[]): string[] {
  return [...RUNTIMES[runtime]!, join(import.meta.dirname!, name), ...args];
}

function writeRandom(path: string, length: number): void {
  const piece = new Uint8Array(MiB);
  const file = openSync(path, "w");
  for (let offset = 0; offset < length; offset += piece.length) writeSync(file, randomFillSync(piece));
  closeSync(file);
}

async function measureFiles(): Promise<void> {
  const directory = mkdtempSync(join(process.env.KCAPI_BENCH_TMPFS ?? tmpdir(), "b3-"));
  const [input, output, keyFile] = ["in", "out", "key"].map((name) => join(directory, name)) as [
    string,
    string,
    string,
  ];
  const total = 1024 * MiB;
  writeRandom(input, total);
  writeFileSync(keyFile, key);
  const written = new Map<string, string>();
  const contender = (command: string[], files?: Redirection) => async () => {
    rmSync(output, { force: true });
    const { seconds } = await run(command, files);
    if (!written.has(command[0]!)) written.set(command[0]!, (await run(["sha256sum", output])).output);
    return seconds;
  };
  const tool = [
    "kcapi-enc",
    "-q",
    "--keyfd",
    "3",
    "-e",
    "-c",
    "cbc(aes)",
    "--iv",
    iv.toHex(),
  ];
  const ours = (runtime: string) =>
    contender(script(runtime, "encrypt_file.ts", "cbc(aes)", key.toHex(), iv.toHex(), input, output));
  const baseline = new Baseline();
  const figures = await takeTurns({
    "kcapi-enc": contender(tool, { input, output, key: keyFile }),
    Bun: ours("Bun"),
    Deno: ours("Deno"),
    "Bun, empty": async () => (await run([BUN, "-e", "0"])).seconds,
    "Deno, empty": async () => (await run([DENO, "eval", "0"])).seconds,
    "best C": () => baseline.run("best", "cbc(aes)", WINDOW, total),
    dd: async () => (await run(["dd", `if=${input}`, `of=${output}`, `bs=${WINDOW}`, "status=none"])).seconds,
  }, { rounds: roundsOr(9), warmUp: 1 });
  baseline.close();
  rmSync(directory, { recursive: true });
  if (new Set(written.values()).size !== 1) throw new Error("The three programs wrote different files");
  for (const runtime of ["Bun", "Deno"] as const) {
    const { "kcapi-enc": tool, [runtime]: ours, [`${runtime}, empty` as const]: empty, "best C": best, dd } = figures;
    const contenders = {
      "kcapi-enc": tool,
      EncryptionStream: ours,
      "an empty script": empty,
      "best C": best,
      dd,
    };
    record({ bar: "B3", runtime, work: "cbc(aes), 1 GiB", figures: contenders, unit: "s", per: total });
  }
}

async function measureMemory(): Promise<void> {
  const engine = where === "guest" ? "kernel" : "userspace";
  const contenders = ["identity", "copying", "EncryptionStream", "inPlace"];
  if (engine === "userspace") contenders.push("cipher.update");
  for (const runtime of ["Bun", "Deno"]) {
    for (const algorithm of ["ctr(aes)", "cbc(aes)"]) await measureGrowth(runtime, engine, algorithm, contenders);
  }
}

async function measureGrowth(runtime: string, engine: string, algorithm: string, contenders: string[]): Promise<void> {
  const growth = new Map(contenders.map((name) => [name, [] as number[]]));
  for (let round = 0; round < roundsOr(where === "guest" ? 1 : 3); round++) {
    for (const [contender, sizes] of growth) {
      const { output } = await run(script(runtime, "memory.ts", contender, engine, algorithm));
      sizes.push(Number(output) / MiB);
    }
  }
  const figures = Object.fromEntries([...growth].map(([name, sizes]) => [name, statistics(sizes)]));
  record({ bar: "B7", runtime, work: `${engine}, ${algorithm}`, figures, unit: "MiB" });
}
