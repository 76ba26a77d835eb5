/**
 * AES-GCM of whole messages, against node:crypto, @noble/ciphers, Python's cryptography and the vectors of GCM's
 * authors; and what is not authentic.
 *
 * FC_SEED and FC_PATH repeat a run that failed; FC_RUNS is the number of runs of each test.
 */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { createCipheriv } from "node:crypto";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { gcm } from "@noble/ciphers/aes.js";
import fc from "fast-check";
import {
  CipherHandle,
  type CipherStreamOptions,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
  WorkerPool,
} from "../mod.ts";
import { checkGcm } from "../src/cipher/gcm_options.ts";
import { GcmTransform } from "../src/cipher/gcm_transform.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertStringIncludes,
  assertThrows,
  runtime,
  seed,
  tempDir,
  test as anyTest,
  type TestBody,
  times,
} from "./support/deps.ts";
import {
  type Bytes,
  bytes,
  caught,
  collect,
  collectGarbage,
  concat,
  cut,
  fromHex,
  outcomes,
  streamOf,
  WINDOW,
} from "./support/support.ts";

const RUNS = Number(process.env.FC_RUNS ?? times(80, 1_000));
console.log(`gcm_test: seed ${seed}`);

const test = (name: string, body: TestBody) => anyTest(name, { engine: "userspace" }, body);

function property<T extends [unknown, ...unknown[]]>(
  arbitraries: { [K in keyof T]: fc.Arbitrary<T[K]> },
  body: (...values: T) => Promise<void> | void,
): Promise<void> {
  const path = process.env.FC_PATH;
  return Promise.resolve(fc.assert(
    fc.asyncProperty(...arbitraries, async (...values: T) => await body(...values)),
    { numRuns: RUNS, seed, ...(path && { path }) },
  ));
}

// ---- messages -----------------------------------------------------------------------------------------------------

interface Message {
  readonly key: Bytes;
  readonly iv: Bytes;
  readonly associatedData: Bytes;
  readonly plaintext: Bytes;
  readonly tagSize: number;
}

const TAG_SIZES = [4, 8, 12, 13, 14, 15, 16];
/** Deno's node:crypto has no AES-192-GCM. */
const KEY_SIZES = runtime === "deno" ? [16, 32] : [16, 24, 32];

const seeded = (sizes: fc.Arbitrary<number>) =>
  fc.tuple(sizes, fc.nat(1000)).map(([size, seed]) => bytes(size, seed + 2));

const MESSAGE: fc.Arbitrary<Message> = fc.record({
  key: seeded(fc.constantFrom(...KEY_SIZES)),
  iv: seeded(fc.oneof(fc.constant(12), fc.integer({ min: 1, max: 128 }))),
  associatedData: seeded(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 100 }))),
  plaintext: seeded(fc.oneof(fc.integer({ min: 0, max: 100 }), fc.integer({ min: 0, max: 3 * WINDOW }))),
  tagSize: fc.constantFrom(...TAG_SIZES),
});

const CHUNKS = fc.array(fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 300_000 })), {
  minLength: 1,
  maxLength: 6,
});

function sealed({ key, iv, associatedData, plaintext, tagSize }: Message): { ciphertext: Bytes; tag: Bytes } {
  const name = `aes-${8 * key.length}-gcm` as "aes-256-gcm";
  const cipher = createCipheriv(name, key, iv, { authTagLength: tagSize });
  cipher.setAAD(associatedData);
  const ciphertext = concat([cipher.update(plaintext), cipher.final()]);
  return { ciphertext, tag: new Uint8Array(cipher.getAuthTag()) };
}

const MESSAGE_1: Message = {
  key: bytes(32, 1),
  iv: bytes(12, 2),
  associatedData: bytes(7, 3),
  plaintext: bytes(1000, 4),
  tagSize: 16,
};

/** The options of a message, whose tag is at the end. */
function optionsOf({ key, iv, associatedData, tagSize }: Message): CipherStreamOptions {
  return { key, iv, associatedData, tagSize };
}

/** Small chunks are many: their number is limited. */
function chunksOf(input: Bytes, sizes: readonly number[]): Iterable<Bytes> {
  const least = Math.ceil(input.length / 200);
  return cut(input, sizes.map((size) => Math.max(size, least)), { copied: true });
}

// ---- other implementations ----------------------------------------------------------------------------------------

test("any message in any chunks is what node:crypto makes of it, and back", () =>
  property([MESSAGE, CHUNKS, fc.boolean()], async (message, sizes, isStream) => {
    const { ciphertext, tag } = sealed(message);
    const options = optionsOf(message);
    const through = (Stream: typeof EncryptionStream | typeof DecryptionStream, input: Bytes) =>
      collect(streamOf(chunksOf(input, sizes)).pipeThrough(new Stream("gcm(aes)", options)));
    const expected = concat([ciphertext, tag]);
    if (isStream) {
      assertEquals(await through(EncryptionStream, message.plaintext), expected);
      assertEquals(await through(DecryptionStream, expected), message.plaintext);
    } else {
      assertEquals(await collect(encrypt("gcm(aes)", options, chunksOf(message.plaintext, sizes))), expected);
      assertEquals(await collect(decrypt("gcm(aes)", options, chunksOf(expected, sizes))), message.plaintext);
    }
    const released = decrypt("gcm(aes)", { ...options, releaseUnverified: true }, chunksOf(expected, sizes));
    assertEquals(await collect(released), message.plaintext);
  }));

test("a tag in front or apart, and a random IV in front, come back, in any chunks", () => {
  const places = fc.constantFrom("end" as const, "start" as const, "detached" as const);
  return property([MESSAGE, CHUNKS, places, fc.boolean()], async (message, sizes, tag, ivPrefix) => {
    const { iv, ...rest } = optionsOf(message);
    const options = ivPrefix ? { ...rest, ivPrefix } : { ...rest, iv: iv! };
    const encryption = encrypt("gcm(aes)", { ...options, tag }, chunksOf(message.plaintext, sizes));
    const output = await collect(encryption);
    const detached = await encryption.tag!;
    const { tagSize } = message;
    const ivSize = ivPrefix ? 12 : 0;
    const expected = sealed({ ...message, iv: ivPrefix ? output.slice(0, 12) : message.iv });
    assertEquals(detached, expected.tag);
    const parts = {
      end: [expected.ciphertext, expected.tag],
      start: [expected.tag, expected.ciphertext],
      detached: [expected.ciphertext],
    };
    assertEquals(output.slice(ivSize), concat(parts[tag]));
    for (const releaseUnverified of [false, true]) {
      const given = tag === "detached" ? { tag: detached, tagSize } : { tag };
      const decryption = decrypt("gcm(aes)", { ...options, ...given, releaseUnverified }, chunksOf(output, sizes));
      assertEquals(await collect(decryption), message.plaintext);
    }
  });
});

/** Vectors 4 to 6, 10 and 16 of "The Galois/Counter Mode of Operation" (McGrew and Viega), which NIST took over. */
const VECTORS = [
  {
    key: "feffe9928665731c6d6a8f9467308308",
    iv: "cafebabefacedbaddecaf888",
    ciphertext: "42831ec2217774244b7221b784d0d49ce3aa212f2c02a4e035c17e2329aca12e21d514b25466931c7d8f6a5aac84aa05" +
      "1ba30b396a0aac973d58e091",
    tag: "5bc94fbc3221a5db94fae95ae7121a47",
  },
  {
    key: "feffe9928665731c6d6a8f9467308308",
    iv: "cafebabefacedbad",
    ciphertext: "61353b4c2806934a777ff51fa22a4755699b2a714fcdc6f83766e5f97b6c742373806900e49f24b22b097544d4896b42" +
      "4989b5e1ebac0f07c23f4598",
    tag: "3612d2e79e3b0785561be14aaca2fccb",
  },
  {
    key: "feffe9928665731c6d6a8f9467308308",
    iv: "9313225df88406e555909c5aff5269aa6a7a9538534f7da1e4c303d2a318a728c3c0c95156809539fcf0e2429a6b525416aedbf5" +
      "a0de6a57a637b39b",
    ciphertext: "8ce24998625615b603a033aca13fb894be9112a5c3a211a8ba262a3cca7e2ca701e4a9a4fba43c90ccdcb281d48c7c6f" +
      "d62875d2aca417034c34aee5",
    tag: "619cc5aefffe0bfa462af43c1699d050",
  },
  {
    key: "feffe9928665731c6d6a8f9467308308feffe9928665731c",
    iv: "cafebabefacedbaddecaf888",
    ciphertext: "3980ca0b3c00e841eb06fac4872a2757859e1ceaa6efd984628593b40ca1e19c7d773d00c144c525ac619d18c84a3f47" +
      "18e2448b2fe324d9ccda2710",
    tag: "2519498e80f1478f37ba55bd6d27618c",
  },
  {
    key: "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
    iv: "cafebabefacedbaddecaf888",
    ciphertext: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838" +
      "c5f61e6393ba7a0abcc9f662",
    tag: "76fc6ece0f4e1768cddf8853bb2d551b",
  },
];

test("the vectors of GCM's authors", async () => {
  const plaintext = fromHex(
    "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a721c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657" +
      "ba637b39",
  );
  const associatedData = fromHex("feedfacedeadbeeffeedfacedeadbeefabaddad2");
  for (const { key, iv, ciphertext, tag } of VECTORS) {
    const options = { key: fromHex(key), iv: fromHex(iv), associatedData };
    const message = fromHex(ciphertext + tag);
    assertEquals(await collect(encrypt("gcm(aes)", options, plaintext)), message);
    assertEquals(await collect(decrypt("gcm(aes)", options, message)), plaintext);
  }
});

test("@noble/ciphers reads what is encrypted here, and the other way round", () =>
  property([MESSAGE.filter(({ iv }) => iv.length >= 8), CHUNKS], async (message, sizes) => {
    const { key, iv, associatedData, plaintext } = { ...message, plaintext: message.plaintext.slice(0, 5000) };
    const options = { key, iv, associatedData };
    const theirs = gcm(key, iv, associatedData);
    const ours = await collect(encrypt("gcm(aes)", options, chunksOf(plaintext, sizes)));
    assertEquals(new Uint8Array(theirs.decrypt(ours)), plaintext);
    const back = decrypt("gcm(aes)", options, chunksOf(new Uint8Array(theirs.encrypt(plaintext)), sizes));
    assertEquals(await collect(back), plaintext);
  }));

const python = "/usr/bin/python3";
const hasPython = spawnSync(python, ["-c", "import cryptography"]).status === 0;

anyTest("Python's cryptography reads what is encrypted here, and the other way round", {
  engine: "userspace",
  needs: { "Python's cryptography": hasPython },
}, async () => {
  const messages = fc.sample(MESSAGE.filter(({ iv }) => iv.length >= 8), { numRuns: RUNS, seed })
    .map((message) => ({ ...message, plaintext: message.plaintext.slice(0, 5000) }));
  const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString("base64");
  const tasks: object[] = [];
  for (const message of messages) {
    const { key, iv, associatedData, plaintext, tagSize } = message;
    const common = { key: base64(key), iv: base64(iv), aad: base64(associatedData) };
    const ours = await collect(encrypt("gcm(aes)", optionsOf(message), plaintext));
    const [ciphertext, tag] = [ours.slice(0, plaintext.length), ours.slice(plaintext.length)];
    tasks.push({ ...common, tagSize, plaintext: base64(plaintext) });
    tasks.push({ ...common, ciphertext: base64(ciphertext), tag: base64(tag) });
  }
  const file = join(tempDir(), "tasks"); // not standard input: Deno would write all of it before it reads
  writeFileSync(file, tasks.map((task) => `${JSON.stringify(task)}\n`).join(""));
  const script = fileURLToPath(new URL("native/gcm.py", import.meta.url));
  const { stdout, stderr, status } = spawnSync(python, [script, file], { maxBuffer: 1 << 28 });
  assertEquals(status, 0, stderr.toString());
  const answers = stdout.toString().trim().split("\n").map((line) => JSON.parse(line) as Record<string, string>);
  assertEquals(answers.length, tasks.length);
  for (const [i, message] of messages.entries()) {
    const [theirs, read] = [answers[2 * i]!, answers[2 * i + 1]!];
    assertEquals(read["plaintext"], base64(message.plaintext));
    const input = concat([Buffer.from(theirs["ciphertext"]!, "base64"), Buffer.from(theirs["tag"]!, "base64")]);
    assertEquals(await collect(decrypt("gcm(aes)", optionsOf(message), input)), message.plaintext);
  }
});

// ---- WebCrypto ----------------------------------------------------------------------------------------------------

test("WebCrypto gives the same bytes, or says before any output which sizes it refuses", () => {
  const places = fc.constantFrom("end" as const, "start" as const, "detached" as const);
  return property([MESSAGE, CHUNKS, places], async (message, sizes, tag) => {
    const options = { ...optionsOf(message), engine: "webcrypto" } as const;
    const encryption = encrypt("gcm(aes)", { ...options, tag }, chunksOf(message.plaintext, sizes));
    assertEquals(encryption.engine, "webcrypto");
    const output = await caught(collect(encryption).then((output) => Promise.reject(output)));
    const expected = sealed(message);
    const given = tag === "detached" ? { tag: expected.tag } : { tag };
    const parts = { end: [1, 2], start: [2, 1], detached: [1] }[tag].map((i) =>
      i === 1 ? expected.ciphertext : expected.tag
    );
    const decryption = decrypt("gcm(aes)", { ...options, ...given }, chunksOf(concat(parts), sizes));
    const back = await caught(collect(decryption).then((output) => Promise.reject(output)));
    if (output instanceof KcapiError) {
      assert(message.iv.length !== 12 || message.tagSize !== 16);
      for (const error of [output, back]) {
        assertInstanceOf(error, KcapiError);
        assertEquals(error.code, "EINVAL");
        assertStringIncludes(error.message, 'use engine "userspace"');
      }
      return;
    }
    assertEquals(output as Bytes, concat(parts));
    assertEquals(await encryption.tag, expected.tag);
    assertEquals(back as Bytes, message.plaintext);
  });
});

test("AES-192 runs in each runtime, with auto", async () => {
  const message = { ...MESSAGE_1, key: bytes(24, 9) };
  const encryption = encrypt("gcm(aes)", optionsOf(message), message.plaintext);
  assertEquals(encryption.engine, runtime === "deno" ? "webcrypto" : "userspace");
  const output = await collect(encryption);
  assertEquals(output, new Uint8Array(gcm(message.key, message.iv, message.associatedData).encrypt(message.plaintext)));
  assertEquals(await collect(decrypt("gcm(aes)", optionsOf(message), output)), message.plaintext);
  if (runtime !== "deno") return;
  const error = await caught(collect(decrypt("gcm(aes)", { ...optionsOf(message), releaseUnverified: true }, output)));
  assertInstanceOf(error, KcapiError);
  assertEquals(error.code, "ENOENT");
});

// ---- what is not authentic ----------------------------------------------------------------------------------------

const ENGINES = ["userspace", "webcrypto"] as const;

/** What comes out before the error, and the error. */
async function outputAndError(output: AsyncIterable<Bytes>): Promise<[Bytes, unknown]> {
  const pieces: Bytes[] = [];
  try {
    for await (const piece of output) pieces.push(piece);
  } catch (error) {
    return [concat(pieces), error];
  }
  return [concat(pieces), undefined];
}

const LAYOUTS: Record<string, Partial<CipherStreamOptions>> = {
  "the tag at the end": {},
  "IV and tag in front": { ivPrefix: true, tag: "start" },
  "the IV in front": { ivPrefix: true },
};

for (const [layout, extra] of Object.entries(LAYOUTS)) {
  const { iv, ...rest } = optionsOf(MESSAGE_1);
  const options = { ...rest, ...extra.ivPrefix ? {} : { iv: iv! }, ...extra };
  const plaintext = bytes(20, 8);

  test(`${layout}: nothing comes out of a message with a changed bit, or that is cut short or longer`, async () => {
    const whole = await collect(encrypt("gcm(aes)", options, plaintext));
    const bad = [
      ...Array.from(
        { length: 8 * whole.length },
        (_, i) => whole.map((byte, j) => j === i >> 3 ? byte ^ 1 << i % 8 : byte),
      ),
      ...Array.from({ length: whole.length }, (_, i) => whole.slice(0, i)),
      ...Array.from({ length: whole.length }, (_, i) => whole.slice(i + 1)),
      concat([whole, bytes(1)]),
      concat([whole, whole]),
    ];
    for (const [i, message] of bad.entries()) {
      for (const engine of i % 7 === 0 ? ENGINES : ["userspace"] as const) {
        const [output, error] = await outputAndError(decrypt("gcm(aes)", { ...options, engine }, cut(message, [7])));
        assertEquals(output.length, 0);
        assertInstanceOf(error, KcapiError);
        assertEquals([error.code, error.operation], ["EBADMSG", "decrypt"]);
      }
      const released = decrypt("gcm(aes)", { ...options, releaseUnverified: true }, cut(message, [7]));
      const [output, error] = await outputAndError(released);
      assert(output.length <= message.length);
      assertEquals((error as KcapiError).code, "EBADMSG");
    }
  });
}

test("a wrong key, IV, tag or associated data is one error with one text", async () => {
  const { ciphertext, tag } = sealed(MESSAGE_1);
  const good = { ...optionsOf(MESSAGE_1), tag };
  const texts = new Set<string>();
  const wrong: Partial<CipherStreamOptions>[] = [
    { key: bytes(32, 99) },
    { iv: bytes(12, 99) },
    { iv: bytes(13, 2) },
    { associatedData: bytes(8, 3) },
    { associatedData: undefined },
    { tag: bytes(16, 99) },
  ];
  for (const engine of ENGINES) {
    for (const options of wrong) {
      const [output, error] = await outputAndError(decrypt("gcm(aes)", { ...good, ...options, engine }, ciphertext));
      assertEquals(output.length, 0);
      const isRefused = (error as KcapiError).code === "EINVAL"; // WebCrypto in Deno takes no IV of 13 bytes
      if (!isRefused) texts.add((error as KcapiError).message);
    }
  }
  assertEquals(texts.size, 1);
  assertStringIncludes([...texts][0]!, "EBADMSG");
});

test("releaseUnverified gives the bytes before the end, and the error at the end", async () => {
  const { ciphertext, tag } = sealed({ ...MESSAGE_1, plaintext: bytes(100_000, 4) });
  const stream = new DecryptionStream("gcm(aes)", { ...optionsOf(MESSAGE_1), releaseUnverified: true });
  const writer = stream.writable.getWriter();
  const reader = stream.readable.getReader();
  const writing = writer.write(ciphertext);
  const { value } = await reader.read();
  assertEquals(value, bytes(100_000, 4).subarray(0, value!.length));
  assert(value!.length >= 90_000);
  await writing;
  tag[3]! ^= 1;
  const ends = [
    writer.write(tag).then(() => writer.close()),
    (async () => {
      while (!(await reader.read()).done);
    })(),
  ];
  for (const end of await outcomes(...ends)) {
    assertEquals(end.state, "rejected");
    assertEquals(((end as { reason: unknown }).reason as KcapiError).code, "EBADMSG");
  }
});

// ---- sizes --------------------------------------------------------------------------------------------------------

test("maxSize is the most that is held, to the byte, and its error names the other ways", async () => {
  for (const engine of ENGINES) {
    for (const size of [0, 1, 15, 16, 17, 300_000]) {
      const message = { ...MESSAGE_1, plaintext: bytes(size, 5) };
      const whole = await collect(encrypt("gcm(aes)", optionsOf(message), message.plaintext));
      const options = { ...optionsOf(message), engine };
      for (const chunk of [7 + size, 100_000]) {
        const chunks = (bytes: Bytes) => cut(bytes, [chunk]);
        assertEquals(
          await collect(decrypt("gcm(aes)", { ...options, maxSize: size }, chunks(whole))),
          message.plaintext,
        );
        if (size === 0) continue;
        const [output, error] = await outputAndError(
          decrypt("gcm(aes)", { ...options, maxSize: size - 1 }, chunks(whole)),
        );
        assertEquals(output.length, 0);
        assertInstanceOf(error, KcapiError);
        assertEquals(error.code, "EMSGSIZE");
        for (const word of ["openGcm()", "releaseUnverified", "maxSize"]) assertStringIncludes(error.hint!, word);
        // An encryption holds nothing, unless the tag comes first.
        const start = { ...options, maxSize: size - 1, tag: "start" } as const;
        assertEquals(
          ((await caught(collect(encrypt("gcm(aes)", start, message.plaintext)))) as KcapiError).code,
          "EMSGSIZE",
        );
      }
    }
  }
  const unlimited = encrypt("gcm(aes)", { ...optionsOf(MESSAGE_1), maxSize: 0 }, MESSAGE_1.plaintext);
  assertEquals((await collect(unlimited)).length, 1016);
});

test("maxSize ends the stream when it is exceeded, and not at the end of the input", async () => {
  let given = 0;
  const endless = function* () {
    for (;;) yield bytes(50_000, ++given);
  };
  const error = await caught(collect(decrypt("gcm(aes)", { ...optionsOf(MESSAGE_1), maxSize: 200_000 }, endless())));
  assertEquals((error as KcapiError).code, "EMSGSIZE");
  assert(given <= 6, `${given}`);
});

test("a message that is too long for GCM is an error before its output", () => {
  for (const direction of ["encrypt", "decrypt"] as const) {
    const plan = { ...checkGcm(direction, { ...optionsOf(MESSAGE_1), releaseUnverified: true }), limit: 1000 };
    const transform = new GcmTransform(plan);
    transform.write([bytes(1000 + 16)]);
    if (direction === "decrypt") {
      assertEquals(transform.read()?.length, 1000);
      transform.write([bytes(1)]);
    }
    const error = assertThrows(() => transform.read(), KcapiError, "after 1000 bytes");
    assertEquals(error.code, "EOVERFLOW");
  }
  assertEquals(checkGcm("encrypt", optionsOf(MESSAGE_1)).limit, 64 * 2 ** 30 - 32);
});

// ---- flow ---------------------------------------------------------------------------------------------------------

test("F2: the output of a large chunk comes in windows, as the reader asks", async () => {
  const stream = new EncryptionStream("gcm(aes)", optionsOf(MESSAGE_1));
  const writing = stream.writable.getWriter().write(bytes(10 * WINDOW));
  const reader = stream.readable.getReader();
  for (let i = 0; i < 9; i++) assertEquals((await reader.read()).value!.length, WINDOW);
  assertEquals((await outcomes(writing))[0]!.state, "pending");
  writing.catch(() => {});
  await reader.cancel();
  assertNotEquals((await outcomes(writing))[0]!.state, "pending");
});

test("a message that is held gives the event loop its turns", async () => {
  let ticks = 0;
  const timer = setInterval(() => ticks++, 1);
  const chunk = bytes(1 << 20);
  const source = function* () {
    for (let i = 0; i < 60; i++) yield chunk;
  };
  try {
    const error = await caught(collect(decrypt("gcm(aes)", optionsOf(MESSAGE_1), source())));
    assertEquals((error as KcapiError).code, "EBADMSG");
    assert(ticks >= 2, `${ticks}`);
  } finally {
    clearInterval(timer);
  }
});

test("the chunks that come in stay unchanged, and what comes out is the reader's", () =>
  property([CHUNKS], async (sizes) => {
    const input = bytes(50_000, 3);
    const copy = input.slice();
    const options = optionsOf(MESSAGE_1);
    const spoiling = async (output: AsyncIterable<Bytes>) => {
      const pieces: Bytes[] = [];
      for await (const piece of output) {
        pieces.push(piece.slice());
        piece.fill(0xee);
      }
      return concat(pieces);
    };
    const whole = await spoiling(encrypt("gcm(aes)", options, cut(input, sizes)));
    assertEquals(input, copy);
    const copyOfWhole = whole.slice();
    assertEquals(await spoiling(decrypt("gcm(aes)", options, cut(whole, sizes))), copy);
    assertEquals(whole, copyOfWhole);
  }));

test("aborts, cancels and failing sources at every point end both sides, and the tag", async () => {
  const whole = await collect(encrypt("gcm(aes)", optionsOf(MESSAGE_1), MESSAGE_1.plaintext));
  const reason = new Error("left");
  for (const Stream of [EncryptionStream, DecryptionStream]) {
    for (const engine of ENGINES) {
      for (let written = 0; written <= 4; written++) {
        for (const way of ["signal", "abort", "cancel"] as const) {
          const abort = new AbortController();
          const stream = new Stream("gcm(aes)", { ...optionsOf(MESSAGE_1), engine, signal: abort.signal });
          const writer = stream.writable.getWriter();
          const reader = stream.readable.getReader();
          writer.closed.catch(() => {});
          reader.closed.catch(() => {});
          for (let i = 0; i < written; i++) writer.write(whole.subarray(254 * i, 254 * i + 254)).catch(() => {});
          const reading = way === "cancel" ? undefined : (async () => {
            while (!(await reader.read()).done);
          })();
          reading?.catch(() => {});
          if (written === 4) writer.close().catch(() => {});
          if (way === "signal") abort.abort(reason);
          if (way === "abort") writer.abort(reason).catch(() => {});
          if (way === "cancel") await reader.cancel(reason);
          const [ending] = await outcomes(reading ?? Promise.resolve());
          assertNotEquals(ending!.state, "pending");
          const tag = (stream as EncryptionStream).tag;
          if (tag) assertNotEquals((await outcomes(tag))[0]!.state, "pending");
        }
      }
    }
  }
});

test("a failing source is the error of a decryption, and nothing of the message comes out", async () => {
  const { ciphertext } = sealed(MESSAGE_1);
  for (const engine of ENGINES) {
    const source = function* () {
      yield ciphertext;
      throw new Error("the source failed");
    };
    const [output, error] = await outputAndError(decrypt("gcm(aes)", { ...optionsOf(MESSAGE_1), engine }, source()));
    assertEquals(output.length, 0);
    assertEquals((error as Error).message, "the source failed");
  }
});

/** The arrays into which something was copied while `use` ran. */
async function arraysWritten(use: () => Promise<void> | void): Promise<Uint8Array[]> {
  const written = new Set<Uint8Array>();
  const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;
  const { set } = typedArray;
  typedArray.set = function (...values) {
    written.add(this);
    set.apply(this, values);
  };
  try {
    await use();
  } finally {
    typedArray.set = set;
  }
  return [...written];
}

test("plaintext that is held is zeroed if it is forged, if the stream is closed, and if it is dropped", async () => {
  const plaintext = bytes(400_000, 77);
  const { ciphertext, tag } = sealed({ ...MESSAGE_1, plaintext });
  const pieces = [0, 5_000, 399_968].map((at) => Buffer.from(plaintext.subarray(at, at + 32)));
  const left = (arrays: Uint8Array[]) =>
    arrays.filter(({ buffer }) => pieces.some((piece) => Buffer.from(buffer).includes(piece))).length;
  const hold = () => {
    const transform = new GcmTransform(checkGcm("decrypt", optionsOf(MESSAGE_1)));
    transform.write([ciphertext]);
    while (transform.pending) assertEquals(transform.read(), undefined);
    return transform;
  };
  let kept: GcmTransform | undefined;
  const alive = await arraysWritten(() => void (kept = hold()));
  assert(left(alive) >= 2);
  kept!.close();
  assertEquals(left(alive), 0);
  const forged = await arraysWritten(() => {
    const transform = hold();
    transform.write([tag.with(0, tag[0]! ^ 1)]);
    while (transform.pending) transform.read();
    transform.end();
    assertThrows(() => transform.read(), KcapiError, "not authentic");
  });
  assertEquals(left(forged), 0);
  const drop: Record<string, () => Promise<void> | void> = {
    "a transform": () => void hold(),
    // A signal that nobody else refers to does not keep a stream alive whose reader waits.
    "a stream with a signal": async () => {
      const stream = new DecryptionStream("gcm(aes)", {
        ...optionsOf(MESSAGE_1),
        signal: new AbortController().signal,
      });
      stream.readable.getReader().read().catch(() => {});
      await stream.writable.getWriter().write(ciphertext);
    },
  };
  for (const [what, leave] of Object.entries(drop)) {
    const dropped = await arraysWritten(async () => {
      for (let i = 0; i < 10; i++) await leave();
    });
    const before = left(dropped);
    assert(before >= 20, what);
    // The stack may still refer to some of them.
    await collectGarbage(() => left(dropped) < before / 2);
    assert(left(dropped) < before / 2, what);
  }
});

test("two encryptions with ivPrefix have different IVs", async () => {
  const options = { key: MESSAGE_1.key, ivPrefix: true };
  const [one, other] = [
    await collect(encrypt("gcm(aes)", options, bytes(1))),
    await collect(encrypt("gcm(aes)", options, bytes(1))),
  ];
  assertEquals(one.length, 12 + 1 + 16);
  assertNotEquals(Buffer.from(one.subarray(0, 12)).toString("hex"), Buffer.from(other.subarray(0, 12)).toString("hex"));
});

test("without a reader, a small write resolves before the IV is read", async () => {
  const stream = new EncryptionStream("gcm(aes)", { key: MESSAGE_1.key, ivPrefix: true });
  const writer = stream.writable.getWriter();
  assertEquals((await outcomes(writer.write(bytes(100))))[0]!.state, "fulfilled");
  await stream.readable.cancel();
});

test("the tag of an encryption that ends early is an error, and none of a decryption", async () => {
  const stream = new EncryptionStream("gcm(aes)", optionsOf(MESSAGE_1));
  await stream.writable.abort(new Error("left"));
  assertEquals(((await caught(stream.tag!)) as KcapiError).code, "ECANCELED");
  const others = [
    new DecryptionStream("gcm(aes)", optionsOf(MESSAGE_1)),
    new EncryptionStream("ctr(aes)", { key: bytes(16), iv: bytes(16) }),
  ];
  for (const other of others) {
    assertEquals((other as EncryptionStream).tag, undefined);
    await other.readable.cancel();
  }
});

// ---- arguments ----------------------------------------------------------------------------------------------------

test("bad options are refused by name, before any work", async () => {
  const good = optionsOf(MESSAGE_1);
  using pool = new WorkerPool(1);
  const cases: [
    options: object,
    error: typeof TypeError | typeof RangeError,
    text: string,
    only?: "encrypt" | "decrypt",
  ][] = [
    [{ key: bytes(31) }, RangeError, '"key" expected 16 or 24 or 32 bytes for gcm(aes), got 31'],
    [{ key: undefined }, TypeError, '"key"'],
    [{ key: { type: "logon", description: "a:b" } }, TypeError, '"key" expected bytes'],
    [{ iv: undefined }, TypeError, '"iv"'],
    [{ iv: new Uint8Array(0) }, RangeError, '"iv" expected 1 to 128 bytes'],
    [{ iv: bytes(129) }, RangeError, "got 129"],
    [{ ivPrefix: true }, TypeError, '"ivPrefix" takes the place of "iv"'],
    [{ ivPrefix: 1 }, TypeError, '"ivPrefix" expected a boolean'],
    [{ associatedData: "text" }, TypeError, '"associatedData"'],
    [{ tagSize: 5 }, RangeError, '"tagSize" expected 4 or 8 or 12'],
    [{ tagSize: "16" }, TypeError, '"tagSize" expected a number'],
    [{ tag: "front" }, TypeError, '"tag" expected "end", "start" or'],
    [{ tag: "detached" }, TypeError, "the bytes of the tag", "decrypt"],
    [{ tag: bytes(16) }, TypeError, '"detached"', "encrypt"],
    [{ tag: bytes(12) }, RangeError, '"tag" expected the 16 bytes of "tagSize", got 12', "decrypt"],
    [{ tag: bytes(5), tagSize: undefined }, RangeError, '"tag" expected', "decrypt"],
    [{ maxSize: -1 }, RangeError, '"maxSize"'],
    [{ maxSize: 1.5 }, RangeError, '"maxSize"'],
    [{ maxSize: "1" }, TypeError, '"maxSize"'],
    [{ releaseUnverified: "yes" }, TypeError, '"releaseUnverified" expected a boolean'],
    [{ releaseUnverified: true, engine: "webcrypto" }, TypeError, '"releaseUnverified"', "decrypt"],
    [{ engine: "kernel" }, TypeError, "AF_ALG takes"],
    [{ engine: "fast" }, TypeError, '"engine"'],
    [{ signal: {} }, TypeError, '"signal"'],
    [{ pool }, TypeError, '"pool" is not for gcm(aes)'],
    [{ padding: "pkcs7" }, TypeError, '"padding" is not for gcm(aes)'],
    [{ inPlace: true }, TypeError, '"inPlace" is not for gcm(aes)'],
    [{ sectorSize: 512 }, TypeError, '"sectorSize" is not for gcm(aes)'],
    [{ sector: 0 }, TypeError, '"sector" is not for gcm(aes)'],
    [{ maxsize: 5 }, TypeError, 'did you mean "maxSize"?'],
  ];
  for (const [options, error, text, only] of cases) {
    const bad = { ...good, ...options } as CipherStreamOptions;
    if (only !== "decrypt") {
      assertThrows(() => new EncryptionStream("gcm(aes)", bad), error, text);
      assertThrows(() => encrypt("gcm(aes)", bad, bytes(1)), error, text);
    }
    if (only !== "encrypt") {
      assertThrows(() => new DecryptionStream("gcm(aes)", bad), error, text);
      assertThrows(() => decrypt("gcm(aes)", bad, bytes(1)), error, text);
    }
  }
  const neutral = { padding: "none", inPlace: false, ivLargeSectors: false, pool: undefined } as const;
  await new EncryptionStream("gcm(aes)", { ...good, ...neutral }).readable.cancel();
});

test("options of gcm(aes) are refused for other ciphers, and other names of it name it", () => {
  const options = { key: bytes(16), iv: bytes(16) };
  const extras = { associatedData: bytes(1), tagSize: 16, tag: "end", maxSize: 1, releaseUnverified: false } as const;
  for (const [name, value] of Object.entries(extras)) {
    const bad = { ...options, [name]: value };
    assertThrows(() => new DecryptionStream("ctr(aes)", bad), TypeError, `"${name}" is for gcm(aes), not for ctr(aes)`);
  }
  for (const name of ["aes-256-gcm", "AES-GCM", "aes-128-gcm", "ccm(aes)", "rfc4106(gcm(aes))", "generic-gcm-aesni"]) {
    assertThrows(() => new EncryptionStream(name, options), RangeError, '"gcm(aes)"');
  }
  assertThrows(() => new EncryptionStream("aes-256-gcm", options), RangeError, "with a key of 32 bytes");
  assertThrows(() => CipherHandle.open("gcm(aes)", { key: bytes(16) }), RangeError, "EncryptionStream");
  assertThrows(() => encrypt("ctr(aes)", { ...options, engine: "webcrypto" }, bytes(1)), TypeError, '"engine"');
});
