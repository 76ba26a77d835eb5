/**
 * Sealed streams over WebCrypto (B11): against a loop of WebCrypto calls with as many in flight, against the
 * synchronous engine, and against typage. `bench/runtimes.ts` runs it on each runtime, in browsers and in workerd.
 * Prints a line of JSON for each measurement.
 */
import { Decrypter, Encrypter } from "age-encryption";
import { type SealedFormatName, SealStream, UnsealStream } from "../mod.ts";
import { collect } from "../tests/support/bytes.ts";
import { runtime, test } from "../tests/support/deps.ts";

const SEGMENT = 65_536;
const COUNT = 512;
/** As many as a stream has. */
const IN_FLIGHT = 8;
const ROUNDS = 21;
const WARM_UP = 2;

type Bytes = Uint8Array<ArrayBuffer>;
type Engine = "webcrypto" | "userspace";
type Contender = () => Promise<unknown>;

const { subtle } = crypto;
const name = runtime as string;
const isServer = ["deno", "bun", "node"].includes(name);
const isRivalOfTypage = ["chromium", "firefox"].includes(name);
const key = new Uint8Array(32).map((_, i) => i + 1);
const input = new Uint8Array(SEGMENT * COUNT).map((_, i) => i >> 7);
const FORMATS = { "AES-GCM-HKDF": "AES256_GCM_HKDF_64KB", "AES-CTR-HMAC": "AES256_CTR_HMAC_SHA256_64KB" } as const;
const TAG = { "AES-GCM-HKDF": 16, "AES-CTR-HMAC": 32 } as const;

/** The loop's segments of an input; like a stream's, they share its memory. */
function piecesOf(bytes: Bytes, size = SEGMENT): Bytes[] {
  return Array.from({ length: Math.ceil(bytes.length / size) }, (_, i) => bytes.subarray(i * size, (i + 1) * size));
}

function streamOf(pieces: readonly Bytes[]): ReadableStream<Bytes> {
  let i = 0;
  return new ReadableStream({
    pull(controller) {
      if (i < pieces.length) controller.enqueue(pieces[i++]!);
      else controller.close();
    },
  });
}

const drain = (stream: ReadableStream<Uint8Array>) => stream.pipeTo(new WritableStream());

/** Works on the segments of a stream, with as many in flight as a sealed stream has, and writes them in order. */
async function loop(pieces: readonly Bytes[], work: Work): Promise<void> {
  const reader = streamOf(pieces).getReader();
  const writer = new WritableStream<Bytes>().getWriter();
  const running: Promise<Bytes>[] = [];
  for (let index = 0;; index++) {
    const { value } = await reader.read();
    if (value) running.push(work(value, index));
    if (running.length === IN_FLIGHT || !value) await writer.write(await running.shift()!);
    if (running.length === 0) return await writer.close();
  }
}

/** The calls of WebCrypto alone, for segments in memory. */
async function calls(pieces: readonly Bytes[], work: Work): Promise<void> {
  const running: Promise<Bytes>[] = [];
  for (const [i, piece] of pieces.entries()) {
    running.push(work(piece, i));
    if (running.length === IN_FLIGHT) await running.shift();
  }
  await Promise.all(running);
}

type Work = (piece: Bytes, index: number) => Promise<Bytes>;

interface Loop {
  readonly seal: Work;
  readonly open: Work;
}

function nonceOf(length: number, index: number): Bytes {
  const nonce = new Uint8Array(length);
  new DataView(nonce.buffer).setUint32(7, index);
  return nonce;
}

async function gcmLoop(): Promise<Loop> {
  const aes = await subtle.importKey("raw", key, "AES-GCM", false, ["encrypt", "decrypt"]);
  const gcm = (index: number) => ({ name: "AES-GCM", iv: nonceOf(12, index) });
  return {
    seal: async (piece, i) => new Uint8Array(await subtle.encrypt(gcm(i), aes, piece)),
    open: async (piece, i) => new Uint8Array(await subtle.decrypt(gcm(i), aes, piece)),
  };
}

async function ctrLoop(): Promise<Loop> {
  const aes = await subtle.importKey("raw", key, "AES-CTR", false, ["encrypt", "decrypt"]);
  const mac = await subtle.importKey("raw", key, { name: "HMAC", hash: "SHA-256" }, false, ["sign"]);
  const ctr = (index: number) => ({ name: "AES-CTR", counter: nonceOf(16, index), length: 32 });
  const tagOf = async (ciphertext: Bytes, index: number) => {
    const signed = new Uint8Array(16 + ciphertext.length);
    signed.set(nonceOf(16, index));
    signed.set(ciphertext, 16);
    return new Uint8Array(await subtle.sign("HMAC", mac, signed));
  };
  return {
    async seal(piece, i) {
      const sealed = new Uint8Array(piece.length + 32);
      const ciphertext = new Uint8Array(await subtle.encrypt(ctr(i), aes, piece));
      sealed.set(ciphertext);
      sealed.set(await tagOf(ciphertext, i), piece.length);
      return sealed;
    },
    async open(piece, i) {
      const ciphertext = piece.subarray(0, -32);
      const tag = await tagOf(ciphertext, i);
      if (tag.some((byte, j) => byte !== piece[ciphertext.length + j])) throw new Error("bad tag");
      return new Uint8Array(await subtle.decrypt(ctr(i), aes, ciphertext));
    },
  };
}

const LOOPS = { "AES-GCM-HKDF": gcmLoop, "AES-CTR-HMAC": ctrLoop };

/** The seconds of the contenders, in turns. */
async function measure(contenders: Record<string, Contender>): Promise<Record<string, number[]>> {
  const samples: Record<string, number[]> = {};
  const names = Object.keys(contenders);
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    for (let i = 0; i < names.length; i++) {
      const name = names[(i + Math.max(0, round)) % names.length]!;
      const begin = await now();
      await contenders[name]!();
      const seconds = (await now() - begin) / 1000;
      if (round >= 0) (samples[name] ??= []).push(seconds);
    }
  }
  return samples;
}

/** In workerd, the clock advances only at I/O, such as a timer. */
async function now(): Promise<number> {
  await new Promise((resolve) => setTimeout(resolve, 0));
  return performance.now();
}

function print(work: string, samples: Record<string, number[]>, unit: "s" | "ticks" = "s"): void {
  console.log(`b11 ${JSON.stringify({ runtime: name, work, unit, per: input.length, samples })}`);
}

/** How often a timer of 1 ms fires in a second, with and without an action beside it. */
async function ticks(action: Contender): Promise<number> {
  let count = 0;
  const timer = setInterval(() => count++, 1);
  const begin = performance.now();
  while (performance.now() - begin < 1000) await action();
  clearInterval(timer);
  return count / ((performance.now() - begin) / 1000);
}

for (const cipher of ["AES-GCM-HKDF", "AES-CTR-HMAC"] as const) {
  const format: SealedFormatName = FORMATS[cipher];
  const options = (engine: Engine) => ({ key, format, engine });

  test(`B11: ${cipher}`, { engine: "userspace", sanitize: false }, async () => {
    const chunks = piecesOf(input);
    const sealed = piecesOf(await collect(streamOf(chunks).pipeThrough(new SealStream(options("webcrypto")))));
    const { seal, open } = await LOOPS[cipher]();
    const plaintexts = piecesOf(input, SEGMENT - TAG[cipher]);
    const loopSealed: Bytes[] = [];
    for (const [i, piece] of plaintexts.entries()) loopSealed.push(await seal(piece, i));
    const sealing = (engine: Engine) => () => drain(streamOf(chunks).pipeThrough(new SealStream(options(engine))));
    const unsealing = (engine: Engine) => () => drain(streamOf(sealed).pipeThrough(new UnsealStream(options(engine))));
    print(
      `${cipher}, seal`,
      await measure({
        stream: sealing("webcrypto"),
        loop: () => loop(plaintexts, seal),
        calls: () => calls(plaintexts, seal),
        ...(isServer && { userspace: sealing("userspace") }),
      }),
    );
    print(
      `${cipher}, unseal`,
      await measure({
        stream: unsealing("webcrypto"),
        loop: () => loop(loopSealed, open),
        calls: () => calls(loopSealed, open),
        ...(isServer && { userspace: unsealing("userspace") }),
      }),
    );
    if (name !== "deno") return;
    const idle = () => new Promise((resolve) => setTimeout(resolve, 10));
    const samples: Record<string, number[]> = { idle: [], seal: [], unseal: [] };
    for (let round = 0; round < 3; round++) {
      samples.idle!.push(await ticks(idle));
      samples.seal!.push(await ticks(sealing("webcrypto")));
      samples.unseal!.push(await ticks(unsealing("webcrypto")));
    }
    print(`${cipher}, a timer of 1 ms beside it`, samples, "ticks");
  });
}

const rival = {
  engine: "userspace",
  sanitize: false,
  needs: { "a browser that is compared": isRivalOfTypage },
} as const;

test("B11: typage", rival, async () => {
  const chunks = piecesOf(input);
  const format = FORMATS["AES-GCM-HKDF"];
  const encrypter = new Encrypter();
  encrypter.setScryptWorkFactor(1);
  encrypter.setPassphrase("of no importance");
  const decrypter = new Decrypter();
  decrypter.addPassphrase("of no importance");
  const sealed = piecesOf(await collect(streamOf(chunks).pipeThrough(new SealStream({ key, format }))));
  const encrypted = piecesOf(await collect(await encrypter.encrypt(streamOf(chunks))));
  print(
    "typage, seal",
    await measure({
      stream: () => drain(streamOf(chunks).pipeThrough(new SealStream({ key, format }))),
      typage: async () => drain(await encrypter.encrypt(streamOf(chunks))),
    }),
  );
  print(
    "typage, unseal",
    await measure({
      stream: () => drain(streamOf(sealed).pipeThrough(new UnsealStream({ key, format }))),
      typage: async () => drain(await decrypter.decrypt(streamOf(encrypted))),
    }),
  );
});
