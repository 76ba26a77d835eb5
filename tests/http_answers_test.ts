/**
 * `httpSource()` and the answers of servers, without a network, so that it runs in browsers and workerd too.
 * `http_source_test.ts` has real servers.
 */
import fc from "fast-check";
import { KcapiError } from "../src/errors.ts";
import { type HttpRetry, type HttpSource, httpSource, type HttpSourceOptions } from "../src/sources/http.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows, test } from "./support/deps.ts";
import { bytes } from "./support/bytes.ts";
import { type FileAnswer, HttpFile, responseOf } from "./support/http_file.ts";

const SECRET = "s3cr3t";
const ADDRESS = `https://files.example/a/b.sealed?signature=${SECRET}`;
const NO_ENGINE = { engine: "userspace" } as const;

/** A source over a file in memory, whose answers `change` may change. */
function open(
  file: HttpFile,
  change: (answer: FileAnswer, init: RequestInit) => FileAnswer | Response = (answer) => answer,
  options: HttpSourceOptions = {},
): HttpSource {
  return httpSource(ADDRESS, {
    retries: 0,
    fetch(_url, init) {
      init.signal?.throwIfAborted();
      const answer = change(file.answer(new Headers(init.headers)), init);
      return Promise.resolve(answer instanceof Response ? answer : responseOf(answer));
    },
    ...options,
  });
}

/** Fails with a KcapiError that does not have the query of the URL. */
async function failure(action: () => Promise<unknown>): Promise<KcapiError> {
  const error = await assertRejects(action, KcapiError);
  const { message, stack, hint, cause } = error;
  assert(!`${message} ${stack} ${hint} ${String(cause)}`.includes(SECRET), message);
  assertEquals(error.operation, "httpSource");
  assertEquals(cause, undefined);
  return error;
}

// ---- Ranges ---------------------------------------------------------------------------------------------------------

test("httpSource: ranges and ends are those of the file", NO_ENGINE, async () => {
  const size = fc.nat(300);
  await fc.assert(fc.asyncProperty(size, size, size, size, size, async (length, head, tail, from, to) => {
    const content = bytes(length);
    const file = new HttpFile(content);
    const source = open(file);
    assertEquals(source.size, undefined);
    for (let time = 0; time < 2; time++) {
      const ends = await source.readEnds(head, tail);
      assertEquals(ends.size, length);
      assertEquals(ends.head, content.slice(0, head));
      assertEquals(ends.tail, content.slice(Math.max(0, length - tail)));
      assertEquals(source.size, length);
    }
    const [start, end] = [Math.min(from, to, length), Math.min(Math.max(from, to), length)];
    assertEquals(await source.read(start, end), content.slice(start, end));
  }));
});

test(
  "httpSource: both ends are requested at once, and a file that is known to be small by one request",
  NO_ENGINE,
  async () => {
    const file = new HttpFile(bytes(1000));
    let waiting = 0;
    const both = Promise.withResolvers<void>();
    const source = httpSource(ADDRESS, {
      async fetch(url, init) {
        if (++waiting === 2) both.resolve();
        await both.promise;
        return await file.fetch(url, init);
      },
    });
    await source.readEnds(10, 20);
    assertEquals(file.requests.map(({ range }) => range), ["bytes=0-9", "bytes=-20"]);
    await source.readEnds(500, 500);
    assertEquals(file.requests.slice(2).map(({ range }) => range), ["bytes=0-999"]);
  },
);

test("httpSource: a small file is there with its start, and the other request is ended", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(10));
  let ended = false;
  const source = httpSource(ADDRESS, {
    fetch(url, init) {
      if (new Headers(init.headers).get("range") !== "bytes=-20") return file.fetch(url, init);
      return new Promise((_, reject) => {
        init.signal!.addEventListener("abort", () => {
          ended = true;
          reject(init.signal!.reason);
        });
      });
    },
  });
  assertEquals(await source.readEnds(64, 20), { size: 10, head: bytes(10), tail: bytes(10) });
  assert(ended);
});

test("httpSource: a server without suffix ranges is asked for the end by its position", NO_ENGINE, async () => {
  const first = { "content-range": "bytes 0-20/1000" }; // the answer of s3rver
  for (const [status, headers] of [[200, {}], [400, {}], [416, {}], [206, first]] as const) {
    const file = new HttpFile(bytes(1000));
    const refused = { status, headers: { etag: file.etag!, ...headers }, body: file.content };
    const source = open(
      file,
      (answer, { headers }) => new Headers(headers).get("range")!.startsWith("bytes=-") ? refused : answer,
    );
    assertEquals(await source.readEnds(10, 20), {
      size: 1000,
      head: bytes(1000).slice(0, 10),
      tail: bytes(1000).slice(980),
    });
    assertEquals(file.requests.at(-1)!.range, "bytes=980-999");
  }
});

test("httpSource: a file without bytes has the size 0", NO_ENGINE, async () => {
  const empty = { size: 0, head: new Uint8Array(0), tail: new Uint8Array(0) };
  const file = new HttpFile(bytes(0));
  assertEquals(await open(file).readEnds(10, 20), empty);
  const whole = { status: 200, headers: { "content-length": "0" }, body: new Uint8Array(0) };
  assertEquals(await open(file, () => whole).readEnds(10, 20), empty);
});

test("httpSource: a read past the end is an error, and one of no bytes sends nothing", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  const source = open(file);
  assertEquals(await source.read(5, 5), new Uint8Array(0));
  assertEquals(file.requests, []);
  const { code, detail } = await failure(() => source.read(90, 101));
  assertEquals([code, detail.includes("has 100 bytes")], ["EIO", true]);
  assertEquals((await failure(() => source.read(100, 101))).code, "EIO");
});

// ---- Answers that are wrong -----------------------------------------------------------------------------------------

/** Changes headers; null removes one. */
const withHeaders = (changes: Record<string, string | null>) => (answer: FileAnswer): FileAnswer => {
  const headers = { ...answer.headers, ...changes };
  return {
    ...answer,
    headers: Object.fromEntries(Object.entries(headers).filter(([, value]) => value !== null)) as Record<
      string,
      string
    >,
  };
};
const withStatus = (status: number) => (answer: FileAnswer): FileAnswer => ({ ...answer, status });

/** A body that never ends, and how much of it was taken. */
function endless(): { body: ReadableStream<Uint8Array>; taken: () => number; isCancelled: () => boolean } {
  let [taken, cancelled] = [0, false];
  const body = new ReadableStream<Uint8Array>({
    pull(controller) {
      taken++;
      controller.enqueue(new Uint8Array(10));
    },
    cancel: () => void (cancelled = true),
  }, { highWaterMark: 0 });
  return { body, taken: () => taken, isCancelled: () => cancelled };
}

function redirected(answer: FileAnswer, url: string): Response {
  const response = responseOf(answer);
  Object.defineProperties(response, { redirected: { value: true }, url: { value: url } });
  return response;
}

const page = (status: number): FileAnswer => ({
  status,
  headers: { "content-type": "text/html; charset=utf-8", "content-range": "bytes 20-29/100" },
  body: new TextEncoder().encode("<h1>Log in"),
});
const LOGIN = `https://user:pw@login.example/form?next=${SECRET}`;

/** What a server does wrong, and the error: its code, and a part of its detail. */
const WRONG: readonly (readonly [
  name: string,
  change: (answer: FileAnswer) => FileAnswer | Response,
  code: string,
  detail: string,
])[] = [
  ["no ranges", (answer) => ({ ...withStatus(200)(answer), body: bytes(100) }), "EIO", "does not support ranges"],
  ["no file", withStatus(404), "ENOENT", "no such file (status 404)"],
  ["a file that is gone", withStatus(410), "ENOENT", "no such file (status 410)"],
  ["no credentials", withStatus(401), "EACCES", "refused access (status 401)"],
  ["no access", withStatus(403), "EACCES", "refused access (status 403)"],
  ["a redirect to a page", () => redirected(page(200), LOGIN), "EACCES", "redirected to https://login.example/form, "],
  ["a redirect to a page with ranges", () => redirected(page(206), LOGIN), "EACCES", "redirected to https://login"],
  ["a page", () => page(200), "EIO", "a page (text/html) instead of the file"],
  ["a bad request", withStatus(400), "EIO", "answered with status 400"],
  ["a redirect that was not followed", withStatus(302), "EIO", "answered with status 302"],
  ["no content", () => ({ status: 204, headers: {}, body: bytes(0) }), "EIO", "answered with status 204"],
  ["a range past the end", withStatus(416), "EIO", "ends before the requested range"],
  ["no Content-Range", withHeaders({ "content-range": null }), "EIO", "no Content-Range"],
  ...[
    "bytes 19-29/100",
    "bytes 21-29/100",
    "bytes 21-30/100",
    "bytes 20-30/100",
    "bytes 20-28/100",
    "bytes 20-29/25",
    "bytes 20-29/*",
    "bytes */100",
    "bytes 29-20/100",
    "bytes 20-29/99999999999999999999",
    "lines 20-29/100",
    "20-29/100",
    "bytes=20-29/100",
    "",
  ].map((value) =>
    [
      `Content-Range ${value}`,
      withHeaders({ "content-range": value, "content-length": null }),
      "EIO",
      "has the Content-Range",
    ] as const
  ),
  ["another length", withHeaders({ "content-length": "11" }), "EIO", "announces 11 bytes for a range of 10"],
  ["several ranges", withHeaders({ "content-type": "multipart/byteranges; boundary=x" }), "EIO", "several ranges"],
  ["compression", withHeaders({ "content-encoding": "gzip" }), "EIO", "compressed the answer (gzip)"],
  [
    "a short body",
    (answer) => withHeaders({ "content-length": null })({ ...answer, body: bytes(9) }),
    "EIO",
    "ended after 9 of 10 bytes",
  ],
  [
    "no body",
    ({ headers }) =>
      new Response(null, {
        status: 206,
        headers: withHeaders({ "content-length": null })({ headers } as FileAnswer).headers,
      }),
    "EIO",
    "ended after 0 of 10 bytes",
  ],
  [
    "a long body",
    (answer) => withHeaders({ "content-length": null })({ ...answer, body: bytes(11) }),
    "EIO",
    "longer than the 10 bytes",
  ],
];

for (const [name, change, code, detail] of WRONG) {
  test(`httpSource: an answer with ${name} is ${code}`, NO_ENGINE, async () => {
    const error = await failure(() => open(new HttpFile(bytes(100)), change).read(20, 30));
    assertEquals(error.code, code);
    assert(error.detail.startsWith("https://files.example/a/b.sealed: "), error.detail);
    assert(error.detail.includes(detail), error.detail);
  });
}

test("httpSource: an unwanted body is cancelled, and no more than the range is taken from it", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  for (const status of [200, 206, 403, 404, 500]) {
    const { body, taken, isCancelled } = endless();
    const source = open(
      file,
      ({ headers: { "content-length": _, ...headers } }) => new Response(body, { status, headers }),
    );
    await failure(() => source.read(20, 45));
    assert(isCancelled());
    assert(taken() <= 3, `${taken()}`);
  }
});

test("httpSource: a server that does not expose Content-Range to a page is told what to do", NO_ENGINE, async () => {
  const source = open(new HttpFile(bytes(100)), (answer) => {
    const response = responseOf(withHeaders({ "content-range": null })(answer));
    Object.defineProperty(response, "type", { value: "cors" });
    return response;
  });
  assert(
    (await failure(() => source.read(0, 10))).hint!.includes("Access-Control-Expose-Headers: Content-Range, ETag"),
  );
});

// ---- Versions -------------------------------------------------------------------------------------------------------

const DATES = ["Sun, 29 Nov 2026 10:00:00 GMT", "Sun, 29 Nov 2026 10:00:01 GMT"] as const;

/** The versions of a file: its ETags, its dates, and the header that asks for the first one. */
const VERSIONS: readonly [
  etags: readonly [string | null, string | null],
  dates: readonly [string | null, string | null],
  asked: Record<string, string>,
][] = [
  [['"1"', '"2"'], [null, null], { "if-match": '"1"' }],
  [['"1"', '"2"'], [DATES[0], DATES[0]], { "if-match": '"1"' }],
  [['"1"', null], [null, null], { "if-match": '"1"' }],
  [['"1"', 'W/"1"'], [null, null], { "if-match": '"1"' }],
  [[null, null], DATES, { "if-unmodified-since": DATES[0] }],
  [[null, null], [DATES[0], null], { "if-unmodified-since": DATES[0] }],
  [['W/"1"', 'W/"2"'], [DATES[0], DATES[0]], { "if-unmodified-since": DATES[0] }],
  [['W/"1"', 'W/"1"'], DATES, { "if-unmodified-since": DATES[0] }],
  [['W/"1"', 'W/"2"'], [null, null], {}],
  [["1", "2"], [null, null], {}],
];

for (const [etags, dates, asked] of VERSIONS) {
  test(
    `httpSource: ETag ${etags.join(", then ")} and date ${dates.join(", then ")} is a change`,
    NO_ENGINE,
    async () => {
      for (const checksVersion of [true, false]) {
        const file = new HttpFile(bytes(100));
        Object.assign(file, { checksVersion, etag: etags[0], lastModified: dates[0] });
        const source = open(file);
        await source.readEnds(10, 10);
        assertEquals(await source.read(20, 30), bytes(100).slice(20, 30));
        const { "if-match": match, "if-unmodified-since": since } = file.requests.at(-1)!;
        assertEquals({ ...match && { "if-match": match }, ...since && { "if-unmodified-since": since } }, asked);
        Object.assign(file, { content: bytes(100, 1), etag: etags[1], lastModified: dates[1] });
        const { code, detail } = await failure(() => source.read(20, 30));
        assertEquals([code, detail.includes("has changed since it was opened")], ["EIO", true]);
      }
    },
  );
}

test("httpSource: another size is a change, whatever the ETag", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  const source = open(file);
  await source.read(0, 10);
  file.content = bytes(101);
  assert((await failure(() => source.read(0, 10))).detail.includes("it had 100 bytes, and has 101 now"));
});

test("httpSource: a file that changes between its start and its end does not open", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  const source = open(file, (answer) => {
    file.etag = '"2"';
    return answer;
  });
  assert((await failure(() => source.readEnds(10, 10))).detail.includes("has changed"));
});

test("httpSource: a strong ETag decides alone: a copy of the file has another date", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  file.lastModified = DATES[0];
  const source = open(file);
  await source.read(0, 10);
  file.lastModified = DATES[1];
  assertEquals(await source.read(20, 30), bytes(100).slice(20, 30));
});

// ---- Retries --------------------------------------------------------------------------------------------------------

/** Failures after which a request is sent again. */
const TRANSIENT: readonly (readonly [name: string, change: (answer: FileAnswer) => FileAnswer | Response])[] = [
  ...[429, 500, 502, 503, 504].map((status) => [`status ${status}`, withStatus(status)] as const),
  ["a network error", () => {
    throw new TypeError(`no route to ${ADDRESS} (x)`, { cause: { code: "EHOSTUNREACH" } });
  }],
  ["a body that breaks off", ({ headers }) => {
    const body = new ReadableStream({
      start: (controller) => controller.enqueue(bytes(5)),
      pull: (controller) => controller.error(new TypeError(`terminated: ${ADDRESS}`)),
    }, { highWaterMark: 0 });
    return new Response(body, {
      status: 206,
      headers: withHeaders({ "content-length": null })({ headers } as FileAnswer).headers,
    });
  }],
];

for (const [name, change] of TRANSIENT) {
  test(`httpSource: after ${name} the request is sent again, which is told`, NO_ENGINE, async () => {
    const file = new HttpFile(bytes(100));
    const told: HttpRetry[] = [];
    const options = { retries: 2, onRetry: (retry: HttpRetry) => void told.push(retry) };
    let failures = 1;
    const recovering = open(file, (answer) => failures-- > 0 ? change(answer) : answer, options);
    assertEquals(await recovering.read(20, 30), bytes(100).slice(20, 30));
    assertEquals(told.map(({ attempt }) => attempt), [1]);
    assertEquals(told[0]!.error.code, "EIO");
    assert(!told[0]!.error.message.includes(SECRET));

    const failing = open(file, change, options);
    const count = file.requests.length;
    const error = await failure(() => failing.read(20, 30));
    assertEquals([error.code, file.requests.length - count, told.length], ["EIO", 3, 3]);
    assert(error.detail.endsWith("at the last of 3 attempts"), error.detail);
    assert(told.every(({ delay, attempt }) => delay >= 125 * 2 ** (attempt - 1) && delay <= 250 * 2 ** (attempt - 1)));
  });
}

test("httpSource: other answers are not asked for again", NO_ENGINE, async () => {
  for (const [, change] of WRONG) {
    const file = new HttpFile(bytes(100));
    await failure(() => open(file, change, { retries: 3 }).read(20, 30));
    assertEquals(file.requests.length, 1);
  }
});

test("httpSource: Retry-After is heeded up to a minute", NO_ENGINE, async () => {
  const wait = (value: string) => (answer: FileAnswer) =>
    withHeaders({ "retry-after": value })(withStatus(503)(answer));
  const stop = new Error("stop");
  const delayFor = async (value: string): Promise<number> => {
    let told = NaN;
    const onRetry = ({ delay }: HttpRetry) => {
      told = delay;
      throw stop;
    };
    const source = open(new HttpFile(bytes(10)), wait(value), { retries: 1, onRetry });
    assertStrictEquals(await assertRejects(() => source.read(0, 1)), stop);
    return told;
  };
  assertEquals(await delayFor("7"), 7000);
  assertEquals(await delayFor("60"), 60_000);
  const date = await delayFor(new Date(Date.now() + 30_000).toUTCString());
  assert(date > 20_000 && date <= 30_000, `${date}`);
  for (const value of ["0", "soon", "-1", new Date(0).toUTCString()]) assert(await delayFor(value) <= 250, value);
  for (const value of ["61", "99999999999999999999"]) {
    const file = new HttpFile(bytes(10));
    const error = await failure(() => open(file, wait(value), { retries: 4 }).read(0, 1));
    assert(error.hint!.includes("asks to wait"), error.message);
    assertEquals(file.requests.length, 1);
  }
});

// ---- Headers and URLs -----------------------------------------------------------------------------------------------

test("httpSource: own headers are sent; a function gives new ones for each attempt", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  await open(file, undefined, { headers: { Authorization: "Bearer 1" } }).read(0, 1);
  await open(file, undefined, { headers: new Headers({ "x-token": "2" }) }).read(0, 1);
  let token = 2;
  let failures = 1;
  const source = open(file, (answer) => failures-- > 0 ? withStatus(500)(answer) : answer, {
    headers: () => Promise.resolve({ "x-token": `${++token}` }),
    retries: 1,
  });
  await source.read(0, 1);
  assertEquals(file.requests[0]!.authorization, "Bearer 1");
  assertEquals(file.requests.slice(1).map((headers) => headers["x-token"]), ["2", "3", "4"]);
  const failed = new Error("no token");
  const without = open(file, undefined, { headers: () => Promise.reject(failed), retries: 3 });
  assertStrictEquals(await assertRejects(() => without.read(0, 1)), failed);
});

test("httpSource: the URL is sent with its query and without its fragment", NO_ENGINE, async () => {
  const asked: string[] = [];
  const file = new HttpFile(bytes(10));
  const own: HttpSourceOptions["fetch"] = (url, init) => {
    asked.push(url);
    return file.fetch(url, init);
  };
  await httpSource(`${ADDRESS}#part`, { fetch: own }).read(0, 1);
  await httpSource(new URL(ADDRESS), { fetch: own }).read(0, 1);
  assertEquals(asked, [ADDRESS, ADDRESS]);
});

test("httpSource: wrong arguments are refused before any request", NO_ENGINE, async () => {
  const refused = (action: () => unknown, type: new () => Error, text: string) => {
    const { message } = assertThrows(action, type as ErrorConstructor);
    assert(message.includes(text) && !message.includes(SECRET), message);
  };
  const url = "https://files.example/a";
  const bad = (options: unknown) => () => httpSource(url, options as HttpSourceOptions);
  for (const value of [undefined, null, 5, {}]) refused(() => httpSource(value as string), TypeError, '"url" expected');
  for (
    const value of [
      `http://a:${SECRET}/`,
      `ftp://a/${SECRET}`,
      "file:///etc/passwd",
      "data:,x",
      `https://u:${SECRET}@a/`,
    ]
  ) {
    refused(() => httpSource(value), TypeError, '"url" expected');
  }
  for (const value of [null, 5, "x"]) refused(bad(value), TypeError, '"options" expected an object');
  refused(bad({ header: {} }), TypeError, 'did you mean "headers"?');
  for (const value of [null, 5, SECRET, { "a b": SECRET }, { a: `${SECRET}\n\0` }]) {
    refused(bad({ headers: value }), TypeError, '"headers" expected');
  }
  for (const name of ["Range", "If-Match", "if-range", "Accept-Encoding"]) {
    refused(bad({ headers: { [name]: SECRET } }), TypeError, `"headers" expected no ${name.toLowerCase()}`);
  }
  for (const name of ["fetch", "onRetry"]) refused(bad({ [name]: {} }), TypeError, `"${name}" expected a function`);
  refused(bad({ signal: {} }), TypeError, '"signal" expected an AbortSignal');
  refused(bad({ retries: "3" }), TypeError, '"retries" expected a number');
  for (const value of [-1, 1.5, NaN, 101, Infinity]) refused(bad({ retries: value }), RangeError, '"retries" expected');

  const source = httpSource(url, { fetch: () => Promise.reject(new Error("a request")) });
  for (const [start, end] of [[-1, 1], [0.5, 1], [0, NaN], [0, 2 ** 53]] as const) {
    await assertRejects(() => source.read(start, end), RangeError);
    await assertRejects(() => source.readEnds(start, end), RangeError);
  }
  await assertRejects(() => source.read("0" as never, 1), TypeError, '"start" expected a number');
  await assertRejects(() => source.read(0, 1, { signal: {} as AbortSignal }), TypeError, '"signal"');
  await assertRejects(() => source.readEnds(0, 1, { sinal: 1 } as never), TypeError, 'did you mean "signal"?');
  const wrong = httpSource(url, { fetch: () => Promise.resolve(5) as never, retries: 3 });
  await assertRejects(() => wrong.read(0, 1), TypeError, '"fetch" expected a function that returns a Response');
  const late = httpSource(url, { headers: () => ({ range: "bytes=0-1" }), retries: 3 });
  await assertRejects(() => late.read(0, 1), TypeError, '"headers" expected no range');
});

// ---- Abort ----------------------------------------------------------------------------------------------------------

/** Where a request may be when it is aborted, and a change that keeps it there. */
const POINTS: Readonly<Record<string, (init: RequestInit) => Promise<Response>>> = {
  "before its answer": ({ signal }) =>
    new Promise((_, reject) => signal!.addEventListener("abort", () => reject(signal!.reason))),
  "in its body": ({ signal }) => {
    const body = new ReadableStream({
      start(controller) {
        controller.enqueue(bytes(5));
        signal!.addEventListener("abort", () => controller.error(signal!.reason));
      },
    });
    return Promise.resolve(new Response(body, { status: 206, headers: { "content-range": "bytes 0-9/100" } }));
  },
  "in a delay": () => Promise.resolve(new Response(null, { status: 503, headers: { "retry-after": "50" } })),
};

for (const [point, stalled] of Object.entries(POINTS)) {
  test(
    `httpSource: a request that is aborted ${point} rejects with the reason, and is not sent again`,
    NO_ENGINE,
    async () => {
      for (
        const [which, method] of [["source", "read"], ["read", "read"], ["read", "readEnds"], ["source", "readEnds"]]
      ) {
        const controller = new AbortController();
        const { signal } = controller;
        const reason = new Error("enough");
        let [requests, retries] = [0, 0];
        const asked = Promise.withResolvers<void>();
        const source = httpSource(ADDRESS, {
          ...which === "source" && { signal },
          onRetry() {
            retries++;
            asked.resolve();
          },
          fetch(_url, init) {
            requests++;
            if (point !== "in a delay") asked.resolve();
            return stalled(init);
          },
        });
        const options = which === "read" ? { signal } : {};
        const pending = method === "read" ? source.read(0, 10, options) : source.readEnds(10, 10, options);
        pending.catch(() => {});
        await asked.promise;
        controller.abort(reason);
        assertStrictEquals(await assertRejects(() => pending), reason);
        const sent = requests;
        assertStrictEquals(await assertRejects(() => source.read(0, 10, options)), reason);
        assertEquals(requests, sent);
      }
    },
  );
}

test("httpSource: other requests go on when one is aborted", NO_ENGINE, async () => {
  const file = new HttpFile(bytes(100));
  const controller = new AbortController();
  const source = httpSource(ADDRESS, {
    async fetch(url, init) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      return await file.fetch(url, init);
    },
  });
  const first = source.read(0, 10, { signal: controller.signal });
  const second = source.read(10, 20);
  controller.abort();
  await assertRejects(() => first, DOMException);
  assertEquals(await second, bytes(100).slice(10, 20));
});
