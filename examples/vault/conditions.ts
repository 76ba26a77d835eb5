/**
 * Conditional and range requests (RFC 9110, sections 13 and 14) for a file with an entity tag and a size.
 *
 * @module
 */

/** Checks If-Match and If-None-Match. Returns the status of the answer, or undefined if the request goes on. */
export function preconditions(headers: Headers, etag: string | undefined, isRead: boolean): 304 | 412 | undefined {
  const match = headers.get("if-match");
  if (match !== null && !isListed(match, etag, false)) return 412;
  const noneMatch = headers.get("if-none-match");
  if (noneMatch !== null && isListed(noneMatch, etag, true)) return isRead ? 304 : 412;
  return undefined;
}

/** Whether a list of tags matches: it has the tag, or it is "*" and a file exists. Weak tags match only if `isWeak`. */
function isListed(list: string, etag: string | undefined, isWeak: boolean): boolean {
  if (etag === undefined) return false;
  if (list.trim() === "*") return true;
  const tags = list.matchAll(/(W\/)?("[^"]*")/g);
  return tags.some(([, weak, tag]) => tag === etag && (isWeak || !weak));
}

/**
 * The requested bytes, from `start` to before `end`. Undefined for the whole file: without a range, with several, with
 * one that is not well-formed, and if If-Range names another version. A date in If-Range never matches: no answer has
 * one.
 */
export function rangeOf(
  headers: Headers,
  etag: string,
  size: number,
): { start: number; end: number } | "unsatisfiable" | undefined {
  const [, first, last] = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(headers.get("range") ?? "") ?? [];
  const ifRange = headers.get("if-range");
  if (first === undefined || last === undefined || (ifRange !== null && ifRange !== etag)) return undefined;
  if (first === "") return last === "" ? undefined : suffixOf(Number(last), size);
  const start = Number(first);
  if (last !== "" && Number(last) < start) return undefined;
  return start >= size ? "unsatisfiable" : { start, end: last === "" ? size : Math.min(Number(last) + 1, size) };
}

/** The last `length` bytes. For an empty file, the answer is the whole file: Content-Range has no form for no bytes. */
function suffixOf(length: number, size: number): { start: number; end: number } | "unsatisfiable" | undefined {
  if (length === 0) return "unsatisfiable";
  return size === 0 ? undefined : { start: Math.max(0, size - length), end: size };
}
