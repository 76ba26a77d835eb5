/**
 * The files of `openssl enc`: exchanged with the program itself, and the known outputs of CryptoJS and gibberish-aes.
 */
import { Buffer } from "node:buffer";
import { spawnSync } from "node:child_process";
import { CryptoJS, GibberishAES } from "./support/libraries.ts";
import {
  OpenSSLDecryptionStream,
  type OpenSSLDerivation,
  OpenSSLEncryptionStream,
  opensslKey,
} from "../src/openssl/mod.ts";
import { DIGESTS } from "../src/openssl/key.ts";
import { KcapiError } from "../mod.ts";
import { assert, assertEquals, assertRejects, assertThrows, runtime, test as anyTest } from "./support/deps.ts";
import { bytes } from "./support/support.ts";

const test = (name: string, body: () => void | Promise<void>) => anyTest(name, { engine: "userspace" }, body);

const PASSPHRASE = "corrêct horse";
const encode = (text: string) => new TextEncoder().encode(text);

type Options = ConstructorParameters<typeof OpenSSLEncryptionStream>[1];

async function through(
  Stream: typeof OpenSSLEncryptionStream | typeof OpenSSLDecryptionStream,
  cipher: string,
  options: Options,
  input: Uint8Array<ArrayBuffer>,
  cut = input.length || 1,
): Promise<Uint8Array> {
  const chunks = Array.from({ length: Math.ceil(input.length / cut) }, (_, i) => input.slice(i * cut, (i + 1) * cut));
  const source = new ReadableStream<Uint8Array<ArrayBuffer>>({
    pull(controller) {
      const chunk = chunks.shift();
      if (chunk) controller.enqueue(chunk);
      else controller.close();
    },
  });
  return new Uint8Array(await new Response(source.pipeThrough(new Stream(cipher, options))).arrayBuffer());
}

const encrypted = (cipher: string, options: Options, input: Uint8Array<ArrayBuffer>, cut?: number) =>
  through(OpenSSLEncryptionStream, cipher, options, input, cut);
const decrypted = (cipher: string, options: Options, input: Uint8Array<ArrayBuffer>, cut?: number) =>
  through(OpenSSLDecryptionStream, cipher, options, input, cut);

/**
 * Runs `openssl enc`. Its passphrase comes from descriptor 3, which Bun's spawnSync does not pass: from the
 * environment.
 */
function openssl(args: readonly string[], input: Uint8Array): Uint8Array<ArrayBuffer> {
  const { status, stdout, stderr } = spawnSync("openssl", ["enc", ...args, "-pass", "env:PASSPHRASE"], {
    input,
    env: { ...process.env, PASSPHRASE },
    maxBuffer: 1 << 24,
  });
  assertEquals(status, 0, `openssl enc ${args.join(" ")}: ${stderr}`);
  return new Uint8Array(stdout);
}

/** The program's options for a derivation. */
function flagsOf({ kdf = "pbkdf2", digest, iterations }: OpenSSLDerivation): string[] {
  return [
    ...(kdf === "pbkdf2" ? ["-pbkdf2"] : []),
    ...(digest ? ["-md", digest] : []),
    ...(iterations ? ["-iter", `${iterations}`] : []),
  ];
}

const SALT = Uint8Array.of(1, 2, 3, 4, 5, 6, 7, 0xf8);
const LAYOUTS: Record<string, { options: Partial<Options>; flags: string[] }> = {
  "a header": { options: {}, flags: [] },
  "base64 in lines": { options: { base64: true }, flags: ["-a"] },
  "base64 in one line": { options: { base64: "one line" }, flags: ["-a", "-A"] },
  "-nosalt": { options: { salt: new Uint8Array(0) }, flags: ["-nosalt"] },
  "-S": { options: { salt: SALT }, flags: ["-S", "01020304050607f8"] },
  "-S and base64": { options: { salt: SALT, base64: true }, flags: ["-S", "01020304050607f8", "-a"] },
};

const DERIVATIONS: OpenSSLDerivation[] = [
  {},
  { iterations: 1 },
  { iterations: 1234, digest: "sha512" },
  { digest: "md5" },
  { digest: "sha1", iterations: 7 },
  { digest: "sha3-256", iterations: 7 },
  ...DIGESTS.map((digest) => ({ kdf: "evp" as const, digest })),
  { kdf: "evp" },
];

const SIZES = [0, 1, 15, 16, 17, 47, 48, 49, 5_000];

for (const derivation of DERIVATIONS) {
  const name = [derivation.kdf ?? "pbkdf2", derivation.digest, derivation.iterations].filter(Boolean).join(", ");
  test(`files of openssl enc are read and written with ${name}, in every layout`, async () => {
    for (const [layout, { options, flags }] of Object.entries(LAYOUTS)) {
      const all = { passphrase: PASSPHRASE, ...derivation, ...options };
      const data = bytes(SIZES[Object.keys(LAYOUTS).indexOf(layout)]! + 1000);
      const args = ["-aes-256-cbc", ...flagsOf(derivation), ...flags];
      const theirs = openssl(["-e", ...args], data);
      assertEquals(await decrypted("aes-256-cbc", all, theirs), data, `${layout}: theirs, read by us`);
      const ours = await encrypted("aes-256-cbc", all, data);
      assertEquals(openssl(["-d", ...args], ours), data, `${layout}: ours, read by them`);
      if (layout.startsWith("-")) assertEquals(ours, theirs, `${layout}: the same file`);
    }
  });
}

const CIPHERS = ["aes-128-cbc", "aes-192-ecb", "aes-256-ctr", "AES256", "aes-128-ofb", "des-ede3-cbc", "des3"];
if (runtime !== "bun") CIPHERS.push("chacha20");
if (runtime === "node") CIPHERS.push("camellia-256-cbc", "aria-128-ctr", "sm4-cbc");
// Deno's node:crypto has AES-192 in ECB only, and no OFB of its own.

for (const cipher of CIPHERS) {
  test(`files of openssl enc -${cipher} are read and written, with chunks of any size`, async () => {
    const options = { passphrase: PASSPHRASE, iterations: 5 };
    for (const size of SIZES) {
      const data = bytes(size);
      const args = [`-${cipher}`, "-pbkdf2", "-iter", "5"];
      const theirs = openssl(["-e", ...args], data);
      for (const cut of [1, 7, 4096]) {
        assertEquals(await decrypted(cipher, options, theirs, cut), data, `${size} bytes in chunks of ${cut}`);
      }
      assertEquals(openssl(["-d", ...args], await encrypted(cipher, options, data, 3)), data, `${size} bytes, ours`);
    }
  });
}

test("opensslKey() returns the key and IV that openssl enc -P prints", async () => {
  for (const derivation of DERIVATIONS) {
    const printed = spawnSync(
      "openssl",
      ["enc", "-aes-256-cbc", "-P", "-S", "01020304050607f8", "-pass", "env:PASSPHRASE", ...flagsOf(derivation)],
      { env: { ...process.env, PASSPHRASE }, encoding: "utf8" },
    ).stdout;
    const { key, iv } = await opensslKey(PASSPHRASE, { ...derivation, salt: SALT, keySize: 32, ivSize: 16 });
    assertEquals(Buffer.from(key).toString("hex").toUpperCase(), /^key=(.*)$/m.exec(printed)![1]);
    assertEquals(Buffer.from(iv).toString("hex").toUpperCase(), /^iv =(.*)$/m.exec(printed)![1]);
  }
});

test("text that CryptoJS encrypts with a passphrase is read, and CryptoJS reads ours", async () => {
  const options = { passphrase: PASSPHRASE, kdf: "evp", digest: "md5", base64: "one line" } as const;
  for (const text of ["", "attack at dawn", "ünïcödé ".repeat(100)]) {
    const theirs = encode(CryptoJS.AES.encrypt(text, PASSPHRASE).toString());
    assertEquals(await decrypted("aes-256-cbc", options, theirs, 13), encode(text));
    const ours = new TextDecoder().decode(await encrypted("aes-256-cbc", options, encode(text)));
    assertEquals(CryptoJS.AES.decrypt(ours, PASSPHRASE).toString(CryptoJS.enc.Utf8), text);
    const triple = encode(CryptoJS.TripleDES.encrypt(text, PASSPHRASE).toString());
    assertEquals(await decrypted("des-ede3-cbc", options, triple), encode(text));
  }
});

test("text that gibberish-aes encrypts is read, and gibberish-aes reads ours", async () => {
  const options = { passphrase: PASSPHRASE, kdf: "evp", digest: "md5", base64: true } as const;
  for (const bits of [128, 192, 256]) {
    GibberishAES.size(bits);
    const cipher = `aes-${bits}-cbc`;
    for (const text of ["a", "attack at dawn", "ünïcödé ".repeat(100)]) {
      assertEquals(await decrypted(cipher, options, encode(GibberishAES.enc(text, PASSPHRASE))), encode(text), cipher);
      const ours = new TextDecoder().decode(await encrypted(cipher, options, encode(text)));
      assertEquals(GibberishAES.dec(ours, PASSPHRASE), text, cipher);
    }
  }
});

test("a passphrase that does not fit is EBADMSG, and names the usual derivations as options", async () => {
  // A fixed salt: with a random one, a wrong key finds good padding once in 256 times.
  const file = openssl(["-aes-256-cbc", "-md", "md5", "-S", "0102030405060708"], bytes(100));
  const options = { passphrase: PASSPHRASE, salt: bytes(8).map((_, i) => i + 1) };
  const error = await assertRejects(() => decrypted("aes-256-cbc", options, file), KcapiError);
  assertEquals([error.code, error.operation], ["EBADMSG", "decrypt"]);
  const others = ['kdf: "evp", digest: "sha256" (openssl enc without -pbkdf2)', 'kdf: "evp", digest: "md5"'];
  for (const way of others) assert(error.hint!.includes(way), error.hint);
  assert(!error.hint!.includes('pbkdf2"'), error.hint);
  const found = await decrypted("aes-256-cbc", { ...options, kdf: "evp", digest: "md5" }, file);
  assertEquals(found, bytes(100));
});

test("each file has another salt", async () => {
  const options = { passphrase: PASSPHRASE, iterations: 1 };
  const files = [
    await encrypted("aes-256-cbc", options, bytes(100)),
    await encrypted("aes-256-cbc", options, bytes(100)),
  ];
  assertEquals(files.map((file) => Buffer.from(file.subarray(0, 8)).toString()), ["Salted__", "Salted__"]);
  assert(Buffer.compare(files[0]!.subarray(8), files[1]!.subarray(8)) !== 0);
});

test("the error for a file that is not of openssl enc says what it may be", async () => {
  const options = { passphrase: PASSPHRASE, iterations: 1 };
  const cases: [input: string, message: string][] = [
    ["U2FsdGVkX18AAAAAAAAAAA==", "base64"],
    ["attack at dawn attack", "-nosalt"],
    ["Salted_", "within"],
    ["Salted__1234567", "within"],
    ["", "within"],
  ];
  for (const [input, message] of cases) {
    for (const cut of [1, 100]) {
      const error = await assertRejects(
        () => decrypted("aes-256-cbc", options, new TextEncoder().encode(input), cut),
        KcapiError,
        message,
      );
      assertEquals(error.code, "EBADMSG");
    }
  }
});

test("text that is not base64 is EBADMSG, with the fault at any place", async () => {
  const options = { passphrase: PASSPHRASE, iterations: 1, base64: true };
  const good = Buffer.from(await encrypted("aes-256-cbc", options, bytes(100))).toString();
  for (
    const bad of [good.replace("U", "*"), `${good}AAAA`.replace(/=*\n/, "=\n"), good.trimEnd().slice(0, -1), `${good}=`]
  ) {
    for (const cut of [1, 1000]) {
      const error = await assertRejects(
        () => decrypted("aes-256-cbc", options, new TextEncoder().encode(bad), cut),
        KcapiError,
      );
      assertEquals(error.code, "EBADMSG");
    }
  }
});

test("wrong arguments are refused before anything is derived", async () => {
  const good: Options = { passphrase: PASSPHRASE };
  const cases: [cipher: unknown, options: unknown, error: typeof TypeError, message: string][] = [
    [1, good, TypeError, '"cipher"'],
    ["cbc(aes)", good, TypeError, "aes-256-cbc"],
    ["aes-256-gcm", good, TypeError, "aes-256-gcm"],
    ["aes-256-cbc", null, TypeError, '"options"'],
    ["aes-256-cbc", {}, TypeError, '"passphrase"'],
    ["aes-256-cbc", { passphrase: "" }, RangeError, '"passphrase"'],
    ["aes-256-cbc", { passphrase: "a\0b" }, RangeError, "zero byte"],
    ["aes-256-cbc", { passphrase: "\ud800" }, TypeError, '"passphrase"'],
    ["aes-256-cbc", { ...good, kdf: "scrypt" }, TypeError, '"kdf"'],
    ["aes-256-cbc", { ...good, digest: "md4" }, TypeError, '"digest"'],
    ["aes-256-cbc", { ...good, iterations: 0 }, RangeError, '"iterations"'],
    ["aes-256-cbc", { ...good, iterations: "1" }, TypeError, '"iterations"'],
    ["aes-256-cbc", { ...good, kdf: "evp", iterations: 2 }, TypeError, '"iterations"'],
    ["aes-256-cbc", { ...good, salt: bytes(7) }, RangeError, '"salt"'],
    ["aes-256-cbc", { ...good, salt: "12345678" }, TypeError, '"salt"'],
    ["aes-256-cbc", { ...good, base64: 1 }, TypeError, '"base64"'],
    ["aes-256-cbc", { ...good, iter: 5 }, TypeError, '"options" has no option "iter"'],
    ["aes-256-cbc", { ...good, engine: "fast" }, TypeError, '"engine"'],
    ["aes-256-ctr", { ...good, padding: "pkcs7" }, TypeError, '"padding"'],
    ["aes-256-cbc", { ...good, signal: 1 }, TypeError, '"signal"'],
    ["aes-256-cbc", { ...good, pool: 1 }, TypeError, '"pool"'],
  ];
  for (const [cipher, options, error, message] of cases) {
    for (const Stream of [OpenSSLEncryptionStream, OpenSSLDecryptionStream]) {
      assertThrows(() => new Stream(cipher as string, options as Options), error, message);
    }
  }
  await assertRejects(() => opensslKey("a", { keySize: 0 }), RangeError, '"keySize"');
  await assertRejects(() => opensslKey("a", { keySize: 32, ivSize: 600 }), RangeError, '"ivSize"');
  await assertRejects(() => opensslKey("a", null as never), TypeError, '"options"');
  await assertRejects(() => opensslKey("a", { keySize: 32, hash: "md5" } as never), TypeError, '"hash"');
});
