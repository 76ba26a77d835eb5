/**
 * Sources of `openSealed()`: files of each runtime, sizes that cannot be true, and who closes the reader.
 */
import { openAsBlob, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { KcapiError, openSealed, type RangeSource, seal } from "../mod.ts";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
  engine,
  runtime,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes, collect } from "./support/support.ts";

const key = bytes(32, 1);
const options = { key, engine, format: "AES128_CTR_HMAC_SHA256_4KB" } as const;
const plaintext = bytes(10_000);
const sealed = new Uint8Array(await new Blob(await Array.fromAsync(seal(options, plaintext))).arrayBuffer());
const inBun = test.if(runtime === "bun", "needs Bun");
const inNode = test.if(runtime === "node", "needs Node");

function fileOf(content: Uint8Array): string {
  const path = join(tempDir(), "file");
  writeFileSync(path, content);
  return path;
}

/** `Bun.file`, which `deno check` does not know. */
const bunFile = (path: string) => (globalThis as unknown as { Bun: { file(path: string): Blob } }).Bun.file(path);

test("a source over a file descriptor, as the documentation of openSealed() has it", async () => {
  const file = await open(fileOf(sealed));
  try {
    const source = {
      size: (await file.stat()).size,
      async read(start: number, end: number) {
        const bytes = new Uint8Array(end - start);
        for (let at = 0; at < bytes.length;) {
          const { bytesRead } = await file.read(bytes, at, bytes.length - at, start + at);
          if (bytesRead === 0) throw new Error("the file has become shorter");
          at += bytesRead;
        }
        return bytes;
      },
    };
    using reader = await openSealed(source, options);
    assertEquals(await reader.bytes(-5000, -10), plaintext.subarray(5000, -10));
  } finally {
    await file.close();
  }
});

test("an empty source is told as that, and none that is damaged", async () => {
  const nothing = new Uint8Array(0);
  const sources = [new Blob([]), { size: 0, read: () => Promise.resolve(nothing) }];
  if (runtime === "bun") sources.push(bunFile(fileOf(nothing)));
  for (const source of sources) {
    const { code, detail } = await assertRejects(() => openSealed(source, options), KcapiError);
    assertEquals([code, detail], ["EBADMSG", "the source is empty: its size is 0"]);
  }
});

inBun("Bun: a file that is missing is ENOENT, also as a slice", async () => {
  const path = join(tempDir(), "missing");
  for (const source of [bunFile(path), bunFile(path).slice(16)]) {
    const error = await assertRejects(() => openSealed(source, options)) as Error & { code?: string };
    assertEquals(error.code, "ENOENT");
  }
});

inBun("Bun: a slice of a file whose size was not read is refused, and says what to do", async () => {
  const path = fileOf(new Uint8Array([...bytes(16), ...sealed]));
  const error = await assertRejects(() => openSealed(bunFile(path).slice(16), options), TypeError);
  assertStringIncludes(error.message, '"source" expected a size that is known');
  assertStringIncludes(error.message, "size before its slice()");
  const file = bunFile(path);
  assertEquals(file.size, 16 + sealed.length);
  using reader = await openSealed(file.slice(16), options);
  assertEquals(await reader.bytes(), plaintext);
});

inNode("Node: a Blob of a file of 4 GiB or more has a wrong size, which the hint says", async () => {
  const path = fileOf(sealed);
  truncateSync(path, 2 ** 32 + sealed.length - 1); // sparse; a Blob says that it has one byte less than `sealed`
  const blob = await openAsBlob(path);
  assertEquals(blob.size, sealed.length - 1, "mended in Node: the hint can go");
  const error = await assertRejects(() => openSealed(blob, options), KcapiError);
  assertEquals(error.code, "EBADMSG");
  assertStringIncludes(error.hint ?? "", "whose size Node's openAsBlob() gets wrong");
  truncateSync(path, 2 ** 32);
  const empty = await assertRejects(async () => openSealed(await openAsBlob(path), options), KcapiError);
  assertStringIncludes(empty.hint ?? "", "4 GiB");
});

// ---- who closes the reader --------------------------------------------------------------------------------------

/** Whether the reader is closed. */
async function isClosed(reader: Awaited<ReturnType<typeof openSealed>>): Promise<boolean> {
  try {
    await reader.bytes(0, 0);
    return false;
  } catch (error) {
    assertEquals((error as KcapiError).code, "EBADF");
    return true;
  }
}

const opened = () => openSealed(new Blob([sealed]), options);

test("stream({ close: true }) closes the reader at its end, at an error, and when it is cancelled", async () => {
  const ended = await opened();
  assertEquals(await collect(ended.stream({ start: 9000, close: true })), plaintext.subarray(9000));
  assert(await isClosed(ended));

  const cancelled = await opened();
  const stream = cancelled.stream({ close: true });
  assert(!await isClosed(cancelled));
  await stream.cancel();
  assert(await isClosed(cancelled));

  const damaged = sealed.slice();
  damaged[5000]! ^= 1;
  const failed = await openSealed(new Blob([damaged]), options);
  assertEquals((await assertRejects(() => collect(failed.stream({ close: true })), KcapiError)).code, "EBADMSG");
  assert(await isClosed(failed));

  const response = await opened();
  assertEquals(new Uint8Array(await new Response(response.stream({ close: true })).arrayBuffer()), plaintext);
  assert(await isClosed(response));
});

test("of several streams the last one closes the reader, and other reads are not cut off", async () => {
  const reader = await opened();
  const [first, second, third] = [
    reader.stream({ end: 10, close: true }),
    reader.stream({ start: 5000, close: true }),
    reader.stream({ start: -10 }),
  ] as const;
  assertEquals(await collect(first), plaintext.subarray(0, 10));
  assertEquals(await collect(second), plaintext.subarray(5000));
  assert(!await isClosed(reader));
  assertEquals(await collect(third), plaintext.subarray(-10));
  assert(await isClosed(reader));

  const other = await opened();
  const [whole] = await Promise.all([other.bytes(), other.stream({ close: true }).cancel()]);
  assertEquals(whole, plaintext);
  assert(await isClosed(other));
});

test("stream() without close leaves the reader open, and options that are none are refused by name", async () => {
  using reader = await opened();
  await collect(reader.stream());
  assert(!await isClosed(reader));
  for (const bad of [5, null, "x"]) {
    const error = assertThrows(() => reader.stream(bad as unknown as object), TypeError);
    assertStringIncludes(error.message, '"options" expected an object');
  }
  const wrong = { close: "yes" } as unknown as { close: boolean };
  assertStringIncludes(assertThrows(() => reader.stream(wrong), TypeError).message, '"close"');
});

// ---- sources far away -------------------------------------------------------------------------------------------

/** A source that learns its size by `readEnds`, as one over HTTP does. */
function learning(content: Uint8Array<ArrayBuffer>): RangeSource & { signals: AbortSignal[] } {
  let size: number | undefined;
  const signals: AbortSignal[] = [];
  return {
    signals,
    get size() {
      return size;
    },
    read(start, end, { signal }) {
      assert(size !== undefined, "readEnds() comes first");
      signals.push(signal);
      return Promise.resolve(content.slice(start, end));
    },
    readEnds(head, tail) {
      assertEquals(size, undefined, "once");
      size = content.length;
      return Promise.resolve({ size, head: content.slice(0, head), tail: content.slice(size - Math.min(tail, size)) });
    },
  };
}

test("a source may learn its size by its first answer, and is told when nobody waits any more", async () => {
  const source = learning(sealed);
  const reader = await openSealed(source, options);
  assertEquals(await reader.bytes(-5000, -10), plaintext.subarray(5000, -10));
  reader.close();
  assert(source.signals.length > 0);
  const unknown = { size: undefined, read: () => Promise.resolve(new Uint8Array(0)) };
  assertStringIncludes((await assertRejects(() => openSealed(unknown, options), TypeError)).message, "expected a size");
});
