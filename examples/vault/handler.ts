/**
 * The vault over HTTP: a function from a request to its response, the same on every runtime.
 *
 * | | |
 * | --- | --- |
 * | `GET /` | the page |
 * | `GET /files?after=NAME` | a page of `{ files: [{ name, size, etag }], next, count, size, damaged, limit }` |
 * | `PUT /files/NAME` | stores the body: 201, or 204 if it replaces an older file |
 * | `GET`, `HEAD /files/NAME` | the file, or a range of it |
 * | `DELETE /files/NAME` | deletes it |
 * | `DELETE /damaged/ID` | deletes a file that does not open |
 *
 * @module
 */

import { createHash } from "node:crypto";
import { preconditions, rangeOf } from "./conditions.ts";
import { type Condition, MAX_NAME, type StoredFile, type Vault } from "./vault.ts";

/** The options of {@linkcode createHandler}. */
export interface HandlerOptions {
  /** The page, HTML. */
  page: string;
  /** The most bytes of an upload. */
  limit: number;
  /** The names of this server. Requests to others are refused: a web site could let its name point to this machine. */
  hosts: readonly string[];
}

type Method = (request: Request, name: string) => Response | Promise<Response>;

/** An error that the client is told about. */
class HttpError extends Error {
  readonly status: number;
  readonly headers: Record<string, string>;

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

const COMMON_HEADERS = { "x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin" };

/** Types that are safe to show. Files of other types are application/octet-stream. */
const TYPES: ReadonlyMap<string, string> = new Map([
  ["aac", "audio/aac"],
  ["avif", "image/avif"],
  ["flac", "audio/flac"],
  ["gif", "image/gif"],
  ["jpeg", "image/jpeg"],
  ["jpg", "image/jpeg"],
  ["m4a", "audio/mp4"],
  ["m4v", "video/mp4"],
  ["mov", "video/quicktime"],
  ["mp3", "audio/mpeg"],
  ["mp4", "video/mp4"],
  ["oga", "audio/ogg"],
  ["ogg", "audio/ogg"],
  ["ogv", "video/ogg"],
  ["opus", "audio/ogg"],
  ["pdf", "application/pdf"],
  ["png", "image/png"],
  ["svg", "image/svg+xml"],
  ["txt", "text/plain; charset=utf-8"],
  ["wav", "audio/wav"],
  ["webm", "video/webm"],
  ["webp", "image/webp"],
]);

/** The handler of a vault. It never rejects. */
export function createHandler(vault: Vault, options: HandlerOptions): (request: Request) => Promise<Response> {
  const { page, limit, hosts } = options;
  const pageHeaders = { "content-type": "text/html; charset=utf-8", "content-security-policy": pagePolicy(page) };
  const showPage = () => whole(page, pageHeaders);
  const list = async (request: Request) => {
    const after = new URL(request.url).searchParams.get("after") ?? undefined;
    const listing = await vault.list(after, (path, error) => log(vault, error, request, path));
    return whole(JSON.stringify({ ...listing, limit }), { "content-type": "application/json" });
  };
  const get: Method = (request, name) => getFile(vault, request, name);
  const routes: readonly (readonly [path: RegExp, methods: ReadonlyMap<string, Method>])[] = [
    [/^\/$/, new Map([["GET", showPage], ["HEAD", showPage]])],
    [/^\/files$/, new Map([["GET", list], ["HEAD", list]])],
    [
      /^\/files\/([^/]+)$/,
      new Map<string, Method>([
        ["GET", get],
        ["HEAD", get],
        ["PUT", (request, name) => putFile(vault, request, name, limit)],
        ["DELETE", (request, name) => deleteFile(vault, request, name)],
      ]),
    ],
    [/^\/damaged\/([0-9a-f]{64})$/, new Map<string, Method>([["DELETE", (_, id) => deleteDamaged(vault, id)]])],
  ];

  async function answer(request: Request): Promise<Response> {
    const { hostname, pathname } = new URL(request.url);
    if (!hosts.includes(hostname)) throw new HttpError(421, "This server has another name");
    for (const [path, methods] of routes) {
      const found = path.exec(pathname);
      if (!found) continue;
      const method = methods.get(request.method);
      if (!method) throw new HttpError(405, "No such method here", { allow: [...methods.keys()].join(", ") });
      return await method(request, found[1] === undefined ? "" : nameFrom(found[1]));
    }
    throw new HttpError(404, "Nothing here");
  }

  return async (request) => {
    const response = await answer(request).catch((error) => failed(vault, error, request));
    return request.method === "HEAD" ? new Response(null, response) : response;
  };
}

async function getFile(vault: Vault, request: Request, name: string): Promise<Response> {
  const file = await vault.get(name);
  if (!file) throw new HttpError(404, "No such file");
  try {
    return await respond(request, file, name, (error) => log(vault, error, request));
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function respond(
  { method, headers }: Request,
  file: StoredFile,
  name: string,
  onError: (error: unknown) => void,
): Promise<Response> {
  const { size, etag } = file;
  const validators = { ...COMMON_HEADERS, etag, "cache-control": "private, no-cache" };
  const status = preconditions(headers, etag, true);
  if (status === 412) throw preconditionFailed();
  if (status === 304) {
    await file.close();
    return new Response(null, { status, headers: validators });
  }
  // RFC 9110, section 14.2: a range is for GET only.
  const range = method === "GET" ? rangeOf(headers, etag, size) : undefined;
  if (range === "unsatisfiable") throw new HttpError(416, "No such range", { "content-range": `bytes */${size}` });
  const { start, end } = range ?? { start: 0, end: size };
  const responseHeaders = {
    ...validators,
    "accept-ranges": "bytes",
    "content-length": String(end - start),
    "content-type": TYPES.get(/\.(\w+)$/.exec(name)?.[1]?.toLowerCase() ?? "") ?? "application/octet-stream",
    // A stored page must not run scripts with this server's origin.
    "content-security-policy": "sandbox",
    ...range && { "content-range": `bytes ${start}-${end - 1}/${size}` },
  };
  const body = method === "GET" ? await file.stream(start, end, onError) : await file.close();
  return new Response(body ?? null, { status: range ? 206 : 200, headers: responseHeaders });
}

async function putFile(vault: Vault, request: Request, name: string, limit: number): Promise<Response> {
  const { headers } = request;
  if (headers.has("content-range")) throw new HttpError(400, "Parts of a file cannot be stored");
  if (Number(headers.get("content-length")) > limit) throw tooLarge(limit);
  const { isNew, etag } = await vault.put(name, contentOf(request, limit), conditionOf(request));
  // A 201 without a length would be sent chunked. A 204 must not have one.
  const stored = { ...COMMON_HEADERS, etag, ...(isNew && { "content-length": "0" }) };
  return new Response(null, { status: isNew ? 201 : 204, headers: stored });
}

async function deleteFile(vault: Vault, request: Request, name: string): Promise<Response> {
  if (!await vault.delete(name, conditionOf(request))) throw new HttpError(404, "No such file");
  return new Response(null, { status: 204, headers: COMMON_HEADERS });
}

async function deleteDamaged(vault: Vault, id: string): Promise<Response> {
  const result = await vault.deleteDamaged(id);
  if (result === "missing") throw new HttpError(404, "No such file");
  if (result === "intact") throw new HttpError(409, "The file is not damaged");
  return new Response(null, { status: 204, headers: COMMON_HEADERS });
}

/** A request's body, which errors if it is incomplete or too large. */
function contentOf({ body, headers }: Request, limit: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = (body ?? new Blob().stream()).getReader();
  const length = headers.get("content-length");
  let size = 0;
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read().catch(() => {
        throw new HttpError(400, "The upload was cut off");
      });
      size += value?.length ?? 0;
      if (size > limit) {
        await reader.cancel();
        throw tooLarge(limit);
      }
      if (!done) return controller.enqueue(value);
      if (length !== null && size !== Number(length)) {
        throw new HttpError(400, "The upload is not as long as its Content-Length says");
      }
      controller.close();
    },
    cancel: (reason) => reader.cancel(reason),
  }, { highWaterMark: 0 });
}

function conditionOf({ headers }: Request): Condition {
  return (etag) => {
    if (preconditions(headers, etag, false)) throw preconditionFailed();
  };
}

/** A name is anything without a slash that can be shown in one line. */
function nameFrom(encoded: string): string {
  let name;
  try {
    name = decodeURIComponent(encoded);
  } catch {
    throw new HttpError(400, "The name is not percent-encoded UTF-8");
  }
  if (/[/\p{Cc}]/u.test(name)) throw new HttpError(400, "The name has a slash or a control character in it");
  if (new TextEncoder().encode(name).length > MAX_NAME) {
    throw new HttpError(400, `The name is longer than ${MAX_NAME} bytes`);
  }
  return name;
}

function preconditionFailed(): HttpError {
  return new HttpError(412, "The stored file is not the version that the request requires");
}

function tooLarge(limit: number): HttpError {
  return new HttpError(413, `More than ${limit} bytes`);
}

/** The response to an error. The client learns what it can act on; the log has the rest. */
function failed(vault: Vault, error: unknown, request: Request): Response {
  if (error instanceof HttpError) return whole(`${error.message}\n`, error.headers, error.status);
  log(vault, error, request);
  const { code } = error as { code?: string };
  if (code === "ENOSPC" || code === "EDQUOT") return whole("The disk is full\n", {}, 507);
  return whole(code === "EBADMSG" ? "The file is damaged\n" : "The server failed\n", {}, 500);
}

/** Logs an error, the request, and the file on the disk. In a URL, control characters are percent-encoded. */
function log(vault: Vault, error: unknown, { method, url, headers }: Request, path?: string): void {
  const { code, message } = error as { code?: string; message?: string };
  const { pathname, search } = new URL(url);
  const encoded = /^\/files\/([^/]+)$/.exec(pathname)?.[1];
  const stored = path ?? (encoded && vault.pathOf(decodeURIComponent(encoded)));
  const parts = [`${method} ${pathname}${search}`, headers.get("range"), stored].filter(Boolean);
  console.error(`${code ?? "Error"}: ${parts.join(", ")}: ${message ?? error}`);
}

function whole(text: string, headers: Record<string, string>, status = 200): Response {
  const bytes = new TextEncoder().encode(text);
  return new Response(bytes, {
    status,
    headers: {
      ...COMMON_HEADERS,
      "content-type": "text/plain; charset=utf-8",
      "content-length": String(bytes.length),
      "cache-control": "no-store",
      ...headers,
    },
  });
}

/** Allows the page's own style and script, and requests to this server. */
function pagePolicy(page: string): string {
  const hashes = (tag: string) =>
    [...page.matchAll(new RegExp(`<${tag}>([^]*?)</${tag}>`, "g"))]
      .map(([, text]) => `'sha256-${createHash("sha256").update(text!).digest("base64")}'`).join(" ");
  return [
    "default-src 'none'",
    `style-src ${hashes("style")}`,
    `script-src ${hashes("script")}`,
    "connect-src 'self'",
    "img-src 'self' data:",
    "media-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; ");
}
