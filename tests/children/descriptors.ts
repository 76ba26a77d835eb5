/**
 * Uses up the descriptors of this process, which are few (`ulimit -n`), while streams are open. Prints, as JSON, what the
 * streams gave and what became of those that found no descriptor.
 */
import { closeSync, openSync } from "node:fs";
import { CipherHandle, EncryptionStream, KcapiError } from "../../mod.ts";
import { type Bytes, bytes, collect, concat, streamOf } from "../support/bytes.ts";

const { key, iv } = { key: bytes(16, 2), iv: bytes(16, 3) };
const engine = "kernel";
const keyed = CipherHandle.open("ctr(aes)", { key, engine });
const input = (i: number) => bytes(1000, i + 1);

/** As many streams as there are descriptors for; each has sent the first half of its input. */
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

// With every number of free descriptors, each way to open a cipher works or tells what is missing.
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
  // What the streams above left free is few; a stream that was let go of gives three.
  if (fillers.length === 0) handles.pop()!.close();
  else closeSync(fillers.pop()!);
  outcomes.push(ways.map((way) => outcome(way)));
}

// The others go on.
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
