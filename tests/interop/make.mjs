/**
 * Makes ciphertexts with other programs and libraries, and writes them as JSON. `--write` renews vectors.jsonl, where
 * rows of programs that are missing here keep their stored outputs. `--quick` leaves out programs that take seconds.
 *
 * A row says how the program calls the cipher, how the file is laid out, and with which algorithm and options this
 * module reads it. Bytes are hexadecimal. The plaintext is 31 * i + 7. `isRandom` marks what has a random salt.
 */
import { Buffer } from "node:buffer";
import { execFileSync } from "node:child_process";
import * as crypto from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { cbc, ctr, ecb, gcm } from "@noble/ciphers/aes.js";
import { chacha20 as nobleChaCha, chacha20orig } from "@noble/ciphers/chacha.js";

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const require = createRequire(import.meta.url);
const PASSPHRASE = "correct horse";

const plain = (size) => Buffer.from(Array.from({ length: size }, (_, i) => 31 * i + 7 & 255));
const key = (size) => Buffer.from(Array.from({ length: size }, (_, i) => i + 1));
const iv = (size) => Buffer.from(Array.from({ length: size }, (_, i) => 0xf0 - size + i));
const ones = Buffer.alloc(16, 255);

const rows = [];

function add(by, cipher, layout, algorithm, size, options, output, isRandom = false) {
  const hex = Object.entries(options).map(([name, value]) => [
    name,
    value instanceof Uint8Array ? Buffer.from(value).toString("hex") : value,
  ]);
  const text = typeof output === "string" ? output : Buffer.from(output).toString("hex");
  rows.push({ by, cipher, layout, algorithm, size, options: Object.fromEntries(hex), output: text, isRandom });
}

/** Runs what a missing program makes impossible. */
async function attempt(name, action) {
  try {
    await action();
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
    console.error(`make: no ${name} here`);
  }
}

// ---- openssl enc --------------------------------------------------------------------------------------------------

const kernelNames = { "des-ede3": "des3_ede", aes: "aes", camellia: "camellia", aria: "aria", sm4: "sm4" };

function openssl() {
  const by = /OpenSSL [\d.]+/.exec(execFileSync("openssl", ["version"], { encoding: "utf8" }))[0];
  const enc = (args, size) => execFileSync("openssl", ["enc", ...args], { input: plain(size), stdio: "pipe" });
  const bare = ["cbc", "ctr", "ecb", "cfb", "ofb"].flatMap((mode) =>
    [128, 192, 256].map((bits) => [`aes-${bits}-${mode}`, bits / 8, mode === "ecb" ? 0 : 16])
  );
  const others = [["des-ede3-cbc", 24, 8], ["des-ede3-ofb", 24, 8], ["des-ede3-cfb", 24, 8], [
    "camellia-256-cbc",
    32,
    16,
  ]];
  others.push(["aria-256-ctr", 32, 16], ["sm4-cbc", 16, 16]);
  for (const [i, [name, keySize, ivSize]] of [...bare, ...others].entries()) {
    const [, cipher, mode] = /^(.*?)(?:-\d+)?-(\w+)$/.exec(name);
    const options = { key: key(keySize), ...ivSize > 0 && { iv: iv(ivSize) } };
    const args = [
      `-${name}`,
      "-K",
      key(keySize).toString("hex"),
      ...ivSize > 0 ? ["-iv", iv(ivSize).toString("hex")] : [],
    ];
    add(by, name, "-K and -iv", `${mode}(${kernelNames[cipher]})`, i * 7, options, enc(args, i * 7));
  }
  const chacha = Buffer.concat([Buffer.from([5, 0, 0, 0]), iv(12)]);
  const args = ["-chacha20", "-K", key(32).toString("hex"), "-iv", chacha.toString("hex")];
  add(by, "chacha20", "-K and -iv", "chacha20", 150, { key: key(32), iv: chacha }, enc(args, 150));
  const nopad = ["-aes-256-cbc", "-nopad", "-K", key(32).toString("hex"), "-iv", iv(16).toString("hex")];
  const unpadded = { key: key(32), iv: iv(16), padding: "none" };
  add(by, "aes-256-cbc", "-K, -iv and -nopad", "cbc(aes)", 64, unpadded, enc(nopad, 64));

  const derivations = [
    [["-pbkdf2"], {}],
    [["-pbkdf2", "-iter", "1000", "-md", "sha512"], { iterations: 1000, digest: "sha512" }],
    [[], { kdf: "evp" }],
    [["-md", "md5"], { kdf: "evp", digest: "md5" }],
  ];
  const layouts = [
    [[], {}],
    [["-a"], { base64: true }],
    [["-a", "-A"], { base64: "one line" }],
    [["-nosalt"], { salt: Buffer.alloc(0) }],
    [["-S", "01020304050607f8"], { salt: Buffer.from("01020304050607f8", "hex") }],
    [["-S", "01020304050607f8", "-a"], { salt: Buffer.from("01020304050607f8", "hex"), base64: true }],
  ];
  const ciphers = ["aes-256-cbc", "aes-128-cbc", "aes-256-ctr", "des-ede3-cbc"];
  let i = 0;
  for (const [flags, derivation] of derivations) {
    for (const [more, layout] of layouts) {
      const cipher = ciphers[i % ciphers.length];
      const size = 13 * i++;
      const args = [`-${cipher}`, ...flags, ...more, "-pass", `pass:${PASSPHRASE}`];
      const label = ["passphrase", ...flags, ...more].join(" ");
      const options = { passphrase: PASSPHRASE, ...derivation, ...layout };
      add(by, cipher, label, "openssl", size, { ...options, cipher }, enc(args, size), layout.salt === undefined);
    }
  }
}

// ---- libraries ----------------------------------------------------------------------------------------------------

function nodeCrypto() {
  const by = `node:crypto (Node ${process.versions.node})`;
  const run = (name, keyBytes, ivBytes, size) => {
    const cipher = crypto.createCipheriv(name, keyBytes, ivBytes);
    return Buffer.concat([cipher.update(plain(size)), cipher.final()]);
  };
  for (const bits of [128, 192, 256]) {
    const options = { key: key(bits / 8), iv: iv(16) };
    add(by, `aes-${bits}-cbc`, "IV apart", "cbc(aes)", 45, options, run(`aes-${bits}-cbc`, key(bits / 8), iv(16), 45));
  }
  const front = Buffer.concat([iv(16), run("aes-256-cbc", key(32), iv(16), 80)]);
  add(by, "aes-256-cbc", "IV in front", "cbc(aes)", 80, { key: key(32), ivPrefix: true }, front);
  for (const mode of ["ctr", "cfb", "ofb"]) {
    const output = run(`aes-256-${mode}`, key(32), ones, 75);
    add(by, `aes-256-${mode}`, "IV of ones", `${mode}(aes)`, 75, { key: key(32), iv: ones }, output);
  }
  add(by, "aes-128-ecb", "bare", "ecb(aes)", 75, { key: key(16) }, run("aes-128-ecb", key(16), null, 75));
  const triple = run("des-ede3-cbc", key(24), iv(8), 75);
  add(by, "des-ede3-cbc", "IV apart", "cbc(des3_ede)", 75, { key: key(24), iv: iv(8) }, triple);
  const xts = run("aes-256-xts", key(64), iv(16), 75);
  add(by, "aes-256-xts", "one sector, not whole blocks", "xts(aes)", 75, { key: key(64), iv: iv(16) }, xts);
  add(
    by,
    "chacha20",
    "IV apart",
    "chacha20",
    75,
    { key: key(32), iv: Buffer.concat([Buffer.alloc(4), iv(12)]) },
    run("chacha20", key(32), Buffer.concat([Buffer.alloc(4), iv(12)]), 75),
  );
  for (const bits of [128, 256]) {
    const cipher = crypto.createCipheriv(`aes-${bits}-gcm`, key(bits / 8), iv(12)).setAAD(Buffer.from("name"));
    const text = Buffer.concat([cipher.update(plain(75)), cipher.final()]);
    const message = Buffer.concat([iv(12), cipher.getAuthTag(), text]);
    const options = { key: key(bits / 8), ivPrefix: true, tag: "start", associatedData: Buffer.from("name") };
    add(by, `aes-${bits}-gcm`, "IV, getAuthTag(), ciphertext", "gcm(aes)", 75, options, message);
  }
}

async function webCrypto() {
  const by = `WebCrypto (Node ${process.versions.node})`;
  const run = async (name, keySize, parameters, size) => {
    const imported = await crypto.subtle.importKey("raw", key(keySize), name, false, ["encrypt"]);
    return new Uint8Array(await crypto.subtle.encrypt({ name, ...parameters }, imported, plain(size)));
  };
  for (const bits of [128, 256]) {
    const options = { key: key(bits / 8), iv: iv(16) };
    add(
      by,
      `AES-CBC, ${bits} bits`,
      "IV apart",
      "cbc(aes)",
      55,
      options,
      await run("AES-CBC", bits / 8, { iv: iv(16) }, 55),
    );
    const sealed = await run("AES-GCM", bits / 8, { iv: iv(12), additionalData: Buffer.from("name") }, 55);
    add(by, `AES-GCM, ${bits} bits`, "tag at the end", "gcm(aes)", 55, {
      key: key(bits / 8),
      iv: iv(12),
      associatedData: Buffer.from("name"),
    }, sealed);
  }
  for (const length of [32, 64, 128]) {
    const output = await run("AES-CTR", 32, { counter: ones, length }, 85);
    const options = { key: key(32), iv: ones, counterBits: length };
    add(by, `AES-CTR, length ${length}`, "the counter wraps", "ctr(aes)", 85, options, output);
  }
  const short = await run("AES-GCM", 32, { iv: iv(12), tagLength: 104 }, 55);
  add(by, "AES-GCM", "tag of 104 bits", "gcm(aes)", 55, { key: key(32), iv: iv(12), tagSize: 13 }, short);
}

function cryptoJS() {
  const by = `CryptoJS ${require("crypto-js/package.json").version}`;
  const CryptoJS = require("crypto-js");
  const words = (bytes) => CryptoJS.enc.Hex.parse(bytes.toString("hex"));
  const openssl = { passphrase: PASSPHRASE, kdf: "evp", digest: "md5", base64: "one line" };
  for (const [name, cipher] of [["AES", "aes-256-cbc"], ["TripleDES", "des-ede3-cbc"]]) {
    const text = CryptoJS[name].encrypt(words(plain(65)), PASSPHRASE).toString();
    const output = Buffer.from(text).toString("hex");
    add(by, name, "passphrase", "openssl", 65, { ...openssl, cipher }, output, true);
  }
  for (const mode of ["CBC", "ECB", "CTR", "CFB", "OFB"]) {
    const isPadded = mode === "CBC" || mode === "ECB";
    const padding = isPadded ? CryptoJS.pad.Pkcs7 : CryptoJS.pad.NoPadding;
    const settings = { iv: words(ones), mode: CryptoJS.mode[mode], padding };
    const { ciphertext } = CryptoJS.AES.encrypt(words(plain(65)), words(key(32)), settings);
    // Its counter has 32 bits: the upper words stay as they are.
    const options = { key: key(32), ...mode !== "ECB" && { iv: ones }, ...mode === "CTR" && { counterBits: 32 } };
    add(by, `AES, mode ${mode}`, "key and IV", `${mode.toLowerCase()}(aes)`, 65, options, ciphertext.toString());
  }
}

function gibberish() {
  const script = here("../../node_modules/gibberish-aes/dist/gibberish-aes-1.0.0.js");
  const GibberishAES = new Function(`${readFileSync(script, "utf8")}; return GibberishAES`)();
  for (const bits of [128, 192, 256]) {
    GibberishAES.size(bits);
    const text = GibberishAES.enc(plain(95).toString("latin1"), PASSPHRASE, true);
    const options = { passphrase: PASSPHRASE, kdf: "evp", digest: "md5", base64: true, cipher: `aes-${bits}-cbc` };
    const output = Buffer.from(text).toString("hex");
    add("gibberish-aes 1.0.0", `AES, ${bits} bits`, "passphrase", "openssl", 95, options, output, true);
  }
}

function noble() {
  const { version } = JSON.parse(readFileSync(here("../../node_modules/@noble/ciphers/package.json"), "utf8"));
  const by = `@noble/ciphers ${version}`;
  add(by, "cbc", "PKCS7", "cbc(aes)", 70, { key: key(32), iv: iv(16) }, cbc(key(32), iv(16)).encrypt(plain(70)));
  add(
    by,
    "ctr",
    "the counter wraps",
    "ctr(aes)",
    70,
    { key: key(16), iv: ones },
    ctr(key(16), ones).encrypt(plain(70)),
  );
  add(by, "ecb", "PKCS7", "ecb(aes)", 70, { key: key(24) }, ecb(key(24)).encrypt(plain(70)));
  const sealed = gcm(key(32), iv(12), Buffer.from("name")).encrypt(plain(70));
  add(
    by,
    "gcm",
    "tag at the end",
    "gcm(aes)",
    70,
    { key: key(32), iv: iv(12), associatedData: Buffer.from("name") },
    sealed,
  );
  const counter = Buffer.concat([Buffer.from([3, 0, 0, 0]), iv(12)]);
  add(
    by,
    "chacha20",
    "12-byte nonce, counter 3",
    "chacha20",
    70,
    { key: key(32), iv: counter },
    nobleChaCha(key(32), iv(12), plain(70), undefined, 3),
  );
  add(
    by,
    "chacha20orig",
    "8-byte nonce",
    "chacha20",
    70,
    { key: key(32), iv: Buffer.concat([Buffer.alloc(8), iv(8)]) },
    chacha20orig(key(32), iv(8), plain(70)),
  );
}

// ---- disks --------------------------------------------------------------------------------------------------------

function inDirectory(action) {
  const directory = mkdtempSync(join(tmpdir(), "interop-"));
  try {
    writeFileSync(join(directory, "passphrase"), PASSPHRASE);
    action(
      (name) => join(directory, name),
      (...command) => execFileSync(command[0], command.slice(1), { cwd: directory, stdio: "pipe" }),
    );
  } finally {
    rmSync(directory, { recursive: true });
  }
}

/** Volumes have a random key. */
function cryptsetup() {
  const path = { ...process.env, PATH: `${process.env.PATH}:/usr/sbin` };
  const by = execFileSync("cryptsetup", ["--version"], { encoding: "utf8", env: path }).trim().replace(/ flags.*/, "");
  const volumes = [
    ["aes-xts-plain64", 512, 512, "xts(aes)"],
    ["aes-xts-plain64", 256, 4096, "xts(aes)"],
    ["aes-cbc-plain64", 256, 512, "cbc(aes)"],
    ["aes-cbc-plain64be", 256, 512, "cbc(aes)"],
  ];
  for (const [cipher, bits, sectorSize, algorithm] of volumes) {
    inDirectory((at, run) => {
      process.env.PATH = path.PATH;
      writeFileSync(at("volume"), plain(4096));
      const luks = ["--batch-mode", "--disable-locks", "--key-file", "passphrase"];
      const pbkdf = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
      const sizes = ["--key-size", String(bits), "--sector-size", String(sectorSize)];
      run(
        "cryptsetup",
        "reencrypt",
        "--encrypt",
        "--type",
        "luks2",
        "--header",
        "header",
        "--cipher",
        cipher,
        ...sizes,
        ...pbkdf,
        ...luks,
        "volume",
      );
      run("cryptsetup", "luksDump", "--dump-volume-key", "--volume-key-file", "key", "header", ...luks);
      const options = { key: readFileSync(at("key")), sectorSize, ...cipher.endsWith("be") && { ivMode: "plain64be" } };
      add(
        by,
        cipher,
        `LUKS2, sectors of ${sectorSize} bytes`,
        algorithm,
        4096,
        options,
        readFileSync(at("volume")),
        true,
      );
    });
  }
}

function qemuImg() {
  const by = /qemu-img version [\d.]+/.exec(execFileSync("qemu-img", ["--version"], { encoding: "utf8" }))[0];
  inDirectory((at, run) => {
    process.env.PATH += ":/usr/sbin";
    writeFileSync(at("plain"), plain(2048));
    const secret = ["--object", "secret,id=s0,file=passphrase", "-o", "key-secret=s0,iter-time=10"];
    // qemu-img measures its speed, and fails if other processes use the CPU.
    for (let tries = 1;; tries++) {
      try {
        run("qemu-img", "convert", "-f", "raw", "-O", "luks", ...secret, "plain", "image");
        break;
      } catch (error) {
        if (error.code === "ENOENT" || tries === 50) throw error;
      }
    }
    run(
      "cryptsetup",
      "luksDump",
      "--dump-volume-key",
      "--volume-key-file",
      "key",
      "--key-file",
      "passphrase",
      "--batch-mode",
      "--disable-locks",
      "image",
    );
    const image = readFileSync(at("image"));
    const payload = image.subarray(512 * image.readUInt32BE(104));
    add(
      by,
      "aes-xts-plain64",
      "LUKS1, sectors of 512 bytes",
      "xts(aes)",
      2048,
      { key: readFileSync(at("key")), sectorSize: 512 },
      payload,
      true,
    );
  });
}

// ---- other languages ----------------------------------------------------------------------------------------------

function foreign(command, args) {
  const { by, rows: theirs } = JSON.parse(execFileSync(command, args, { encoding: "utf8" }));
  rows.push(...theirs.map((row) => ({ by, ...row, isRandom: false })));
}

await attempt("openssl", openssl);
nodeCrypto();
await webCrypto();
cryptoJS();
gibberish();
noble();
await attempt("python3", () => foreign("/usr/bin/python3", [here("vectors.py")]));
if (!process.argv.includes("--quick")) {
  await attempt("cryptsetup", cryptsetup);
  await attempt("qemu-img", qemuImg);
  await attempt("java", () => foreign("java", [here("Vectors.java")]));
  await attempt("go", () => foreign(process.env.GO ?? "go", ["run", here("vectors.go")]));
}

if (!process.argv.includes("--write")) {
  console.log(JSON.stringify(rows));
} else {
  const file = here("vectors.jsonl");
  const programOf = ({ by }) => by.replace(/ [\d.]+\)?$/, "");
  const made = new Set(rows.map(programOf));
  let stored = [];
  try {
    const lines = readFileSync(file, "utf8").trim().split("\n");
    stored = lines.map((line) => JSON.parse(line)).filter((row) => !made.has(programOf(row)));
  } catch (error) {
    if (error.code !== "ENOENT") throw error;
  }
  writeFileSync(file, [...rows, ...stored].map((row) => `${JSON.stringify(row)}\n`).join(""));
}
