/**
 * Calls every public function with hostile values: their lengths and memory change between reads, or while a promise is
 * pending. Real bytes must give the right output. Other values must throw a TypeError, or the value's own error.
 *
 * The engine may receive only memory of live views, and the kernel only memory that the engine received. Nothing may
 * stay open.
 */
import { Buffer } from "node:buffer";
import { runInNewContext } from "node:vm";
import fc from "fast-check";
import { CipherHandle, decrypt, DecryptionStream, encrypt, EncryptionStream, KcapiError } from "../mod.ts";
import type { Library } from "../ffi/adapter.ts";
import { loadIfGranted } from "../ffi/mod.ts";
import type { Engine } from "../src/engines/engine.ts";
import { EngineStream } from "../src/cipher/engine_stream.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  engine,
  openFiles,
  takes,
  test,
  times,
} from "./support/deps.ts";
import { addressOf, entriesAt, interpose } from "./support/native_calls.ts";
import { type Bytes, bytes, caught, collect, concat, reference, streamOf, turns, WINDOW } from "./support/support.ts";

const KEY = bytes(16, 2);
const IV = bytes(16, 3);
const ALGORITHM = "ctr(aes)";

function expected(input: Uint8Array, { key = KEY, iv = IV }: { key?: Bytes; iv?: Bytes } = {}): Bytes {
  return reference("encrypt", ALGORITHM, { key, iv }, concat([input]));
}

// ---- the watch --------------------------------------------------------------------------------------------------

const typedArray = Object.getPrototypeOf(Uint8Array.prototype);
const trueValue = (view: object, name: string) => Object.getOwnPropertyDescriptor(typedArray, name)!.get!.call(view);

/** Returns the same memory as a plain view. */
function trueView(view: object): Bytes {
  const [buffer, offset, length] = ["buffer", "byteOffset", "byteLength"].map((name) => trueValue(view, name));
  return new Uint8Array(buffer, offset, length);
}

/**
 * Checks all memory that engines and the library receive, until it is disposed. Disposal throws if any memory was
 * wrong.
 */
function watchMemory(): Disposable {
  const violations: string[] = [];
  const rule = (holds: boolean, what: string) => void (holds || violations.push(what));
  let announced: readonly Bytes[] = [];
  const engines = new WeakSet<Engine>();

  function announce<T>(list: readonly Uint8Array[], action: () => T): T {
    for (const view of list) {
      const truth = trueView(view);
      rule(view.length === truth.length, `a list's entry tells ${view.length} bytes, and has ${truth.length}`);
    }
    const before = announced;
    announced = list.map(trueView);
    try {
      return action();
    } finally {
      announced = before;
    }
  }

  function watch(engine: Engine): void {
    if (engines.has(engine)) return;
    engines.add(engine);
    const { update, op, pass } = engine;
    engine.update = (list, last) => announce(list, () => update.call(engine, list, last));
    engine.op = (list) => announce(list, () => op.call(engine, list));
    engine.pass = (bytes, inPlace) => announce([bytes], () => pass.call(engine, bytes, inPlace));
  }

  function checkList(list: number | bigint, count: number | bigint): void {
    const ranges = announced.filter(({ length }) => length > 0)
      .map((view) => ({ from: addressOf(view), to: addressOf(view) + BigInt(view.length) }));
    for (const { base, length } of entriesAt(list, count)) {
      const isInside = ranges.some(({ from, to }) => base >= from && base + BigInt(length) <= to);
      rule(length === 0 || isInside, `the kernel was given ${length} bytes that are in no list`);
    }
  }

  function watchLibrary(library: Library): Disposable {
    const calls = interpose((real) => {
      const checked = <N extends "update" | "update_last" | "op">(name: N) => {
        const call: typeof real.kcapi_cipher_stream_op = real[`kcapi_cipher_stream_${name}`];
        return (...args: Parameters<typeof real.kcapi_cipher_stream_op>) => {
          checkList(args[1], args[2]);
          return call(...args);
        };
      };
      return {
        kcapi_cipher_stream_update: checked("update"),
        kcapi_cipher_stream_update_last: checked("update_last"),
        kcapi_cipher_stream_op: checked("op"),
      };
    });
    const { allocUnsafe } = library;
    // The output memory of pass(). That of take() goes through op().
    library.allocUnsafe = (length) => {
      const memory = allocUnsafe(length);
      if (announced.length > 0) announced = [...announced, memory];
      return memory;
    };
    return {
      [Symbol.dispose]() {
        calls[Symbol.dispose]();
        library.allocUnsafe = allocUnsafe;
      },
    };
  }

  const { start } = EngineStream.prototype;
  EngineStream.prototype.start = function (layout) {
    watch(this.engine);
    start.call(this, layout);
  };
  const library = loadIfGranted();
  const watched = library instanceof KcapiError ? undefined : watchLibrary(library);
  return {
    [Symbol.dispose]() {
      EngineStream.prototype.start = start;
      watched?.[Symbol.dispose]();
      assertEquals(violations, []);
    },
  };
}

// ---- hostile values ---------------------------------------------------------------------------------------------

/** The error that a hostile value throws. */
class HostileError extends Error {}

function refuse(): never {
  throw new HostileError("do not look");
}

/** A value and its real bytes, undefined if it is not a buffer. */
interface Hostile {
  readonly value: unknown;
  readonly truth: Bytes | undefined;
}

const SIZES = ["length", "byteLength", "byteOffset"];
const LIES = [...SIZES, "buffer", "subarray", "slice", "set", "constructor", "every", Symbol.iterator, Symbol.species];

/** Returns `target` with own properties that hide the inherited ones. */
function lying<T extends object>(target: T, value: (name: string | symbol) => PropertyDescriptor): T {
  for (const name of LIES) Object.defineProperty(target, name, { configurable: true, ...value(name) });
  return target;
}

const other = new ArrayBuffer(8);
const lie = (name: string | symbol) => ({
  value: SIZES.includes(name as string) ? 2 ** 40 : name === "buffer" ? other : refuse,
});
const changing = (name: string | symbol) => {
  let looks = 0;
  return { get: () => looks++ === 0 ? 16 : name === "buffer" ? other : 2 ** 31 };
};

class Liar extends Uint8Array<ArrayBuffer> {
  static get [Symbol.species](): never {
    return refuse();
  }
  override get length(): number {
    return 2 ** 31;
  }
  override get byteLength(): number {
    return 2 ** 40;
  }
  override get byteOffset(): number {
    return 8;
  }
  override get buffer(): ArrayBuffer {
    return other;
  }
  override subarray(): never {
    return refuse();
  }
  override slice(): never {
    return refuse();
  }
  override set(): never {
    return refuse();
  }
  override [Symbol.iterator](): never {
    return refuse();
  }
}

class Species extends Uint8Array<ArrayBuffer> {
  static get [Symbol.species](): Uint8ArrayConstructor {
    return function () {
      return new Uint8Array(1);
    } as unknown as Uint8ArrayConstructor;
  }
}

const padded = (data: Bytes) => concat([new Uint8Array(8), data, new Uint8Array(8)]).buffer;
const detached = (data: Bytes) => {
  data.buffer.transfer();
  return data;
};
const resizable = (data: Bytes) => {
  const view = new Uint8Array(new ArrayBuffer(data.length, { maxByteLength: 2 * data.length }));
  view.set(data);
  return view;
};
const revoked = (data: Bytes) => {
  const { proxy, revoke } = Proxy.revocable(data, {});
  revoke();
  return proxy;
};
const throwing = (data: Bytes) =>
  new Proxy(data, { get: refuse, has: refuse, getPrototypeOf: refuse, getOwnPropertyDescriptor: refuse });

/** Creates a value from bytes, which it then owns. */
type Make = (data: Bytes) => unknown;

/** Real buffers with false properties. */
const TRUE_BYTES: Record<string, Make> = {
  "a view of a larger buffer": (data) => new Uint8Array(padded(data), 8, data.length),
  "an ArrayBuffer": (data) => data.buffer,
  "an ArrayBuffer with a byteLength of its own": (data) =>
    Object.defineProperty(data.buffer, "byteLength", { value: 2 ** 40 }),
  "a DataView": (data) => new DataView(padded(data), 8, data.length),
  "a DataView that lies": (data) => lying(new DataView(padded(data), 8, data.length), lie),
  "a Float64Array": (data) => new Float64Array(padded(data), 8, data.length / 8),
  "a Uint16Array that lies": (data) => lying(new Uint16Array(data.buffer), lie),
  "a Buffer": (data) => Buffer.from(data.buffer),
  "a subclass that lies": (data) => new Liar(data.buffer),
  "a subclass of another species": (data) => new Species(data.buffer),
  "own properties that lie": (data) => lying(data, lie),
  "own properties that throw": (data) => lying(data, () => ({ get: refuse })),
  "own properties that change": (data) => lying(data, changing),
  "own properties but no length of its own": (data) => {
    lying(data, lie);
    delete (data as { length?: number }).length;
    return data;
  },
  "a prototype whose length changes": (data) => {
    const { length } = data;
    let looks = 0;
    const prototype = Object.create(Uint8Array.prototype, { length: { get: () => looks++ === 0 ? length : 2 ** 31 } });
    return Object.setPrototypeOf(data, prototype);
  },
  "a Float64Array with a Uint8Array's prototype": (data) =>
    Object.setPrototypeOf(new Float64Array(padded(data), 8, data.length / 8), Uint8Array.prototype),
  "no prototype": (data) => Object.setPrototypeOf(data, null),
  "an Array's prototype": (data) => Object.setPrototypeOf(data, Array.prototype),
  "a DataView's prototype": (data) => Object.setPrototypeOf(data, DataView.prototype),
  "a prototype that throws": (data) => Object.setPrototypeOf(data, new Proxy({}, { get: refuse, has: refuse })),
  "bytes of another realm": (data) => Object.assign(runInNewContext(`new Uint8Array(${data.length})`), data),
};

/** Values that only look like buffers. */
const NO_BYTES: Record<string, Make> = {
  "detached bytes": detached,
  "resizable bytes": resizable,
  "a resizable buffer": (data) => resizable(data).buffer,
  "shared bytes": (data) => new Uint8Array(new SharedArrayBuffer(data.length)),
  "shared memory": (data) => new SharedArrayBuffer(data.length),
  "a proxy": (data) => new Proxy(data, {}),
  "a proxy of a buffer": (data) => new Proxy(data.buffer, {}),
  "a proxy that throws": throwing,
  "a proxy that is revoked": revoked,
  "an empty object with the prototype": () => Object.create(Uint8Array.prototype),
  "an empty object with the buffer's prototype": () => Object.create(ArrayBuffer.prototype),
  "an empty object with the view's prototype": () => Object.create(DataView.prototype),
  "an object that looks like bytes": (data) => ({
    [Symbol.toStringTag]: "Uint8Array",
    ...{ length: data.length, byteLength: data.length, byteOffset: 0, buffer: data.buffer, BYTES_PER_ELEMENT: 1 },
  }),
  "an object that throws": () => lying({}, () => ({ get: refuse })),
  "numbers": (data) => [...data],
  "a string": (data) => "x".repeat(data.length),
  "a number": (data) => data.length,
  "a bigint": () => 2n ** 64n,
  "a symbol": () => Symbol("bytes"),
  "a function": () => refuse,
  "null": () => null,
  "undefined": () => undefined,
};

function hostile(name: string, size: number, seed: number): Hostile {
  const data = bytes(size, seed);
  const make = TRUE_BYTES[name];
  return make ? { value: make(data), truth: bytes(size, seed) } : { value: NO_BYTES[name]!(data), truth: undefined };
}

// ---- entries ----------------------------------------------------------------------------------------------------

interface Entry {
  readonly sizes: readonly number[];
  /** Runs with the value, and returns the output. */
  run(value: BufferSource): Promise<Uint8Array>;
  /** Returns the expected output for these bytes. */
  expected?(truth: Bytes): Bytes;
}

const DATA = bytes(100, 5);
const options = { key: KEY, iv: IV, engine } as const;
const keySizes = [16];
const chunkSizes = [16, 40, 20_000]; // Smaller and larger than the gather limit.
const fromKey = (key: Bytes) => expected(DATA, { key });
const fromIV = (iv: Bytes) => expected(DATA, { iv });

async function throughHandle(handle: CipherHandle, ...list: BufferSource[]): Promise<Bytes> {
  await handle.streamUpdateLast(...list);
  return await collect(handle.streamOp());
}

async function onHandle(run: (handle: CipherHandle) => Promise<Uint8Array>): Promise<Uint8Array> {
  using handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
  return await run(handle);
}

async function throughStream(stream: EncryptionStream | DecryptionStream, chunk: unknown): Promise<Bytes> {
  return await collect(streamOf([chunk as Bytes]).pipeThrough(stream));
}

const ENTRIES: Record<string, Entry> = {
  "CipherHandle.open()'s key": {
    sizes: keySizes,
    expected: fromKey,
    async run(key) {
      using handle = CipherHandle.open(ALGORITHM, { key, engine });
      handle.streamInitEnc(IV);
      return await throughHandle(handle, DATA);
    },
  },
  "streamInitEnc()'s IV": {
    sizes: keySizes,
    expected: fromIV,
    run: (iv) =>
      onHandle((handle) => {
        handle.streamInitEnc(iv);
        return throughHandle(handle, DATA);
      }),
  },
  "streamInitDec()'s IV": {
    sizes: keySizes,
    expected: fromIV,
    run: (iv) =>
      onHandle((handle) => {
        handle.streamInitDec(iv);
        return throughHandle(handle, DATA);
      }),
  },
  "streamUpdate()": {
    sizes: chunkSizes,
    run: (value) =>
      onHandle(async (handle) => {
        handle.streamInitEnc(IV);
        await handle.streamUpdate(value);
        return await throughHandle(handle);
      }),
  },
  "streamUpdateLast() in a list": {
    sizes: chunkSizes,
    expected: (truth) => expected(concat([DATA, truth, DATA])),
    run: (value) =>
      onHandle((handle) => {
        handle.streamInitEnc(IV);
        return throughHandle(handle, DATA, value, DATA);
      }),
  },
  "streamOpInto()": {
    sizes: chunkSizes,
    expected: ({ length }) => expected(bytes(length, 6)),
    run: (value) =>
      onHandle(async (handle) => {
        handle.streamInitEnc(IV);
        const length = isBytes(value) ? memoryOf(value).length : 16;
        await handle.streamUpdateLast(bytes(length, 6));
        assertEquals(await handle.streamOpInto(value), length);
        return memoryOf(value);
      }),
  },
  "EncryptionStream's key": {
    sizes: keySizes,
    expected: fromKey,
    run: (key) => throughStream(new EncryptionStream(ALGORITHM, { ...options, key }), DATA),
  },
  "DecryptionStream's IV": {
    sizes: keySizes,
    expected: fromIV,
    run: (iv) => throughStream(new DecryptionStream(ALGORITHM, { ...options, iv }), DATA),
  },
  "EncryptionStream's chunk": {
    sizes: chunkSizes,
    run: (chunk) => throughStream(new EncryptionStream(ALGORITHM, options), chunk),
  },
  "EncryptionStream's chunk in place": {
    sizes: chunkSizes,
    run: (chunk) => throughStream(new EncryptionStream(ALGORITHM, { ...options, inPlace: true }), chunk),
  },
  "DecryptionStream's chunk": {
    sizes: chunkSizes,
    run: (chunk) => throughStream(new DecryptionStream(ALGORITHM, options), chunk),
  },
  "encrypt()'s key": {
    sizes: keySizes,
    expected: fromKey,
    run: async (key) => await collect(encrypt(ALGORITHM, { ...options, key }, DATA)),
  },
  "decrypt()'s IV": {
    sizes: keySizes,
    expected: fromIV,
    run: async (iv) => await collect(decrypt(ALGORITHM, { ...options, iv }, DATA)),
  },
  "encrypt()'s source": {
    sizes: chunkSizes,
    run: async (source) => await collect(encrypt(ALGORITHM, options, source)),
  },
  "what encrypt()'s source gives": {
    sizes: chunkSizes,
    expected: (truth) => expected(concat([truth, DATA])),
    run: async (value) => await collect(encrypt(ALGORITHM, options, [value, DATA])),
  },
};

const slot = (prototype: object, name: string, value: unknown) =>
  Object.getOwnPropertyDescriptor(prototype, name)!.get!.call(value);
const isTyped = (value: unknown) => slot(typedArray, Symbol.toStringTag as unknown as string, value) !== undefined;

function isBytes(value: unknown): boolean {
  try {
    memoryOf(value);
    return true;
  } catch {
    return false;
  }
}

/** Returns the real memory of a buffer, by the intrinsic getters. */
function memoryOf(value: unknown): Bytes {
  if (isTyped(value)) return trueView(value as object);
  const [buffer, offset, length] = ArrayBuffer.isView(value)
    ? ["buffer", "byteOffset", "byteLength"].map((name) => slot(DataView.prototype, name, value))
    : [value as ArrayBuffer];
  return new Uint8Array(buffer, offset, length);
}

for (const [name, { sizes, run, expected: wanted = expected }] of Object.entries(ENTRIES)) {
  test(`${name}: real buffers give the right bytes, other values a TypeError`, async () => {
    const files = openFiles();
    using _ = watchMemory();
    for (const [i, kind] of [...Object.keys(TRUE_BYTES), ...Object.keys(NO_BYTES)].entries()) {
      if (!takes(i)) continue;
      for (const size of sizes) {
        const what = `${kind} (${size} bytes)`;
        const { value, truth } = hostile(kind, size, 4);
        let output: Uint8Array | undefined, error: unknown;
        try {
          output = await run(value as BufferSource);
        } catch (caught) {
          error = caught;
        }
        if (truth) {
          assert(output, `${what} failed: ${error}`);
          assertEquals(trueView(output), wanted(truth), what);
        } else {
          assert(error instanceof TypeError || error instanceof HostileError, `${what}: ${error ?? "no error"}`);
        }
        assertEquals(openFiles(), files, what);
      }
    }
  });
}

// ---- options ----------------------------------------------------------------------------------------------------

/** All functions that take options. Each runs to its end. */
const WITH_OPTIONS: Record<string, (options: never) => Promise<Uint8Array>> = {
  "CipherHandle.open()": async (options) => {
    using handle = CipherHandle.open(ALGORITHM, options);
    handle.streamInitEnc(IV);
    return await throughHandle(handle, DATA);
  },
  "EncryptionStream": (options) => throughStream(new EncryptionStream(ALGORITHM, options), DATA),
  "DecryptionStream": (options) => throughStream(new DecryptionStream(ALGORITHM, options), DATA),
  "encrypt()": async (options) => await collect(encrypt(ALGORITHM, options, DATA)),
  "decrypt()": async (options) => await collect(decrypt(ALGORITHM, options, DATA)),
  "streamOp()": (options) =>
    onHandle(async (handle) => {
      handle.streamInitEnc(IV);
      await handle.streamUpdateLast(DATA);
      return await collect(handle.streamOp(options));
    }),
};

const TRUE_OPTIONS: Record<string, unknown> = {
  ...options,
  ...{ padding: "none", inPlace: false, maxBytes: 64 },
  ...{ signal: new AbortController().signal, sectorSize: undefined, sector: undefined },
};

/** The known options of each function. It refuses others. */
function namesOf(way: string): string[] {
  if (way === "CipherHandle.open()") return ["key", "engine"];
  if (way === "streamOp()") return ["maxBytes", "signal"];
  return Object.keys(TRUE_OPTIONS).filter((name) => name !== "maxBytes");
}

/** Options whose getters return `answer`, called with the number of earlier reads. */
function asked(way: string, answer: (name: string, look: number) => unknown): { options: never; looks: () => number } {
  let look = 0;
  const options = {};
  for (const name of namesOf(way)) {
    Object.defineProperty(options, name, { enumerable: true, get: () => answer(name, look++) });
  }
  return { options: options as never, looks: () => look };
}

for (const [way, run] of Object.entries(WITH_OPTIONS)) {
  test(`${way}: an error of an option's getter at any read propagates, and nothing stays open`, async () => {
    const files = openFiles();
    using _ = watchMemory();
    const well = asked(way, (name) => TRUE_OPTIONS[name]);
    assertEquals(await run(well.options), expected(DATA));
    assert(well.looks() > 0);
    for (let last = 0; last < well.looks(); last++) {
      const { options } = asked(way, (name, look) => look === last ? refuse() : TRUE_OPTIONS[name]);
      assertInstanceOf(await caught(inTurn(() => run(options))), HostileError, `look ${last}`);
      assertEquals(openFiles(), files);
    }
  });

  test(`${way}: options that change between reads give the right bytes or an error`, async () => {
    const files = openFiles();
    using _ = watchMemory();
    const wrong = [
      undefined,
      null,
      7,
      "x",
      bytes(5),
      detached(bytes(16)),
      new Liar(new ArrayBuffer(16)),
      2 ** 53,
      {},
      Symbol("option"),
    ];
    const seen = new Set<string>();
    for (const [index, value] of wrong.entries()) {
      for (let from = 0; from < 12; from++) {
        if (!takes(index + from)) continue;
        const { options } = asked(way, (name, look) => look < from ? TRUE_OPTIONS[name] : value);
        // Both orders: false values after correct ones, and correct values after false ones.
        const { options: reverse } = asked(way, (name, look) => look < from ? value : TRUE_OPTIONS[name]);
        for (const each of [options, reverse]) {
          // If the engine or the key was false, the output cannot be compared.
          const error = await caught(inTurn(() => run(each)));
          const isKnown = [TypeError, RangeError, KcapiError].some((type) => error instanceof type);
          assert(error === undefined || isKnown, `answer ${index} from look ${from} on: ${error}`);
          seen.add(error === undefined ? "right" : "refused");
          assertEquals(openFiles(), files);
        }
      }
    }
    assertEquals([...seen].sort(), ["refused", "right"]);
  });
}

/** Converts exceptions to rejections. */
async function inTurn<T>(run: () => Promise<T>): Promise<T> {
  return await run();
}

const SIGNALS: Record<string, () => unknown> = {
  "an object with the prototype": () => Object.create(AbortSignal.prototype),
  "a proxy": () => new Proxy(new AbortController().signal, {}),
  "a proxy that throws": () => new Proxy(new AbortController().signal, { get: refuse }),
  "one whose properties throw": () => {
    const { signal } = new AbortController();
    for (const name of ["aborted", "reason", "addEventListener", "removeEventListener", "throwIfAborted"]) {
      Object.defineProperty(signal, name, { get: refuse });
    }
    return signal;
  },
  "one that cannot be listened to": () =>
    Object.defineProperty(new AbortController().signal, "addEventListener", { value: refuse }),
  "one that cannot be left": () =>
    Object.defineProperty(new AbortController().signal, "removeEventListener", { value: refuse }),
};

for (const [kind, signal] of Object.entries(SIGNALS)) {
  test(`a value that is not a signal (${kind}) gives the right bytes or an error, and leaves nothing open`, async () => {
    const files = openFiles();
    for (const [name, run] of Object.entries(WITH_OPTIONS)) {
      if (name === "CipherHandle.open()") continue;
      const base = name === "streamOp()" ? {} : options;
      let output: Uint8Array | undefined, error: unknown;
      try {
        output = await run({ ...base, signal: signal() } as never);
      } catch (caught) {
        error = caught;
      }
      if (output) assertEquals(output, expected(DATA), name);
      else assert(error instanceof TypeError || error instanceof HostileError, `${name}: ${error}`);
      assertEquals(openFiles(), files, name);
    }
  });
}

test("proxies work as options, lists and sources", async () => {
  const proxy = <T extends object>(target: T) => new Proxy(target, {});
  assertEquals(await collect(encrypt(ALGORITHM, proxy({ ...options }), proxy([DATA]))), expected(DATA));
  const hostileSource = { [Symbol.asyncIterator]: refuse };
  const files = openFiles();
  await assertRejects(() => collect(encrypt(ALGORITHM, options, hostileSource)), HostileError);
  for (const result of [null, 7, undefined, "done"]) {
    const source = { [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve(result as never) }) };
    await assertRejects(() => collect(encrypt(ALGORITHM, options, source)), TypeError);
  }
  const throwingResult = {
    get done(): boolean {
      return refuse();
    },
    value: DATA,
  };
  const source = { [Symbol.asyncIterator]: () => ({ next: () => Promise.resolve(throwingResult) }) };
  await assertRejects(() => collect(encrypt(ALGORITHM, options, source)), HostileError);
  assertEquals(openFiles(), files);
});

/** Bytes that run code when their length is read. */
function acting(size: number, act: () => unknown): Bytes {
  return Object.defineProperty(bytes(size), "length", { get: () => (act(), size) });
}

test("bytes that close the handle when they are read cause EBADF, and nothing is sent or received", async () => {
  const files = openFiles();
  const calls: Record<string, (handle: CipherHandle, size: number) => Promise<number>> = {
    streamUpdate: (handle, size) => handle.streamUpdate(bytes(3), acting(size, () => handle.close())),
    streamUpdateLast: (handle, size) => handle.streamUpdateLast(acting(size, () => handle.close())),
    streamOpInto: (handle, size) => handle.streamOpInto(acting(size, () => handle.close())),
  };
  for (const [name, call] of Object.entries(calls)) {
    for (const size of [16, 32, 4096]) {
      const handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
      handle.streamInitEnc(IV);
      if (name === "streamOpInto") await handle.streamUpdate(DATA);
      const error = await assertRejects(() => call(handle, size), KcapiError);
      assertEquals([error.code, error.operation], ["EBADF", name]);
    }
  }
  assertEquals(openFiles(), files);
});

test("bytes that send the last update when they are read cause EINVAL, and the other output is right", async () => {
  using handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
  handle.streamInitEnc(IV);
  const late = () => handle.streamUpdate(acting(32, () => handle.streamUpdateLast(DATA)));
  assertEquals((await assertRejects(late, KcapiError)).code, "EINVAL");
  assertEquals(await collect(handle.streamOp()), expected(DATA));
});

test("a chunk that aborts its stream when it is read is refused with the abort reason", async () => {
  const files = openFiles();
  const key = bytes(64, 4);
  for (const algorithm of ["ctr(aes)", "xts(aes)"]) {
    for (const size of [16, 20_000, 300_000]) {
      const abort = new AbortController();
      const { signal } = abort;
      const stream = new EncryptionStream(algorithm, {
        key: algorithm === "xts(aes)" ? key : KEY,
        iv: IV,
        engine,
        signal,
      });
      const read = caught(stream.readable.getReader().read());
      const write = caught(stream.writable.getWriter().write(acting(size, () => abort.abort("the reason"))));
      assertEquals(await Promise.all([write, read]), ["the reason", "the reason"], `${algorithm}, ${size} bytes`);
    }
  }
  assertEquals(openFiles(), files);
});

// ---- memory that is lost while a call waits ---------------------------------------------------------------------

/** Ways to lose the memory of a buffer after it was checked. */
const LOSSES: Record<string, (size: number) => { data: Bytes; lose: () => void }> = {
  "transferred": (size) => {
    const data = bytes(size, 8);
    return { data, lose: () => void data.buffer.transfer() };
  },
  "transferred to another size": (size) => {
    const data = bytes(size, 8);
    return { data, lose: () => void data.buffer.transfer(2 * size) };
  },
  "sent to another thread": (size) => {
    const data = bytes(size, 8);
    return { data, lose: () => void structuredClone(data, { transfer: [data.buffer] }) };
  },
  "grown WebAssembly memory": (size) => {
    const memory = new WebAssembly.Memory({ initial: Math.ceil(size / 65_536), maximum: 100 });
    const data = new Uint8Array(memory.buffer as ArrayBuffer, 0, size);
    data.set(bytes(size, 8));
    return { data, lose: () => void memory.grow(1) };
  },
};

for (const [loss, make] of Object.entries(LOSSES)) {
  test(`memory lost while a call waits (${loss}) rejects that call with a TypeError, at any turn, or was used completely`, async () => {
    const files = openFiles();
    using _ = watchMemory();
    const size = 3 * WINDOW + 5;
    const outcomes = new Set<string>();
    const consumers: Record<string, (data: Bytes) => AsyncIterable<Uint8Array>> = {
      "streamUpdate()": (data) => {
        const handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
        handle.streamInitEnc(IV);
        const sent = handle.streamUpdateLast(data);
        return closing(handle.streamOp({ maxBytes: 65_536 }), sent, () => handle.close());
      },
      "EncryptionStream": (data) => streamOf([data]).pipeThrough(new EncryptionStream(ALGORITHM, options)),
      "EncryptionStream in place": (data) =>
        streamOf([data]).pipeThrough(new EncryptionStream(ALGORITHM, { ...options, inPlace: true })),
      "encrypt()": (data) => encrypt(ALGORITHM, options, data),
    };
    for (const [name, consume] of Object.entries(consumers)) {
      for (let when = 0; when < 8; when++) {
        if (!takes(when)) continue;
        const { data, lose } = make(size);
        const wanted = expected(data);
        const received: Bytes[] = [];
        const error = await caught((async () => {
          if (when === 0) void Promise.resolve().then(lose);
          let count = 0;
          for await (const chunk of consume(data)) {
            // With inPlace, the output is in the lost memory.
            received.push(chunk.slice());
            if (++count === when) lose();
          }
        })());
        const what = `${name}, lost after ${when} chunks`;
        const output = concat(received);
        assertEquals(output, wanted.subarray(0, output.length), what);
        assert(error ? error instanceof TypeError : output.length === size, `${what}: ${error}`);
        outcomes.add(error ? "refused" : "whole");
        assertEquals(openFiles(), files, what);
      }
    }
    assertEquals([...outcomes].sort(), ["refused", "whole"]);
  });
}

/** The iterable, then the result of the sender. */
async function* closing(
  source: AsyncIterable<Bytes>,
  sent: Promise<unknown>,
  close: () => void,
): AsyncGenerator<Bytes> {
  sent.catch(() => {});
  try {
    yield* source;
    await sent;
  } finally {
    close();
  }
}

test("random lists of hostile values, lost at random turns, give right bytes or a TypeError, and nothing stays open", async () => {
  const files = openFiles();
  // Not these, because they cannot have an odd number of bytes.
  const kinds = Object.keys(TRUE_BYTES).filter((name) => !/Float64Array|Uint16Array/.test(name));
  const list = fc.array(fc.tuple(fc.constantFrom(...kinds), fc.oneof(fc.nat(70), fc.nat(60_000))), { maxLength: 20 });
  const loss = fc.option(fc.record({ index: fc.nat(19), turn: fc.nat(6) }));
  await fc.assert(
    fc.asyncProperty(list, loss, fc.nat(1_000), async (list, loss, room) => {
      using _ = watchMemory();
      using handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
      handle.streamInitEnc(IV);
      const values = list.map(([kind, size], i) => hostile(kind, size, i));
      const wanted = expected(concat(values.map(({ truth }) => truth!)));
      const sent = caught(handle.streamUpdateLast(...values.map(({ value }) => value as Bytes)));
      const lost = values[loss?.index ?? -1]?.value;
      const losing = turns(loss?.turn).then(() => lost && structuredClone(0, { transfer: [memoryOf(lost).buffer] }));
      const into = new Liar(new ArrayBuffer(100 + room));
      const received: Bytes[] = [];
      const failed = await caught((async () => {
        for (let length; (length = await handle.streamOpInto(into)) > 0;) {
          received.push(trueView(into).slice(0, length));
          await turns();
        }
      })());
      await losing;
      const output = concat(received);
      assertEquals(output, wanted.subarray(0, output.length));
      assertEquals(await sent, failed);
      assert(failed ? failed instanceof TypeError : output.length === wanted.length, String(failed));
    }),
    { numRuns: times(15, 30) },
  );
  assertEquals(openFiles(), files);
});

// ---- huge lengths -----------------------------------------------------------------------------------------------

/** The largest of these buffers that this runtime allocates. A 32-bit count cannot hold its length. */
function hugeBytes(): Bytes | undefined {
  for (const size of [2 ** 32 + 16, 2 ** 31 + 16]) {
    try {
      return new Uint8Array(size);
    } catch {
      continue;
    }
  }
  return undefined;
}

test("buffers of more than 4 GiB: an update sends what fits and waits, an op returns the available output", {
  needs: { "an allocation of 4 GiB, of zero pages": hugeBytes() !== undefined },
}, async () => {
  const huge = hugeBytes()!;
  using _ = watchMemory();
  const handle = CipherHandle.open(ALGORITHM, { key: KEY, engine });
  handle.streamInitEnc(IV);
  const sent = caught(handle.streamUpdate(huge));
  const first = new Uint8Array(1_000 * 16);
  assertEquals(await handle.streamOpInto(first), first.length);
  assertEquals(first, expected(new Uint8Array(first.length)));
  handle.close();
  assertEquals((await sent as KcapiError).code, "ECANCELED");

  using receiver = CipherHandle.open(ALGORITHM, { key: KEY, engine });
  receiver.streamInitEnc(IV);
  await receiver.streamUpdateLast(DATA);
  assertEquals(await receiver.streamOpInto(huge), DATA.length);
  assertEquals(huge.slice(0, DATA.length), expected(DATA));
  await assertRejects(() => receiver.streamOpInto(huge, huge.subarray(-1)), RangeError);
});
