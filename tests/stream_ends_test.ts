/**
 * The ends of a stream, compared with those of a native TransformStream: random sequences of write, read, close, abort
 * and cancel. No promise that is fulfilled there may be rejected here, and no rejection may be unhandled.
 *
 * KCAPI_TEST_ENDS is the number of sequences; FC_SEED repeats a run.
 */
import process from "node:process";
import fc from "fast-check";
import {
  DecryptionStream,
  encrypt,
  EncryptionStream,
  type KcapiError,
  seal,
  SealStream,
  UnsealStream,
} from "../mod.ts";
import { assert, assertEquals, assertStrictEquals, engine, test } from "./support/deps.ts";
import { SMALL } from "./support/sealed_support.ts";
import { type Bytes, bytes, collect, concat, cut, outcomes, turns } from "./support/support.ts";

const RUNS = Number(process.env.KCAPI_TEST_ENDS ?? 2500);
const SEED = Number(process.env.FC_SEED ?? Math.floor(Math.random() * 2 ** 31));
console.log(`stream_ends_test: seed ${SEED}`);

const KEY = bytes(32, 301);
const SEALING = { key: KEY, format: SMALL, engine } as const;
const SEALED = await collect(seal(SEALING, bytes(500)));

const GCM = { key: KEY, iv: bytes(12) };

type Pair = TransformStream<Uint8Array, Uint8Array>;

/** The streams under test. All get the same chunks: what is written to an UnsealStream must be sealed. */
const STREAMS: Record<string, { open: () => Pair; input: Bytes }> = {
  EncryptionStream: {
    open: () => new EncryptionStream("ctr(aes)", { key: KEY, iv: bytes(16), engine }) as Pair,
    input: bytes(600),
  },
  SealStream: { open: () => new SealStream(SEALING) as Pair, input: bytes(600) },
  UnsealStream: { open: () => new UnsealStream(SEALING) as Pair, input: SEALED },
  "EncryptionStream of gcm(aes)": { open: () => new EncryptionStream("gcm(aes)", GCM) as Pair, input: bytes(600) },
  "DecryptionStream of gcm(aes)": {
    open: () => new DecryptionStream("gcm(aes)", GCM) as Pair,
    input: await collect(encrypt("gcm(aes)", GCM, bytes(500))),
  },
};

type Act = "write" | "read" | "close" | "abort" | "abort without a reason" | "cancel" | "turn";
const ACTS = ["write", "write", "read", "close", "abort", "abort without a reason", "cancel", "turn"];
const reason = new Error("enough");

/** Performs the acts. Returns the state of each promise, by the number and name of the act. */
async function perform({ readable, writable }: Pair, acts: readonly Act[], input: Bytes): Promise<Map<string, string>> {
  const [writer, reader] = [writable.getWriter(), readable.getReader()];
  const states = new Map<string, string>();
  const watch = (name: string, promise: Promise<unknown>) => {
    states.set(name, "pending");
    promise.then(() => states.set(name, "fulfilled"), () => states.set(name, "rejected"));
  };
  const chunks = [...cut(input, [64])];
  await turns(1); // both have started: that takes a different number of microtasks
  for (const [i, act] of acts.entries()) {
    if (act === "write") watch(`${i} write`, writer.write(chunks.shift() ?? new Uint8Array(0)));
    else if (act === "read") watch(`${i} read`, reader.read());
    else if (act === "close") {
      // All the rest, so that the sealed data is complete.
      for (const chunk of chunks.splice(0)) watch(`${i} write ${chunks.length}`, writer.write(chunk));
      watch(`${i} close`, writer.close());
    } else if (act === "abort") watch(`${i} abort`, writer.abort(reason));
    else if (act === "abort without a reason") watch(`${i} abort`, writer.abort());
    else if (act === "cancel") watch(`${i} cancel`, reader.cancel(reason));
    else await turns(20); // so many that the end of a time slice between two writes has no effect
  }
  const settled = new Map(states);
  await Promise.allSettled([writer.abort(), reader.cancel()]);
  return settled;
}

/**
 * Outputs nothing before the end, like a stream that buffers small chunks or waits for the rest of a segment. Its high
 * water mark exceeds all chunks: with a full queue, abort() of a native stream waits for a reader, and ours does not.
 */
function nativePair(): Pair {
  const held: Uint8Array[] = [];
  return new TransformStream<Uint8Array, Uint8Array>(
    {
      transform: (chunk) => void held.push(chunk),
      flush: (controller) => held.forEach((chunk) => controller.enqueue(chunk)),
    },
    undefined,
    { highWaterMark: 1000 },
  );
}

/** Runs `body`, and returns the reasons of the unhandled rejections. */
async function unhandledIn(body: () => Promise<void>): Promise<unknown[]> {
  const unhandled: unknown[] = [];
  const note = (error: unknown) => unhandled.push(error);
  process.on("unhandledRejection", note);
  try {
    await body();
    await turns(3);
  } finally {
    process.off("unhandledRejection", note);
  }
  return unhandled;
}

for (const [name, { open, input }] of Object.entries(STREAMS)) {
  const requirements = { engine: "userspace" } as const;
  test(
    `${name} ends as a native TransformStream does, in ${RUNS} random sequences (seed ${SEED})`,
    requirements,
    async () => {
      const property = fc.asyncProperty(
        fc.array(fc.constantFrom(...ACTS as Act[]), { minLength: 1, maxLength: 10 }),
        async (acts) => {
          const native = await perform(nativePair(), acts, input);
          let own!: Map<string, string>;
          const unhandled = await unhandledIn(async () => {
            own = await perform(open(), acts, input);
          });
          const worse = [...native].filter(([act, state]) => state === "fulfilled" && own.get(act) === "rejected");
          assertEquals(worse, [], acts.join());
          assertEquals(unhandled, [], acts.join());
        },
      );
      await fc.assert(property, { numRuns: Math.ceil(RUNS / Object.keys(STREAMS).length), seed: SEED });
    },
  );

  for (const order of ["abort() and cancel()", "cancel() and abort()"]) {
    test(`${name}: ${order} in one tick cause no unhandled rejection`, async () => {
      const unhandled = await unhandledIn(() => {
        const { readable, writable } = open();
        const acts = [() => void writable.abort(reason), () => void readable.cancel(reason)];
        for (const act of order.startsWith("abort") ? acts : acts.reverse()) act();
        return Promise.resolve();
      });
      assertEquals(unhandled, []);
    });
  }

  for (const [what, leave] of Object.entries({ "abort()": "abort", "cancel()": "cancel" } as const)) {
    test(`${name}: ${what} in the tick of close() does not reject close()`, async () => {
      const { readable, writable } = open();
      const [writer, reader] = [writable.getWriter(), readable.getReader()];
      await Promise.all([...cut(input, [64])].map((chunk) => writer.write(chunk)));
      const closing = writer.close();
      const left = leave === "abort" ? writer.abort(reason) : reader.cancel(reason);
      const states = (await outcomes(closing, left, writer.closed)).map(({ state }) => state);
      assertEquals(states, ["fulfilled", "fulfilled", "fulfilled"]);
    });
  }

  test(`${name}: abort() without a reason gives both sides the same reason`, async () => {
    const { readable, writable } = open();
    const [writer, reader] = [writable.getWriter(), readable.getReader()];
    const [aborted, written, read] = await outcomes(writer.abort(), writer.closed, reader.read());
    assertEquals(aborted, { state: "fulfilled", value: undefined });
    assert(written?.state === "rejected" && read?.state === "rejected");
    assertStrictEquals(written.reason, read.reason);
  });
}

test("close() and cancel() in one tick, with nothing written, are fulfilled", async () => {
  const { readable, writable } = STREAMS.EncryptionStream!.open();
  await turns(1);
  const states = (await outcomes(writable.close(), readable.cancel())).map(({ state }) => state);
  assertEquals(states, ["fulfilled", "fulfilled"]);
});

test("an error at the close waits until the verified segments before it have been read", async () => {
  const damaged = SEALED.slice();
  damaged[damaged.length - 1]! ^= 1;
  const { readable, writable } = new UnsealStream(SEALING);
  const writer = writable.getWriter();
  const [writing, closing] = await outcomes(writer.write(damaged), writer.close());
  assertEquals(writing?.state, "fulfilled"); // buffered
  assert(closing?.state === "rejected" && (closing.reason as KcapiError).code === "EBADMSG");
  const pieces: Bytes[] = [];
  const reader = readable.getReader();
  const read = async () => {
    for (let result; !(result = await reader.read()).done;) pieces.push(result.value);
  };
  const [reading] = await outcomes(read());
  assertStrictEquals(reading?.state === "rejected" && reading.reason, closing.reason);
  const verified = concat(pieces);
  assert(verified.length > 300, `${verified.length} bytes`);
  assertEquals(verified, bytes(500).slice(0, verified.length));
});

for (const [name, { open }] of Object.entries(STREAMS)) {
  test(`${name}: without a reader, a write of less than 16 KiB resolves, and a larger one waits`, async () => {
    const states = [];
    for (const size of [100, 16_383, 16_384, 100_000]) {
      const { readable, writable } = open();
      const writer = writable.getWriter();
      const writing = writer.write(new Uint8Array(size));
      states.push((await outcomes(writing))[0]!.state);
      await Promise.allSettled([readable.cancel(), writer.closed, writing]);
    }
    assertEquals(states, ["fulfilled", "fulfilled", "pending", "pending"]);
  });
}
