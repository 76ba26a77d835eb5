/**
 * `verify`: checks sealed files without writing their contents.
 *
 * @module
 */

import { NAME } from "./about.ts";
import type { Arguments } from "./arguments.ts";
import { closeFile, print, printError } from "./descriptors.ts";
import { failureOf } from "./failures.ts";
import {
  describeDamage,
  isNothingIntact,
  NOTHING_VERIFIES,
  openRanges,
  openReader,
  verifyWithProgress,
} from "./ranges.ts";
import { type Keys, readKeys } from "./sealing_options.ts";

/** Verifies each file. One that cannot be read or is damaged does not keep the others from being verified. */
export async function verify(args: Arguments): Promise<number> {
  using keys = await readKeys(args, "identity");
  let exitCode = 0;
  for (const path of args.operands) {
    try {
      exitCode = Math.max(exitCode, await verifyFile(path === "-" ? undefined : path, keys, args));
    } catch (error) {
      const failure = failureOf(error);
      if (failure.exitCode === 2) throw failure;
      printError(`${NAME}: ${failure.message}\n`);
      exitCode = Math.max(exitCode, failure.exitCode);
    }
  }
  return exitCode;
}

async function verifyFile(path: string | undefined, keys: Keys, args: Arguments): Promise<number> {
  const ranges = await openRanges(path, keys, "verify");
  try {
    using file = await openReader(ranges, keys, args, true);
    const { isIntact, damaged } = await verifyWithProgress(file, args);
    const lines = isIntact
      ? [`intact, ${file.size} bytes`]
      : isNothingIntact(file, damaged)
      ? [NOTHING_VERIFIES]
      : describeDamage(file, damaged);
    await print(lines.map((line) => `${ranges.name}: ${line}\n`).join(""));
    return isIntact ? 0 : 3;
  } finally {
    if (ranges.input && path !== undefined) closeFile(ranges.input.fd);
  }
}
