/**
 * The bars: what is measured, and which values pass.
 *
 * A bar must only fail because of this module. If no program on a runtime can reach a figure, the bar is the best that
 * a program reaches in the same run. Figures are stored without their bars; the bars are computed when they are shown.
 *
 * @module
 */

/** Seconds (or the unit that `unit` names) that one contender took. */
export interface Statistics {
  median: number;
  min: number;
  max: number;
  rounds: number;
}

/** A measurement: one entry of results.json. */
export interface Figures {
  /** `B1` … `B12` or `modes`. */
  bar: string;
  runtime: string;
  where: "guest" | "host";
  /** Such as `cbc(aes), 64 KiB`. */
  work: string;
  figures: Record<string, Statistics>;
  unit: "s" | "MiB" | "ticks" | "times";
  /** The number of bytes that these seconds are for. */
  per?: number;
}

/** A figure of one contender: its median or its minimum. */
export type Of = (contender: string) => number;

/** One value against its bar. */
export interface Check {
  /** The formula of the value, in words. */
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

/** The share of the reachable value that passes. The rest is noise between contenders. */
const REACHED = 0.95;

/** The least factor over RFC 8188 records by WebCrypto. */
const RECORDS: Readonly<Record<string, number>> = { Bun: 3, Node: 2, Deno: 1.2 };

/** The least gain of two Workers. */
function leastGain(work: string, runtime: string): number | undefined {
  if (work.startsWith("kernel")) return 1.4;
  if (work.endsWith("8 × seal")) return 1.6;
  if (work.endsWith("seal")) return 1.5;
  return runtime === "Deno" && !work.endsWith("decryption") ? 1.4 : undefined;
}

/** The C program that processes as much per round. */
const rivalOf = ({ work }: Figures) => work.endsWith("64 KiB") ? "plain C" : "best C";

export const BARS: Readonly<Record<string, Bar>> = {
  B1: {
    title: "`CipherHandle` over the caller's buffers, against C",
    method: "`streamUpdate` and `streamOpInto` over the same two buffers.",
    checks(of, measured) {
      const rival = rivalOf(measured);
      const is = of(rival) / of("CipherHandle");
      return [{ formula: `${rival} ÷ CipherHandle`, is, atLeast: rival === "plain C" ? 1 : 0.95 }];
    },
  },
  B2: {
    title: "`EncryptionStream` from memory to memory, against C",
    method: "The source has its chunks in memory; the sink counts bytes. *copying* is a TransformStream that copies " +
      "each chunk into a new array, which every stream that leaves its input unchanged must do. `inPlace` is " +
      "compared with plain C.",
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
      "1 GiB of random bytes on tmpfs, start-up included, with [`encrypt_file.ts`](encrypt_file.ts). All three must " +
      "write the same file. `kcapi-enc` gets the files as standard input and output, because its memory maps do not " +
      "fit into a process of User-Mode Linux. A program of that runtime must start (*an empty script*), encrypt " +
      "(*best C*), read and write (*dd*). The bar is 1.1 for Bun and 1 for Deno, or " +
      `${REACHED} of kcapi-enc ÷ (an empty script + best C + dd), whichever is lower.`,
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
    method: "Small writes are gathered before the kernel is called. *identity* is a TransformStream that does " +
      "nothing. *best C* encrypts the same bytes in the fewest calls. For scale, *plain C* makes one call for " +
      "each write.",
    checks: (of) => [{
      formula: "EncryptionStream ÷ (identity + best C)",
      is: of("EncryptionStream") / (of("identity") + of("best C")),
      atMost: 1,
    }],
  },
  B5: {
    title: "the cost of a chunk, without kernel and cipher",
    method:
      "Seconds per chunk over a libkcapi whose calls return at once ([`null_kcapi.c`](null_kcapi.c)), against a " +
      "TransformStream that does nothing (*identity*). *FFI* is the native calls alone. *fresh* is a " +
      "TransformStream that enqueues a new array for each chunk. *bare pair* is the shortest pair of streams " +
      "that makes its output on demand, with these calls and without checks. The bar of `inPlace` is 1.5 times " +
      "*identity* or 1.25 times *bare pair*, whichever is higher.",
    checks(of, { figures }) {
      const bare = "bare pair" in figures ? of("bare pair") / of("identity") : 0;
      return [
        { formula: "EncryptionStream ÷ fresh", is: of("EncryptionStream") / of("fresh"), atMost: 1.15 },
        { formula: "inPlace ÷ identity", is: of("inPlace") / of("identity"), atMost: Math.max(1.5, 1.25 * bare) },
      ];
    },
  },
  B6: {
    title: "the userspace engine, against the runtime's own cipher and cipher stream",
    method: "Seconds per chunk of 64 KiB. Each contender is a process of its own that keeps freed memory " +
      "(MALLOC_TRIM_THRESHOLD_ 256 MiB, MALLOC_MMAP_THRESHOLD_ 32 MiB). *a Transformer* is the shortest stream " +
      "over the same cipher, in four lines, whose output is plain arrays without other data behind them.",
    checks: (of) => [
      { formula: "EncryptionStream ÷ a Transformer", is: of("EncryptionStream") / of("a Transformer"), atMost: 1.05 },
      { formula: "Duplex.toWeb ÷ EncryptionStream", is: of("Duplex.toWeb") / of("EncryptionStream"), atLeast: 1 },
    ],
  },
  B7: {
    title: "memory of a long stream",
    method: "4 GiB through one stream in chunks of 64 KiB, in a process of its own: the peak of resident memory, " +
      "minus the resident memory after a first stream of 256 MiB. With `inPlace` the source reuses its chunks. " +
      "*cipher.update* is the runtime's cipher alone, whose output is freed at once. If it takes more memory than " +
      "the bar, the bar is 2 MiB above it.",
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
      "Deno's `Blob.stream()` gives such chunks. *timer*: how often a 10 ms timer fires, against an idle program.",
    checks: (of, { unit }) =>
      unit === "ticks"
        ? [{ formula: "ticks a second: one chunk ÷ idle", is: of("one chunk") / of("idle"), atLeast: 0.5 }]
        : [{ formula: "64 KiB chunks ÷ one chunk", is: of("64 KiB chunks") / of("one chunk"), atLeast: 0.9 }],
  },
  B9: {
    title: "sealed streams, against their parts and against other packages",
    method: "Seconds for 25 MiB, each contender in a process of its own. *AES-CTR*, *HMAC* and *GCM* are the " +
      "runtime's own, in loops over the same chunks. *typage* ([age-encryption](https://age-encryption.org)) " +
      "and *rfc8188* (AES-GCM records over WebCrypto) also encrypt and authenticate streams.",
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
    method: "64 MiB in chunks of 1 MiB, a pool of two on two processors, each contender in a process of its own. The " +
      "kernel engine runs in an emulated machine with two processors and Linux 7.3. *timer*: how often a 10 ms " +
      "timer fires while a stream runs at full speed in Workers, against an idle program. It has no bar in the " +
      "emulated machine, where three threads compete for two processors. AES in Bun and Node has no bar, " +
      "because it runs at memory speed in one thread. *bare Workers* is a TransformStream of a few lines that " +
      "copies each chunk and moves it to a Worker and back, in order, two at once for each Worker, without " +
      "errors, aborts or fairness. If it does not reach a bar, the bar is 0.95 of it.",
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
  B11: {
    title: "sealed streams over WebCrypto, on every runtime",
    method: "32 MiB in chunks of 64 KiB, segments of 64 KiB, 8 in flight. *loop* is a program of a few lines between " +
      "the same streams. It reads segments, calls WebCrypto, and writes results in order, with no header. " +
      "*calls* are the calls of WebCrypto alone, for segments in memory, and have no bar. *userspace* is the " +
      "synchronous engine. *typage* is [age-encryption](https://age-encryption.org). *a timer of 1 ms*: how often it " +
      "fires in a second beside a stream that runs flat out, against an idle program.",
    checks(of, { runtime, work, unit }) {
      if (unit === "ticks") {
        return ["seal", "unseal"].map((what) => ({
          formula: `ticks: ${what} ÷ idle`,
          is: of(what) / of("idle"),
          atLeast: 0.9,
        }));
      }
      if (work.startsWith("typage")) {
        return [{ formula: "typage ÷ stream", is: of("typage") / of("stream"), atLeast: 2 }];
      }
      const checks: Check[] = [{ formula: "stream ÷ loop", is: of("stream") / of("loop"), atMost: 1.1 }];
      if (runtime !== "Deno") return checks;
      return [...checks, { formula: "userspace ÷ stream", is: of("userspace") / of("stream"), atLeast: 3 }];
    },
  },
  B12: {
    title: "reading a sealed file by ranges",
    method: "64 MiB in AES-GCM-HKDF with segments of 64 KiB. *30 ms*: each read of the source takes 30 ms. *small " +
      "reads*: 8 MiB, 64 bytes at a time, and 1,000 reads of a byte in one segment at once. *a file*: against " +
      "`unseal()` over the same file, read in chunks of 1 MiB.",
    checks(of, { work }) {
      if (work === "small reads") {
        return [
          { formula: "bytes read ÷ bytes asked for, in sequence", is: of("bytes read"), atMost: 1.1 },
          { formula: "reads for 1,000 reads of a segment at once", is: of("reads of a segment"), atMost: 1 },
        ];
      }
      if (work.endsWith("a file")) {
        return [{ formula: "stream() ÷ unseal()", is: of("stream()") / of("unseal()"), atMost: 1.15 }];
      }
      return [
        { formula: "open ÷ one read", is: of("open") / of("one read"), atMost: 1.3 },
        { formula: "seconds, bytes()", is: of("bytes()"), atMost: 0.7 },
        { formula: "seconds, stream()", is: of("stream()"), atMost: 0.7 },
      ];
    },
  },
  modes: {
    title: "modes over ECB in the userspace engine, against the runtime's own modes",
    method: "Seconds per chunk. In Deno, ctr and cbc decryption run over ECB and must be faster than the runtime's " +
      "own modes. In Bun and Node they do not run over ECB, because ECB alone (*its ECB*) takes almost as long as " +
      "the mode.",
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

/** Compares a measurement with its bar, by medians, or by minima, which are less noisy. */
export function checksOf(measured: Figures, by: "median" | "min" = "median"): Check[] {
  return BARS[measured.bar]?.checks((contender) => measured.figures[contender]![by], measured) ?? [];
}

/** Whether a value passes. */
export function passes({ is, atMost = Infinity, atLeast = -Infinity }: Check): boolean {
  return is <= atMost && is >= atLeast;
}

/** A bar as text. */
export function limitOf({ atMost, atLeast, unit }: Check): string {
  const [sign, limit] = atMost !== undefined ? ["≤", atMost] : ["≥", atLeast!];
  return `${sign} ${Number(limit.toFixed(2))}${unit ? ` ${unit}` : ""}`;
}
