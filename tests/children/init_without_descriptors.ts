/**
 * Starts streams on handles while this process has no descriptor left (its limit is low: `ulimit -n`), and again when
 * there are some. Prints, as JSON, what each call gave and the outputs.
 */
import { closeSync, openSync } from "node:fs";
import { CipherHandle, KcapiError } from "../../mod.ts";

const code = (action: () => unknown) => {
  try {
    action();
    return "no error";
  } catch (error) {
    return error instanceof KcapiError ? error.code : String(error);
  }
};

const [key, iv] = [new Uint8Array(32).map((_, i) => i), new Uint8Array(16).fill(2)];
// Opens what this process keeps open, such as the library.
await encrypted(CipherHandle.open("ctr(aes)", { key, engine: "kernel" }));

const handles = ["ctr(aes)", "cbc(aes)", "xts(aes)"].map((name) => CipherHandle.open(name, { key, engine: "kernel" }));
const fillers: number[] = [];
while (code(() => fillers.push(openSync("/dev/null", "r"))) === "no error");
const without = handles.map((handle) => [
  code(() => handle.streamInitEnc(iv)),
  code(() => handle.streamInitDec(iv)),
  code(() => handle.streamOp()),
]);
for (const fd of fillers) closeSync(fd);
const outputs: string[] = [];
for (const handle of handles) outputs.push(await encrypted(handle));
console.log(JSON.stringify({ without, outputs }));

async function encrypted(handle: CipherHandle): Promise<string> {
  handle.streamInitEnc(iv);
  const sent = handle.streamUpdateLast(new Uint8Array(96).fill(3));
  const output = await Array.fromAsync(handle.streamOp());
  await sent;
  handle.close();
  return output.map((chunk) => chunk.toHex()).join("");
}
