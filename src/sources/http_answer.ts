/**
 * The answer to an HTTP range request (RFC 9110, sections 14 and 15): its checks, and its body.
 *
 * @module
 */

import { type Bytes, toUint8Array } from "../bytes.ts";
import { type ErrorCode, KcapiError } from "../errors.ts";
import { retryAfterOf, TransientError } from "./retry.ts";

/** The bytes from `start` to before `end`, or the last ones. */
export type AskedRange = { readonly start: number; readonly end: number } | { readonly last: number };

/** What identifies a version of a file. */
export interface Version {
  /** Bytes in all. */
  readonly size: number;
  readonly etag: string | null;
  readonly lastModified: string | null;
}

/** The bytes of a range, fewer if the file ends before it, and the size of the file. */
export interface Answer {
  readonly bytes: Bytes;
  readonly size: number;
}

/**
 * The server does not support a suffix range (`bytes=-N`). Azure's ignores the range, s3rver answers with the first
 * bytes.
 */
export class NoSuffixError extends Error {}

const NO_SUFFIX = [200, 400, 416];

/** The value of the header Range. */
export function rangeHeader(range: AskedRange): string {
  return "last" in range ? `bytes=-${range.last}` : `bytes=${range.start}-${range.end - 1}`;
}

/** A URL for messages. The query may have the signature of a presigned URL. */
function placeOf({ origin, pathname }: URL): string {
  return origin + pathname;
}

/** Creates an error about a URL. */
export type Fail = (code: ErrorCode, detail: string, hint?: string) => KcapiError;

export function failAt(url: URL): Fail {
  return (code, detail, hint) => new KcapiError(code, "httpSource", `${placeOf(url)}: ${detail}`, { hint });
}

/** Whether an ETag can be sent in If-Match, which compares strongly. */
export function isStrong(etag: string | null): etag is string {
  return etag !== null && /^"[^"]*"$/.test(etag);
}

/**
 * What differs between the version of the first answer and that of a later one. A strong ETag decides alone. A weak one
 * and a date, which has whole seconds, must both be the same.
 */
export function differenceOf(first: Version, later: Version): string | undefined {
  if (first.size !== later.size) return `it had ${first.size} bytes, and has ${later.size} now`;
  if (first.etag !== later.etag) return "its ETag is another one";
  if (!isStrong(first.etag) && first.lastModified !== later.lastModified) return "its Last-Modified is another one";
  return undefined;
}

/**
 * Checks an answer, and reads its body.
 *
 * @param accept Called with the version before the body is read. Throws if it is another one than before.
 * @throws {TransientError} If the next attempt may succeed.
 * @throws {KcapiError} If it will not.
 */
export async function readAnswer(
  response: Response,
  range: AskedRange,
  fail: Fail,
  accept: (version: Version) => void,
): Promise<Answer> {
  let body: ReadableStreamDefaultReader<unknown> | undefined;
  try {
    checkStatus(response, range, fail);
    const version = (size: number): Version => ({
      size,
      etag: response.headers.get("etag"),
      lastModified: response.headers.get("last-modified"),
    });
    if (response.status !== 206) {
      accept(version(0));
      return { bytes: new Uint8Array(0), size: 0 };
    }
    const { length, size } = checkRange(response, range, fail);
    accept(version(size));
    body = response.body?.getReader();
    return { bytes: await readBody(body, length, fail), size };
  } finally {
    // Has no effect on a body that was read. Not awaited: a server may never send the rest.
    void (body ?? response.body)?.cancel().catch(() => {});
  }
}

/** @throws Unless the status is 206, or the answer is that of an empty file. */
function checkStatus(response: Response, range: AskedRange, fail: Fail): void {
  const { status, headers } = response;
  const answered = `status ${status}`;
  if (status === 429 || status >= 500) {
    throw new TransientError(fail("EIO", `the server answered with ${answered}`), retryAfterOf(headers));
  }
  if (status === 401 || status === 403 || status === 407) {
    throw fail("EACCES", `the server refused access (${answered})`, "a presigned URL or a token may have expired");
  }
  if (status === 404 || status === 410) throw fail("ENOENT", `there is no such file (${answered})`);
  const isPage = /^text\/html\b/i.test(headers.get("content-type") ?? "");
  if (isPage && response.redirected && response.ok) {
    const page = `${placeOf(new URL(response.url))}, which is a page (text/html)`;
    throw fail("EACCES", `the server redirected to ${page}`, "a login may be needed: set the headers");
  }
  if (status === 412) throw fail("EIO", "the file has changed since it was opened (status 412)");
  if ("last" in range && NO_SUFFIX.includes(status)) throw new NoSuffixError();
  if (isEmptyFile(response, range)) return;
  if (status === 200 && isPage) throw fail("EIO", "the server answered with a page (text/html) instead of the file");
  if (status === 200) throw fail("EIO", "the server does not support ranges: it answered with the whole file");
  if (status === 416) throw fail("EIO", `the file ends before the requested range (${answered})`);
  if (status !== 206) throw fail("EIO", `the server answered with ${answered}`);
}

/** Whether the answer to the first bytes says that there are none: Content-Range has no form for no bytes. */
function isEmptyFile({ status, headers }: Response, range: AskedRange): boolean {
  if ("last" in range || range.start !== 0) return false;
  return status === 200 && headers.get("content-length") === "0" ||
    status === 416 && headers.get("content-range") === "bytes */0";
}

/** @returns The length of the body, and the size of the file. */
function checkRange(response: Response, range: AskedRange, fail: Fail): { length: number; size: number } {
  const { headers } = response;
  const coding = headers.get("content-encoding") ?? "";
  if (/\b(?:gzip|deflate|br|zstd|compress)\b/i.test(coding)) {
    throw fail("EIO", `the server compressed the answer (${coding})`, "turn compression off for this file");
  }
  if (/^multipart\/byteranges\b/i.test(headers.get("content-type") ?? "")) {
    throw fail("EIO", "the server answered with several ranges (multipart/byteranges) to a request of one");
  }
  const text = headers.get("content-range");
  if (text === null) {
    const hint = response.type === "cors"
      ? "the server must allow this page to read it: Access-Control-Expose-Headers: Content-Range, ETag"
      : undefined;
    throw fail("EIO", "the answer has no Content-Range", hint);
  }
  const [first, last, size] = /^bytes (\d+)-(\d+)\/(\d+)$/i.exec(text)?.slice(1).map(Number) ?? [];
  const [start, end] = "last" in range ? [Math.max(0, size! - range.last), size!] : [range.start, range.end];
  if (!Number.isSafeInteger(size) || first !== start || last !== Math.min(end, size!) - 1) {
    if ("last" in range && first === 0) throw new NoSuffixError();
    const got = JSON.stringify(text.slice(0, 80));
    throw fail("EIO", `${rangeHeader(range)} was requested, and the answer has the Content-Range ${got}`);
  }
  const length = last + 1 - first;
  const announced = headers.get("content-length");
  if (announced !== null && Number(announced) !== length) {
    throw fail("EIO", `the answer announces ${announced} bytes for a range of ${length}`);
  }
  return { length, size: size! };
}

async function readBody(
  body: ReadableStreamDefaultReader<unknown> | undefined,
  length: number,
  fail: Fail,
): Promise<Bytes> {
  const bytes = new Uint8Array(length);
  for (let at = 0;;) {
    const { done, value } = await body?.read().catch((error) => {
      throw networkError(error, fail);
    }) ?? { done: true, value: undefined };
    if (done) {
      if (at === length) return bytes;
      throw fail("EIO", `the answer ended after ${at} of ${length} bytes`);
    }
    const chunk = toUint8Array("fetch", value);
    if (at + chunk.length > length) throw fail("EIO", `the answer is longer than the ${length} bytes of its range`);
    bytes.set(chunk, at);
    at += chunk.length;
  }
}

/**
 * The error of a request or a body that failed. Neither the error of `fetch` nor its cause is attached: those of Bun
 * and Deno have the URL with its query.
 */
export function networkError(error: unknown, fail: Fail, hint?: string): TransientError | KcapiError {
  const { name, message = String(error), code, cause } = (error ?? {}) as Error & { code?: unknown };
  const detail = withoutQueries(message);
  if (name === "NotCapable") return fail("EACCES", detail); // Deno without --allow-net
  const reason = (cause as { code?: unknown } | undefined)?.code ?? code;
  const suffix = typeof reason === "string" && !detail.includes(reason) ? ` (${reason})` : "";
  return new TransientError(fail("EIO", `the request failed: ${detail}${suffix}`, hint));
}

/** A text whose URLs have no queries and no credentials. */
function withoutQueries(text: string): string {
  return text.replace(/(:\/\/[^\s?#]*)[?#]\S*/g, "$1").replace(/(:\/\/)[^\s/]*@/g, "$1");
}
