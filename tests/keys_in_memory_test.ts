/**
 * No key is left in the memory of a process once what used it has ended or was collected: neither a copy of the user's
 * key nor a key that was derived for a sealed stream. The same for plaintext that a handle gave, or
 * that was held and not verified. Another process searches the memory.
 */
import { spawn } from "node:child_process";
import { createCipheriv, hkdfSync } from "node:crypto";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { assert, assertEquals, engine, runtime, runtimeArgv, test } from "./support/deps.ts";
import { fillKey, type KeyUse, SECRETS } from "./support/keys_in_memory.ts";
import { findEach } from "./support/process_memory.ts";
import { type Bytes, bytes, concat, cut, reference } from "./support/support.ts";

/**
 * A key that is searched for, whole: AES itself leaves halves of keys in registers and so on stacks. Freed memory whose
 * front was overwritten is not found.
 */
interface Needle {
  readonly what: string;
  readonly piece: Bytes;
}

const CONTROL = "the user's key: a key that is held, nothing";

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

/**
 * Deno's `node:crypto` (RustCrypto) does not zero the keys of ciphers and of HMAC when it frees them: of 20 keys that
 * nothing else was given, aes-256-ctr left 1, and of 200 HMAC left 41. Node's and Bun's leave none.
 */
function isLeftByDeno(what: string): boolean {
  if (runtime !== "deno") return false;
  const isDerived = !what.startsWith("the user's key");
  if (engine === "kernel") {
    return what.startsWith("the MAC key") || isDerived && what.includes("GCM") || what.includes("gcm(aes)");
  }
  return isDerived || !/[sS]eal|Secret/.test(what); // of sealed streams, the user's key is what HMAC authenticates
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
    // Streams with 6 ends, iterables with 4, readers with 3; handles or pools with 2; secrets; and the control.
    const given = 6 * (workers ? 6 : 9) + 4 * 6 + 3 * (workers ? 2 : 3) + 2 + SECRETS + 1;
    const derived = (6 + 6 + 4 + 4 + 3) * (2 + 1) + (workers ? 2 * 2 : 0);
    assertEquals(needles.length, given + derived);
    const places = findEach(running.pid!, needles.map(({ piece }) => piece));
    running.stdin.end();
    return needles.filter((_, i) => places[i]!.length > 0).map(({ what }) => what);
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
}

for (const workers of [0, 2]) {
  const name = `no key is in memory after its use has ended or was collected, ${workers ? "with" : "without"} Workers`;
  test(name, async () => {
    const left = await keysLeft(workers);
    assert(left.includes(CONTROL), "the search finds a key that is held");
    assertEquals(left.filter((what) => what !== CONTROL && !isLeftByDeno(what)), []);
  });
}

test("plaintext that was received and zeroed is not in memory after close()", { engine: "kernel" }, async () => {
  const size = 1_024;
  const plaintexts = [0, 1, 2].map((i) => {
    const plaintext = bytes(size);
    fillKey(plaintext, 1_000 + i);
    return plaintext;
  });
  const key = new Uint8Array(20).fill(1);
  const nonce = new Uint8Array([1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 1]);
  const ivs = [new Uint8Array(16).fill(2), nonce, new Uint8Array(16).fill(2)];
  const messages = plaintexts.map((plaintext, i) =>
    reference("encrypt", "ctr(aes)", { key: key.slice(0, 16), iv: ivs[i] }, plaintext).toHex()
  );
  const child = fileURLToPath(new URL("./children/plaintext_in_memory.ts", import.meta.url));
  const [program, ...args] = [...runtimeArgv, child, engine, messages.join("")];
  const running = spawn(program!, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => running.on("close", resolve));
  try {
    const line = await createInterface(running.stdout)[Symbol.asyncIterator]().next();
    assertEquals(line.value, "decrypted");
    const pieces = plaintexts.flatMap((plaintext) => [...cut(plaintext, [32])]);
    const places = findEach(running.pid!, pieces);
    const found = plaintexts.map((_, i) =>
      places.slice(i * size / 32, (i + 1) * size / 32).filter((at) => at.length > 0)
    );
    // A list of 32 entries, a message in parts, and one that the child holds.
    assertEquals(found.map(({ length }) => length), [0, 0, size / 32]);
    running.stdin.end();
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
});

test("no plaintext of AES-GCM that was not verified is in memory", { engine: "userspace" }, async () => {
  const plaintexts = Array.from({ length: 7 }, (_, i) => {
    const plaintext = bytes(3_008);
    fillKey(plaintext, 2_000 + i);
    return plaintext;
  });
  const messages = plaintexts.map((plaintext) => {
    const cipher = createCipheriv("aes-256-gcm", new Uint8Array(32).fill(1), new Uint8Array(12).fill(2));
    return concat([cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
  });
  const child = fileURLToPath(new URL("./children/gcm_in_memory.ts", import.meta.url));
  const [program, ...args] = [...runtimeArgv, child, concat(messages).toHex()];
  const running = spawn(program!, args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => running.on("close", resolve));
  try {
    const line = await createInterface(running.stdout)[Symbol.asyncIterator]().next();
    assertEquals(line.value, "decrypted");
    const places = findEach(running.pid!, plaintexts.flatMap((plaintext) => [...cut(plaintext, [32])]));
    const found = plaintexts.map((_, i) => places.slice(i * 94, (i + 1) * 94).filter((at) => at.length > 0).length);
    assertEquals(found, [0, 0, 0, 0, 0, 0, 94]); // the last one is verified, and held
    running.stdin.end();
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
});
