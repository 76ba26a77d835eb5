/**
 * The contract's suites run several times: in this thread, with a pool (pool.ts), and over WebCrypto, which is the only
 * way in browsers.
 */
import type { SealOptions, WorkerPool } from "../../mod.ts";
import { assertEquals, engine, openFiles, type Requirements, test, type TestBody } from "./deps.ts";
import { type Outcome, outcomes, turns } from "./promises.ts";
import { callsEnded, callsUnderWay } from "./webcrypto_calls.ts";

interface Register {
  (name: string, body: TestBody): void;
  (name: string, requirements: Requirements, body: TestBody): void;
}

/** The helpers of a suite, for each of its runs. */
export interface Contract {
  readonly test: typeof test;
  /** Registers a test only in runs without Workers, because it does not use streams. */
  readonly once: Register;
  /** The option for all streams. */
  readonly pool: WorkerPool | undefined;
  /** The option of sealed streams. */
  readonly engine: NonNullable<SealOptions["engine"]>;
  /** Like the function in promises.ts, and also waits until no work is under way elsewhere. */
  readonly turns: typeof turns;
  readonly outcomes: typeof outcomes;
  /** Fails if more descriptors than `files` are open. With Workers, waits until they have closed theirs. */
  readonly assertReleased: (files: number, message?: string) => Promise<void>;
}

/** The run in this thread, on the engine of the leg. */
export function plainContract(): Contract {
  return {
    test,
    once: test,
    pool: undefined,
    engine,
    turns,
    outcomes,
    assertReleased: (files, message) => Promise.resolve(assertEquals(openFiles(), files, message)),
  };
}

/** The run over WebCrypto. */
export function webCryptoContract(prefix: string): Contract {
  const prefixed = testWith(prefix, { engine: "userspace" });
  return {
    ...plainContract(),
    test: prefixed,
    once: prefixed,
    engine: "webcrypto",
    ...turnsBeside(callsUnderWay, callsEnded),
  };
}

/**
 * `test()` with a prefix for each name, and with requirements.
 *
 * @param isTaken Called for each test: whether this leg runs it. Otherwise another runtime's leg does.
 */
export function testWith(prefix: string, added: Requirements, isTaken: () => boolean = () => true): typeof test {
  return (name: string, ...rest: [TestBody] | [Requirements, TestBody]) => {
    const [requirements, body] = rest.length === 1 ? [{}, rest[0]] : rest;
    const needs = { ...requirements.needs, "the kernel leg of another runtime": isTaken() };
    test(prefix + name, { ...requirements, needs, ...added }, body);
  };
}

/**
 * `turns()` and `outcomes()` beside work that other threads do.
 *
 * @param underWay The number of its parts.
 * @param idle Waits until it is 0.
 */
export function turnsBeside(
  underWay: () => number,
  idle: () => Promise<void>,
): Pick<Contract, "turns" | "outcomes"> {
  /** Waits until there is no work, and then for `count` turns in which there is none. */
  async function quiet(count: number): Promise<void> {
    for (let calm = 0; calm < count;) {
      await (underWay() > 0 ? idle() : turns(1));
      calm = underWay() > 0 ? 0 : calm + 1;
    }
  }
  return {
    async turns(count = 1) {
      await turns(count);
      await quiet(count);
    },
    async outcomes(...promises): Promise<Outcome[]> {
      const settled = Promise.all(promises.map((promise) => Promise.resolve(promise).then(() => {}, () => {})));
      await Promise.race([settled, quiet(20)]);
      return await outcomes(...promises);
    },
  };
}
