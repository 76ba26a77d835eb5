/**
 * The module that a Worker of a `WorkerPool` runs. A bundle needs it as an entry point named `cipher_worker`: a file
 * that contains only `import "@kcapi/streams/worker";`.
 *
 * @module
 */

import "../runtime/oldest.ts"; // first: it refuses runtimes that are too old

import type { Bytes } from "../bytes.ts";
import { type CipherJob, openCipher } from "../cipher/batches.ts";
import { KcapiError } from "../errors.ts";
import type { BatchResult, LocalSession } from "../executors/executor.ts";
import {
  type BatchMessage,
  type OpenMessage,
  type Reply,
  type Request,
  serializeError,
} from "../executors/messages.ts";
import { movable, SharedBufferTable } from "../executors/shared_buffers.ts";
import type { Key } from "../keyring/kernel_key.ts";
import { openSegments, type SealedJob } from "../sealed/batches.ts";
import { Secret } from "../secret.ts";

/** A stream's session, or the error of opening it. */
type SessionOrError = { readonly session: LocalSession } | { readonly error: unknown };

const { parentPort } = process.getBuiltinModule("node:worker_threads");

const streams = new Map<number, SessionOrError>();
const known = new SharedBufferTable();

function open({ open: id, job, key: sent }: OpenMessage): void {
  try {
    const key: Key = sent instanceof ArrayBuffer ? Secret.adopt(sent) : sent;
    const session = job.kind === "cipher"
      ? openCipher(job as CipherJob, key)
      : openSegments(job as SealedJob, key as Secret);
    streams.set(id, { session });
  } catch (error) {
    streams.set(id, { error });
  }
}

function run({ of, buffers, pieces, position }: BatchMessage): BatchResult {
  known.add(buffers);
  const stream = streams.get(of);
  if (!stream) {
    return { outputs: [], error: new KcapiError("EBADF", "worker", "the stream is not open in this Worker") };
  }
  if ("error" in stream) return { outputs: [], error: stream.error };
  const result = stream.session.run(known.bytesOf(pieces), position, false);
  clearAround(result.outputs);
  return result;
}

/**
 * In place, outputs are in the memory of the input. Zeroes the rest of that memory, so that no input leaves the Worker.
 */
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
  if (stream && "session" in stream) stream.session.close();
}

function reply(message: Reply, memory: ArrayBuffer[] = []): void {
  parentPort!.postMessage(message, memory);
}

parentPort?.on("message", (request: Request) => {
  if ("open" in request) open(request);
  else if ("close" in request) close(request.close);
  else if ("batch" in request) {
    const { outputs, error } = run(request);
    const failure = error === undefined ? undefined : serializeError(error);
    reply({ batch: request.batch, pieces: known.piecesOf(outputs), failure }, movable(outputs));
  } else {
    for (const id of [...streams.keys()]) close(id);
    reply({ quit: true });
  }
});
reply({ ready: true });
