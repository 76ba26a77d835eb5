/**
 * Every way to end a stream or a handle releases descriptors, memory and keys. Printed objects show no secrets.
 */
import process from "node:process";
import { fileURLToPath } from "node:url";
import {
  CipherHandle,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
  openGcm,
  openSealed,
  seal,
  SealStream,
} from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import { openEngine } from "../src/engines/mod.ts";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertThrows,
  engine,
  openFiles,
  runtimeArgv,
  spawn,
  takes,
  test,
  times,
} from "./support/deps.ts";
import { interpose } from "./support/native_calls.ts";
import { type Bytes, bytes, collect, collectGarbage, streamOf, turns, WINDOW } from "./support/support.ts";
import { Secret } from "../src/secret.ts";

const TIMES = times(500, 1000);
const key = bytes(16, 2);
const iv = bytes(16, 3);
const options = { key, iv, engine } as const;
/** Large enough that a leak of one chunk per run is measurable. */
const chunk = bytes(48 * 1024);
const full = new Uint8Array(WINDOW);
const reason = new Error("the reason");
const isReason = (error: unknown) => assertStrictEquals(error, reason);

/** The number of objects passed to {@linkcode watch} that are still in memory. */
let watched = 0;
const collected = new FinalizationRegistry(() => watched--);

function watch<T extends object>(value: T): T {
  watched++;
  collected.register(value, undefined);
  return value;
}

let keyedOnce: CipherHandle | undefined;

/**
 * Opened once, because opening a cipher takes longer than everything else. The first test that needs it opens it,
 * because another test may unload the cipher's module after all files are loaded.
 */
const keyed = () => keyedOnce ??= CipherHandle.open("cbc(aes)", { key, engine });

function encryption(signal?: AbortSignal): EncryptionStream {
  const stream = new EncryptionStream(keyed(), { iv, signal });
  watch(stream.readable);
  return stream;
}

/** A source that yields two chunks and then throws. */
function failing(): ReadableStream<Bytes> {
  let given = 0;
  return watch(
    new ReadableStream({
      pull(controller) {
        if (given++ < 2) controller.enqueue(chunk);
        else controller.error(reason);
      },
    }),
  );
}

function endless(): ReadableStream<Bytes> {
  return watch(new ReadableStream({ pull: (controller) => controller.enqueue(chunk) }));
}

function endlessly(): Iterable<Bytes> {
  return watch((function* () {
    for (;;) yield chunk;
  })());
}

function openHandle(): CipherHandle {
  const handle = watch(CipherHandle.open("ctr(aes)", { key, engine }));
  handle.streamInitEnc(iv);
  return handle;
}

// ---- descriptors and memory -------------------------------------------------------------------------------------

const WAYS: Record<string, () => Promise<unknown> | void> = {
  "a stream that is written, closed and read to its end": () => {
    const stream = new EncryptionStream("cbc(aes)", options);
    watch(stream.readable);
    return collect(streamOf([chunk]).pipeThrough(stream));
  },
  "an error of the source": () => assertRejects(() => collect(failing().pipeThrough(encryption()))).then(isReason),
  "an error of the sink": () =>
    assertRejects(() =>
      endless().pipeThrough(encryption()).pipeTo(
        new WritableStream({
          write() {
            throw reason;
          },
        }),
      )
    ).then(isReason),
  "an abort by the signal": async () => {
    const abort = new AbortController();
    const stream = encryption(abort.signal);
    const written = stream.writable.getWriter().write(chunk);
    const reader = stream.readable.getReader();
    await reader.read();
    abort.abort(reason);
    await assertRejects(() => reader.read()).then(isReason);
    await written;
  },
  "a cancel of the readable": async () => {
    const output = endless().pipeThrough(encryption());
    const reader = output.getReader();
    await reader.read();
    await reader.cancel(reason);
  },
  "an abort of the writable": async () => {
    const stream = encryption();
    const reader = stream.readable.getReader();
    const writer = stream.writable.getWriter();
    await Promise.all([writer.write(chunk), reader.read()]);
    await writer.abort(reason);
    await assertRejects(() => reader.read()).then(isReason);
  },
  "a break in the loop over a stream": async () => {
    for await (const output of endless().pipeThrough(encryption())) if (output.length > 0) break;
  },
  "a chunk that is refused": async () => {
    const stream = encryption();
    const writer = stream.writable.getWriter();
    writer.closed.catch(() => {});
    await assertRejects(() => writer.write("text" as unknown as Uint8Array), TypeError);
    await assertRejects(() => stream.readable.getReader().read(), TypeError);
  },
  "a ciphertext that is damaged": async () => {
    const damaged = streamOf([chunk, chunk.subarray(1)]).pipeThrough(new DecryptionStream(keyed(), { iv }));
    await assertRejects(() => collect(damaged), KcapiError);
  },
  "encrypt() to its end, and decrypt()": async () => {
    const output = await collect(decrypt("cbc(aes)", options, watch(encrypt("cbc(aes)", options, watch([chunk])))));
    assertEquals(output, chunk);
  },
  "a break in the loop over encrypt()": async () => {
    for await (const output of encrypt("cbc(aes)", options, endlessly())) if (output.length > 0) break;
  },
  "a throw in the loop over encrypt()": () =>
    assertRejects(async () => {
      for await (const output of encrypt("cbc(aes)", options, endlessly())) if (output.length > 0) throw reason;
    }).then(isReason),
  "the disposal of encrypt()": async () => {
    await using iterable = encrypt("cbc(aes)", options, endlessly());
    await iterable.next();
  },
  "a handle that is used and disposed of": async () => {
    using handle = openHandle();
    const [output] = await Promise.all([collect(handle.streamOp()), handle.streamUpdateLast(chunk)]);
    assertEquals(output.length, chunk.length);
  },
  "a handle, its reinit() and a stream on it": async () => {
    using handle = CipherHandle.open("cbc(aes)", { key, engine });
    using other = handle.reinit();
    other.streamInitEnc(iv);
    await other.streamUpdate(chunk);
    await collect(streamOf([chunk]).pipeThrough(new EncryptionStream(handle, { iv })));
  },
  "close() while an update waits for room": async () => {
    const handle = openHandle();
    const sent = handle.streamUpdate(full);
    const waiting = handle.streamUpdate(chunk);
    await sent;
    handle.close();
    assertEquals((await assertRejects(() => waiting, KcapiError)).code, "ECANCELED");
  },
  "close() while an op waits for data": async () => {
    const handle = openHandle();
    const loop = handle.streamOp();
    const waiting = loop.next();
    handle.close();
    assertEquals((await assertRejects(() => waiting, KcapiError)).code, "ECANCELED");
  },
  "an error in the constructor, after the cipher was opened": () => {
    const layout = { key: bytes(32), engine, sectorSize: 16 * WINDOW };
    assertThrows(() => new EncryptionStream("xts(aes)", layout), RangeError, "sectorSize");
  },
};

/** The stack may still refer to a few of the last objects. */
const FEW = 25;

for (const [i, [way, leave]] of Object.entries(WAYS).entries()) {
  if (!takes(i)) continue;
  test(`${way}: ${TIMES} times leave no descriptors open and no memory in use`, async () => {
    const limit = 0.8 * TIMES * chunk.length;
    let grown = 0;
    // The first runs allocate once: compiled code, pools, the runtime's own descriptors. A leak grows in every round.
    // The allocator's pools may grow in one round.
    for (let i = 0; i < TIMES / 10; i++) await leave();
    for (let round = 0; round < 3; round++) {
      const files = openFiles();
      const memory = process.memoryUsage().rss;
      const before = watched;
      for (let i = 0; i < TIMES; i++) await leave();
      assertEquals(openFiles(), files);
      await collectGarbage(() => {
        grown = process.memoryUsage().rss - memory;
        return watched <= before + FEW && grown < limit;
      });
      assert(watched <= before + FEW, `${watched - before} objects are still in memory`);
      if (grown < limit) return;
    }
    assert(grown < limit, `resident memory has grown by ${grown} bytes in each of three rounds`);
  });
}

const living = new AbortController().signal;
const format = "AES128_CTR_HMAC_SHA256_4KB";
const sealed = new Blob(await Array.fromAsync(seal({ key, format, engine }, chunk)));
const message = new Blob(await Array.fromAsync(encrypt("gcm(aes)", { key, iv }, chunk)));

/** Objects that are left open without a reference. */
const ABANDONED: Record<string, () => Promise<unknown>> = {
  "an unread stream": () => encryption().writable.getWriter().write(bytes(20)),
  "a stream that is no longer read": () => endless().pipeThrough(encryption()).getReader().read(),
  "an encrypt() that is no longer read": () => encrypt("cbc(aes)", options, endlessly()).next(),
  "an unclosed handle": async () => {
    const handle = openHandle();
    await handle.streamUpdate(chunk);
    await handle.streamOp().next();
  },
  "an unread sealed stream": () => watch(new SealStream({ key, format, engine })).writable.getWriter().write(bytes(20)),
  "an unclosed sealed file with a live signal": async () => {
    const source = watch({
      size: sealed.size,
      read: (start: number, end: number) => sealed.slice(start, end).arrayBuffer(),
    });
    await (await openSealed(source, { key, format, engine, signal: living })).bytes(0, 1);
  },
  "a decryption of gcm(aes) that holds a message, with a signal": async () => {
    // The signal is alive only as long as the stream, which waits, refers to it.
    const stream = watch(new DecryptionStream("gcm(aes)", { key, iv, signal: new AbortController().signal }));
    stream.readable.getReader().read().catch(() => {});
    await stream.writable.getWriter().write(chunk.subarray(0, 20_000)); // held in 28 KiB
  },
  "an unclosed message of gcm(aes) with a live signal": async () => {
    const source = watch({
      size: message.size,
      read: (start: number, end: number) => message.slice(start, end).arrayBuffer(),
    });
    await (await openGcm(source, { key, iv, signal: living })).bytes(0, 1);
  },
};

for (const [what, leave] of Object.entries(ABANDONED)) {
  test(`${what}: ${TIMES} times: garbage collection releases all of them`, async () => {
    const files = openFiles();
    const memory = process.memoryUsage().rss;
    const before = watched;
    // On the kernel engine, each object has 3 or 4 descriptors.
    const areFew = () => watched <= before + FEW && openFiles() <= files + 4 * FEW;
    const batch = 250;
    for (let i = 0; i < TIMES; i += batch) {
      for (let j = 0; j < batch; j++) await leave();
      await collectGarbage(areFew);
      assert(
        areFew(),
        `after ${i + batch} times ${watched - before}, and ${openFiles() - files} descriptors, are left`,
      );
    }
    await collectGarbage(); // in Deno, what an object holds is released in a later collection than the object
    await turns(3);
    const grown = process.memoryUsage().rss - memory;
    assert(grown < 0.8 * TIMES * chunk.length, `resident memory has grown by ${grown} bytes`);
  });
}

// ---- keys -------------------------------------------------------------------------------------------------------

interface Copy {
  /** The memory of a key, and its content when it was used. */
  readonly bytes: Uint8Array;
  readonly then: Uint8Array;
}

/** Records the keys that the engine passes to libkcapi or node:crypto, until it is disposed. */
function spyOnKeys(): { copies: Copy[] } & Disposable {
  const copies: Copy[] = [];
  const note = (bytes: Uint8Array) => void copies.push({ bytes, then: bytes.slice() });
  if (engine === "kernel") {
    const library = interpose((real) => ({
      kcapi_cipher_setkey(handle, key, length) {
        note(key!);
        return real.kcapi_cipher_setkey(handle, key, length);
      },
    }));
    return { copies, [Symbol.dispose]: () => library[Symbol.dispose]() };
  }
  const module = process.getBuiltinModule("node:crypto");
  const { createCipheriv, createDecipheriv } = module;
  const spy = (real: typeof createCipheriv) => (...args: Parameters<typeof createCipheriv>) => {
    note(args[1] as Uint8Array);
    return real(...args);
  };
  Object.assign(module, { createCipheriv: spy(createCipheriv), createDecipheriv: spy(createDecipheriv as never) });
  return { copies, [Symbol.dispose]: () => void Object.assign(module, { createCipheriv, createDecipheriv }) };
}

const USES: Record<string, (key: Bytes) => unknown> = {
  "a handle that is closed": async (key) => {
    using handle = CipherHandle.open("cbc(aes)", { key, engine });
    handle.streamInitEnc(iv);
    await handle.streamUpdateLast(chunk);
    await collect(handle.streamOp());
  },
  "handles that share a key, when the last one is closed": (key) => {
    using handle = CipherHandle.open("cbc(aes)", { key, engine });
    using other = handle.reinit();
    handle.close();
    other.streamInitDec(iv);
  },
  "a stream that is read to its end": (key) =>
    collect(streamOf([chunk]).pipeThrough(new EncryptionStream("cbc(aes)", { key, iv, engine }))),
  "a stream that is cancelled": (key) => {
    const stream = new EncryptionStream("ctr(aes)", { key, iv, engine });
    return stream.readable.cancel(reason);
  },
  "encrypt() to its end": (key) => collect(encrypt("ctr(aes)", { key, iv, engine }, chunk)),
  "encrypt() that is left": async (key) => {
    for await (const _ of encrypt("ctr(aes)", { key, iv, engine }, endlessly())) break;
  },
};

if (engine === "userspace") {
  // The first use of a cipher tries it with another key.
  (await openGcm(message, { key, iv })).close();
  Object.assign(USES, {
    "an encryption of gcm(aes) to its end": (key: Bytes) => collect(encrypt("gcm(aes)", { key, iv }, chunk)),
    "a decryption of gcm(aes) that is cancelled": (key: Bytes) =>
      new DecryptionStream("gcm(aes)", { key, iv }).readable.cancel(reason),
    "a message of gcm(aes) that is closed": async (key: Bytes) => {
      const message = new Blob(await Array.fromAsync(encrypt("gcm(aes)", { key, iv }, chunk)));
      using reader = await openGcm(message, { key, iv });
      await reader.bytes(0, 100);
    },
  });
}

for (const [what, use] of Object.entries(USES)) {
  test(`the copy of the key is zeroed: ${what}`, async () => {
    using spy = spyOnKeys();
    const own = bytes(16, 9);
    await use(own);
    assert(spy.copies.length > 0);
    for (const { bytes: copy, then } of spy.copies) {
      assertEquals(then, own);
      assert(copy.buffer !== own.buffer);
      assertEquals(copy, new Uint8Array(16));
    }
    assertEquals(own, bytes(16, 9));
  });
}

test("openEngine() zeroes its key: at once on the kernel engine and on errors, at close() on the userspace engine", () => {
  const isZero = (key: Bytes) => key.every((byte) => byte === 0);
  const cbc = parseAlgorithm("cbc(aes)");
  const taken = Secret.from(bytes(16, 9));
  const memory = taken.bytes;
  const opened = openEngine(cbc, taken, engine);
  assertEquals(isZero(memory), engine === "kernel");
  const other = opened.reinit();
  opened.close();
  assert(isZero(memory));
  other.close();
  // An unknown algorithm and an invalid key length, with one engine and with auto, which tries both.
  for (const choice of [engine, "auto"] as const) {
    for (const [name, size] of [["nosuch(aes)", 16], ["cbc(aes)", 15]] as const) {
      const key = Secret.from(bytes(size, 9));
      const memory = key.bytes;
      assertThrows(() => openEngine(parseAlgorithm(name), key, choice), KcapiError);
      assert(isZero(memory), `${choice}: ${name} with ${size} bytes`);
    }
  }
});

// ---- printed output ----------------------------------------------------------------------------------------------

/** A repeated byte as the printing functions may show it: in decimal, hexadecimal, Base64 and as text. */
function runsOf(byte: number): RegExp {
  const hex = byte.toString(16);
  const run = new Uint8Array(6).fill(byte);
  const forms = [`${byte},\\s*${byte}`, `${hex}[\\s,]*${hex}`, `0x${hex}`, run.toBase64(), String.fromCharCode(...run)];
  return new RegExp(forms.join("|"), "i");
}

test("console.log and inspect show no key, IV or data for handles, streams, iterables and errors", async () => {
  const child = fileURLToPath(new URL("./children/print.ts", import.meta.url));
  const { code, stdout, stderr } = await spawn([...runtimeArgv, child]);
  assertEquals([code, stderr], [0, ""]);
  const [control, printed] = stdout.split("end of control");
  for (const byte of [0xc7, 0xb3, 0xd5, 0xd6]) {
    if (byte !== 0xd6) assert(runsOf(byte).test(control!), "the control shows what is looked for");
    assertEquals(runsOf(byte).exec(printed!)?.[0], undefined);
  }
  for (const what of ["handle", "stream", "iterable", "KcapiError", "RangeError", "TypeError", "EBADMSG"]) {
    assert(printed!.includes(what), `${what} was not printed`);
  }
  assert(!printed!.includes("did not fail"), printed);
});
