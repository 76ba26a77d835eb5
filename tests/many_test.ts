/** Tests of many streams at the same time, and of the descriptor limit. */
import fc from "fast-check";
import { fileURLToPath } from "node:url";
import { CipherHandle, EncryptionStream } from "../mod.ts";
import { assert, assertEquals, engine, openFiles, runtimeArgv, spawn, test, times } from "./support/deps.ts";
import { type Bytes, bytes, collect, concat, reference } from "./support/support.ts";

const COUNT = times(250, 1000);
const key = bytes(16, 2);

/** One of many streams. It receives its input in chunks. */
interface Stream {
  readonly input: Bytes;
  readonly iv: Bytes;
  readonly output: Promise<Bytes>;
  sent: number;
  send(piece: Bytes): Promise<unknown>;
  end(): Promise<unknown>;
  close(): void;
}

/** Opens a handle for an even index, a stream for an odd one. */
function open(keyed: CipherHandle, index: number): Stream {
  const iv = bytes(16, index + 1);
  const input = bytes(64 + (index * 7) % 300, index + 1);
  if (index % 2 === 0) {
    const handle = keyed.reinit();
    handle.streamInitEnc(iv);
    return {
      ...{ input, iv, output: collect(handle.streamOp({ maxBytes: 64 })), sent: 0 },
      send: (piece) => handle.streamUpdate(piece),
      end: () => handle.streamUpdateLast(),
      close: () => handle.close(),
    };
  }
  const stream = new EncryptionStream(keyed, { iv });
  const writer = stream.writable.getWriter();
  return {
    ...{ input, iv, output: collect(stream.readable), sent: 0 },
    send: (piece) => writer.write(piece),
    end: () => writer.close(),
    close() {},
  };
}

test(`${COUNT} open streams of one key, interleaved at random, each give their own bytes`, async () => {
  // The next stream to continue, and the size of its chunk.
  const steps = fc.infiniteStream(fc.tuple(fc.nat(), fc.integer({ min: 1, max: 200 })));
  await fc.assert(
    fc.asyncProperty(steps, async (steps) => {
      using keyed = CipherHandle.open("ctr(aes)", { key, engine });
      const files = openFiles();
      const streams = Array.from({ length: COUNT }, (_, i) => open(keyed, i));
      if (engine === "kernel") assert(openFiles() - files >= 3 * COUNT);
      const unfinished = [...streams];
      while (unfinished.length > 0) {
        const [which, length] = steps.next().value as [number, number];
        const index = which % unfinished.length;
        const stream = unfinished[index]!;
        await stream.send(stream.input.subarray(stream.sent, stream.sent + length));
        stream.sent += length;
        if (stream.sent < stream.input.length) continue;
        await stream.end();
        unfinished.splice(index, 1);
      }
      for (const [i, { input, iv, output, close }] of streams.entries()) {
        assertEquals(await output, reference("encrypt", "ctr(aes)", { key, iv }, input), `stream ${i}`);
        close();
      }
      assertEquals(openFiles(), files);
    }),
    { numRuns: 1, endOnFailure: true },
  );
});

test(
  "without enough descriptors, only the new stream fails with EMFILE, and the others continue",
  { engine: "kernel" },
  async () => {
    const child = fileURLToPath(new URL("./children/descriptors.ts", import.meta.url));
    const command = [...runtimeArgv, child];
    const quoted = command.map((word) => `'${word}'`).join(" ");
    const { code, stdout, stderr } = await spawn(["sh", "-c", `ulimit -n 120 && exec ${quoted}`]);
    assertEquals([code, stderr], [0, ""]);
    const result = JSON.parse(stdout);
    assertEquals(result.code, "EMFILE");
    assert(result.streams > 10, `${result.streams} streams were open`);
    for (const outcome of result.outcomes.flat()) {
      assert(outcome === "opened" || outcome === "EMFILE", JSON.stringify(result.outcomes));
    }
    assertEquals(new Set(result.outcomes.at(0)), new Set(["EMFILE"]));
    assertEquals(new Set(result.outcomes.at(-1)), new Set(["opened"]));
    const inputs = Array.from({ length: result.streams }, (_, i) => bytes(1000, i + 1));
    const options = { key, iv: bytes(16, 3) };
    const outputs = [...inputs, inputs[0]!].map((input) => reference("encrypt", "ctr(aes)", options, input));
    assertEquals(Uint8Array.fromHex(result.output), concat(outputs));
  },
);
