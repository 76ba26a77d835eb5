/**
 * What a request's headers ask of a file that has an entity tag and a size (RFC 9110, sections 13 and 14).
 *
 * @module
 */

/** What becomes of a request, from If-Match and If-None-Match: 412 and 304 are its answers, undefined that it goes on. */
export function preconditions(headers: Headers, etag: string | undefined, isRead: boolean): 304 | 412 | undefined {
  const match = headers.get("if-match");
  if (match !== null && !isListed(match, etag, false)) return 412;
  const noneMatch = headers.get("if-none-match");
  if (noneMatch !== null && isListed(noneMatch, etag, true)) return isRead ? 304 : 412;
  return undefined;
}

/** Whether a header's list has the tag, or is "*" where there is one. Weak tags are equal only in a weak comparison. */
function isListed(list: string, etag: string | undefined, isWeak: boolean): boolean {
  if (etag === undefined) return false;
  if (list.trim() === "*") return true;
  const tags = list.matchAll(/(W\/)?("[^"]*")/g);
  return tags.some(([, weak, tag]) => tag === etag && (isWeak || !weak));
}

/**
 * The bytes asked for, from `start` to before `end`; undefined for all of them: where there is no range, one that is not well
 * formed, several, or another version's. If-Range with a date is another version's: none was given out.
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

/** The last `length` bytes. Those of an empty file are all of it, which Content-Range could not say. */
function suffixOf(length: number, size: number): { start: number; end: number } | "unsatisfiable" | undefined {
  if (length === 0) return "unsatisfiable";
  return size === 0 ? undefined : { start: Math.max(0, size - length), end: size };
}
