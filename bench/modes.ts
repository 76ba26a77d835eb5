/**
 * Whether the userspace engine is right to run a mode over ECB (`isOverEcb` in src/engines): its speed against the
 * runtime's own cipher. A missed bar means that the choice is no longer right.
 *
 * @module
 */

import { createCipheriv, createDecipheriv } from "node:crypto";
import { parseAlgorithm } from "../src/algorithms.ts";
import { openUserspace } from "../src/engines/userspace.ts";
import { divide, iv, key, KiB, record, roundsOr, runBars, sizeName, takeTurns, timed } from "./measure.ts";
import { Secret } from "../src/secret.ts";

await runBars({ modes: measureModes });

async function measureModes(): Promise<void> {
  for (const [mode, direction] of [["ctr", "encrypt"], ["cbc", "decrypt"]] as const) {
    for (const size of [64 * KiB, 4 * KiB, 256]) {
      const count = 1000 * 64 * KiB / Math.max(size, 16 * KiB);
      const chunk = new Uint8Array(size).fill(7);
      const engine = openUserspace(parseAlgorithm(`${mode}(aes)`), Secret.from(key));
      engine.init(direction, iv);
      const create = direction === "encrypt" ? createCipheriv : createDecipheriv;
      const [cipher, ecb] = [create(`aes-256-${mode}`, key, iv), create("aes-256-ecb", key, null)];
      cipher.setAutoPadding(false);
      ecb.setAutoPadding(false);
      const repeat = (action: () => void) =>
        timed(() => {
          for (let i = 0; i < count; i++) action();
        });
      const seconds = await takeTurns({
        engine: repeat(() => engine.pass(chunk, false)),
        "the runtime's own": repeat(() => cipher.update(chunk)),
        "its ECB": repeat(() => ecb.update(chunk)),
      }, { rounds: roundsOr(15), warmUp: 20 });
      const work = `${mode}(aes) ${direction}ion, ${sizeName(size)}`;
      record({ bar: "modes", work, figures: divide(seconds, count), unit: "s", per: size });
      engine.close();
    }
  }
}
