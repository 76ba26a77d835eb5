/**
 * The command line tool and `openssl enc` under a passphrase: each reads the files of the other, over every
 * combination of derivation, hash and layout.
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { DIGESTS } from "../src/openssl/key.ts";
import { readBytes, run, runEach } from "./support/cli_support.ts";
import { assertEquals, engine, spawn, tempDir, test } from "./support/deps.ts";
import { CryptoJS, GibberishAES } from "./support/libraries.ts";
import { bytes } from "./support/support.ts";

const PASSPHRASE = "corrêct horse";
const SALT = "01020304050607f8";

/** The same options for the program and for the tool. */
interface Way {
  readonly theirs: readonly string[];
  readonly ours: readonly string[];
}

const DERIVATIONS: readonly Way[] = [
  ...DIGESTS.map((md) => ({ theirs: ["-pbkdf2", "-iter", "7", "-md", md], ours: ["--iter", "7", "--md", md] })),
  ...DIGESTS.map((md) => ({ theirs: ["-md", md], ours: ["--kdf", "evp", "--md", md] })),
  { theirs: ["-pbkdf2"], ours: ["--iter", "10000"] },
  { theirs: ["-pbkdf2", "-iter", "7"], ours: ["--kdf", "pbkdf2", "--iter", "7"] },
  { theirs: [], ours: ["--kdf", "evp"] },
];

const LAYOUTS: readonly (Way & { readonly isFound?: boolean })[] = [
  { theirs: [], ours: [] },
  { theirs: ["-a"], ours: ["--base64"], isFound: true },
  { theirs: ["-a", "-A"], ours: ["-a", "-A"], isFound: true },
  { theirs: ["-nosalt"], ours: ["--nosalt"] },
  { theirs: ["-nosalt", "-a"], ours: ["--nosalt", "-a"] },
  { theirs: ["-S", SALT], ours: ["--salt", SALT] },
  { theirs: ["-S", SALT, "-a", "-A"], ours: ["--salt", SALT, "--one-line"] },
];

const CIPHERS = ["aes-256-cbc", "aes-128-cbc", "aes-256-ctr", "aes-192-ecb", "des-ede3-cbc", "AES256"];
const SIZES = [0, 1, 15, 16, 17, 47, 48, 49, 1000, 100_000];

test("openssl enc and the tool read each other's files, over every derivation, hash and layout", {
  engine: "userspace",
}, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  writeFileSync(at("passphrase"), `${PASSPHRASE}\n`);
  for (const size of SIZES) writeFileSync(at(`plain${size}`), bytes(size));
  const cases = DERIVATIONS.flatMap((derivation) => LAYOUTS.map((layout) => ({ derivation, layout })))
    .map((each, i) => ({ ...each, i, cipher: CIPHERS[i % CIPHERS.length]!, size: SIZES[i % SIZES.length]! }));

  const openssl = (direction: string, from: string, to: string) =>
    cases.map(({ derivation, layout, cipher, i, size }) =>
      [
        ...["openssl", "enc", direction, `-${cipher}`, ...derivation.theirs, ...layout.theirs],
        ...["-pass", "file:passphrase", "-in", from === "plain" ? `plain${size}` : `${from}${i}`, "-out", `${to}${i}`],
      ].join(" ")
    );
  // One process for all of them.
  const shell = async (commands: string[]) => {
    const script = `set -e; cd '${directory}'\n${commands.join(" 2>>messages\n")}`;
    const { code } = await spawn(["bash", "-c", script]);
    assertEquals(code, 0, new TextDecoder().decode(readBytes(at("messages"))));
  };

  await shell(openssl("-e", "plain", "theirs"));
  for (const { derivation, layout, cipher, i, size } of cases) {
    const base = ["-c", cipher, "--passphrase-file", at("passphrase"), "--engine", engine, ...derivation.ours];
    // A header in base64 shows that the file is base64.
    const found = layout.isFound && i % 2 > 0 ? [] : layout.ours;
    await run("decrypt", ...base, ...found, "-i", at(`theirs${i}`), "-o", at(`back${i}`));
    assertEquals(readBytes(at(`back${i}`)), bytes(size), `${cipher} ${derivation.theirs} ${layout.theirs}`);
    await run("encrypt", ...base, ...layout.ours, "-i", at(`plain${size}`), "-o", at(`ours${i}`));
    const isSame = layout.theirs.includes("-S") || layout.theirs.includes("-nosalt");
    if (isSame) assertEquals(readBytes(at(`ours${i}`)), readBytes(at(`theirs${i}`)), `${cipher} ${layout.theirs}`);
  }
  await shell(openssl("-d", "ours", "read"));
  for (const { i, size } of cases) assertEquals(readBytes(at(`read${i}`)), bytes(size));
});

test("with a key, --base64 is openssl enc -K -a", { engine: "userspace" }, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const [key, iv] = [bytes(32, 2), bytes(16, 3)];
  writeFileSync(at("plain"), bytes(300_000));
  writeFileSync(at("key"), key);
  for (const layout of [["-a"], ["-a", "-A"]]) {
    const command = ["openssl", "enc", "-aes-256-cbc", "-K", key.toHex(), "-iv", iv.toHex(), ...layout];
    const { code } = await spawn([...command, "-in", at("plain"), "-out", at("theirs")]);
    assertEquals(code, 0);
    const options = ["--key-file", at("key"), "--iv", iv.toHex(), "--engine", engine, ...layout];
    await run("encrypt", ...options, "-i", at("plain"), "-o", at("ours"));
    assertEquals(readBytes(at("ours")), readBytes(at("theirs")));
    await run("decrypt", ...options, "-i", at("theirs"), "-o", at("back"));
    assertEquals(readBytes(at("back")), bytes(300_000));
  }
});

test("a file that ends within its header is cut short, also in base64", { engine: "userspace" }, async () => {
  const directory = tempDir();
  const starts = ["", "Salted", "Salted__1234567", "U2FsdGVkX1", "U2FsdGVkX18AAAAAAAA="];
  starts.forEach((start, i) => writeFileSync(join(directory, `${i}`), start));
  writeFileSync(join(directory, "passphrase"), PASSPHRASE);
  const options = ["decrypt", "--passphrase-file", "passphrase", "--iter", "1", "-o", "new"];
  const results = await runEach(starts.map((_, i) => [...options, "-i", `${i}`]), directory);
  for (const [i, { code, stderr }] of results.entries()) {
    assertEquals([code, stderr], [3, `kcapi-streams: ${i} is cut short: it ends within OpenSSL's header\n`]);
  }
});

test("decrypt reads what CryptoJS and gibberish-aes write", { engine: "userspace" }, async () => {
  const directory = tempDir();
  const at = (name: string) => join(directory, name);
  const text = "attack at dawn ".repeat(50);
  writeFileSync(at("passphrase"), PASSPHRASE);
  writeFileSync(at("one line"), CryptoJS.AES.encrypt(text, PASSPHRASE).toString());
  GibberishAES.size(256);
  writeFileSync(at("lines"), GibberishAES.enc(text, PASSPHRASE));
  writeFileSync(at("after a blank line"), `\n  ${GibberishAES.enc(text, PASSPHRASE)}\r\n`);
  for (const name of ["one line", "lines", "after a blank line"]) {
    const options = ["--passphrase-file", at("passphrase"), "--kdf", "evp", "--md", "md5", "--engine", engine];
    await run("decrypt", ...options, "-i", at(name), "-o", at("back"));
    assertEquals(new TextDecoder().decode(readBytes(at("back"))), text);
  }
});
