/** Encrypts in a pool that it does not close, and prints the result as JSON. The process must end by itself. */
import process from "node:process";
import { encrypt, KcapiError, WorkerPool } from "../../mod.ts";

const engine = process.env.KCAPI_TEST_ENGINE === "kernel" ? "kernel" : "userspace";
const pool = new WorkerPool(2);
const options = { key: new Uint8Array(16), iv: new Uint8Array(16), engine, pool } as const;
let length = 0;
try {
  for await (const piece of encrypt("ctr(aes)", options, new Uint8Array(3_000_000))) length += piece.length;
  console.log(JSON.stringify({ engine, length }));
} catch (error) {
  if (!(error instanceof KcapiError)) throw error;
  const { code, hint, message } = error;
  console.log(JSON.stringify({ code, hint, message }));
}
