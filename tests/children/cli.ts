/**
 * Runs the tool's main() for each argument list in the JSON file that the first argument names. After each run, it
 * writes a record separator to standard output and standard error. On standard output, the exit code and the maximum
 * memory of the process in bytes come before the separator.
 */
import { readFileSync, writeSync } from "node:fs";
import process from "node:process";
import { main } from "../../src/cli.ts";

for (const args of JSON.parse(readFileSync(process.argv[2]!, "utf8"))) {
  const code = await main(args);
  const memory = 1024 * process.resourceUsage().maxRSS;
  writeSync(1, `\x1f${code} ${memory}\x1e`);
  writeSync(2, "\x1e");
}
process.exit(0);
