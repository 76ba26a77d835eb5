/**
 * The vault in examples/vault: its answers, its files on the disk, damage and abuse. Most tests call the handler in
 * this process. Those of the start files use raw connections to a server.
 */
import { Buffer } from "node:buffer";
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import fc from "fast-check";
import { createHandler } from "../examples/vault/handler.ts";
import { type FileVersion, OpenFiles } from "../examples/vault/open_files.ts";
import { keyOf, parseOptions } from "../examples/vault/start.ts";
import { MAX_NAME, Vault } from "../examples/vault/vault.ts";
import { WorkerPool } from "../mod.ts";
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
  engine,
  openFiles,
  type Requirements,
  runtime,
  spawn,
  tempDir,
  test as register,
  type TestBody,
} from "./support/deps.ts";
import { type Bytes, bytes, concat } from "./support/bytes.ts";
import { Server, until } from "./vault/server.ts";

/** The vault seals as AES-GCM, which no kernel engine runs. */
function test(name: string, ...rest: [TestBody] | [Requirements, TestBody]): void {
  const [requirements, body] = rest.length === 1 ? [{}, rest[0]] : rest;
  register(name, { ...requirements, engine: "userspace" }, body);
}

const KEY = bytes(32, 9);
const SEGMENT = 65_536;

interface InProcess {
  directory: string;
  /** Calls the handler. */
  ask: (method: string, path: string, headers?: Record<string, string>, body?: BodyInit) => Promise<Response>;
  put: (name: string, content: Bytes) => Promise<string>;
  /** The path of the only stored file. */
  only: () => string;
  close: () => Promise<void>;
}

interface Setting {
  directory?: string;
  limit?: number;
  key?: Bytes;
  pool?: WorkerPool;
}

async function inProcess(
  { directory = tempDir(), limit = 2 ** 30, key = KEY, pool }: Setting = {},
): Promise<InProcess> {
  const vault = await Vault.open(directory, key, pool);
  const handle = createHandler(vault, { page: PAGE, limit, hosts: ["vault"] });
  const ask: InProcess["ask"] = async (method, path, headers = {}, body) => {
    const init = { method, headers, duplex: "half", ...(body !== undefined && { body }) };
    return await handle(new Request(`http://vault${path}`, init as RequestInit));
  };
  return {
    directory,
    ask,
    put: async (name, content) => {
      const response = await ask("PUT", `/files/${encodeURIComponent(name)}`, {}, content);
      assert(response.status === 201 || response.status === 204, `${response.status}`);
      return response.headers.get("etag")!;
    },
    only: () => {
      const [name, ...others] = storedIn(directory);
      assert(name !== undefined && others.length === 0);
      return join(directory, name);
    },
    close: () => vault.close(),
  };
}

/** The names on the disk of the stored files, and of uploads under way: without the marker. */
function storedIn(directory: string): string[] {
  return readdirSync(directory).filter((name) => !name.startsWith("."));
}

const PAGE = "<!doctype html><style>a{}</style><script>1</script>";

async function bytesOf(response: Response): Promise<Bytes> {
  return new Uint8Array(await response.arrayBuffer());
}

/** The status, and some headers. */
async function told(response: Response, ...names: string[]): Promise<(number | string | null)[]> {
  await response.body?.cancel();
  return [response.status, ...names.map((name) => response.headers.get(name))];
}

/** Collects what the handler logs during an action. */
async function quietly(action: () => Promise<void>): Promise<string[]> {
  const lines: string[] = [];
  const { error } = console;
  console.error = (line: string) => lines.push(line);
  try {
    await action();
  } finally {
    console.error = error;
  }
  return lines;
}

// ---- Answers ------------------------------------------------------------------------------------------------------

test("the vault returns stored files of all sizes around a segment's", async () => {
  const { ask, put } = await inProcess();
  const first = SEGMENT - 32 - 40 - 2 - 4; // its header, its tag, the name's length, the name
  for (const size of [0, 1, 1000, first - 1, first, first + 1, first + SEGMENT - 32, 3 * SEGMENT]) {
    const content = bytes(size, size + 1);
    await put("name", content);
    const response = await ask("GET", "/files/name");
    assertEquals([response.status, response.headers.get("content-length")], [200, `${size}`]);
    assertEquals(await bytesOf(response), content);
    assertEquals(await told(await ask("HEAD", "/files/name"), "content-length"), [200, `${size}`]);
    assertEquals(await (await ask("GET", "/files")).json(), {
      files: [{ name: "name", size, etag: response.headers.get("etag") }],
      count: 1,
      size,
      damaged: [],
      limit: 2 ** 30,
    });
  }
  assertEquals(openFiles(), 0);
});

test("a pool seals uploads, which a vault without one opens", { sanitize: false }, async () => {
  using pool = new WorkerPool(2);
  const { ask, put, directory } = await inProcess({ pool });
  const content = bytes(2_500_000);
  await put("large", content);
  assertEquals(new Uint8Array(await (await ask("GET", "/files/large")).arrayBuffer()), content);
  const alone = await inProcess({ directory });
  const range = await alone.ask("GET", "/files/large", { range: "bytes=2000000-" });
  assertEquals(new Uint8Array(await range.arrayBuffer()), content.slice(2_000_000));
});

test("the vault answers 201 for a new file, 204 for a replaced one, 404 for a missing one", async () => {
  const { ask, directory } = await inProcess();
  assertEquals(await told(await ask("GET", "/files/a")), [404]);
  assertEquals(await told(await ask("HEAD", "/files/a")), [404]);
  assertEquals(await told(await ask("DELETE", "/files/a")), [404]);
  assertEquals(await told(await ask("PUT", "/files/a", {}, "1"), "content-length"), [201, "0"]);
  assertEquals(await told(await ask("PUT", "/files/a", {}, "2"), "content-length"), [204, null]);
  assertEquals(await told(await ask("PUT", "/files/empty"), "content-length"), [201, "0"]);
  assertEquals(await (await ask("GET", "/files/a")).text(), "2");
  assertEquals(await told(await ask("DELETE", "/files/a")), [204]);
  assertEquals(await told(await ask("GET", "/files/a")), [404]);
  assertEquals(storedIn(directory).length, 1);
});

test("unknown methods, paths and hosts are refused, and Allow lists the methods", async () => {
  const { ask } = await inProcess();
  assertEquals(await told(await ask("POST", "/files/a", {}, "x"), "allow"), [405, "GET, HEAD, PUT, DELETE"]);
  assertEquals(await told(await ask("PUT", "/", {}, "x"), "allow"), [405, "GET, HEAD"]);
  assertEquals(await told(await ask("OPTIONS", "/files"), "allow"), [405, "GET, HEAD"]);
  for (const path of ["/files/", "/file", "/files/a/b", "//files/a", "/files/../vault.ts", "/files/%2e%2e/x"]) {
    assertEquals(await told(await ask("GET", path)), [404], path);
  }
  const vault = await Vault.open(tempDir(), KEY);
  const handle = createHandler(vault, { page: PAGE, limit: 1, hosts: ["localhost"] });
  assertEquals(await told(await handle(new Request("http://rebound.example/files"))), [421]);
});

test("a file's type follows from its name, and it is sandboxed", async () => {
  const { ask, put } = await inProcess();
  for (
    const [name, type] of [
      ["a.MP4", "video/mp4"],
      ["a.wav", "audio/wav"],
      ["a.txt", "text/plain; charset=utf-8"],
      ["a.html", "application/octet-stream"],
      ["a.constructor", "application/octet-stream"],
      ["wav", "application/octet-stream"],
    ]
  ) {
    await put(name!, bytes(3));
    const names = ["content-type", "content-security-policy", "x-content-type-options", "cross-origin-resource-policy"];
    const expected = [200, type!, "sandbox", "nosniff", "same-origin"];
    assertEquals(await told(await ask("GET", `/files/${name}`), ...names), expected);
    assertEquals(await told(await ask("HEAD", `/files/${name}`), ...names), expected);
  }
});

test("the page's policy allows its own script and style, and nothing else", async () => {
  const { ask } = await inProcess();
  const response = await ask("GET", "/");
  const policy = response.headers.get("content-security-policy")!.split("; ");
  assertEquals(await response.text(), PAGE);
  // echo -n 1 | openssl dgst -sha256 -binary | base64, and of a{}
  assert(policy.includes("script-src 'sha256-a4ayc/80/OGda4BO/1o/V0etpOqiLx1JwB5S3beHW0s='"), policy.join());
  assert(policy.includes("default-src 'none'") && policy.includes("frame-ancestors 'none'"));
  assert(policy.some((directive) => /^style-src 'sha256-\S{44}'$/.test(directive)));
  assertEquals(await told(await ask("HEAD", "/"), "content-length"), [200, `${PAGE.length}`]);
});

// ---- Ranges and conditions ----------------------------------------------------------------------------------------

test("a range is answered with 206, an invalid one with the whole file, one behind the end with 416", async () => {
  const { ask, put } = await inProcess();
  const content = bytes(200_000);
  await put("a", content);
  const ranges: [range: string, start: number, end: number][] = [
    ["bytes=0-0", 0, 1],
    ["bytes=0-", 0, 200_000],
    ["bytes=199999-", 199_999, 200_000],
    ["bytes=65000-66000", 65_000, 66_001],
    ["bytes=100-99999999999999999999", 100, 200_000],
    ["bytes=-1", 199_999, 200_000],
    ["bytes=-200000", 0, 200_000],
    ["bytes=-999999", 0, 200_000],
    ["BYTES= 5-6 ", 5, 7],
  ];
  for (const [range, start, end] of ranges) {
    const response = await ask("GET", "/files/a", { range });
    assertEquals(await bytesOf(response.clone()), content.slice(start, end), range);
    assertEquals(await told(response, "content-range", "content-length", "accept-ranges"), [
      206,
      `bytes ${start}-${end - 1}/200000`,
      `${end - start}`,
      "bytes",
    ], range);
  }
  for (const range of ["bytes=-", "bytes=5-4", "bytes=a-b", "bytes=1", "lines=0-5", "bytes=0-1,5-6", "bytes 0-1", ""]) {
    const response = await ask("GET", "/files/a", { range });
    assertEquals(await told(response, "content-range", "content-length"), [200, null, "200000"], range);
  }
  for (const range of ["bytes=200000-", "bytes=200000-200001", "bytes=99999999999999999999-", "bytes=-0"]) {
    assertEquals(await told(await ask("GET", "/files/a", { range }), "content-range"), [416, "bytes */200000"], range);
  }
  // A range is for GET only.
  assertEquals(await told(await ask("HEAD", "/files/a", { range: "bytes=5-6" }), "content-length"), [200, "200000"]);
  assertEquals(openFiles(), 0);
});

test("a range of an empty file is 416 or the whole file", async () => {
  const { ask, put } = await inProcess();
  await put("empty", bytes(0));
  assertEquals(await told(await ask("GET", "/files/empty", { range: "bytes=0-" }), "content-range"), [
    416,
    "bytes */0",
  ]);
  assertEquals(await told(await ask("GET", "/files/empty", { range: "bytes=-5" }), "content-length"), [200, "0"]);
});

test("each upload has its own entity tag, and If-None-Match, If-Match and If-Range compare it", async () => {
  const { ask, put } = await inProcess();
  const older = await put("a", bytes(10));
  const etag = await put("a", bytes(10));
  assert(/^"[0-9a-f]{32}"$/.test(etag) && older !== etag);
  const get = async (headers: Record<string, string>) => await told(await ask("GET", "/files/a", headers), "etag");
  for (const header of [etag, `W/${etag}`, `"x", ${etag}`, `"a,b",W/${etag}`, "*"]) {
    assertEquals(await get({ "if-none-match": header }), [304, etag], header);
    assertEquals(await told(await ask("HEAD", "/files/a", { "if-none-match": header })), [304]);
  }
  for (const header of [older, etag.replaceAll('"', ""), '"*"', ""]) {
    assertEquals(await get({ "if-none-match": header }), [200, etag], header);
  }
  assertEquals(await get({ "if-none-match": etag, range: "bytes=99-" }), [304, etag]);
  for (const header of [etag, `"x", ${etag}`, "*"]) assertEquals(await get({ "if-match": header }), [200, etag]);
  for (const header of [older, `W/${etag}`]) assertEquals((await get({ "if-match": header }))[0], 412);

  const ranged = async (ifRange: string) =>
    (await told(await ask("GET", "/files/a", { range: "bytes=1-2", "if-range": ifRange })))[0];
  assertEquals(await ranged(etag), 206);
  for (const header of [older, `W/${etag}`, "*", new Date().toUTCString(), ""]) assertEquals(await ranged(header), 200);
});

test("PUT and DELETE check If-Match and If-None-Match", async () => {
  const { ask, put, only } = await inProcess();
  const store = async (headers: Record<string, string>, body: BodyInit = "new") =>
    (await told(await ask("PUT", "/files/a", headers, body)))[0];
  assertEquals(await store({ "if-match": "*" }), 412);
  assertEquals(await store({ "if-none-match": "*" }), 201);
  assertEquals(await store({ "if-none-match": "*" }), 412);
  const etag = await put("a", bytes(1));
  assertEquals(await store({ "if-match": '"other"' }), 412);
  assertEquals(await told(await ask("DELETE", "/files/a", { "if-match": '"other"' })), [412]);
  assertEquals(await store({ "if-match": etag }), 204);
  assertEquals(await store({ "content-range": "bytes 0-1/5" }), 400);

  // The condition holds at the end of the upload, too.
  const uploads = Array.from({ length: 20 }, (_, i) => ask("PUT", "/files/b", { "if-none-match": "*" }, `${i}`));
  const statuses = (await Promise.all(uploads)).map(({ status }) => status).sort();
  assertEquals(statuses, [201, ...Array(19).fill(412)]);
  await ask("DELETE", "/files/b");
  only();
});

// ---- Names --------------------------------------------------------------------------------------------------------

test("names with any Unicode, dots and percent signs, and long ones, are stored as they are", async () => {
  const { ask, put, directory } = await inProcess();
  const names = [
    "é",
    "e\u0301",
    "..a",
    ".hidden",
    "a b+c%2f&?#",
    "日本語 🎬.mp4",
    "\u202egnp.exe",
    "\ufeff",
    "x".repeat(MAX_NAME),
  ];
  for (const [i, name] of names.entries()) await put(name, bytes(i));
  const { files } = await (await ask("GET", "/files")).json() as { files: { name: string; size: number }[] };
  const expected = names.map((name, size) => ({ name, size })).sort((a, b) => a.name < b.name ? -1 : 1);
  assertEquals(files.map(({ name, size }) => ({ name, size })), expected);
  for (const [i, name] of names.entries()) {
    assertEquals(await bytesOf(await ask("GET", `/files/${encodeURIComponent(name)}`)), bytes(i));
  }
  const onDisk = storedIn(directory);
  assertEquals(onDisk.length, names.length);
  for (const name of onDisk) assert(/^[0-9a-f]{64}$/.test(name), name);
});

test("an invalid name is refused, and leaves nothing on the disk", async () => {
  const { ask, directory } = await inProcess();
  for (
    const name of ["a%2Fb", "%2e%2e%2Fa", "%00", "a%0Ab", "%7f", "%c2%85", "%ff", "%ed%a0%80", "%", "x".repeat(1025)]
  ) {
    for (const method of ["PUT", "GET", "HEAD", "DELETE"]) {
      assertEquals(
        await told(await ask(method, `/files/${name}`, {}, method === "PUT" ? "x" : undefined)),
        [400],
        name,
      );
    }
  }
  assertEquals(storedIn(directory), []);
});

// ---- On the disk --------------------------------------------------------------------------------------------------

test("the disk has no name and no content in plaintext, and another key opens nothing", async () => {
  const { ask, put, only, directory } = await inProcess();
  await put("a name that tells", concat([Buffer.from("a content that tells"), bytes(100_000)]));
  const file = readFileSync(only());
  assert(!file.includes("that tells") && !only().includes("name"));
  assertEquals(statSync(only()).mode & 0o777, 0o600);
  // In a vault of the other key, which would not open this one.
  const elsewhere = await inProcess({ key: bytes(32, 10) });
  copyFileSync(only(), join(elsewhere.directory, only().slice(directory.length)));
  assertEquals(await told(await elsewhere.ask("GET", "/files/a%20name%20that%20tells")), [404]);
  await quietly(async () => {
    const { files, damaged } = await (await elsewhere.ask("GET", "/files")).json();
    assertEquals([files, damaged.length], [[], 1]);
  });
  assertEquals(await told(await ask("GET", "/files/a%20name%20that%20tells")), [200]);
});

test("damage is an error before the first byte, or errors the stream, never a silent end", async () => {
  const { ask, put, only } = await inProcess();
  const content = bytes(4 * SEGMENT);
  await put("a", content);
  const sealed = readFileSync(only());
  const status = async (method: string, headers: Record<string, string> = {}) =>
    (await told(await ask(method, "/files/a", headers)))[0];
  const spoil = (at: number) => {
    const spoiled = Buffer.from(sealed);
    spoiled[at]! ^= 1;
    writeFileSync(only(), spoiled);
  };

  const lines = await quietly(async () => {
    // The header, the last segment, the length: HEAD detects it, too.
    for (const at of [0, 1, 33, sealed.length - 1, sealed.length - 100]) {
      spoil(at);
      assertEquals([await status("HEAD"), await status("GET")], [500, 500], `byte ${at}`);
    }
    for (const length of [0, 10, 40, SEGMENT, 2 * SEGMENT, sealed.length - 1]) {
      writeFileSync(only(), sealed.subarray(0, length));
      assertEquals([await status("HEAD"), await status("GET")], [500, 500], `${length} bytes`);
    }
    writeFileSync(only(), concat([sealed, bytes(1)]));
    assertEquals(await status("GET"), 500);

    // The first segment of the range.
    spoil(100);
    assertEquals([await status("GET"), await status("GET", { range: "bytes=5-9" })], [500, 500]);
    assertEquals(await bytesOf(await ask("GET", "/files/a", { range: "bytes=-100000" })), content.slice(-100_000));
    const id = only().slice(-64);
    assertEquals((await (await ask("GET", "/files")).json()).damaged, [{ id, code: "EBADMSG" }]);

    // A later one: the bytes before it are right, and the stream errors.
    spoil(2 * SEGMENT + 5);
    assertEquals(await status("GET", { range: `bytes=${2 * SEGMENT}-` }), 500);
    const response = await ask("GET", "/files/a");
    assertEquals(response.status, 200);
    const reader = response.body!.getReader();
    let length = 0;
    await assertRejects(async () => {
      for (;;) {
        const { done, value } = await reader.read();
        assert(!done, "a silent end");
        assertEquals(value, content.slice(length, length + value.length));
        length += value.length;
      }
    });
    assert(length > SEGMENT && length < 2 * SEGMENT, `${length}`);
  });
  assert(lines.length > 10 && lines.every((line) => line.startsWith("EBADMSG")), lines.join("\n"));
  assertEquals(openFiles(), 0);

  // It can be replaced and deleted.
  await put("a", content);
  assertEquals(await bytesOf(await ask("GET", "/files/a")), content);
  writeFileSync(only(), "");
  assertEquals(await status("DELETE"), 204);
});

test("a file that was renamed or put in another's place on the disk does not open", async () => {
  const { ask, put, only, directory } = await inProcess();
  await put("a", bytes(10, 1));
  const a = only();
  await put("b", bytes(10, 2));
  const b = join(directory, storedIn(directory).find((name) => !a.endsWith(name))!);
  const status = async (name: string) => (await told(await ask("GET", `/files/${name}`)))[0];
  await quietly(async () => {
    const kept = join(tempDir(), "b");
    copyFileSync(b, kept);
    copyFileSync(a, b);
    assertEquals([await status("a"), await status("b")], [200, 500]);
    copyFileSync(kept, b);
    renameSync(a, join(directory, "0".repeat(64)));
    assertEquals([await status("a"), await status("b")], [404, 200]);
    mkdirSync(a);
    assertEquals(await status("a"), 500);
    const { files, damaged } = await (await ask("GET", "/files")).json();
    assertEquals(files.map(({ name, size }: { name: string; size: number }) => [name, size]), [["b", 10]]);
    const ids = [["0".repeat(64), "EBADMSG"], [a.slice(-64), "EISDIR"]].sort();
    assertEquals(damaged, ids.map(([id, code]) => ({ id, code })));
  });
});

test("the log names the request, the range and the file on the disk, even for damage in mid-stream", async () => {
  const { ask, put, only } = await inProcess();
  await put("a b", bytes(4 * SEGMENT));
  const path = only();
  const sealed = readFileSync(path);
  sealed[3 * SEGMENT]! ^= 1;
  writeFileSync(path, sealed);
  const lines = await quietly(async () => {
    await assertRejects(async () => await bytesOf(await ask("GET", "/files/a%20b")));
    await assertRejects(async () => await bytesOf(await ask("GET", "/files/a%20b", { range: "bytes=5-250000" })));
    truncateSync(path, 100);
    assertEquals(await told(await ask("HEAD", "/files/a%20b")), [500]);
    assertEquals((await (await ask("GET", "/files")).json()).damaged.length, 1);
    // It is logged once, not for every list.
    assertEquals((await (await ask("GET", "/files")).json()).damaged.length, 1);
  });
  const expected = [
    `EBADMSG: GET /files/a%20b, ${path}: `,
    `EBADMSG: GET /files/a%20b, bytes=5-250000, ${path}: `,
    `EBADMSG: HEAD /files/a%20b, ${path}: `,
    `EBADMSG: GET /files, ${path}: `,
  ];
  assertEquals(lines.map((line, i) => line.slice(0, expected[i]?.length)), expected);
});

test("a damaged file is deleted by its name on the disk, and an intact one is not", async () => {
  const { ask, put, only } = await inProcess();
  await put("a", bytes(10));
  const id = only().slice(-64);
  const remove = async (id: string) => await told(await ask("DELETE", `/damaged/${id}`));
  assertEquals(await remove(id), [409]);
  assertEquals(await remove("0".repeat(64)), [404]);
  assertEquals(await remove(".vault"), [404]);
  truncateSync(only(), 50);
  await quietly(async () => {
    assertEquals((await (await ask("GET", "/files")).json()).damaged, [{ id, code: "EBADMSG" }]);
  });
  // It keeps its name until it is deleted, or replaced.
  assertEquals(await told(await ask("PUT", "/files/a", { "if-none-match": "*" }, "new")), [412]);
  assertEquals(await remove(id), [204]);
  assertEquals(await told(await ask("PUT", "/files/a", { "if-none-match": "*" }, "new")), [201]);
  const { files, damaged } = await (await ask("GET", "/files")).json();
  assertEquals([files.length, damaged], [1, []]);
});

test("the list comes in pages, which stay in order if files are stored or deleted between them", async () => {
  const { ask, put } = await inProcess();
  const names = Array.from({ length: 205 }, (_, i) => `ü & #${String(i).padStart(3, "0")}`);
  await Promise.all(names.map((name, i) => put(name, bytes(i))));
  const page = async (after?: string) =>
    await (await ask("GET", after === undefined ? "/files" : `/files?after=${encodeURIComponent(after)}`)).json();
  const first = await page(), second = await page(first.next);
  assertEquals([first.files.length, second.files.length], [100, 100]);
  assertEquals([first.count, first.size], [205, 204 * 205 / 2]);
  await put("a before all", bytes(1));
  await ask("DELETE", `/files/${encodeURIComponent(second.next)}`);
  const third = await page(second.next);
  assertEquals([third.files.length, third.next, third.count], [5, undefined, 205]);
  const listed = [first, second, third].flatMap(({ files }) => files.map(({ name }: { name: string }) => name));
  assertEquals(listed, names);
  assertEquals(await page("\uffff"), { ...third, files: [] });
});

test("the list shows changes that others made on the disk", async () => {
  const { ask, put, directory, only } = await inProcess();
  await put("a", bytes(10));
  const list = async () => {
    const { files, damaged } = await (await ask("GET", "/files")).json();
    return [files.map(({ name, size }: { name: string; size: number }) => `${name} ${size}`), damaged.length];
  };
  const a = only(), kept = readFileSync(a);
  assertEquals(await list(), [["a 10"], 0]);
  await put("a", bytes(12));
  assertEquals(await list(), [["a 12"], 0]);
  writeFileSync(a, kept); // the older version
  assertEquals(await list(), [["a 10"], 0]);
  await quietly(async () => {
    truncateSync(a, 50);
    assertEquals(await list(), [[], 1]);
  });
  renameSync(a, join(directory, ".gone"));
  assertEquals(await list(), [[], 0]);
  renameSync(join(directory, ".gone"), a);
  writeFileSync(a, kept);
  assertEquals(await list(), [["a 10"], 0]);
});

test(
  "a list opens each file once, and no file that was stored since the start",
  { engine: "userspace" }, // counts by /proc/self/io, which the test kernel does not have
  async () => {
    const { ask, put, directory } = await inProcess();
    const readBytes = () => Number(/^rchar: (\d+)$/m.exec(readFileSync("/proc/self/io", "utf8"))![1]);
    const readBy = async (ask: InProcess["ask"]) => {
      const before = readBytes();
      assertEquals((await (await ask("GET", "/files")).json()).count, 100);
      return readBytes() - before;
    };
    for (let i = 0; i < 100; i++) await put(`${i}`, bytes(SEGMENT));
    const afterPuts = await readBy(ask);
    assert(afterPuts < 10 * SEGMENT, `read ${afterPuts} bytes for a list of what it stored itself`);
    const restarted = await inProcess({ directory });
    const first = await readBy(restarted.ask), second = await readBy(restarted.ask);
    assert(first >= 100 * SEGMENT, `read ${first} bytes for the first list`); // or this test counts the wrong thing
    assert(second < 10 * SEGMENT, `read ${second} bytes for the second list`);
  },
);

test("a vault opens with the key it was first used with, and with no other", async () => {
  const { put, directory } = await inProcess();
  const refused = async (message: string, key: Bytes) => {
    const error = await assertRejects(() => Vault.open(directory, key)) as Error;
    assertStringIncludes(error.message, message);
    assertEquals(error.message.includes("\n"), false);
  };
  const marker = join(directory, ".vault"), other = bytes(32, 10);
  // Also where nothing was stored yet.
  await refused("not the key", other);
  await put("a", bytes(10));
  await refused("not the key", other);
  await Vault.open(directory, KEY);
  // A backup that was restored without the marker.
  rmSync(marker);
  await refused("none opens with this key", other);
  assert(!existsSync(marker));
  await Vault.open(directory, KEY);
  assert(existsSync(marker));
  await refused("not the key", other);
  writeFileSync(marker, "");
  await refused("does not open", KEY);
  // A directory with other things in it is not a vault.
  const home = tempDir();
  writeFileSync(join(home, "letter.txt"), "");
  await assertRejects(() => Vault.open(home, KEY));
  assertEquals(readdirSync(home), ["letter.txt"]);
});

test("an upload that is cut off, too large or of another length leaves the stored file as it was", async () => {
  const { ask, put, only, directory } = await inProcess({ limit: 100_000 });
  await put("kept", bytes(5));
  const before = readFileSync(only());
  const isAsBefore = () => assertEquals(new Uint8Array(readFileSync(only())), new Uint8Array(before));
  const broken = (count: number) => {
    let left = count;
    return new ReadableStream({
      pull: (controller) => left-- > 0 ? controller.enqueue(bytes(30_000)) : controller.error(new Error("gone")),
    });
  };
  const store = async (name: string, headers: Record<string, string>, body: BodyInit) =>
    (await told(await ask("PUT", `/files/${name}`, headers, body)))[0];
  for (const name of ["kept", "new"]) {
    assertEquals(await store(name, {}, broken(0)), 400);
    assertEquals(await store(name, {}, broken(3)), 400);
    isAsBefore();
    assertEquals(await store(name, { "content-length": "100001" }, "never read"), 413);
    assertEquals(await store(name, {}, broken(9)), 413);
    assertEquals(await store(name, {}, bytes(100_001)), 413);
    isAsBefore();
    assertEquals(await store(name, { "content-length": "4" }, streamOfText("abc")), 400);
    assertEquals(await store(name, { "content-length": "2" }, streamOfText("abc")), 400);
    isAsBefore();
  }
  assertEquals(await store("kept", {}, bytes(100_000)), 204);
  assertEquals([storedIn(directory).length, openFiles()], [1, 0]);
});

function streamOfText(text: string): ReadableStream {
  return new Blob([text]).stream();
}

test("concurrent uploads of one name do not mix, and readers get one of them", async () => {
  const { ask, put, only } = await inProcess();
  const versions = [1, 2, 3, 4, 5, 6].map((i) => bytes(50_000 * i, i));
  await put("a", versions[0]!);
  const read = async () => {
    const content = await bytesOf(await ask("GET", "/files/a"));
    assertEquals(content, versions[content.length / 50_000 - 1]!);
  };
  await Promise.all(versions.flatMap((version) => [put("a", version), read()]));
  await read();
  only();
  assertEquals(openFiles(), 0);
});

test("a response that is not read to its end leaves no descriptor", async () => {
  const { ask, put } = await inProcess();
  await put("a", bytes(5 * SEGMENT));
  await (await ask("GET", "/files/a")).body!.cancel();
  const reader = (await ask("GET", "/files/a")).body!.getReader();
  await reader.read();
  await reader.cancel();
  await bytesOf(await ask("GET", "/files/a", { range: "bytes=5-6" }));
  assertEquals(openFiles(), 0);
});

// ---- Files that stay open -------------------------------------------------------------------------------------------

/** Runs an action as if the files had been stored some seconds ago: others do not stay open. */
async function later(action: () => Promise<void>): Promise<void> {
  const { now } = Date;
  Date.now = () => now() + 5000;
  try {
    await action();
  } finally {
    Date.now = now;
  }
}

test("files stay open between requests: the last 64, and none after the vault is closed", async () => {
  const { ask, put, close } = await inProcess();
  const names = Array.from({ length: 80 }, (_, i) => `file ${i}`);
  for (const [i, name] of names.entries()) await put(name, bytes(100, i));
  assertEquals(openFiles(), 0);
  await later(async () => {
    const read = async (i: number) => {
      const response = await ask("GET", `/files/${names[i]}`, { range: "bytes=10-19" });
      assertEquals(await bytesOf(response), bytes(100, i).slice(10, 20));
    };
    for (const i of names.keys()) await read(i);
    assertEquals(openFiles(), 64);
    await Promise.all(names.keys().map(read));
    assertEquals(openFiles(), 64);
    assertEquals(await told(await ask("HEAD", "/files/file%201")), [200]);
    await close();
    assertEquals(openFiles(), 0);
  });
});

test("ranges under way are those of the version they began with when it is replaced or deleted", async () => {
  const { ask, put, close } = await inProcess();
  const [first, second] = [bytes(5 * SEGMENT, 1), bytes(5 * SEGMENT, 2)];
  await put("a", first);
  await later(async () => {
    const begin = async () => {
      const reader = (await ask("GET", "/files/a", { range: "bytes=10-" })).body!.getReader();
      const { value } = await reader.read();
      return async () => {
        const chunks = [value!];
        for (let result; !(result = await reader.read()).done;) chunks.push(result.value);
        return concat(chunks);
      };
    };
    const get = async () => await bytesOf(await ask("GET", "/files/a", { range: "bytes=10-99" }));
    const readers = [await begin(), await begin()];
    assertEquals(await get(), first.slice(10, 100));
    await put("a", second);
    assertEquals(await get(), second.slice(10, 100));
    readers.push(await begin());
    assertEquals(await told(await ask("DELETE", "/files/a")), [204]);
    assertEquals(await told(await ask("GET", "/files/a")), [404]);
    const [one, two, three] = await Promise.all(readers.map((rest) => rest()));
    assertEquals(one, first.slice(10));
    assertEquals(two, first.slice(10));
    assertEquals(three, second.slice(10));
    // A file that is open keeps its space on the disk, also after it was replaced or deleted.
    for (const change of [() => put("b", second), () => ask("DELETE", "/files/b")]) {
      await put("b", first);
      await bytesOf(await ask("GET", "/files/b", { range: "bytes=0-9" }));
      assertEquals(openFiles(), 1);
      await change();
      assertEquals(openFiles(), 0);
    }
    await close();
  });
});

test("a file that another program replaced is opened again, and one whose read failed too", async () => {
  const { ask, put, only, close } = await inProcess();
  const content = bytes(2 * SEGMENT);
  await put("a", content);
  const sealed = readFileSync(only());
  const status = async (range: string) => (await told(await ask("GET", "/files/a", { range })))[0];
  /** Another inode, because a change of the same one within some milliseconds has the same time. */
  const replace = () => {
    const path = join(tempDir(), "replacement");
    writeFileSync(path, sealed);
    renameSync(path, only());
  };
  await later(async () => {
    assertEquals(await status("bytes=0-9"), 206);
    sealed[100]! ^= 1;
    replace();
    const lines = await quietly(async () => {
      assertEquals([await status("bytes=0-9"), await status("bytes=-9"), openFiles()], [500, 206, 1]);
    });
    assertEquals(lines.length, 1);
    sealed[100]! ^= 1;
    replace();
    assertEquals(await status("bytes=0-9"), 206);
  });
  await close();
  assertEquals(openFiles(), 0);
});

/** Files that are opened in memory. */
function files() {
  const versions = new Map<string, FileVersion>();
  const opened: string[] = [], closed: string[] = [];
  let failure: Error | undefined;
  const source = {
    version: (id: string) => versions.get(id),
    async open(id: string) {
      const { value } = versions.get(id)!;
      await Promise.resolve();
      if (failure) throw failure;
      opened.push(`${id}${value}`);
      return {
        content: `${id}${value}`,
        close: () => {
          closed.push(`${id}${value}`);
          return Promise.resolve();
        },
      };
    },
  };
  const set = (id: string, value: string, isSettled = true) => void versions.set(id, { value, isSettled });
  return {
    source,
    set,
    opened,
    closed,
    remove: (id: string) => versions.delete(id),
    fail: (error?: Error) => failure = error,
  };
}

test("OpenFiles: those who use a file at once share it, and it is closed once", async () => {
  const { source, set, opened, closed } = files();
  const open = new OpenFiles(source, 2);
  set("a", "1");
  const leases = await Promise.all([1, 2, 3].map(() => open.use("a")));
  assertEquals(opened, ["a1"]);
  for (const lease of leases) await lease!.release();
  assertEquals(closed, []);
  for (const id of ["b", "c"]) {
    set(id, "1");
    await (await open.use(id))!.release();
  }
  assertEquals(closed, ["a1"]);
  await open.close();
  assertEquals(closed.sort(), ["a1", "b1", "c1"]);
});

test("OpenFiles: a file in use is closed when it is released, and that only once", async () => {
  const { source, set, remove, closed } = files();
  const open = new OpenFiles(source, 2);
  set("a", "1");
  const first = (await open.use("a"))!;
  set("a", "2");
  const second = (await open.use("a"))!;
  assertEquals([first.file.content, second.file.content], ["a1", "a2"]);
  await second.release();
  await second.release();
  assertEquals(closed, []);
  remove("a");
  assertEquals(await open.use("a"), undefined);
  assertEquals(closed, ["a2"]);
  await first.release();
  assertEquals(closed, ["a2", "a1"]);
});

test("OpenFiles: what has just changed, and what failed, does not stay open", async () => {
  const { source, set, opened, closed, fail } = files();
  const open = new OpenFiles(source, 2);
  set("a", "1", false);
  await (await open.use("a"))!.release();
  assertEquals(closed, ["a1"]);
  set("b", "1");
  await (await open.use("b"))!.release(true);
  assertEquals(closed, ["a1", "b1"]);
  const error = new Error("no more descriptors");
  fail(error);
  await assertRejects(() => Promise.all([open.use("b"), open.use("b")]), Error, "no more descriptors");
  fail();
  await (await open.use("b"))!.release();
  assertEquals(opened, ["a1", "b1", "b1"]);
  await open.close();
  assertEquals(closed, ["a1", "b1", "b1"]);
});

test("OpenFiles: any order of uses, changes and ends closes all that was opened", async () => {
  const step = fc.record({
    what: fc.constantFrom("use", "change", "release", "fail", "drop"),
    id: fc.constantFrom(..."abcde"),
  });
  await fc.assert(fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (steps) => {
    const { source, set, opened, closed } = files();
    const open = new OpenFiles(source, 3);
    const leases: { id: string; lease: ReturnType<typeof open.use> }[] = [];
    let version = 0;
    for (const id of "abcde") set(id, "0");
    for (const { what, id } of steps) {
      const used = leases.findIndex((one) => one.id === id);
      if (what === "use") leases.push({ id, lease: open.use(id) });
      else if (what === "change") set(id, `${++version}`, version % 3 > 0);
      else if (what === "drop") await open.drop(id);
      else if (used >= 0) {
        const [{ lease }] = leases.splice(used, 1) as [typeof leases[0]];
        const { file, release } = (await lease)!;
        assert(!closed.includes(file.content) || opened.indexOf(file.content) !== opened.lastIndexOf(file.content));
        await release(what === "fail");
      }
      await Promise.resolve();
      assert(
        opened.length - closed.length <= 3 + leases.length,
        `${opened.length - closed.length} of ${leases.length}`,
      );
    }
    for (const { lease } of leases) await (await lease)!.release();
    await open.close();
    assertEquals(closed.sort(), opened.sort());
  }));
});

const small = tempDir();
const hasSmallDisk = (await spawn(["mount", "-t", "tmpfs", "-o", "size=1m", "vault-test", small])).code === 0;
if (hasSmallDisk) await spawn(["umount", small]);

test(
  "an upload to a full disk is 507, and leaves the stored file as it was",
  { needs: { "the right to mount a small file system": hasSmallDisk } },
  async () => {
    const directory = tempDir();
    assertEquals((await spawn(["mount", "-t", "tmpfs", "-o", "size=1m", "vault-test", directory])).code, 0);
    try {
      const { ask, put, only } = await inProcess({ directory });
      await put("a", bytes(300_000));
      const lines = await quietly(async () => {
        assertEquals(await told(await ask("PUT", "/files/a", {}, bytes(900_000))), [507]);
        assertEquals(await told(await ask("PUT", "/files/b", {}, bytes(900_000))), [507]);
      });
      assert(lines.every((line) => line.startsWith("ENOSPC")) && lines.length === 2, lines.join("\n"));
      only();
      assertEquals(await bytesOf(await ask("GET", "/files/a")), bytes(300_000));
    } finally {
      assertEquals((await spawn(["umount", directory])).code, 0);
    }
  },
);

// ---- The start file of this runtime -------------------------------------------------------------------------------

async function withServer(action: (server: Server) => Promise<void>): Promise<void> {
  const server = new Server(runtime, tempDir());
  try {
    await server.start();
    await action(server);
    assertEquals(await server.stop(), 0);
  } finally {
    await server.kill();
  }
}

/** A test of a server that does not depend on the engine. In the test kernel, which is slow, a few others suffice. */
function served(name: string, body: () => Promise<void>): void {
  test(name, { engine: "userspace" }, body);
}

/** No keep-alive, for the tests that count the server's descriptors. */
const CLOSE = { connection: "close" };

async function fetched(url: string, headers: Record<string, string> = {}): Promise<[Response, Bytes]> {
  const response = await fetch(url, { headers: { ...headers, ...CLOSE } });
  return [response, await bytesOf(response)];
}

async function store(url: string, body: BodyInit): Promise<number> {
  const response = await fetch(url, { method: "PUT", body, headers: CLOSE, duplex: "half" } as RequestInit);
  await response.arrayBuffer();
  return response.status;
}

/** Sends the bytes of a request, and resolves with all bytes of the answer, as Latin-1. */
function raw(
  port: number,
  request: string,
  { cutAfter = false, hasEnough = (_answer: string): boolean => false } = {},
): Promise<string> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    let answer = "";
    socket.on("data", (chunk) => {
      answer += chunk.toString("latin1");
      if (hasEnough(answer)) socket.destroy();
    });
    socket.on("error", () => {});
    socket.on("close", () => resolve(answer));
    socket.write(Buffer.from(request, "latin1"), () => cutAfter && socket.destroy());
  });
}

served(
  "the server sends exact lengths, and curl gets the ranges of the plain file",
  () =>
    withServer(async ({ port, url }) => {
      const content = bytes(300_000);
      assertEquals(await store(`${url}/files/a.wav`, content), 201);
      assertEquals(await store(`${url}/files/a.wav`, streamOfChunks(content)), 204);
      const ask = (method: string, path: string, headers = "") =>
        raw(port, `${method} ${path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${headers}\r\n`);
      const size = (answer: string) => answer.length - answer.indexOf("\r\n\r\n") - 4;
      const lengthOf = (answer: string) => /\r\ncontent-length: *(\d+)\r\n/i.exec(answer)?.[1];

      const whole = await ask("GET", "/files/a.wav");
      assertEquals([whole.slice(0, 12), lengthOf(whole), size(whole)], ["HTTP/1.1 200", "300000", 300_000]);
      assertEquals(Buffer.from(whole.slice(-300_000), "latin1").equals(content), true);
      const head = await ask("HEAD", "/files/a.wav");
      assertEquals([head.slice(0, 12), lengthOf(head), size(head)], ["HTTP/1.1 200", "300000", 0]);
      const part = await ask("GET", "/files/a.wav", "range: bytes=-70000\r\n");
      assertEquals([part.slice(0, 12), lengthOf(part), size(part)], ["HTTP/1.1 206", "70000", 70_000]);
      const etag = /etag: *("\w+")/i.exec(head)![1]!;
      const unchanged = await ask("GET", "/files/a.wav", `if-none-match: ${etag}\r\n`);
      assertEquals([unchanged.slice(0, 12), size(unchanged)], ["HTTP/1.1 304", 0]);
      for (const path of ["/", "/files"]) {
        const answer = await ask("GET", path);
        assertEquals(lengthOf(answer), `${size(answer)}`);
      }
      const ranges: [range: string, start: number, end?: number][] = [
        ["0-0", 0, 1],
        ["65400-131200", 65_400, 131_201],
        ["299999-", 299_999],
        ["-150000", -150_000],
        ["100-999999999", 100],
      ];
      for (const [range, start, end] of ranges) {
        const { output } = await spawn(["curl", "--silent", "--fail", "-r", range, `${url}/files/a.wav`]);
        assertEquals(new Uint8Array(output), content.slice(start, end), range);
      }
      // Paths that no client sends.
      for (
        const path of [
          "/files/../../vault.key",
          "/files/..%2f..%2fvault.key",
          "/files/%2e%2e/%2e%2e/vault.key",
          "//etc/passwd",
        ]
      ) {
        assert(/^HTTP\/1.1 40[04]/.test(await ask("GET", path)), path);
      }
      assert(
        /^HTTP\/1.1 4/.test(
          await raw(port, "GET /files HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n"),
        ),
      );
    }),
);

function streamOfChunks(content: Bytes): ReadableStream {
  let at = 0;
  return new ReadableStream({
    pull(controller) {
      if (at === content.length) return controller.close();
      controller.enqueue(content.slice(at, at += 50_000));
    },
  });
}

/** Runs curl once for many concurrent transfers. */
async function curl(transfers: Record<string, string>[]): Promise<void> {
  const config = transfers.map((options) => Object.entries(options).map(([name, value]) => `${name} = "${value}"\n`));
  const flags = ["--no-progress-meter", "--fail", "--parallel", "--parallel-immediate", "--parallel-max", "100"];
  const { code, stderr } = await spawn(["curl", ...flags, "--config", "-"], { input: config.flat().join("") });
  assertEquals([code, stderr], [0, ""]);
}

const FILES = engine === "kernel" ? 25 : 100; // a guest is slow

test(`the server stores and returns ${FILES} files at once, by curl and by fetch`, () =>
  withServer(async ({ url, directory }) => {
    const numbers = Array.from({ length: FILES }, (_, i) => i);
    const content = (i: number) => bytes(1 + 997 * i, i);
    const at = (name: string) => join(directory, name);
    for (const i of numbers) writeFileSync(at(`in${i}`), content(i));
    await curl(numbers.map((i) => ({ "upload-file": at(`in${i}`), url: `${url}/files/c${i}`, output: "/dev/null" })));
    const codes = await Promise.all(numbers.map((i) => store(`${url}/files/f${i}`, content(i))));
    assertEquals(codes, numbers.map(() => 201));
    // Each client fetches what the other stored.
    await curl(numbers.map((i) => ({ url: `${url}/files/f${i}`, output: at(`out${i}`) })));
    for (const i of numbers) assertEquals(new Uint8Array(readFileSync(at(`out${i}`))), content(i));
    const bodies = await Promise.all(numbers.map(async (i) => (await fetched(`${url}/files/c${i}`))[1]));
    for (const i of numbers) assertEquals(bodies[i]!, content(i));
  }));

test(
  "the server's memory does not grow with the file",
  { engine: "userspace" }, // takes too long in the test kernel
  () =>
    withServer(async (server) => {
      const mebibytes = 256;
      const upload = (count: number) =>
        spawn(["bash", "-c", `head -c ${count}M /dev/zero | curl --silent --fail -T - ${server.url}/files/zeros`]);
      assertEquals((await upload(1)).code, 0);
      const before = server.mostMemory();
      assertEquals((await upload(mebibytes)).code, 0);
      const { stdout } = await spawn([
        "bash",
        "-c",
        `curl --silent --fail ${server.url}/files/zeros | cmp - <(head -c ${mebibytes}M /dev/zero) && echo same`,
      ]);
      assertEquals(stdout, "same\n");
      const growth = server.mostMemory() - before;
      // Part of it is garbage that is not collected yet.
      assert(growth < mebibytes * 3 / 4 * 2 ** 20, `${growth} bytes for ${mebibytes} MiB`);
    }),
);

test("damage in the middle of a file breaks the connection, and is logged", () =>
  withServer(async (server) => {
    const { url, port, stored } = server;
    assertEquals(await store(`${url}/files/a`, bytes(1_000_000)), 201);
    const file = join(stored, server.files()[0]!);
    const sealed = readFileSync(file);
    sealed[500_000]! ^= 1;
    writeFileSync(file, sealed);
    await assertRejects(() => fetched(`${url}/files/a`));
    const answer = await raw(port, "GET /files/a HTTP/1.1\r\nhost: localhost\r\n\r\n"); // and no "connection: close"
    assert(answer.startsWith("HTTP/1.1 200") && answer.length < 900_000, `${answer.length}`);
    truncateSync(file, 500_000);
    assertEquals((await fetched(`${url}/files/a`))[0].status, 500);
    await until(() => server.errors.split("\n").length > 3);
    const logged = [...server.errors.matchAll(/^EBADMSG: GET \/files\/a, .*$/gm)].map(([line]) => line);
    assertEquals(logged.length, 3, server.errors);
    for (const line of logged) assertStringIncludes(line, `vault-files/${server.files()[0]}`);
  }));

served(
  "clients that disconnect during an upload or a download leave no file and no descriptor",
  () =>
    withServer(async (server) => {
      const { url, port } = server;
      const large = bytes(3_000_000);
      assertEquals(await store(`${url}/files/large`, large), 201);
      await fetched(`${url}/files/large`);
      const descriptors = server.descriptors();
      const isClean = () => server.files().length === 1 && server.descriptors() <= descriptors;
      await until(isClean);
      const body = "x".repeat(200_000);
      const puts = "PUT /files/cut HTTP/1.1\r\nhost: localhost\r\n";
      const cuts = [
        `${puts}content-length: 400000\r\n\r\n${body}`,
        `${puts}transfer-encoding: chunked\r\n\r\n30d40\r\n${body}\r\n`,
        `${puts}transfer-encoding: chunked\r\n\r\n30d40\r\n${body.slice(9)}`,
        "GET /files/large HTTP/1.1\r\nhost: localhost\r\n\r\n",
      ];
      for (const request of cuts) {
        await Promise.all([1, 2, 3].map(() => raw(port, request, { cutAfter: true })));
        await until(isClean);
      }
      // Bytes behind the announced length are another request, which is not valid.
      const socket = raw(port, `${puts}content-length: 3\r\nconnection: close\r\n\r\nabcdef`);
      assert(/^HTTP\/1.1 (201|400)/.test(await socket));
      await until(() => server.files().every((name) => !name.endsWith(".part")));
      assertEquals((await fetched(`${url}/files/large`))[1], large);
    }),
);

served("a second server on a directory in use does not start, and does not disturb uploads", async () => {
  const server = new Server(runtime, tempDir()), second = new Server(runtime, server.directory);
  try {
    await server.start();
    const upload = connect(server.port, "127.0.0.1");
    upload.write("PUT /files/a HTTP/1.1\r\nhost: localhost\r\ncontent-length: 6\r\nconnection: close\r\n\r\nabc");
    let answer = "";
    upload.on("data", (chunk) => answer += chunk);
    const ended = new Promise((resolve) => upload.on("close", resolve));
    await until(() => server.files().length === 1);
    for (const port of [String(server.port), "0"]) {
      const { code, stdout, stderr } = await second.startRefused("--port", port);
      assertEquals([code, stdout, stderr], [2, "", "vault: vault-files is in use by another server\n"]);
    }
    assertEquals(server.files().length, 1);
    upload.write("def");
    await ended;
    assertStringIncludes(answer, " 201 ");
    assertEquals(await (await fetched(`${server.url}/files/a`))[0].status, 200);

    // A server whose port is in use does not remove files either.
    const elsewhere = new Server(runtime, tempDir());
    await elsewhere.start();
    await elsewhere.kill();
    writeFileSync(join(elsewhere.stored, "x.part"), "");
    const { code, stdout, stderr } = await elsewhere.startRefused("--port", String(server.port));
    assertEquals([code, stdout, stderr], [2, "", `vault: port ${server.port} is in use\n`]);
    assertEquals(elsewhere.files(), ["x.part"]);
    await server.kill();
    await second.start(); // what a killed server locked is free
  } finally {
    await server.kill();
    await second.kill();
  }
});

test("each option is checked", () => {
  const refused: [said: RegExp, ...options: string[]][] = [
    [/^--limit: .*"abc"$/, "--limit", "abc"],
    [/^--limit: .*"10X"$/, "--limit", "10X"],
    [/^--limit: .*"-5"$/, "--limit=-5"],
    [/--limit/, "--limit", "-5"],
    [/^--limit: .*"1.5G"$/, "--limit", "1.5G"],
    [/^--limit: .*"0"$/, "--limit", "0"],
    [/^--limit: .*"9999999T"$/, "--limit", "9999999T"],
    [/^--limit: .*""$/, "--limit="],
    [/^--port: .*"70000"$/, "--port", "70000"],
    [/^--port: .*"-1"$/, "--port=-1"],
    [/^--port: .*"http"$/, "--port", "http"],
    [/^--host: .*"a:80"$/, "--host", "a:80"],
    [/^--host: .*"a b"$/, "--host", "a b"],
    [/^--host: .*"a\/b"$/, "--host", "a/b"],
    [/^--directory: /, "--directory="],
    [/^--key: /, "--key="],
    [/--nonsense/, "--nonsense"],
    [/word/, "word"],
    [/^usage: .*--directory.*--key.*--port.*--limit.*--host.*--workers/, "--help"],
  ];
  for (const [said, ...options] of refused) {
    const { message } = assertThrows(() => parseOptions(options)) as Error;
    assert(said.test(message), `${options.join(" ")}: ${message}`);
  }
  const limitOf = (text: string) => parseOptions(["--limit", text]).limit;
  assertEquals(["1", "64K", "3m", "10G", "2T"].map(limitOf), [1, 65_536, 3 * 2 ** 20, 10 * 2 ** 30, 2 * 2 ** 40]);
  const { hosts, port, limit } = parseOptions(["--host", "Vault.Example", "--host=[::1]", "--port", "65535"]);
  assertEquals(hosts, ["localhost", "127.0.0.1", "vault.example", "[::1]"]);
  assertEquals([port, limit], [65_535, 64 * 2 ** 30]);
});

served("a wrong option is told in one line, with exit code 2, before anything is made", async () => {
  const server = new Server(runtime, tempDir());
  for (
    const [option, said] of [["--limit=abc", "--limit"], ["--limit=-5", "--limit"], ["--x", "--x"], ["--help", "usage"]]
  ) {
    const { code, stdout, stderr } = await server.startRefused(option!);
    assertEquals([code, stdout], [2, ""], option);
    assert(/^vault: .*\n$/.test(stderr) && stderr.includes(said!), stderr);
  }
  assertEquals(readdirSync(server.directory), []);
  try {
    await server.start("--limit", "10G");
    assertEquals((await (await fetch(`${server.url}/files`, { headers: CLOSE })).json()).limit, 10 * 2 ** 30);
  } finally {
    await server.kill();
  }
});

served("a server does not start with another key", async () => {
  const server = new Server(runtime, tempDir());
  try {
    await server.start();
    assertEquals(await server.stop(), 0);
    writeFileSync(join(server.directory, "vault.key"), bytes(32, 10));
    const { code, stdout, stderr } = await server.startRefused();
    assertEquals([code, stdout], [2, ""]);
    assert(/^vault: .*not the key.*\n$/.test(stderr), stderr);
  } finally {
    await server.kill();
  }
});

served("a server that is stopped waits for uploads and downloads under way", async () => {
  const server = new Server(runtime, tempDir());
  try {
    await server.start();
    const content = bytes(8_000_000);
    assertEquals(await store(`${server.url}/files/large`, content), 201);
    const upload = connect(server.port, "127.0.0.1"), download = connect(server.port, "127.0.0.1");
    let uploaded = "", length = 0;
    upload.on("data", (chunk) => uploaded += chunk);
    const ended = [upload, download].map((socket) => new Promise((resolve) => socket.on("close", resolve)));
    const headers = "HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    download.write(`GET /files/large ${headers}\r\n`);
    await new Promise((resolve) => download.once("readable", resolve)); // and reads no further yet
    upload.write(`PUT /files/a ${headers}content-length: 200000\r\n\r\n${"x".repeat(100_000)}`);
    await until(() => server.files().length === 2);
    const stopped = server.stop();
    const { url } = server;
    const isServed = () => fetched(`${url}/files`).then(([{ status }]) => status === 200, () => false);
    while (await isServed());
    upload.write("x".repeat(100_000));
    download.on("data", (chunk) => length += chunk.length);
    await Promise.all(ended);
    assertStringIncludes(uploaded, " 201 ");
    assert(length > content.length, `${length} bytes of the download`);
    assertEquals(await stopped, 0);
    assertEquals(server.files().filter((name) => name.endsWith(".part")), []);
  } finally {
    await server.kill();
  }
});

served("a server that was killed during uploads removes their files at its next start", async () => {
  const server = new Server(runtime, tempDir());
  try {
    await server.start();
    assertEquals(await store(`${server.url}/files/a`, bytes(100_000)), 201);
    const body = "x".repeat(200_000);
    const uploads = [1, 2, 3].map((i) =>
      raw(server.port, `PUT /files/${i} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 400000\r\n\r\n${body}`)
    );
    await until(() => server.files().length === 4);
    await server.kill();
    await Promise.all(uploads);
    assertEquals(server.files().length, 4);
    await server.start();
    assertEquals(server.files().length, 1);
    assertEquals((await fetched(`${server.url}/files/a`))[1], bytes(100_000));
  } finally {
    await server.kill();
  }
});

test("an upload over the limit is 413, and stops", async () => {
  const server = new Server(runtime, tempDir());
  try {
    await server.start("--limit", "1000000");
    assertEquals(await store(`${server.url}/files/a`, bytes(1_000_000)), 201);
    const puts = "PUT /files/b HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    const hasEnough = (answer: string) => answer.includes("\r\n\r\n");
    const said = await raw(server.port, `${puts}content-length: 1000001\r\n\r\n`, { hasEnough });
    assert(said.startsWith("HTTP/1.1 413"), said);
    // A chunked upload may break before its client has read the answer.
    const body = `2dc6c0\r\n${"x".repeat(3_000_000)}`;
    const unsaid = await raw(server.port, `${puts}transfer-encoding: chunked\r\n\r\n${body}`, { hasEnough });
    assert(/^(HTTP\/1.1 413|$)/.test(unsaid), unsaid);
    await until(() => server.files().length === 1);
  } finally {
    await server.kill();
  }
});

test("the key is made once; a missing one, one that others can read, or of a wrong length is refused", async () => {
  const directory = tempDir(), key = join(directory, "key"), files = join(directory, "files");
  const made = await keyOf(key, files);
  assertEquals([made.length, statSync(key).mode & 0o777], [32, 0o600]);
  assertEquals(readdirSync(directory), ["key"]);
  assertEquals(new Uint8Array(readFileSync(key)), made);
  assertEquals(await keyOf(key, files), made);
  assertNotEquals(await keyOf(join(directory, "other"), files), made);

  mkdirSync(files);
  writeFileSync(join(files, "something sealed"), "");
  const refused = async (message: string) => {
    const error = await assertRejects(() => keyOf(key, files)) as Error;
    assertStringIncludes(error.message, message);
  };
  assertEquals(await keyOf(key, files), made);
  chmodSync(key, 0o640);
  await refused("others can read it");
  chmodSync(key, 0o600);
  truncateSync(key, 31);
  await refused("expected a key of 32 bytes, got 31");
  rmSync(key);
  await refused("ENOENT");
  assert(!existsSync(key));
});
