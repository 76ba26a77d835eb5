/**
 * `httpSource()` over the network of a browser: relative URLs, and servers of another origin (CORS). The tests of
 * `http_answers_test.ts` also run in browsers.
 */
import { KcapiError } from "../../src/errors.ts";
import { httpSource } from "../../src/sources/http.ts";
import { bytes } from "../support/bytes.ts";
import { assertEquals, assertRejects, assertStringIncludes, runtime, test } from "./deps.ts";

const PAGE = { needs: { "a server of its own": runtime !== "workerd" } };
const content = bytes(100_000, 7);

/** The other origin. */
const other = async () => await (await fetch("/other-origin")).text();

async function checkFile(url: string): Promise<void> {
  const source = httpSource(url, { retries: 0 });
  const ends = { size: content.length, head: content.slice(0, 100), tail: content.slice(-200) };
  assertEquals(await source.readEnds(100, 200), ends);
  const starts = Array.from({ length: 10 }, (_, i) => 9000 * i);
  const parts = await Promise.all(starts.map((start) => source.read(start, start + 5000)));
  for (const [i, part] of parts.entries()) assertEquals(part, content.slice(9000 * i, 9000 * i + 5000));
}

test("httpSource reads a file of the page's origin, by a relative URL", PAGE, async () => {
  await checkFile("/file");
});

test("httpSource reads a file of another origin that allows it", PAGE, async () => {
  await checkFile(`${await other()}/file-allowed`);
});

test("httpSource says which headers another origin must expose", PAGE, async () => {
  const source = httpSource(`${await other()}/file-not-exposed`, { retries: 0 });
  const { code, hint } = await assertRejects(() => source.read(0, 10), KcapiError);
  assertEquals(code, "EIO");
  assertStringIncludes(hint ?? "", "Access-Control-Expose-Headers: Content-Range, ETag");
});

test("httpSource says that another origin may not allow requests of the page", PAGE, async () => {
  for (const path of ["/file", "/missing"]) {
    const source = httpSource(`${await other()}${path}?s3cr3t`, { retries: 1 });
    const { code, hint, message } = await assertRejects(() => source.read(0, 10), KcapiError);
    assertEquals([code, message.includes("s3cr3t")], ["EIO", false]);
    assertStringIncludes(hint ?? "", "CORS");
  }
});
