/**
 * Which engine is the faster one here, measured: `engine: "fastest"`.
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import type { Bytes } from "../bytes.ts";
import { Secret } from "../secret.ts";
import type { Direction, Engine, EngineName } from "./engine.ts";

/** What `engine: "fastest"` takes for one cipher, and why. */
export interface FastestChoice {
  /** The algorithm's name. */
  algorithm: string;
  /** Bytes of the key. */
  keySize: number;
  /** The engine that it takes. */
  engine: EngineName;
  /** What each gave, in 10^6 bytes per second; null where nothing was measured, for only one can serve the cipher. */
  rates: Record<EngineName, number> | null;
}

/** Both engines together, in milliseconds, with what the last round takes too long. */
const TIME = 1.5;

/** What is passed through at a time, in the end: a message of its own where the state does not carry on. */
const PIECE = 16 * 1024;
const MESSAGE = 4096;
/** Passed through before, unmeasured: the first bytes take longest, whatever there is to do. */
const FIRST = 1024;

const DIRECTIONS: readonly Direction[] = ["encrypt", "decrypt"];

/** Measured once in a process, by algorithm and length of the key. */
const choices = new Map<string, FastestChoice>();

/** What was chosen so far. */
export function fastestChoices(): FastestChoice[] {
  return [...choices.values()].map((choice) => ({ ...choice }));
}

/**
 * The faster engine for a cipher.
 *
 * @param open Opens it in one engine, under a key that is of no importance; undefined where that cannot serve it.
 * @returns Undefined where neither can.
 */
export function fastestEngine(
  algorithm: Algorithm,
  keySize: number,
  open: (engine: EngineName, key: Secret) => Engine | undefined,
): EngineName | undefined {
  const name = `${algorithm.name} ${keySize}`;
  const known = choices.get(name);
  if (known) return known.engine;
  const engines: Engine[] = [];
  try {
    for (const engine of ["kernel", "userspace"] as const) {
      const opened = open(engine, Secret.random(keySize));
      if (opened) engines.push(opened);
    }
    const choice = chosen(algorithm, keySize, engines);
    if (choice) choices.set(name, choice);
    return choice?.engine;
  } finally {
    for (const engine of engines) engine.close();
  }
}

function chosen(algorithm: Algorithm, keySize: number, engines: readonly Engine[]): FastestChoice | undefined {
  const [first, second] = engines;
  if (!first) return undefined;
  const choice = { algorithm: algorithm.name, keySize, engine: first.name, rates: null };
  if (!second) return choice;
  const rates = measure(algorithm, [first, second]);
  return { ...choice, engine: rates[second.name] > rates[first.name] ? second.name : first.name, rates };
}

/** The best of several rounds counts: others wait for a compiler, or for another process. */
function measure(algorithm: Algorithm, engines: readonly Engine[]): Record<EngineName, number> {
  const memory = new Uint8Array(algorithm.kind === "stream" ? PIECE : MESSAGE);
  const runs = engines.flatMap((engine) =>
    DIRECTIONS.map((direction) => ({ name: engine.name, time: Infinity, run: runner(engine, direction, algorithm) }))
  );
  for (const { run } of runs) run(memory.subarray(0, FIRST));
  const end = performance.now() + TIME;
  for (let size = 4 * FIRST;; size *= 4) {
    const bytes = size < memory.length ? memory.subarray(0, size) : memory;
    for (const each of runs) {
      each.time = Math.min(each.time, each.run(bytes) / bytes.length);
      if (performance.now() > end && runs.every(({ time }) => time < Infinity)) return ratesOf(runs);
    }
  }
}

/** Of both directions together; times are in milliseconds for a byte. */
function ratesOf(runs: readonly { name: EngineName; time: number }[]): Record<EngineName, number> {
  const rates: Record<EngineName, number> = { kernel: 0, userspace: 0 };
  for (const name of Object.keys(rates) as EngineName[]) {
    const time = runs.filter((run) => run.name === name).reduce((sum, run) => sum + run.time, 0);
    rates[name] = Math.round(DIRECTIONS.length / time / 1000);
  }
  return rates;
}

/** Passes bytes through, and gives the time that takes. */
function runner(engine: Engine, direction: Direction, { kind }: Algorithm): (bytes: Bytes) => number {
  const iv = engine.ivSize > 0 ? new Uint8Array(engine.ivSize) : null;
  const timed = (action: () => void): number => {
    const start = performance.now();
    action();
    return performance.now() - start;
  };
  if (kind !== "stream") {
    return (bytes) =>
      timed(() => {
        engine.init(direction, iv);
        engine.update([bytes], true);
        engine.op([bytes]);
      });
  }
  return (bytes) => {
    engine.init(direction, iv);
    return timed(() => void engine.pass(bytes, true));
  };
}
