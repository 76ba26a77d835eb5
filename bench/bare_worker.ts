/**
 * The shortest possible Worker (B10). It does the work of one batch in memory that is moved to it, and moves the output
 * back.
 *
 * @module
 */

import { parentPort } from "node:worker_threads";
import type { Bytes } from "../src/bytes.ts";
import type { Order, Place } from "../src/workers/messages.ts";
import { type Job, jobOf } from "../src/workers/work.ts";

/** To a bare Worker: first what its units are, then each of them. */
export type BareRequest = { readonly order: Order; readonly place: Place } | ArrayBuffer;

let job: Job | undefined;
let place: Place;

parentPort?.on("message", (request: BareRequest) => {
  if ("order" in request) {
    job = jobOf(request.order);
    place = request.place;
  } else {
    const outputs: Bytes[] = [];
    job!.run([new Uint8Array(request)], place, outputs);
    const [{ buffer }] = outputs as [Bytes];
    parentPort!.postMessage(buffer, [buffer]);
  }
});
