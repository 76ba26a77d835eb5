/** The entry of workerd's bundle: answers a request with the reports of the tests, one line each. */
import "kcapi:tests";
import { type Report, runTests } from "./runner.ts";

export default {
  fetch(request: Request, _env: unknown, context: { waitUntil(promise: Promise<unknown>): void }): Response {
    const { readable, writable } = new TransformStream<Uint8Array, Uint8Array>();
    const writer = writable.getWriter();
    const encoder = new TextEncoder();
    const report = (report: Report) => writer.write(encoder.encode(`${JSON.stringify(report)}\n`));
    const filter = new URL(request.url).searchParams.get("filter") ?? "";
    context.waitUntil(runTests(report, filter).then(() => writer.close()));
    return new Response(readable);
  },
};
