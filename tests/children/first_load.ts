/** Eight Workers that load the library at the same time, for the first time in this process. Prints what they say. */
import process from "node:process";
import type { Order } from "./worker.ts";

const engine = process.env.KCAPI_TEST_ENGINE as Order["engine"];
const threads = Array.from({ length: 8 }, (_, seed) => {
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const answer = new Promise<number>((resolve, reject) => {
    worker.onmessage = ({ data }) => Array.isArray(data) && resolve(data.length);
    worker.onerror = (event) => reject(new Error(event.message));
  });
  worker.postMessage({ engine, seed: seed + 1, rounds: 1, loads: true } satisfies Order);
  return answer.finally(() => worker.terminate());
});
console.log((await Promise.all(threads)).join());
