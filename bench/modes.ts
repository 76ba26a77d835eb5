/**
 * What `isOverEcb` in src/engines/modes.ts says, measured: the userspace engine against the runtime's own cipher, for the modes
 * and directions where it may run over ECB. A ratio below 1 says that the choice has stopped being right.
 *
 * @module
 */

import { createCipheriv, createDecipheriv } from "node:crypto";
import { parseAlgorithm } from "../src/algorithms.ts";
import { openUserspace } from "../src/engines/userspace.ts";
import { iv, key, KiB, roundsOr, runtime, sizeName, takeTurns, timed } from "./measure.ts";

for (const [mode, direction] of [["ctr", "encrypt"], ["cbc", "decrypt"], ["cbc", "encrypt"]] as const) {
  for (const size of [64 * KiB, 4 * KiB, 256]) {
    const count = 400 * 64 * KiB / Math.max(size, 4 * KiB);
    const chunk = new Uint8Array(size).fill(7);
    const engine = openUserspace(parseAlgorithm(`${mode}(aes)`), key.slice());
    engine.init(direction, iv);
    const create = direction === "encrypt" ? createCipheriv : createDecipheriv;
    const cipher = create(`aes-256-${mode}`, key, iv);
    cipher.setAutoPadding(false);
    const { ours, theirs } = await takeTurns({
      ours: timed(() => {
        for (let i = 0; i < count; i++) engine.pass(chunk, false);
      }),
      theirs: timed(() => {
        for (let i = 0; i < count; i++) cipher.update(chunk);
      }),
    }, { rounds: roundsOr(15), warmUp: 20 });
    const micro = (seconds: number) => `${(seconds / count * 1e6).toFixed(2)} µs`;
    console.log(
      `${runtime} ${mode}(aes) ${direction} ${sizeName(size)}: ${
        (theirs.median / ours.median).toFixed(2)
      } times as fast as ` +
        `the runtime's own (${micro(ours.median)}, ${micro(theirs.median)})`,
    );
    engine.close();
  }
}
