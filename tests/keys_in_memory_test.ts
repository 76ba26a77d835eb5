/**
 * No key is left in the memory of a process once the stream that used it has ended, in whatever way: neither a copy of
 * the user's key nor a key that was derived for a sealed stream. Another process searches the memory.
 */
import { spawn } from "node:child_process";
import { hkdfSync } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, engine, runtime as theRuntime, runtimeArgv, test } from "./support/deps.ts";
import { fillKey, type KeyUse } from "./support/keys_in_memory.ts";
import { findEach } from "./support/process_memory.ts";
import { type Bytes, bytes } from "./support/support.ts";

/** A key that is searched for, whole: AES itself leaves halves of keys in registers and so on stacks. */
interface Needle {
  readonly what: string;
  readonly piece: Bytes;
}

function needlesOf({ of, by, seed, salt }: KeyUse): Needle[] {
  const key = bytes(32);
  fillKey(key, seed);
  const needle = (name: string, bytes: Bytes): Needle => ({ what: `${name}: ${of}, ${by}`, piece: bytes });
  const given = needle("the user's key", key);
  if (salt === undefined) return [given];
  const derived = new Uint8Array(hkdfSync("sha256", key, Uint8Array.fromHex(salt), new Uint8Array(0), 64));
  const keys = [needle("the AES key", derived.subarray(0, 32)), needle("the MAC key", derived.subarray(32))];
  return [given, ...(of.includes("GCM") ? keys.slice(0, 1) : keys)];
}

async function keysLeft(workers: number): Promise<string[]> {
  const child = fileURLToPath(new URL("./children/keys_in_memory.ts", import.meta.url));
  const [program, ...args] = [...runtimeArgv, child, engine, `${workers}`];
  const running = spawn(program!, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => running.on("close", resolve));
  const lines = createInterface(running.stdout)[Symbol.asyncIterator]();
  try {
    const uses: KeyUse[] = JSON.parse(String((await lines.next()).value));
    const needles = uses.flatMap(needlesOf);
    assertEquals(needles.length, 36 + 2 * 10 + 2 * 5); // of 7 kinds with 5 ends, and the control
    const found = findEach(running.pid!, needles.map(({ piece }) => piece));
    running.stdin.end();
    return needles.filter((_, i) => found[i]).map(({ what }) => what);
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
}

// Deno's own AES and HMAC leave keys behind: of 200 that only node:crypto was given, ctr left 3 and HMAC 41.
const runtime = ["bun", "node"] as const;

for (const workers of [0, 2]) {
  test(
    `no key is in memory after its stream has ended, ${workers ? "with" : "without"} Workers`,
    { runtime },
    async () => {
      const left = await keysLeft(workers);
      const control = "the user's key: a key that is held, nothing";
      assert(left.includes(control), "the search finds a key that is held");
      const isDropped = (what: string) => what.endsWith(", garbage collection");
      assertEquals(left.filter((what) => what !== control && !isDropped(what)), []);
      // Bun's collector may take a word on the stack for a stream. With Workers a dropped one may be collected later.
      if (workers === 0 && theRuntime === "node") assertEquals(left.filter(isDropped), []);
    },
  );
}
