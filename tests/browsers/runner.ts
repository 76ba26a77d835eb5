/**
 * Runs the registered tests in a browser or in workerd and reports each step. The page and the worker differ only in
 * how a report reaches `run.ts`.
 */

/** A test as it was registered. */
export interface RegisteredTest {
  readonly name: string;
  /** `undefined`: skipped; the name then ends with the reason. */
  readonly body: (() => void | Promise<void>) | undefined;
}

/** What happened. `done` comes last, unless the tests could not be loaded, which is `broken`. */
export type Report =
  | { readonly kind: "start" | "skip" | "log" | "stray" | "broken"; readonly text: string }
  | { readonly kind: "end"; readonly text: string; readonly milliseconds: number; readonly error?: string }
  | { readonly kind: "done" };

/** Milliseconds until a test that waits for ever has failed. A test that loops for ever is left to `run.ts`. */
const TEST_TIMEOUT = 120_000;

/** Where `deps.ts` registers tests. */
export const tests: RegisteredTest[] = [];

/** An error with its stack; WebKit's and Firefox's stacks do not contain the message. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return `not an Error: ${String(error)}`;
  const { stack = "" } = error;
  const cause = error.cause === undefined ? "" : `\ncaused by ${describeError(error.cause)}`;
  return (stack.includes(error.message) ? stack : `${error}\n${stack}`) + cause;
}

/**
 * Runs the tests with `filter` in their names, one after another. A test begins when its start has been reported. What
 * it logs is reported, too.
 */
export async function runTests(report: (report: Report) => Promise<void>, filter: string): Promise<void> {
  console.log = (...values: unknown[]) => void report({ kind: "log", text: values.map(String).join(" ") });
  for (const { name, body } of tests) {
    if (!name.includes(filter)) continue;
    if (!body) {
      await report({ kind: "skip", text: name });
      continue;
    }
    await report({ kind: "start", text: name });
    const begin = performance.now();
    const error = await failureOf(body);
    const milliseconds = performance.now() - begin;
    await report({ kind: "end", text: name, milliseconds, ...(error !== undefined && { error }) });
  }
  await report({ kind: "done" });
}

async function failureOf(body: () => void | Promise<void>): Promise<string | undefined> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    const error = new Error(`Test did not end within ${TEST_TIMEOUT / 1000} s`);
    timer = setTimeout(() => reject(error), TEST_TIMEOUT);
  });
  try {
    await Promise.race([timeout, body()]);
    return undefined;
  } catch (error) {
    return describeError(error);
  } finally {
    clearTimeout(timer);
  }
}
