/**
 * The contract's suites for streams, iterables and what is sealed, a second time: with a pool of two Workers. See pool.ts.
 */
import { test } from "./support/deps.ts";
import { closePoolOfContract } from "./support/pool.ts";

for (const file of ["streams_test.ts", "iterables_test.ts", "sealed_test.ts"]) await import(`./${file}?pool`);

// What streams that nobody ended have open in them would be open as long as this process.
test.unsanitized("pool: the pool is closed, and its Workers end", closePoolOfContract);
