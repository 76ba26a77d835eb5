/**
 * The module that a Worker of `CipherWorkers` runs. A bundle needs it as an entry of its own, named `cipher_worker`: a file
 * with nothing in it but `import "@kcapi/streams/worker";` does.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { bytesOf, failureOf, memoryOf, piecesOf, type Reply, type Request, type Result } from "./messages.ts";
import { forgetKey } from "../kernel_key.ts";
import { type Job, jobOf, unknownJob } from "./work.ts";

/** A stream's job, or why there is none. */
type Opened = { readonly job: Job } | { readonly failure: unknown };

const { parentPort } = process.getBuiltinModule("node:worker_threads");

const streams = new Map<number, Opened>();

function open(id: number, order: Parameters<typeof jobOf>[0]): void {
  try {
    streams.set(id, { job: jobOf(order) });
  } catch (failure) {
    forgetKey(order.key);
    streams.set(id, { failure });
  }
}

function run({ of, pieces, place }: Extract<Request, { unit: number }>): Result {
  const outputs: Bytes[] = [];
  try {
    const stream = streams.get(of);
    if (!stream) throw unknownJob();
    if ("failure" in stream) throw stream.failure;
    stream.job.run(bytesOf(pieces), place, outputs);
    return { pieces: piecesOf(outputs) };
  } catch (error) {
    return { pieces: piecesOf(outputs), failure: failureOf(error) };
  } finally {
    clearAround(outputs);
  }
}

/** Outputs lie, in order, where the input was: what is left of that is not to come out with them, in the memory around. */
function clearAround(outputs: readonly Bytes[]): void {
  const ends = new Map<ArrayBuffer, number>();
  for (const { buffer, byteOffset, length } of outputs) {
    new Uint8Array(buffer).fill(0, ends.get(buffer) ?? 0, byteOffset);
    ends.set(buffer, byteOffset + length);
  }
  for (const [buffer, end] of ends) new Uint8Array(buffer).fill(0, end);
}

function close(id: number): void {
  const stream = streams.get(id);
  streams.delete(id);
  if (stream && "job" in stream) stream.job.close();
}

function reply(message: Reply, memory: ArrayBuffer[] = []): void {
  parentPort!.postMessage(message, memory);
}

parentPort?.on("message", (request: Request) => {
  if ("open" in request) open(request.open, request.order);
  else if ("close" in request) close(request.close);
  else if ("unit" in request) {
    const result = run(request);
    reply({ unit: request.unit, result }, memoryOf(result.pieces));
  } else {
    for (const id of [...streams.keys()]) close(id);
    reply({ quit: true });
  }
});
reply({ ready: true });
