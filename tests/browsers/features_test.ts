/**
 * Features that browsers lack and the product must do without. A test is skipped where its feature is missing, so that
 * the summary of `tests/browsers/run` shows what each browser lacks.
 */
import { bytes } from "../support/bytes.ts";
import { assert, assertEquals, assertRejects, test } from "./deps.ts";

const has = (feature: string, isThere: boolean) => ({ needs: { [feature]: isThere } });

test("ReadableStream.from() makes a stream", has("ReadableStream.from", "from" in ReadableStream), async () => {
  const reader = (ReadableStream as unknown as { from<T>(source: T[]): ReadableStream<T> }).from([1, 2]).getReader();
  assertEquals([(await reader.read()).value, (await reader.read()).value, (await reader.read()).done], [1, 2, true]);
});

test(
  "a ReadableStream is async-iterable",
  has("async iteration of ReadableStream", Symbol.asyncIterator in ReadableStream.prototype),
  async () => {
    const read: number[] = [];
    for await (const byte of new Blob([new Uint8Array(3)]).stream()) read.push(byte.length);
    assertEquals(read.reduce((sum, length) => sum + length, 0), 3);
  },
);

test("Symbol.dispose is there", has("Symbol.dispose", "dispose" in Symbol), () => {
  assertEquals(typeof Symbol.dispose, "symbol");
});

test("setImmediate runs a function", has("setImmediate", "setImmediate" in globalThis), async () => {
  await new Promise<void>((resolve) => void setImmediate(() => resolve()));
});

/** Whether a stream can be transferred to another thread. */
function transfersStreams(): boolean {
  try {
    const { readable } = new TransformStream();
    return structuredClone(readable, { transfer: [readable] }) instanceof ReadableStream;
  } catch {
    return false;
  }
}

test("a ReadableStream can be transferred", has("transfer of streams", transfersStreams()), () => {});

/** Whether there are streams of `type: "bytes"`. */
function hasByteStreams(): boolean {
  try {
    return new ReadableStream({ type: "bytes" }) instanceof ReadableStream;
  } catch {
    return false;
  }
}

test("a readable byte stream can be made", has("byte streams", hasByteStreams()), () => {});

test("bytes pass through a TransformStream", async () => {
  const output = new Blob([bytes(100_000)]).stream().pipeThrough(new TransformStream());
  assertEquals(new Uint8Array(await new Response(output).arrayBuffer()), bytes(100_000));
});

test("ArrayBuffer.transfer() detaches the buffer", () => {
  const buffer = new ArrayBuffer(8);
  assertEquals(buffer.transfer().byteLength, 8);
  assert(buffer.detached);
});

test("AbortSignal.any(), Promise.withResolvers() and Array.fromAsync() are there", async () => {
  const abort = new AbortController();
  const signal = AbortSignal.any([abort.signal]);
  abort.abort(new Error("enough"));
  assertEquals(signal.reason.message, "enough");
  const { promise, resolve } = Promise.withResolvers<number>();
  resolve(1);
  assertEquals(await Array.fromAsync([promise]), [1]);
});

test("WeakRef and FinalizationRegistry are there", () => {
  const registry = new FinalizationRegistry(() => {});
  const target = {};
  registry.register(target, 1);
  assertEquals(new WeakRef(target).deref(), target);
});

test("an HKDF key that is not extractable derives AES and HMAC keys, and cannot be read", async () => {
  const { subtle } = crypto;
  const key = await subtle.importKey("raw", new Uint8Array(32), "HKDF", false, ["deriveKey", "deriveBits"]);
  const hkdf = { name: "HKDF", hash: "SHA-256", salt: new Uint8Array(32), info: new Uint8Array(0) };
  const aes = await subtle.deriveKey(hkdf, key, { name: "AES-GCM", length: 256 }, false, ["encrypt"]);
  assertEquals(aes.extractable, false);
  await assertRejects(() => subtle.exportKey("raw", key));
  assertEquals((await subtle.deriveBits(hkdf, key, 512)).byteLength, 64);
});

test(
  "IndexedDB keeps a key that is not extractable",
  has("IndexedDB", "indexedDB" in globalThis),
  async () => {
    const key = await crypto.subtle.importKey("raw", new Uint8Array(32), "HKDF", false, ["deriveKey"]);
    const opening = indexedDB.open("keys");
    opening.onupgradeneeded = () => opening.result.createObjectStore("keys");
    const database = await settled(opening);
    await settled(database.transaction("keys", "readwrite").objectStore("keys").put(key, "key"));
    const kept: CryptoKey = await settled(database.transaction("keys").objectStore("keys").get("key"));
    assertEquals([kept.algorithm.name, kept.extractable, [...kept.usages]], ["HKDF", false, ["deriveKey"]]);
    database.close();
  },
);

function settled<T>(request: IDBRequest<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}
