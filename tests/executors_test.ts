/**
 * Runs the tests of streams, iterables and sealed streams again: with a pool of two Workers, and sealed streams over
 * WebCrypto. See support/contract.ts.
 */
import { test } from "./support/deps.ts";
import { closePoolOfContract } from "./support/pool.ts";

const RUNS = {
  pool: [
    "streams_test.ts",
    "iterables_test.ts",
    "sealed_test.ts",
    "sealed_reads_test.ts",
    "sealed_damage_test.ts",
    "sealed_servers_test.ts",
  ],
  webcrypto: ["sealed_test.ts", "sealed_reader_test.ts", "sealed_reads_test.ts", "sealed_damage_test.ts"],
};

for (const [run, files] of Object.entries(RUNS)) {
  for (const file of files) await import(`./${file}?${run}`);
}

// The Workers would keep the ciphers of streams that did not end open until the process ends.
test("pool: close() ends the Workers", { sanitize: false }, closePoolOfContract);
