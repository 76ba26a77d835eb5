// Prints the summary of `tests/run`: counts, failures and skipped tests from the runtimes' JUnit reports.
// Arguments: the directory that has one directory per leg, "--no-kernel" or "", the filter or "", the legs.
// Writes the counts of each leg to counts.json in that directory.
//
// A leg's directory contains `code` (its exit code) and `junit.xml` (its report), or `skipped` (why it did not run). It
// may contain `kernel`, `library` and `browser` (the system of the leg), `running` (the current test), and `expected`
// (the required content of `library`).
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

const [directory, noKernel, filter, ...legs] = process.argv.slice(2);

if (legs.length === 0) throw new Error("expected at least one leg, got none");

/** Reads a file of a leg, or returns `undefined` if it does not exist. */
function read(leg, file) {
  const path = `${directory}/${leg}/${file}`;
  return existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
}

function unescape(text) {
  const named = { lt: "<", gt: ">", amp: "&", quot: '"', apos: "'" };
  return text.replace(/&(?:#(\d+)|#x([\da-f]+)|(\w+));/gi, (all, decimal, hex, name) => {
    if (name) return named[name] ?? all;
    return String.fromCodePoint(decimal ? Number(decimal) : parseInt(hex, 16));
  });
}

/** The test cases of a JUnit report, or `undefined` if it was cut short. */
function parse(report) {
  if (!report?.endsWith("</testsuites>")) return undefined;
  const cases = report.matchAll(/<testcase\s([^>]*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g);
  return [...cases].map(([, attributes, body = ""]) => ({
    name: unescape(attributes.match(/(?:^|\s)name="([^"]*)"/)?.[1] ?? "?"),
    result: /<(?:failure|error)\b/.test(body) ? "failed" : /<skipped\b/.test(body) ? "skipped" : "passed",
  }));
}

/** Returns why a leg failed, apart from its failed tests. */
function defect(code, count, library, expected) {
  if (code === "123") return "killed because no test ended";
  if (code === "124") return "killed at the time limit";
  if (code === "125") return "the guest kernel could not boot";
  if (code === "126") return "the guest kernel died";
  if (!count) {
    return `no complete report (${code === "0" ? "no test, or one called exit()" : "a crash, or a broken import"})`;
  }
  if (count.passed + count.failed === 0) return "no test was run";
  if (code !== "0" && count.failed === 0) return "an error outside of the tests";
  if (expected && library !== expected) return `ran on ${library ?? "no libkcapi"}, not on ${expected}`;
  return undefined;
}

/** A skipped test has the name "name # reason" (see deps.ts). */
function noteSkipped(testName, leg) {
  const [, name, reason] = testName.match(/^(.*) # (.*)$/s) ?? [, testName, "no reason given"];
  const names = skipped.get(reason) ?? new Map();
  skipped.set(reason, names.set(name, [...names.get(name) ?? [], leg]));
}

const results = ["passed", "failed", "skipped"];
const total = { passed: 0, failed: 0, skipped: 0 };
const skipped = new Map(); // reason → name → legs
const failures = [];
function summarize(leg) {
  const count = { passed: 0, failed: 0, skipped: 0 };
  const leftOut = read(leg, "skipped");
  if (leftOut !== undefined) {
    noteSkipped(`the whole suite # ${leftOut}`, leg);
    return { leg, ...count, skipped: 1, leftOut };
  }
  const code = read(leg, "code");
  const library = read(leg, "library");
  const cases = parse(read(leg, "junit.xml"));
  for (const { name, result } of cases ?? []) {
    if (!name.includes(filter)) continue; // reported as skipped
    count[result]++;
    if (result === "failed") failures.push(`${leg}: ${name}`);
    if (result === "skipped") noteSkipped(name, leg);
  }
  const reason = defect(code, cases && count, library, read(leg, "expected"));
  if (reason) {
    count.failed++;
    const running = read(leg, "running");
    failures.push(`${leg}: ${reason}, exit code ${code}${running ? `; running was: ${running}` : ""}`);
  }
  return { leg, ...count, kernel: read(leg, "kernel"), library, browser: read(leg, "browser") };
}

function namesOf(some) {
  if (some.length === legs.length) return "all";
  return some.length <= 4 ? some.join(", ") : `${some.length} of ${legs.length} legs`;
}

/** A leg's name: "deno on kernel", "chromium, plain modules". */
function titleOf(leg) {
  return leg.replace("-modules", ", plain modules").replace("-pairs", ", files of all runtimes").replace("-", " on ");
}

const summaries = legs.map(summarize);
for (const summary of summaries) {
  for (const result of results) total[result] += summary[result];
}
const width = Math.max(...legs.map((leg) => titleOf(leg).length)) + 1;
const lines = summaries.map(({ leg, passed, failed, skipped, kernel, library, browser, leftOut }) => {
  const where = [kernel, library, browser].filter((word) => word).join(", ");
  const counts = leftOut ? `skipped: ${leftOut}` : `${passed} passed, ${failed} failed, ${skipped} skipped`;
  return `${titleOf(leg).padEnd(width)} ${counts}${where ? `  (${where})` : ""}`;
});
writeFileSync(`${directory}/counts.json`, JSON.stringify(summaries));

console.log("\n======== summary ========");
for (const [reason, names] of skipped) {
  console.log(`skipped, ${reason}:`);
  for (const [name, where] of names) console.log(`  ${name} (${namesOf(where)})`);
}
if (failures.length > 0) console.log("failed:");
for (const failure of failures) console.log(`  ${failure}`);
for (const line of lines) console.log(line);
if (noKernel) console.log("THE KERNEL WAS LEFT OUT (--no-kernel): nothing here was tested on a kernel's ciphers.");
console.log(`\n${total.passed} passed, ${total.failed} failed, ${total.skipped} skipped`);
process.exit(total.failed === 0 ? 0 : 1);
