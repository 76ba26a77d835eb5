/**
 * Uses up the descriptors of this process (with a low `ulimit -n`) while streams are open. Prints as JSON the output of
 * the streams, and the errors of those that had no descriptor.
 */
import { closeSync, openSync } from "node:fs";
import { CipherHandle, EncryptionStream, KcapiError } from "../../mod.ts";
import { type Bytes, bytes, collect, concat, streamOf } from "../support/bytes.ts";

const { key, iv } = { key: bytes(16, 2), iv: bytes(16, 3) };
const engine = "kernel";
const keyed = CipherHandle.open("ctr(aes)", { key, engine });
const input = (i: number) => bytes(1000, i + 1);

/** Opens streams until no descriptor is left. Each has sent the first half of its input. */
const handles: CipherHandle[] = [];
let refusal: unknown;
while (!refusal) {
  let handle: CipherHandle | undefined;
  try {
    handle = keyed.reinit();
    handle.streamInitEnc(iv);
    await handle.streamUpdate(input(handles.length).subarray(0, 500));
    handles.push(handle);
  } catch (error) {
    handle?.close();
    refusal = error;
  }
}

// With each number of free descriptors, every way to open a cipher works or throws EMFILE.
const fillers: number[] = [];
for (;;) {
  try {
    fillers.push(openSync("/dev/null", "r"));
  } catch {
    break;
  }
}
const ways: (() => unknown)[] = [
  () => CipherHandle.open("ctr(aes)", { key, engine }).close(),
  () => CipherHandle.open("ctr(aes)", { key, engine: "auto" }).close(),
  () => keyed.reinit().close(),
  () => {
    using handle = keyed.reinit();
    handle.streamInitEnc(iv);
  },
  () => void new EncryptionStream("ctr(aes)", { key, iv, engine }).readable.cancel(),
];
function outcome(way: () => unknown): string {
  try {
    way();
    return "opened";
  } catch (error) {
    return error instanceof KcapiError ? error.code : String(error);
  }
}
const outcomes = [ways.map((way) => outcome(way))];
for (let free = 1; free <= 8; free++) {
  // The streams leave only a few descriptors free. Each closed stream frees three.
  if (fillers.length === 0) handles.pop()!.close();
  else closeSync(fillers.pop()!);
  outcomes.push(ways.map((way) => outcome(way)));
}

// The other streams continue.
const outputs: Bytes[] = [];
for (const [i, handle] of handles.entries()) {
  await handle.streamUpdateLast(input(i).subarray(500));
  outputs.push(await collect(handle.streamOp()));
  handle.close();
}
const again = new EncryptionStream("ctr(aes)", { key, iv, engine });
outputs.push(await collect(streamOf([input(0)]).pipeThrough(again)));
keyed.close();

const code = refusal instanceof KcapiError ? refusal.code : String(refusal);
console.log(JSON.stringify({ code, streams: handles.length, outcomes, output: concat(outputs).toHex() }));
