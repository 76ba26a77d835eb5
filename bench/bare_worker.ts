/**
 * The shortest possible Worker (B10). It does the work of one batch in memory that is transferred to it, and transfers
 * the output back.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import type { Bytes } from "../src/bytes.ts";
import { type CipherJob, openCipher } from "../src/cipher/batches.ts";
import type { BatchPosition, LocalSession } from "../src/executors/executor.ts";
import { openSegments, type SealedJob } from "../src/sealed/batches.ts";
import { Secret } from "../src/secret.ts";

/** The messages to a bare Worker: first the kind of work, then each batch. */
export type BareRequest =
  | { readonly job: CipherJob | SealedJob; readonly key: Uint8Array; readonly position: BatchPosition }
  | ArrayBuffer;

let session: LocalSession | undefined;
let position: BatchPosition;

parentPort?.on("message", (request: BareRequest) => {
  if ("job" in request) {
    const { job, key } = request;
    session = job.kind === "cipher" ? openCipher(job, Secret.from(key)) : openSegments(job, Secret.from(key));
    position = request.position;
  } else {
    const { outputs } = session!.run([new Uint8Array(request)], position, false);
    const [{ buffer }] = outputs as [Bytes];
    parentPort!.postMessage(buffer, [buffer]);
  }
});
