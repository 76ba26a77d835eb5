/**
 * The contract's suites for streams, iterables and what is sealed, a second time: with a pool of two Workers. See pool.ts.
 */
for (const file of ["streams_test.ts", "iterables_test.ts", "sealed_test.ts"]) await import(`./${file}?workers`);
