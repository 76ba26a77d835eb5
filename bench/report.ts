/**
 * Merges new measurements into results.json. Writes results.md from it, and the tables of docs/performance.md.
 *
 * Argument: the directory with the new results, as `run` leaves them. Without it, only the texts are written.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { wrap } from "../src/cli/text.ts";
import { BARS, type Check, checksOf, type Figures, limitOf, passes, type Statistics } from "./bars.ts";

interface Results {
  machine: Record<string, string>;
  results: Figures[];
}

const HERE = import.meta.dirname!;
const FILE = join(HERE, "results.json");
const GUIDE = join(HERE, "../docs/performance.md");
const RUNTIMES = ["Bun", "Deno", "Node"] as const;
const ALL_RUNTIMES = [...RUNTIMES, "Chromium", "Firefox", "WebKit", "workerd"];
/** The width of the text. */
const COLUMNS = 120;

const all = merge(process.argv[2]);
writeFileSync(FILE, serialize(all));
writeFileSync(join(HERE, "results.md"), report());
writeFileSync(
  GUIDE,
  [["speed", speedTable()], ["pool", poolTable()], ["machine", machineTable()]].reduce(
    (text, [name, content]) => replaceBetweenMarks(text, name!, content!),
    readFileSync(GUIDE, "utf8"),
  ),
);

function merge(directory: string | undefined): Results {
  const old: Results = existsSync(FILE) ? JSON.parse(readFileSync(FILE, "utf8")) : { machine: {}, results: [] };
  if (!directory) return old;
  const fresh = [join(directory, "guest"), join(directory, "qemu"), directory]
    .flatMap((place) => linesOf(join(place, "results.jsonl")));
  const keyOf = ({ bar, where, runtime }: Figures) => `${bar} ${where} ${runtime}`;
  const measured = new Set(fresh.map(keyOf));
  return {
    machine: { ...old.machine, ...describeMachine(directory) },
    results: [...old.results.filter((result) => !measured.has(keyOf(result))), ...fresh],
  };
}

/** Fractions have four significant digits. */
function serialize(results: Results): string {
  const round = (_: string, value: unknown) =>
    typeof value === "number" && !Number.isInteger(value) ? Number(value.toPrecision(4)) : value;
  return JSON.stringify(results, round, 2) + "\n";
}

function linesOf(file: string): Figures[] {
  if (!existsSync(file)) return [];
  return readFileSync(file, "utf8").trim().split("\n").map((line) => JSON.parse(line));
}

function describeMachine(directory: string): Record<string, string> {
  const output = (command: string, ...args: string[]) =>
    execFileSync(command, args, { encoding: "utf8" }).trim().split("\n")[0]!;
  const bin = join(HERE, "../node_modules/.bin");
  const machine: Record<string, string> = {
    "Processor": `${cpus().length} × ${cpus()[0]!.model}, ${Math.round(totalmem() / 2 ** 30)} GiB of memory`,
    "Kernel of the machine": `Linux ${release()}`,
    "libkcapi": output("dpkg-query", "--show", "--showformat", "${Version}", "libkcapi1"),
    "C compiler": output("gcc", "--version"),
    "Bun": output(join(bin, "bun"), "--version"),
    "Deno": output(join(bin, "deno"), "--version"),
    "Node": output(join(bin, "node"), "--version"),
  };
  const busy = linesOf(join(directory, "busy")).map(Number);
  if (busy.length > 0) {
    machine["Other load before each part"] = `${Math.min(...busy)} to ${Math.max(...busy)} % of the processors`;
  }
  const kernel = join(directory, "guest/kernel");
  if (!existsSync(kernel)) return machine;
  const drivers = readFileSync(join(directory, "guest/crypto"), "utf8").matchAll(
    /^name +: (c(?:tr|bc)\(aes\))\ndriver +: (.*)/gm,
  );
  machine["Test kernel"] = `Linux ${readFileSync(kernel, "utf8").trim()}, drivers ${
    [...new Set([...drivers].map(([, , driver]) => driver))].join(", ")
  }`;
  return machine;
}

function find(bar: string, runtime: string, work: string, where = "host"): Figures | undefined {
  return all.results.find((result) =>
    result.bar === bar && result.runtime === runtime && result.where === where && result.work === work
  );
}

// docs/performance.md

function replaceBetweenMarks(text: string, name: string, content: string): string {
  const [start, end] = [`<!-- ${name} -->`, `<!-- end ${name} -->`];
  const [before, rest] = [text.indexOf(start), text.indexOf(end)];
  if (before < 0 || rest < before) throw new Error(`${GUIDE} has no marks for ${name}`);
  return `${text.slice(0, before)}${start}\n\n${content}\n\n${text.slice(rest)}`;
}

/** MB/s of one contender, from the seconds for `per` bytes. */
function speedOf(figures: Figures | undefined, contender: string): string {
  const statistics = figures?.figures[contender];
  return statistics ? (figures.per! / 1e6 / statistics.median).toFixed(0) : "–";
}

function speedTable(): string {
  const sealed = (contender: string) => RUNTIMES.map((runtime) => speedOf(find("B9", runtime, "64 KiB"), contender));
  const cipher = (name: string) => RUNTIMES.map((runtime) => speedOf(find("B6", runtime, name), "EncryptionStream"));
  return table(["MB/s, chunks of 64 KiB", ...RUNTIMES], [
    ["`SealStream`, AES-CTR-HMAC (default)", ...sealed("seal")],
    ["`UnsealStream`, AES-CTR-HMAC", ...sealed("unseal")],
    ["`SealStream`, AES-GCM-HKDF", ...sealed("seal GCM")],
    ["`UnsealStream`, AES-GCM-HKDF", ...sealed("unseal GCM")],
    ["age (typage), encryption", ...sealed("typage")],
    ["RFC 8188 records over WebCrypto", ...sealed("rfc8188")],
    ["`EncryptionStream`, `ctr(aes)`", ...cipher("ctr(aes)")],
    ["`EncryptionStream`, `cbc(aes)`", ...cipher("cbc(aes)")],
  ]);
}

function poolTable(): string {
  const works = ["seal", "unseal", "8 × seal", "ctr(aes)", "xts(aes), sectors of 4 KiB", "cbc(aes), decryption"];
  const gain = (figures: Figures | undefined) =>
    figures ? (figures.figures["one thread"]!.median / figures.figures["Workers"]!.median).toFixed(2) : "–";
  return table(
    ["two Workers against one thread", ...RUNTIMES, ...RUNTIMES.map((runtime) => `${runtime}, kernel`)],
    works.map((work) => [
      work,
      ...RUNTIMES.map((runtime) => gain(find("B10", runtime, `userspace, ${work}`))),
      ...RUNTIMES.map((runtime) => gain(find("B10", runtime, `kernel, ${work}`, "guest"))),
    ]),
  );
}

function machineTable(): string {
  return table(["Measured on", ""], Object.entries(all.machine));
}

// results.md

function table(head: string[], rows: string[][]): string {
  return [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n");
}

function figure(value: number, unit: string): string {
  if (unit !== "s") return unit === "MiB" ? `${value.toFixed(1)} MiB` : `${value.toFixed(0)}/s`;
  if (value < 1e-3) return `${(value * 1e6).toPrecision(3)} µs`;
  return value < 1 ? `${(value * 1e3).toPrecision(3)} ms` : `${value.toPrecision(3)} s`;
}

function statistics({ median, min, max }: Statistics, unit: string): string {
  return `${figure(median, unit)} (${figure(min, unit)}–${figure(max, unit)})`;
}

/** The measurements that this bar judges, Bun first. */
function measuredFor(bar: string): Figures[] {
  const rows = all.results.filter((result) => result.bar === bar && checksOf(result).length > 0);
  return ALL_RUNTIMES.flatMap((runtime) => rows.filter((result) => result.runtime === runtime));
}

function figuresTable(bar: string): string {
  const rows = measuredFor(bar);
  if (rows.length === 0) return "Not measured yet.";
  const names = [...new Set(rows.flatMap(({ figures }) => Object.keys(figures)))];
  return table(
    ["", "work", ...names, "rounds"],
    rows.map(({ runtime, work, figures, unit }) => [
      runtime,
      work,
      ...names.map((name) => figures[name] ? statistics(figures[name], unit) : ""),
      String(Math.min(...Object.values(figures).map(({ rounds }) => rounds))),
    ]),
  );
}

function checkRow(check: Check): string[] {
  const is = `${check.is.toFixed(2)}${check.unit ? ` ${check.unit}` : ""}`;
  return [check.formula, is, limitOf(check), passes(check) ? "pass" : "**fail**"];
}

function checksTable(bar: string): string {
  const rows = measuredFor(bar).flatMap((result) =>
    checksOf(result).map((check) => [result.runtime, result.work, ...checkRow(check)])
  );
  return rows.length === 0 ? "" : table(["", "work", "value", "is", "bar", ""], rows);
}

function summary(): string {
  const checks = Object.keys(BARS).flatMap((bar) =>
    measuredFor(bar).flatMap((result) => checksOf(result).map((check) => ({ bar, result, check })))
  );
  const failed = checks.filter(({ check }) => !passes(check));
  if (failed.length === 0) return `All ${checks.length} values are within their bars.`;
  return `${failed.length} of ${checks.length} values are outside their bars:\n\n` +
    table(
      ["", "", "work", "value", "is", "bar"],
      failed.map(({ bar, result, check }) => [bar, result.runtime, result.work, ...checkRow(check).slice(0, 3)]),
    );
}

function report(): string {
  const sections = Object.entries(BARS).map(([bar, { title, method }]) =>
    `## ${bar}: ${title}\n\n${wrap(method, "", COLUMNS).join("\n")}\n\n${checksTable(bar)}\n\n${figuresTable(bar)}`
  );
  return `# Raw results

\`bench/run\` writes this file from [results.json](results.json). Edit [report.ts](report.ts) instead.
[docs/performance.md](../docs/performance.md) is the guide.

${summary()}

A figure is the median of rounds in which the contenders take turns, with the minimum and the maximum in brackets. A
ratio compares medians of one run. _Plain C_ is a loop of \`kcapi_cipher_stream_update\` and
\`kcapi_cipher_stream_op\` over 64 KiB, or the size named. _Best C_ is the same with 212,992 bytes per round, sent by
\`sendmsg\`.

${machineTable()}

${sections.join("\n\n")}
`;
}
