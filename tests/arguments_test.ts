/**
 * Bad arguments: which error, that its message names the argument and tells nothing of keys, IVs and data, and that it
 * comes before any native call, with nothing left open.
 */
import { Buffer } from "node:buffer";
import {
  type ByteSource,
  CipherHandle,
  type CipherHandleOptions,
  type CipherStreamOptions,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
  type StreamOpOptions,
} from "../mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStringIncludes,
  assertThrows,
  engine,
  openFiles,
  test,
} from "./support/deps.ts";
import { watchCalls } from "./support/native_calls.ts";
import { type Bytes, bytes, caught, collect, opens, reference, streamOf, turns, WINDOW } from "./support/support.ts";

const KEY = bytes(16, 5);
const IV = bytes(16, 6);
const SECRET = "correct horse battery staple";

type ErrorClass = typeof TypeError | typeof RangeError;

const detached = () => {
  const array = new Uint8Array(16);
  array.buffer.transfer();
  return array;
};

/** What is no BufferSource, or none whose memory stays where it is. */
const NO_BYTES: Record<string, () => unknown> = {
  null: () => null,
  "a string": () => SECRET,
  "a number": () => 4_711,
  "a bigint": () => 4_711n,
  "an array": () => [...KEY],
  "an object": () => ({ length: 16, byteLength: 16 }),
  "a typed array's likeness": () => Object.create(Uint8Array.prototype),
  "a Blob": () => new Blob([KEY]),
  "a detached Uint8Array": detached,
  "a detached ArrayBuffer": () => detached().buffer,
  "a resizable ArrayBuffer": () => new ArrayBuffer(16, { maxByteLength: 32 }),
  "a view of a resizable ArrayBuffer": () => new Uint8Array(new ArrayBuffer(16, { maxByteLength: 32 })),
  "a SharedArrayBuffer": () => new SharedArrayBuffer(16),
  "a view of a SharedArrayBuffer": () => new Uint8Array(new SharedArrayBuffer(16)),
};

/** That an error is of a class, names its argument, and keeps what it must keep to itself. */
function assertArgumentError(error: unknown, errorClass: ErrorClass, argument: string, what: string): void {
  assertInstanceOf(error, errorClass, what);
  const { message } = error;
  assert(new RegExp(`"?\\b${argument}\\b`).test(message), `${what}: no ${argument} in the message: ${message}`);
  assertNoSecret(error);
}

function assertNoSecret(error: unknown): void {
  const { message, hint = "", cause } = error as KcapiError;
  const text = `${message}\n${hint}\n${JSON.stringify(error)}`.toLowerCase();
  for (const secret of [KEY, IV]) {
    const { buffer, byteOffset } = secret;
    const part = Buffer.from(buffer, byteOffset, 4);
    for (const shown of [part.toString("hex"), part.join(","), part.join(", "), part.toString("latin1")]) {
      assert(!text.includes(shown.toLowerCase()), `a key, an IV or data in the message: ${message}`);
    }
  }
  for (const shown of [SECRET, "4711"]) assert(!text.includes(shown), `an argument's value in the message: ${message}`);
  if (cause) assertNoSecret(cause);
}

/** Runs something that is to make no native call, and to leave nothing open. */
async function without<T>(action: () => T | Promise<T>): Promise<T> {
  using watch = engine === "kernel" ? watchCalls() : undefined;
  const before = openFiles();
  const result = await action();
  assertEquals(watch?.names ?? [], [], "native calls");
  assertEquals(openFiles(), before, "open files");
  return result;
}

// ---- what opens a cipher -----------------------------------------------------------------------------------------

type Open = (algorithm: string, options: CipherStreamOptions) => unknown;

const STREAMS: Record<string, Open> = {
  "new EncryptionStream()": (algorithm, options) => new EncryptionStream(algorithm, options),
  "new DecryptionStream()": (algorithm, options) => new DecryptionStream(algorithm, options),
  "encrypt()": (algorithm, options) => encrypt(algorithm, options, new Uint8Array(0)),
  "decrypt()": (algorithm, options) => decrypt(algorithm, options, new Uint8Array(0)),
};
const ALL: Record<string, Open> = {
  "CipherHandle.open()": (algorithm, { key, engine }) =>
    CipherHandle.open(algorithm, { key, engine } as CipherHandleOptions),
  ...STREAMS,
};

interface Case {
  what: string;
  error: ErrorClass;
  argument: string;
  algorithm: unknown;
  /** Over the good options of cbc(aes). */
  options?: Record<string, unknown>;
  /** A part of the message. */
  says?: string;
}

const badNames = (error: ErrorClass, names: unknown[], says = ""): Case[] =>
  names.map((algorithm) => ({
    what: `the algorithm ${String(algorithm)}`,
    error,
    argument: "algorithm",
    algorithm,
    says,
  }));

const badKeys = (algorithm: string, ivSize: number, ...lengths: number[]): Case[] =>
  lengths.map((length) => ({
    what: `a key of ${length} bytes for ${algorithm}`,
    error: RangeError,
    argument: "key",
    algorithm,
    options: { key: bytes(length), iv: bytes(ivSize) },
    says: `${length}`,
  }));

const badValues = (argument: string, error: ErrorClass, values: unknown[], also: Partial<Case> = {}): Case[] =>
  values.map((value) => ({
    what: `${argument} ${typeof value === "bigint" ? `${value}n` : typeof value === "string" ? `"${value}"` : value}`,
    error,
    argument,
    algorithm: "cbc(aes)",
    ...also,
    options: { ...also.options, [argument]: value },
  }));

const noBytes = (argument: string): Case[] =>
  Object.entries(NO_BYTES).map(([what, make]) => ({
    what: `${what} for ${argument}`,
    error: TypeError,
    argument,
    algorithm: "cbc(aes)",
    options: { [argument]: make() },
  }));

const BAD_FOR_ALL: Case[] = [
  ...badNames(TypeError, [undefined, null, 5, {}, ["cbc(aes)"], Symbol.iterator]),
  ...badNames(
    TypeError,
    ["", " ", "cbc aes", "cbc(aes)\n", "cbc(aes)\0", "cb\u00e7(aes)", "*"],
  ),
  ...badNames(RangeError, [`cbc(${"x".repeat(59)})`, "x".repeat(1_000)], "63"),
  ...badNames(RangeError, ["ccm(aes)", "rfc4106(gcm(aes))", "authenc(hmac(sha1),cbc(aes))"], "AEAD"),
  ...badNames(
    RangeError,
    ["aes-256-gcm", "id-aes128-CCM", "AES-GCM", "aes256gcm", "aes-256-siv", "ChaCha20-Poly1305", "generic-gcm-aesni"],
    "sealed streams",
  ),
  ...badNames(RangeError, ["sha256", "hmac(sha256)", "md5", "crc32c"], "hash"),
  ...badNames(RangeError, ["aes", "des3_ede"], "mode"),
  { what: "no key", error: TypeError, argument: "key", algorithm: "cbc(aes)", options: { key: undefined } },
  ...noBytes("key"),
  ...badKeys("cbc(aes)", 16, 0, 1, 15, 17, 20, 31, 33, 64),
  ...badKeys("ecb(aes)", 0, 8),
  ...badKeys("cbc-aes-aesni", 16, 15),
  ...badKeys("lrw(aes)", 16, 16),
  ...badKeys("cbc(des3_ede)", 8, 8, 16),
  ...badKeys("xts(aes)", 16, 16, 33, 128),
  ...badKeys("chacha20", 16, 16, 31),
  ...badKeys("rfc3686(ctr(aes))", 8, 16),
  {
    what: "both halves of an xts key equal",
    error: RangeError,
    argument: "key",
    algorithm: "xts(aes)",
    options: { key: Buffer.concat([KEY, KEY]) },
    says: "halves",
  },
  ...badValues("engine", TypeError, ["Kernel", "", "node", "fastest", 1, null, {}, true]),
];

const SECTORS: Partial<Case> = { algorithm: "xts(aes)", options: { key: bytes(32), iv: undefined, sectorSize: 512 } };

const BAD_FOR_STREAMS: Case[] = [
  {
    what: "no IV where there must be one",
    error: TypeError,
    argument: "iv",
    algorithm: "cbc(aes)",
    options: { iv: undefined },
  },
  ...noBytes("iv"),
  ...[0, 1, 8, 15, 17, 32].map((length): Case => ({
    what: `an IV of ${length} bytes for cbc(aes)`,
    error: RangeError,
    argument: "iv",
    algorithm: "cbc(aes)",
    options: { iv: bytes(length) },
    says: `${length}`,
  })),
  { what: "an IV where there is none", error: RangeError, argument: "iv", algorithm: "ecb(aes)" },
  {
    what: "an IV of 12 bytes for chacha20, which has the counter in it",
    error: RangeError,
    argument: "iv",
    algorithm: "chacha20",
    options: { key: bytes(32), iv: bytes(12) },
  },
  ...badValues("padding", TypeError, ["pkcs5", "PKCS7", "", true, 0, null, {}]),
  ...["ctr(aes)", "ofb(aes)"].flatMap((algorithm) => badValues("padding", TypeError, ["pkcs7"], { algorithm })),
  ...badValues("padding", TypeError, ["pkcs7"], { algorithm: "chacha20", options: { key: bytes(32) } }),
  ...badValues("padding", TypeError, ["pkcs7"], { algorithm: "xts(aes)", options: { key: bytes(32) } }),
  ...badValues("padding", TypeError, ["pkcs7"], { algorithm: "cts(cbc(aes))" }),
  ...badValues("padding", TypeError, ["pkcs7"], { algorithm: "cbc(aes)", options: { iv: undefined, sectorSize: 512 } }),
  ...badValues("inPlace", TypeError, [1, "yes", null, {}]),
  ...badValues("signal", TypeError, ["x", 1, {}, new EventTarget(), new AbortController()]),
  ...badValues("sectorSize", RangeError, [NaN, 0, -0, -16, -512, 15, 17, 24, 8, 512.5, Infinity, 2 ** 53], SECTORS),
  ...badValues("sectorSize", TypeError, ["512", 512n, null, {}, true, [512]], SECTORS),
  ...badValues("sectorSize", TypeError, [512], { algorithm: "ecb(aes)", options: { iv: undefined } }),
  ...badValues("ivLargeSectors", TypeError, [1, "yes", null, {}], SECTORS),
  ...badValues("ivLargeSectors", TypeError, [true]),
  ...badValues("ivMode", TypeError, [1, "plain32", null, {}, true], SECTORS),
  ...badValues("ivMode", TypeError, ["plain64"]),
  ...badValues("sectorSize", TypeError, [512], { algorithm: "ctr(aes)", options: { iv: undefined } }),
  ...badValues("sectorSize", TypeError, [512], { algorithm: "xts(aes)", options: { key: bytes(32), iv: IV } }),
  ...badValues("sector", RangeError, [NaN, -1, 0.5, Infinity, 2 ** 53, -1n, 2n ** 64n, 2n ** 65n], SECTORS),
  ...badValues("sector", TypeError, ["0", null, {}, true, [1]], SECTORS),
  ...badValues("sector", TypeError, [0, 5n], { ...SECTORS, options: { ...SECTORS.options, iv: IV } }),
  ...badValues("sector", TypeError, [0], { algorithm: "xts(aes)", options: { key: bytes(32), iv: IV } }),
  ...badValues("sector", TypeError, [1], { algorithm: "xts(aes)", options: { key: bytes(32), iv: undefined } }),
];

for (const [entries, cases] of [[ALL, BAD_FOR_ALL], [STREAMS, BAD_FOR_STREAMS]] as const) {
  for (const [entry, open] of Object.entries(entries)) {
    const byArgument = Map.groupBy(cases, ({ argument }) => argument);
    for (const [argument, group] of byArgument) {
      test(`${entry} refuses a bad ${argument} before any native call (${group.length} cases)`, () =>
        without(() => {
          for (const { what, error, algorithm, options, says = "" } of group) {
            // Whatever the engine: the check knows none.
            for (const choice of ["auto", "kernel", "userspace"]) {
              const all = { key: KEY, iv: IV, engine: choice, ...options } as unknown as CipherStreamOptions;
              const thrown = caughtNow(() => open(algorithm as string, all));
              assertArgumentError(thrown, error, argument, what);
              assert((thrown as Error).message.includes(says), `${what}: ${(thrown as Error).message}`);
            }
          }
        }));
    }
  }
}

function caughtNow(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

test("options that are not an object are a TypeError before any native call", () =>
  without(() => {
    for (const options of [null, undefined, "options", 5] as unknown as CipherStreamOptions[]) {
      for (const [entry, open] of Object.entries(STREAMS)) {
        assertThrows(() => open("cbc(aes)", options), TypeError, "", entry);
      }
      assertThrows(() => CipherHandle.open("cbc(aes)", options as CipherHandleOptions), TypeError);
    }
  }));

test("the largest accepted values are accepted, and the next ones are refused", async () => {
  const good: [algorithm: string, options: Partial<CipherStreamOptions>][] = [
    ["cbc(aes)", { iv: IV }],
    ["cbc(aes)", { iv: new DataView(IV.buffer), key: KEY.buffer, padding: "none", inPlace: true }],
    ["ecb(aes)", {}],
    ["ecb(aes)", { iv: new Uint8Array(0), padding: "pkcs7", signal: new AbortController().signal }],
    ["ctr(aes)", { iv: IV, key: bytes(24), padding: "none" }],
    ["xts(aes)", { key: bytes(32), sectorSize: 16 }],
    ["xts(aes)", { key: bytes(64), sectorSize: WINDOW, sector: 2n ** 64n - 1n }],
    ["xts(aes)", { key: bytes(32), sectorSize: 4_096, sector: Number.MAX_SAFE_INTEGER }],
    ["xts(aes)", { key: bytes(32), iv: IV }],
  ];
  const before = openFiles();
  for (const [algorithm, options] of good) {
    const all = { key: KEY, engine, ...options };
    await collect(encrypt(algorithm, all, new Uint8Array(32)));
    const stream = new DecryptionStream(algorithm, all);
    await stream.readable.cancel();
  }
  assertEquals(openFiles(), before);
});

test("a sectorSize beyond the window is a RangeError, and nothing stays open", async () => {
  const before = openFiles();
  for (const sectorSize of [WINDOW + 16, 2 ** 30]) {
    const options = { key: bytes(32), sectorSize, engine };
    assertArgumentError(caughtNow(() => new EncryptionStream("xts(aes)", options)), RangeError, "sectorSize", "");
    assertArgumentError(caughtNow(() => new DecryptionStream("xts(aes)", options)), RangeError, "sectorSize", "");
    const first = await caught(encrypt("xts(aes)", options, new Uint8Array(16)).next());
    assertArgumentError(first, RangeError, "sectorSize", "");
  }
  assertEquals(openFiles(), before);
});

test("an algorithm that no engine has is a KcapiError, and nothing stays open", async () => {
  const before = openFiles();
  // Few of them: the kernel starts modprobe for each.
  for (const algorithm of ["cbc(nope)", "newmode(aes)"]) {
    const options = { key: KEY, iv: IV, engine };
    const errors = [
      caughtNow(() => CipherHandle.open(algorithm, { key: KEY, engine })),
      caughtNow(() => new EncryptionStream(algorithm, { ...options, engine: "auto" })),
      await caught(decrypt(algorithm, options, new Uint8Array(16)).next()),
    ];
    for (const error of errors) {
      assertInstanceOf(error, KcapiError, algorithm);
      assert(error.message.includes(algorithm), error.message);
      assertNoSecret(error);
    }
    assertEquals([errors[0], errors[2]].map((error) => (error as KcapiError).code), ["ENOENT", "ENOENT"]);
  }
  assertEquals(openFiles(), before);
});

test(
  "a key whose length only the kernel can check is a KcapiError of setkey, and nothing stays open",
  { engine: "kernel", needs: { "cbc(serpent)": opens("cbc(serpent)") } },
  () => {
    using watch = watchCalls();
    const before = openFiles();
    const error = caughtNow(() => CipherHandle.open("cbc(serpent)", { key: bytes(33), engine }));
    assertInstanceOf(error, KcapiError);
    assertEquals([error.code, error.errno, error.operation], ["EINVAL", 22, "kcapi_cipher_setkey"]);
    assertEquals([watch.live, openFiles()], [0, before]);
  },
);

// ---- streams over a handle ---------------------------------------------------------------------------------------

test("a stream over a CipherHandle refuses the options key and engine, and a closed handle", () => {
  const handle = CipherHandle.open("cbc(aes)", { key: KEY, engine });
  const before = openFiles();
  for (const extra of [{ key: KEY }, { engine }, { engine: "auto" as const }]) {
    const options = { iv: IV, ...extra };
    assertThrows(() => new EncryptionStream(handle, options), TypeError, Object.keys(extra)[0]);
    assertThrows(() => new DecryptionStream(handle, options), TypeError, Object.keys(extra)[0]);
  }
  assertArgumentError(caughtNow(() => new EncryptionStream(handle)), TypeError, "iv", "no IV");
  assertArgumentError(caughtNow(() => new EncryptionStream(handle, { iv: bytes(8) })), RangeError, "iv", "a short IV");
  const open = encrypt as unknown as (...args: unknown[]) => unknown;
  assertThrows(() => open(handle, { iv: IV }, new Uint8Array(0)), TypeError, "algorithm");
  assertEquals(openFiles(), before);
  handle.close();
  const error = assertThrows(() => new EncryptionStream(handle, { iv: IV }));
  assertInstanceOf(error, KcapiError);
  assertEquals(error.code, "EBADF");
});

// ---- a handle's methods ------------------------------------------------------------------------------------------

for (const method of ["streamInitEnc", "streamInitDec"] as const) {
  test(`${method}() refuses a bad IV before any native call, and starts no stream`, async () => {
    using handle = CipherHandle.open("cbc(aes)", { key: KEY, engine });
    using noIV = CipherHandle.open("ecb(aes)", { key: KEY, engine });
    await without(async () => {
      for (const [what, make] of Object.entries({ undefined: () => undefined, ...NO_BYTES })) {
        const error = caughtNow(() => handle[method](make() as unknown as Bytes));
        assertArgumentError(error, TypeError, "iv", what);
      }
      for (const length of [0, 1, 15, 17, 32]) {
        assertArgumentError(caughtNow(() => handle[method](bytes(length))), RangeError, "iv", `${length} bytes`);
      }
      assertArgumentError(caughtNow(() => noIV[method](IV)), RangeError, "iv", "an IV for ecb");
      for (const each of [handle, noIV]) {
        const error = await caught(each.streamUpdate(new Uint8Array(16)));
        assertInstanceOf(error, KcapiError);
        assertEquals(error.code, "EINVAL");
      }
    });
    handle[method](IV);
  });
}

for (const method of ["streamUpdate", "streamUpdateLast", "streamOpInto"] as const) {
  test(`${method}() refuses other values than a BufferSource before any native call, and the stream is unchanged`, async () => {
    using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
    handle.streamInitEnc(IV);
    await handle.streamUpdate(bytes(40).subarray(0, 20));
    await without(async () => {
      for (const [what, make] of Object.entries({ undefined: () => undefined, ...NO_BYTES })) {
        for (const at of [0, 2]) {
          const list: unknown[] = [new Uint8Array(16), new Uint8Array(16)];
          list.splice(at, 0, make());
          const error = await caught(handle[method](...list as Bytes[]));
          assertArgumentError(error, TypeError, `buffers\\[${at}\\]`.slice(0, -2), what);
          assert((error as Error).message.includes(`buffers[${at}]`), (error as Error).message);
        }
      }
    });
    await handle.streamUpdateLast(bytes(40).subarray(20));
    assertEquals(await collect(handle.streamOp()), reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, bytes(40)));
  });
}

test("streamOp() refuses bad options before any native call, and the stream is unchanged", async () => {
  using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
  handle.streamInitEnc(IV);
  await handle.streamUpdateLast(bytes(40));
  await without(() => {
    const refused = (options: unknown, error: ErrorClass, argument: string) =>
      assertArgumentError(
        caughtNow(() => handle.streamOp(options as StreamOpOptions)),
        error,
        argument,
        `${argument} ${String(Object.values(options as object)[0])}`,
      );
    for (const maxBytes of [NaN, -1, 0, 1, 15, 16.5, -Infinity, 2 ** 53 + 2]) {
      refused({ maxBytes }, RangeError, "maxBytes");
    }
    for (const maxBytes of ["16", 16n, null, {}, true]) refused({ maxBytes }, TypeError, "maxBytes");
    for (const signal of [null, "x", {}, new EventTarget()]) refused({ signal }, TypeError, "signal");
    for (const options of [null, "x", 5]) {
      assertThrows(() => handle.streamOp(options as unknown as StreamOpOptions), TypeError, "options");
    }
  });
  assertEquals(
    await collect(handle.streamOp({ maxBytes: 16 })),
    reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, bytes(40)),
  );
});

// ---- sources and chunks ------------------------------------------------------------------------------------------

for (const [entry, call] of [["encrypt()", encrypt], ["decrypt()", decrypt]] as const) {
  test(`${entry} refuses an invalid source at the call, before any native call`, () =>
    without(() => {
      const locked = streamOf([KEY]);
      locked.getReader();
      const sources: unknown[] = [undefined, null, SECRET, "", 4_711, 5n, true, {}, Symbol.iterator, locked, () => []];
      for (const make of [NO_BYTES["a detached Uint8Array"], NO_BYTES["a resizable ArrayBuffer"]]) {
        sources.push(make!());
      }
      sources.push(new Uint8Array(new SharedArrayBuffer(4)));
      for (const source of sources) {
        const error = caughtNow(() => call("cbc(aes)", { key: KEY, iv: IV, engine }, source as ByteSource));
        assertArgumentError(error, TypeError, "source", typeof source);
      }
    }));
}

/** Sources of every kind that give bytes, and then something else; `ended` tells how they were left. */
function sourcesWith(value: unknown): Record<string, { source: ByteSource; ended: () => boolean }> {
  const left = { sync: false, async: false, stream: false };
  function* sync() {
    try {
      yield bytes(100);
      yield value as Bytes;
      yield bytes(100);
    } finally {
      left.sync = true;
    }
  }
  async function* async() {
    try {
      yield* sync();
    } finally {
      left.async = true;
    }
  }
  const values = [bytes(100), value as Bytes, bytes(100)];
  const stream = new ReadableStream<Bytes>({
    pull: (controller) => controller.enqueue(values.shift()!),
    cancel: () => void (left.stream = true),
  });
  return {
    "an iterable": { source: sync(), ended: () => left.sync },
    "an async iterable": { source: async(), ended: () => left.async },
    "a ReadableStream": { source: stream, ended: () => left.stream },
  };
}

for (const [what, make] of Object.entries({ undefined: () => undefined, ...NO_BYTES })) {
  test(`a source that yields ${what} is a TypeError, and the cipher and the source are released`, async () => {
    const before = openFiles();
    for (const [kind, { source, ended }] of Object.entries(sourcesWith(make()))) {
      const output = encrypt("ctr(aes)", { key: KEY, iv: IV, engine }, source);
      assertArgumentError(await caught(collect(output)), TypeError, "source", kind);
      await turns();
      assert(ended(), `${kind} was not told`);
      assertEquals(openFiles(), before);
      assertEquals((await output.next()).done, true);
    }
  });

  if (what === "undefined") continue;
  test(`a chunk that is ${what} errors both sides of a stream with one TypeError, and releases the cipher`, async () => {
    const before = openFiles();
    for (const Stream of [EncryptionStream, DecryptionStream]) {
      const stream = new Stream("ctr(aes)", { key: KEY, iv: IV, engine });
      const writer = stream.writable.getWriter();
      const reader = stream.readable.getReader();
      const closed = [caught(writer.closed), caught(reader.closed)];
      const first = reader.read();
      await writer.write(bytes(32));
      assertEquals((await first).value?.length, 32);
      const error = await assertRejects(() => writer.write(make() as unknown as Bytes));
      assertArgumentError(error, TypeError, "chunk", what);
      for (const other of closed) assertEquals(await other, error);
      assertEquals(openFiles(), before);
    }
  });
}

test("iv: null is refused by name, also if the IV's length is not known before the cipher opens", () => {
  for (const algorithm of ["ctr(aes)", "unheard-of(aes)"]) {
    const options = { key: KEY, iv: null as unknown as Bytes, engine };
    for (const open of [() => new EncryptionStream(algorithm, options), () => encrypt(algorithm, options, KEY)]) {
      assertStringIncludes(assertThrows(open, TypeError).message, '"iv"');
    }
  }
});

test("a getter of an option that closes the handle causes EBADF, and the stream never uses a key of zeros", async () => {
  const options = [
    "iv",
    "padding",
    "inPlace",
    "signal",
    "sectorSize",
    "sector",
    "ivLargeSectors",
    "ivMode",
    "key",
    "engine",
  ] as const;
  for (const name of options) {
    const handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
    const parameters = {
      iv: IV,
      get [name]() {
        handle.close();
        return name === "iv" ? IV : undefined;
      },
    };
    const error = assertThrows(() => new EncryptionStream(handle, parameters), KcapiError);
    assertEquals(error.code, "EBADF", name);
  }
  // A handle that is closed while its IV is looked at.
  for (const use of ["streamInitEnc", "EncryptionStream"]) {
    const handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
    const iv = Object.defineProperty(IV.slice(), "length", { get: () => (handle.close(), 16) });
    const run = use === "streamInitEnc" ? () => handle.streamInitEnc(iv) : () => new EncryptionStream(handle, { iv });
    assertEquals(assertThrows(run, KcapiError).code, "EBADF", use);
  }
  const other = CipherHandle.open("ctr(aes)", { key: KEY, engine });
  const stream = new EncryptionStream(other, { iv: IV });
  other.close();
  const output = collect(streamOf([bytes(100)]).pipeThrough(stream));
  assertEquals(await output, reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, bytes(100)));
});
