/**
 * Runs the tests of streams, iterables and sealed streams again, with a pool of two Workers. See support/pool.ts.
 */
import { test } from "./support/deps.ts";
import { closePoolOfContract } from "./support/pool.ts";

for (const file of ["streams_test.ts", "iterables_test.ts", "sealed_test.ts"]) await import(`./${file}?pool`);

// The Workers would keep the ciphers of streams that did not end open until the process ends.
test.unsanitized("pool: close() ends the Workers", closePoolOfContract);
