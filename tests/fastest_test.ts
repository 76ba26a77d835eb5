/**
 * `engine: "fastest"`: measured once, remembered, and told.
 */
import { parseAlgorithm } from "../src/algorithms.ts";
import type { Engine, EngineName } from "../src/engines/engine.ts";
import { fastestChoices, fastestEngine } from "../src/engines/fastest.ts";
import { openEngine } from "../src/engines/mod.ts";
import { CipherHandle, decrypt, encrypt, EncryptionStream, KcapiError, probe, SealStream } from "../mod.ts";
import { assert, assertEquals, assertThrows, engine, openFiles, test } from "./support/deps.ts";
import { bytes, collect, opens, reference } from "./support/support.ts";
import { Secret } from "../src/secret.ts";

const KEY = bytes(32, 1);
const IV = bytes(16, 2);

/** A clock that only the fake engines move on, so that what one is slower is certain. */
let time = 0;

function withFakeClock<T>(action: () => T): T {
  const own = Object.getOwnPropertyDescriptor(performance, "now");
  Object.defineProperty(performance, "now", { configurable: true, value: () => time });
  try {
    return action();
  } finally {
    if (own) Object.defineProperty(performance, "now", own);
    else delete (performance as { now?: unknown }).now;
  }
}

/** An engine that does nothing, and takes its time. Fake: which of two is faster must be known. */
function fakeEngine(name: EngineName, delay: number, seen: string[]): Engine {
  const work = () => {
    seen.push(name);
    time += delay;
  };
  return {
    name,
    blockSize: 1,
    ivSize: 16,
    window: 65_536,
    init() {},
    update: work,
    op() {},
    take: (length) => new Uint8Array(length),
    pass(piece) {
      work();
      return piece;
    },
    capacity: () => 65_536,
    reinit: () => fakeEngine(name, delay, seen),
    close: () => void seen.push(`${name} closed`),
  };
}

for (const faster of ["kernel", "userspace"] as const) {
  for (const algorithm of ["ctr(aes)", "xts(aes)", "chacha20"]) {
    test(`${algorithm}: the ${faster} engine is taken where it is faster, measured once, and both are closed`, () => {
      const seen: string[] = [];
      const open = (name: EngineName) => fakeEngine(name, name === faster ? 0.1 : 0.2, seen);
      const keySize = 1000 + (faster === "kernel" ? 1 : 2); // no other test has this one
      const parsed = parseAlgorithm(algorithm);
      const start = time;
      assertEquals(withFakeClock(() => fastestEngine(parsed, keySize, open)), faster);
      assert(time - start <= 2 + 0.6, "2 ms, and what came before them");
      assertEquals(seen.filter((what) => what.endsWith("closed")).sort(), ["kernel closed", "userspace closed"]);
      assert(seen.includes("kernel") && seen.includes("userspace"));
      const rounds = seen.length;
      assertEquals(fastestEngine(parsed, keySize, open), faster);
      assertEquals(seen.length, rounds);
      const choice = fastestChoices().find((each) => each.algorithm === algorithm && each.keySize === keySize)!;
      assertEquals(choice.engine, faster);
      assert(choice.rates![faster] > choice.rates![faster === "kernel" ? "userspace" : "kernel"]);
    });
  }
}

test("an engine that cannot serve the cipher loses unmeasured; where neither can, nothing is remembered", () => {
  const parsed = parseAlgorithm("ctr(aes)");
  for (const only of ["kernel", "userspace"] as const) {
    const seen: string[] = [];
    const keySize = only === "kernel" ? 2001 : 2002;
    const open = (name: EngineName) => name === only ? fakeEngine(name, 0, seen) : undefined;
    assertEquals(fastestEngine(parsed, keySize, open), only);
    assertEquals(seen, [`${only} closed`]);
    assertEquals(fastestChoices().find((each) => each.keySize === keySize)?.rates, null);
  }
  assertEquals(fastestEngine(parsed, 2003, () => undefined), undefined);
  assertEquals(fastestChoices().some(({ keySize }) => keySize === 2003), false);
});

test("an engine whose measurement fails is closed, and so is the other", () => {
  const seen: string[] = [];
  const open = (name: EngineName) => ({
    ...fakeEngine(name, 0, seen),
    pass() {
      throw new KcapiError("EIO", "pass", "broken");
    },
  });
  assertThrows(() => fastestEngine(parseAlgorithm("ctr(aes)"), 2004, open), KcapiError, "broken");
  assertEquals(seen.sort(), ["kernel closed", "userspace closed"]);
});

test("fastest gives the right bytes, by one of the two engines, the same each time, and leaves nothing open", async () => {
  const input = bytes(300_000);
  const options = { key: KEY, iv: IV, engine: "fastest" } as const;
  const before = openFiles();
  const expected = reference("encrypt", "ctr(aes)", options, input);
  const iterable = encrypt("ctr(aes)", options, input);
  const name = iterable.engine;
  assert(name === "kernel" || name === "userspace");
  assertEquals(await collect(iterable), expected);
  assertEquals(await collect(decrypt("ctr(aes)", options, expected)), input);
  const stream = new EncryptionStream("ctr(aes)", options);
  assertEquals(stream.engine, name);
  await stream.writable.abort();
  using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine: "fastest" });
  assertEquals(handle.engine, name);
  handle.close();
  const sealing = new SealStream({ key: KEY, engine: "fastest" });
  assertEquals(sealing.engine, name);
  await sealing.writable.abort();
  assertEquals(openFiles(), before);
});

test("a cipher that one engine has is that one's, one that none has is the error of auto", () => {
  const isKernel = engine === "kernel" && opens("pcbc(aes)");
  if (isKernel) {
    using handle = CipherHandle.open("pcbc(aes)", { key: KEY, engine: "fastest" });
    assertEquals(handle.engine, "kernel");
  } else {
    assertThrows(() => CipherHandle.open("pcbc(aes)", { key: KEY, engine: "fastest" }), KcapiError);
  }
  const errorOf = (engine: "auto" | "fastest") =>
    assertThrows(() => CipherHandle.open("cbc(nothing)", { key: KEY, engine }), KcapiError).message;
  assertEquals(errorOf("fastest"), errorOf("auto"));
});

test("a key of a length that the engines refuse is their error, and zeroed", () => {
  const key = Secret.from(bytes(33));
  assertThrows(() => openEngine(parseAlgorithm("cbc(nothing2)"), key, "fastest"), KcapiError);
  assert(key.isDisposed);
});

test("probe() tells what fastest takes for the usual ciphers, and what was measured", () => {
  const { fastest, ciphers } = probe();
  for (const algorithm of ["cbc(aes)", "ctr(aes)", "xts(aes)"]) {
    const choice = fastest.find((each) => each.algorithm === algorithm && each.keySize < 1000)!;
    const both = ciphers.kernel.includes(algorithm) && ciphers.userspace.includes(algorithm);
    assertEquals(choice.rates !== null, both, algorithm);
    if (!choice.rates) continue;
    const other = choice.engine === "kernel" ? "userspace" : "kernel";
    assert(choice.rates[choice.engine] >= choice.rates[other], JSON.stringify(choice));
  }
});
