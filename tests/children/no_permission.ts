/**
 * Opens a stream in a process without permissions, on the engine in its argument (`auto` by default). Prints the result
 * as JSON.
 */
import process from "node:process";
import { encrypt, EncryptionStream, KcapiError, listCiphers, probe } from "../../mod.ts";
import { collect } from "../support/bytes.ts";

const options = { key: new Uint8Array(16), iv: new Uint8Array(16) };
try {
  const engine = process.argv[2] as "kernel" | undefined;
  const stream = new EncryptionStream("ctr(aes)", { ...options, engine });
  const output = await collect(encrypt("ctr(aes)", { ...options, engine }, new Uint8Array(16)));
  const report = probe();
  const ciphers = listCiphers();
  console.log(JSON.stringify({ engine: stream.engine, output: output.toHex(), report, ciphers }));
} catch (error) {
  if (!(error instanceof KcapiError)) throw error;
  const { code, operation, message, hint, cause } = error;
  console.log(JSON.stringify({ code, operation, message, hint, cause: String(cause) }));
}
