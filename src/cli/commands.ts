/**
 * The commands: their help, completions and manual page are made from this.
 *
 * @module
 */

import { DEFAULT_ITERATIONS } from "./crypt.ts";
import { DEFAULT_CIPHER } from "./plan.ts";
import { DEFAULT_SIZES } from "./speed.ts";
import { NAME, VERSION } from "./about.ts";
import { type Command, type Option, unknown } from "./arguments.ts";
import { completions, SHELLS } from "./completions.ts";
import { crypt } from "./crypt.ts";
import { print } from "./descriptors.ts";
import { wrongUsage } from "./failures.ts";
import { help, overview } from "./help.ts";
import { manual } from "./manual.ts";
import { DEFAULT_FORMAT, FORMAT_NAMES } from "../sealed/format.ts";
import { keygen, sealFile, unsealFile } from "./seal.ts";
import { ciphers, doctor } from "./report.ts";
import { speed } from "./speed.ts";

const ENGINES = ["auto", "fastest", "kernel", "userspace"];
const USUAL_CIPHERS = ["cbc(aes)", "ctr(aes)", "xts(aes)", "ecb(aes)", "chacha20"];

const HELP: Option = { name: "help", short: "h", text: "show this help" };
const JSON_OPTION: Option = { name: "json", text: "write JSON" };

const IN: Option = { name: "in", short: "i", value: "FILE", text: "read FILE (default, and -: standard input)" };
const OUT: Option = { name: "out", short: "o", value: "FILE", text: "write FILE (default, and -: standard output)" };
const KEY_FILE: Option = { name: "key-file", value: "FILE", text: "the key: all bytes of FILE, as they are" };
const KEY_FD: Option = { name: "key-fd", value: "N", text: "the key: all bytes of descriptor N" };
const KERNEL_KEY: Option = {
  name: "kernel-key",
  value: "TYPE:DESCRIPTION",
  text: "the key: one of the kernel's keyring (logon, user, encrypted or trusted), which never enters the process",
};
const KEY_SERIAL: Option = {
  name: "key-serial",
  value: "N",
  text: "the key: the one of this serial in the kernel's keyring",
};
const NO_CLOBBER: Option = { name: "no-clobber", text: "do not replace a file that exists" };
const QUIET: Option = { name: "quiet", short: "q", text: "do not show the progress" };
const ENGINE: Option = {
  name: "engine",
  value: "ENGINE",
  choices: ENGINES,
  text: "kernel, userspace or auto: the kernel where it has the cipher (default: auto)",
};

const CRYPT_OPTIONS: readonly Option[] = [
  IN,
  OUT,
  NO_CLOBBER,
  {
    name: "cipher",
    short: "c",
    value: "NAME",
    choices: USUAL_CIPHERS,
    text: `the kernel's name of the cipher, or OpenSSL's, such as aes-128-ctr (default: ${DEFAULT_CIPHER})`,
  },
  KEY_FILE,
  KEY_FD,
  KERNEL_KEY,
  KEY_SERIAL,
  { name: "passphrase-file", value: "FILE", text: "the passphrase: the first line of FILE" },
  { name: "passphrase-fd", value: "N", text: "the passphrase: the first line of descriptor N" },
  { name: "iter", value: "N", text: `passphrase: rounds of PBKDF2 (default: ${DEFAULT_ITERATIONS})` },
  { name: "key-bits", value: "N", text: "passphrase: length of the key to derive (default: the cipher's longest)" },
  { name: "iv", value: "HEX", text: "key: the IV" },
  { name: "iv-prefix", text: "key: the IV stands in front of the ciphertext; encryption makes a random one" },
  {
    name: "padding",
    value: "KIND",
    choices: ["pkcs7", "none"],
    text: "pkcs7 or none (default: pkcs7 for cbc, ecb and pcbc)",
  },
  {
    name: "sector-size",
    value: "N",
    text: "sector modes (xts …): bytes in a sector, whose IV is its number (plain64)",
  },
  { name: "sector", value: "N", text: "the number of the first sector (default: 0)" },
  ENGINE,
  QUIET,
  HELP,
];

const SEAL_OPTIONS: readonly Option[] = [
  IN,
  OUT,
  NO_CLOBBER,
  KEY_FILE,
  KEY_FD,
  {
    name: "associated-data",
    value: "TEXT",
    text: "what the data is bound to, such as its name; not stored",
    otherBytes: ": give other bytes by --associated-data-file",
  },
  { name: "associated-data-file", value: "FILE", text: "the same: all bytes of FILE, as they are" },
  {
    name: "format",
    value: "FORMAT",
    choices: FORMAT_NAMES,
    text: `Tink's name of the format; not stored (default: ${DEFAULT_FORMAT})`,
  },
  ENGINE,
  QUIET,
];

const SEAL_TEXT = "The key is one of at least 32 bytes, such as keygen makes, for any number of files. The format is " +
  "Tink's streaming AEAD (AES-CTR-HMAC or AES-GCM-HKDF).";

const SECRETS_TEXT =
  `Without a key or passphrase option, the passphrase is asked for on the terminal. Passphrases make OpenSSL's format ` +
  `(Salted__, PBKDF2-HMAC-SHA256): openssl enc -pbkdf2 -iter ${DEFAULT_ITERATIONS} -aes-256-cbc. Keys make bare ` +
  `ciphertext, as openssl enc -K -iv and kcapi-enc do.`;

export const COMMANDS: readonly Command[] = [
  {
    name: "seal",
    summary: "encrypts and authenticates a file or standard input",
    text: SEAL_TEXT,
    options: [...SEAL_OPTIONS, HELP],
    run: sealFile,
  },
  {
    name: "unseal",
    summary: "verifies and decrypts what was sealed",
    text:
      `${SEAL_TEXT} Exits with 3 if anything is wrong: a file then does not appear under its name; what was written to ` +
      "standard output before is true, but not all there was.",
    options: [
      ...SEAL_OPTIONS,
      {
        name: "range",
        value: "A-B",
        text:
          "only the bytes from A to B, both included (A-: to the end; --range=-N: the last N), and no more is read than that " +
          "takes, and the end",
      },
      HELP,
    ],
    run: unsealFile,
  },
  {
    name: "keygen",
    summary: "makes a random key",
    text: "A file is the user's alone, and is never written over.",
    options: [
      { name: "bits", value: "N", text: "its length (default: 256)" },
      { name: "out", short: "o", value: "FILE", text: "write FILE (default: standard output, if that is no terminal)" },
      HELP,
    ],
    run: keygen,
  },
  {
    name: "encrypt",
    summary: "encrypts a file or standard input",
    text:
      "Most people want seal, which also finds out whether the data was changed; this is for what others wrote or read, " +
      `and for disks. ${SECRETS_TEXT}`,
    options: CRYPT_OPTIONS,
    run: (given) => crypt("encrypt", given),
  },
  {
    name: "decrypt",
    summary: "decrypts a file or standard input",
    text:
      `${SECRETS_TEXT} Nothing is authenticated: what was written to standard output before an error is unverified, ` +
      "and only padding can show that a key is wrong.",
    options: CRYPT_OPTIONS,
    run: (given) => crypt("decrypt", given),
  },
  {
    name: "ciphers",
    summary: "lists the ciphers, and which engines have them",
    text: "Use tells how long an input may be: a stream is of any length, sectors need --sector-size, a message must " +
      "fit the kernel's buffer (212,992 bytes).",
    options: [{ name: "json", text: "write JSON: an entry for each implementation" }, HELP],
    run: ciphers,
  },
  {
    name: "doctor",
    summary: "tells whether the kernel engine works here, and if not, why and what would help",
    text: "Exits with 1 if the kernel engine is not usable.",
    options: [JSON_OPTION, HELP],
    run: doctor,
  },
  {
    name: "speed",
    summary: "measures the kernel engine against the userspace engine",
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
    text: `To have them: source <(${NAME} completions), in zsh with --shell zsh; in fish ` +
      `${NAME} completions --shell fish | source`,
    options: [{ name: "shell", value: "SHELL", choices: SHELLS, text: "the shell (default: bash)" }, HELP],
    run: (given) => print(completions(given.get("shell") ?? "bash", COMMANDS)),
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
    operand: {
      name: "COMMAND",
      get choices() {
        return COMMANDS.map(({ name }) => name);
      },
    },
    options: [HELP],
    run: (given) => print(given.operand === undefined ? overview(COMMANDS) : help(commandOf(given.operand))),
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
