/** Tests of interruptions: aborts at every await point, thousands of system signals, and kill -9. */
import { createHash } from "node:crypto";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { CipherHandle, encrypt, EncryptionStream } from "../mod.ts";
import { assert, assertEquals, engine, openFiles, runtimeArgv, spawn, takes, tempDir, test } from "./support/deps.ts";
import { type Bytes, bytes, concat, cut, reference, streamOf, turns, WINDOW } from "./support/support.ts";

const KEY = bytes(32, 2);
const IV = bytes(16, 3);
const options = { key: KEY, iv: IV, engine } as const;
const INPUT = bytes(WINDOW + 40_000);
const PIECES = [3, 20_000, 70_001];

// ---- AbortSignal at every await point -----------------------------------------------------------------------------

/** Runs a stream to its end, and passes each output to `take`. */
type Scenario = (signal: AbortSignal, take: (output: Uint8Array) => void) => Promise<unknown>;

interface Case {
  readonly padding: "pkcs7" | "none";
  readonly run: Scenario;
}

async function each(source: AsyncIterable<Uint8Array>, take: (output: Uint8Array) => void): Promise<void> {
  for await (const output of source) take(output);
}

/** A source that waits for one turn of the event loop before each chunk. */
async function* slowly(): AsyncGenerator<Bytes> {
  for (const piece of cut(INPUT, PIECES)) {
    await turns();
    yield piece;
  }
}

const SCENARIOS: Record<string, Case> = {
  "EncryptionStream": {
    padding: "pkcs7",
    run: (signal, take) =>
      each(streamOf(cut(INPUT, PIECES)).pipeThrough(new EncryptionStream("cbc(aes)", { ...options, signal })), take),
  },
  "EncryptionStream in place": {
    padding: "none",
    run: (signal, take) => {
      const stream = new EncryptionStream("ctr(aes)", { ...options, signal, inPlace: true });
      return each(streamOf(cut(INPUT, PIECES, { copied: true })).pipeThrough(stream), take);
    },
  },
  "encrypt()": {
    padding: "pkcs7",
    run: (signal, take) => each(encrypt("cbc(aes)", { ...options, signal }, cut(INPUT, PIECES)), take),
  },
  "encrypt() over a source that waits": {
    padding: "pkcs7",
    run: (signal, take) => each(encrypt("cbc(aes)", { ...options, signal }, slowly()), take),
  },
  "streamOp()": {
    padding: "none",
    async run(signal, take) {
      using handle = CipherHandle.open("ctr(aes)", { key: KEY, engine });
      handle.streamInitEnc(IV);
      const produce = async () => {
        for (const piece of cut(INPUT, PIECES)) await handle.streamUpdate(piece);
        await handle.streamUpdateLast();
      };
      const produced = produce();
      produced.catch(() => {});
      await each(handle.streamOp({ signal, maxBytes: 65_536 }), take);
      await produced;
    },
  },
};

const REASON = new Error("the signal's own reason");

/**
 * Counts microtasks, with a turn of the event loop after each `burst` of them, so that work that waits for a turn also
 * continues. Calls `act` at microtask number `point`. Ends when `over` returns true.
 */
async function countdown(point: number, act: () => void, over: () => boolean): Promise<number> {
  const burst = 50;
  for (let count = 0; !over(); count++) {
    if (count === point) act();
    if (count % burst === burst - 1) await turns();
    else await Promise.resolve();
  }
  return point;
}

interface Outcome {
  readonly error: unknown;
  readonly output: Bytes;
  /** Whether the scenario ended before the abort. */
  readonly isFirst: boolean;
}

async function abortAt(point: number, run: Scenario): Promise<Outcome> {
  const abort = new AbortController();
  const outputs: Uint8Array[] = [];
  let isOver = false, error: unknown;
  const scenario = run(abort.signal, (output) => outputs.push(output.slice()))
    .catch((reason) => error = reason).finally(() => isOver = true);
  let isFirst = true;
  await countdown(point, () => {
    isFirst = false;
    abort.abort(REASON);
  }, () => isOver);
  await scenario;
  return { error, output: concat(outputs), isFirst };
}

for (const [name, { padding, run }] of Object.entries(SCENARIOS)) {
  const algorithm = padding === "pkcs7" ? "cbc(aes)" : "ctr(aes)";
  test(`${name}: a signal aborted at any microtask ends it with its reason, after right bytes, and nothing stays open`, async () => {
    const expected = reference("encrypt", algorithm, { key: KEY, iv: IV, padding }, INPUT);
    const files = openFiles();
    let aborted = 0;
    for (let point = 0;; point++) {
      if (point > 30 && !takes(point)) continue;
      const { error, output, isFirst } = await abortAt(point, run);
      assertEquals(output, expected.subarray(0, output.length), `aborted at microtask ${point}`);
      assertEquals(openFiles(), files, `aborted at microtask ${point}`);
      if (error !== undefined) {
        assert(error === REASON, `aborted at microtask ${point}: ${error}`);
        aborted++;
      } else {
        assertEquals(output.length, expected.length, `aborted at microtask ${point}`);
      }
      if (isFirst) break;
    }
    assert(aborted > 10, `${aborted} aborts came in time`);
  });
}

// ---- signals of the system ----------------------------------------------------------------------------------------

function childCommand(name: string): string[] {
  const child = fileURLToPath(new URL(`./children/${name}`, import.meta.url));
  return [...runtimeArgv, child];
}

const quoted = (words: readonly string[]) => words.map((word) => `'${word}'`).join(" ");

/**
 * Runs the command after `--` in another process. From its first output on, sends it 1,000 SIGUSR1, one each half a
 * millisecond, and then SIGUSR2. Repeats this until the process ends. Prints its output, and to standard error the
 * number of signals.
 */
const BOMBARD = `
  my $pid = open(my $out, "-|", @ARGV) or die;
  $| = 1; print scalar <$out>;
  my $sent = 0;
  my $killer = fork();
  if (!$killer) {
    while (kill "USR1", $pid) {
      $sent++; select undef, undef, undef, 0.0005;
      if ($sent % 1000 == 0) { print STDERR "$sent\\n"; kill "USR2", $pid; }
    }
    exit;
  }
  print while <$out>; kill "KILL", $killer; waitpid $killer, 0; close $out; exit($? >> 8 || $? & 127);
`;

test("thousands of signals do not change the output: interrupted calls are continued", async () => {
  const { code, stdout, stderr } = await spawn(["perl", "-e", BOMBARD, ...childCommand("bombarded.ts")], {
    env: { KCAPI_TEST_ENGINE: engine },
    timeout: 100_000,
  });
  const sent = Number(stderr.match(/^\d+$/gm)?.at(-1)); // The runtime may print its own lines there.
  assertEquals([code, stdout], [0, "ready\nright\n"], stderr.slice(0, 2_000));
  assert(sent >= 1_000, `${sent} signals were sent: ${stderr.slice(0, 2_000)}`);
});

// ---- kill -9 ------------------------------------------------------------------------------------------------------

test(
  "kill -9 during a file operation leaves the old file or the complete new one",
  { engine: "userspace" },
  async () => {
    const dir = tempDir();
    const [keyFile, input, output] = ["key", "input", "output"].map((name) => join(dir, name)) as [
      string,
      string,
      string,
    ];
    const data = bytes(6_000_000, 9);
    writeFileSync(keyFile, KEY);
    writeFileSync(input, data);
    const job = [
      ...childCommand("../../src/cli.ts"),
      ...["encrypt", "--cipher", "ctr(aes)", "--key-file", keyFile, "--iv", "00".repeat(16)],
      ...["--engine", engine, "--in", input, "--out", output],
    ];
    const wanted = hash(reference("encrypt", "ctr(aes)", { key: KEY, iv: new Uint8Array(16) }, data));
    const states = new Set<string>();
    // The process is killed when a new file appears in the directory, or some steps later. 0 means never.
    for (const steps of [1, 2, 40, 0]) {
      writeFileSync(output, "old");
      const script = `${quoted(job)} >&2 & pid=$!
      while kill -0 $pid 2>/dev/null; do
        set -- '${dir}'/* '${dir}'/.[!.]*
        n=0; for f; do [ -e "$f" ] && n=$((n+1)); done
        [ $n -gt 3 ] && seen=$((seen+1))
        [ ${steps} -gt 0 ] && [ "\${seen:-0}" -ge ${steps} ] && kill -9 $pid && break
      done
      wait $pid; echo $?`;
      const { stdout, stderr } = await spawn(["sh", "-c", script], { timeout: 60_000 });
      const found = hash(readFileSync(output));
      const isOld = found === hash(new TextEncoder().encode("old"));
      assert(isOld || found === wanted, `killed after ${steps} steps, the output is neither old nor whole (${stderr})`);
      if (steps === 0) assertEquals([stdout.trim(), isOld], ["0", false], stderr);
      states.add(`${stdout.trim()} ${isOld ? "old" : "new"}`);
      assert(existsSync(input));
    }
    // At least one process was killed during the operation.
    assert(states.has("137 old"), [...states].join());
  },
);

function hash(data: Uint8Array): string {
  return createHash("sha256").update(data).digest("hex");
}
