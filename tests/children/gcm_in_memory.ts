/**
 * Decrypts the messages of AES-GCM in argv[2], in hexadecimal, all but the last of which do not come to be verified.
 * Prints a line then, and holds the plaintext of the last one until its standard input ends.
 */
import process from "node:process";
import { decrypt, DecryptionStream, openGcm } from "../../mod.ts";
import { type Bytes, collect, cut } from "../support/bytes.ts";
import { caught, collectGarbage, turns } from "../support/support.ts";

const hex = process.argv[2]!;
const WAYS = 7;
const messages = [...cut(Uint8Array.fromHex(hex), [hex.length / 2 / WAYS])];
/** The key and the IV of the test. */
const options = { key: new Uint8Array(32).fill(1), iv: new Uint8Array(12).fill(2) };

/** Without its tag, and damaged. */
function next(): [whole: Bytes, ciphertext: Bytes, forged: Bytes] {
  const whole = messages.shift()!;
  return [whole, whole.slice(0, -16), whole.map((byte, i) => i === whole.length - 20 ? byte ^ 1 : byte)];
}

/** Writes all but the tag, and ends. */
async function leave(end: (stream: DecryptionStream) => unknown): Promise<void> {
  const [, ciphertext] = next();
  const stream = new DecryptionStream("gcm(aes)", options);
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  writer.closed.catch(() => {});
  reader.read().catch(() => {});
  for (const chunk of cut(ciphertext, [700])) writer.write(chunk).catch(() => {});
  await turns(3);
  reader.releaseLock();
  writer.releaseLock();
  await end(stream);
}

const [, , forged] = next();
await caught(collect(decrypt("gcm(aes)", options, cut(forged, [700]))));
const [, ciphertext] = next();
await caught(collect(decrypt("gcm(aes)", options, ciphertext)));
await leave((stream) => stream.writable.abort(new Error("enough")));
await leave((stream) => stream.readable.cancel());
await leave(() => {});
const [, , changed] = next();
await caught(openGcm(new Blob([changed]), options));
for (let i = 0; i < 3; i++) await collectGarbage();
const held = await collect(decrypt("gcm(aes)", options, next()[0]));
console.log("decrypted");
for await (const _ of process.stdin);
console.log(held.length);
