/**
 * Sealed streams (B9): against their parts, and against other packages that encrypt and authenticate streams.
 *
 * @module
 */

import { encodings, encrypt as encryptRecords } from "@apeleghq/rfc8188";
import { Encrypter } from "age-encryption";
import { createCipheriv, createHmac } from "node:crypto";
import { seal, type SealedFormatName, SealStream, UnsealStream } from "../mod.ts";
import {
  type ByteTransform,
  chunksOf,
  freshStream,
  iv,
  key,
  KiB,
  memorySource,
  record,
  roundsOr,
  runBars,
  takeTurns,
  timed,
} from "./measure.ts";

const SIZE = 64 * KiB;
const COUNT = 400;

const encrypter = new Encrypter();
encrypter.setScryptWorkFactor(1);
encrypter.setPassphrase("of no importance");

await runBars({ B9: measureSealed });

async function measureSealed(): Promise<void> {
  const chunks = chunksOf(SIZE);
  const formats = ["AES256_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_64KB"] as const;
  const sealed = Object.fromEntries(
    await Promise.all(formats.map(async (format) => [format, await sealedChunks(format, chunks)] as const)),
  );
  const through = (format: SealedFormatName, isSeal: boolean) =>
    timed(() =>
      drain(
        isSeal ? chunks : sealed[format]!,
        isSeal ? new SealStream({ key, format }) : new UnsealStream({ key, format }),
      )
    );
  const figures = await takeTurns({
    seal: through(formats[0], true),
    unseal: through(formats[0], false),
    "seal GCM": through(formats[1], true),
    "unseal GCM": through(formats[1], false),
    "AES-CTR": timed(() => ctrLoop(chunks)),
    HMAC: timed(() => hmacLoop(chunks)),
    GCM: timed(() => gcmLoop(chunks)),
    "fresh stream": timed(() => drain(chunks, freshStream())),
    typage: timed(() => typage(chunks)),
    rfc8188: timed(() => rfc8188(chunks)),
  }, { rounds: roundsOr(15), warmUp: 5 });
  record({ bar: "B9", work: "64 KiB", figures, unit: "s", per: SIZE * COUNT });
}

async function sealedChunks(format: SealedFormatName, chunks: readonly Uint8Array[]): Promise<Uint8Array[]> {
  const list = Array.from({ length: COUNT }, (_, i) => chunks[i % chunks.length]! as Uint8Array<ArrayBuffer>);
  const whole = new Uint8Array(await new Blob(await Array.fromAsync(seal({ key, format }, list))).arrayBuffer());
  return Array.from({ length: Math.ceil(whole.length / SIZE) }, (_, i) => whole.slice(i * SIZE, (i + 1) * SIZE));
}

async function drain(chunks: readonly Uint8Array[], stream: ByteTransform): Promise<void> {
  const count = chunks.length > COUNT ? chunks.length : COUNT;
  await memorySource(chunks, count).pipeThrough(stream).pipeTo(new WritableStream());
}

function ctrLoop(chunks: readonly Uint8Array[]): void {
  const cipher = createCipheriv("aes-256-ctr", key, iv);
  for (let i = 0; i < COUNT; i++) cipher.update(chunks[i % chunks.length]!);
  cipher.final();
}

function hmacLoop(chunks: readonly Uint8Array[]): void {
  for (let i = 0; i < COUNT; i++) createHmac("sha256", key).update(chunks[i % chunks.length]!).digest();
}

function gcmLoop(chunks: readonly Uint8Array[]): void {
  for (let i = 0; i < COUNT; i++) {
    const cipher = createCipheriv("aes-256-gcm", key, iv.subarray(0, 12));
    cipher.update(chunks[i % chunks.length]!);
    cipher.final();
    cipher.getAuthTag();
  }
}

async function typage(chunks: readonly Uint8Array[]): Promise<void> {
  const source = memorySource(chunks, COUNT) as ReadableStream<Uint8Array<ArrayBuffer>>;
  await (await encrypter.encrypt(source)).pipeTo(new WritableStream());
}

async function rfc8188(chunks: readonly Uint8Array[]): Promise<void> {
  const source = memorySource(chunks, COUNT) as ReadableStream<ArrayBuffer & Uint8Array>;
  await (await encryptRecords(encodings.aes128gcm, source as never, 64 * KiB, new ArrayBuffer(0), key.buffer)).pipeTo(
    new WritableStream(),
  );
}
