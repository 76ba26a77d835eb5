/**
 * The commands: their help, completions and manual page are made from this.
 *
 * @module
 */

import { DEFAULT_ITERATIONS } from "./crypt.ts";
import { DEFAULT_CIPHER } from "./plan.ts";
import { DEFAULT_SIZES } from "./speed.ts";
import { NAME } from "./about.ts";
import type { Command, Option } from "./arguments.ts";
import { completions } from "./completions.ts";
import { crypt } from "./crypt.ts";
import { print } from "./descriptors.ts";
import { manual } from "./manual.ts";
import { ciphers, doctor } from "./report.ts";
import { speed } from "./speed.ts";

const ENGINES = ["auto", "kernel", "userspace"];
const USUAL_CIPHERS = ["cbc(aes)", "ctr(aes)", "xts(aes)", "ecb(aes)", "chacha20"];

const HELP: Option = { name: "help", short: "h", text: "show this help" };
const JSON_OPTION: Option = { name: "json", text: "write JSON" };

const CRYPT_OPTIONS: readonly Option[] = [
  { name: "in", short: "i", value: "FILE", text: "read FILE (default, and -: standard input)" },
  { name: "out", short: "o", value: "FILE", text: "write FILE (default, and -: standard output)" },
  {
    name: "cipher",
    short: "c",
    value: "NAME",
    choices: USUAL_CIPHERS,
    text: `the kernel's name of the cipher, or OpenSSL's, such as aes-128-ctr (default: ${DEFAULT_CIPHER})`,
  },
  { name: "key-file", value: "FILE", text: "the key: all bytes of FILE, as they are" },
  { name: "key-fd", value: "N", text: "the key: all bytes of descriptor N" },
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
  {
    name: "engine",
    value: "ENGINE",
    choices: ENGINES,
    text: "kernel, userspace or auto: the kernel where it has the cipher (default: auto)",
  },
  HELP,
];

const SECRETS_TEXT =
  `Without a key or passphrase option, the passphrase is asked for on the terminal. Passphrases make OpenSSL's format ` +
  `(Salted__, PBKDF2-HMAC-SHA256): openssl enc -pbkdf2 -iter ${DEFAULT_ITERATIONS} -aes-256-cbc. Keys make bare ` +
  `ciphertext, as openssl enc -K -iv and kcapi-enc do.`;

export const COMMANDS: readonly Command[] = [
  {
    name: "encrypt",
    summary: "encrypts a file or standard input",
    text: SECRETS_TEXT,
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
    summary: "writes the completions for bash",
    text: `To have them: source <(${NAME} completions)`,
    options: [HELP],
    run: () => print(completions(COMMANDS)),
  },
  {
    name: "man",
    summary: "writes the manual page",
    text: `To read it: ${NAME} man | man -l -`,
    options: [HELP],
    run: () => print(manual(COMMANDS)),
  },
];
