/**
 * Runs the tool's main() for each argument list of the JSON file named by the first argument, one after the other. Both
 * standard output and standard error get a record separator after each; before it stand, on standard output, the exit
 * code and the most memory this process has had so far, in bytes.
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
