/**
 * Sealed streams (B9): against their parts, and against other packages that encrypt and authenticate streams.
 *
 * Each contender is a process of its own: this script with the contender's name.
 *
 * @module
 */

import { encodings, encrypt as encryptRecords } from "@apeleghq/rfc8188";
import { Encrypter } from "age-encryption";
import { createCipheriv, createHmac } from "node:crypto";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { seal, type SealedFormatName, SealStream, UnsealStream } from "../mod.ts";
import {
  type ByteTransform,
  chunksOf,
  type Contender,
  freshStream,
  iv,
  key,
  KiB,
  memorySource,
  record,
  roundsOr,
  runBars,
  sampled,
  statisticsOf,
  takeProcesses,
  timed,
} from "./measure.ts";

const SIZE = 64 * KiB;
const COUNT = 400;

const encrypter = new Encrypter();
encrypter.setScryptWorkFactor(1);
encrypter.setPassphrase("of no importance");

const chunks = chunksOf(SIZE);
const [CTR, GCM] = ["AES256_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_64KB"] as const;

/** The inputs, created once. */
const CONTENDERS: Record<string, () => Contender | Promise<Contender>> = {
  seal: sealing(CTR),
  unseal: unsealing(CTR),
  "seal GCM": sealing(GCM),
  "unseal GCM": unsealing(GCM),
  "AES-CTR": () => timed(ctrLoop),
  HMAC: () => timed(hmacLoop),
  GCM: () => timed(gcmLoop),
  "fresh stream": () => timed(() => drain(chunks, freshStream())),
  typage: () => timed(typage),
  rfc8188: () => timed(rfc8188),
};

const [command, , name] = process.argv.slice(2);
if (command === "contender") {
  const contender = await CONTENDERS[name!]!();
  console.log(JSON.stringify(await sampled(contender, { rounds: roundsOr(11) })));
} else await runBars({ B9: measureSealed });

async function measureSealed(): Promise<void> {
  const work = "64 KiB";
  const script = fileURLToPath(import.meta.url);
  const samples = await takeProcesses<number, string>(script, work, Object.keys(CONTENDERS), 3);
  record({ bar: "B9", work, figures: statisticsOf(samples), unit: "s", per: SIZE * COUNT });
}

function sealing(format: SealedFormatName): () => Contender {
  return () => timed(() => drain(chunks, new SealStream({ key, format })));
}

function unsealing(format: SealedFormatName): () => Promise<Contender> {
  return async () => {
    const sealed = await sealedChunks(format);
    return timed(() => drain(sealed, new UnsealStream({ key, format })));
  };
}

async function sealedChunks(format: SealedFormatName): Promise<Uint8Array[]> {
  const list = Array.from({ length: COUNT }, (_, i) => chunks[i % chunks.length]! as Uint8Array<ArrayBuffer>);
  const whole = new Uint8Array(await new Blob(await Array.fromAsync(seal({ key, format }, list))).arrayBuffer());
  return Array.from({ length: Math.ceil(whole.length / SIZE) }, (_, i) => whole.slice(i * SIZE, (i + 1) * SIZE));
}

async function drain(chunks: readonly Uint8Array[], stream: ByteTransform): Promise<void> {
  const count = chunks.length > COUNT ? chunks.length : COUNT;
  await memorySource(chunks, count).pipeThrough(stream).pipeTo(new WritableStream());
}

function ctrLoop(): void {
  const cipher = createCipheriv("aes-256-ctr", key, iv);
  for (let i = 0; i < COUNT; i++) cipher.update(chunks[i % chunks.length]!);
  cipher.final();
}

function hmacLoop(): void {
  for (let i = 0; i < COUNT; i++) createHmac("sha256", key).update(chunks[i % chunks.length]!).digest();
}

function gcmLoop(): void {
  for (let i = 0; i < COUNT; i++) {
    const cipher = createCipheriv("aes-256-gcm", key, iv.subarray(0, 12));
    cipher.update(chunks[i % chunks.length]!);
    cipher.final();
    cipher.getAuthTag();
  }
}

async function typage(): Promise<void> {
  const source = memorySource(chunks, COUNT) as ReadableStream<Uint8Array<ArrayBuffer>>;
  await (await encrypter.encrypt(source)).pipeTo(new WritableStream());
}

async function rfc8188(): Promise<void> {
  const source = memorySource(chunks, COUNT) as ReadableStream<ArrayBuffer & Uint8Array>;
  await (await encryptRecords(encodings.aes128gcm, source as never, 64 * KiB, new ArrayBuffer(0), key.buffer)).pipeTo(
    new WritableStream(),
  );
}
