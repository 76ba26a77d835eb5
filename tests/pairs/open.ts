/** Opens the files of each runtime, in one chunk, in small chunks, and by ranges. */
import { openSealed, unseal, UnsealStream } from "../../mod.ts";
import { collect, cut, streamOf } from "../support/bytes.ts";
import { assertEquals, test } from "../support/deps.ts";
import { CASES, KEY, NAME, plaintextOf, RUNTIMES } from "./cases.ts";
import sealed from "./sealed_files.ts";

const expected = CASES.flatMap(({ format, sizes }) => sizes.map((size) => `${format}, ${size} bytes`));

for (const runtime of RUNTIMES) {
  const files = sealed.files.filter(({ by }) => by === runtime);
  const needs = { [runtime]: !sealed.missing.includes(runtime) };
  test(`opens what ${runtime} has sealed`, { engine: "userspace", needs }, async () => {
    assertEquals(files.map(({ format, size }) => `${format}, ${size} bytes`), expected);
    for (const { format, size, data } of files) {
      const options = { key: KEY, associatedData: NAME, format };
      const file = Uint8Array.from(atob(data), (character) => character.charCodeAt(0));
      const plaintext = plaintextOf(size);
      assertEquals(await collect(unseal(options, file)), plaintext);
      assertEquals(await collect(streamOf(cut(file, [999])).pipeThrough(new UnsealStream(options))), plaintext);
      const reader = await openSealed(new Blob([file]), options);
      assertEquals(await reader.bytes(-5000, -1), plaintext.slice(-5000, -1));
      reader.close();
    }
  });
}
