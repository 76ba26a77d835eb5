/** Starts Workers that load the library at the same time, as the first in this process. Prints their answers. */
import process from "node:process";
import { type Order, THREADS } from "./streaming.ts";
import { WebWorker } from "./web_worker.ts";

const engine = process.env.KCAPI_TEST_ENGINE as Order["engine"];
const barrier = new Int32Array(new SharedArrayBuffer(4));
const threads = Array.from({ length: THREADS }, (_, i) => {
  const worker = new WebWorker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const answer = new Promise<number>((resolve, reject) => {
    worker.onmessage = ({ data }) => Array.isArray(data) && resolve(data.length);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ engine, seed: i + 1, rounds: 1, barrier } satisfies Order);
  return answer.finally(() => worker.terminate());
});
console.log((await Promise.all(threads)).join());
