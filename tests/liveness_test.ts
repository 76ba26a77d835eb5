/**
 * Pending calls settle. Random sequences of writes, reads and turns of the event loop on a stream, and of calls on an
 * iterable over a failing source, are compared with a model of the output. Signals are tested after garbage collection.
 *
 * KCAPI_TEST_RUNS is the number of sequences; FC_SEED repeats a run.
 */
import process from "node:process";
import fc from "fast-check";
import { type CipherStreamOptions, encrypt, EncryptionStream, openSealed, seal, unseal } from "../mod.ts";
import { assert, assertEquals, assertStrictEquals, engine, openFiles, test, times } from "./support/deps.ts";
import { type Bytes, bytes, collectGarbage, concat, outcomes, reference, turns } from "./support/support.ts";

const RUNS = Number(process.env.KCAPI_TEST_RUNS ?? times(60, 200));
const SEED = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));
const IV = bytes(16, 2);

console.log(`liveness_test: seed ${SEED}`);

// ---- streams ----------------------------------------------------------------------------------------------------

/** A cipher, and the unit of its output: full units are output at once, the rest at the end. */
interface Case {
  readonly algorithm: string;
  readonly options: Omit<CipherStreamOptions, "engine">;
  readonly unit: number;
}

const CASES: readonly Case[] = [
  { algorithm: "ctr(aes)", options: { key: bytes(32), iv: IV }, unit: 16 },
  { algorithm: "cbc(aes)", options: { key: bytes(32), iv: IV }, unit: 16 },
  { algorithm: "xts(aes)", options: { key: bytes(64), sectorSize: 512 }, unit: 512 },
  { algorithm: "xts(aes)", options: { key: bytes(64), sectorSize: 65_536 }, unit: 65_536 },
];

/** A stream with a record of its writes, reads and output. */
class Stream {
  readonly #case: Case;
  readonly #inputs: Bytes[] = [];
  readonly #outputs: Bytes[] = [];
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reader: ReadableStreamDefaultReader<Bytes>;
  #given = 0;
  #received = 0;
  #reads = 0;
  #written = 0;
  #isDone = false;
  #isClosed = false;

  constructor(which: Case) {
    this.#case = which;
    const { readable, writable } = new EncryptionStream(which.algorithm, { ...which.options, engine });
    this.#writer = writable.getWriter();
    this.#reader = readable.getReader();
  }

  write(size: number): void {
    if (this.#isClosed) return;
    const input = bytes(size, this.#inputs.length + 1);
    this.#inputs.push(input);
    this.#given += size;
    void this.#writer.write(input).then(() => this.#written++);
  }

  read(): void {
    this.#reads++;
    void this.#reader.read().then(({ value }) => {
      this.#reads--;
      if (!value) return void (this.#isDone = true);
      this.#received += value.length;
      this.#outputs.push(value);
    });
  }

  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    void this.#writer.close();
  }

  /** Waits until nothing changes. If a read is pending then, all full units must have been output. */
  async check(): Promise<void> {
    await this.#settle();
    const { unit } = this.#case;
    if (this.#reads === 0 || this.#isDone) return;
    assert(!this.#isClosed, "a read is pending after close()");
    assertEquals(this.#received, this.#given - this.#given % unit, `${this.#reads} reads wait`);
    assertEquals(this.#written, this.#inputs.length, "a read and a write are pending");
  }

  /** Reads all, and compares it. */
  async finish(): Promise<void> {
    const { algorithm, options, unit } = this.#case;
    const padding = algorithm === "cbc(aes)" ? "pkcs7" : "none";
    const isSectors = unit > 16;
    if (isSectors) this.write(unit - this.#given % unit);
    this.close();
    while (!this.#isDone) {
      if (this.#reads === 0) this.read();
      await this.check();
    }
    const input = concat(this.#inputs);
    assertEquals(
      concat(this.#outputs),
      reference("encrypt", algorithm, { ...options as { key: Bytes }, padding }, input),
    );
  }

  /** Waits until nothing has changed for some turns of the event loop: long work takes several turns. */
  async #settle(): Promise<void> {
    for (let quiet = 0; quiet < 5;) {
      const before = [this.#received, this.#written, this.#reads].join();
      await turns(2);
      quiet = before === [this.#received, this.#written, this.#reads].join() ? quiet + 1 : 0;
    }
  }
}

const size = fc.oneof(
  { weight: 5, arbitrary: fc.nat(100) },
  { weight: 5, arbitrary: fc.nat(16_384) },
  { weight: 3, arbitrary: fc.constantFrom(16_383, 16_384, 16_385, 65_535, 65_536) },
  { weight: 1, arbitrary: fc.constantFrom(300_000, 1_500_000) },
);
const step = fc.oneof(
  { weight: 5, arbitrary: fc.record({ write: size }) },
  { weight: 4, arbitrary: fc.record({ reads: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 3, arbitrary: fc.record({ turns: fc.integer({ min: 1, max: 2 }) }) },
  { weight: 2, arbitrary: fc.constant({ check: true }) },
);
type Step = { write?: number; reads?: number; turns?: number; check?: boolean };

async function runSteps(which: Case, steps: readonly Step[]): Promise<void> {
  const stream = new Stream(which);
  for (const { write, reads = 0, turns: count = 0, check } of steps) {
    if (write !== undefined) stream.write(write);
    for (let i = 0; i < reads; i++) stream.read();
    await turns(count);
    if (check) await stream.check();
  }
  await stream.check();
  await stream.finish();
}

/** Fewer, because each sequence streams megabytes and takes a hundred times as long as one of the others. */
const STREAMS = Math.ceil(RUNS / 5);

test(`if a read is pending, all full units have been output, in ${STREAMS} random sequences (seed ${SEED})`, async () => {
  const files = openFiles();
  const sequence = fc.array(step, { minLength: 3, maxLength: 25, size: "max" });
  const property = fc.asyncProperty(fc.constantFrom(...CASES), sequence, runSteps);
  await fc.assert(property, { numRuns: STREAMS, seed: SEED, timeout: 30_000 });
  assertEquals(openFiles(), files);
});

test("a small write is output after a large one took the buffered bytes before it", async () => {
  const [ctr, , , xts] = CASES;
  await runSteps(xts!, [
    { write: 16 },
    { turns: 1 },
    { write: 16_384 },
    { reads: 1 },
    ...Array.from({ length: 4 }, () => ({ write: 12_288 })),
    { check: true },
  ]);
  for (const reads of [1, 2, 3, 20]) {
    await runSteps(ctr!, [{ write: 20 }, { turns: 1 }, { write: 3_000_000 }, { reads }, { write: 20 }, {
      check: true,
    }]);
    await runSteps(ctr!, [{ write: 20 }, { turns: 1 }, { write: 3_000_000 }, { reads: 20 }, { check: true }, {
      write: 20,
    }, { check: true }]);
  }
});

// ---- signals ----------------------------------------------------------------------------------------------------

const OPTIONS = { key: bytes(32), iv: IV, engine };

/** Never answers. */
const silent = () => new ReadableStream<Bytes>({ pull: () => new Promise<void>(() => {}) });

const stream = (signal: AbortSignal) => new EncryptionStream("ctr(aes)", { ...OPTIONS, signal });

/** Pending calls on objects that only the signal references. */
const WAITS: Record<string, (signal: AbortSignal) => Promise<unknown>> = {
  "read()": (signal) => silent().pipeThrough(stream(signal)).getReader().read(),
  "for await": async (signal) => {
    for await (const _ of silent().pipeThrough(stream(signal)));
  },
  "pipeTo()": (signal) => silent().pipeThrough(stream(signal)).pipeTo(new WritableStream()),
  "write()": (signal) => stream(signal).writable.getWriter().write(bytes(300_000)),
  "next() of encrypt()": (signal) => encrypt("ctr(aes)", { ...OPTIONS, signal }, silent()).next(),
  "next() of unseal()": (signal) => unseal({ ...SEAL_OPTIONS, signal }, silent()).next(),
  "openSealed()": (signal) => openSealed(falling(0), { ...SEAL_OPTIONS, signal }),
  "bytes() of an open file": async (signal) => (await openSealed(falling(2), { ...SEAL_OPTIONS, signal })).bytes(),
};

const SEAL_OPTIONS = { key: OPTIONS.key, engine };
/** More segments than are read when the file is opened. */
const SEALED = concat(await Array.fromAsync(seal(SEAL_OPTIONS, bytes(400_000))));

/** A source that never answers after `answers` answers. */
function falling(answers: number) {
  const read = (start: number, end: number) =>
    answers-- > 0 ? Promise.resolve(SEALED.slice(start, end)) : new Promise<Bytes>(() => {});
  return { size: SEALED.length, read };
}

const reason = new Error("the signal's reason");

/** The kinds of signals, and how each aborts. */
const SIGNALS: Record<string, () => { signal: () => AbortSignal; abort: () => void }> = {
  "of a controller": () => {
    const controller = new AbortController();
    return { signal: () => controller.signal, abort: () => controller.abort(reason) };
  },
  "of AbortSignal.any()": () => {
    const controller = new AbortController();
    const signal = () => AbortSignal.any([new AbortController().signal, AbortSignal.any([controller.signal])]);
    return { signal, abort: () => controller.abort(reason) };
  },
  "of AbortSignal.timeout()": () => ({ signal: () => AbortSignal.timeout(150), abort: () => {} }),
};

for (const [what, make] of Object.entries(SIGNALS)) {
  for (const [who, wait] of Object.entries(WAITS)) {
    // The pending promises of the sources never settle. Signals do not depend on the engine.
    const needs = { engine: "userspace", sanitize: false } as const;
    test(`a pending ${who} rejects when the signal ${what} aborts after garbage collection`, needs, async () => {
      const count = 20;
      const heard: unknown[] = [];
      const { signal, abort } = make();
      const start = () => {
        for (let i = 0; i < count; i++) wait(signal()).catch((error) => heard.push(error));
      };
      start();
      await collectGarbage();
      abort();
      for (let i = 0; i < 100 && heard.length < count; i++) await new Promise((resolve) => setTimeout(resolve, 10));
      assertEquals(heard.length, count);
      if (what !== "of AbortSignal.timeout()") { for (const error of heard) assertStrictEquals(error, reason); }
    });
  }
}

// ---- sources ----------------------------------------------------------------------------------------------------

const failure = new Error("the source's clean-up failed");
const ENDS: Record<string, () => unknown> = {
  "resolves": () => ({ done: true, value: undefined }),
  "resolves late": () => turns(2).then(() => ({ done: true, value: undefined })),
  "never settles": () => new Promise(() => {}),
  "throws": () => {
    throw failure;
  },
  "rejects": () => Promise.reject(failure),
  "rejects late": () => turns(2).then(() => Promise.reject(failure)),
};

/** An iterator that yields `count` chunks and then never answers. */
function source(count: number, end: () => unknown): AsyncIterable<Bytes> {
  const next = () => count-- > 0 ? Promise.resolve({ done: false, value: bytes(32) }) : new Promise(() => {});
  return { [Symbol.asyncIterator]: () => ({ next, return: end }) } as AsyncIterable<Bytes>;
}

/** The same as a stream, with its cancel(). */
function streamSource(count: number, cancel: () => unknown): ReadableStream<Bytes> {
  return new ReadableStream<Bytes>({
    pull: (controller) => count-- > 0 ? controller.enqueue(bytes(32)) : new Promise<void>(() => {}),
    cancel: () => cancel() as Promise<void>,
  }, { highWaterMark: 0 });
}

for (const [what, end] of Object.entries(ENDS)) {
  for (
    const [kind, make] of Object.entries({
      "an iterator whose return()": source,
      "a stream whose cancel()": streamSource,
    })
  ) {
    test(`return() of encrypt() ends a pending next(), over ${kind} ${what}`, async () => {
      const unhandled: unknown[] = [];
      const note = (error: unknown) => unhandled.push(error);
      process.on("unhandledRejection", note);
      try {
        const files = openFiles();
        const iterable = encrypt("ctr(aes)", OPTIONS, make(1, end));
        await iterable.next();
        const next = iterable.next();
        await turns(2);
        const [left, waited] = await outcomes(iterable.return(), next);
        assertEquals(waited as unknown, { state: "fulfilled", value: { done: true, value: undefined } });
        assert(left!.state !== "pending");
        assertEquals(openFiles(), files);
        await turns(5);
        assertEquals(unhandled, []);
      } finally {
        process.off("unhandledRejection", note);
      }
    });
  }
}

const act = fc.constantFrom("next", "return", "abort", "turn", "gc");

test(`calls on encrypt() over a failing source all settle, in ${RUNS} random sequences (seed ${SEED})`, {
  sanitize: false,
}, async () => {
  const sources = fc.record({ count: fc.nat(3), end: fc.constantFrom(...Object.values(ENDS)), isStream: fc.boolean() });
  const property = fc.asyncProperty(
    sources,
    fc.array(act, { maxLength: 12 }),
    async ({ count, end, isStream }, acts) => {
      const abort = new AbortController();
      const iterable = encrypt(
        "ctr(aes)",
        { ...OPTIONS, signal: abort.signal },
        (isStream ? streamSource : source)(count, end),
      );
      const calls: Promise<unknown>[] = [];
      let isLeft = false;
      for (const act of acts) {
        if (act === "next") calls.push(iterable.next());
        else if (act === "return") isLeft = calls.push(iterable.return()) > 0;
        else if (act === "abort") abort.abort(reason), isLeft = true;
        else if (act === "turn") await turns(1);
        else if (act === "gc" && acts.length % 4 === 0) await collectGarbage(() => true);
        calls.at(-1)?.catch(() => {});
      }
      if (!isLeft) abort.abort(reason);
      const found = await outcomes(...calls);
      // Without a pending next(), return() waits for return() of the source, which may never settle.
      const pending = acts.filter((act) => act === "next" || act === "return").filter((_, i) =>
        found[i]!.state === "pending"
      );
      assertEquals(pending.filter((act) => act === "next" || end !== ENDS["never settles"]), []);
    },
  );
  await fc.assert(property, { numRuns: RUNS, seed: SEED, timeout: 20_000 });
});

// ---- faked timers -----------------------------------------------------------------------------------------------

const FAKED = ["setImmediate", "setTimeout", "setInterval", "queueMicrotask"] as const;

/** Replaces the timers and the clock as mocked timers do: no callback runs, and the clock does not advance. */
async function withFakedTimers(body: () => Promise<void>): Promise<void> {
  const globals = globalThis as unknown as Record<string, unknown>;
  const saved = FAKED.map((name) => globals[name]);
  const clock = Object.getOwnPropertyDescriptor(performance, "now");
  for (const name of FAKED) globals[name] = () => 0;
  Object.defineProperty(performance, "now", { value: () => 0, configurable: true, writable: true });
  try {
    await body();
  } finally {
    FAKED.forEach((name, i) => globals[name] = saved[i]);
    if (clock) Object.defineProperty(performance, "now", clock);
    else delete (performance as { now?: unknown }).now;
  }
}

test("with mocked timers, small writes are output, and a busy stream continues", async () => {
  await withFakedTimers(async () => {
    const { readable, writable } = new EncryptionStream("ctr(aes)", OPTIONS);
    const [writer, reader] = [writable.getWriter(), readable.getReader()];
    await writer.write(bytes(32));
    const [{ state }] = await outcomes(reader.read()) as [{ state: string }];
    assertEquals(state, "fulfilled");
    const reading = (async () => {
      while (!(await reader.read()).done);
    })();
    const chunk = new Uint8Array(8 << 20);
    for (let i = 0; i < 4; i++) await writer.write(chunk);
    await Promise.all([writer.close(), reading]);
    for await (const _ of encrypt("ctr(aes)", OPTIONS, [chunk, chunk]));
  });
});
