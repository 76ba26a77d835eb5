/** Seals files, and prints each as a line of JSON. */
import { seal } from "../../mod.ts";
import { collect } from "../support/bytes.ts";
import { runtime, test } from "../support/deps.ts";
import { CASES, KEY, NAME, plaintextOf } from "./cases.ts";

test("seals files for the other runtimes", { engine: "userspace" }, async () => {
  for (const { format, sizes } of CASES) {
    for (const size of sizes) {
      const file = await collect(seal({ key: KEY, associatedData: NAME, format }, plaintextOf(size)));
      const data = btoa(Array.from(file, (byte) => String.fromCharCode(byte)).join(""));
      console.log(`sealed ${JSON.stringify({ by: runtime, format, size, data })}`);
    }
  }
});
