/**
 * Encrypts disk sectors with a key in the kernel's keyring. This process never has the key's bytes. Runs on Deno, Bun
 * and Node, on Linux 6.2 or later.
 *
 *     head -c 64 /dev/urandom | keyctl padd logon kcapi:example @u && keyctl link @u @s
 *
 *     deno run --allow-ffi examples/keyring.ts kcapi:example
 *     bun examples/keyring.ts kcapi:example
 *     node examples/keyring.ts kcapi:example
 *
 * docs/keyring.md shows how to load such a key for a service, and from a TPM.
 *
 * @module
 */

import process from "node:process";
import { CipherHandle, DecryptionStream, EncryptionStream, KcapiError } from "../mod.ts";

const [description = "kcapi:example"] = process.argv.slice(2);
const sectors = crypto.getRandomValues(new Uint8Array(16 * 4096));

try {
  // Open it once, at the start: the handle still works if the key is revoked or expires later.
  using handle = CipherHandle.open("xts(aes)", { key: { type: "logon", description } });
  const ciphertext = await through(sectors, new EncryptionStream(handle, { sectorSize: 4096 }));
  const plaintext = await through(ciphertext, new DecryptionStream(handle, { sectorSize: 4096 }));
  const isSame = plaintext.every((byte, i) => byte === sectors[i]) && plaintext.length === sectors.length;
  console.log(`${ciphertext.length} bytes by the engine ${handle.engine}`);
  console.log(isSame ? "the bytes came back" : "THE BYTES DID NOT COME BACK");
  process.exitCode = isSame ? 0 : 1;
} catch (error) {
  if (!(error instanceof KcapiError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

async function through(bytes: Uint8Array<ArrayBuffer>, stream: EncryptionStream | DecryptionStream) {
  return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}
