// table.mjs COUNTS README: writes the table of README (between two comments) from the counts that summary.mjs left.
import { readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

const [counts, readme] = process.argv.slice(2);
const rows = new Map(); // kernel, libkcapi and user → runtime → leg
for (const leg of JSON.parse(readFileSync(counts, "utf8"))) {
  const [, runtime, title] = leg.leg.match(/^(.*?)-(.*)$/);
  rows.set(title, { ...rows.get(title), [runtime]: leg });
}

function cell({ passed, failed, skipped, leftOut }) {
  return leftOut ?? `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

const table = [["Kernel", "libkcapi", "User, sysctl", "Deno", "Bun"]];
for (const [title, { deno, bun }] of rows) {
  const [kernel, library, ...user] = title.split(", ");
  const release = deno.kernel?.split(",")[0] ?? bun.kernel?.split(",")[0] ?? kernel;
  table.push([release, library.replace("libkcapi ", ""), user.join(", "), cell(deno), cell(bun)]);
}
const widths = table[0].map((_, column) => Math.max(...table.map((row) => row[column].length)));
const line = (row) => `| ${row.map((text, column) => text.padEnd(widths[column])).join(" | ")} |`;
const [head, ...body] = table;
const text = [line(head), line(widths.map((width) => "-".repeat(width))), ...body.map(line)].join("\n");
const before = readFileSync(readme, "utf8");
const after = before.replace(/(<!-- matrix -->\n)[^]*(\n<!-- end -->)/, (_, start, end) => `${start}\n${text}\n${end}`);
if (after === before && !before.includes(text)) throw new Error(`${readme} has no place for the table`);
writeFileSync(readme, after);
