// table.mjs COUNTS README: writes the counts of summary.mjs to the table in README (between two comments). It replaces
// rows of the same kernel (except its last number), libkcapi and user, and keeps the others.
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

const [counts, readme] = process.argv.slice(2);
const before = readFileSync(readme, "utf8");
const place = /(<!-- matrix -->\n)([^]*)(\n<!-- end -->)/;
const HEAD = ["Kernel", "libkcapi", "User, sysctl", "Deno", "Bun", "Node"];

const rows = new Map(); // key of the row → its cells
const key = ([kernel, library, user]) => [/^.*?\d+\.\d+/.exec(kernel)[0], /\(.*\)/.exec(library)[0], user].join();
for (const line of place.exec(before)[2].split("\n").filter((line) => line.startsWith("| ")).slice(2)) {
  const cells = line.split("|").slice(1, -1).map((cell) => cell.trim());
  rows.set(key(cells), HEAD.map((_, column) => cells[column] ?? ""));
}

const legs = new Map(); // kernel, libkcapi and user → runtime → leg
for (const leg of JSON.parse(readFileSync(counts, "utf8"))) {
  const [, runtime, title] = leg.leg.match(/^(.*?)-(.*)$/);
  legs.set(title, { ...legs.get(title), [runtime]: leg });
}
const cell = ({ passed, failed, skipped, leftOut }) =>
  leftOut ?? `${passed} passed, ${failed} failed, ${skipped} skipped`;
for (const [title, { deno, bun, node }] of legs) {
  const [kernel, library, ...user] = title.split(", ");
  const named = kernel.replace("uml-", "User-Mode Linux ").replace("qemu-", "QEMU ");
  const release = deno.kernel?.split(",")[0] ?? bun.kernel?.split(",")[0] ?? named;
  const cells = [release, library.replace(/^libkcapi /, ""), user.join(", "), cell(deno), cell(bun), cell(node)];
  rows.set(key(cells), cells);
}

const table = [HEAD, ...rows.values()];
const widths = HEAD.map((_, column) => Math.max(...table.map((row) => row[column].length)));
const line = (row) => `| ${row.map((text, column) => text.padEnd(widths[column])).join(" | ")} |`;
const [head, ...body] = table;
const text = [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
writeFileSync(readme, before.replace(place, (_, start, __, end) => `${start}\n${text}\n${end}`));
