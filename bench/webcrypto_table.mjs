// webcrypto_table.mjs FILE: prints a table of the lines that bench/webcrypto.ts has printed: the median MB/s of the
// rounds for 1, 2, 4, 8 and 16 segments in flight.
import { readFileSync } from "node:fs";
import process from "node:process";

const results = readFileSync(process.argv[2], "utf8").trim().split("\n").map((line) => JSON.parse(line));
const median = (numbers) => numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
const runtimes = [...new Set(results.map(({ runtime }) => runtime))];
for (const cipher of ["AES-GCM-HKDF", "AES-CTR-HMAC"]) {
  for (const segmentSize of [65_536, 1_048_576]) {
    console.log(`\n${cipher}, segments of ${segmentSize / 1024} KiB, MB/s\n`);
    console.log("| in flight | seal: 1 | 2 | 4 | 8 | 16 | open: 1 | 2 | 4 | 8 | 16 |");
    console.log(`|${" --- |".repeat(11)}`);
    for (const runtime of runtimes) {
      const cells = ["seal", "open"].flatMap((direction) => {
        const found = results.findLast((each) =>
          each.runtime === runtime && each.cipher === cipher && each.segmentSize === segmentSize &&
          each.direction === direction
        );
        return found ? Object.values(found.rates).map(median) : Array(5).fill("");
      });
      console.log(`| ${runtime} | ${cells.join(" | ")} |`);
    }
  }
}
