/**
 * Prints every object of this module during its work. `tests/release_test.ts` searches the output for the key (bytes of
 * 0xc7), the IV (0xb3) and the data (0xd5, 0xd6).
 */
import process from "node:process";
import { inspect } from "node:util";
import { CipherHandle, decrypt, DecryptionStream, encrypt, EncryptionStream } from "../../mod.ts";

const engine = process.env.KCAPI_TEST_ENGINE as "kernel" | "userspace";
const key = new Uint8Array(32).fill(0xc7);
const iv = new Uint8Array(16).fill(0xb3);
const data = new Uint8Array(100).fill(0xd5);
const text = String.fromCharCode(...new Uint8Array(20).fill(0xd6));
const options = { key, iv, engine };

function print(what: string, value: unknown): void {
  console.log(what, value);
  console.log("%o %O %s", value, value, value);
  console.log(inspect(value, { depth: 20, showHidden: true, getters: true }));
  if (value instanceof Error) console.log(value.stack, value.message);
  try {
    console.log(JSON.stringify(value), Object.entries(value as object));
  } catch (error) {
    console.log(what, String(error));
  }
}

async function printError(what: string, action: () => unknown): Promise<void> {
  try {
    await action();
    console.log(what, "did not fail");
  } catch (error) {
    print(what, error);
  }
}

console.log("control", key, iv, data);
console.log("end of control");

const handle = CipherHandle.open("cbc(aes)", { key, engine });
print("handle", handle);
handle.streamInitEnc(iv);
await handle.streamUpdate(data);
print("handle with data in it", handle);
const loop = handle.streamOp();
print("iterator", loop);
print("output", (await loop.next()).value?.length);

const stream = new EncryptionStream("cbc(aes)", options);
const writer = stream.writable.getWriter();
writer.write(data).catch(() => {});
print("stream", stream);
print("its ends", [stream.readable, stream.writable, writer]);
const decryption = new DecryptionStream("ctr(aes)", options);
decryption.writable.getWriter().write(new Uint8Array(50_000).fill(0xd5)).catch(() => {});
print("stream", decryption);

const iterable = encrypt("ctr(aes)", options, data);
print("iterable", iterable);
await iterable.next();
print("iterable that was asked", iterable);

await printError("key too short", () => CipherHandle.open("cbc(aes)", { key: key.subarray(1), engine }));
await printError("halves", () => new EncryptionStream("xts(aes)", { key, engine, sectorSize: 512 }));
await printError("IV too short", () => new EncryptionStream("cbc(aes)", { ...options, iv: iv.subarray(1) }));
await printError("text as key", () => CipherHandle.open("cbc(aes)", { key: text as never, engine }));
await printError(
  "text as chunk",
  () => new EncryptionStream("ctr(aes)", options).writable.getWriter().write(text as never),
);
await printError("text as source", () => encrypt("ctr(aes)", options, text as never));
await printError("text in a source", () => encrypt("ctr(aes)", options, [text] as never).next());
await printError("text as update", () => handle.streamUpdate(text as never));
await printError("damaged", async () => {
  for await (const _ of decrypt("cbc(aes)", options, data));
});
await printError("partial block", async () => {
  for await (const _ of encrypt("cbc(aes)", { ...options, padding: "none" }, data));
});
await printError("busy", () => handle.streamInitEnc(iv));
handle.close();
await printError("closed", () => handle.streamInitEnc(iv));
await printError("unknown", () => CipherHandle.open("cbc(aez)", { key, engine }));
await iterable.return();
process.exit(0);
