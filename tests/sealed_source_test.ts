/**
 * Sources of `openSealed()`: files of each runtime, and sizes that cannot be true.
 */
import { openAsBlob, truncateSync, writeFileSync } from "node:fs";
import { open } from "node:fs/promises";
import { join } from "node:path";
import { KcapiError, openSealed, seal } from "../mod.ts";
import { assertEquals, assertRejects, assertStringIncludes, engine, runtime, tempDir, test } from "./support/deps.ts";
import { bytes, collect } from "./support/bytes.ts";

const key = bytes(32, 1);
const options = { key, engine, format: "AES128_CTR_HMAC_SHA256_4KB" } as const;
const plaintext = bytes(10_000);
const sealed = await collect(seal(options, plaintext));
const BUN = { runtime: "bun" } as const;
const NODE = { runtime: "node" } as const;

function fileOf(content: Uint8Array): string {
  const path = join(tempDir(), "file");
  writeFileSync(path, content);
  return path;
}

/** `Bun.file`, which `deno check` does not know. */
const bunFile = (path: string) => (globalThis as unknown as { Bun: { file(path: string): Blob } }).Bun.file(path);

test("the source over a file descriptor in the documentation of openSealed() works", async () => {
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

test("an empty source has its own error, and is not reported as damaged", async () => {
  const nothing = new Uint8Array(0);
  const sources = [new Blob([]), { size: 0, read: () => Promise.resolve(nothing) }];
  if (runtime === "bun") sources.push(bunFile(fileOf(nothing)));
  for (const source of sources) {
    const { code, detail } = await assertRejects(() => openSealed(source, options), KcapiError);
    assertEquals([code, detail], ["EBADMSG", "the source is empty: its size is 0"]);
  }
});

test("Bun: a missing file is ENOENT, also as a slice", BUN, async () => {
  const path = join(tempDir(), "missing");
  for (const source of [bunFile(path), bunFile(path).slice(16)]) {
    const error = await assertRejects(() => openSealed(source, options)) as Error & { code?: string };
    assertEquals(error.code, "ENOENT");
  }
});

test("Bun: a slice of a file whose size was not read is refused, and the error says what to do", BUN, async () => {
  const path = fileOf(new Uint8Array([...bytes(16), ...sealed]));
  const error = await assertRejects(() => openSealed(bunFile(path).slice(16), options), TypeError);
  assertStringIncludes(error.message, '"source" expected a size that is known');
  assertStringIncludes(error.message, "size before its slice()");
  const file = bunFile(path);
  assertEquals(file.size, 16 + sealed.length);
  using reader = await openSealed(file.slice(16), options);
  assertEquals(await reader.bytes(), plaintext);
});

test("Node: a Blob of a file of 4 GiB or more has a wrong size, which the hint says", NODE, async () => {
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
