/**
 * A file with ranges for `http_test.ts`, on the origin of the page and on another one.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { bytes } from "../support/bytes.ts";
import { HttpFile } from "../support/http_file.ts";

const ALLOW = {
  "access-control-allow-origin": "*",
  "access-control-allow-headers": "range, if-match",
};

/** The headers of each path, for pages of another origin. */
const ROUTES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "/file": {},
  "/file-allowed": { ...ALLOW, "access-control-expose-headers": "content-range, etag" },
  "/file-not-exposed": ALLOW,
};

const file = new HttpFile(bytes(100_000, 7));

/** Answers a request for the file. Returns whether it was one. */
export function answerFile({ url = "", method, headers }: IncomingMessage, response: ServerResponse): boolean {
  const cors = ROUTES[url];
  if (!cors) return false;
  if (method === "OPTIONS") {
    response.writeHead(204, cors).end();
    return true;
  }
  const answer = file.answer(new Headers(headers as Record<string, string>));
  response.writeHead(answer.status, { ...answer.headers, ...cors }).end(answer.body);
  return true;
}
