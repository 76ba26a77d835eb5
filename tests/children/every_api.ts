/**
 * Uses every stream API on the kernel engine, in a process that has only the permission to call libkcapi. Prints the
 * output as JSON. `tests/ffi_test.ts` checks it.
 */
import { CipherHandle, decrypt, DecryptionStream, encrypt, EncryptionStream, KcapiError } from "../../mod.ts";
import { type Bytes, bytes, collect, concat, cut, streamOf } from "../support/bytes.ts";

const engine = "kernel";
const key = bytes(32, 2);
const iv = bytes(16, 3);
const input = bytes(250_000); // More than a window.
const pieces = () => streamOf(cut(input, [65_529, 7, 131_072]));
const outputs: Record<string, Bytes> = {};

const handle = CipherHandle.open("ctr(aes)", { key, engine });
async function send(on: CipherHandle): Promise<void> {
  await on.streamUpdate(input.subarray(0, 5), input.subarray(5, 70_000));
  await on.streamUpdateLast(input.subarray(70_000));
}
handle.streamInitEnc(iv);
[outputs["streamOp"]] = await Promise.all([collect(handle.streamOp({ maxBytes: 50_000 })), send(handle)]);

using other = handle.reinit();
other.streamInitDec(iv);
const [x, y] = [new Uint8Array(100), new Uint8Array(input.length)];
const sent = send(other);
const received: Bytes[] = [];
for (let length = 1; length > 0;) {
  length = await other.streamOpInto(x, y);
  received.push(concat([x, y]).slice(0, length));
}
await sent;
outputs["streamOpInto"] = concat(received);

outputs["stream from a handle"] = await collect(pieces().pipeThrough(new EncryptionStream(handle, { iv })));
handle.close();

const options = { key, iv, engine } as const;
const encryption = new EncryptionStream("cbc(aes)", options);
outputs["EncryptionStream"] = await collect(pieces().pipeThrough(encryption));
outputs["DecryptionStream"] = await collect(
  streamOf([outputs["EncryptionStream"]]).pipeThrough(new DecryptionStream("cbc(aes)", options)),
);
outputs["encrypt"] = await collect(encrypt("cbc(aes)", options, input));
outputs["decrypt"] = await collect(decrypt("cbc(aes)", options, streamOf(cut(outputs["encrypt"], [65_529, 7]))));
outputs["inPlace"] = await collect(
  streamOf(cut(input.slice(), [99_999])).pipeThrough(new EncryptionStream("ctr(aes)", { ...options, inPlace: true })),
);
const sectors = { key: bytes(64, 2), sectorSize: 4096, sector: 9, engine } as const;
outputs["sectors"] = await collect(encrypt("xts(aes)", sectors, input));
outputs["chacha20"] = await collect(encrypt("chacha20", options, pieces()));

let refused: unknown;
try {
  CipherHandle.open("cbc(aez)", { key, engine });
} catch (error) {
  refused = error;
}
const error = refused instanceof KcapiError ? { code: refused.code, hint: refused.hint } : { code: String(refused) };
const hex = Object.fromEntries(Object.entries(outputs).map(([name, output]) => [name, output.toHex()]));
console.log(JSON.stringify({ engine: encryption.engine, outputs: hex, error }));
