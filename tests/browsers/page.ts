/// <reference lib="dom" />
/** The entry of a browser's bundle: loads the tests, runs them, and posts each report to the server it came from. */
import { describeError, type Report, runTests } from "./runner.ts";

let last: Promise<unknown> = Promise.resolve();

/** Posts one report after another, so that they arrive in order. */
function report(report: Report): Promise<void> {
  const posted = last.then(() => fetch("/report", { method: "POST", body: JSON.stringify(report) })).then(() => {});
  last = posted.catch(() => {}); // the server is gone
  return posted;
}

const stray = (error: unknown) => void report({ kind: "stray", text: describeError(error) });
globalThis.addEventListener("error", (event) => stray((event as ErrorEvent).error ?? (event as ErrorEvent).message));
globalThis.addEventListener("unhandledrejection", (event) => stray((event as PromiseRejectionEvent).reason));
try {
  await import("kcapi:tests");
  await runTests(report, new URL(location.href).searchParams.get("filter") ?? "");
} catch (error) {
  await report({ kind: "broken", text: describeError(error) });
}
