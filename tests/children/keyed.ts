/**
 * Streams with a key of the kernel's keyring or from a file, and pauses until standard input ends, so that a test can
 * search this process's memory for the key. Prints "ready" and then "done".
 */
import { readFileSync } from "node:fs";
import process from "node:process";
import { CipherHandle, decrypt, encrypt, EncryptionStream, type KernelKey } from "../../mod.ts";
import { bytes, collect, cut, streamOf } from "../support/bytes.ts";

const [kind, name] = process.argv.slice(2) as ["kernel" | "bytes", string];
const key: KernelKey | Uint8Array<ArrayBuffer> = kind === "kernel"
  ? { type: "logon", description: name }
  : new Uint8Array(readFileSync(name));
const options = { key, engine: "kernel", sectorSize: 512 } as const;
const input = bytes(512 * 700);

using handle = CipherHandle.open("xts(aes)", { key });
const ciphertext = await collect(encrypt("xts(aes)", options, input));
const stream = new EncryptionStream(handle, { sectorSize: 512 });
const writer = stream.writable.getWriter();
const reader = stream.readable.getReader();
const written = writer.write(input.subarray(0, 5120));
const { value: first } = await reader.read();
await written;
console.log("ready");

for await (const _ of process.stdin);

const rest = collect((async function* () {
  for (let next; !(next = await reader.read()).done;) yield next.value;
})());
for (const chunk of cut(input.subarray(5120), [51200])) await writer.write(chunk);
await writer.close();
const streamed = [...first!, ...await rest];
const plaintext = await collect(decrypt("xts(aes)", options, streamOf(cut(ciphertext, [10_000]))));
const isRight = plaintext.every((byte, i) => byte === input[i] && streamed[i] === ciphertext[i]);
console.log(isRight && plaintext.length === input.length && streamed.length === input.length ? "done" : "wrong bytes");
if (kind === "bytes") console.log(key); // Keeps the key in memory, as a program would.
