/**
 * CipherHandle, member by member: the effect and the order of calls, and how a stream can be left, fail or be closed.
 * Bad arguments are in arguments_test.ts, the flow rules in flow_test.ts.
 */
import { fileURLToPath } from "node:url";
import { CipherHandle, KcapiError } from "../mod.ts";
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
  test,
} from "./support/deps.ts";
import {
  background,
  type Bytes,
  bytes,
  caught,
  chacha20,
  collect,
  concat,
  cut,
  type Direction,
  fromHex,
  isPending,
  opens,
  reference,
  turns,
  WINDOW,
} from "./support/support.ts";

const KEY = bytes(16, 7);
const IV = bytes(16, 8);
const ALGORITHMS = ["cbc(aes)", "ctr(aes)", "ecb(aes)"];
const DIRECTIONS: Direction[] = ["encrypt", "decrypt"];

const pieces = (whole: Bytes, ...sizes: number[]) => [...cut(whole, sizes)];
const ivOf = (algorithm: string) => algorithm.startsWith("ecb") ? undefined : IV;
const open = (algorithm = "ctr(aes)", key: Bytes = KEY) => CipherHandle.open(algorithm, { key, engine });

function init(handle: CipherHandle, direction: Direction = "encrypt", iv = ivOf(handle.algorithm)): CipherHandle {
  if (direction === "encrypt") handle.streamInitEnc(iv);
  else handle.streamInitDec(iv);
  return handle;
}

const started = (algorithm?: string, direction?: Direction) => init(open(algorithm), direction);
const expected = (input: Bytes, algorithm = "ctr(aes)", direction: Direction = "encrypt", iv = ivOf(algorithm)) =>
  reference(direction, algorithm, { key: KEY, iv }, input);

/** Sends the input in chunks, from a task of its own. */
async function produce(handle: CipherHandle, input: Bytes, ...lengths: number[]): Promise<void> {
  for (const piece of pieces(input, ...lengths)) assertEquals(await handle.streamUpdate(piece), piece.length);
  assertEquals(await handle.streamUpdateLast(), 0);
}

function assertCode(error: unknown, code: string, operation?: string): void {
  assertInstanceOf(error, KcapiError);
  assertEquals(error.code, code);
  if (operation) assertEquals(error.operation, operation);
}

const throws = (code: string, action: () => unknown, operation?: string) =>
  assertCode(assertThrows(action), code, operation);
const rejects = async (code: string, action: () => PromiseLike<unknown>, operation?: string) =>
  assertCode(await assertRejects(action), code, operation);

// ---- open() and the properties -----------------------------------------------------------------------------------

for (
  const [algorithm, blockSize, ivSize, chunkSize] of [
    ["cbc(aes)", 16, 16, 16],
    ["ctr(aes)", 1, 16, 16],
    ["ecb(aes)", 16, 0, 16],
  ] as const
) {
  test(`open("${algorithm}") has the algorithm, the engine and the sizes`, () => {
    using handle = open(algorithm);
    assertEquals(
      [handle.algorithm, handle.engine, handle.blockSize, handle.ivSize, handle.chunkSize],
      [algorithm, engine, blockSize, ivSize, chunkSize],
    );
  });
}

test("new CipherHandle() is a TypeError: open() creates handles", () => {
  const Constructor = CipherHandle as unknown as new () => CipherHandle;
  assertThrows(() => new Constructor(), TypeError, "CipherHandle.open()");
});

// ---- input buffers and output buffers ----------------------------------------------------------------------------

for (const algorithm of ALGORITHMS) {
  for (const direction of DIRECTIONS) {
    test(`${algorithm} ${direction}s as node:crypto does, with input and output buffers of any length`, async () => {
      using handle = started(algorithm, direction);
      const input = bytes(5_008);
      const sent = background((async () => {
        for (const list of [[1, 2, 3], [0, 17, 0, 400], [4_000]].map(lengthsToPieces(input))) {
          assertEquals(await handle.streamUpdate(...list), concat(list).length);
        }
        await handle.streamUpdateLast(input.subarray(4_423, 5_000), input.subarray(5_000));
      })());
      const output: Bytes[] = [];
      for (let turn = 0;; turn++) {
        const list = [[5, 11, 1], [0, 64, 0], [1, 1, 1, 13], [999, 1]][turn % 4]!.map((n) => new Uint8Array(n));
        const received = await handle.streamOpInto(...list);
        if (received === 0) break;
        output.push(concat(list).subarray(0, received));
      }
      await sent;
      assertEquals(concat(output), expected(input, algorithm, direction));
    });
  }
}

/** Splits one input into lists of chunks of the given lengths. */
function lengthsToPieces(input: Bytes): (lengths: number[]) => Bytes[] {
  let at = 0;
  return (lengths) => lengths.map((length) => input.subarray(at, at += length));
}

for (const count of [28, 29, 64, 1_024, 1_025, 3_000]) {
  test(`lists of ${count} buffers are processed in order`, async () => {
    using handle = started("cbc(aes)");
    const input = bytes(16 * count);
    await handle.streamUpdate(...pieces(input, 1, 31));
    await handle.streamUpdateLast();
    const list = Array.from({ length: count }, (_, i) => new Uint8Array(i === 0 && count % 2 ? 16 : 13 + i % 2 * 6));
    assertEquals(await handle.streamOpInto(...list), input.length);
    assertEquals(concat(list), expected(input, "cbc(aes)"));
  });
}

test("streamUpdate() and streamOpInto() accept every kind of BufferSource, and use only the bytes of the view", async () => {
  using handle = started();
  const memory = bytes(96);
  const sources = [
    memory.slice(0, 16).buffer,
    new DataView(memory.buffer, 16, 5),
    new Uint16Array(memory.buffer, 22, 13),
    new BigInt64Array(memory.buffer, 48, 2),
  ];
  const input = concat(sources.map((s) => ArrayBuffer.isView(s) ? viewOf(s) : new Uint8Array(s)));
  assertEquals(await handle.streamUpdateLast(...sources), input.length);
  const around = new Uint8Array(200).fill(0xaa);
  const targets = [new DataView(around.buffer, 1, 20), new Uint32Array(around.buffer, 40, 10), new ArrayBuffer(3)];
  assertEquals(await handle.streamOpInto(...targets), 63);
  const output = concat([around.subarray(1, 21), around.subarray(40, 80), new Uint8Array(targets[2] as ArrayBuffer)]);
  assertEquals(output, expected(input));
  around.fill(0xaa, 1, 21).fill(0xaa, 40, 80);
  assert(around.every((byte) => byte === 0xaa), "bytes outside the views were written");
});

const viewOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView) =>
  new Uint8Array(buffer as ArrayBuffer, byteOffset, byteLength);

test("when streamUpdate() settles, its buffers are unchanged and may be reused", async () => {
  using handle = started();
  const input = bytes(2 * WINDOW + 7);
  const buffer = input.slice();
  const output = background(collect(handle.streamOp()));
  for (const piece of pieces(buffer, 7, WINDOW, 100)) {
    const before = piece.slice();
    await handle.streamUpdate(piece);
    assertEquals(piece, before);
    piece.fill(0);
  }
  await handle.streamUpdateLast();
  assertEquals(await output, expected(input));
});

// ---- updates -----------------------------------------------------------------------------------------------------

test("streamUpdate() resolves until the window is full, and then waits until output is received", async () => {
  using handle = started();
  const input = bytes(WINDOW + 32);
  assertEquals(await handle.streamUpdate(input.subarray(0, WINDOW)), WINDOW);
  const update = background(handle.streamUpdate(input.subarray(WINDOW)));
  assert(await isPending(update), "the update did not wait");
  const first = new Uint8Array(WINDOW);
  assertEquals(await handle.streamOpInto(first), WINDOW);
  assertEquals(await update, 32);
  const last = background(handle.streamUpdateLast());
  assertEquals(concat([first, await collect(handle.streamOp())]), expected(input));
  assertEquals(await last, 0);
});

test("streamUpdate() of many windows waits without a receiver, and then sends everything", async () => {
  using handle = started("cbc(aes)");
  const input = bytes(5 * WINDOW + 4_096);
  const update = background(handle.streamUpdate(input));
  assert(await isPending(update));
  const last = background(handle.streamUpdateLast());
  assertEquals(await collect(handle.streamOp()), expected(input, "cbc(aes)"));
  assertEquals([await update, await last], [input.length, 0]);
});

test("concurrent calls of streamUpdate() are sent and resolve in order, including empty ones", async () => {
  using handle = started();
  const input = bytes(3 * WINDOW);
  const lengths = [WINDOW, 100_001, 0, 3, 200_000, 0];
  const order: number[] = [];
  const updates = pieces(input, ...lengths).slice(0, lengths.length)
    .map((piece, i) => handle.streamUpdate(piece).then((sent) => (order.push(i), sent)));
  assert(await isPending(updates[2]!), "an empty update overtook one that waits");
  const last = background(handle.streamUpdateLast());
  const total = lengths.reduce((a, b) => a + b);
  assertEquals(await collect(handle.streamOp()), expected(input.subarray(0, total)));
  assertEquals(await Promise.all(updates), lengths);
  await last;
  assertEquals(order, [0, 1, 2, 3, 4, 5]);
});

test("an empty streamUpdate() resolves to 0 and has no effect", async () => {
  using handle = started();
  const next = handle.streamOp().next();
  assertEquals(await handle.streamUpdate(), 0);
  assertEquals(await handle.streamUpdate(new Uint8Array(0), new ArrayBuffer(0)), 0);
  assert(await isPending(next), "a receiver was given something");
  await handle.streamUpdateLast(new Uint8Array(3));
  assertEquals((await next).value, expected(new Uint8Array(3)));
});

for (const algorithm of ALGORITHMS) {
  test(`an empty ${algorithm} stream ends at once, for streamOp() and for streamOpInto()`, async () => {
    using handle = started(algorithm);
    const next = handle.streamOp().next();
    assert(await isPending(next), "the stream ended before its last update");
    assertEquals(await handle.streamUpdateLast(), 0);
    assertEquals(await next, { done: true, value: undefined });
    init(handle);
    const received = handle.streamOpInto(new Uint8Array(16));
    assert(await isPending(received));
    await handle.streamUpdateLast(new Uint8Array(0));
    assertEquals(await received, 0);
  });
}

for (const algorithm of ["cbc(aes)", "ecb(aes)"]) {
  for (const direction of DIRECTIONS) {
    test(`streamUpdateLast() rejects a partial block in ${algorithm} (${direction}), and then accepts the right end`, async () => {
      using handle = started(algorithm, direction);
      const input = bytes(64);
      await assertRejects(() => handle.streamUpdateLast(input.subarray(0, 17)), RangeError, "16");
      await handle.streamUpdate(input.subarray(0, 10));
      await handle.streamUpdate(input.subarray(10, 30));
      await assertRejects(() => handle.streamUpdateLast(), RangeError);
      await assertRejects(() => handle.streamUpdateLast(input.subarray(30, 31)), RangeError);
      await handle.streamUpdate(input.subarray(30, 40));
      assertEquals(await handle.streamUpdateLast(input.subarray(40)), 24);
      assertEquals(await collect(handle.streamOp()), expected(input, algorithm, direction));
    });
  }
}

test("an update whose buffer is detached while it waits rejects with TypeError and fails the stream", async () => {
  using handle = started();
  const input = bytes(2 * WINDOW);
  const update = caught(handle.streamUpdate(input));
  const behind = caught(handle.streamUpdate(new Uint8Array(16)));
  const last = caught(handle.streamUpdateLast());
  const sent = expected(input.subarray(0, WINDOW));
  input.buffer.transfer();
  const iterator = handle.streamOp();
  assertEquals((await iterator.next()).value, sent);
  const error = await update;
  assertInstanceOf(error, TypeError);
  assert(error.message.includes("detached"), error.message);
  for (const other of [behind, last, caught(iterator.next()), caught(handle.streamUpdate(new Uint8Array(1)))]) {
    assertStrictEquals(await other, error);
  }
  assertStrictEquals(await caught(handle.streamUpdateLast()), error);
  assertStrictEquals(await caught(handle.streamOpInto(new Uint8Array(16))), error);
  assertStrictEquals(assertThrows(() => handle.streamOp()), error);
  assertStrictEquals(assertThrows(() => handle.streamInitEnc(IV)), error);
  using other = init(handle.reinit());
  await other.streamUpdateLast(new Uint8Array(5));
  assertEquals(await collect(other.streamOp()), expected(new Uint8Array(5)));
});

// ---- streamOp() --------------------------------------------------------------------------------------------------

test("streamOp() started before any data waits, wakes with each update and ends after the last", async () => {
  using handle = started();
  const input = bytes(53);
  const output = expected(input);
  const iterator = handle.streamOp();
  assertStrictEquals(iterator[Symbol.asyncIterator](), iterator);

  let next = iterator.next();
  assert(await isPending(next), "streamOp() gave something before there was anything");
  await handle.streamUpdate(input.subarray(0, 16));
  assertEquals((await next).value, output.subarray(0, 16));

  next = iterator.next();
  await handle.streamUpdate(input.subarray(16, 23));
  assert(await isPending(next), "streamOp() gave a part of a chunk");
  await handle.streamUpdate(input.subarray(23, 50));
  assertEquals((await next).value, output.subarray(16, 48));

  next = iterator.next();
  assert(await isPending(next), "streamOp() gave the tail before the last update");
  await handle.streamUpdateLast(input.subarray(50));
  assertEquals((await next).value, output.subarray(48));
  assertEquals(await iterator.next(), { done: true, value: undefined });
  assertEquals(await iterator.next(), { done: true, value: undefined });
  assertEquals(await collect(handle.streamOp()), new Uint8Array(0), "a stream received whole has no more");
});

for (const algorithm of ALGORITHMS) {
  for (const direction of DIRECTIONS) {
    test(`streamOp() and a producer in another task stream ${algorithm} (${direction})`, async () => {
      using handle = started(algorithm, direction);
      const input = bytes(3 * WINDOW + 16);
      const output = background(collect(handle.streamOp()));
      await turns(1);
      await Promise.all([produce(handle, input, 1, 65_536, 17, 4_097, 212_992, 250_001), output]);
      assertEquals(await output, expected(input, algorithm, direction));
    });
  }
}

for (const maxBytes of [16, 17, 100, 5_000, WINDOW, Infinity, undefined]) {
  test(`streamOp({ maxBytes: ${maxBytes} }) yields full chunks of at most that size, except at the end`, async () => {
    using handle = started();
    const most = Math.min(maxBytes ?? Infinity, WINDOW);
    const input = bytes(most + 1_005);
    const sent = background(handle.streamUpdateLast(input));
    const output: Bytes[] = [];
    for await (const chunk of handle.streamOp({ maxBytes })) output.push(chunk);
    await sent;
    assertEquals(output[0]!.length, most - most % 16);
    for (const chunk of output.slice(1, -1)) assert(chunk.length <= most && chunk.length % 16 === 0);
    assertEquals(concat(output), expected(input));
  });
}

/** The ways to leave a loop early. */
const LEAVES: Record<string, (handle: CipherHandle, output: Bytes[]) => Promise<void>> = {
  break: async (handle, output) => {
    for await (const chunk of handle.streamOp()) if (output.push(chunk) === 2) break;
  },
  return: async (handle, output) => {
    for await (const chunk of handle.streamOp()) if (output.push(chunk) === 2) return;
  },
  throw: async (handle, output) => {
    const loop = async () => {
      for await (const chunk of handle.streamOp()) if (output.push(chunk) === 2) throw new Error("enough");
    };
    await assertRejects(loop, Error, "enough");
  },
  "the iterator's return()": async (handle, output) => {
    const iterator = handle.streamOp();
    output.push((await iterator.next()).value!);
    assertEquals(await iterator.return!(), { done: true, value: undefined });
    assertEquals(await iterator.next(), { done: true, value: undefined });
  },
  "the iterator's throw()": async (handle, output) => {
    const iterator = handle.streamOp();
    output.push((await iterator.next()).value!);
    const error = new Error("enough");
    assertStrictEquals(await caught(iterator.throw!(error)), error);
    assertEquals(await iterator.next(), { done: true, value: undefined });
  },
  "await using": async (handle, output) => {
    await using iterator = handle.streamOp() as AsyncIterableIterator<Bytes> & AsyncDisposable;
    output.push((await iterator.next()).value!);
  },
};

for (const [way, leave] of Object.entries(LEAVES)) {
  test(`streamOp() left by ${way} loses nothing: updates stay pending, and a later streamOp() continues`, async () => {
    using handle = started("cbc(aes)");
    const input = bytes(6 * WINDOW);
    const sent = background(produce(handle, input, WINDOW + 4_096, 3, 65_533));
    const output: Bytes[] = [];
    await leave(handle, output);
    assert(await isPending(sent), "an update that nobody received settled");
    output.push(await collect(handle.streamOp({ maxBytes: 100_000 })));
    await sent;
    assertEquals(concat(output), expected(input, "cbc(aes)"));
  });
}

test("streamOp() receives bytes only on next(): after a loop ends early, others can receive the rest", async () => {
  using handle = started();
  const input = bytes(64);
  await handle.streamUpdateLast(input);
  const output: Bytes[] = [];
  for await (const chunk of handle.streamOp({ maxBytes: 16 })) {
    output.push(chunk);
    break;
  }
  const rest = new Uint8Array(64);
  assertEquals(await handle.streamOpInto(rest), 48);
  assertEquals(concat([...output, rest.subarray(0, 48)]), expected(input));
});

test("return() of an iterator settles at once and ends pending calls of next()", async () => {
  using handle = started();
  const iterator = handle.streamOp();
  const calls = [iterator.next(), iterator.next(), iterator.next()];
  assert(await isPending(calls[0]!));
  const returned = iterator.return!();
  assert(!await isPending(returned), "return() waits for next()");
  assertEquals(await returned, { done: true, value: undefined });
  for (const call of calls) assertEquals(await call, { done: true, value: undefined });
  await handle.streamUpdateLast(new Uint8Array(20));
  assertEquals(await collect(handle.streamOp()), expected(new Uint8Array(20)));
});

test("return() and close() in one tick end a pending next() without an error", async () => {
  const handle = started();
  const iterator = handle.streamOp();
  const next = iterator.next();
  await turns();
  iterator.return!();
  handle.close();
  assertEquals(await next, { done: true, value: undefined });
});

test("throw() of an iterator rejects at once with the error and ends a pending next()", async () => {
  using handle = started();
  const iterator = handle.streamOp();
  const next = iterator.next();
  const error = new Error("enough");
  const thrown = caught(iterator.throw!(error));
  assert(!await isPending(thrown), "throw() waits for next()");
  assertStrictEquals(await thrown, error);
  assertEquals(await next, { done: true, value: undefined });
});

test("concurrent calls of next() settle in order, including those after the end", async () => {
  using handle = started();
  const input = bytes(53);
  const order: number[] = [];
  const iterator = handle.streamOp({ maxBytes: 16 });
  const calls = [0, 1, 2, 3, 4, 5].map((i) => iterator.next().then((result) => (order.push(i), result)));
  await produce(handle, input, 8, 24, 1);
  const results = await Promise.all(calls);
  assertEquals(order, [0, 1, 2, 3, 4, 5]);
  assertEquals(results.map(({ done }) => done), [false, false, false, false, true, true]);
  assertEquals(concat(results.flatMap(({ value }) => value ?? [])), expected(input));
});

test("an abort rejects a pending next() with its reason, and the stream continues", async () => {
  for (const reason of [new Error("stop"), "a string", undefined]) {
    using handle = started();
    const controller = new AbortController();
    const iterator = handle.streamOp({ signal: controller.signal });
    const next = caught(iterator.next());
    assert(await isPending(next));
    controller.abort(reason);
    assertStrictEquals(await next, controller.signal.reason);
    assertEquals(await iterator.next(), { done: true, value: undefined });
    await handle.streamUpdateLast(new Uint8Array(20));
    assertEquals(await collect(handle.streamOp()), expected(new Uint8Array(20)));
  }
});

test("a signal that was aborted before next() rejects it with its reason, and no bytes are received", async () => {
  using handle = started();
  await handle.streamUpdateLast(bytes(48));
  const controller = new AbortController();
  const iterator = handle.streamOp({ signal: controller.signal, maxBytes: 16 });
  const first = (await iterator.next()).value!;
  controller.abort();
  assertStrictEquals(await caught(iterator.next()), controller.signal.reason);
  const unused = handle.streamOp({ signal: AbortSignal.abort("before") });
  assertEquals(await caught(unused.next()), "before");
  assertEquals(concat([first, await collect(handle.streamOp())]), expected(bytes(48)));
});

test("streamOp() removes its listener from the signal at its end", async () => {
  for (const way of ["end", "return", "close"]) {
    using handle = started();
    const { signal } = new AbortController();
    const listeners = new Set<unknown>();
    signal.addEventListener = (_: string, listener: unknown) => void listeners.add(listener);
    signal.removeEventListener = (_: string, listener: unknown) => void listeners.delete(listener);
    const iterator = handle.streamOp({ signal });
    const next = caught(iterator.next());
    assertEquals(listeners.size, 1);
    if (way === "end") await handle.streamUpdateLast();
    if (way === "return") await iterator.return!();
    if (way === "close") handle.close();
    await next;
    assertEquals(listeners.size, 0, way);
  }
});

// ---- streamOpInto() ----------------------------------------------------------------------------------------------

test("streamOpInto() waits for a chunk, and fills as many full chunks as are available and fit", async () => {
  using handle = started();
  const input = bytes(85);
  const output = expected(input);
  const target = new Uint8Array(40);
  const first = handle.streamOpInto(target);
  await handle.streamUpdate(input.subarray(0, 15));
  assert(await isPending(first), "streamOpInto() gave a part of a chunk");
  await handle.streamUpdate(input.subarray(15, 17));
  assertEquals(await first, 16);
  assertEquals(target.subarray(0, 16), output.subarray(0, 16));
  await handle.streamUpdateLast(input.subarray(17));
  assertEquals(await handle.streamOpInto(target), 32, "room of 40 holds two chunks");
  assertEquals(target.subarray(0, 32), output.subarray(16, 48));
  assertEquals(await handle.streamOpInto(new Uint8Array(7), target.subarray(0, 9)), 16);
  assertEquals(await handle.streamOpInto(target), 21, "the rest may be a part of a chunk");
  assertEquals(target.subarray(0, 21), output.subarray(64));
  assertEquals(await handle.streamOpInto(target), 0);
  assertEquals(await handle.streamOpInto(target), 0);
});

test("streamOpInto() does not write beyond the count that it returns", async () => {
  using handle = started();
  await handle.streamUpdate(bytes(32));
  const list = [5, 20, 30].map((length) => new Uint8Array(length).fill(0xaa));
  assertEquals(await handle.streamOpInto(...list), 32);
  assert(concat(list).subarray(32).every((byte) => byte === 0xaa), "bytes past the count were written");
});

test("streamOpInto() with output buffers of less than a chunk rejects with RangeError, even if less remains", async () => {
  using handle = started();
  await handle.streamUpdateLast(bytes(20));
  await assertRejects(() => handle.streamOpInto(), RangeError);
  await assertRejects(() => handle.streamOpInto(new Uint8Array(15)), RangeError, "16");
  assertEquals(await handle.streamOpInto(new Uint8Array(16)), 16);
  await assertRejects(() => handle.streamOpInto(new Uint8Array(2), new Uint8Array(13)), RangeError);
  assertEquals(await handle.streamOpInto(new Uint8Array(16)), 4);
});

test("streamOpInto() rejects output buffers that overlap, and accepts adjacent ones", async () => {
  using handle = started();
  const input = bytes(64);
  await handle.streamUpdateLast(input);
  const memory = new Uint8Array(64);
  const at = (start: number, end: number) => memory.subarray(start, end);
  for (const list of [[memory, memory], [at(0, 33), at(32, 64)], [at(40, 64), at(0, 41)], [at(0, 64), at(7, 8)]]) {
    await assertRejects(() => handle.streamOpInto(...list), RangeError, "overlap");
  }
  assert(memory.every((byte) => byte === 0), "a refused list was written to");
  assertEquals(await handle.streamOpInto(at(32, 64), at(10, 10), at(0, 32)), 64);
  assertEquals(concat([at(32, 64), at(0, 32)]), expected(input));
});

test("streamOpInto() with a buffer detached while it waits rejects with TypeError, and loses nothing", async () => {
  using handle = started();
  const target = new Uint8Array(32);
  const received = caught(handle.streamOpInto(new Uint8Array(16), target));
  target.buffer.transfer();
  await handle.streamUpdateLast(bytes(48));
  assertInstanceOf(await received, TypeError);
  assertEquals(await collect(handle.streamOp()), expected(bytes(48)));
});

// ---- turns of the event loop ---------------------------------------------------------------------------------------

/** Ways to encrypt a window in memory over and over, until `isEnough()`: no step waits for anything but the handle. */
const LOOPS: Record<string, (handle: CipherHandle, isEnough: () => boolean) => Promise<void>> = {
  "streamOp()": async (handle, isEnough) => {
    const input = new Uint8Array(WINDOW);
    background((async () => {
      while (!isEnough()) await handle.streamUpdate(input);
      await handle.streamUpdateLast();
    })());
    for await (const _ of handle.streamOp());
  },
  "streamOpInto()": async (handle, isEnough) => {
    const [input, output] = [new Uint8Array(WINDOW), new Uint8Array(WINDOW)];
    while (!isEnough()) {
      const sent = handle.streamUpdate(input);
      await handle.streamOpInto(output);
      await sent;
    }
  },
  "a stream for each sector": async (handle, isEnough) => {
    const [input, output] = [new Uint8Array(4_096), new Uint8Array(4_096)];
    await handle.streamUpdateLast();
    while (!isEnough()) {
      init(handle);
      await handle.streamUpdateLast(input);
      await handle.streamOpInto(output);
    }
  },
};

for (const [loop, run] of Object.entries(LOOPS)) {
  test(`${loop} over memory gives the event loop its turns`, async () => {
    using handle = started();
    let hadTurns = 0;
    let steps = 0;
    const timer = setInterval(() => hadTurns++, 0);
    // With turns this ends after three of them, without after 850 MB in windows, or 400 MB in sectors.
    const most = loop === "a stream for each sector" ? 100_000 : 4_000;
    await run(handle, () => hadTurns === 3 || ++steps > most).finally(() => clearInterval(timer));
    assertEquals(hadTurns, 3);
  });
}

test("a signal that a timer aborts ends a streamOp() over memory without an end", async () => {
  const handle = started();
  const input = new Uint8Array(WINDOW);
  const sent = caught((async () => {
    for (let i = 0; i < 4_000; i++) await handle.streamUpdate(input);
    await handle.streamUpdateLast();
  })());
  const controller = new AbortController();
  setTimeout(() => controller.abort(), 0);
  const loop = async () => {
    for await (const _ of handle.streamOp({ signal: controller.signal }));
  };
  assertStrictEquals(await caught(loop()), controller.signal.reason);
  assert(controller.signal.aborted, "the timer had no turn");
  handle.close();
  assertCode(await sent, "ECANCELED");
});

test("close() and return() while a receiver waits for a turn: no freed memory, no lost bytes", async () => {
  for (const way of ["close", "return"]) {
    const handle = started();
    const input = new Uint8Array(WINDOW);
    const sent = background((async () => {
      for (let i = 0; i < 4_000; i++) await handle.streamUpdate(input);
      await handle.streamUpdateLast();
    })());
    const iterator = handle.streamOp();
    let received = 0;
    let ended = false;
    // In another turn than the loop's own: it is in one that it gave up.
    setTimeout(() => {
      ended = true;
      if (way === "close") handle.close();
      else iterator.return!();
    }, 0);
    const loop = async () => {
      for (;;) {
        const { done, value } = await iterator.next();
        if (done) return;
        assert(!ended, "received after the end");
        received += value.length;
      }
    };
    const error = await caught(loop());
    assert(ended, "the timer had no turn");
    if (way === "close") assertCode(error, "ECANCELED");
    else {
      assertEquals(error, undefined);
      const next = new Uint8Array(64);
      assertEquals(await handle.streamOpInto(next), 64);
      assertEquals(next, expected(new Uint8Array(64), "ctr(aes)", "encrypt", counterAt(received / 16)));
      handle.close();
    }
    await caught(sent);
  }
});

/** The IV of the block after so many. */
function counterAt(blocks: number): Bytes {
  const counter = IV.slice();
  const view = new DataView(counter.buffer);
  const sum = view.getBigUint64(8) + BigInt(blocks);
  view.setBigUint64(0, view.getBigUint64(0) + (sum >> 64n));
  view.setBigUint64(8, sum);
  return counter;
}

// ---- wrong state -------------------------------------------------------------------------------------------------

test("a second receiver fails with EBUSY, and the first continues", async () => {
  using handle = started();
  const room = new Uint8Array(16);
  const early = handle.streamOp();
  const first = handle.streamOp();
  const next = first.next();
  throws("EBUSY", () => handle.streamOp(), "streamOp");
  await rejects("EBUSY", () => handle.streamOpInto(room), "streamOpInto");
  await rejects("EBUSY", () => early.next(), "streamOp");
  await handle.streamUpdate(bytes(16));
  assertEquals((await next).value, expected(bytes(16)));
  throws("EBUSY", () => handle.streamOp());
  await first.return!();

  const received = handle.streamOpInto(room);
  throws("EBUSY", () => handle.streamOp());
  await rejects("EBUSY", () => handle.streamOpInto(new Uint8Array(16)));
  await handle.streamUpdateLast(bytes(16));
  assertEquals(await received, 16);
  for await (const _ of handle.streamOp()) assert(false, "nothing was left");
});

test("calls on a handle without a stream fail with EINVAL", async () => {
  using handle = open();
  await rejects("EINVAL", () => handle.streamUpdate(new Uint8Array(16)), "streamUpdate");
  await rejects("EINVAL", () => handle.streamUpdateLast(), "streamUpdateLast");
  await rejects("EINVAL", () => handle.streamOpInto(new Uint8Array(16)), "streamOpInto");
  throws("EINVAL", () => handle.streamOp(), "streamOp");
});

test("an update after the last one fails with EINVAL: while that waits, before it is received, and after", async () => {
  using handle = started();
  const input = bytes(WINDOW + 5);
  const last = background(handle.streamUpdateLast(input));
  const refused = async () => {
    await rejects("EINVAL", () => handle.streamUpdate(new Uint8Array(1)), "streamUpdate");
    await rejects("EINVAL", () => handle.streamUpdateLast(), "streamUpdateLast");
  };
  await refused();
  const first = new Uint8Array(WINDOW);
  await handle.streamOpInto(first);
  await last;
  await refused();
  assertEquals(concat([first, await collect(handle.streamOp())]), expected(input));
  await refused();
});

test("a second stream on a handle fails with EBUSY and has no effect", async () => {
  using handle = started("cbc(aes)");
  throws("EBUSY", () => handle.streamInitDec(IV), "streamInitDec");
  await handle.streamUpdate(bytes(20));
  throws("EBUSY", () => handle.streamInitEnc(bytes(16, 99)), "streamInitEnc");
  await handle.streamUpdateLast(bytes(48).subarray(20));
  throws("EBUSY", () => handle.streamInitDec(IV));
  const first = new Uint8Array(32);
  assertEquals(await handle.streamOpInto(first), 32);
  throws("EBUSY", () => handle.streamInitDec(IV));
  assertEquals(concat([first, await collect(handle.streamOp())]), expected(bytes(48), "cbc(aes)"));
});

for (const algorithm of ALGORITHMS) {
  test(`a ${algorithm} handle runs streams in sequence, each with its own IV and direction`, async () => {
    using handle = open(algorithm);
    for (const [i, direction] of [...DIRECTIONS, ...DIRECTIONS].entries()) {
      const iv = algorithm === "ecb(aes)" ? undefined : bytes(16, 50 + i);
      const input = bytes(1_600 * i, i + 1);
      init(handle, direction, iv);
      const [output] = await Promise.all([collect(handle.streamOp()), produce(handle, input, 100, 3)]);
      assertEquals(output, expected(input, algorithm, direction, iv));
    }
  });
}

test("an iterator ends with its own stream, and yields no bytes of the next one", async () => {
  using handle = started();
  const old = handle.streamOp();
  await handle.streamUpdateLast(bytes(16));
  assertEquals((await old.next()).value?.length, 16);
  init(handle);
  await handle.streamUpdateLast(bytes(32));
  assertEquals(await old.next(), { done: true, value: undefined });
  assertEquals(await collect(handle.streamOp()), expected(bytes(32)));
});

test("the async methods reject and never throw", async () => {
  const handle = started("cbc(aes)");
  const wrong = "no bytes" as unknown as Bytes;
  const calls = () => [
    handle.streamUpdate(wrong),
    handle.streamUpdateLast(wrong),
    handle.streamUpdateLast(new Uint8Array(1)),
    handle.streamOpInto(wrong),
    handle.streamOpInto(),
  ];
  for (const call of calls()) assertInstanceOf(await caught(call), Error);
  handle.close();
  for (const call of calls()) assertCode(await caught(call), "EBADF");
});

// ---- streamAbort() -----------------------------------------------------------------------------------------------

/** One algorithm of each kind. Each kind drops what is in the engine in its own way. */
const ABORTED: [algorithm: string, key: Bytes, iv: Bytes | undefined][] = [
  ...ALGORITHMS.map((algorithm): [string, Bytes, Bytes | undefined] => [algorithm, KEY, ivOf(algorithm)]),
  ["xts(aes)", bytes(32, 7), IV],
  ["chacha20", bytes(32, 7), IV],
  ["rfc3686(ctr(aes))", bytes(20, 7), bytes(8, 8)],
];

for (const [algorithm, key, iv] of ABORTED) {
  const NEEDS = { needs: { [algorithm]: opens(algorithm) } } as const;
  test(`streamAbort() of ${algorithm} in every state: the next stream is like one of a new handle`, NEEDS, async () => {
    const input = bytes(4_096);
    const whole = async (handle: CipherHandle, direction: Direction) => {
      init(handle, direction, iv);
      const sent = background(handle.streamUpdateLast(input));
      const output = await collect(handle.streamOp());
      await sent;
      return output;
    };
    const states: ((handle: CipherHandle) => unknown)[] = [
      () => {},
      (handle) => handle.streamUpdate(bytes(7, 3)),
      (handle) => handle.streamUpdate(bytes(160, 3)),
      (handle) => handle.streamUpdate(bytes(163, 3)),
      (handle) => handle.streamUpdateLast(bytes(160, 3)),
      async (handle) => {
        await handle.streamUpdateLast(bytes(320, 3));
        await handle.streamOpInto(new Uint8Array(64));
      },
      async (handle) => {
        await handle.streamUpdate(bytes(160, 3));
        background(handle.streamOp().next()); // receives at once where something is ready, else waits
      },
    ];
    using handle = open(algorithm, key);
    using fresh = open(algorithm, key);
    const outputs = [await whole(fresh, "encrypt"), await whole(fresh, "decrypt")];
    for (const [i, bring] of states.entries()) {
      for (const direction of DIRECTIONS) {
        init(handle, direction, iv);
        await bring(handle);
        const reason = new Error("enough");
        handle.streamAbort(reason);
        assertStrictEquals(await caught(handle.streamUpdate(new Uint8Array(16))), reason);
        const other = DIRECTIONS.indexOf(direction) ^ i & 1;
        assertEquals(await whole(handle, DIRECTIONS[other]!), outputs[other], `${direction}, state ${i}`);
      }
    }
  });
}

test("streamAbort() rejects pending and later updates and receivers with its reason, until the next stream", async () => {
  using handle = started();
  const input = bytes(2 * WINDOW);
  const updates = [handle.streamUpdate(input), handle.streamUpdate(), handle.streamUpdateLast()].map(caught);
  const reason = new Error("the source failed");
  handle.streamAbort(reason);
  for (const update of updates) assertStrictEquals(await update, reason);
  assertStrictEquals(await caught(handle.streamUpdate(new Uint8Array(1))), reason);
  assertStrictEquals(await caught(handle.streamUpdateLast()), reason);
  assertStrictEquals(await caught(handle.streamOpInto(new Uint8Array(16))), reason);
  assertStrictEquals(assertThrows(() => handle.streamOp()), reason);
  assertEquals(input, bytes(2 * WINDOW), "the buffer was changed");
  handle.streamAbort(new Error("a second reason"));
  assertStrictEquals(await caught(handle.streamUpdateLast()), reason);

  for (const receive of [() => handle.streamOp().next(), () => handle.streamOpInto(new Uint8Array(16))]) {
    init(handle);
    const received = caught(receive() as Promise<unknown>);
    assert(await isPending(received));
    handle.streamAbort(reason);
    assertStrictEquals(await received, reason);
  }
});

test("streamAbort() and the next stream in one tick: receivers of the first stream reject, and never end", async () => {
  using handle = started();
  const reason = new Error("the source failed");
  const used = handle.streamOp();
  const next = caught(used.next());
  handle.streamAbort(reason);
  init(handle);
  assertStrictEquals(await next, reason);
  const idle = handle.streamOp();
  handle.streamAbort(reason);
  init(handle);
  const into = caught(handle.streamOpInto(new Uint8Array(16)));
  handle.streamAbort(reason);
  init(handle);
  assertStrictEquals(await into, reason);
  assertStrictEquals(await caught(idle.next()), reason);
  await handle.streamUpdateLast(bytes(40));
  assertEquals(await collect(handle.streamOp()), expected(bytes(40)));
});

test("streamAbort() does nothing if no stream is in progress, and without a reason rejects with ECANCELED", async () => {
  const handle = open();
  handle.streamAbort(new Error("none was started"));
  init(handle);
  await handle.streamUpdateLast(bytes(40));
  assertEquals(await collect(handle.streamOp()), expected(bytes(40)));
  handle.streamAbort(new Error("it was received to its end"));
  assertEquals(await collect(handle.streamOp()), new Uint8Array(0));
  init(handle);
  handle.streamAbort();
  await rejects("ECANCELED", () => handle.streamUpdateLast(), "streamAbort");
  handle.close();
  handle.streamAbort(new Error("it is closed"));
  await rejects("EBADF", () => handle.streamUpdateLast());
});

/** The pattern of the documentation: what the loop throws, and what is left of the producer. */
async function documented(handle: CipherHandle, produce: () => Promise<unknown>): Promise<unknown> {
  const producing = produce().catch((error) => handle.streamAbort(error));
  try {
    for await (const _ of handle.streamOp());
  } catch (error) {
    return error;
  }
  await producing;
  return undefined;
}

test("a producer that fails ends the documented loop with its error", async () => {
  using handle = started("cbc(aes)");
  const failure = new Error("the source failed");
  const thrown = await documented(handle, async () => {
    await handle.streamUpdate(bytes(3 * WINDOW));
    throw failure;
  });
  assertStrictEquals(thrown, failure);
  init(handle);
  const refused = await documented(handle, () => handle.streamUpdateLast(new Uint8Array(17)));
  assertInstanceOf(refused, RangeError);
  init(handle);
  assertEquals(await documented(handle, () => produce(handle, bytes(1_600), 100)), undefined);
});

// ---- close() -----------------------------------------------------------------------------------------------------

test("calls on a closed handle fail with EBADF, and a second close() has no effect", async () => {
  const handle = started();
  const iterator = handle.streamOp();
  handle.close();
  handle.close();
  handle[Symbol.dispose]();
  throws("EBADF", () => handle.streamInitEnc(IV), "streamInitEnc");
  throws("EBADF", () => handle.streamInitDec(IV), "streamInitDec");
  throws("EBADF", () => handle.streamOp(), "streamOp");
  throws("EBADF", () => handle.reinit(), "reinit");
  await rejects("EBADF", () => handle.streamUpdate(new Uint8Array(16)), "streamUpdate");
  await rejects("EBADF", () => handle.streamUpdateLast(), "streamUpdateLast");
  await rejects("EBADF", () => handle.streamOpInto(new Uint8Array(16)), "streamOpInto");
  await rejects("EBADF", () => iterator.next(), "streamOp");
});

test("close() rejects every pending update with ECANCELED", async () => {
  for (const close of [(handle: CipherHandle) => handle.close(), (handle: CipherHandle) => handle[Symbol.dispose]()]) {
    const handle = started();
    const input = bytes(WINDOW + 1_000);
    const updates = [handle.streamUpdate(input), handle.streamUpdate(), handle.streamUpdateLast(input)].map(caught);
    await turns();
    close(handle);
    for (const update of updates) assertCode(await update, "ECANCELED");
    assertEquals(input, bytes(WINDOW + 1_000), "the buffer was changed");
  }
});

test("close() rejects pending receivers with ECANCELED, so that a truncated stream does not look complete", async () => {
  const waiting: ((handle: CipherHandle) => Promise<unknown>)[] = [
    (handle) => handle.streamOp().next(),
    (handle) => handle.streamOpInto(new Uint8Array(16)),
    (handle) => collect(handle.streamOp()),
  ];
  for (const receive of waiting) {
    const handle = started();
    await handle.streamUpdate(new Uint8Array(7));
    const received = caught(receive(handle));
    assert(await isPending(received));
    handle.close();
    assertCode(await received, "ECANCELED");
  }
});

test("close() at any moment after a receiver was resumed: it gets its bytes, or ECANCELED", async () => {
  const waiting: ((handle: CipherHandle) => Promise<unknown>)[] = [
    (handle) => handle.streamOp().next().then(({ value }) => value!.length),
    (handle) => handle.streamOpInto(new Uint8Array(32)),
  ];
  for (const receive of waiting) {
    const outcomes = new Set<unknown>();
    for (let moment = 0; moment < 12; moment++) {
      const handle = started();
      const received = receive(handle).catch((error) => error.code);
      background(handle.streamUpdate(new Uint8Array(32)));
      for (let i = 0; i < moment; i++) await undefined;
      handle.close();
      outcomes.add(await received);
    }
    assertEquals(outcomes, new Set<unknown>(["ECANCELED", 32]));
  }
});

test("close() in the body of a loop ends the loop with an error, and a pending update with ECANCELED", async () => {
  const handle = started();
  const sent = caught(handle.streamUpdate(bytes(4 * WINDOW)));
  const loop = async () => {
    for await (const _ of handle.streamOp()) handle.close();
  };
  await rejects("EBADF", loop);
  assertCode(await sent, "ECANCELED");
});

test("close() releases the descriptors at once, in every state of a stream", async () => {
  { // The library, the library's own, and the algorithm's modules are there for good.
    using handle = started();
    await handle.streamUpdateLast();
  }
  const before = openFiles();
  const states: ((handle: CipherHandle) => unknown)[] = [
    () => {},
    (handle) => init(handle),
    (handle) => init(handle).streamUpdate(bytes(100)),
    (handle) => void caught(init(handle).streamUpdate(bytes(WINDOW + 100))),
    (handle) => void caught(init(handle).streamOp().next()),
    (handle) => init(handle).streamUpdateLast(bytes(100)),
  ];
  for (const bring of states) {
    const handle = open();
    const other = handle.reinit();
    await bring(handle);
    await bring(other);
    if (engine === "kernel") assert(openFiles() > before, "the kernel's handles are descriptors");
    handle.close();
    other.close();
    assertEquals(openFiles(), before);
  }
});

// ---- reinit() ----------------------------------------------------------------------------------------------------

for (const algorithm of ALGORITHMS) {
  test(`reinit() of a ${algorithm} handle: the same key, independent streams`, async () => {
    using parent = open(algorithm);
    const handles = [parent, parent.reinit(), parent.reinit()];
    handles.push(handles[1]!.reinit());
    const inputs = handles.map((_, i) => bytes(WINDOW + 16 * i, 20 + i));
    const ivs = handles.map((_, i) => algorithm === "ecb(aes)" ? undefined : bytes(16, 30 + i));
    handles.forEach((handle, i) => init(handle, DIRECTIONS[i % 2], ivs[i]));
    const sent = handles.map((handle, i) => background(produce(handle, inputs[i]!, 50_001 + i)));
    const outputs = await Promise.all(handles.map((handle) => collect(handle.streamOp())));
    await Promise.all(sent);
    outputs.forEach((output, i) =>
      assertEquals(output, expected(inputs[i]!, algorithm, DIRECTIONS[i % 2], ivs[i]), `handle ${i}`)
    );
    handles.forEach((handle) => handle.close());
  });
}

test("reinit() works during a stream, and closing one handle does not affect the other", async () => {
  for (const first of ["parent", "child"]) {
    const parent = started();
    await parent.streamUpdate(bytes(20));
    const child = parent.reinit();
    assertEquals([child.algorithm, child.engine, child.ivSize], [parent.algorithm, parent.engine, parent.ivSize]);
    await rejects("EINVAL", () => child.streamUpdate(new Uint8Array(1)), "streamUpdate");
    init(child);
    const [closed, other] = first === "parent" ? [parent, child] : [child, parent];
    closed.close();
    const input = bytes(50);
    await other.streamUpdateLast(other === parent ? input.subarray(20) : input);
    assertEquals(await collect(other.streamOp()), expected(input));
    using third = init(other.reinit());
    other.close();
    await third.streamUpdateLast(input);
    assertEquals(await collect(third.streamOp()), expected(input));
  }
});

// ---- a failed init -----------------------------------------------------------------------------------------------

test(
  "streamInitEnc() without a descriptor left is EMFILE, and the handle works when there are some again",
  { engine: "kernel" },
  async () => {
    const child = fileURLToPath(new URL("./children/init_without_descriptors.ts", import.meta.url));
    const command = [...runtimeArgv, child].map((word) => `'${word}'`).join(" ");
    const { code, stdout, stderr } = await spawn(["sh", "-c", `ulimit -n 120 && exec ${command}`]);
    assertEquals([code, stderr], [0, ""]);
    const { without, outputs } = JSON.parse(stdout);
    assertEquals(without, Array.from({ length: 3 }, () => ["EMFILE", "EMFILE", "EINVAL"]));
    const options = { key: new Uint8Array(32).map((_, i) => i), iv: new Uint8Array(16).fill(2) };
    const input = new Uint8Array(96).fill(3);
    const expectedOutputs = ["ctr(aes)", "cbc(aes)", "xts(aes)"].map((name) =>
      reference("encrypt", name, options, input)
    );
    assertEquals(outputs, expectedOutputs.map((output) => output.toHex()));
  },
);

// ---- modes that restart on every call ---------------------------------------------------------------------------

// RFC 3686: AES in counter mode over nonce | IV | 00000001, where the nonce is the end of the key.
const RFC3686 = "rfc3686(ctr(aes))";
const RFC3686_KEY = bytes(20, 40);
const RFC3686_IV = bytes(8, 41);

function rfc3686(): { handle: CipherHandle; encrypted: (input: Bytes) => Bytes } {
  const handle = open(RFC3686, RFC3686_KEY);
  handle.streamInitEnc(RFC3686_IV);
  const counter = concat([RFC3686_KEY.subarray(16), RFC3686_IV, Uint8Array.of(0, 0, 0, 1)]);
  return {
    handle,
    encrypted: (input) => reference("encrypt", "ctr(aes)", { key: RFC3686_KEY.slice(0, 16), iv: counter }, input),
  };
}

const MESSAGE = { needs: { [RFC3686]: opens(RFC3686) } } as const;

test("a one-message mode has nothing ready before the last update", MESSAGE, async () => {
  const { handle, encrypted } = rfc3686();
  using _ = handle;
  const input = bytes(5_003);
  const next = handle.streamOp().next();
  for (const piece of pieces(input.subarray(0, 5_000), 1, 64, 999)) await handle.streamUpdate(piece);
  assert(await isPending(next), "a part of a message came out before its end");
  await handle.streamUpdateLast(input.subarray(5_000));
  assertEquals((await next).value, encrypted(input));
});

test("a one-message mode gives the output of one op, for any requests", MESSAGE, async () => {
  const input = bytes(5_003);
  const { handle, encrypted } = rfc3686();
  using _ = handle;
  for (const maxBytes of [handle.chunkSize, 999, 5_003, Infinity]) {
    const sent = background(produce(handle, input, 1, 64, 999));
    assertEquals(await collect(handle.streamOp({ maxBytes })), encrypted(input), `maxBytes ${maxBytes}`);
    await sent;
    handle.streamInitEnc(RFC3686_IV);
  }
  await handle.streamUpdateLast(input);
  const list = pieces(new Uint8Array(5_100), 33, 100, 7);
  const first = await handle.streamOpInto(...list.slice(0, 2));
  assertEquals(first, 133 - 133 % handle.chunkSize);
  const rest = pieces(new Uint8Array(5_100), 1_000);
  assertEquals(await handle.streamOpInto(...rest), input.length - first);
  const whole = concat([concat(list).subarray(0, first), concat(rest)]).subarray(0, input.length);
  assertEquals(whole, encrypted(input));
});

test(
  "a one-message mode accepts a full window, and rejects one more byte with EMSGSIZE before any output",
  MESSAGE,
  async () => {
    const { handle, encrypted } = rfc3686();
    using _ = handle;
    const input = bytes(WINDOW + 1);
    assertEquals(await handle.streamUpdate(input.subarray(0, 100)), 100);
    assertEquals(await handle.streamUpdateLast(input.subarray(100, WINDOW)), WINDOW - 100);
    assertEquals(await collect(handle.streamOp()), encrypted(input.subarray(0, WINDOW)));
    for (const lengths of [[WINDOW + 1], [100, WINDOW - 99], [WINDOW, 1]]) {
      using other = handle.reinit();
      other.streamInitEnc(RFC3686_IV);
      const next = caught(other.streamOp().next());
      const [first, second] = pieces(input, ...lengths);
      if (second) assertEquals(await other.streamUpdate(first!), lengths[0]);
      const error = await caught(second ? other.streamUpdateLast(second) : other.streamUpdate(first!));
      assertCode(error, "EMSGSIZE");
      assertStrictEquals(await next, error);
    }
  },
);

test("xts(aes) on a handle: a sector is a stream of its own, and cannot be received in parts", async () => {
  // IEEE 1619-2007, B, vector 2: one data unit of 32 bytes.
  using handle = open("xts(aes)", fromHex("11".repeat(16) + "22".repeat(16)));
  for (const maxBytes of [16, Infinity]) {
    handle.streamInitEnc(fromHex("3333333333" + "00".repeat(11)));
    await handle.streamUpdate(fromHex("44".repeat(16)));
    await handle.streamUpdateLast(fromHex("44".repeat(16)));
    const output = await collect(handle.streamOp({ maxBytes }));
    assertEquals(output, fromHex("c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"));
  }
});

test(
  "chacha20 on a handle continues with the counter, in chunks of any size",
  { needs: { chacha20: opens("chacha20") } },
  async () => {
    const key = bytes(32, 42);
    const iv = bytes(16, 43);
    const input = bytes(10_001);
    using handle = open("chacha20", key);
    const ways: [maxBytes: number, ...lengths: number[]][] = [
      [Infinity, 10_001],
      [Infinity, 1, 63, 64, 65],
      [64, 1_000],
      [200, 64, 3_000],
    ];
    for (const [maxBytes, ...lengths] of ways) {
      handle.streamInitEnc(iv);
      const sent = background(produce(handle, input, ...lengths));
      assertEquals(await collect(handle.streamOp({ maxBytes })), chacha20(key, iv, input), `${maxBytes}, ${lengths}`);
      await sent;
    }
  },
);
