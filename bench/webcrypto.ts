/**
 * Segments of both formats of sealed streams over WebCrypto, with several in flight at once: `bench/webcrypto` runs it
 * on each runtime, in browsers and in workerd. Prints a line of JSON for each combination; no stream is involved.
 */
import { runtime, test } from "../tests/support/deps.ts";

const IN_FLIGHT = [1, 2, 4, 8, 16];
/** The values of `IN_FLIGHT` are measured one after another in each round, so that other load affects all of them. */
const ROUNDS = 3;
/** The approximate milliseconds of a measurement. */
const TARGET = 200;
const TAG = { "AES-GCM-HKDF": 16, "AES-CTR-HMAC": 32 };

type Cipher = keyof typeof TAG;
/** Seals or opens one segment. */
type Work = () => Promise<void>;

const { subtle } = crypto;

for (const cipher of ["AES-GCM-HKDF", "AES-CTR-HMAC"] as const) {
  for (const segmentSize of [65_536, 1_048_576]) {
    for (const direction of ["seal", "open"] as const) {
      const name = `${cipher}, segments of ${segmentSize / 1024} KiB, ${direction}`;
      test(name, { engine: "userspace", sanitize: false }, async () => {
        const work = (await workOf(cipher, segmentSize))[direction];
        const rates = await measure(work, segmentSize - TAG[cipher]);
        console.log(`webcrypto ${JSON.stringify({ runtime, cipher, segmentSize, direction, rates })}`);
      });
    }
  }
}

/** For each number in flight, the MB/s of the rounds. */
async function measure(work: Work, size: number): Promise<Record<number, number[]>> {
  let count = 4;
  await run(work, count, 4); // warm
  for (let time = 0; time < TARGET / 3; count *= 2) time = await run(work, count, 4);
  const rates: Record<number, number[]> = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const inFlight of IN_FLIGHT) {
      const time = await run(work, count, inFlight);
      (rates[inFlight] ??= []).push(Math.round(count * size / time / 1000));
    }
  }
  return rates;
}

/** Milliseconds that `count` segments take with `inFlight` of them at once. */
async function run(work: Work, count: number, inFlight: number): Promise<number> {
  // In workerd, the clock advances only at I/O, such as a timer.
  const now = async () => {
    await new Promise((resolve) => setTimeout(resolve, 0));
    return performance.now();
  };
  let left = count;
  const begin = await now();
  await Promise.all(Array.from({ length: inFlight }, async () => {
    while (left-- > 0) await work();
  }));
  return await now() - begin;
}

async function workOf(cipher: Cipher, segmentSize: number): Promise<{ seal: Work; open: Work }> {
  const plaintext = new Uint8Array(segmentSize - TAG[cipher]).map((_, i) => i >> 3);
  if (cipher === "AES-GCM-HKDF") {
    const key = await subtle.importKey("raw", new Uint8Array(32), "AES-GCM", false, ["encrypt", "decrypt"]);
    const gcm = { name: "AES-GCM", iv: new Uint8Array(12) };
    const sealed = await subtle.encrypt(gcm, key, plaintext);
    return {
      seal: async () => void await subtle.encrypt(gcm, key, plaintext),
      open: async () => void await subtle.decrypt(gcm, key, sealed),
    };
  }
  const key = await subtle.importKey("raw", new Uint8Array(32), "AES-CTR", false, ["encrypt", "decrypt"]);
  const hmac = { name: "HMAC", hash: "SHA-256" };
  const mac = await subtle.importKey("raw", new Uint8Array(32), hmac, false, ["sign"]);
  const ctr = { name: "AES-CTR", counter: new Uint8Array(16), length: 32 };
  const tagOf = async (ciphertext: Uint8Array) => {
    const signed = new Uint8Array(16 + ciphertext.length);
    signed.set(ciphertext, 16);
    return new Uint8Array(await subtle.sign("HMAC", mac, signed));
  };
  const seal = async () => {
    const ciphertext = new Uint8Array(await subtle.encrypt(ctr, key, plaintext));
    const sealed = new Uint8Array(segmentSize);
    sealed.set(ciphertext);
    sealed.set(await tagOf(ciphertext), ciphertext.length);
    return sealed;
  };
  const sealed = await seal();
  return {
    seal: async () => void await seal(),
    async open() {
      const ciphertext = sealed.subarray(0, plaintext.length);
      const tag = await tagOf(ciphertext);
      if (tag.some((byte, i) => byte !== sealed[ciphertext.length + i])) throw new Error("bad tag");
      await subtle.decrypt(ctr, key, ciphertext);
    },
  };
}
