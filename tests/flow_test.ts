/**
 * The flow rules (F5 is in algorithms_test.ts). On the kernel engine every test runs under a watch of the native calls,
 * which throws where a broken rule would hang the runtime; the bytes are the real kernel's.
 */
import { readFileSync, writeFileSync } from "node:fs";
import type { Calls } from "../ffi/adapter.ts";
import { load } from "../ffi/mod.ts";
import { denoAdapter } from "../ffi/deno.ts";
import { CipherHandle, encrypt, EncryptionStream, KcapiError, UnsealStream } from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import { IovCursor } from "../src/bytes.ts";
import { EngineStream } from "../src/cipher/engine_stream.ts";
import { openKernel } from "../src/engines/kernel.ts";
import { openEngine } from "../src/engines/mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStrictEquals,
  assertThrows,
  engine,
  openFiles,
  ownsKernel,
  test,
} from "./support/deps.ts";
import { addressOf, arrayOf, entriesAt, interpose, lengthOf, type Watch, watchCalls } from "./support/native_calls.ts";
import {
  background,
  type Bytes,
  bytes,
  caught,
  chacha20,
  collect,
  concat,
  cut,
  isPending,
  opens,
  reference,
  streamOf,
  turns,
  WINDOW,
} from "./support/support.ts";
import { Secret } from "../src/secret.ts";

const IV = bytes(16, 3);
const PAGE = 4_096;

const UPDATE = "kcapi_cipher_stream_update";
const LAST = "kcapi_cipher_stream_update_last";
const OP = "kcapi_cipher_stream_op";
/** The calls that move a stream's bytes. */
type StreamCallName = typeof UPDATE | typeof LAST | typeof OP;

const keyOf = (algorithm: string) => bytes(algorithm === "chacha20" ? 32 : 16, 2);
const KERNEL = { engine: "kernel" } as const;

/** Modes of each kind that takes more than one op. */
const ALGORITHMS = ["ctr(aes)", "cbc(aes)", "chacha20"];

function started(algorithm = "ctr(aes)"): CipherHandle {
  const handle = CipherHandle.open(algorithm, { key: keyOf(algorithm), engine });
  handle.streamInitEnc(IV);
  return handle;
}

/** The right output, by other means. */
function expected(input: Bytes, algorithm = "ctr(aes)"): Bytes {
  const key = keyOf(algorithm);
  return algorithm === "chacha20" ? chacha20(key, IV, input) : reference("encrypt", algorithm, { key, iv: IV }, input);
}

/** A test that watches the native calls, on the kernel engine. */
function watched(name: string, body: () => void | Promise<void>, algorithm = "ctr(aes)"): void {
  test(name, { needs: { [algorithm]: opens(algorithm) } }, async () => {
    using _ = engine === "kernel" ? watchCalls() : undefined;
    await body();
  });
}

/** A test of a rule that only the kernel engine has. */
function watchedOnKernel(name: string, body: (watch: Watch) => void | Promise<void>, algorithm = "ctr(aes)"): void {
  test(name, { ...KERNEL, needs: { [algorithm]: opens(algorithm) } }, async () => {
    using watch = watchCalls();
    await body(watch);
  });
}

/** A buffer of the given size that begins at `offset` bytes into a page. */
function atPageOffset(size: number, offset: number): Bytes {
  const memory = new Uint8Array(new ArrayBuffer(size + 2 * PAGE));
  const start = (PAGE - Number(addressOf(memory) % BigInt(PAGE)) + offset) % PAGE;
  return memory.subarray(start, start + size);
}

watchedOnKernel(
  "an UnsealStream opens no cipher to find its engine, after the first one of the process",
  async ({ names }) => {
    const options = { key: bytes(32), engine };
    await new UnsealStream(options).writable.abort();
    names.length = 0;
    const stream = new UnsealStream(options);
    assertEquals([stream.engine, names.filter((name) => name === "kcapi_cipher_init")], ["kernel", []]);
    await stream.writable.abort();
  },
);

// ---- F1: ask only for what is there ------------------------------------------------------------------------------

for (const algorithm of ALGORITHMS) {
  const chunk = algorithm === "chacha20" ? 64 : 16;

  watched(
    `F1 ${algorithm}: 72 bytes sent and room for 128 give the whole chunks there are, and later the rest`,
    async () => {
      const input = bytes(256);
      const output = expected(input, algorithm);
      using handle = started(algorithm);
      const room = new Uint8Array(128);
      await handle.streamUpdate(input.subarray(0, 72));
      assertEquals(await handle.streamOpInto(room), 64);
      assertEquals(room.subarray(0, 64), output.subarray(0, 64));
      const waits = handle.streamOpInto(room);
      assert(await isPending(waits), "streamOpInto() gave the 8 bytes of a chunk begun");
      // Asked for 128 bytes with 8 there, the kernel would give these and a gap.
      await handle.streamUpdate(input.subarray(72, 255));
      assertEquals(await waits, 128);
      assertEquals(room, output.subarray(64, 192));
      await handle.streamUpdateLast(input.subarray(255));
      assertEquals(await handle.streamOpInto(room), 64);
      assertEquals(room.subarray(0, 64), output.subarray(192));
      assertEquals(await handle.streamOpInto(room), 0);
    },
    algorithm,
  );

  watched(`F1 ${algorithm}: an op never sleeps, whatever was sent and whatever the room`, async () => {
    const input = bytes(512);
    const output = expected(input, algorithm);
    using handle = started(algorithm);
    for (const sent of [1, 15, 17, 40, 63, 64, 65, 127, 200]) {
      for (const room of [chunk, chunk + 1, 100, 128, 1_000].filter((room) => room >= chunk)) {
        await handle.streamUpdate(input.subarray(0, sent));
        const received: Bytes[] = [];
        const take = async () => {
          const target = new Uint8Array(room);
          received.push(target.subarray(0, await handle.streamOpInto(target)));
        };
        if (sent >= chunk) await take();
        const end = handle.streamUpdateLast(input.subarray(sent));
        while (received.at(-1)?.length !== 0 && concat(received).length <= output.length) await take();
        await end;
        assertEquals(concat(received), output, `${sent} bytes, then room for ${room}`);
        handle.streamInitEnc(IV);
      }
    }
  }, algorithm);
}

watched("F1 after the last update, an op requests exactly the remainder", async () => {
  for (const length of [1, 16, 17, 100, 4_097]) {
    using handle = started();
    await handle.streamUpdateLast(bytes(length));
    const target = new Uint8Array(2 * PAGE);
    assertEquals(await handle.streamOpInto(target), length);
    assertEquals(target.subarray(0, length), expected(bytes(length)));
    assertEquals(await handle.streamOpInto(target), 0);
  }
});

// ---- F2: send only what fits -------------------------------------------------------------------------------------

watched("F2 an update of a whole window is sent at once, and one byte more waits in JavaScript", async () => {
  using handle = started();
  const input = bytes(WINDOW + 1);
  assert(!await isPending(handle.streamUpdate(input.subarray(0, WINDOW))), "the window is less than the send buffer");
  const more = background(handle.streamUpdateLast(input.subarray(WINDOW)));
  assert(await isPending(more), "more than the send buffer holds was sent");
  assertEquals(await collect(handle.streamOp()), expected(input));
  await more;
});

// The kernel wants a whole free page when it begins one: with less it sleeps, though the bytes at hand would fit. In
// a last page that is begun there is room for its rest; after an op that page may be full.
for (const queued of [16, PAGE, WINDOW - 2 * PAGE, WINDOW - PAGE - 16, WINDOW - PAGE, WINDOW - 2_048, WINDOW - 16]) {
  for (const received of [0, WINDOW - queued]) {
    watched(`F2 with ${queued} bytes queued, after an op of ${received}, no update sleeps`, async () => {
      for (const length of [16, 1_008, 1_024, 2_048, PAGE - 16, PAGE, PAGE + 16, 2 * PAGE, WINDOW]) {
        using handle = started();
        const input = bytes(received + queued + length);
        await handle.streamUpdate(input.subarray(0, received + queued));
        const first = new Uint8Array(received);
        if (received > 0) await handle.streamOpInto(first);
        const update = background(handle.streamUpdate(input.subarray(received + queued)));
        const waits = await isPending(update);
        if (queued + length <= WINDOW - PAGE) assert(!waits, `${length} bytes waited, for which there was room`);
        if (queued + length > WINDOW) assert(waits, `${length} bytes did not wait, for which there was no room`);
        const last = background(handle.streamUpdateLast());
        const output = concat([first, await collect(handle.streamOp())]);
        assertEquals(output, expected(input), `then ${length} bytes`);
        await Promise.all([update, last]);
      }
    });
  }
}

watched("F2 alternating small updates and small ops never fill the buffer", async () => {
  using handle = started();
  const input = bytes(3 * WINDOW);
  const sent = background((async () => {
    for (const piece of cut(input, [16, 4_095, 65_537, 1, 30_000, 4_097, 2_048])) await handle.streamUpdate(piece);
    await handle.streamUpdateLast();
  })());
  const output: Bytes[] = [];
  for (let turn = 0; concat(output).length <= input.length; turn++) {
    await turns(1);
    const target = new Uint8Array([16, 4_100, 70_001, 333, 150_000][turn % 5]!);
    const received = await handle.streamOpInto(target);
    if (received === 0) break;
    output.push(target.subarray(0, received));
  }
  await sent;
  assertEquals(concat(output), expected(input));
});

// Where less than a page of the receive buffer is left for an entry, the kernel gives what it has, and a gap.
for (
  const lengths of [
    [210_001, 2_991],
    [212_991, 1],
    [1, 212_991],
    [208_896, 4_096],
    [208_895, 4_097],
    [4_097, 204_815],
    [200_001, 8_000, 4_000, 991],
    Array<number>(16).fill(12_544),
    Array<number>(16).fill(13_312),
    Array<number>(104).fill(2_048),
    // More entries than one op takes: a copy.
    Array<number>(17).fill(4_096),
    Array<number>(20).fill(4_096),
    Array<number>(20).fill(4_100),
    [208_912, 4_080],
  ]
) {
  watched(`F2 output buffers of ${shown(lengths)} are filled without a gap`, async () => {
    const input = bytes(lengths.reduce((a, b) => a + b));
    for (const offset of [0, 1, 4_095]) {
      using handle = started();
      await handle.streamUpdate(input);
      const list = lengths.map((length) => new Uint8Array(length + offset).subarray(offset));
      assertEquals(await handle.streamOpInto(...list), input.length);
      assertEquals(concat(list), expected(input), `entries at offset ${offset}`);
    }
  });
}

function shown(lengths: readonly number[]): string {
  return lengths.length > 8 ? `${lengths.length} entries of ${lengths[0]}` : lengths.join(" + ");
}

/** Sets the default socket buffers of the system: of the guest's. */
function socketBuffers(send: number, receive: number): Disposable {
  const files = ["wmem_default", "rmem_default"].map((name) => `/proc/sys/net/core/${name}`);
  const before = files.map((file) => readFileSync(file, "utf8"));
  [send, receive].forEach((size, i) => writeFileSync(files[i]!, String(size)));
  return { [Symbol.dispose]: () => before.forEach((size, i) => writeFileSync(files[i]!, size)) };
}

// The smallest there are, multiples of what one step of an op maps, and ones for which an op would have no memory.
for (
  const [send, receive, window] of [
    [4_608, 2_304, 4_096],
    [4_608, 212_992, 4_096],
    [212_992, 4_608, 4_096],
    [9_000, 70_000, 8_192],
    [65_536, 65_536, 61_440],
    [131_072, 131_072, 126_976],
    [131_072, 4_194_304, 126_976],
    [200_000, 150_000, 147_456],
    [1_048_576, 1_048_576, WINDOW],
    [4_194_304, 4_194_304, WINDOW],
  ] as const
) {
  test(
    `F2 with socket buffers of ${send} and ${receive} bytes the window is ${window}, and the bytes are right`,
    { needs: { "root in a guest": ownsKernel } },
    async () => {
      using _ = socketBuffers(send, receive);
      const actual = kernelWindow();
      {
        using _watch = watchCalls();
        await assertStreams("cbc(aes)", actual);
        // Modes of which a round, or the message, is one op: nothing less will do.
        await assertStreams("chacha20", actual);
        await assertOneOp(actual);
      }
      assertEquals(actual, window);
    },
  );
}

function kernelWindow(): number {
  const kernel = openKernel(load(), parseAlgorithm("ctr(aes)"), Secret.from(keyOf("ctr(aes)")));
  kernel.close();
  return kernel.window;
}

for (const algorithm of ALGORITHMS) {
  test(
    `F2 ${algorithm}: the window is that of the stream's socket, also if the sysctls change before and after`,
    { needs: { "root in a guest": ownsKernel } },
    async () => {
      using _watch = watchCalls();
      const input = bytes(30_000);
      const exchange = async (handle: CipherHandle) => {
        const sent = background(handle.streamUpdateLast(input));
        assert(await isPending(sent), "more was sent than the kernel holds");
        assertEquals(await collect(handle.streamOp()), expected(input, algorithm));
        assertEquals(await sent, input.length);
      };
      using early = CipherHandle.open(algorithm, { key: keyOf(algorithm), engine });
      using late = early.reinit();
      {
        using _ = socketBuffers(9_000, 9_000);
        early.streamInitEnc(IV);
        late.streamInitEnc(IV);
        await exchange(early);
      }
      await exchange(late);
    },
  );
}

const OFFSETS = [0, 1, 4_080];

/** Two windows and more, received in turn by single buffers and by lists that begin at an offset into a page. */
async function assertStreams(algorithm: string, window: number): Promise<void> {
  const input = bytes(2 * window + 5_008);
  const right = expected(input, algorithm);
  for (const offset of OFFSETS) {
    assertEquals(await turnAbout(algorithm, input, window, offset), right, `${algorithm} at offset ${offset}`);
  }
}

async function turnAbout(algorithm: string, input: Bytes, window: number, offset: number): Promise<Bytes> {
  using handle = started(algorithm);
  const sent = background((async () => {
    await handle.streamUpdate(input.subarray(0, window));
    await handle.streamUpdateLast(input.subarray(window));
  })());
  const output: Bytes[] = [];
  for (let turn = 0; turn < 20; turn++) {
    const target = atPageOffset(window, offset);
    const list = turn % 2 ? [target.subarray(0, 100), target.subarray(100)] : [target];
    const received = await handle.streamOpInto(...list);
    if (received === 0) break;
    output.push(target.subarray(0, received));
  }
  await sent;
  return concat(output);
}

/** A window as one message. RFC 3686: counter mode over nonce | IV | 1. */
async function assertOneOp(window: number): Promise<void> {
  const [key, nonce, iv] = [bytes(16, 7), bytes(4, 8), bytes(8, 9)];
  const counter = concat([nonce, iv, Uint8Array.of(0, 0, 0, 1)]);
  const right = reference("encrypt", "ctr(aes)", { key, iv: counter }, bytes(window));
  using handle = CipherHandle.open("rfc3686(ctr(aes))", { key: concat([key, nonce]), engine });
  for (const offset of OFFSETS) {
    handle.streamInitEnc(iv);
    await handle.streamUpdateLast(bytes(window));
    const target = atPageOffset(window, offset);
    assertEquals(await handle.streamOpInto(target), window);
    assertEquals(target, right, `at offset ${offset}`);
  }
}

test("F2 with pages of 64 KiB the window is 196,608 bytes, and a page stays free", KERNEL, () => {
  using _ = interpose(() => ({ getpagesize: () => 65_536 }));
  const kernel = openKernel(load(), parseAlgorithm("ctr(aes)"), Secret.from(keyOf("ctr(aes)")));
  assertEquals([0, 16, 65_536, 131_072, 196_608].map((queued) => kernel.capacity(queued)), [
    196_608,
    131_056,
    65_536,
    0,
    0,
  ]);
  assertEquals(kernel.window, 196_608);
  kernel.close();
});

// ---- F3: only whole chunks before the end ------------------------------------------------------------------------

for (const algorithm of ALGORITHMS) {
  const chunk = algorithm === "chacha20" ? 64 : 16;

  watchedOnKernel(`F3 ${algorithm}: whole chunks are sent, and what is left of one is kept`, async (watch) => {
    const input = bytes(6 * chunk);
    using handle = started(algorithm);
    const sent = () => watch.streamCalls.splice(0).map(({ length }) => length);
    for (
      const [from, to, ...lengths] of [
        [0, 1],
        [1, chunk - 1],
        [chunk - 1, chunk, chunk],
        [chunk, 2 * chunk, chunk],
        [2 * chunk, 4 * chunk - 1, chunk],
        [4 * chunk - 1, 4 * chunk + 1, chunk],
      ] as const
    ) {
      assertEquals(await handle.streamUpdate(input.subarray(from, to)), to - from);
      assertEquals(sent(), lengths, `bytes ${from} to ${to}`);
    }
    await handle.streamUpdateLast(input.subarray(4 * chunk + 1));
    assertEquals(sent(), [2 * chunk]);
    assertEquals(await collect(handle.streamOp()), expected(input, algorithm));
  }, algorithm);
}

watchedOnKernel(
  "F3 the tail is sent before the next buffer in one list, without a copy of the buffer",
  async (watch) => {
    using handle = started();
    const input = bytes(100_000);
    const buffers = [input.slice(0, 7), input.slice(7, 50_007), input.slice(50_007)];
    await handle.streamUpdate(buffers[0]!);
    await handle.streamUpdate(buffers[1]!, buffers[2]!);
    const { entries } = watch.streamCalls[0]!;
    assertEquals(entries.map(({ length }) => length), [7, 50_000, 49_984 + 9]);
    assertEquals(entries.slice(1).map(({ base }) => base), buffers.slice(1).map(addressOf));
    await handle.streamUpdateLast();
    assertEquals(await collect(handle.streamOp()), expected(input));
  },
);

// ---- what is kept back -------------------------------------------------------------------------------------------

/** A flow over the engine of this run, and the memory in which its engine was given the tail. */
function flowWithTails(algorithm: string, key: Bytes): { flow: EngineStream; tails: Bytes[] } {
  const parsed = parseAlgorithm(algorithm);
  const real = openEngine(parsed, Secret.from(key), engine);
  const update = real.update.bind(real);
  const tails: Bytes[] = [];
  real.update = (list, last) => {
    if (list.length > 1) tails.push(new Uint8Array(list[0]!.buffer));
    update(list, last);
  };
  return { flow: new EngineStream(real, parsed), tails };
}

test("the tail is zeroed when the stream is closed, and when it moves to a larger buffer", () => {
  const sectors = {
    direction: "encrypt",
    iv: null,
    sectors: { sectorSize: 512, sector: 0n, ivStep: 1n, ivMode: "plain64" },
  } as const;
  const { flow, tails } = flowWithTails("xts(aes)", bytes(64, 2));
  flow.start(sectors);
  const send = (length: number) => {
    flow.send(new IovCursor([new Uint8Array(length).fill(7)]), false);
    while (flow.ready > 0) flow.take(flow.ready);
  };
  send(10);
  send(512);
  assertEquals(tails[0]!.subarray(0, 10), new Uint8Array(10).fill(7));
  send(400); // more than the memory holds that the tail has had so far
  assertEquals(tails[0], new Uint8Array(tails[0]!.length));
  send(512);
  assertEquals(tails[1]!.subarray(0, 410), new Uint8Array(410).fill(7));
  flow.close();
  assertEquals(tails[1], new Uint8Array(tails[1]!.length));
});

// ---- F4: stay off the pipe ---------------------------------------------------------------------------------------

// Through the pipe an entry holds as many pages as it touches, and past 32 of them data is lost: -EFAULT.
for (const offset of [0, 1, 15, 16, 2_048, 4_080, 4_095]) {
  watchedOnKernel(`F4 buffers of 131,071 bytes at offset ${offset} of a page are processed completely`, async () => {
    using handle = started("cbc(aes)");
    const input = bytes(131_071 * 2);
    const output: Bytes[] = [];
    for (const piece of cut(input, [131_071])) {
      const buffer = atPageOffset(piece.length, offset);
      buffer.set(piece);
      await handle.streamUpdate(buffer);
      const target = new Uint8Array(WINDOW);
      output.push(target.subarray(0, await handle.streamOpInto(target)));
    }
    await handle.streamUpdateLast(new Uint8Array(2));
    output.push(await collect(handle.streamOp()));
    assertEquals(concat(output), expected(concat([input, new Uint8Array(2)]), "cbc(aes)"));
  });
}

for (const call of ["streamUpdate", "streamUpdateLast"] as const) {
  watchedOnKernel(
    `F4 ${call}() of 12 buffers of 4,098 bytes over three pages each is processed completely`,
    async () => {
      using handle = started();
      const list = Array.from({ length: 12 }, (_, i) => {
        const entry = atPageOffset(4_098, 4_095);
        entry.set(bytes(4_098, i + 1));
        return entry;
      });
      assertEquals(await handle[call](...list), 12 * 4_098);
      if (call === "streamUpdate") await handle.streamUpdateLast();
      assertEquals(await collect(handle.streamOp()), expected(concat(list)));
    },
  );
}

watchedOnKernel("F4 every update uses sendmsg: its list has more than 16 entries", async (watch) => {
  const counts: number[] = [];
  using _ = interpose((real) => {
    const noted = (name: StreamCallName) => ({
      [name]: (...[handle, list, count]: Parameters<Calls[StreamCallName]>) => {
        counts.push(Number(count));
        return real[name](handle, list, count);
      },
    });
    return { ...noted(UPDATE), ...noted(LAST) };
  });
  for (const list of [[0], [16], [1, 15], [5, 0, 11], Array<number>(16).fill(16), Array<number>(40).fill(16)]) {
    using handle = started();
    const buffers = list.map((length) => bytes(length));
    await handle.streamUpdate(...buffers);
    await handle.streamUpdateLast(...buffers);
    assertEquals((await collect(handle.streamOp())).length, 2 * concat(buffers).length);
  }
  assert(counts.length >= 10 && counts.every((count) => count > 16), `lists of ${counts}`);
  assert(watch.streamCalls.length > counts.length);
});

// ---- F6: whole ops -----------------------------------------------------------------------------------------------

/** What a call does: its result without doing anything, or with `first`, so many bytes of it and no more. */
type Fault = number | { first: number };

const EINTR = -4;

/** FaultyLibrary: the real library, but successive calls of one function have these faults (undefined: none). */
function faultyLibrary(name: StreamCallName, faults: (Fault | undefined)[]): Disposable {
  let idle = 0;
  return interpose((real) => ({
    [name]: (...[handle, list, count]: Parameters<Calls[StreamCallName]>) => {
      const fault = faults.shift();
      if (fault === undefined) return real[name](handle, list, count);
      if (typeof fault === "number") {
        if (++idle > 100) throw new Error(`${name} is called over and over`);
        return fault;
      }
      const entries = entriesAt(list, count);
      assert(fault.first < lengthOf(entries), "no fault: the call is for less");
      const part = arrayOf(entries, fault.first);
      // After a last update that a signal interrupts, another one follows: the kernel clears MSG_MORE at the end
      // (af_alg_sendmsg).
      return real[name === LAST ? UPDATE : name](handle, part.address, count);
    },
  }));
}

/** One stream with a scatter list in both updates, received by gather lists of odd lengths. */
async function streamed(algorithm: string, input: Bytes): Promise<Bytes> {
  using handle = started(algorithm);
  const half = input.length / 2;
  await handle.streamUpdate(...cut(input.subarray(0, half), [100, 1, 999]));
  const output: Bytes[] = [];
  const take = async (...lengths: number[]) => {
    const list = lengths.map((length) => new Uint8Array(length));
    const received = await handle.streamOpInto(...list);
    output.push(concat(list).subarray(0, received));
    return received;
  };
  await take(70, 1, 1_001);
  await handle.streamUpdateLast(...cut(input.subarray(half), [33, 500]));
  while (await take(777, 1, 3_000) > 0);
  return concat(output);
}

for (
  const [name, what, faults] of [
    [UPDATE, "EINTR", [EINTR]],
    [UPDATE, "EINTR three times", [EINTR, EINTR, EINTR]],
    [UPDATE, "a count in the midst of an entry", [{ first: 50 }]],
    [UPDATE, "a count between two entries", [{ first: 100 }]],
    [UPDATE, "a count of 1, EINTR, and counts again", [{ first: 1 }, EINTR, { first: 100 }, { first: 999 }, EINTR]],
    [LAST, "EINTR", [EINTR]],
    [LAST, "a short count", [{ first: 34 }]],
    [LAST, "a short count, EINTR, and a count of all but 1", [{ first: 33 }, EINTR, { first: 2_000 }]],
    [OP, "EINTR", [EINTR]],
    [OP, "EINTR three times", [EINTR, EINTR, EINTR]],
    [OP, "a short count", [{ first: 64 }]],
    [OP, "a short count in the next entry, and EINTR", [{ first: 80 }, EINTR]],
    [OP, "short counts over and over", [{ first: 16 }, { first: 16 }, { first: 80 }, EINTR, { first: 16 }]],
  ] as const
) {
  watchedOnKernel(`F6 ${name} interrupted by ${what} is continued, and gives the right bytes`, async () => {
    const input = bytes(5_024);
    for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
      const left = [...faults];
      using _ = faultyLibrary(name, left);
      assertEquals(await streamed(algorithm, input), expected(input, algorithm));
      assertEquals(left, [], "a fault did not happen");
    }
  });
}

for (
  const [name, faults] of [
    [UPDATE, [EINTR, { first: 50 }]],
    [UPDATE, [{ first: 5_000 }, { first: 4_096 }]],
    [OP, [{ first: 64 }, EINTR]],
  ] as const
) {
  watchedOnKernel(
    `F6 ${name} interrupted with output in place is continued, and gives the right bytes`,
    async () => {
      const input = bytes(64 * 1024);
      for (const size of [input.length, 4_096]) { // a chunk of its own, and gathered ones that take two ops
        const left = [...faults];
        using _ = faultyLibrary(name, left);
        const stream = new EncryptionStream("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine, inPlace: true });
        const output = await collect(streamOf(cut(input.slice(), [size])).pipeThrough(stream));
        assertEquals(output, expected(input), `chunks of ${size} bytes`);
        assertEquals(left, [], "a fault did not happen");
      }
    },
  );
}

for (const inPlace of [true, false]) {
  const where = inPlace ? "in place" : "in new memory";
  watched(
    `chunks of whole blocks give the right bytes ${where}, alone, gathered, and in lists for one op or several`,
    async () => {
      const input = bytes(64 * 1024);
      for (const size of [256, 4_096, 8_192, 16_384, 65_536]) {
        const stream = new EncryptionStream("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine, inPlace });
        assertEquals(
          await collect(streamOf(cut(input.slice(), [size])).pipeThrough(stream)),
          expected(input),
          `${size}`,
        );
      }
    },
  );

  for (const name of [UPDATE, OP] as const) {
    watchedOnKernel(`F6 ${name} that fails on a chunk ${where} fails the stream, and releases its cipher`, async () => {
      const files = openFiles();
      using _ = faultyLibrary(name, [-12]);
      const stream = new EncryptionStream("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine, inPlace });
      const error = await caught(collect(streamOf([bytes(65_536)]).pipeThrough(stream)));
      assertInstanceOf(error, KcapiError);
      assertEquals([error.code, error.operation], ["ENOMEM", name]);
      assertEquals(openFiles(), files);
    });
  }
}

for (
  const [name, fault, code] of [
    [UPDATE, 0, "EIO"],
    [UPDATE, -12, "ENOMEM"],
    [UPDATE, -14, "EFAULT"],
    [LAST, 0, "EIO"],
    [LAST, -22, "EINVAL"],
    [OP, 0, "EIO"],
    [OP, -12, "ENOMEM"],
    [OP, -74, "EBADMSG"],
    [OP, -1_000, "E1000"],
  ] as const
) {
  watchedOnKernel(`F6 ${name} that returns ${fault} fails the stream and all pending calls with ${code}`, async () => {
    const handle = started();
    using _ = { [Symbol.dispose]: () => handle.close() };
    await handle.streamUpdate(bytes(WINDOW));
    const waiting = [caught(handle.streamUpdate(bytes(100))), caught(handle.streamUpdateLast())];
    // A handle keeps the calls it was opened with: this one is opened among the faults.
    using _library = faultyLibrary(name, Array<Fault>(1_000).fill(fault));
    using faulty = started();
    const first = name === OP
      ? await provoked(faulty)
      : await caught(faulty[name === UPDATE ? "streamUpdate" : "streamUpdateLast"](bytes(64)));
    assertInstanceOf(first, KcapiError);
    assertEquals([first.code, first.operation], [code, name]);
    if (fault < 0) assertEquals(first.errno, -fault);
    assertStrictEquals(await caught(faulty.streamUpdate(bytes(1))), first);
    assertStrictEquals(await caught(faulty.streamUpdateLast()), first);
    assertStrictEquals(await caught(faulty.streamOpInto(bytes(16))), first);
    assertStrictEquals(assertThrows(() => faulty.streamOp()), first);
    assertStrictEquals(assertThrows(() => faulty.streamInitEnc(IV)), first);
    // Others do not suffer.
    const output = await collect(handle.streamOp());
    assertEquals(output, expected(concat([bytes(WINDOW), bytes(100)])));
    assertEquals(await Promise.all(waiting), [undefined, undefined]);
  });
}

/** Fails an op with two updates pending, which fail with it. */
async function provoked(handle: CipherHandle): Promise<unknown> {
  await handle.streamUpdate(bytes(WINDOW));
  const pending = [caught(handle.streamUpdate(bytes(64))), caught(handle.streamUpdateLast())];
  const error = await caught(handle.streamOp().next());
  for (const other of pending) assertStrictEquals(await other, error);
  return error;
}

for (
  const [algorithm, key, iv] of [["chacha20", 32, 16], ["rfc3686(ctr(aes))", 20, 8], ["xts(aes)", 32, 16]] as const
) {
  watchedOnKernel(`F6 a short op of ${algorithm}, which would restart, fails the stream with EIO`, async () => {
    using _ = faultyLibrary(OP, [{ first: 64 }]);
    using handle = CipherHandle.open(algorithm, { key: bytes(key), engine });
    handle.streamInitEnc(bytes(iv));
    await handle.streamUpdateLast(bytes(256));
    const error = await caught(handle.streamOpInto(new Uint8Array(256)));
    assertInstanceOf(error, KcapiError);
    assertEquals([error.code, error.operation], ["EIO", OP]);
    assertStrictEquals(await caught(handle.streamOpInto(new Uint8Array(256))), error);
  }, algorithm);
}

// ---- F7: no freed memory -----------------------------------------------------------------------------------------

/** What runs between two moments at which a handle or a stream may be closed; gives what closes it. */
const USES: Record<string, () => () => unknown> = {
  "a handle": () => {
    const handle = started();
    caught(handle.streamUpdate(bytes(2 * WINDOW)));
    caught(handle.streamUpdateLast(bytes(16)));
    caught(collect(handle.streamOp({ maxBytes: 50_000 })));
    return () => handle.close();
  },
  "a handle with streamOpInto() waiting": () => {
    const handle = started();
    caught((async () => {
      while (await handle.streamOpInto(new Uint8Array(70_000)) > 0);
    })());
    caught(handle.streamUpdate(bytes(2 * WINDOW)));
    return () => handle.close();
  },
  "a handle and its reinit()": () => {
    const handle = started();
    const other = handle.reinit();
    other.streamInitEnc(IV);
    for (const each of [other, handle]) {
      caught(each.streamUpdate(bytes(WINDOW + 100)));
      caught(collect(each.streamOp()));
    }
    return () => (handle.close(), other.close(), handle.close());
  },
  "an EncryptionStream that is cancelled": () => {
    const stream = new EncryptionStream("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine });
    const reader = stream.readable.getReader();
    const writer = stream.writable.getWriter();
    caught(writer.closed);
    caught(writer.write(bytes(2 * WINDOW)));
    caught(reader.read());
    return () => reader.cancel();
  },
  "an EncryptionStream that is aborted": () => {
    const stream = new EncryptionStream("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine });
    const reader = stream.readable.getReader();
    const writer = stream.writable.getWriter();
    for (const end of [reader, writer]) caught(end.closed);
    caught(writer.write(bytes(2 * WINDOW)));
    caught(reader.read());
    return () => writer.abort();
  },
  "encrypt()": () => {
    const output = encrypt("ctr(aes)", { key: keyOf("ctr(aes)"), iv: IV, engine }, cut(bytes(2 * WINDOW), [100_000]));
    for (let i = 0; i < 3; i++) caught(output.next());
    return () => output.return();
  },
};

for (const [what, use] of Object.entries(USES)) {
  watchedOnKernel(`F7 ${what} closed at any moment is destroyed once, and no call follows`, async (watch) => {
    for (let moment = 0; moment < 24; moment++) {
      const close = use();
      for (let i = 0; i < moment; i++) await undefined;
      await close();
      assertEquals(watch.live, 0, `closed after ${moment} microtasks`);
      await turns(2);
      assertEquals(watch.live, 0);
    }
    const count = (call: string) => watch.names.filter((name) => name === call).length;
    const opened = count("kcapi_cipher_init");
    // encrypt() opens its cipher a microtask later, so the first of its moments opens none.
    assert(opened >= (what === "encrypt()" ? 23 : 24), `${opened}`);
    assertEquals(count("kcapi_cipher_destroy"), opened + count("kcapi_handle_reinit"));
  });
}

for (
  const [name, result, code] of [
    ["kcapi_cipher_init", -24, "EMFILE"],
    ["kcapi_cipher_setkey", -22, "EINVAL"],
    ["kcapi_cipher_blocksize", 0, "EPROTONOSUPPORT"],
    ["socket", -1, "EMFILE"],
    ["getsockopt", -1, "ENOPROTOOPT"],
  ] as const
) {
  watchedOnKernel(`F7 open() in which ${name} fails throws ${code}, and leaves no handle`, (watch) => {
    using _ = interpose(() => ({ [name]: () => result }));
    const error = assertThrows(started);
    assertInstanceOf(error, KcapiError);
    assertEquals([error.code, error.operation], [code, name === "kcapi_cipher_blocksize" ? "kcapi_cipher_init" : name]);
    assertEquals(watch.live, 0);
    const count = (each: string) => watch.names.filter((name) => name === each).length;
    assertEquals(count("close"), count("socket"), "a measured socket was left open");
  });
}

watchedOnKernel("F7 reinit() that fails throws and leaves no handle, and the first handle continues", async (watch) => {
  using parent = (() => {
    using _ = interpose(() => ({ kcapi_handle_reinit: () => -24 }));
    return started();
  })();
  const error = assertThrows(() => parent.reinit());
  assertInstanceOf(error, KcapiError);
  assertEquals([error.code, error.errno, error.operation], ["EMFILE", 24, "kcapi_handle_reinit"]);
  assertEquals(watch.live, 1);
  await parent.streamUpdateLast(bytes(100));
  assertEquals(await collect(parent.streamOp()), expected(bytes(100)));
});

test("F7 no function is bound to run in another thread", () => {
  let bound: Deno.ForeignLibraryInterface = {};
  const fakeDeno = {
    dlopen: (_path: string, symbols: Deno.ForeignLibraryInterface) => ({ symbols: bound = symbols, close() {} }),
    permissions: { querySync: () => ({ state: "granted" }) },
    env: { get: () => undefined },
    build: { arch: "x86_64" },
  };
  denoAdapter(fakeDeno as unknown as Parameters<typeof denoAdapter>[0]).open("libkcapi.so.1");
  assert(Object.keys(bound).includes(OP));
  for (const [name, symbol] of Object.entries(bound)) {
    assert(!("nonblocking" in symbol && symbol.nonblocking), `${name} is nonblocking`);
  }
});
