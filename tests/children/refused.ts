/**
 * Opens each engine where the system refuses something, and prints what came of it as JSON: the engine that ran, or the
 * error. The bytes are checked here.
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
  // From within, when the runtime has those it needs for itself, and libkcapi is loaded.
  CipherHandle.open(algorithm, { key }).close();
  const filler = () => openSync("/dev/null", "r");
  const free = filler(); // stays free, to count by; a runtime may have more than 16 itself
  const limit = Math.max(16, free + 1);
  while (filler() < limit);
  // Not before this process has opened all that it needs to wait for it.
  const lower = `read line; exec prlimit --pid ${process.pid} --nofile=${limit}`;
  execFileSync("sh", ["-c", lower], { input: "now\n" });
  closeSync(free);
}

const outcomes: Record<string, Outcome> = {};
await use("userspace"); // what the runtime opens for itself, it has open now
for (const engine of ["auto", "kernel", "userspace"] as const) {
  const files = openFiles();
  outcomes[engine] = await use(engine);
  if (openFiles() !== files) outcomes[engine] = { wrong: `${openFiles() - files} descriptors are left open` };
}
console.log(JSON.stringify(outcomes));
process.exit(0);
