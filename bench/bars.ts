/**
 * The bars: what is measured, and what the figures must be.
 *
 * A bar may only be failed by this module. So where a program of that runtime could not reach a figure whatever it did, the
 * bar is what is within reach in the same run. Figures are kept without their bars: these are worked out when they are shown.
 *
 * @module
 */

/** Seconds (or what `unit` says) that one contender took. */
export interface Statistics {
  median: number;
  min: number;
  max: number;
  rounds: number;
}

/** What was measured: one entry of results.json. */
export interface Figures {
  /** `B1` … `B10`, `modes`, `cost` or `sizes`. */
  bar: string;
  runtime: string;
  where: "guest" | "host";
  /** Such as `cbc(aes), 64 KiB`. */
  work: string;
  figures: Record<string, Statistics>;
  unit: "s" | "MiB" | "ticks";
  /** The bytes that took so many seconds. */
  per?: number;
  /** The size of a chunk, where it is a place on the chart. */
  size?: number;
}

/** A figure of one contender: its median, or its least. */
export type Of = (contender: string) => number;

/** One value against its bar. */
export interface Check {
  /** How the value is made, in words. */
  readonly formula: string;
  readonly is: number;
  readonly atMost?: number;
  readonly atLeast?: number;
  readonly unit?: "MiB";
}

/** A bar, and how it is measured. */
export interface Bar {
  readonly title: string;
  readonly method: string;
  checks(of: Of, measured: Figures): Check[];
}

/** How much of what is within reach has to be reached: less is noise between the contenders. */
const REACHED = 0.95;

/** How many times as fast as records over WebCrypto. */
const RECORDS: Readonly<Record<string, number>> = { Bun: 3, Node: 2, Deno: 1.2 };

/** By how much Workers must gain. */
function leastGain(work: string, runtime: string): number | undefined {
  if (work.startsWith("kernel")) return 1.4;
  if (work.endsWith("8 × seal")) return 1.6;
  if (work.endsWith("seal")) return 1.5;
  return runtime === "Deno" && !work.endsWith("decryption") ? 1.4 : undefined;
}

/** The C program that does as much per round. */
const rivalOf = ({ work }: Figures) => work.endsWith("64 KiB") ? "plain C" : "best C";

export const BARS: Readonly<Record<string, Bar>> = {
  B1: {
    title: "`CipherHandle` over the caller's buffers, against C",
    method: "`streamUpdate` and `streamOpInto` over the same two buffers, again and again.",
    checks(of, measured) {
      const rival = rivalOf(measured);
      const is = of(rival) / of("CipherHandle");
      return [{ formula: `${rival} ÷ CipherHandle`, is, atLeast: rival === "plain C" ? 1 : 0.95 }];
    },
  },
  B2: {
    title: "`EncryptionStream` from memory to memory, against C",
    method:
      "The source gives chunks from memory, the sink counts bytes. *copying* is a TransformStream that does nothing " +
      "but copy each chunk into a fresh array: what a stream cannot avoid if it leaves its input alone. With `inPlace` " +
      "nothing is to be avoided, and the rival is plain C itself.",
    checks(of, measured) {
      const rival = rivalOf(measured);
      return [
        {
          formula: `EncryptionStream ÷ (${rival} + copying)`,
          is: of("EncryptionStream") / (of(rival) + of("copying")),
          atMost: 1.1,
        },
        { formula: "plain C ÷ inPlace", is: of("plain C") / of("inPlace"), atLeast: 1 },
      ];
    },
  },
  B3: {
    title: "file to file, whole processes, against `kcapi-enc`",
    method:
      "1 GiB of random bytes on tmpfs, start-up included; [`encrypt_file.ts`](encrypt_file.ts) is the program. All " +
      "three must write the same file. (`kcapi-enc` has the files as its standard input and output: by their names it maps " +
      "them, more often than fits into a process of User-Mode Linux.) Within reach of a program of that runtime, which has to start (*an empty script*), " +
      "to encrypt (*best C*), and to read and write (*dd*), is kcapi-enc ÷ (an empty script + best C + dd): the bar is " +
      `1.1 for Bun and 1 for Deno, or ${REACHED} of that, whichever is lower.`,
    checks(of, { runtime }) {
      const reach = of("kcapi-enc") / (of("an empty script") + of("best C") + of("dd"));
      return [{
        formula: "kcapi-enc ÷ EncryptionStream",
        is: of("kcapi-enc") / of("EncryptionStream"),
        atLeast: Math.min(runtime === "Bun" ? 1.1 : 1, REACHED * reach),
      }];
    },
  },
  B4: {
    title: "writes of 256 bytes, against C",
    method:
      "Small writes are gathered before the kernel is called. *identity* is what the same writes cost through a " +
      "TransformStream that does nothing, *best C* what it takes to encrypt the same bytes in the fewest calls. For scale, " +
      "*plain C* encrypts each write by itself.",
    checks: (of) => [{
      formula: "EncryptionStream ÷ (identity + best C)",
      is: of("EncryptionStream") / (of("identity") + of("best C")),
      atMost: 1,
    }],
  },
  B5: {
    title: "the cost of a chunk, without kernel and cipher",
    method:
      "Over a libkcapi whose calls return at once ([`null_kcapi.c`](null_kcapi.c)), against a TransformStream that does " +
      "nothing (*identity*), on this machine itself. Seconds per chunk. *FFI* are the native calls of one chunk alone; *fresh* is a " +
      "TransformStream that only enqueues a new, empty array for each chunk. *bare pair* is the least that a stream can be " +
      "whose output is made when it is asked for: a pair of streams that makes these calls, and checks nothing. The bar of " +
      "`inPlace` is 1.5 times *identity*, or 1.25 times that pair, whichever is higher.",
    checks(of, { where, figures }) {
      // In the guest it is measured, too, but only to tell where the time goes.
      if (where === "guest") return [];
      const bare = "bare pair" in figures ? of("bare pair") / of("identity") : 0;
      return [
        { formula: "EncryptionStream ÷ fresh", is: of("EncryptionStream") / of("fresh"), atMost: 1.15 },
        { formula: "inPlace ÷ identity", is: of("inPlace") / of("identity"), atMost: Math.max(1.5, 1.25 * bare) },
      ];
    },
  },
  B6: {
    title: "the userspace engine, against the runtime's own cipher and cipher stream",
    method:
      "64 KiB chunks, seconds per chunk, on this machine itself, each contender in a process of its own that keeps its memory (MALLOC_TRIM_THRESHOLD_ 256 MiB, MALLOC_MMAP_THRESHOLD_ 32 MiB). " +
      "*a Transformer* is the least that a stream over the " +
      "same cipher can do, in four lines: its output as plain arrays, with nothing of the heap behind them.",
    checks: (of) => [
      { formula: "EncryptionStream ÷ a Transformer", is: of("EncryptionStream") / of("a Transformer"), atMost: 1.05 },
      { formula: "Duplex.toWeb ÷ EncryptionStream", is: of("Duplex.toWeb") / of("EncryptionStream"), atLeast: 1 },
    ],
  },
  B7: {
    title: "memory of a long stream",
    method:
      "4 GiB through one stream in 64 KiB chunks, in a process of its own: the highest resident memory less the one " +
      "before, when 256 MiB had gone through another stream of the kind (compiled code is there then). With `inPlace` the " +
      "source uses the same chunks again and again. *cipher.update* is the runtime's cipher alone, whose output is freed at " +
      "once: where that takes more, the bar is 2 MiB above it.",
    checks(of, { figures }) {
      const alone = "cipher.update" in figures ? of("cipher.update") : 0;
      return [
        {
          formula: "EncryptionStream − copying",
          is: of("EncryptionStream") - of("copying"),
          atMost: 16,
          unit: "MiB",
        },
        { formula: "inPlace", is: of("inPlace"), atMost: Math.max(16, alone + 2), unit: "MiB" },
      ];
    },
  },
  B8: {
    title: "one chunk of 256 MiB",
    method:
      "As `Blob.stream()` gives in Deno. *timer*: how often a timer of 10 ms fires, against a program that waits.",
    checks: (of, { unit }) =>
      unit === "ticks"
        ? [{ formula: "ticks a second: one chunk ÷ idle", is: of("one chunk") / of("idle"), atLeast: 0.5 }]
        : [{ formula: "64 KiB chunks ÷ one chunk", is: of("64 KiB chunks") / of("one chunk"), atLeast: 0.9 }],
  },
  B9: {
    title: "sealed streams, against their parts and against other packages",
    method: "On this machine itself, seconds for 25 MiB, each contender in a process of its own. " +
      "*AES-CTR*, *HMAC* and *GCM* are the runtime's own, in loops over the " +
      "same chunks. *typage* ([age-encryption](https://age-encryption.org)) and *rfc8188* (AES-GCM records over WebCrypto) " +
      "encrypt and authenticate streams, too.",
    checks(of, { runtime }) {
      const checks: Check[] = [];
      for (const what of ["seal", "unseal"]) {
        const parts = of("AES-CTR") + of("HMAC") + of("fresh stream");
        const partsGCM = of("GCM") + of("fresh stream");
        checks.push(
          { formula: `${what} ÷ (AES-CTR + HMAC + fresh stream)`, is: of(what) / parts, atMost: 1.15 },
          { formula: `${what} GCM ÷ (GCM + fresh stream)`, is: of(`${what} GCM`) / partsGCM, atMost: 1.25 },
        );
      }
      const faster = Math.min(of("seal"), of("seal GCM"));
      checks.push(
        { formula: "typage ÷ the faster seal", is: of("typage") / faster, atLeast: 3 },
        { formula: "rfc8188 ÷ the faster seal", is: of("rfc8188") / faster, atLeast: RECORDS[runtime]! },
      );
      return checks;
    },
  },
  B10: {
    title: "streams over two Workers, against one thread",
    method:
      "64 MiB in chunks of 1 MiB, a pool of two on two processors, on this machine itself, each contender in a process of its own; " +
      "with *kernel* in an emulated " +
      "machine with two processors and Linux 7.3. *timer*: how often a timer of 10 ms fires beside a stream that runs flat out in " +
      "Workers, against a program that waits; emulated, the main thread is so slow that three threads want two processors, and " +
      "there is no bar. What runs at memory's speed in one thread (AES in Bun and Node) has no bar: there " +
      "Workers are not of use. *bare Workers* is what a program can do by itself: a TransformStream of a few lines that copies each chunk, moves it to a " +
      "Worker and back, two at once for each, in order; no errors, no end in mid-stream, no other stream's turn. There the same " +
      "code does the same work. Where that does not reach a bar, it is 0.95 of what it does.",
    checks(of, { runtime, unit, where, work }) {
      if (unit === "ticks") {
        if (where === "guest") return [];
        return [{ formula: "ticks a second: Workers ÷ idle", is: of("Workers") / of("idle"), atLeast: 0.9 }];
      }
      const least = leastGain(work, runtime);
      if (least === undefined) return [];
      const atLeast = Math.min(least, REACHED * of("one thread") / of("bare Workers"));
      return [{ formula: "one thread ÷ Workers", is: of("one thread") / of("Workers"), atLeast }];
    },
  },
  modes: {
    title: "the userspace engine's ways over ECB, against the runtime's own modes",
    method:
      "Seconds for a chunk. In Deno ctr and the decryption of cbc run over ECB, and must be faster than its own. In Bun and " +
      "Node they do not: there ECB alone (*its ECB*), without the work around it, must be too little faster to be of use.",
    checks(of, { runtime, work, per }) {
      if (runtime !== "Deno") {
        const is = of("the runtime's own") / of("its ECB");
        return per! < 64 * 1024 ? [] : [{ formula: "the runtime's own ÷ its ECB", is, atMost: 1.3 }];
      }
      const is = of("the runtime's own") / of("engine");
      const atLeast = per! < 4096 ? 0.9 : per! < 64 * 1024 ? 1 : work.startsWith("ctr") ? 2.5 : 3.3;
      return [{ formula: "the runtime's own ÷ engine", is, atLeast }];
    },
  },
};

/** What was measured against its bar, by the medians, or by the minima, which noise disturbs less. */
export function checksOf(measured: Figures, by: "median" | "min" = "median"): Check[] {
  return BARS[measured.bar]?.checks((contender) => measured.figures[contender]![by], measured) ?? [];
}

/** Whether a value is within its bar. */
export function passes({ is, atMost = Infinity, atLeast = -Infinity }: Check): boolean {
  return is <= atMost && is >= atLeast;
}

/** A bar as text. */
export function limitOf({ atMost, atLeast, unit }: Check): string {
  const [sign, limit] = atMost !== undefined ? ["≤", atMost] : ["≥", atLeast!];
  return `${sign} ${Number(limit.toFixed(2))}${unit ? ` ${unit}` : ""}`;
}
