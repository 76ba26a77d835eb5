/**
 * The table of commands. Help, completions and the manual page are made from it.
 *
 * @module
 */

import { DIGESTS } from "../openssl/key.ts";
import { DEFAULT_ITERATIONS } from "./openssl.ts";
import { DEFAULT_CIPHER } from "./plan.ts";
import { DEFAULT_SIZES } from "./speed.ts";
import { NAME, VERSION } from "./about.ts";
import { type Command, type Option, unknown } from "./arguments.ts";
import { completions, SHELLS } from "./completions.ts";
import { crypt } from "./crypt.ts";
import { print } from "./descriptors.ts";
import { wrongUsage } from "./failures.ts";
import { recipients, rewrap } from "./envelope.ts";
import { help, overview } from "./help.ts";
import { KEY_TYPES, keygen } from "./keygen.ts";
import { keyset, KEYSET_ACTIONS } from "./keysets.ts";
import { manual } from "./manual.ts";
import { DEFAULT_ENVELOPE_FORMAT } from "../envelope/header.ts";
import { IV_MODES } from "../position.ts";
import { DEFAULT_FORMAT, FORMAT_NAMES } from "../sealed/format.ts";
import { sealFile, unsealFile } from "./seal.ts";
import { verify } from "./verify.ts";
import { ciphers, doctor } from "./report.ts";
import { speed } from "./speed.ts";

const ENGINES = ["auto", "kernel", "userspace"];
const USUAL_CIPHERS = [
  ...["cbc(aes)", "ctr(aes)", "xts(aes)", "ecb(aes)", "chacha20"],
  ...["aes-128-cbc", "aes-256-cbc", "aes-128-ctr", "aes-256-ctr", "des-ede3-cbc"],
];

const HELP: Option = { name: "help", short: "h", text: "show this help" };
const JSON_OPTION: Option = { name: "json", text: "write JSON" };

const IN: Option = { name: "in", short: "i", value: "FILE", text: "read FILE (default, and -: standard input)" };
const OUT: Option = { name: "out", short: "o", value: "FILE", text: "write FILE (default, and -: standard output)" };
const KEY_FILE: Option = { name: "key-file", value: "FILE", text: "the key: all bytes of FILE, as they are" };
const KEY_FD: Option = { name: "key-fd", value: "N", text: "the key: all bytes of descriptor N" };
const KERNEL_KEY: Option = {
  name: "kernel-key",
  value: "TYPE:DESCRIPTION",
  text: "the key: a logon, user, encrypted or trusted key in the kernel's keyring, which never enters the process",
};
const KEY_SERIAL: Option = {
  name: "key-serial",
  value: "N",
  text: "the key: the key with this serial number in the kernel's keyring",
};
const NO_CLOBBER: Option = { name: "no-clobber", text: "do not replace a file that exists" };
const QUIET: Option = { name: "quiet", short: "q", text: "do not show the progress" };
const ENGINE: Option = {
  name: "engine",
  value: "ENGINE",
  choices: ENGINES,
  text: "kernel, userspace, or auto: the kernel if it has the cipher (default: auto)",
};

const ASSOCIATED_DATA: readonly Option[] = [
  {
    name: "associated-data",
    value: "TEXT",
    text: "authenticated with the data, such as its name; not stored",
    otherBytes: ": give other bytes by --associated-data-file",
  },
  { name: "associated-data-file", value: "FILE", text: "the same: all bytes of FILE, as they are" },
];

const CRYPT_OPTIONS: readonly Option[] = [
  IN,
  OUT,
  NO_CLOBBER,
  {
    name: "cipher",
    short: "c",
    value: "NAME",
    choices: [...USUAL_CIPHERS, "gcm(aes)"],
    text: `the name of the cipher in the kernel or in OpenSSL, such as aes-128-ctr (default: ${DEFAULT_CIPHER})`,
  },
  KEY_FILE,
  KEY_FD,
  KERNEL_KEY,
  KEY_SERIAL,
  { name: "passphrase-file", value: "FILE", text: "the passphrase: the first line of FILE" },
  { name: "passphrase-fd", value: "N", text: "the passphrase: the first line of descriptor N" },
  { name: "iter", value: "N", text: `passphrase: iterations of PBKDF2 (default: ${DEFAULT_ITERATIONS})` },
  {
    name: "kdf",
    value: "KDF",
    choices: ["pbkdf2", "evp"],
    text: "passphrase: pbkdf2, or evp: EVP_BytesToKey, for files of openssl enc without -pbkdf2 (default: pbkdf2)",
  },
  {
    name: "md",
    value: "DIGEST",
    choices: DIGESTS,
    text: "passphrase: the hash of the derivation: md5, sha1, sha256, sha512 and others (default: sha256)",
  },
  { name: "nosalt", text: "passphrase: no salt and no header, as openssl enc -nosalt" },
  { name: "salt", value: "HEX", text: "passphrase: this salt and no header, as openssl enc -S" },
  { name: "key-bits", value: "N", text: "passphrase: bits of the key to derive (default: the cipher's longest)" },
  {
    name: "base64",
    short: "a",
    text: "the ciphertext is base64, in lines of 64 characters; decryption finds a header in base64 by itself",
  },
  { name: "one-line", short: "A", text: "the ciphertext is base64, in one line" },
  { name: "iv", value: "HEX", text: "key: the IV" },
  { name: "iv-prefix", text: "key: the IV is in front of the ciphertext; encryption makes a random one" },
  {
    name: "position",
    value: "N",
    text: "key, counter modes (ctr, chacha20 …): the input starts at this byte of the keystream (default: 0)",
  },
  {
    name: "counter-bits",
    value: "N",
    choices: ["32", "64", "128"],
    text: "key, ctr: the last N bits of the IV are the counter, as in GCM (32) or WebCrypto (default: all bits)",
  },
  {
    name: "padding",
    value: "KIND",
    choices: ["pkcs7", "none"],
    text: "pkcs7 or none (default: pkcs7 for cbc, ecb and pcbc)",
  },
  {
    name: "sector-size",
    value: "N",
    text: "sector modes (xts …): bytes of a sector; its IV is its number",
  },
  { name: "sector", value: "N", text: "the number of the first sector, counted in sectors of 512 bytes (default: 0)" },
  {
    name: "iv-mode",
    value: "MODE",
    choices: IV_MODES,
    text: "how a sector's number is its IV: plain64, plain64be or plain, as dm-crypt calls them (default: plain64)",
  },
  { name: "iv-large-sectors", text: "count sectors of --sector-size, not of 512 bytes (dm-crypt's iv_large_sectors)" },
  ...ASSOCIATED_DATA.map((option) => ({ ...option, text: `gcm(aes): ${option.text}` })),
  {
    name: "tag",
    value: "PLACE",
    text: "gcm(aes): where the tag is: end, or start (after the IV of --iv-prefix); decryption also takes the tag " +
      "itself in hexadecimal digits, if it is stored apart (default: end)",
  },
  { name: "tag-size", value: "N", text: "gcm(aes): bytes of the tag: 4, 8 or 12 to 16 (default: 16)" },
  {
    name: "max-size",
    value: "N",
    text: "gcm(aes): the most bytes to hold in memory until a message is verified (default: 67108864)",
  },
  ENGINE,
  QUIET,
  HELP,
];

const FORMAT: Option = {
  name: "format",
  value: "FORMAT",
  choices: FORMAT_NAMES,
  text: `the name of the format in Tink (default: ${DEFAULT_FORMAT})`,
};
const RECIPIENT: Option = {
  name: "recipient",
  value: "FILE",
  many: true,
  text: "wrap the file's key for the public key in FILE (JWK, JWK set or PEM; or a symmetric JWK); may be repeated",
};
const IDENTITY: Option = {
  name: "identity",
  value: "FILE",
  many: true,
  text: "unwrap the file's key by the private key in FILE (JWK, JWK set or PEM; or a symmetric JWK); may be repeated",
};

/** The options for a passphrase. */
function passphraseOptions(what: string, prefix = ""): readonly Option[] {
  return [
    { name: `${prefix}passphrase`, text: `${what}: the terminal asks for it, unless one of the next two is given` },
    { name: `${prefix}passphrase-file`, value: "FILE", text: `${what}: the first line of FILE` },
    { name: `${prefix}passphrase-fd`, value: "N", text: `${what}: the first line of descriptor N` },
  ];
}

const SEAL_OPTIONS: readonly Option[] = [
  IN,
  OUT,
  NO_CLOBBER,
  { ...KEY_FILE, many: true, text: `${KEY_FILE.text}; may be repeated: seal uses the first, unseal tries each` },
  KEY_FD,
  { name: "keyset", value: "FILE", text: "the keys: the Tink keyset in FILE (JSON), with their formats" },
  ...ASSOCIATED_DATA,
  {
    ...FORMAT,
    text: `the name of the format in Tink (default: ${DEFAULT_FORMAT}, for recipients ${DEFAULT_ENVELOPE_FORMAT}); ` +
      "stored only for recipients",
  },
  ENGINE,
  QUIET,
];

const SEAL_TEXT =
  "A key has at least 32 bytes; keygen makes one. It can be used for any number of files. The format is " +
  "Tink's streaming AEAD (AES-CTR-HMAC or AES-GCM-HKDF). For recipients and passphrases, the file has a random key " +
  "of its own in its header, wrapped for each of them (JWE). Any one of them opens the file. They need the package " +
  "jose.";

const SECRETS_TEXT =
  `Without a key or passphrase option, the terminal asks for the passphrase. A passphrase gives OpenSSL's format ` +
  `(Salted__, PBKDF2-HMAC-SHA256): openssl enc -pbkdf2 -iter ${DEFAULT_ITERATIONS} -aes-256-cbc. Files of ` +
  `other options need --iter, --kdf, --md, --nosalt or --salt, because they do not record them. A key gives bare ` +
  `ciphertext, as openssl enc -K -iv and kcapi-enc do.`;

const COMMANDS: readonly Command[] = [
  {
    name: "seal",
    summary: "encrypts and authenticates a file or standard input",
    text: SEAL_TEXT,
    options: [...SEAL_OPTIONS, RECIPIENT, ...passphraseOptions("wrap the file's key for a passphrase"), HELP],
    run: sealFile,
  },
  {
    name: "unseal",
    summary: "verifies and decrypts a sealed file",
    text:
      `${SEAL_TEXT} The first line of the file tells which of the given keys it needs. Exits with 3 if the data is ` +
      "damaged or cut short. An output file then does not appear; what was written to standard output is authentic, " +
      "but not complete. --in may be a URL (https://…), whose server must support ranges.",
    options: [
      ...SEAL_OPTIONS,
      IDENTITY,
      ...passphraseOptions("unwrap the file's key by a passphrase"),
      {
        name: "range",
        value: "A-B",
        text: "only the bytes from A to B, both included (A-: to the end; --range=-N: the last N). Reads only these " +
          "bytes and the end of the file",
      },
      {
        name: "rescue",
        text: "write the intact parts of a damaged file, and zeros in place of the others. Needs --out. Lists the " +
          "damaged parts, and exits with 4 if there are any",
      },
      HELP,
    ],
    run: unsealFile,
  },
  {
    name: "verify",
    summary: "checks sealed files, and tells which bytes are damaged",
    text:
      "FILE may be a URL (https://…). Exits with 3 if one is damaged. Bytes are counted in the plaintext, as --range " +
      "counts them.",
    operands: [{ name: "FILE", many: true }],
    options: [
      ...SEAL_OPTIONS.filter((option) => ![IN, OUT, NO_CLOBBER].includes(option)),
      IDENTITY,
      ...passphraseOptions("unwrap the file's key by a passphrase"),
      HELP,
    ],
    run: verify,
  },
  {
    name: "keygen",
    summary: "makes a random key, a key pair or a keyset",
    text: "Only the user can read the file. An existing file is never replaced. The public part of a key pair is " +
      "printed: give it to the people who seal files for you.",
    options: [
      {
        name: "type",
        value: "TYPE",
        choices: KEY_TYPES,
        text: "aes (symmetric) or x25519 (key pair) for recipients, as a JWK; or tink, a keyset (default: plain bytes)",
      },
      { name: "bits", value: "N", text: "the length of plain bytes (default: 256)" },
      { ...FORMAT, text: `tink: the format of the first key (default: ${DEFAULT_FORMAT})` },
      {
        name: "out",
        short: "o",
        value: "FILE",
        text: "write FILE (default: standard output, if it is not a terminal)",
      },
      HELP,
    ],
    run: keygen,
  },
  {
    name: "keyset",
    summary: "makes and changes a Tink keyset",
    text:
      "create makes FILE with one key. add adds a key, which seals once it is promoted. Both print its ID. promote " +
      "makes a key the one that seals. disable, enable and remove change which keys open. list shows them. To " +
      "rotate: add a key, give the keyset to all readers, promote the key. Seal with --keyset FILE.",
    operands: [
      { name: "ACTION", choices: KEYSET_ACTIONS },
      { name: "FILE" },
      { name: "ID", isOptional: true },
    ],
    options: [
      { ...FORMAT, text: `create, add: the format of the new key (default: ${DEFAULT_FORMAT})` },
      { name: "json", text: "list: write JSON" },
      HELP,
    ],
    run: keyset,
  },
  {
    name: "recipients",
    summary: "shows for whom the key of a sealed file is wrapped",
    text: "No key is needed, and nothing is authenticated.",
    operands: [{ name: "FILE" }],
    options: [JSON_OPTION, HELP],
    run: recipients,
  },
  {
    name: "rewrap",
    summary: "wraps the key of a sealed file for other recipients",
    text: "The data and its key stay unchanged: someone who opened the old file and stored its key can open the new " +
      "one. --in and --out may be the same file, which is then replaced as a whole.",
    options: [
      IN,
      OUT,
      NO_CLOBBER,
      IDENTITY,
      ...passphraseOptions("unwrap the file's key by a passphrase"),
      RECIPIENT,
      ...passphraseOptions("wrap the file's key for a new passphrase", "new-"),
      QUIET,
      HELP,
    ],
    run: rewrap,
  },
  {
    name: "encrypt",
    summary: "encrypts a file or standard input",
    text: "For new data use seal, which also detects changes, and takes passphrases and public keys, too. encrypt is " +
      `for data that other programs read, and for disks. ${SECRETS_TEXT}`,
    options: CRYPT_OPTIONS,
    run: (args) => crypt("encrypt", args),
  },
  {
    name: "decrypt",
    summary: "decrypts a file or standard input",
    text: `${SECRETS_TEXT} decrypt does not authenticate: output before an error is unverified, and only padding can ` +
      "show that a key is wrong. With gcm(aes), nothing comes out before all is verified: --in FILE is read twice, " +
      "--out FILE appears at the end, and from a pipe to a pipe up to --max-size bytes are held.",
    options: [
      ...CRYPT_OPTIONS.slice(0, -1),
      {
        name: "release-unverified",
        text: "gcm(aes): write bytes before they are verified; they may be forged unless the tool ends with 0",
      },
      HELP,
    ],
    run: (args) => crypt("decrypt", args),
  },
  {
    name: "ciphers",
    summary: "lists the ciphers, and which engines have them",
    text: "USE tells how long the input may be: a stream has any length, sectors need --sector-size, a message must " +
      "fit the kernel's buffer (212,992 bytes).",
    options: [{ name: "json", text: "write JSON: an entry for each implementation" }, HELP],
    run: ciphers,
  },
  {
    name: "doctor",
    summary: "tells whether the kernel engine works here, and if not, why and what to do",
    text: "Exits with 1 if the kernel engine is not usable.",
    options: [JSON_OPTION, HELP],
    run: doctor,
  },
  {
    name: "speed",
    summary: "measures the kernel engine and the userspace engine",
    options: [
      {
        name: "cipher",
        short: "c",
        value: "NAME",
        many: true,
        choices: USUAL_CIPHERS,
        text: "a cipher to measure, may be repeated (default: cbc(aes), ctr(aes) and xts(aes))",
      },
      {
        name: "size",
        short: "s",
        value: "BYTES",
        many: true,
        text: `a chunk size, may be repeated (default: ${DEFAULT_SIZES.join(", ")})`,
      },
      { name: "seconds", value: "S", text: "time for each figure (default: 0.5)" },
      JSON_OPTION,
      HELP,
    ],
    run: speed,
  },
  {
    name: "completions",
    summary: "writes the completions for bash, zsh or fish",
    text: `To load them: source <(${NAME} completions), in zsh with --shell zsh; in fish ` +
      `${NAME} completions --shell fish | source`,
    options: [{ name: "shell", value: "SHELL", choices: SHELLS, text: "the shell (default: bash)" }, HELP],
    run: (args) => print(completions(args.get("shell") ?? "bash", COMMANDS)),
  },
  {
    name: "man",
    summary: "writes the manual page",
    text: `To read it: ${NAME} man | man -l -`,
    options: [HELP],
    run: () => print(manual(COMMANDS)),
  },
  {
    name: "help",
    summary: "shows the help, or that of a command",
    operands: [{
      name: "COMMAND",
      isOptional: true,
      get choices() {
        return COMMANDS.map(({ name }) => name);
      },
    }],
    options: [HELP],
    run: ({ operands: [name] }) => print(name === undefined ? overview(COMMANDS) : help(commandOf(name))),
  },
  {
    name: "version",
    summary: "shows the version",
    options: [HELP],
    run: () => print(`${NAME} ${VERSION}\n`),
  },
];

/** The command of that name. */
export function commandOf(name: string): Command {
  const command = COMMANDS.find((command) => command.name === name);
  if (command) return command;
  throw wrongUsage(`${unknown("command", name, COMMANDS.map(({ name }) => name))} (see ${NAME} --help)`);
}
