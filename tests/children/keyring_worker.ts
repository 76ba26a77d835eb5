/** A Worker that encrypts with a key of the keyring. It receives only the name of the key. */
import { encrypt, type KernelKey } from "../../mod.ts";
import { type Bytes, collect } from "../support/bytes.ts";
import { parent } from "./web_worker.ts";

export interface Task {
  readonly algorithm: string;
  readonly key: KernelKey;
  readonly input: Bytes;
}

parent.listen(async ({ data }: MessageEvent<Task>) => {
  const { algorithm, key, input } = data;
  parent.postMessage(await collect(encrypt(algorithm, { key, sectorSize: 512 }, input)));
});
