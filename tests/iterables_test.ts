/**
 * encrypt() and decrypt(): every kind of source, and every way to end an iteration.
 */
import { Buffer } from "node:buffer";
import { clearImmediate, setImmediate } from "node:timers";
import { runInNewContext } from "node:vm";
import {
  type ByteSource,
  type CipherIterable,
  type CipherStreamOptions,
  decrypt,
  encrypt,
  KcapiError,
} from "../mod.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
  engine,
  openFiles,
} from "./support/deps.ts";
import { contractOf } from "./support/pool.ts";
import {
  type Bytes,
  bytes,
  collect,
  collectGarbage,
  concat,
  cut,
  reference,
  streamOf,
  WINDOW,
} from "./support/support.ts";

const { test, pool, turns, outcomes, assertReleased } = await contractOf(import.meta.url);

const KEY = bytes(32, 201);
const IV = bytes(16, 202);

/** A cipher without padding, which outputs each full block at once. */
function ctr(source: ByteSource, options: Partial<CipherStreamOptions> = {}): CipherIterable {
  return encrypt("ctr(aes)", { key: KEY, iv: IV, engine, pool, ...options }, source);
}

const ctrOf = (input: Bytes) => reference("encrypt", "ctr(aes)", { key: KEY, iv: IV }, input);

/** The size of chunks that are not buffered: the next chunk is pulled after the output of this one has been read. */
const LARGE = 16_384;

const rejected = (reason: unknown) => ({ state: "rejected" as const, reason });
const end = { done: true as const, value: undefined };
const ended = { state: "fulfilled" as const, value: end };

// ---- Sources ----------------------------------------------------------------------------------------------------

async function* slowly<T>(chunks: Iterable<T>): AsyncGenerator<T> {
  for (const chunk of chunks) {
    await turns(1);
    yield chunk;
  }
}

/** Every kind of source. Each yields `input`. */
const SOURCES: Record<string, (input: Bytes) => ByteSource> = {
  "a Uint8Array": (input) => input,
  "a view into a larger buffer": (input) => concat([bytes(3), input, bytes(7)]).subarray(3, 3 + input.length),
  "a Buffer": (input) => Buffer.from(input),
  "a Uint16Array": (input) => new Uint16Array(input.buffer),
  "a DataView": (input) => new DataView(input.buffer),
  "an ArrayBuffer": (input) => input.buffer,
  "an array": (input) => [...cut(input, [100, 1, 16])],
  "an array of ArrayBuffers": (input) => [input.slice(0, 5).buffer, input.slice(5).buffer],
  "a Set": (input) => new Set(cut(input, [333])),
  "a generator": (input) => cut(input, [17]),
  "an async generator": (input) => slowly(cut(input, [170])),
  "a ReadableStream": (input) => streamOf(cut(input, [99])),
  "a byte stream": (input) => new Blob([input]).stream(),
  "an iterator without return()": (input) => {
    const chunks = cut(input, [64]);
    return { [Symbol.iterator]: () => ({ next: () => chunks.next() }) };
  },
  "another encrypt()": (input) => ctr(decrypt("ctr(aes)", { key: KEY, iv: IV, engine, pool }, input)),
};

for (const [what, make] of Object.entries(SOURCES)) {
  test(`the source is ${what}: it is encrypted and decrypted`, async () => {
    const options = { key: KEY, iv: IV, engine, pool };
    const plaintext = bytes(1008);
    const ciphertext = reference("encrypt", "cbc(aes)", { ...options, padding: "pkcs7" }, plaintext);
    assertEquals(await collect(encrypt("cbc(aes)", options, make(plaintext.slice()))), ciphertext);
    assertEquals(await collect(decrypt("cbc(aes)", options, make(ciphertext.slice()))), plaintext);
  });
}

for (
  const [what, source] of Object.entries({
    "no chunks": [],
    "an empty chunk": [new Uint8Array(0)],
    "empty bytes": new Uint8Array(0),
  })
) {
  test(`${what} give no output, or a block of padding`, async () => {
    assertEquals(await collect(ctr(source)), new Uint8Array(0));
    const options = { key: KEY, engine, pool };
    const padded = await collect(encrypt("ecb(aes)", options, source));
    assertEquals(padded, reference("encrypt", "ecb(aes)", { ...options, padding: "pkcs7" }, new Uint8Array(0)));
    assertEquals(await collect(decrypt("ecb(aes)", options, padded)), new Uint8Array(0));
  });
}

test("an ArrayBuffer of another realm is encrypted", async () => {
  const foreign = runInNewContext("new Uint8Array([1, 2, 3, 4, 5]).buffer") as ArrayBuffer;
  assertEquals(await collect(ctr(foreign)), ctrOf(Uint8Array.of(1, 2, 3, 4, 5)));
  assertEquals(await collect(ctr([foreign, foreign.slice(2)])), ctrOf(Uint8Array.of(1, 2, 3, 4, 5, 3, 4, 5)));
  const shared = runInNewContext("new SharedArrayBuffer(5)") as ArrayBuffer;
  assertStringIncludes(assertThrows(() => ctr(shared), TypeError).message, "shared memory");
});

/** The chunks as a stream. If it `stays`, it neither closes nor outputs after them. */
function streams(type: "bytes" | undefined) {
  return (chunks: Iterable<Bytes>, stays = false): ReadableStream<Bytes> => {
    const iterator = chunks[Symbol.iterator]();
    const source = {
      type,
      pull(controller: ReadableStreamDefaultController<Bytes> | ReadableByteStreamController) {
        const { done, value } = iterator.next();
        if (!done) return (controller as ReadableStreamDefaultController<Bytes>).enqueue(value.slice());
        return stays ? new Promise<void>(() => {}) : controller.close();
      },
    };
    return new ReadableStream<Bytes>(source as UnderlyingDefaultSource<Bytes>, { highWaterMark: 0 });
  };
}

for (const [what, make] of Object.entries({ "a stream": streams(undefined), "a byte stream": streams("bytes") })) {
  test(`${what} is unlocked at its end, at its error, after break, and after return() while next() waits`, async () => {
    const ended = make([bytes(100)]);
    await collect(ctr(ended));
    assert(!ended.locked);

    const broken = make([bytes(100), bytes(100)]);
    for await (const _ of ctr(broken)) break;
    assert(!broken.locked);

    const failed = make((function* () {
      yield bytes(100);
      throw failure;
    })());
    await assertRejects(() => collect(ctr(failed)));
    assert(!failed.locked);

    const silent = make([bytes(100)], true);
    const iterable = ctr(silent);
    await iterable.next();
    const next = iterable.next();
    await turns(2);
    assertEquals(
      (await outcomes(iterable.return(), next)) as unknown[],
      [end, end].map((value) => ({ state: "fulfilled", value })),
    );
    assert(!silent.locked);
  });
}

test("the output has chunks of at most a window", async () => {
  const UNIT = 1 << 20;
  const windows = (count: number) => Array<number>(count).fill(WINDOW);
  const input = bytes(UNIT + 3 * WINDOW + 5);
  const pieces = await Array.fromAsync(ctr(input));
  assertEquals(concat(pieces), ctrOf(input));
  // With a pool, of each batch.
  const expected = pool ? [...windows(4), UNIT % WINDOW, ...windows(3), 5] : [...windows(7), UNIT % WINDOW, 5];
  assertEquals(pieces.map(({ length }) => length), expected);
});

test("inPlace outputs in the memory of the source", {
  needs: { "one thread: a pool moves memory to a Worker": !pool },
}, async () => {
  const chunk = bytes(4096);
  const [piece] = await Array.fromAsync(ctr([chunk], { inPlace: true }));
  assertStrictEquals(piece!.buffer, chunk.buffer);
  assertEquals(chunk, ctrOf(bytes(4096)));
});

for (
  const [what, source] of Object.entries({
    "a string": "text",
    "null": null,
    "undefined": undefined,
    "a number": 4,
    "an object": {},
  })
) {
  test(`a source that is ${what} is a TypeError of the call`, () => {
    assertThrows(() => ctr(source as unknown as Bytes), TypeError, '"source"');
  });
}

test("a locked ReadableStream is a TypeError of the call", () => {
  const locked = streamOf([bytes(1)]);
  locked.getReader();
  assertThrows(() => ctr(locked), TypeError, "locked");
});

for (const value of ["text", 7, null, [1, 2], new Uint8Array(new SharedArrayBuffer(4))]) {
  test(`a source that yields ${typeof value} ${Array.isArray(value) ? "array" : ""} after bytes: output, then a TypeError`, async () => {
    const files = openFiles();
    const wraps: ((chunks: Iterable<Bytes>) => ByteSource)[] = [(chunks) => chunks, slowly, streamOf];
    for (const wrap of wraps) {
      let returned = false;
      const chunks = function* (): Generator<Bytes> {
        try {
          yield bytes(32);
          yield value as unknown as Bytes;
          yield bytes(32);
        } finally {
          returned = true;
        }
      };
      const iterable = ctr(wrap(chunks()));
      assertEquals((await iterable.next()).value, ctrOf(bytes(32)));
      await assertRejects(() => iterable.next(), TypeError, '"source"');
      assertEquals(await iterable.next(), end);
      await turns(3);
      assertEquals(returned, wrap !== streamOf); // streamOf() has no cancel
      await assertReleased(files);
    }
  });
}

// ---- Opening ----------------------------------------------------------------------------------------------------

test(
  "the first next() opens the cipher and the source",
  { needs: { "one thread: a pool pulls ahead": !pool } },
  async () => {
    const files = openFiles();
    let [iterators, asked] = [0, 0];
    const source: AsyncIterable<Bytes> = {
      [Symbol.asyncIterator]() {
        iterators++;
        return { next: () => Promise.resolve({ done: asked++ === 2, value: bytes(LARGE) }) };
      },
    };
    const iterable = ctr(source);
    await turns(3);
    assertEquals([iterators, asked, openFiles()], [0, 0, files]);
    await iterable.next();
    await turns(3);
    assertEquals([iterators, asked], [1, 1]);
    assertEquals(openFiles() > files, engine === "kernel");
    await iterable.next();
    assertEquals(await iterable.next(), end);
    await assertReleased(files);
  },
);

test("engine opens the cipher and returns the engine", async () => {
  const files = openFiles();
  const iterable = ctr([bytes(5)]);
  assertStrictEquals(iterable.engine, engine);
  if (!pool) assertEquals(openFiles() > files, engine === "kernel");
  assertEquals(await collect(iterable), ctrOf(bytes(5)));
  assertStrictEquals(iterable.engine, engine);

  const unused = ctr([bytes(5)]);
  assertStrictEquals(unused.engine, engine);
  await unused.return();
  await assertReleased(files);
});

test("the call copies the options: later changes have no effect", async () => {
  const options = { key: KEY.slice(), iv: IV.slice(), engine, padding: "none" as "none" | "pkcs7" };
  const iterable = encrypt("cbc(aes)", options, bytes(64));
  options.key.fill(0);
  options.iv.fill(0);
  options.padding = "pkcs7";
  assertEquals(await collect(iterable), reference("encrypt", "cbc(aes)", { key: KEY, iv: IV }, bytes(64)));
});

test("an iterable is its own iterator, and iterates once", async () => {
  const iterable = ctr(bytes(100));
  assertStrictEquals(iterable[Symbol.asyncIterator](), iterable);
  assertEquals((await collect(iterable)).length, 100);
  assertEquals(await collect(iterable), new Uint8Array(0));
  assertEquals(await iterable.next(), end);
});

test("concurrent calls of next() settle in order", async () => {
  const iterable = ctr(slowly(cut(bytes(64), [16])));
  const results = await Promise.all(Array.from({ length: 6 }, () => iterable.next()));
  assertEquals(results.map(({ done }) => done), [false, false, false, false, true, true]);
  assertEquals(concat(results.slice(0, 4).map(({ value }) => value!)), ctrOf(bytes(64)));
});

test("a source in memory does not block the event loop", async () => {
  let turned = false;
  setImmediate(() => turned = true);
  let chunks = 0;
  function* source(): Generator<Bytes> {
    const chunk = bytes(WINDOW);
    while (!turned && chunks++ < 4000) yield chunk;
  }
  for await (const _ of encrypt("cbc(aes)", { key: KEY, iv: IV, engine, pool }, source()));
  assert(turned, "over 4,000 windows");
});

// ---- Ways to end -----------------------------------------------------------------------------------------------

/** A source of 16-byte chunks that reports its release. After `count` chunks it never answers. */
interface Source {
  source: ByteSource;
  released: () => boolean;
}

const RELEASING: Record<string, (count: number) => Source> = {
  "an iterator": (count) => {
    let returned = false;
    const source: AsyncIterable<Bytes> = {
      [Symbol.asyncIterator]: () => ({
        next: () => count-- > 0 ? Promise.resolve({ done: false, value: bytes(16) }) : new Promise(() => {}),
        return: () => {
          returned = true;
          return Promise.resolve(end);
        },
      }),
    };
    return { source, released: () => returned };
  },
  "a ReadableStream": (count) => {
    let cancelled = false;
    const source = new ReadableStream<Bytes>({
      pull: (controller) => count-- > 0 ? controller.enqueue(bytes(16)) : new Promise(() => {}),
      cancel: () => void (cancelled = true),
    }, { highWaterMark: 0 });
    return { source, released: () => cancelled };
  },
};

/** The states of an iteration when it ends. Each function returns the pending next(), if there is one. */
const PHASES: Record<string, (iterable: CipherIterable) => Promise<{ next?: Promise<unknown> }>> = {
  "before the first next()": () => Promise.resolve({}),
  "between two next()": async (iterable) => {
    await iterable.next();
    return {};
  },
  "while a next() waits for the source": async (iterable) => {
    for (let received = 0; received < 32;) received += (await iterable.next()).value!.length;
    const next = iterable.next();
    await turns(3);
    return { next };
  },
};

const failure = new Error("enough");

/** The ways to end: the outcome of the call and of a pending next(). */
const WAYS: Record<string, {
  leave: (iterable: CipherIterable, abort: AbortController) => Promise<unknown>;
  left: unknown;
  next: unknown;
}> = {
  "return()": { leave: (iterable) => iterable.return(), left: ended, next: ended },
  "throw()": { leave: (iterable) => iterable.throw!(failure), left: rejected(failure), next: ended },
  "asyncDispose": {
    leave: (iterable) => Promise.resolve(iterable[Symbol.asyncDispose]()),
    left: { state: "fulfilled", value: undefined },
    next: ended,
  },
  "the signal": {
    leave: (_, abort) => Promise.resolve(abort.abort(failure)),
    left: { state: "fulfilled", value: undefined },
    next: rejected(failure),
  },
};

for (const [way, { leave, left, next }] of Object.entries(WAYS)) {
  for (const [phase, enter] of Object.entries(PHASES)) {
    for (const [kind, make] of Object.entries(RELEASING)) {
      test(`${way} ${phase} releases the cipher and ${kind} at once`, async () => {
        const files = openFiles();
        const abort = new AbortController();
        const { source, released } = make(2);
        const iterable = ctr(source, { signal: abort.signal });
        const pending = await enter(iterable);
        const found = await outcomes(leave(iterable, abort), pending.next ?? Promise.resolve("none pending"));
        const waiting = pending.next ? next : { state: "fulfilled", value: "none pending" };
        assertEquals(found as unknown[], [left, waiting]);
        assertEquals(released(), true);
        await assertReleased(files);
        const after = way === "the signal" && !pending.next ? next : ended;
        assertEquals((await outcomes(iterable.next(), iterable.return())) as unknown[], [after, ended]);
      });
    }
  }
}

test("break, and an error in the loop, release the cipher and the source", async () => {
  const files = openFiles();
  for (const make of Object.values(RELEASING)) {
    const broken = make(5);
    for await (const _ of ctr(broken.source)) break;
    assert(broken.released());
    await assertReleased(files);

    const thrown = make(5);
    const error = await assertRejects(async () => {
      for await (const _ of ctr(thrown.source)) throw failure;
    });
    assertStrictEquals(error, failure);
    assert(thrown.released());
    await assertReleased(files);
  }
});

test("await using releases the cipher and the source", async () => {
  const files = openFiles();
  const { source, released } = RELEASING["an iterator"]!(5);
  {
    await using iterable = ctr(source);
    await iterable.next();
    assertEquals(released(), false);
    if (!pool) assertEquals(openFiles() > files, engine === "kernel");
  }
  assert(released());
  await assertReleased(files);
});

test(
  "break waits for the finally block of a generator",
  { needs: { "one thread: a pool does not wait for a source with a pending next()": !pool } },
  async () => {
    let cleaned = false;
    async function* source(): AsyncGenerator<Bytes> {
      try {
        yield bytes(LARGE);
        yield bytes(LARGE);
      } finally {
        await turns(5);
        cleaned = true;
      }
    }
    for await (const _ of ctr(source())) break;
    assert(cleaned);
  },
);

test("return() does not wait for an async generator that never answers", async () => {
  async function* source(): AsyncGenerator<Bytes> {
    yield bytes(16);
    await new Promise(() => {});
  }
  const iterable = ctr(source());
  await iterable.next();
  const next = iterable.next();
  await turns(3);
  assertEquals((await outcomes(iterable.return(), next)) as unknown[], [ended, ended]);
});

test("a signal that was aborted before the call: the first next() rejects with its reason and releases the source", async () => {
  const files = openFiles();
  for (const make of Object.values(RELEASING)) {
    const { source, released } = make(1);
    const iterable = ctr(source, { signal: AbortSignal.abort(failure) });
    assertEquals((await outcomes(iterable.next(), iterable.next())) as unknown[], [rejected(failure), ended]);
    assert(released());
    await assertReleased(files);
  }
});

test("a signal that aborts after the end has no effect", async () => {
  const abort = new AbortController();
  const iterable = ctr(bytes(100), { signal: abort.signal });
  assertEquals(await collect(iterable), ctrOf(bytes(100)));
  abort.abort();
  assertEquals(await iterable.next(), end);
});

for (const [size, pieceCount] of [[16, 1], [LARGE, 2]] as const) {
  test(`an error of a source of ${size}-byte chunks comes after the output before it, and return() of the source is not called`, async () => {
    const files = openFiles();
    let returned = 0;
    const iterator = (failing: () => never) => {
      let count = 2;
      return {
        next: (): IteratorResult<Bytes, undefined> => count-- > 0 ? { done: false, value: bytes(size) } : failing(),
        return: () => (returned++, end),
      };
    };
    const fail = (): never => {
      throw failure;
    };
    const sources: ByteSource[] = [
      { [Symbol.iterator]: () => iterator(fail) },
      {
        [Symbol.asyncIterator]: () => {
          const { next, return: back } = iterator(fail);
          // deno-lint-ignore require-await
          return { next: async () => next(), return: () => Promise.resolve(back()) };
        },
      },
      streamOf<Bytes>({ [Symbol.iterator]: () => iterator(fail) }),
    ];
    for (const source of sources) {
      const iterable = ctr(source);
      const pieces: Bytes[] = [];
      const error = await assertRejects(async () => {
        for await (const piece of iterable) pieces.push(piece);
      });
      assertStrictEquals(error, failure);
      assertEquals(concat(pieces), ctrOf(concat([bytes(size), bytes(size)])));
      if (!pool) assertEquals(pieces.length, pieceCount);
      assertEquals(await iterable.next(), end);
      assertEquals(returned, 0);
      await assertReleased(files);
    }
  });
}

test("an error of the source between two calls of next() rejects the second call", async () => {
  const files = openFiles();
  const gate = Promise.withResolvers<never>();
  gate.promise.catch(() => {}); // it may reject before it is awaited
  let count = 0;
  const source = {
    [Symbol.asyncIterator]: () => ({
      next: () => count++ === 0 ? Promise.resolve({ done: false, value: bytes(16) }) : gate.promise,
    }),
  };
  const iterable = ctr(source);
  assertEquals((await iterable.next()).value, ctrOf(bytes(16)));
  await turns(2);
  gate.reject(failure);
  await turns(2);
  assertStrictEquals(await assertRejects(() => iterable.next()), failure);
  assertEquals(await iterable.next(), end);
  await assertReleased(files);
});

test("an error of the source's return() does not replace the first error", async () => {
  const source: Iterable<Bytes> = {
    [Symbol.iterator]: () => ({
      next: () => ({ done: false, value: "text" as unknown as Bytes }),
      return: () => {
        throw new Error("not now");
      },
    }),
  };
  await assertRejects(() => ctr(source).next(), TypeError, '"source"');
});

test("a damaged ciphertext (EBADMSG) and a partial block without padding (RangeError) release the source", async () => {
  const files = openFiles();
  const options = { key: KEY, iv: IV, engine, pool };
  const damaged = decrypt("cbc(aes)", options, [bytes(40)]);
  const error = await assertRejects(() => collect(damaged), KcapiError);
  assertEquals(error.code, "EBADMSG");
  const partial = encrypt("cbc(aes)", { ...options, padding: "none" }, [bytes(40)]);
  assertInstanceOf(await assertRejects(() => collect(partial)), RangeError);
  await assertReleased(files);
});

test("unreferenced iterables are collected and release their ciphers while their signal is alive", async () => {
  const files = openFiles();
  const { signal } = new AbortController();
  let collected = 0;
  const registry = new FinalizationRegistry(() => collected++);
  const count = 100;
  const abandon = async () => {
    const iterable = ctr([bytes(20), bytes(20)], { signal });
    registry.register(iterable, undefined);
    await iterable.next();
  };
  for (let i = 0; i < count; i++) await abandon();
  await collectGarbage();
  // The conservative scan of the stack may keep a few alive (JavaScriptCore).
  assert(collected > 0.9 * count, `${collected} of ${count} iterables collected`);
  assert(openFiles() - files < count, `${openFiles() - files} descriptors left`);
  assert(!signal.aborted);
});

// ---- Faulty sources, and many small chunks ----------------------------------------------------------------------

test("a source whose next() awaits return() of the iterable does not hang", async () => {
  const files = openFiles();
  let iterable: CipherIterable | undefined = undefined;
  async function* source(): AsyncGenerator<Bytes> {
    await iterable!.return();
    yield bytes(16);
  }
  iterable = ctr(source());
  assertEquals((await outcomes(iterable.next())) as unknown[], [ended]);
  await assertReleased(files);
});

test("a stream that is locked after the call is a TypeError of the first next(), with engine read before it or not", async () => {
  for (const readsEngine of [true, false]) {
    const files = openFiles();
    const source = streamOf([bytes(16)]);
    const iterable = ctr(source);
    source.getReader();
    if (readsEngine) assertStrictEquals(iterable.engine, engine);
    await assertRejects(() => iterable.next(), TypeError, '"source" is a ReadableStream that is locked');
    assertEquals(await iterable.next(), end);
    await assertReleased(files);
  }
});

test("a [Symbol.asyncIterator]() that throws is called once", async () => {
  const files = openFiles();
  let calls = 0;
  const iterable = ctr({
    [Symbol.asyncIterator]() {
      calls++;
      throw failure;
    },
  });
  assertStrictEquals(await assertRejects(() => iterable.next()), failure);
  assertEquals((await outcomes(iterable.next(), iterable.return())) as unknown[], [ended, ended]);
  assertEquals(calls, 1);
  await assertReleased(files);
});

for (const kind of ["a generator", "a ReadableStream"] as const) {
  test(`small chunks of ${kind} are buffered`, async () => {
    const input = bytes(4 * 65_536);
    let had = 0;
    let immediate: ReturnType<typeof setImmediate>;
    const turn = () => {
      had++;
      immediate = setImmediate(turn);
    };
    immediate = setImmediate(turn);
    const chunks = cut(input, [64]);
    const pieces = await Array.fromAsync(ctr(kind === "a generator" ? chunks : streamOf(chunks)));
    clearImmediate(immediate);
    assertEquals(concat(pieces), ctrOf(input));
    // Each turn of the event loop outputs the buffer.
    assert(pieces.length <= 8 + had, `${pieces.length} pieces in ${had} turns`);
  });
}
