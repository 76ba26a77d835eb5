/**
 * Uses each part of the API once and prints the output as JSON. It runs on runtimes that are too old for the suite.
 */
import {
  CipherHandle,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  listCiphers,
  openGcm,
  openSealed,
  probe,
  seal,
  SealStream,
  unseal,
  UnsealStream,
  WorkerPool,
} from "../../mod.ts";

const key = new Uint8Array(32).map((_, i) => i);
const iv = new Uint8Array(16);
const input = new Uint8Array(300_000).map((_, i) => i);
const options = { key, iv, engine: "userspace" } as const;

/** Returns the digest of the output. */
async function digest(output: AsyncIterable<Uint8Array> | ReadableStream<Uint8Array> | Uint8Array): Promise<string> {
  const chunks: Uint8Array[] = [];
  if (output instanceof Uint8Array) chunks.push(output);
  else for await (const chunk of output as AsyncIterable<Uint8Array>) chunks.push(chunk.slice());
  const bytes = await new Blob(chunks as BlobPart[]).arrayBuffer();
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(hash.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const stream = () => new Blob([input]).stream();
const results: Record<string, unknown> = {};
const same = await digest(input);

for (const algorithm of ["ctr(aes)", "cbc(aes)"]) {
  results[`encrypt ${algorithm}`] = await digest(encrypt(algorithm, options, input));
  results[`EncryptionStream ${algorithm}`] = await digest(
    stream().pipeThrough(new EncryptionStream(algorithm, options)),
  );
  const ciphertext = encrypt(algorithm, options, input);
  results[`decrypt ${algorithm}`] = await digest(decrypt(algorithm, options, ciphertext)) === same;
  const back = stream().pipeThrough(new EncryptionStream(algorithm, options))
    .pipeThrough(new DecryptionStream(algorithm, options));
  results[`DecryptionStream ${algorithm}`] = await digest(back) === same;
}
const sectors = { key: new Uint8Array(64).map((_, i) => i), sectorSize: 4096, engine: "userspace" } as const;
if (listCiphers().find(({ name }) => name === "xts(aes)")?.engines.includes("userspace")) {
  results["encrypt xts(aes)"] = await digest(encrypt("xts(aes)", sectors, input.subarray(0, 8192)));
}

for (const format of ["AES256_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_4KB"] as const) {
  const sealOptions = { key, format };
  results[`unseal ${format}`] = await digest(unseal(sealOptions, seal(sealOptions, input))) === same;
  const back = stream().pipeThrough(new SealStream(sealOptions)).pipeThrough(new UnsealStream(sealOptions));
  results[`UnsealStream ${format}`] = await digest(back) === same;
  const sealed = new Blob(await Array.fromAsync(seal(sealOptions, input)) as BlobPart[]);
  const file = await openSealed(sealed, sealOptions);
  results[`openSealed ${format}`] = await digest(await file.bytes()) === same;
  file.close();
}

const gcm = { key, iv: new Uint8Array(12), associatedData: new Uint8Array(3) };
for (const engine of ["userspace", "webcrypto"] as const) {
  results[`encrypt gcm(aes) ${engine}`] = await digest(encrypt("gcm(aes)", { ...gcm, engine }, input));
  const decrypted = decrypt("gcm(aes)", { ...gcm, engine }, encrypt("gcm(aes)", gcm, input));
  results[`decrypt gcm(aes) ${engine}`] = await digest(decrypted) === same;
}
const message = new Blob(await Array.fromAsync(encrypt("gcm(aes)", gcm, input)) as BlobPart[]);
const reader = await openGcm(message, gcm);
results["openGcm"] = await digest(await reader.bytes()) === same;
reader.close();

const pool = new WorkerPool(2);
const pooled = { ...options, pool };
results["WorkerPool encrypt"] = await digest(encrypt("ctr(aes)", pooled, input));
results["WorkerPool unseal"] = await digest(unseal({ key, pool }, seal({ key, pool }, input))) === same;
// Node 22 warns about more than 10 listeners.
const many = Array.from({ length: 12 }, () => stream().pipeThrough(new EncryptionStream("ctr(aes)", pooled)));
results["WorkerPool, many streams"] = (await Promise.all(many.map(digest)))[11]!;
pool.close();

const handle = CipherHandle.open("ctr(aes)", { key, engine: "userspace" });
handle.streamInitEnc(iv);
const [output] = await Promise.all([digest(handle.streamOp()), handle.streamUpdateLast(input)]);
results["CipherHandle"] = output;
handle.close();

const stopped = new EncryptionStream("ctr(aes)", options);
const writer = stopped.writable.getWriter();
const aborted = writer.abort(new Error("stop")).then(() => "aborted");
await writer.closed.catch(() => {});
results["abort"] = await aborted;

results["probe"] = probe().runtime.name;
results["listCiphers"] = listCiphers().some(({ name }) => name === "ctr(aes)");
console.log(JSON.stringify(results));
