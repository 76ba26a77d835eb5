/**
 * Opens each engine on a system that refuses something. Prints as JSON the engine that ran, or the error. This program
 * checks the output itself.
 */
import { execFileSync } from "node:child_process";
import { closeSync, openSync, readdirSync } from "node:fs";
import process from "node:process";
import { CipherHandle, EncryptionStream, KcapiError } from "../../mod.ts";
import { bytes, collect, cut, reference, streamOf } from "../support/support.ts";

export type Outcome = { engine: string } | { code: string; operation: string; hint?: string } | { wrong: string };

const algorithm = process.argv[2] ?? "ctr(aes)";
const [key, iv, input] = [bytes(32, 2), bytes(16, 3), bytes(300_001)];
const counted = process.argv[3] !== "uncounted";
const openFiles = () => counted ? readdirSync("/proc/self/fd").length : 0;

async function use(engine: "auto" | "kernel" | "userspace"): Promise<Outcome> {
  try {
    using handle = CipherHandle.open(algorithm, { key, engine });
    if (algorithm !== "ctr(aes)") return { engine: handle.engine };
    handle.streamInitEnc(iv);
    const produce = async () => {
      for (const piece of cut(input, [3, 70_001, 64, 100_000])) await handle.streamUpdate(piece);
      await handle.streamUpdateLast();
    };
    const [output] = await Promise.all([collect(handle.streamOp()), produce()]);
    const expected = reference("encrypt", algorithm, { key, iv }, input);
    if (output.toHex() !== expected.toHex()) return { wrong: "the handle's bytes" };
    const stream = new EncryptionStream(algorithm, { key, iv, engine });
    const streamed = await collect(streamOf(cut(input, [3, 70_001])).pipeThrough(stream));
    return streamed.toHex() === expected.toHex() ? { engine: handle.engine } : { wrong: "the stream's bytes" };
  } catch (error) {
    if (!(error instanceof KcapiError)) return { wrong: String(error) };
    const { code, operation, hint } = error;
    return { code, operation, ...(hint !== undefined && { hint }) };
  }
}

if (process.argv[3] === "limited") {
  // The limit is set here, after the runtime has opened its own descriptors and libkcapi is loaded.
  CipherHandle.open(algorithm, { key }).close();
  const filler = () => openSync("/dev/null", "r");
  const free = filler(); // The lowest free descriptor. A runtime may use more than 16 itself.
  const limit = Math.max(16, free + 1);
  while (filler() < limit);
  // After this process has opened everything that it needs to wait for the command.
  const lower = `read line; exec prlimit --pid ${process.pid} --nofile=${limit}`;
  execFileSync("sh", ["-c", lower], { input: "now\n" });
  closeSync(free);
}

const outcomes: Record<string, Outcome> = {};
await use("userspace"); // After this, the runtime has opened its own descriptors.
for (const engine of ["auto", "kernel", "userspace"] as const) {
  const files = openFiles();
  outcomes[engine] = await use(engine);
  if (openFiles() !== files) outcomes[engine] = { wrong: `${openFiles() - files} descriptors are left open` };
}
console.log(JSON.stringify(outcomes));
process.exit(0);
