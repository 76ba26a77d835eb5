/**
 * The vault over HTTP: one function from a request to its response, without a runtime in it.
 *
 * | | |
 * | --- | --- |
 * | `GET /` | the page |
 * | `GET /files` | names and sizes: `{ files: [{ name, size }], damaged, limit }` |
 * | `PUT /files/NAME` | stores the body: 201, or 204 if it takes the place of an older one |
 * | `GET`, `HEAD /files/NAME` | the file, or a range of it |
 * | `DELETE /files/NAME` | removes it |
 *
 * @module
 */

import { createHash } from "node:crypto";
import { preconditions, rangeOf } from "./conditions.ts";
import { type Condition, MOST_NAME, type StoredFile, type Vault } from "./vault.ts";

/** What a handler is made with. */
export interface HandlerOptions {
  /** The page, HTML. */
  page: string;
  /** The most bytes of an upload. */
  limit: number;
  /** The names of this server. Others are refused, or a site whose name is pointed to this machine could read everything. */
  hosts: readonly string[];
}

type Method = (request: Request, name: string) => Response | Promise<Response>;

/** What is answered instead of what was asked for. */
class HttpError extends Error {
  readonly status: number;
  readonly headers: Record<string, string>;

  constructor(status: number, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.status = status;
    this.headers = headers;
  }
}

const EVERYWHERE = { "x-content-type-options": "nosniff", "cross-origin-resource-policy": "same-origin" };

/** Of others it is unknown what a browser would do with them. */
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
  const list = async () =>
    whole(JSON.stringify({ ...await vault.list(), limit }), { "content-type": "application/json" });
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
    const response = await answer(request).catch(failed);
    return request.method === "HEAD" ? new Response(null, response) : response;
  };
}

async function getFile(vault: Vault, request: Request, name: string): Promise<Response> {
  const file = await vault.get(name);
  if (!file) throw new HttpError(404, "No such file");
  try {
    return await respond(request, file, name);
  } catch (error) {
    await file.close();
    throw error;
  }
}

async function respond({ method, headers }: Request, file: StoredFile, name: string): Promise<Response> {
  const { size, etag } = file;
  const validators = { ...EVERYWHERE, etag, "cache-control": "private, no-cache" };
  const status = preconditions(headers, etag, true);
  if (status === 412) throw preconditionFailed();
  if (status === 304) {
    await file.close();
    return new Response(null, { status, headers: validators });
  }
  // Of methods, a range is only for GET.
  const range = method === "GET" ? rangeOf(headers, etag, size) : undefined;
  if (range === "unsatisfiable") throw new HttpError(416, "No such range", { "content-range": `bytes */${size}` });
  const { start, end } = range ?? { start: 0, end: size };
  const responseHeaders = {
    ...validators,
    "accept-ranges": "bytes",
    "content-length": String(end - start),
    "content-type": TYPES.get(/\.(\w+)$/.exec(name)?.[1]?.toLowerCase() ?? "") ?? "application/octet-stream",
    // What somebody stored is not to act in this server's name.
    "content-security-policy": "sandbox",
    ...range && { "content-range": `bytes ${start}-${end - 1}/${size}` },
  };
  const body = method === "GET" ? await file.stream(start, end) : await file.close();
  return new Response(body ?? null, { status: range ? 206 : 200, headers: responseHeaders });
}

async function putFile(vault: Vault, request: Request, name: string, limit: number): Promise<Response> {
  const { headers } = request;
  if (headers.has("content-range")) throw new HttpError(400, "Parts of a file cannot be stored");
  if (Number(headers.get("content-length")) > limit) throw tooLarge(limit);
  const { isNew, etag } = await vault.put(name, contentOf(request, limit), conditionOf(request));
  // Without a length, a 201 would be sent chunked; a 204 must not have one.
  const stored = { ...EVERYWHERE, etag, ...(isNew && { "content-length": "0" }) };
  return new Response(null, { status: isNew ? 201 : 204, headers: stored });
}

async function deleteFile(vault: Vault, request: Request, name: string): Promise<Response> {
  if (!await vault.delete(name, conditionOf(request))) throw new HttpError(404, "No such file");
  return new Response(null, { status: 204, headers: EVERYWHERE });
}

/** A request's body, which errors unless it is all there and not too large. */
function contentOf({ body, headers }: Request, limit: number): ReadableStream<Uint8Array<ArrayBuffer>> {
  const reader = (body ?? new Blob().stream()).getReader();
  const length = headers.get("content-length");
  let size = 0;
  return new ReadableStream({
    async pull(controller) {
      const { done, value } = await reader.read().catch(() => {
        throw new HttpError(400, "The upload broke off");
      });
      size += value?.length ?? 0;
      if (size > limit) {
        await reader.cancel();
        throw tooLarge(limit);
      }
      if (!done) return controller.enqueue(value);
      if (length !== null && size !== Number(length)) throw new HttpError(400, "The upload is not as long as was said");
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

/** A name is anything that can be shown in a line. */
function nameFrom(encoded: string): string {
  let name;
  try {
    name = decodeURIComponent(encoded);
  } catch {
    throw new HttpError(400, "The name is not percent-encoded UTF-8");
  }
  if (/[/\p{Cc}]/u.test(name)) throw new HttpError(400, "The name has a slash or a control character in it");
  if (new TextEncoder().encode(name).length > MOST_NAME) {
    throw new HttpError(400, `The name is longer than ${MOST_NAME} bytes`);
  }
  return name;
}

function preconditionFailed(): HttpError {
  return new HttpError(412, "The file is not what the request's condition says");
}

function tooLarge(limit: number): HttpError {
  return new HttpError(413, `More than ${limit} bytes`);
}

/** What went wrong is for whoever runs the server; a client is told what it can do something about. */
function failed(error: unknown): Response {
  if (error instanceof HttpError) return whole(`${error.message}\n`, error.headers, error.status);
  const { code, message } = error as { code?: string; message?: string };
  console.error(`${code ?? "Error"}: ${message}`);
  if (code === "ENOSPC" || code === "EDQUOT") return whole("There is no room left\n", {}, 507);
  return whole(code === "EBADMSG" ? "The file is damaged\n" : "The server failed\n", {}, 500);
}

function whole(text: string, headers: Record<string, string>, status = 200): Response {
  const bytes = new TextEncoder().encode(text);
  return new Response(bytes, {
    status,
    headers: {
      ...EVERYWHERE,
      "content-type": "text/plain; charset=utf-8",
      "content-length": String(bytes.length),
      "cache-control": "no-store",
      ...headers,
    },
  });
}

/** Only the page's own style and script, and what this server has. */
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
