/**
 * `speed`: measures the engines.
 *
 * @module
 */

import { encrypt } from "../../mod.ts";
import { type Arguments, wholeNumber } from "./arguments.ts";
import { print } from "./descriptors.ts";
import { codeOf, wrongUsage } from "./failures.ts";
import { cipherOf, type CryptPlan, optionsOf, sizesOf } from "./plan.ts";
import { process } from "./process.ts";

export const DEFAULT_SIZES = ["4096", "65536", "1048576"];

interface Measurement {
  cipher: string;
  size: number;
  engine: "kernel" | "userspace";
  /** 10^6 bytes per second. */
  rate?: number;
  /** The error, if there is no rate. */
  error?: string;
}

export async function speed(args: Arguments): Promise<number> {
  const names = args.has("cipher") ? args.all("cipher") : ["cbc(aes)", "ctr(aes)", "xts(aes)"];
  const sizes = (args.has("size") ? args.all("size") : DEFAULT_SIZES)
    .map((size) => wholeNumber("size", size, 1, 2 ** 28));
  const seconds = Number(args.get("seconds") ?? 0.5);
  if (!(seconds > 0 && seconds <= 60)) throw wrongUsage("--seconds expects a number above 0 and up to 60");
  const all: Measurement[] = [];
  for (const cipher of names) {
    const measured: Measurement[] = [];
    for (const size of sizes) {
      for (const engine of ["kernel", "userspace"] as const) {
        measured.push(await measure({ cipher, size, engine }, 1000 * seconds));
      }
    }
    if (!args.has("json")) await print(chart(cipher, measured));
    all.push(...measured);
  }
  return args.has("json") ? await print(`${JSON.stringify(all, undefined, 2)}\n`) : 0;
}

/** Milliseconds. */
const WARM_UP = 200;

/** Encrypts one chunk again and again, in place, until the time is up. */
async function measure(
  what: Pick<Measurement, "cipher" | "size" | "engine">,
  time: number,
): Promise<Measurement> {
  const { size, engine } = what;
  const chunk = crypto.getRandomValues(new Uint8Array(Math.min(size, 65536)));
  const memory = new Uint8Array(size);
  for (let offset = 0; offset < size; offset += chunk.length) memory.set(chunk.subarray(0, size - offset), offset);
  try {
    const { cipher, keySize: namedSize } = cipherOf(what.cipher);
    const isSectors = /^(?:xts|essiv|adiantum|hctr2)\b/.test(cipher);
    const plan: CryptPlan = {
      cipher,
      keySize: namedSize,
      engine,
      padding: undefined,
      sectorSize: isSectors ? 4096 : undefined,
      sector: undefined,
      ivLargeSectors: false,
      ivMode: undefined,
      position: undefined,
      counterBits: undefined,
      inPlace: true,
    };
    const { keySize, ivSize } = sizesOf(plan);
    const key = crypto.getRandomValues(new Uint8Array(keySize));
    const iv = ivSize > 0 ? crypto.getRandomValues(new Uint8Array(ivSize)) : undefined;
    const run = async (time: number) => {
      const start = performance.now();
      const source = (function* () {
        do yield memory; while (performance.now() < start + time);
      })();
      let bytes = 0;
      for await (const piece of encrypt(cipher, { ...optionsOf(plan), key, iv }, source)) bytes += piece.length;
      return bytes / 1000 / (performance.now() - start);
    };
    await run(Math.max(time / 2, WARM_UP)); // compiles the code, and raises the clock of the processor
    return { ...what, rate: await run(time) };
  } catch (error) {
    return { ...what, error: codeOf(error) ?? (error as Error).message };
  }
}

function chart(cipher: string, measured: readonly Measurement[]): string {
  const width = 40;
  const most = Math.max(...measured.map(({ rate = 0 }) => rate));
  const bar = /utf-?8/i.test(process.env.LC_ALL || process.env.LC_CTYPE || process.env.LANG || "") ? "█" : "#";
  const lines = measured.map(({ size, engine, rate, error }, i) => {
    const label = i % 2 === 0 ? binaryText(size) : "";
    const figure = rate === undefined
      ? `not available: ${error}`
      : `${bar.repeat(Math.max(1, Math.round(width * rate / most))).padEnd(width)} ${
        rate.toFixed(rate < 10 ? 1 : 0).padStart(6)
      } MB/s`;
    return `${label.padStart(10)}  ${engine.padEnd(9)}  ${figure}\n`;
  });
  return `${cipher}\n${lines.join("")}\n`;
}

function binaryText(bytes: number): string {
  if (bytes % 2 ** 20 === 0) return `${bytes / 2 ** 20} MiB`;
  return bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} B`;
}
