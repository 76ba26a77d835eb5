/**
 * Decrypts argv[3], in hexadecimal, on the engine of argv[2], in ways that need memory for intermediate bytes, and
 * zeroes what it received. Prints a line then, and holds the last plaintext until its standard input ends.
 */
import process from "node:process";
import { CipherHandle } from "../../mod.ts";
import { cut } from "../support/bytes.ts";

const [engine, hex] = process.argv.slice(2) as ["kernel" | "userspace", string];
/** One message for each way: the parent searches for all of them. */
const [gathered, inParts, held] = cut(Uint8Array.fromHex(hex), [hex.length / 6]);
const [key, iv] = [new Uint8Array(20).fill(1), new Uint8Array(8).fill(2)];

async function decrypted(name: string, message: Uint8Array, lengths: number[]): Promise<Uint8Array[]> {
  const handle = CipherHandle.open(name, { key: name === "ctr(aes)" ? key.subarray(0, 16) : key, engine });
  handle.streamInitDec(name === "ctr(aes)" ? new Uint8Array(16).fill(2) : iv);
  await handle.streamUpdateLast(message);
  const received: Uint8Array[] = [];
  for (let at = 0; at < message.length;) {
    const list = Array.from({ length: lengths[0]! }, () => new Uint8Array(new ArrayBuffer(lengths[1]!)));
    at += await handle.streamOpInto(...list);
    received.push(...list);
  }
  handle.close();
  return received;
}

for (const list of await decrypted("ctr(aes)", gathered!, [32, 32])) list.fill(0);
for (const list of await decrypted("rfc3686(ctr(aes))", inParts!, [1, 64])) list.fill(0);
const last = await decrypted("ctr(aes)", held!, [1, 1024]);
console.log("decrypted");
await new Promise((resolve) => process.stdin.on("data", () => {}).on("end", resolve));
console.log(last.length);
