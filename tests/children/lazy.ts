/** Prints as JSON whether this process has loaded libkcapi: after the import, with `userspace`, and with `auto`. */
import { readFileSync } from "node:fs";
import { CipherHandle } from "../../mod.ts";

const isLoaded = () => /\/libkcapi\.so/.test(readFileSync("/proc/self/maps", "utf8"));
const key = new Uint8Array(16);
const loaded = [isLoaded()];
for (const engine of ["userspace", "auto"] as const) {
  CipherHandle.open("ecb(aes)", { key, engine }).close();
  loaded.push(isLoaded());
}
console.log(JSON.stringify(loaded));
