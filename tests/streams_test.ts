/**
 * EncryptionStream and DecryptionStream: bytes, backpressure, small chunks, memory, sectors, and every way to end one.
 */
import { Buffer } from "node:buffer";
import { getEventListeners } from "node:events";
import { clearImmediate, setImmediate } from "node:timers";
import { fileURLToPath } from "node:url";
import {
  CipherHandle,
  type CipherStreamOptions,
  DecryptionStream,
  EncryptionStream,
  KcapiError,
  seal,
  SealStream,
  UnsealStream,
} from "../mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertThrows,
  engine,
  openFiles,
  runtimeArgv,
  spawn,
} from "./support/deps.ts";
import { contractOf } from "./support/pool.ts";
import {
  type Bytes,
  bytes,
  collect,
  collectGarbage,
  concat,
  cut,
  type Direction,
  reference,
  streamOf,
  WINDOW,
} from "./support/support.ts";

const { test, pool, turns, outcomes, assertReleased } = await contractOf(import.meta.url);

const KEY = bytes(32, 101);
const IV = bytes(16, 102);
const XTS_KEY = bytes(64, 103);

/** The most bytes of small chunks that a stream buffers. */
const GATHERED = 65_536;

type Options = Omit<CipherStreamOptions, "key"> & { key?: Bytes };

function open(direction: Direction, algorithm: string, options: Options = {}): EncryptionStream | DecryptionStream {
  const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
  return new Stream(algorithm, { key: KEY, engine, pool, ...options });
}

function ctr(options: Options = {}): EncryptionStream {
  return new EncryptionStream("ctr(aes)", { key: KEY, iv: IV, engine, pool, ...options });
}

const ctrOf = (input: Bytes) => reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, input);

function through(stream: EncryptionStream, chunks: Iterable<Uint8Array>): Promise<Bytes> {
  return collect(streamOf(chunks).pipeThrough(stream));
}

// ---- Same bytes for all chunk sizes -----------------------------------------------------------------------------

const SMALL_LENGTHS = [0, 1, 15, 16, 17, 31, 32, 33, 100, 1000];
const LARGE_LENGTHS = [WINDOW - 16, WINDOW, WINDOW + 16, 2 * WINDOW + 48];

for (
  const [algorithm, options] of [
    ["cbc(aes)", { iv: IV, padding: "pkcs7" }],
    ["cbc(aes)", { iv: IV, padding: "none" }],
    ["ecb(aes)", { padding: "pkcs7" }],
    ["ecb(aes)", { padding: "none" }],
    ["ctr(aes)", { iv: IV }],
  ] as const
) {
  const title = `${algorithm}${"padding" in options ? `, padding ${options.padding}` : ""}`;
  const wholeBlocks = "padding" in options && options.padding === "none";
  const fits = (length: number) => !wholeBlocks || length % 16 === 0;
  const compare = async (length: number, size: number) => {
    const plaintext = bytes(length, length);
    const ciphertext = reference("encrypt", algorithm, { key: KEY, ...options }, plaintext);
    const label = `${length} bytes in chunks of ${size}`;
    assertEquals(await through(open("encrypt", algorithm, options), cut(plaintext, [size])), ciphertext, label);
    assertEquals(await through(open("decrypt", algorithm, options), cut(ciphertext, [size])), plaintext, label);
  };
  test(`${title}: chunks of about a block give OpenSSL's bytes and decrypt`, async () => {
    for (const length of SMALL_LENGTHS.filter(fits)) {
      for (const size of pool ? [1, 17] : [1, 15, 16, 17]) {
        if (size > 1 || length <= 100) await compare(length, size);
      }
    }
  });
  test(`${title}: chunks of about a window give OpenSSL's bytes and decrypt`, async () => {
    for (const length of LARGE_LENGTHS) {
      for (const size of pool ? [WINDOW + 1] : [WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW + 1]) {
        if (size < length + WINDOW) await compare(length, size);
      }
    }
  });
}

test("padding is pkcs7 by default for cbc and ecb, none for ctr", async () => {
  for (
    const [algorithm, iv, length] of [["cbc(aes)", IV, 32], ["ecb(aes)", undefined, 32], ["ctr(aes)", IV, 16]] as const
  ) {
    assertEquals((await through(open("encrypt", algorithm, iv && { iv }), [bytes(16)])).length, length, algorithm);
  }
});

test("chunks that are views of one buffer are read at their offsets and are not changed", async () => {
  const memory = bytes(100_000);
  const before = memory.slice();
  const views = [[3, 20_004], [20_001, 20_002], [20_002, 60_001], [7, 7], [59_999, 99_998]]
    .map(([start, end]) => memory.subarray(start, end));
  assertEquals(await through(ctr(), views), ctrOf(concat(views)));
  assertEquals(memory, before);
});

test("a stream accepts every type of BufferSource, and outputs plain Uint8Arrays only", async () => {
  const types: [new (buffer: ArrayBuffer, offset: number, length: number) => ArrayBufferView, size: number][] = [
    [Int8Array, 1],
    [Uint8Array, 1],
    [Uint8ClampedArray, 1],
    [class extends Uint8Array<ArrayBuffer> {}, 1],
    [Int16Array, 2],
    [Uint16Array, 2],
    [Int32Array, 4],
    [Uint32Array, 4],
    ...("Float16Array" in globalThis ? [[Float16Array, 2]] as [typeof Float16Array, 2][] : []),
    [Float32Array, 4],
    [Float64Array, 8],
    [BigInt64Array, 8],
    [BigUint64Array, 8],
    [DataView as unknown as new (buffer: ArrayBuffer, offset: number, length: number) => DataView, 1],
  ];
  for (const length of [48, 20_000]) {
    const memory = bytes(length + 16);
    const inner = memory.subarray(8, 8 + length);
    const chunks = [
      ...types.map(([Type, size]) => new Type(memory.buffer, 8, length / size)),
      Buffer.from(memory.buffer, 8, length),
      inner.slice().buffer,
    ];
    // deno-lint-ignore no-explicit-any
    const readable = streamOf<any>(chunks).pipeThrough(ctr());
    const pieces: Uint8Array[] = [];
    for await (const piece of readable) {
      assertStrictEquals(Object.getPrototypeOf(piece), Uint8Array.prototype);
      assertInstanceOf(piece.buffer, ArrayBuffer);
      pieces.push(piece);
    }
    assertEquals(concat(pieces), ctrOf(concat(chunks.map(() => inner))));
  }
});

const detached = new Uint8Array(16);
structuredClone(detached, { transfer: [detached.buffer] });

for (
  const [what, chunk] of Object.entries({
    "a string": "text",
    "a number": 5,
    "null": null,
    "undefined": undefined,
    "an array of numbers": [1, 2, 3],
    "an object with a length": { length: 4, buffer: new ArrayBuffer(4), byteOffset: 0, byteLength: 4 },
    "a view of shared memory": new Uint8Array(new SharedArrayBuffer(16)),
    "a view of a resizable buffer": new Uint8Array(new ArrayBuffer(16, { maxByteLength: 32 })),
    "a detached view": detached,
  })
) {
  test(`a chunk that is ${what} errors both sides with one TypeError`, async () => {
    const stream = ctr();
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    await writer.write(bytes(32)); // buffered, then dropped
    const error = await assertRejects(() => writer.write(chunk as Uint8Array), TypeError, '"chunk"');
    const [writing, reading] = await outcomes(writer.closed, reader.read());
    assertEquals([writing, reading], Array(2).fill({ state: "rejected", reason: error }));
  });
}

// ---- A TransformStream ------------------------------------------------------------------------------------------

test("the streams are TransformStreams: instanceof, pipeThrough, pipeTo, Response, tee, for await", async () => {
  const options = { key: KEY, iv: IV, engine, pool };
  const [encryption, decryption] = [
    new EncryptionStream("cbc(aes)", options),
    new DecryptionStream("cbc(aes)", options),
  ];
  for (const stream of [encryption, decryption]) {
    assertInstanceOf(stream, TransformStream);
    assertInstanceOf(stream.readable, ReadableStream);
    assertInstanceOf(stream.writable, WritableStream);
    assertStrictEquals(stream.readable, stream.readable);
    assertStrictEquals(stream.engine, engine);
  }
  const input = bytes(300_000);
  const expected = reference("encrypt", "cbc(aes)", { ...options, padding: "pkcs7" }, input);
  const [one, other] = streamOf(cut(input, [70_000])).pipeThrough(encryption).tee();
  const written: Uint8Array[] = [];
  const piped = other.pipeThrough(decryption).pipeTo(
    new WritableStream({ write: (chunk) => void written.push(chunk) }),
  );
  const [response] = await Promise.all([new Response(one).arrayBuffer(), piped]);
  assertEquals(new Uint8Array(response), expected);
  assertEquals(concat(written), input);
});

test("key and IV are copied by the constructor", async () => {
  const [key, iv] = [KEY.slice(), IV.slice()];
  const stream = ctr({ key, iv });
  key.fill(0);
  iv.fill(0);
  assertEquals(await through(stream, [bytes(100)]), ctrOf(bytes(100)));
});

test(
  "streams from a handle use its key, and do not affect the handle or the handle's own stream",
  { needs: { "one thread: a handle belongs to its thread": !pool } },
  async () => {
    const files = openFiles();
    const handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
    handle.streamInitEnc(IV);
    await handle.streamUpdate(bytes(32));
    const otherIV = bytes(16, 5);
    const streams = [new EncryptionStream(handle, { iv: IV }), new DecryptionStream(handle, { iv: otherIV })];
    assertEquals(streams.map((stream) => stream.engine), [engine, engine]);
    const [first, second] = await Promise.all(streams.map((stream) => through(stream, cut(bytes(50_000), [17_000]))));
    assertEquals(first, ctrOf(bytes(50_000)));
    assertEquals(second, reference("decrypt", "ctr(aes)", { key: KEY, iv: otherIV }, bytes(50_000)));
    await handle.streamUpdateLast(bytes(1));
    assertEquals(await collect(handle.streamOp()), ctrOf(concat([bytes(32), bytes(1)])));

    const survivor = new EncryptionStream(handle, { iv: IV });
    handle.close();
    assertEquals(await through(survivor, [bytes(10)]), ctrOf(bytes(10)));
    assertThrows(() => new EncryptionStream(handle, { iv: IV }), KcapiError, "closed");
    await assertReleased(files);
  },
);

// ---- Backpressure -----------------------------------------------------------------------------------------------

/** A source of `total` bytes in chunks, and the number of bytes that were pulled from it. */
function counted(total: number, size: number): { source: ReadableStream<Bytes>; asked: () => number } {
  let asked = 0;
  function* chunks(): Generator<Bytes> {
    while (asked < total) {
      const length = Math.min(size, total - asked);
      asked += length;
      yield bytes(length, asked);
    }
  }
  return { source: streamOf(chunks()), asked: () => asked };
}

/** The most bytes that a stream accepts ahead of its reader: a window. With two Workers: two batches each, the buffer
 * of small chunks, and a chunk. */
const AHEAD = pool ? (4 << 20) + GATHERED + WINDOW : WINDOW;

for (const size of [1000, 16_384, 65_536, 200_000]) {
  test(`without a reader, a stream pulls at most a window, in chunks of ${size} bytes`, async () => {
    const { source, asked } = counted(64 * WINDOW, size);
    const readable = source.pipeThrough(ctr());
    await turns(50);
    const first = asked();
    await turns(50);
    assertEquals(asked(), first, "still asking");
    assert(first >= size && first <= AHEAD, `asked for ${first} bytes`);
    await readable.cancel();
  });

  test(`with a slow reader, a stream pulls at most a window ahead, in chunks of ${size} bytes`, async () => {
    const total = (pool ? 25 : 5) * WINDOW;
    const { source, asked } = counted(total, size);
    let received = 0;
    for await (const piece of source.pipeThrough(ctr())) {
      received += piece.length;
      await turns(10);
      assert(asked() - received <= AHEAD, `${asked() - received} bytes in flight after ${received}`);
    }
    assertEquals(received, total);
  });
}

test(
  "one chunk of 8 MiB is output in windows, each computed when the reader asks for it",
  { needs: { "one thread: a pool gets batches before a reader asks": !pool } },
  async () => {
    const [chunk, zeros] = [new Uint8Array(8 << 20), new Uint8Array(8 << 20)];
    const stream = ctr({ inPlace: true }); // so that the memory of the chunk shows what was processed
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    let written = false;
    const writing = writer.write(chunk).then(() => written = true);
    await turns(5);
    assertEquals(chunk, zeros, "processed before a read");
    let received = 0;
    while (received < chunk.length) {
      const { value } = await reader.read();
      assert(value!.length <= WINDOW, `a piece of ${value!.length} bytes`);
      received += value!.length;
      await turns(2);
      assertEquals(written, received === chunk.length);
      const rest = chunk.subarray(received, received + WINDOW);
      assertEquals(rest, zeros.subarray(0, rest.length), "processed before its read");
    }
    await writing;
    assertEquals(chunk, ctrOf(zeros));
    await Promise.all([writer.close(), reader.read()]);
  },
);

test(
  "one large chunk fulfills all pending reads, and no more is processed",
  { needs: { "one thread: a pool gets batches before a reader asks": !pool } },
  async () => {
    const stream = ctr();
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    const reads = [reader.read(), reader.read(), reader.read()];
    await turns(3);
    const writing = writer.write(bytes(4 * WINDOW));
    const found = await outcomes(writing, ...reads);
    assertEquals(found.map(({ state }) => state), ["pending", "fulfilled", "fulfilled", "fulfilled"]);
    const rest = (await reader.read()).value!;
    const pieces = (await Promise.all(reads)).map(({ value }) => value!);
    assertEquals(concat([...pieces, rest]), ctrOf(bytes(4 * WINDOW)));
    await Promise.all([writing, writer.close()]);
  },
);

test("a large chunk does not block the event loop", async () => {
  let turned = false;
  setImmediate(() => turned = true);
  const stream = open("encrypt", "cbc(aes)", { iv: IV });
  const reading = collect(stream.readable);
  const writer = stream.writable.getWriter();
  const chunk = new Uint8Array(8 << 20);
  for (let i = 0; i < 16 && !turned; i++) await writer.write(chunk);
  assert(turned, "over 16 chunks of 8 MiB");
  await Promise.all([writer.close(), reading]);
});

/** Runs `body`, whose argument tells whether the event loop has turned `enough` times. Returns the number of turns. */
async function turnsDuring(enough: number, body: (isEnough: () => boolean) => Promise<unknown>): Promise<number> {
  let count = 0;
  let immediate: ReturnType<typeof setImmediate>;
  const turn = () => {
    count++;
    immediate = setImmediate(turn);
  };
  immediate = setImmediate(turn);
  await body(() => count >= enough);
  clearImmediate(immediate);
  return count;
}

/** Bytes that take many time slices to process. */
const MUCH = 64 << 20;
const sealing = { key: KEY, engine };
const FED: Record<string, { open: () => TransformStream<Uint8Array, Uint8Array>; input: () => Promise<Bytes> }> = {
  EncryptionStream: { open: () => ctr(), input: () => Promise.resolve(new Uint8Array(MUCH)) },
  SealStream: { open: () => new SealStream({ ...sealing, pool }), input: () => Promise.resolve(new Uint8Array(MUCH)) },
  UnsealStream: {
    open: () => new UnsealStream({ ...sealing, pool }),
    input: () => collect(seal(sealing, new Uint8Array(MUCH))),
  },
};

for (const [name, { open, input }] of Object.entries(FED)) {
  test(`${name} fed from memory does not block the event loop, with chunks of any size`, async () => {
    const bytes = await input();
    for (const size of [4096, 65_536, 200_000]) {
      const had = await turnsDuring(4, async (isEnough) => {
        const { readable, writable } = open();
        const [writer, reader] = [writable.getWriter(), readable.getReader()];
        const reading = (async () => {
          while (!(await reader.read()).done);
        })();
        // write() and read() settle in microtasks, one after another.
        for (let at = 0; at < bytes.length && !isEnough(); at += size) {
          await writer.write(bytes.subarray(at, at + size));
        }
        await Promise.allSettled([writer.abort(), reading]);
      });
      assert(had >= 4, `${had} turns in chunks of ${size} bytes`);
    }
  });
}

test(
  "a stream that waits for a reader or a writer does not keep the process alive",
  { needs: { "one thread: workers_test.ts tests this with a pool": !pool } },
  async () => {
    const child = fileURLToPath(new URL("./children/unread.ts", import.meta.url));
    const { code, signal, stdout, stderr } = await spawn([...runtimeArgv, child]);
    assertEquals([code, signal, stdout], [0, null, "ended\n"], stderr);
  },
);

// ---- Memory -----------------------------------------------------------------------------------------------------

for (const size of [10, 5000, 20_000, WINDOW + 5]) {
  test(`a buffer of ${size} bytes is unchanged when write() settles, and may be reused`, async () => {
    const stream = ctr();
    const output = (async () => {
      const pieces: Bytes[] = [];
      for await (const piece of stream.readable) {
        pieces.push(piece.slice());
        piece.fill(0xee); // the reader owns the output: the stream does not read it again
        await turns(1);
      }
      return concat(pieces);
    })();
    const writer = stream.writable.getWriter();
    const buffer = new Uint8Array(size);
    const inputs = Array.from({ length: 12 }, (_, i) => bytes(size, i));
    for (const input of inputs) {
      buffer.set(input);
      await writer.write(buffer);
      assertEquals(buffer, input);
      buffer.fill(0xdd);
    }
    await writer.close();
    assertEquals(await output, ctrOf(concat(inputs)));
  });
}

// ---- Buffering of small chunks --------------------------------------------------------------------------------------

test("many small writes give few chunks of output", async () => {
  const input = bytes(4 * GATHERED);
  let outputs = 0;
  const pieces: Uint8Array[] = [];
  const stream = ctr();
  const reading = (async () => {
    for await (const piece of stream.readable) outputs++, pieces.push(piece);
  })();
  const writer = stream.writable.getWriter();
  let writes: Promise<void>[] = [];
  const had = await turnsDuring(Infinity, () => {
    writes = [...cut(input, [64])].map((chunk) => writer.write(chunk));
    return Promise.all([...writes, writer.close(), reading]);
  });
  assertEquals(concat(pieces), ctrOf(input));
  // The stream outputs its buffer at each turn of the event loop, and yields to the event loop now and then.
  assert(outputs <= 8 + had, `${outputs} outputs for ${writes.length} writes, in ${had} turns`);
});

test("small writes are output within one turn of the event loop when a reader waits", async () => {
  const stream = ctr();
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  const input = bytes(160);
  for (const start of [0, 80]) {
    const read = reader.read();
    await writer.write(input.subarray(start, start + 32));
    await writer.write(input.subarray(start + 32, start + 80));
    const result = await Promise.race([read, turns(1)]);
    assertEquals(result?.value, ctrOf(input).slice(start, start + 80));
  }
  await Promise.all([writer.close(), reader.read()]);
});

function blockThread(milliseconds: number): void {
  for (const end = performance.now() + milliseconds; performance.now() < end;);
}

test("small writes after a pause are buffered", async () => {
  const stream = ctr();
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  const large = 2 * WINDOW; // is not buffered
  const input = bytes(large + 80);
  const [written, first] = [writer.write(input.subarray(0, large)), []] as [Promise<void>, Bytes[]];
  for (let length = 0; length < large; length += first.at(-1)!.length) first.push((await reader.read()).value!);
  await written;
  blockThread(8); // longer than a time slice
  await turns(1);
  const read = reader.read();
  await writer.write(input.subarray(large, large + 32));
  await writer.write(input.subarray(large + 32));
  assertEquals((await read).value, ctrOf(input).slice(large));
  await Promise.all([writer.close(), reader.read()]);
});

test("small writes are output within one turn of the event loop when a reader comes later", async () => {
  const stream = ctr();
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  await writer.write(bytes(100));
  await turns(5);
  const result = await Promise.race([reader.read(), turns(1)]);
  assertEquals(result?.value, ctrOf(bytes(100)).slice(0, 96));
  await writer.abort();
});

test("a partial block, the last block with PKCS#7 and a partial sector wait for more input", async () => {
  const ciphertext = reference("encrypt", "cbc(aes)", { key: KEY, iv: IV, padding: "pkcs7" }, bytes(20));
  for (
    const [stream, input, held, last] of [
      [ctr(), bytes(15), 0, 15],
      [ctr(), bytes(33), 32, 1],
      [open("encrypt", "cbc(aes)", { iv: IV }), bytes(15), 0, 16],
      [open("decrypt", "cbc(aes)", { iv: IV }), ciphertext, 16, 4],
      [open("encrypt", "xts(aes)", { key: XTS_KEY, sectorSize: 512 }), bytes(1040), 1024, 16],
    ] as const
  ) {
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    await writer.write(input);
    let read = reader.read();
    if (held > 0) {
      assertEquals((await read).value!.length, held);
      read = reader.read();
    }
    assertEquals(await outcomes(read), [{ state: "pending" }]);
    await Promise.all([writer.close(), read]);
    assertEquals((await read).value!.length, last);
  }
});

test(
  "without a reader, a stream buffers 64 KiB of small writes, and the next write waits",
  { needs: { "one thread: a pool gets batches before a reader asks": !pool } },
  async () => {
    const stream = ctr();
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    const input = bytes(GATHERED + 8192);
    for (const chunk of cut(input.subarray(0, GATHERED), [8192])) {
      const [written] = await outcomes(writer.write(chunk));
      assertEquals(written?.state, "fulfilled");
    }
    const waiting = writer.write(input.subarray(GATHERED));
    assertEquals(await outcomes(waiting), [{ state: "pending" }]);
    assertEquals((await reader.read()).value, ctrOf(input).slice(0, GATHERED));
    assertEquals((await outcomes(waiting))[0]?.state, "fulfilled");
    const [{ value }] = await Promise.all([reader.read(), writer.close()]);
    assertEquals(value, ctrOf(input).slice(GATHERED));
  },
);

test("close() outputs the buffered writes", async () => {
  const stream = ctr();
  const writer = stream.writable.getWriter();
  const closing = Promise.all([writer.write(bytes(40)), writer.write(bytes(3)), writer.close()]);
  assertEquals(await collect(stream.readable), ctrOf(concat([bytes(40), bytes(3)])));
  await closing;
});

test("cancel() and abort() drop the buffered writes", async () => {
  for (const way of ["cancel", "abort"]) {
    const stream = ctr();
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    await writer.write(bytes(100));
    const reason = new Error("enough");
    await (way === "cancel" ? reader.cancel(reason) : writer.abort(reason));
    const [writing, reading] = await outcomes(writer.closed, reader.read());
    assertEquals(writing, { state: "rejected", reason });
    assertEquals(
      reading,
      way === "cancel"
        ? { state: "fulfilled", value: { done: true, value: undefined } }
        : { state: "rejected", reason },
    );
  }
});

// The first sector has the last sector number, so the second one fails.
const LAST_SECTOR = { key: XTS_KEY, sectorSize: 512, sector: 2n ** 64n - 1n };

for (
  const [when, then] of Object.entries({
    "in the next turn": async () => {
      await turns(1);
    },
    // A pool accepts this chunk before the Worker reports the error.
    "when a large chunk follows": (writer: WritableStreamDefaultWriter<Uint8Array>) =>
      pool ? writer.write(bytes(50_000)) : assertRejects(() => writer.write(bytes(50_000)), KcapiError, "EOVERFLOW"),
    "at the close": (writer: WritableStreamDefaultWriter<Uint8Array>) =>
      assertRejects(() => writer.close(), KcapiError, "EOVERFLOW"),
  })
) {
  test(`an error of a buffered chunk fails both sides: ${when}`, async () => {
    const files = openFiles();
    const stream = open("encrypt", "xts(aes)", LAST_SECTOR);
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    const read = reader.read();
    read.catch(() => {}); // it may reject before the test handles it
    await writer.write(bytes(1024));
    await then(writer);
    const [writing, reading, closed] = await outcomes(writer.closed, read, reader.closed);
    for (const side of [writing, reading, closed]) {
      assert(side?.state === "rejected", JSON.stringify({ writing, reading, closed }));
      assertInstanceOf(side.reason, KcapiError);
      assertEquals(side.reason.code, "EOVERFLOW");
    }
    await assertReleased(files);
  });
}

// ---- inPlace ----------------------------------------------------------------------------------------------------

/** `input` as chunks in buffers of their own, with bytes around each chunk that must not change. */
function framed(input: Bytes, sizes: readonly number[]): { chunks: Bytes[]; assertFrames: () => void } {
  const frame = 0xa5;
  const chunks = [...cut(input, sizes)].map((part, i) => {
    const memory = new Uint8Array(part.length + 64).fill(frame);
    const chunk = memory.subarray(i % 32, i % 32 + part.length);
    chunk.set(part);
    return chunk;
  });
  const assertFrames = () => {
    for (const { buffer, byteOffset, length } of chunks) {
      const memory = new Uint8Array(buffer);
      assert(memory.subarray(0, byteOffset).every((byte) => byte === frame), "bytes before a chunk were written");
      assert(memory.subarray(byteOffset + length).every((byte) => byte === frame), "bytes after a chunk were written");
    }
  };
  return { chunks, assertFrames };
}

for (
  const [algorithm, options, unit] of [
    ["ctr(aes)", { iv: IV }, 16],
    ["cbc(aes)", { iv: IV, padding: "pkcs7" }, 16],
    ["ecb(aes)", { padding: "pkcs7" }, 16],
    ["xts(aes)", { key: XTS_KEY, sectorSize: 512, sector: 7 }, 512],
    ["xts(aes)", { key: XTS_KEY, sectorSize: 4096, sector: 7 }, 4096],
  ] as const
) {
  const title = algorithm === "xts(aes)" ? `${algorithm}, sectors of ${unit} bytes` : algorithm;
  test(
    `inPlace, ${title}: output is in the memory of the chunks, in order, and bytes around them do not change`,
    { needs: { "one thread: a pool moves memory to a Worker": !pool } },
    async () => {
      const plaintext = bytes((unit === 512 ? 1 : 2) * WINDOW + 16 * unit); // each sector is a round of its own
      const ciphertext = reference("encrypt", algorithm, { key: KEY, ...options }, plaintext);
      for (
        const sizes of [
          [WINDOW],
          [2 * WINDOW + 1],
          [WINDOW - 1, WINDOW + 2, 3],
          [20_000],
          [65_529, 7],
          [1, 15_000, 16, 17, 40_000, 31, 16_384],
        ]
      ) {
        for (
          const [direction, input, output] of [["encrypt", plaintext, ciphertext], [
            "decrypt",
            ciphertext,
            plaintext,
          ]] as const
        ) {
          const { chunks, assertFrames } = framed(input, sizes);
          const given = new Set<ArrayBufferLike>(chunks.map(({ buffer }) => buffer));
          let [own, fresh] = [0, 0];
          const pieces: Bytes[] = [];
          for await (
            const piece of streamOf(chunks).pipeThrough(open(direction, algorithm, { ...options, inPlace: true }))
          ) {
            if (given.has(piece.buffer)) {
              own += piece.length;
            } else {
              fresh++;
              assert(piece.length <= unit, `a fresh buffer of ${piece.length} bytes`);
            }
            pieces.push(piece.slice());
          }
          assertEquals(concat(pieces), output, `${direction}, chunks of ${sizes}`);
          assertFrames();
          // Of each chunk at most one block or sector, and the padding, may be in other memory.
          assert(fresh <= chunks.length + 1 && own >= output.length - fresh * unit, `${own} bytes in place`);
        }
      }
    },
  );
}

test("inPlace, without a reader: small chunks are buffered by reference and give the right bytes", async () => {
  const { chunks, assertFrames } = framed(bytes(3000), [7, 100, 33]);
  const stream = ctr({ inPlace: true });
  const writer = stream.writable.getWriter();
  for (const chunk of chunks) await writer.write(chunk);
  const closing = writer.close();
  assertEquals(await collect(stream.readable), ctrOf(bytes(3000)));
  await closing;
  assertFrames();
});

test(
  "inPlace: a large chunk that is detached before it is read fails both sides",
  { needs: { "one thread: a pool moves memory to a Worker": !pool } },
  async () => {
    const stream = ctr({ inPlace: true });
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    const chunk = bytes(2 * WINDOW);
    const writing = writer.write(chunk);
    await reader.read();
    structuredClone(chunk, { transfer: [chunk.buffer] });
    const found = await outcomes(reader.read(), writing, writer.closed);
    for (const side of found) {
      assert(side.state === "rejected" && side.reason instanceof TypeError, JSON.stringify(found));
    }
  },
);

test("inPlace: a small chunk that is detached while it is buffered fails both sides", async () => {
  const stream = ctr({ inPlace: true });
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  const chunks = [bytes(64), bytes(64), bytes(64)] as const;
  for (const chunk of chunks) await writer.write(chunk);
  structuredClone(chunks[1], { transfer: [chunks[1].buffer] });
  const found = await outcomes(reader.read(), writer.closed);
  for (const side of found) {
    assert(side.state === "rejected" && side.reason instanceof TypeError, JSON.stringify(found));
  }
});

// ---- Sectors ----------------------------------------------------------------------------------------------------

for (
  const [sectorSize, sector] of [
    [512, undefined],
    [512, 5],
    [4096, 2 ** 32 - 2],
    [512, 2n ** 63n],
    [528, 2n ** 64n - 10n],
    [16, 0xfe],
  ] as const
) {
  test(`sectors of ${sectorSize} bytes from number ${sector} have their numbers as IVs, in chunks of any size`, async () => {
    const options = { key: XTS_KEY, sectorSize, ...(sector !== undefined && { sector }) };
    const plaintext = bytes(9 * sectorSize);
    const ciphertext = reference("encrypt", "xts(aes)", options, plaintext);
    for (
      const sizes of [[plaintext.length], [sectorSize], [sectorSize - 1], [sectorSize + 1], [1, 2 * sectorSize + 3, 40]]
    ) {
      assertEquals(await through(open("encrypt", "xts(aes)", options), cut(plaintext, sizes)), ciphertext, `${sizes}`);
      assertEquals(await through(open("decrypt", "xts(aes)", options), cut(ciphertext, sizes)), plaintext, `${sizes}`);
    }
  });
}

test("sectors over several windows give the bytes of each sector", async () => {
  const options = { key: XTS_KEY, sectorSize: 4096, sector: 1 };
  const plaintext = bytes(3 * WINDOW);
  const ciphertext = reference("encrypt", "xts(aes)", options, plaintext);
  assertEquals(await through(open("encrypt", "xts(aes)", options), [plaintext]), ciphertext);
  assertEquals(await through(open("decrypt", "xts(aes)", options), cut(ciphertext, [100_001])), plaintext);
});

test("xts encrypts a short last sector of at least 16 bytes with ciphertext stealing", async () => {
  const options = { key: XTS_KEY, sectorSize: 512, sector: 3 };
  for (const tail of [16, 17, 31, 32, 511]) {
    const plaintext = bytes(2 * 512 + tail);
    const ciphertext = reference("encrypt", "xts(aes)", options, plaintext);
    assertEquals(await through(open("encrypt", "xts(aes)", options), cut(plaintext, [100])), ciphertext, `${tail}`);
    assertEquals(await through(open("decrypt", "xts(aes)", options), cut(ciphertext, [100])), plaintext, `${tail}`);
  }
});

test("a bad last sector fails at the end, after all full sectors", async () => {
  const options = { key: XTS_KEY, sectorSize: 512 };
  for (const direction of ["encrypt", "decrypt"] as const) {
    const files = openFiles();
    const stream = open(direction, "xts(aes)", options);
    const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
    await writer.write(bytes(1024 + 15));
    assertEquals((await reader.read()).value, reference(direction, "xts(aes)", options, bytes(1024)));
    const found = await outcomes(reader.read(), writer.close(), writer.closed);
    for (const side of found) {
      assert(side.state === "rejected", JSON.stringify(found));
      if (direction === "encrypt") assertInstanceOf(side.reason, RangeError);
      else assertEquals((side.reason as KcapiError).code, "EBADMSG");
    }
    await assertReleased(files);
  }
});

test("a sector may be as large as the window", async () => {
  const options = { key: XTS_KEY, sectorSize: WINDOW };
  const stream = open("encrypt", "xts(aes)", options);
  assertEquals(
    await through(stream, cut(bytes(WINDOW + 16), [90_000])),
    reference("encrypt", "xts(aes)", options, bytes(WINDOW + 16)),
  );
});

// ---- The end of a stream that is not right ----------------------------------------------------------------------

const PADDED = reference("encrypt", "cbc(aes)", { key: KEY, iv: IV, padding: "pkcs7" }, bytes(100));

/** What no correct encryption gives. */
const DAMAGED: Record<string, [algorithm: string, options: Options, ciphertext: Bytes]> = {
  "nothing at all": ["cbc(aes)", { iv: IV }, new Uint8Array(0)],
  "a partial block": ["cbc(aes)", { iv: IV }, PADDED.slice(0, 5)],
  "a partial block after whole ones": ["cbc(aes)", { iv: IV }, PADDED.slice(0, 90)],
  "the last block missing": ["cbc(aes)", { iv: IV }, PADDED.slice(0, 96)],
  "the last block damaged": ["cbc(aes)", { iv: IV }, PADDED.map((byte, i) => i === 100 ? ~byte : byte)],
  "a wrong key": ["cbc(aes)", { iv: IV, key: bytes(32, 9) }, PADDED],
  "a partial block, ecb": ["ecb(aes)", {}, PADDED.slice(0, 90)],
  "a partial block, no padding": ["cbc(aes)", { iv: IV, padding: "none" }, PADDED.slice(0, 90)],
  "a partial last sector": ["xts(aes)", { key: XTS_KEY, sectorSize: 512 }, PADDED.slice(0, 15)],
};

/** Last blocks that are not padded: no count, one past the block, and runs with one byte wrong. */
const BAD_PADDING: Record<string, number[]> = {
  "of 0": [0],
  "of 17": [17],
  "of 255": [255],
  "of 3 with 2 in it": [3, 2, 3],
  "of 4 with 9 in front": [9, 4, 4, 4],
  "of 16 with 15 in front": [15, ...Array(15).fill(16)],
};
for (const [what, last] of Object.entries(BAD_PADDING)) {
  const block = new Uint8Array(16).fill(7);
  block.set(last, 16 - last.length);
  DAMAGED[`padding ${what}`] = ["ecb(aes)", {}, reference("encrypt", "ecb(aes)", { key: KEY }, block)];
}

test("every damaged ciphertext fails both sides with the same KcapiError EBADMSG", async () => {
  const messages = new Set<string>();
  const files = openFiles();
  for (const [what, [algorithm, options, ciphertext]] of Object.entries(DAMAGED)) {
    for (const size of [Infinity, 7]) {
      const stream = open("decrypt", algorithm, options);
      const error = await assertRejects(() => through(stream, cut(ciphertext, [size])), KcapiError, "", what);
      assertEquals(error.code, "EBADMSG", what);
      messages.add(JSON.stringify([error.name, error.message, error.operation, error.errno, error.hint, error.cause]));
    }
  }
  assertEquals(messages.size, 1, [...messages].join("\n"));
  await assertReleased(files);
});

test("output from before the damage can be read", async () => {
  const reader = streamOf([PADDED.slice(0, 90)]).pipeThrough(open("decrypt", "cbc(aes)", { iv: IV })).getReader();
  assertEquals((await reader.read()).value, bytes(100).slice(0, 80));
  await assertRejects(() => reader.read(), KcapiError, "EBADMSG");
});

test("encrypting a partial block without padding fails both sides with a RangeError at the end", async () => {
  for (const algorithm of ["cbc(aes)", "ecb(aes)"]) {
    for (const length of [1, 15, 17, 20_001]) {
      const files = openFiles();
      const stream = open("encrypt", algorithm, { ...(algorithm === "cbc(aes)" && { iv: IV }), padding: "none" });
      const writer = stream.writable.getWriter();
      const reading = collect(stream.readable);
      const [writing, read] = await outcomes(writer.write(bytes(length)).then(() => writer.close()), reading);
      for (const side of [writing, read]) {
        assert(side?.state === "rejected", JSON.stringify({ writing, read }));
        assertInstanceOf(side.reason, RangeError);
      }
      await assertReleased(files);
    }
  }
});

// ---- Every way to end -------------------------------------------------------------------------------------------

interface Ends {
  writer: WritableStreamDefaultWriter<Uint8Array>;
  reader: ReadableStreamDefaultReader<Uint8Array>;
  abort: AbortController;
}

/** More than a stream accepts without a reader. */
const BACKLOG = new Uint8Array(pool ? 8 << 20 : 2 * WINDOW);

/** The states of a stream when it ends. Each function returns the promises that are pending. */
const PHASES: Record<string, (ends: Ends) => Promise<{ write?: Promise<unknown>; read?: Promise<unknown> }>> = {
  "before anything is written": () => Promise.resolve({}),
  "while a small write is buffered": async ({ writer }) => {
    await writer.write(bytes(100));
    return {};
  },
  "in the turn after a small write": async ({ writer }) => {
    await writer.write(bytes(100));
    await turns(3);
    return {};
  },
  "while a write waits for a reader": async ({ writer }) => {
    const write = writer.write(BACKLOG);
    await turns(3);
    return { write };
  },
  "while a small write waits for a reader": async ({ writer }) => {
    if (pool) void writer.write(BACKLOG).catch(() => {});
    else for (let i = 0; i < 8; i++) await writer.write(bytes(8192));
    const write = writer.write(bytes(8192));
    await turns(3);
    return { write };
  },
  "between two reads of a chunk": async ({ writer, reader }) => {
    const write = writer.write(pool ? BACKLOG : bytes(3 * WINDOW));
    await reader.read();
    return { write };
  },
  "while a read waits": async ({ writer, reader }) => {
    await writer.write(bytes(15));
    const read = reader.read();
    await turns(3);
    return { read };
  },
};

const WAYS: Record<string, (ends: Ends, reason: unknown) => Promise<unknown>> = {
  "writer.abort()": ({ writer }, reason) => writer.abort(reason),
  "reader.cancel()": ({ reader }, reason) => reader.cancel(reason),
  "the signal": ({ abort }, reason) => Promise.resolve(abort.abort(reason)),
};

for (const [way, leave] of Object.entries(WAYS)) {
  for (const [phase, enter] of Object.entries(PHASES)) {
    test(`${way} ${phase} releases the cipher and ends both sides with the reason`, async () => {
      const files = openFiles();
      const abort = new AbortController();
      const stream = ctr({ signal: abort.signal });
      const ends = { writer: stream.writable.getWriter(), reader: stream.readable.getReader(), abort };
      const { write, read } = await enter(ends);
      const reason = new Error("enough");
      const left = leave(ends, reason);
      const rejected = { state: "rejected", reason };
      const isCancelled = way === "reader.cancel()";
      const [leaving, writing, reading, closed, writeEnd, readEnd] = await outcomes(
        left,
        write ?? Promise.reject(reason),
        read ?? ends.reader.read(),
        ends.reader.closed,
        ends.writer.closed,
        ends.reader.read(),
      );
      const end = isCancelled ? { state: "fulfilled", value: { done: true, value: undefined } } : rejected;
      assertEquals({ leaving, writing, reading, closed, writeEnd, readEnd }, {
        leaving: { state: "fulfilled", value: undefined },
        writing: rejected,
        reading: end,
        closed: isCancelled ? { state: "fulfilled", value: undefined } : rejected,
        writeEnd: rejected,
        readEnd: end,
        // deno-lint-ignore no-explicit-any
      } as any);
      await assertReleased(files);
    });
  }
}

for (const [way, leave] of Object.entries(WAYS)) {
  test(`${way} in the tick of a read that resumes a write rejects that write`, async () => {
    for (const reads of [1, 2]) {
      const files = openFiles();
      const abort = new AbortController();
      const stream = ctr({ signal: abort.signal });
      const ends = { writer: stream.writable.getWriter(), reader: stream.readable.getReader(), abort };
      await ends.writer.write(bytes(8192));
      const write = ends.writer.write(BACKLOG); // after the buffered bytes
      await turns(3);
      const reason = new Error("enough");
      const reading = Array.from({ length: reads }, () => ends.reader.read());
      const left = leave(ends, reason);
      const [, ...found] = await outcomes(Promise.allSettled(reading), left, write, ends.writer.closed);
      const rejected = { state: "rejected", reason };
      assertEquals(found as unknown[], [{ state: "fulfilled", value: undefined }, rejected, rejected]);
      await assertReleased(files);
    }
  });
}

test(
  "an end after the last chunk was read does not reject close()",
  { needs: { "one thread: a pool gets the end before the last chunk is read": !pool } },
  async () => {
    for (const way of ["writer.abort()", "reader.cancel()"]) {
      const files = openFiles();
      const stream = open("encrypt", "cbc(aes)", { iv: IV });
      const ends = {
        writer: stream.writable.getWriter(),
        reader: stream.readable.getReader(),
        abort: new AbortController(),
      };
      const writing = ends.writer.write(bytes(100_000));
      const closing = ends.writer.close();
      for (let received = 0; received < 100_016;) received += (await ends.reader.read()).value!.length;
      const left = WAYS[way]!(ends, new Error("enough"));
      const states = (await outcomes(left, writing, closing, ends.writer.closed, ends.reader.closed)).map((end) =>
        end.state
      );
      assertEquals(states, Array(5).fill("fulfilled"), way);
      await assertReleased(files);
    }
  },
);

test("a signal that was aborted before the constructor fails both sides with its reason", async () => {
  const files = openFiles();
  const reason = new Error("too late");
  const stream = ctr({ signal: AbortSignal.abort(reason) });
  const rejected = { state: "rejected" as const, reason };
  const [writer, reader] = [stream.writable.getWriter(), stream.readable.getReader()];
  assertEquals(await outcomes(writer.write(bytes(1)), writer.closed, reader.read()), [rejected, rejected, rejected]);
  await assertReleased(files);
});

test("the end removes the listener of the signal, and a later abort has no effect", async () => {
  const abort = new AbortController();
  const listeners = () => getEventListeners(abort.signal, "abort").length;
  const stream = ctr({ signal: abort.signal });
  assertEquals(listeners(), 1);
  const writer = stream.writable.getWriter();
  const closing = Promise.all([writer.write(bytes(100)), writer.close()]);
  await turns(3);
  assertEquals(listeners(), 0);
  abort.abort();
  assertEquals(await collect(stream.readable), ctrOf(bytes(100)));
  await closing;
});

test("a signal that was aborted before the constructor gets no listener", () => {
  const signal = AbortSignal.abort(new Error("too late"));
  for (let i = 0; i < 3; i++) ctr({ signal });
  assertEquals(getEventListeners(signal, "abort").length, 0);
});

/** A source that fails after `count` chunks. */
function failing(count: number, size: number, reason: unknown): ReadableStream<Bytes> {
  return streamOf((function* () {
    for (let i = 0; i < count; i++) yield bytes(size);
    throw reason;
  })());
}

for (const [size, counts] of [[100, [0, 1, 5]], [150_000, [1, 5]]] as const) {
  test(`a source of ${size}-byte chunks that fails, fails the output with its reason`, async () => {
    for (const count of counts) {
      const files = openFiles();
      const reason = new Error("the source broke");
      const error = await assertRejects(() => collect(failing(count, size, reason).pipeThrough(ctr())));
      assertStrictEquals(error, reason);
      await assertReleased(files, `${count} chunks`);
    }
  });

  test(`a sink that fails, cancels a source of ${size}-byte chunks with its reason`, async () => {
    for (const [failsAt, count] of counts.flatMap((n) => [["write", n], ["close", n]] as const)) {
      const files = openFiles();
      const reason = new Error("the sink broke");
      let cancelledWith: unknown;
      const source = new ReadableStream<Bytes>({
        pull: (controller) => {
          if (failsAt === "close" && pulled++ === count) controller.close();
          else controller.enqueue(bytes(size));
        },
        cancel: (given) => void (cancelledWith = given),
      }, { highWaterMark: 0 });
      let [pulled, written] = [0, 0];
      const sink = new WritableStream<Uint8Array>({
        write: () => {
          if (failsAt === "write" && written++ >= count) throw reason;
        },
        close: () => {
          throw reason;
        },
      });
      const error = await assertRejects(() => source.pipeThrough(ctr()).pipeTo(sink));
      assertStrictEquals(error, reason);
      await turns(3);
      if (failsAt === "write") assertStrictEquals(cancelledWith, reason);
      await assertReleased(files, `${failsAt}, ${count} chunks`);
    }
  });
}

test("a stream that ended releases its cipher before its last output is read", async () => {
  const files = openFiles();
  const stream = ctr();
  const writer = stream.writable.getWriter();
  await Promise.all([writer.write(bytes(100)), writer.close()]);
  await assertReleased(files);
  assertEquals(await collect(stream.readable), ctrOf(bytes(100)));
});

test(
  "each output has at most 64 small sectors, so that none blocks the thread for long",
  { needs: { "one thread: a Worker may block its own thread": !pool } },
  async () => {
    const options = { key: XTS_KEY, sectorSize: 16 };
    for (const [sizes, inPlace] of [[[100_000], false], [[100_000], true], [[1000], false], [[1000], true]] as const) {
      const input = bytes(100_000);
      const outputs: Uint8Array[] = [];
      const chunks = cut(input.slice(), sizes);
      const stream = new EncryptionStream("xts(aes)", { ...options, engine, pool, inPlace });
      for await (const output of streamOf(chunks).pipeThrough(stream)) {
        assert(output.length <= 64 * 16, `${output.length} bytes at once`);
        outputs.push(output.slice());
      }
      assertEquals(concat(outputs), reference("encrypt", "xts(aes)", options, input));
    }
  },
);

for (const way of ["structuredClone()", "postMessage()"]) {
  test(
    `${way} of a stream gives one that encrypts, or throws: it never passes plaintext`,
    { sanitize: false },
    async () => {
      const { port1, port2 } = new MessageChannel();
      const arrived = new Promise<TransformStream<Bytes, Bytes>>((resolve) =>
        port2.onmessage = ({ data }) => resolve(data as TransformStream<Bytes, Bytes>)
      );
      try {
        const stream = ctr();
        const transfer = [stream as unknown as Transferable];
        let clone: TransformStream<Bytes, Bytes>;
        try {
          if (way === "postMessage()") port1.postMessage(stream, transfer);
          clone = way === "postMessage()" ? await arrived : structuredClone(stream, { transfer }) as typeof clone;
        } catch (error) {
          assert(error instanceof DOMException || error instanceof TypeError, `${error}`);
          return;
        }
        const input = bytes(4096);
        const writer = clone.writable.getWriter();
        void writer.write(input.slice()).catch(() => {});
        const { value } = await clone.readable.getReader().read();
        assertEquals(value, ctrOf(input));
      } finally {
        port1.close();
        port2.close();
      }
    },
  );
}

const members = Object.getOwnPropertyDescriptors(TransformStream.prototype);

test("the hidden streams of TransformStream are errored and locked", async () => {
  const stream = ctr();
  const hidden = members.readable.get!.call(stream) as ReadableStream;
  const error = await assertRejects(() => hidden.getReader().read());
  assertInstanceOf(error, DOMException);
  const writable = members.writable.get!.call(stream) as WritableStream;
  assertThrows(() => writable.getWriter(), TypeError);
  await stream.readable.cancel();
});

test("unreferenced streams are collected and release their ciphers while their signal is alive", async () => {
  const files = openFiles();
  const { signal } = new AbortController();
  let collected = 0;
  const registry = new FinalizationRegistry(() => collected++);
  const count = 100;
  const abandon = async () => {
    const stream = ctr({ signal });
    registry.register(stream.writable, undefined);
    await stream.writable.getWriter().write(bytes(20));
  };
  for (let i = 0; i < count; i++) await abandon();
  await collectGarbage();
  // The conservative scan of the stack may keep a few alive (JavaScriptCore).
  assert(collected > 0.9 * count, `${collected} of ${count} streams collected`);
  assert(openFiles() - files < count, `${openFiles() - files} descriptors left`);
  const listeners = getEventListeners(signal, "abort").length;
  assert(listeners < 0.1 * count, `${listeners} of ${count} listeners left`);
  assert(!signal.aborted);
});
