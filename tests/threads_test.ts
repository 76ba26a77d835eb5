/** Tests with threads: several Workers and the main thread use their own handles at the same time. */
import { fileURLToPath } from "node:url";
import { loadIfGranted } from "../ffi/mod.ts";
import { KcapiError, unseal } from "../mod.ts";
import { inputOf, ivOf, KEY, type Order, stream, THREADS } from "./children/streaming.ts";
import { WebWorker } from "./children/web_worker.ts";
import { assertEquals, engine, runtimeArgv, spawn, test } from "./support/deps.ts";
import { type Bytes, collect, reference } from "./support/support.ts";

interface Thread extends Disposable {
  /** The output of the Worker. */
  readonly outputs: Promise<Bytes[]>;
  /** Resolves after the first round of the Worker. */
  readonly started: Promise<void>;
}

function start(order: Order): Thread {
  const worker = new WebWorker(new URL("./children/worker.ts", import.meta.url), { type: "module" });
  const outputs = Promise.withResolvers<Bytes[]>();
  const started = Promise.withResolvers<void>();
  worker.onmessage = ({ data }) => data === "round" ? started.resolve() : outputs.resolve(data);
  worker.onerror = (event) => {
    event.preventDefault();
    const error = new Error(`the Worker failed: ${event.message}`);
    started.reject(error);
    outputs.reject(error);
  };
  // Avoids an unhandled rejection.
  for (const promise of [outputs.promise, started.promise]) promise.catch(() => {});
  worker.postMessage(order);
  return { outputs: outputs.promise, started: started.promise, [Symbol.dispose]: () => worker.terminate() };
}

async function assertOutputs(outputs: Bytes[], seed: number): Promise<void> {
  const options = { key: KEY, iv: ivOf(seed) };
  const [ctr, cbc, sealed] = outputs;
  assertEquals(ctr, reference("encrypt", "ctr(aes)", options, inputOf(seed)), `handle of thread ${seed}`);
  const padded = reference("encrypt", "cbc(aes)", { ...options, padding: "pkcs7" }, inputOf(seed));
  assertEquals(cbc, padded, `stream of thread ${seed}`);
  assertEquals(await collect(unseal({ key: KEY, engine }, sealed!)), inputOf(seed), `seal of thread ${seed}`);
}

const rounds = 5;

test("two Workers and the main thread stream at the same time, and each gets the right bytes", async () => {
  using one = start({ engine, seed: 1, rounds });
  using two = start({ engine, seed: 2, rounds });
  await assertOutputs(await stream({ engine, seed: 3, rounds }), 3);
  await assertOutputs(await one.outputs, 1);
  await assertOutputs(await two.outputs, 2);
});

test("terminating a Worker during a stream does not affect another Worker or the main thread", async () => {
  for (let time = 0; time < 2; time++) {
    using other = start({ engine, seed: 2, rounds });
    {
      using endless = start({ engine, seed: 1, rounds: Infinity });
      await endless.started;
    }
    await assertOutputs(await stream({ engine, seed: 3, rounds: 2 }), 3);
    await assertOutputs(await other.outputs, 2);
  }
});

const hasLibrary = !(loadIfGranted() instanceof KcapiError);

test(
  `${THREADS} Workers load the library at the same time, as the first in their process`,
  { needs: { libkcapi: hasLibrary } },
  async () => {
    const child = fileURLToPath(new URL("./children/first_load.ts", import.meta.url));
    const { code, signal, stdout, stderr } = await spawn([...runtimeArgv, child]);
    assertEquals([code, signal, stderr], [0, null, ""]);
    assertEquals(stdout.trim().split(","), Array.from({ length: THREADS }, () => "3"));
  },
);
