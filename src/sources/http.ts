/**
 * {@linkcode httpSource}: a source of `openSealed()` that reads a file by HTTP range requests.
 *
 * @module
 */

import { onAbort, signalsOf } from "../abort.ts";
import { type Bytes, describe } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { checkOptions, type OptionNames } from "../options.ts";
import {
  type Answer,
  type AskedRange,
  differenceOf,
  type Fail,
  failAt,
  isStrong,
  networkError,
  NoSuffixError,
  rangeHeader,
  readAnswer,
  type Version,
} from "./http_answer.ts";
import { delayAfter, MOST_RETRY_AFTER, sleep, TransientError } from "./retry.ts";

/** The headers of a request: an object of names and values, or a Headers object. */
export type HttpHeaders = Headers | Readonly<Record<string, string>>;

/** A request that failed and is sent again. */
export interface HttpRetry {
  /** The number of the attempt that failed, from 1. */
  readonly attempt: number;
  /** Milliseconds until the next attempt. */
  readonly delay: number;
  /** Why it failed. */
  readonly error: KcapiError;
}

/** Options of {@linkcode httpSource}. */
export interface HttpSourceOptions {
  /**
   * Headers of each request, such as `authorization`. A function is called for each attempt, so that a token can be
   * renewed.
   */
  headers?: HttpHeaders | (() => HttpHeaders | Promise<HttpHeaders>) | undefined;
  /**
   * Sends the requests instead of the global `fetch`: to sign them, or to use an agent or a proxy. It must send the
   * headers and heed the signal of `init`. It should not retry by itself.
   */
  fetch?: ((url: string, init: RequestInit) => Promise<Response>) | undefined;
  /** Ends pending requests, and refuses later ones. */
  signal?: AbortSignal | undefined;
  /**
   * How often a request is sent again after a network error, or an answer of status 429 or 5xx: from 0 to 100, 4 by
   * default. The delay begins at 250 ms and doubles up to 8 s, less a random part of at most half. It is longer if the
   * server asks for more (`Retry-After`), up to a minute. If the server asks for more than that, the request fails.
   */
  retries?: number | undefined;
  /** Called before each delay. If it throws, the request fails with what it threw. */
  onRetry?: ((retry: HttpRetry) => void) | undefined;
}

/** Options of a read of an {@linkcode HttpSource}. */
export interface HttpReadOptions {
  /** Ends the request. */
  signal?: AbortSignal | undefined;
}

const NAMES: OptionNames<HttpSourceOptions> = {
  headers: true,
  fetch: true,
  signal: true,
  retries: true,
  onRetry: true,
};
const READ_NAMES: OptionNames<HttpReadOptions> = { signal: true };

const CORS_HINT = "a browser also reports this if the server does not allow requests of this page's origin (CORS)";

const RETRIES = 4;
const MOST_RETRIES = 100;

/** Headers that select the range, the version, or another representation of the file. */
const RESERVED = [
  "accept-encoding",
  "if-match",
  "if-modified-since",
  "if-none-match",
  "if-range",
  "if-unmodified-since",
  "range",
];

/** The checked options. */
interface HttpPlan {
  readonly headers: () => Headers | Promise<Headers>;
  readonly fetch: (url: string, init: RequestInit) => Promise<Response>;
  readonly signals: readonly AbortSignal[];
  readonly retries: number;
  readonly onRetry: ((retry: HttpRetry) => void) | undefined;
}

/** A file on an HTTP server, which {@linkcode httpSource} returns. */
export class HttpSource {
  readonly #url: string;
  readonly #plan: HttpPlan;
  readonly #fail: Fail;
  /** The version of the first answer. */
  #version: Version | undefined;

  /** @ignore */
  constructor(url: URL, plan: HttpPlan) {
    this.#url = url.href;
    this.#plan = plan;
    this.#fail = failAt(url);
  }

  /** Bytes in all; undefined before the first answer. */
  get size(): number | undefined {
    return this.#version?.size;
  }

  /**
   * Reads a range of bytes.
   *
   * @param start The first byte.
   * @param end The byte after the last one.
   * @param options A signal that ends the request.
   * @returns The bytes, all of them.
   * @throws {KcapiError} See {@linkcode httpSource}.
   */
  async read(start: number, end: number, options: HttpReadOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
    checkPosition("start", start);
    checkPosition("end", end);
    const signals = checkReadOptions(options);
    if (start >= end) return new Uint8Array(0);
    const { bytes, size } = await this.#ask({ start, end }, signals);
    if (bytes.length === end - start) return bytes;
    throw this.#fail("EIO", `the file has ${size} bytes, and bytes ${start} to ${end - 1} were requested`);
  }

  /**
   * Reads the start and the end of the file at once, in one round trip.
   *
   * @param head Bytes at the start. The result has fewer if the file has.
   * @param tail Bytes at the end. The result has fewer if the file has.
   * @param options A signal that ends the requests.
   * @returns The bytes of both, and the size of the file.
   * @throws {KcapiError} See {@linkcode httpSource}.
   */
  async readEnds(
    head: number,
    tail: number,
    options: HttpReadOptions = {},
  ): Promise<{ size: number; head: Uint8Array<ArrayBuffer>; tail: Uint8Array<ArrayBuffer> }> {
    checkPosition("head", head);
    checkPosition("tail", tail);
    const { size } = this;
    const isSmall = size !== undefined && size <= head + tail;
    const stop = new AbortController();
    const signals = [...checkReadOptions(options), stop.signal];
    // At least one byte, because the answer has the size.
    const start = this.#ask({ start: 0, end: Math.max(1, isSmall ? size : head) }, signals);
    const end = isSmall || tail === 0 ? undefined : this.#readTail(tail, start, signals);
    try {
      end?.catch(() => {}); // reported after an error of the start
      const { bytes, size: known } = await start;
      const hasTail = bytes.length === known || end === undefined;
      return {
        size: known,
        head: bytes.slice(0, head),
        tail: hasTail ? bytes.slice(Math.max(0, known - tail)) : await end,
      };
    } finally {
      // If the start failed, or is the whole file, the other request is not needed.
      stop.abort(new KcapiError("ECANCELED", "httpSource", "the request is not needed"));
      await end?.catch(() => {});
    }
  }

  async #readTail(length: number, start: Promise<Answer>, signals: readonly AbortSignal[]): Promise<Bytes> {
    try {
      return (await this.#ask({ last: length }, signals)).bytes;
    } catch (error) {
      if (!(error instanceof NoSuffixError)) throw error;
      const { size } = await start;
      return (await this.#ask({ start: Math.max(0, size - length), end: size }, signals)).bytes;
    }
  }

  /** Sends a request until it is answered, or all attempts have failed. */
  async #ask(range: AskedRange, signals: readonly AbortSignal[]): Promise<Answer> {
    const controller = new AbortController();
    const { signal } = controller;
    const listener = onAbort([...this.#plan.signals, ...signals], controller, abort);
    listener?.retain(controller);
    try {
      for (let attempt = 1;; attempt++) {
        signal.throwIfAborted();
        try {
          return await this.#attempt(range, signal);
        } catch (error) {
          signal.throwIfAborted();
          await sleep(this.#delayOf(error, attempt), signal);
        }
      }
    } finally {
      listener?.stop();
    }
  }

  /** @returns Milliseconds until the next attempt. */
  #delayOf(failure: unknown, attempt: number): number {
    if (!(failure instanceof TransientError)) throw failure;
    const { error, retryAfter } = failure;
    const { code, detail, hint } = error;
    const { retries, onRetry } = this.#plan;
    if (retryAfter > MOST_RETRY_AFTER) {
      const wait = `the server asks to wait ${Math.ceil(retryAfter / 1000)} s`;
      throw new KcapiError(code, "httpSource", detail, { hint: wait });
    }
    if (attempt > retries) {
      if (attempt === 1) throw error;
      throw new KcapiError(code, "httpSource", `${detail}, at the last of ${attempt} attempts`, { hint });
    }
    const delay = delayAfter(attempt, retryAfter);
    onRetry?.({ attempt, delay, error });
    return delay;
  }

  async #attempt(range: AskedRange, signal: AbortSignal): Promise<Answer> {
    const headers = await this.#plan.headers();
    headers.set("range", rangeHeader(range));
    const { etag, lastModified } = this.#version ?? { etag: null, lastModified: null };
    if (isStrong(etag)) headers.set("if-match", etag);
    else if (lastModified !== null) headers.set("if-unmodified-since", lastModified);
    let response: Response;
    try {
      response = await this.#plan.fetch(this.#url, { headers, signal, ...noStore() });
    } catch (error) {
      const isOtherOrigin = globalThis.location !== undefined && !this.#url.startsWith(`${location.origin}/`);
      throw networkError(error, this.#fail, isOtherOrigin ? CORS_HINT : undefined);
    }
    if (typeof response?.headers?.get !== "function") {
      throw new TypeError(`"fetch" expected a function that returns a Response, got ${describe(response)}`);
    }
    return await readAnswer(response, range, this.#fail, (version) => this.#accept(version));
  }

  #accept(version: Version): void {
    const difference = differenceOf(this.#version ??= version, version);
    if (difference === undefined) return;
    throw this.#fail("EIO", `the file has changed since it was opened: ${difference}`);
  }
}

function abort(controller: AbortController, reason: unknown): void {
  controller.abort(reason);
}

/**
 * A source of `openSealed()` over HTTP range requests. It runs on every runtime and in browsers.
 *
 * The first answer pins the version of the file: by its strong ETag, else by its Last-Modified. Each later request asks
 * for that version (`If-Match`, `If-Unmodified-Since`), and each answer is compared with it. If the file changes, reads
 * fail with EIO; open it again.
 *
 * Messages have the origin and the path of the URL, and not its query, which is the secret of a presigned URL. If a
 * server redirects to another origin, `fetch` sends the headers there too, except `authorization` and `cookie`.
 *
 * In a browser, a server of another origin must allow the request headers `range`, `if-match` and
 * `if-unmodified-since`, and expose `content-range` and `etag`.
 *
 * @param url The address of the file, http or https. In a browser it may be relative.
 * @param options Headers, `fetch`, and what to do if a request fails.
 * @returns The source. It sends no request before it is read.
 * @throws {TypeError} If an argument is of a wrong type.
 * @throws {RangeError} If `retries` is not from 0 to 100. Reads throw KcapiError: ENOENT if there is no such file,
 * EACCES if the server refuses access or redirects to a page, EIO if the file has changed, the server does not support
 * ranges, its answer does not fit the request, or all attempts fail.
 *
 * @example Usage
 * ```ts
 * import { httpSource, openSealed, seal } from "@kcapi/streams";
 * import { assertEquals } from "@std/assert";
 * import { createServer } from "node:http";
 *
 * const key = crypto.getRandomValues(new Uint8Array(32));
 * const sealed = new Uint8Array(await new Response(
 *   ReadableStream.from(seal({ key }, new TextEncoder().encode("attack at dawn"))),
 * ).arrayBuffer());
 *
 * // A server with ranges. Any web server or object store is one.
 * const server = createServer((request, response) => {
 *   const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? "") ?? [];
 *   const start = first === "" ? Math.max(0, sealed.length - Number(last)) : Number(first);
 *   const end = first === "" ? sealed.length : Math.min(sealed.length, Number(last) + 1);
 *   response.writeHead(206, { etag: '"1"', "content-range": `bytes ${start}-${end - 1}/${sealed.length}` });
 *   response.end(sealed.subarray(start, end));
 * });
 * await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
 * const { port } = server.address() as { port: number };
 *
 * const source = httpSource(`http://127.0.0.1:${port}/data.sealed`, { headers: { authorization: "Bearer TOKEN" } });
 * {
 *   using file = await openSealed(source, { key });
 *   assertEquals(new TextDecoder().decode(await file.bytes(-4)), "dawn");
 * }
 * server.closeAllConnections();
 * server.close();
 * ```
 */
export function httpSource(url: string | URL, options: HttpSourceOptions = {}): HttpSource {
  checkOptions("options", options, NAMES);
  return new HttpSource(checkUrl(url), {
    headers: checkHeaders(options.headers, options.fetch === undefined),
    fetch: checkFunction("fetch", options.fetch) ?? ((url, init) => fetch(url, init)),
    signals: signalsOf(options.signal),
    retries: checkRetries(options.retries),
    onRetry: checkFunction("onRetry", options.onRetry),
  });
}

function checkUrl(url: string | URL): URL {
  const expected = '"url" expected an http or https URL';
  if (typeof url !== "string" && !(url instanceof URL)) throw new TypeError(`${expected}, got ${describe(url)}`);
  let parsed: URL;
  try {
    parsed = new URL(url, globalThis.location?.href);
  } catch {
    throw new TypeError(`${expected}, got a string that is no URL`);
  }
  if (!/^https?:$/.test(parsed.protocol)) throw new TypeError(`${expected}, got one of ${parsed.protocol}`);
  if (parsed.username || parsed.password) {
    throw new TypeError('"url" expected no user name and password: set the header authorization');
  }
  parsed.hash = "";
  return parsed;
}

/** @param isDirect Whether no own `fetch` signs the headers. */
function checkHeaders(headers: HttpSourceOptions["headers"], isDirect: boolean): HttpPlan["headers"] {
  if (typeof headers === "function") return async () => headersOf(await headers(), isDirect);
  const copy = headersOf(headers === undefined ? {} : headers, isDirect);
  return () => new Headers(copy);
}

function headersOf(value: HttpHeaders, isDirect: boolean): Headers {
  if (typeof value !== "object" || value === null) {
    throw new TypeError(`"headers" expected an object of names and values, got ${describe(value)}`);
  }
  let headers: Headers;
  try {
    headers = new Headers(value);
  } catch {
    // The runtime's error has the value, which may be a token.
    throw new TypeError('"headers" expected valid names and values of HTTP headers');
  }
  const reserved = RESERVED.find((name) => headers.has(name));
  if (reserved !== undefined) throw new TypeError(`"headers" expected no ${reserved}: the source sets it`);
  // Bun accepts compressed answers otherwise. Browsers, Deno and Node send this with each range.
  if (isDirect) headers.set("accept-encoding", "identity");
  return headers;
}

function checkFunction<T>(name: string, value: T | undefined): T | undefined {
  if (value === undefined || typeof value === "function") return value;
  throw new TypeError(`"${name}" expected a function, got ${describe(value)}`);
}

function checkReadOptions(options: HttpReadOptions): readonly AbortSignal[] {
  checkOptions("options", options, READ_NAMES);
  return signalsOf(options.signal);
}

function checkRetries(retries: number = RETRIES): number {
  if (typeof retries !== "number") throw new TypeError(`"retries" expected a number, got ${describe(retries)}`);
  if (Number.isInteger(retries) && retries >= 0 && retries <= MOST_RETRIES) return retries;
  throw new RangeError(`"retries" expected an integer from 0 to ${MOST_RETRIES}, got ${retries}`);
}

function checkPosition(name: string, value: number): void {
  if (typeof value !== "number") throw new TypeError(`"${name}" expected a number, got ${describe(value)}`);
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`"${name}" expected a number of bytes, got ${value}`);
  }
}

/**
 * Keeps browsers from answering with ranges of their caches. Some versions of workerd refuse the option.
 */
function noStore(): RequestInit {
  try {
    new Request("http://localhost", { cache: "no-store" });
    return { cache: "no-store" };
  } catch {
    return {};
  }
}
