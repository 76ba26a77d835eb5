/**
 * `httpSource()` with nginx, and with servers that break off, stall, lie and throttle.
 */
import { Buffer } from "node:buffer";
import { renameSync, utimesSync, writeFileSync } from "node:fs";
import type { ServerResponse } from "node:http";
import { join } from "node:path";
import { httpSource, KcapiError, openSealed, seal } from "../mod.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, test } from "./support/deps.ts";
import { bytes, collect } from "./support/support.ts";
import { HttpFile } from "./support/http_file.ts";
import { freePort, needsNginx, startNginx, startServer } from "./support/web_servers.ts";

const NGINX = { engine: "userspace", needs: needsNginx } as const;
const HERE = { engine: "userspace" } as const;
const key = bytes(32, 1);
const FORMATS = ["AES128_GCM_HKDF_4KB", "AES256_CTR_HMAC_SHA256_64KB"] as const;

async function sealed(
  plaintext: Uint8Array,
  format: typeof FORMATS[number] = FORMATS[0],
): Promise<Uint8Array<ArrayBuffer>> {
  return Buffer.concat(await Array.fromAsync(seal({ key, format }, plaintext))) as Uint8Array<ArrayBuffer>;
}

let date = 1_700_000_000;

/** Another file in the place of one, at once. */
function replace(path: string, content: Uint8Array): void {
  writeFileSync(`${path}.new`, content);
  utimesSync(`${path}.new`, ++date, date); // Last-Modified has whole seconds
  renameSync(`${path}.new`, path);
}

async function failure(action: () => Promise<unknown>): Promise<KcapiError> {
  const error = await assertRejects(action, KcapiError);
  assertEquals(error.operation, "httpSource", error.message);
  return error;
}

// ---- nginx ----------------------------------------------------------------------------------------------------------

test("nginx: ranges of sealed files are those of the plaintext", NGINX, async () => {
  await using server = await startNginx("gzip on; gzip_types *; gzip_min_length 1;");
  for (const format of FORMATS) {
    for (const length of [0, 1, 5_000, 300_000]) {
      const plaintext = bytes(length);
      writeFileSync(join(server.root, "file"), await sealed(plaintext, format));
      using file = await openSealed(httpSource(`${server.url}/file`), { key, format });
      assertEquals(file.size, length);
      const ranges = Array.from(
        { length: 10 },
        () => [Math.random(), Math.random()].map((at) => Math.floor(at * length)),
      );
      await Promise.all(ranges.map(async ([start, end]) => {
        assertEquals(await file.bytes(start, end), plaintext.slice(start, end));
      }));
      assertEquals(await collect(file.stream()), plaintext);
    }
  }
});

test("nginx: a file that is replaced while it is open is EIO, and opens again as the other one", NGINX, async () => {
  await using server = await startNginx("location /no-etag/ { etag off; alias ROOT/; }");
  for (const path of ["file", "no-etag/file"]) {
    const plaintexts = [bytes(100_000, 1), bytes(100_000, 2)] as const;
    replace(join(server.root, "file"), await sealed(plaintexts[0]));
    const source = () => httpSource(`${server.url}/${path}`);
    using file = await openSealed(source(), { key, format: FORMATS[0] });
    assertEquals(await file.bytes(0, 10), plaintexts[0].slice(0, 10));
    replace(join(server.root, "file"), await sealed(plaintexts[1]));
    const { code, detail } = await failure(() => file.bytes(50_000, 50_010));
    assertEquals([code, detail.includes("has changed since it was opened")], ["EIO", true], detail);
    using other = await openSealed(source(), { key, format: FORMATS[0] });
    assertEquals(await other.bytes(50_000, 50_010), plaintexts[1].slice(50_000, 50_010));
  }
});

test("nginx: what the server refuses is an error of its own", NGINX, async () => {
  const basic = `basic ${Buffer.from("user:s3cr3t").toString("base64")}`;
  await using server = await startNginx(`
    location /whole/ { max_ranges 0; alias ROOT/; }
    location /denied/ { deny all; }
    location /private/ { if ($http_authorization != "${basic}") { return 401; } alias ROOT/; }
    location /session/ { return 302 /login.html?next=s3cr3t; }
    location /moved/ { return 307 /file; }
    location = /login.html { types { text/html html; } }`);
  const plaintext = bytes(50_000);
  writeFileSync(join(server.root, "file"), await sealed(plaintext));
  writeFileSync(join(server.root, "empty"), "");
  writeFileSync(join(server.root, "login.html"), "<h1>Log in</h1>".repeat(10_000));
  const open = async (path: string, options = {}) => {
    using file = await openSealed(httpSource(`${server.url}${path}?s3cr3t`, options), { key, format: FORMATS[0] });
    assertEquals(await file.bytes(20_000, 30_000), plaintext.slice(20_000, 30_000));
  };
  await open("/moved/file");
  await open("/private/file", { headers: { authorization: basic } });
  const refused = [
    ["/whole/file", "EIO", "does not support ranges"],
    ["/missing", "ENOENT", "no such file (status 404)"],
    ["/denied/file", "EACCES", "refused access (status 403)"],
    ["/private/file", "EACCES", "refused access (status 401)"],
    ["/session/file", "EACCES", `redirected to ${server.url}/login.html, which is a page`],
  ] as const;
  for (const [path, code, detail] of refused) {
    const error = await failure(() => open(path));
    assertEquals([error.code, error.detail.includes(detail)], [code, true], error.message);
    assert(!error.message.includes("s3cr3t"), error.message);
  }
  assertEquals(await httpSource(`${server.url}/empty`).readEnds(10, 10), {
    size: 0,
    head: new Uint8Array(0),
    tail: new Uint8Array(0),
  });
});

test("nginx: reads that it throttles with 429 succeed later", NGINX, async () => {
  await using server = await startNginx("limit_req zone=slow; limit_req_status 429;");
  const content = bytes(10_000);
  writeFileSync(join(server.root, "file"), content);
  let retries = 0;
  const source = httpSource(`${server.url}/file`, {
    retries: 20,
    onRetry({ error }) {
      assert(error.detail.includes("status 429"), error.message);
      retries++;
    },
  });
  await Promise.all(Array.from({ length: 4 }, async (_, i) => {
    assertEquals(await source.read(1000 * i, 1000 * i + 500), content.slice(1000 * i, 1000 * i + 500));
  }));
  assert(retries > 0);
});

// ---- Servers that fail ----------------------------------------------------------------------------------------------

/** Answers from a file, as `change` has it. */
function serve(file: HttpFile, change: (response: ServerResponse, send: () => void, body: Uint8Array) => void) {
  return startServer((request, response) => {
    const { status, headers, body } = file.answer(new Headers(request.headers as Record<string, string>));
    response.writeHead(status, headers);
    change(response, () => response.end(body), body);
  });
}

/** Sends a part of an answer, and ends the connection. */
const CUTS: Readonly<Record<string, (response: ServerResponse, body: Uint8Array) => void>> = {
  "before the answer": ({ socket }) => socket!.destroy(),
  "after the headers": (response) => {
    response.flushHeaders();
    setTimeout(() => response.socket!.destroy(), 1);
  },
  "in the body": (response, body) => {
    response.write(body.subarray(0, 100));
    setTimeout(() => response.socket!.destroy(), 1);
  },
};

for (const [where, cut] of Object.entries(CUTS)) {
  test(`a connection that ends ${where} is tried again, and then an error`, HERE, async () => {
    const file = new HttpFile(bytes(10_000));
    let cuts = 1;
    await using server = await serve(file, (response, send, body) => cuts-- > 0 ? cut(response, body) : send());
    const source = httpSource(`${server.url}/file?s3cr3t`, { retries: 1 });
    assertEquals(await source.read(10, 5_000), file.content.slice(10, 5_000));
    cuts = Infinity; // Bun and Deno try again by themselves, too
    const { code, detail, message } = await failure(() => source.read(10, 5_000));
    assertEquals([code, detail.endsWith("at the last of 2 attempts")], ["EIO", true], detail);
    assert(!message.includes("s3cr3t"), message);
  });
}

test("a server that cannot be reached is EIO, and its URL has no query in the message", HERE, async () => {
  const port = await freePort();
  const told: string[] = [];
  const source = httpSource(`http://127.0.0.1:${port}/file?s3cr3t`, {
    retries: 1,
    onRetry: ({ error }) => void told.push(error.message),
  });
  const { code, message, cause } = await failure(() => source.read(0, 1));
  assertEquals([code, cause, told.length], ["EIO", undefined, 1]);
  for (const text of [message, ...told]) assert(!text.includes("s3cr3t"), text);
});

test("a body of another length than its range is an error, without Content-Length too", HERE, async () => {
  for (const [change, text] of [[-1, "ended after 99 of 100"], [1, "longer than the 100 bytes"]] as const) {
    const file = new HttpFile(bytes(10_000));
    await using server = await startServer((request, response) => {
      const { status, headers } = file.answer(new Headers(request.headers as Record<string, string>));
      const { "content-length": _, ...others } = headers;
      response.writeHead(status, others).end(bytes(100 + change));
    });
    const { code, detail } = await failure(() => httpSource(server.url, { retries: 0 }).read(0, 100));
    assertEquals([code, detail.includes(text)], ["EIO", true], detail);
  }
});

test("the request ends at the server when the reader closes, and when a signal aborts", HERE, async () => {
  const file = new HttpFile(await sealed(bytes(100_000)));
  let stalls = false;
  let [asked, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  await using server = await serve(file, (response, send, body) => {
    if (!stalls) return send();
    const { resolve } = ended;
    response.on("close", () => resolve());
    response.write(body.subarray(0, 10), () => asked.resolve());
  });
  const stop = new Error("stop");
  const options = { key, format: FORMATS[0] };
  /** Opens a file; what it returns begins a read. */
  const ways: ((signal: AbortSignal) => Promise<() => Promise<unknown>>)[] = [
    async (signal) => {
      const reader = await openSealed(httpSource(server.url), { ...options, signal });
      return () => reader.bytes(50_000, 60_000);
    },
    async (signal) => {
      const reader = await openSealed(httpSource(server.url, { signal }), options);
      return () => reader.bytes(50_000, 60_000).finally(() => reader.close());
    },
    async (signal) => {
      const reader = await openSealed(httpSource(server.url), options);
      return () => {
        signal.addEventListener("abort", () => reader.close());
        return reader.bytes(50_000, 60_000).catch(({ code }) => {
          assertEquals(code, "ECANCELED");
          throw stop;
        });
      };
    },
    (signal) => Promise.resolve(() => httpSource(server.url).read(0, 100, { signal })),
  ];
  for (const way of ways) {
    stalls = false;
    [asked, ended] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
    const abort = new AbortController();
    const read = await way(abort.signal);
    stalls = true;
    const reading = read();
    reading.catch(() => {});
    await asked.promise;
    abort.abort(stop);
    assertStrictEquals(await assertRejects(() => reading), stop);
    await ended.promise;
  }
});
