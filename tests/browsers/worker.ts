/** The entry of workerd's bundle: answers a request with the reports of the tests, one line each. */
import { describeError, type Report, runTests } from "./runner.ts";

export default {
  fetch(request: Request, _env: unknown, context: { waitUntil(promise: Promise<unknown>): void }): Response {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const encoder = new TextEncoder();
    const report = (report: Report) => writer.write(encoder.encode(`${JSON.stringify(report)}\n`));
    const filter = new URL(request.url).searchParams.get("filter") ?? "";
    // Modules may use random numbers, which workerd has only for a request.
    const run = import("kcapi:tests").then(() => runTests(report, filter));
    const end = run.catch((error) => report({ kind: "broken", text: describeError(error) }));
    context.waitUntil(end.then(() => writer.close()));
    return new Response(readable);
  },
};
