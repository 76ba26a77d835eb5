/**
 * A file with HTTP ranges (RFC 9110, section 14), for tests that send requests to it without a network: it takes the
 * place of `fetch`. A test changes an answer to see what the client does with it.
 */
import type { Bytes } from "./bytes.ts";

/** An answer before it is a Response. A Response cannot have all of them. */
export interface FileAnswer {
  status: number;
  headers: Record<string, string>;
  body: Bytes;
}

export class HttpFile {
  content: Bytes;
  etag: string | null = '"1"';
  lastModified: string | null = null;
  /** Whether it heeds If-Match and If-Unmodified-Since. Some servers do not. */
  checksVersion = true;
  /** The headers of the requests so far. */
  readonly requests: Record<string, string>[] = [];

  constructor(content: Bytes) {
    this.content = content;
  }

  /** Answers as a server should. */
  answer(request: Headers): FileAnswer {
    this.requests.push(Object.fromEntries(request));
    const headers: Record<string, string> = { "content-type": "application/octet-stream", "accept-ranges": "bytes" };
    if (this.etag !== null) headers.etag = this.etag;
    if (this.lastModified !== null) headers["last-modified"] = this.lastModified;
    if (this.checksVersion && !this.#matches(request)) return { status: 412, headers, body: new Uint8Array(0) };
    const { length } = this.content;
    const [, first = "", last = ""] = /^bytes=(\d*)-(\d*)$/.exec(request.get("range") ?? "") ?? [];
    const start = first === "" ? Math.max(0, length - Number(last)) : Number(first);
    const end = first === "" || last === "" ? length : Math.min(length, Number(last) + 1);
    if (start >= end) {
      return { status: 416, headers: { ...headers, "content-range": `bytes */${length}` }, body: new Uint8Array(0) };
    }
    const body = this.content.slice(start, end);
    return {
      status: 206,
      headers: {
        ...headers,
        "content-range": `bytes ${start}-${end - 1}/${length}`,
        "content-length": `${body.length}`,
      },
      body,
    };
  }

  #matches(request: Headers): boolean {
    const [etag, date] = [request.get("if-match"), request.get("if-unmodified-since")];
    return etag !== null ? etag === this.etag : date === null || date === this.lastModified;
  }

  /** In place of `fetch`. */
  readonly fetch = (_url: string, init: RequestInit): Promise<Response> => {
    init.signal?.throwIfAborted();
    return Promise.resolve(responseOf(this.answer(new Headers(init.headers))));
  };
}

export function responseOf({ status, headers, body }: FileAnswer): Response {
  return new Response(status === 204 || status === 304 ? null : body, { status, headers });
}
