/**
 * Leaves writes, reads and loops pending forever. The process must still end. Prints its progress. With the argument
 * `workers`, streams use a pool.
 */
import process from "node:process";
import { CipherHandle, encrypt, EncryptionStream, WorkerPool } from "../../mod.ts";

const engine = process.env.KCAPI_TEST_ENGINE === "kernel" ? "kernel" : "userspace";
const key = { key: new Uint8Array(16), engine } as const;
const pool = process.argv[2] === "workers" ? new WorkerPool(2) : undefined;
const options = { ...key, iv: new Uint8Array(16), pool };
const streams = Array.from({ length: 3 }, () => new EncryptionStream("ctr(aes)", options));
const [large, small, read] = streams.map(({ writable }) => writable.getWriter());
large!.write(new Uint8Array(1_000_000));
await small!.write(new Uint8Array(100));
await read!.write(new Uint8Array(5));
streams[2]!.readable.getReader().read();
encrypt("ctr(aes)", options, new ReadableStream()).next();
const handle = CipherHandle.open("ctr(aes)", key);
handle.streamInitEnc(options.iv);
handle.streamOp().next();
process.on("exit", () => streams.length === 3 && handle.ivSize > 0 && console.log("ended")); // Keeps references to all of them.
