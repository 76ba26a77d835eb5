/**
 * Merges what was measured into results.json, and writes README.md and the charts from it.
 *
 * Argument: the directory with the new results, as `run` leaves them. Without: only writes README.md and the charts anew.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { cpus, release, totalmem } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { type Bar, barChart, lineChart, type Series } from "./charts.ts";
import { BARS, type Check, checksOf, type Figures, limitOf, passes, type Statistics } from "./bars.ts";
import { KiB, sizeName } from "./measure.ts";

interface ProfileLine {
  share: number;
  name: string;
  place: string;
}

interface Results {
  machine: Record<string, string>;
  results: Figures[];
  profiles: Record<string, ProfileLine[]>;
}

const HERE = import.meta.dirname!;
const FILE = join(HERE, "results.json");
const RUNTIMES = ["Bun", "Deno", "Node"] as const;

const all = merge(process.argv[2]);
writeFileSync(FILE, serialize(all));
for (const [algorithm, name] of [["cbc(aes)", "throughput.svg"], ["ctr(aes)", "throughput-ctr.svg"]] as const) {
  const chart = throughputChart(algorithm);
  if (chart) writeFileSync(join(HERE, name), chart);
}
const costs = RUNTIMES.flatMap((runtime) => costsOf(runtime) ?? []);
if (costs.length > 0) writeFileSync(join(HERE, "cost.svg"), costChart());
writeFileSync(join(HERE, "README.md"), readme());

function merge(directory: string | undefined): Results {
  const old: Results = existsSync(FILE)
    ? JSON.parse(readFileSync(FILE, "utf8"))
    : { machine: {}, results: [], profiles: {} };
  if (!directory) return old;
  const guest = join(directory, "guest");
  const fresh = [guest, join(directory, "qemu"), directory].flatMap((place) => linesOf(join(place, "results.jsonl")));
  const place = ({ bar, where, runtime }: Figures) => `${bar} ${where} ${runtime}`;
  const measured = new Set(fresh.map(place));
  const profiles = RUNTIMES.map((runtime) => [runtime, join(guest, `${runtime.toLowerCase()}.cpuprofile`)] as const)
    .filter(([, file]) => existsSync(file))
    .map(([runtime, file]) => [runtime, profileOf(file)] as const);
  return {
    machine: { ...old.machine, ...describeMachine(directory) },
    results: [...old.results.filter((result) => !measured.has(place(result))), ...fresh],
    profiles: { ...old.profiles, ...Object.fromEntries(profiles) },
  };
}

/** Fractions in four significant digits. */
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
  const machine: Record<string, string> = {
    "Processor": `${cpus().length} × ${cpus()[0]!.model}, ${Math.round(totalmem() / 2 ** 30)} GiB of memory`,
    "This machine's kernel": `Linux ${release()}`,
    "libkcapi": output("dpkg-query", "--show", "--showformat", "${Version}", "libkcapi1"),
    "Compiler": output("gcc", "--version"),
    "Bun": process.versions.bun!,
    "Deno": output(join(HERE, "../node_modules/.bin/deno"), "--version"),
    "Node": output(join(HERE, "../node_modules/.bin/node"), "--version"),
  };
  const busy = linesOf(join(directory, "busy")).map(Number);
  if (busy.length > 0) {
    machine["Other load, before each part"] = `${Math.min(...busy)} to ${Math.max(...busy)} % of the processors`;
  }
  const kernel = join(directory, "guest/kernel");
  if (!existsSync(kernel)) return machine;
  const drivers = readFileSync(join(directory, "guest/crypto"), "utf8").matchAll(
    /^name +: (c(?:tr|bc)\(aes\))\ndriver +: (.*)/gm,
  );
  machine["The test kernel"] = `Linux ${readFileSync(kernel, "utf8").trim()}, drivers ${
    [...new Set([...drivers].map(([, , driver]) => driver))].join(", ")
  }`;
  return machine;
}

/** Where the samples of a profile fell: the functions with the largest shares of time. */
function profileOf(file: string): ProfileLine[] {
  const { nodes, samples, timeDeltas } = JSON.parse(readFileSync(file, "utf8")) as {
    nodes: { id: number; callFrame: { functionName: string; url: string } }[];
    samples: number[];
    timeDeltas: number[];
  };
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const times = new Map<string, number>();
  let total = 0;
  samples.forEach((id, i) => {
    const { functionName, url } = frames.get(id)!;
    if (functionName === "(idle)" || functionName === "(root)") return;
    const key = `${functionName || "(anonymous)"}\n${placeOf(url)}`;
    times.set(key, (times.get(key) ?? 0) + timeDeltas[i]!);
    total += timeDeltas[i]!;
  });
  return [...times].sort(([, a], [, b]) => b - a).slice(0, 8).map(([key, time]) => {
    const [name, place] = key.split("\n") as [string, string];
    return { share: time / total, name, place };
  });
}

function placeOf(url: string): string {
  const own = /\/((?:src|ffi|bench)\/[\w/]+\.ts)$/.exec(url)?.[1];
  return own ?? (url ? `the runtime's ${basename(url)}` : "the runtime");
}

function find(bar: string, runtime: string, where: string, work?: string): Figures | undefined {
  return all.results.find((result) =>
    result.bar === bar && result.runtime === runtime && result.where === where && (!work || result.work === work)
  );
}

// Charts

function throughputChart(algorithm: string): string | undefined {
  const sizes = (runtime: string) =>
    all.results.filter((result) => result.bar === "sizes" && result.runtime === runtime && result.work === algorithm);
  const [bun, deno] = [sizes("Bun"), sizes("Deno")];
  if (bun.length === 0 || deno.length !== bun.length) return undefined;
  const speeds = (results: Figures[], name: string) =>
    results.map(({ figures, per }) => per! / 1e6 / figures[name]!.median);
  const mean = (a: number[], b: number[]) => a.map((value, i) => (value + b[i]!) / 2);
  const series: Series[] = [
    { name: "Bun", color: "#d55e00", values: speeds(bun, "EncryptionStream") },
    { name: "Bun, inPlace", color: "#d55e00", dashed: true, values: speeds(bun, "inPlace") },
    { name: "Deno", color: "#0072b2", values: speeds(deno, "EncryptionStream") },
    { name: "Deno, inPlace", color: "#0072b2", dashed: true, values: speeds(deno, "inPlace") },
    { name: "C loop", color: "#24292f", values: mean(speeds(bun, "plain C"), speeds(deno, "plain C")) },
  ];
  const files = find("B3", "Bun", "guest");
  if (files && algorithm === "cbc(aes)") {
    const speed = files.per! / 1e6 / files.figures["kcapi-enc"]!.median;
    series.push({ name: "kcapi-enc, file to file", color: "#8c959f", dashed: true, values: bun.map(() => speed) });
  }
  return lineChart({
    title: `${algorithm}: EncryptionStream and C over the same kernel`,
    subtitle: "Throughput by the size of the chunks written, through libkcapi in User-Mode Linux (no AES-NI)",
    places: bun.map(({ size }) => sizeName(size!)),
    series,
    unit: "MB/s",
  });
}

/** The parts of a 64 KiB chunk's time with cbc(aes) in the test kernel, in microseconds, by subtraction. */
interface Cost {
  runtime: string;
  inPlace: boolean;
  parts: Record<string, number>;
  total: number;
}

function costsOf(runtime: string): Cost[] | undefined {
  const nothing = find("B5", runtime, "guest", "64 KiB");
  const whole = find("cost", runtime, "guest");
  if (!nothing || !whole) return undefined;
  const js = (name: string) => 1e6 * nothing.figures[name]!.median;
  const kernel = (name: string) => 1e6 * whole.figures[name]!.median * 64 * KiB / whole.per!;
  return [false, true].map((inPlace) => {
    const parts: Record<string, number> = {
      "web streams": js("identity"),
      "our JavaScript": js("inPlace") - js("identity") - js("FFI"),
      "FFI": js("FFI"),
      "allocation": inPlace ? 0 : js("EncryptionStream") - js("inPlace"),
      "system calls": kernel("C, no cipher"),
      "cipher": kernel("C") - kernel("C, no cipher"),
    };
    const total = kernel(inPlace ? "inPlace" : "EncryptionStream");
    parts["rest"] = total - Object.values(parts).reduce((sum, part) => sum + part, 0);
    return { runtime, inPlace, parts, total };
  });
}

function costChart(): string {
  const colors = ["#d55e00", "#e69f00", "#f0e442", "#009e73", "#56b4e9", "#0072b2", "#afb8c1"];
  return barChart({
    title: "Where the time of a 64 KiB chunk goes",
    subtitle: "EncryptionStream, cbc(aes), in User-Mode Linux",
    unit: "µs",
    bars: costs.map(({ runtime, inPlace, parts }): Bar => ({
      name: `${runtime}${inPlace ? ", inPlace" : ""}`,
      parts: Object.entries(parts).map(([name, value], i) => ({ name, color: colors[i]!, value })),
    })),
  });
}

// README

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

/** What was measured against this bar, Bun first. */
function measuredFor(bar: string): Figures[] {
  const rows = all.results.filter((result) => result.bar === bar && checksOf(result).length > 0);
  return RUNTIMES.flatMap((runtime) => rows.filter((result) => result.runtime === runtime));
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
  return rows.length === 0 ? "" : table(["", "work", "", "is", "bar", ""], rows);
}

/** The first thing to know: whether all bars are passed, and which are not. */
function summary(): string {
  const checks = Object.keys(BARS).flatMap((bar) =>
    measuredFor(bar).flatMap((result) => checksOf(result).map((check) => ({ bar, result, check })))
  );
  const failed = checks.filter(({ check }) => !passes(check));
  const rows = Object.entries(BARS).map(([bar, { title }]) => {
    const cells = RUNTIMES.map((runtime) => {
      const own = checks.filter((each) => each.bar === bar && each.result.runtime === runtime);
      const lost = own.filter(({ check }) => !passes(check)).length;
      return own.length === 0 ? "–" : lost === 0 ? `pass (${own.length})` : `**${lost} of ${own.length} fail**`;
    });
    return [bar, title, ...cells];
  });
  const head = failed.length === 0
    ? `**All ${checks.length} values are within their bars.**`
    : `**${failed.length} of ${checks.length} values are not within their bars:**\n\n` +
      table(
        ["", "", "work", "", "is", "bar"],
        failed.map(({ bar, result, check }) => [bar, result.runtime, result.work, ...checkRow(check).slice(0, 3)]),
      );
  return `${head}\n\n${table(["", "", ...RUNTIMES], rows)}`;
}

function costSection(): string {
  if (costs.length === 0) return "Not measured yet.";
  const names = Object.keys(costs[0]!.parts);
  const rows = names.map((name) => [name, ...costs.map(({ parts }) => parts[name]!.toFixed(1))]);
  rows.push(["**all**", ...costs.map(({ total }) => `**${total.toFixed(1)}**`)]);
  return table(["µs", ...costs.map(({ runtime, inPlace }) => `${runtime}${inPlace ? ", inPlace" : ""}`)], rows);
}

function hostCosts(): string {
  const rows = RUNTIMES.flatMap((runtime) => {
    const chunk = find("B5", runtime, "host", "64 KiB")?.figures;
    if (!chunk) return [];
    const [streams, plain, inPlace, calls] = ["identity", "EncryptionStream", "inPlace", "FFI"]
      .map((name) => 1e6 * chunk[name]!.median) as [number, number, number, number];
    return [
      [runtime, streams, inPlace - streams - calls, calls, plain - inPlace].map((value) =>
        typeof value === "number" ? value.toFixed(2) : value
      ),
    ];
  });
  return table(["µs", "web streams", "our JavaScript", "FFI", "allocation"], rows);
}

function profileSection(): string {
  return Object.entries(all.profiles).map(([runtime, lines]) =>
    `${runtime}:\n\n` +
    table(
      ["share", "function", "in"],
      lines.map(({ share, name, place }) => [`${(100 * share).toFixed(1)} %`, `\`${name}\``, place]),
    )
  ).join("\n\n");
}

/** How the gain of Workers grows with the processors: measured with two, worked out for more. */
function growthTable(): string {
  const processors = [1, 2, 4, 8, 16, 32, 64];
  const rows = all.results.filter(({ bar }) => bar === "growth").flatMap(({ runtime, where, work, figures, per }) => {
    const measured = all.results.find((each) =>
      each.bar === "B10" && each.work === work && each.runtime === runtime && each.where === where
    )?.figures;
    if (!measured) return [];
    const milliseconds = (name: string, of = figures) => 1000 * of[name]!.median / (per! / 2 ** 20);
    const [serial, parallel] = [milliseconds("main thread"), milliseconds("other threads")];
    const one = milliseconds("one thread", measured);
    const gain = (count: number) => one * Math.min(count / (serial + parallel), 1 / serial);
    return [[
      runtime,
      work,
      one.toFixed(2),
      serial.toFixed(2),
      parallel.toFixed(2),
      (one / milliseconds("Workers", measured)).toFixed(2),
      ...processors.map((count) => gain(count).toFixed(1)),
    ]];
  });
  if (rows.length === 0) return "Not measured yet.";
  const head = ["", "work", "one thread", "main thread", "other threads", "two, measured"];
  return table([...head, ...processors.map((count) => `${count}`)], rows);
}

function engineTable(): string {
  const rows = RUNTIMES.flatMap((runtime) =>
    all.results.filter((result) => result.bar === "sizes" && result.runtime === runtime && result.size === 64 * KiB)
      .map(({ work, figures, per }) => [
        runtime,
        work,
        ...["EncryptionStream", "inPlace", "userspace"].map((name) => (per! / 1e6 / figures[name]!.median).toFixed(0)),
      ])
  );
  return table(["MB/s", "", "kernel", "kernel, inPlace", "userspace"], rows);
}

function readme(): string {
  return `# Benchmarks

Written by \`bench/run\`, from [results.json](results.json): edit [report.ts](report.ts), not this file.

${summary()}

## Method

\`bench/run\` builds the C programs, boots the test kernel (\`tests/kernel/boot\`: User-Mode Linux where this machine has no AF_ALG) once for all that
needs AF_ALG, and runs the rest on the machine itself. Every figure is a median of rounds in which the contenders take turns (A B C, B C A, …) after
warm-up rounds, with least and most in brackets; every ratio is one of medians of the same run. C programs run in a process of their own and wait while it is not their turn.

- *plain C*: a loop of \`kcapi_cipher_stream_update\` and \`kcapi_cipher_stream_op\` with one list entry each, over 64 KiB or the size named, at most 212,992 bytes.
- *best C*: the same with 212,992 bytes a round, sent by \`sendmsg\`: libkcapi does that for lists of 17 entries. Both use page-aligned buffers again and again.

In User-Mode Linux a system call and a page fault cost far more than on hardware, and the kernel's AES has no AES-NI: only the ratios mean something.

${table(["", ""], Object.entries(all.machine))}

## Throughput

![Throughput of cbc(aes) by chunk size](throughput.svg)

![Throughput of ctr(aes) by chunk size](throughput-ctr.svg)

The engines, 64 KiB chunks, in the same guest. The userspace engine may use AES-NI there, the kernel of the guest not:

${engineTable()}

## Where the time of a 64 KiB chunk goes

![Parts of a chunk's time](cost.svg)

By subtraction, cbc(aes) in the guest: *web streams* is an identity TransformStream; *FFI* the native calls into a libkcapi that does nothing; *our JavaScript* what
\`inPlace\` over that libkcapi takes beyond those; *allocation* what fresh output adds to it; *system calls* a C loop with the kernel's \`ecb(cipher_null)\`, copying
included; *cipher* what AES adds to that loop. *rest* is what remains: mostly the page faults of fresh output, and caches.

${costSection()}

On this machine itself, where page faults are cheap:

${hostCosts()}

What the runtimes' own profilers say of the same stream in the guest (native calls count for the function that makes them):

${profileSection()}

${
    Object.entries(BARS).map(([bar, { title, method }]) =>
      `## ${bar}: ${title}\n\n${method}\n\n${checksTable(bar)}\n\n${figuresTable(bar)}`
    ).join("\n\n")
  }

## From one processor to 64

Of what a stream over Workers takes, this is serial: the streams' own steps, the copy of a chunk into memory that Workers see, a message to a Worker and one back, and
delivery in order. All of it is the main thread's. The rest is done by Workers, and by the runtime's threads that collect garbage. The table has milliseconds of
processor time for a MiB (*one thread*: of the clock on the wall, without Workers), the gain that was measured with two Workers on two processors, and the gain that the two figures allow on
so many processors: as many MiB as the processors have time for, until the main thread has none left. Order costs nothing more: a unit that
is late holds back what is behind it, of which no stream has more than two units a Worker. What the arithmetic leaves out: the bandwidth of the memory, of which every MiB
takes some 4 (read, copied, worked on, read again), and waiting, which is why two processors give less than it says.

${growthTable()}
`;
}
