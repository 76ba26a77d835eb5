/**
 * The least that a Worker can be (B10): it does a unit's work as those of `WorkerPool` do, in memory that is moved there; and back what
 * came out. No errors.
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
