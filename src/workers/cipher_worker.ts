/**
 * The module that a Worker of `WorkerPool` runs. A bundle needs it as an entry of its own, named `cipher_worker`: a file
 * with nothing in it but `import "@kcapi/streams/worker";` does.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import { KnownBlocks, movable } from "./blocks.ts";
import { failureOf, type Reply, type Request, type Result } from "./messages.ts";
import { type Job, jobOf, unknownJob } from "./work.ts";

/** A stream's job, or why there is none. */
type Opened = { readonly job: Job } | { readonly failure: unknown };

const { parentPort } = process.getBuiltinModule("node:worker_threads");

const streams = new Map<number, Opened>();
const known = new KnownBlocks();

function open(id: number, order: Parameters<typeof jobOf>[0]): void {
  try {
    streams.set(id, { job: jobOf(order) });
  } catch (failure) {
    streams.set(id, { failure });
  }
}

function run({ of, blocks, pieces, place }: Extract<Request, { unit: number }>): Result {
  const outputs: Bytes[] = [];
  known.add(blocks);
  try {
    const stream = streams.get(of);
    if (!stream) throw unknownJob();
    if ("failure" in stream) throw stream.failure;
    stream.job.run(known.bytesOf(pieces), place, outputs);
    return { outputs };
  } catch (error) {
    return { outputs, failure: failureOf(error) };
  } finally {
    clearAround(outputs);
  }
}

/** In place, outputs lie in order where the input was: what is left of that is not to come out with them, in the memory around. */
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
    const { outputs, failure } = run(request);
    reply({ unit: request.unit, pieces: known.piecesOf(outputs), failure }, movable(outputs));
  } else {
    for (const id of [...streams.keys()]) close(id);
    reply({ quit: true });
  }
});
reply({ ready: true });
