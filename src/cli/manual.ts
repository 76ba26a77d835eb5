/**
 * The manual page.
 *
 * @module
 */

import { DEFAULT_ITERATIONS } from "./openssl.ts";
import { NAME, VERSION } from "./about.ts";
import type { Command, Option } from "./arguments.ts";
import { EXIT_CODES } from "./failures.ts";
import { PURPOSE, usageOf } from "./help.ts";

/** Escapes text for roff: special characters, and lines that look like a request. */
function roff(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("…", "...").replace(/^(?=[.'])/gm, "\\&");
}

export function manual(commands: readonly Command[]): string {
  const options = ({ name, short, value, text }: Option) =>
    `.TP\n${short ? `\\fB\\-${short}\\fR, ` : ""}\\fB\\-\\-${roff(name)}\\fR${value ? ` \\fI${value}\\fR` : ""}\n${
      roff(text)
    }\n`;
  const sections = commands.map(({ name, summary, text, operands = [], options: list }) =>
    `.SS ${name}${roff(usageOf(operands))}\n${roff(summary)}.\n${text ? `.PP\n${roff(text)}\n` : ""}${
      list.map(options).join("")
    }`
  );
  const exitCodes = EXIT_CODES.map(([code, meaning]) => `.TP\n.B ${code}\n${roff(meaning)}\n`);
  const examples = EXAMPLES.map(([what, line]) => `.PP\n${roff(what)}:\n.PP\n.nf\n.RS\n${roff(line)}\n.RE\n.fi\n`);
  return `.TH ${NAME.toUpperCase().replace("-", "\\-")} 1 "" "${NAME} ${VERSION}" "User Commands"
.SH NAME
${roff(NAME)} \\- encrypt and decrypt with the ciphers of the Linux kernel
.SH SYNOPSIS
.B ${roff(NAME)}
.I COMMAND
[\\fIOPTION\\fR...]
.SH DESCRIPTION
${roff(PURPOSE)}
.PP
${roff(FILES_TEXT)}
.SH COMMANDS
${sections.join("")}.SH EXIT STATUS
${exitCodes.join("")}.SH ENVIRONMENT
.TP
.B KCAPI_LIBRARY
${roff("The path of a libkcapi.so.1 to use before the system's.")}
.SH EXAMPLES
${examples.join("")}.SH COMPATIBILITY
${COMPATIBILITY.map(([tool, text]) => `.TP\n.B ${roff(tool)}\n${roff(text)}\n`).join("")}.SH SECURITY
${roff(SECURITY_TEXT)}
.SH SEE ALSO
.BR openssl\\-enc (1ssl),
.BR kcapi\\-enc (1)
`;
}

const FILES_TEXT =
  "Output to a file goes to a temporary file in the same directory, which is renamed at the end: a run that fails or " +
  "is interrupted changes nothing. A file that is replaced keeps its permissions and, if the system allows it, its " +
  "owner and group; --no-clobber replaces none. New ciphertext gets the permissions of the umask, new plaintext is " +
  "readable for the user alone. While it works, the tool shows its progress if standard error is a terminal.";

const SECURITY_TEXT =
  "seal authenticates data; unseal reports a truncation at the end. encrypt and decrypt do not authenticate: an " +
  "attacker who can change the ciphertext can change the plaintext, and a wrong key shows only where there is " +
  "padding, and then not always. Never reuse an IV with the same key. The tool takes no secrets from the command " +
  "line or the environment, where other users could see them.";

const COMPATIBILITY: readonly (readonly [tool: string, text: string])[] = [
  [
    "openssl enc",
    "Each reads the files of the other, with -pbkdf2 -iter N (--iter N), without -pbkdf2 (--kdf evp), or with -K and " +
    "-iv (--key-file and --iv). -md, -nosalt, -a and -A have the same names, -S is --salt, and -nopad is --padding " +
    "none. openssl enc -pbkdf2 without -iter is --iter 10000.",
  ],
  [
    "CryptoJS, gibberish-aes",
    "Text that they encrypt under a passphrase is --kdf evp --md md5 --base64.",
  ],
  [
    "kcapi-enc 1.4",
    "With a key, it pads input that is not whole blocks, as the tool does. For whole blocks and for stream modes, " +
    "use --padding none. Its passphrases are not supported.",
  ],
  [
    "LUKS, dm-crypt",
    "-c 'xts(aes)' --sector-size 512 is aes-xts-plain64 with the volume key, from the start of the payload on. Use " +
    "--sector to start at a later sector.",
  ],
];

const EXAMPLES: readonly (readonly [string, string])[] = [
  [
    "Make a key, and seal a backup with it",
    `${NAME} keygen -o key; tar c /home | ${NAME} seal --key-file key -o home.sealed`,
  ],
  ["Restore that backup", `${NAME} unseal --key-file key -i home.sealed | tar x`],
  ["Read a part of a sealed file", `${NAME} unseal --key-file key -i film.sealed --range 1000000-1999999`],
  ["The same from a server", `${NAME} unseal --key-file key -i https://example.org/film.sealed --range 0-999999`],
  [
    "Check backups, and rescue a damaged one",
    `${NAME} verify --key-file key *.sealed; ` +
    `${NAME} unseal --rescue --key-file key -i damaged.sealed -o rescued`,
  ],
  ["Seal a file with a passphrase, which the terminal asks for", `${NAME} seal --passphrase -i notes -o notes.sealed`],
  [
    "Make a key pair, seal backups by its public part alone, and restore one",
    `${NAME} keygen --type x25519 -o me.jwk >me.pub; tar c /home | ${NAME} seal --recipient me.pub -o home.sealed; ` +
    `${NAME} unseal --identity me.jwk -i home.sealed | tar x`,
  ],
  ["Encrypt a file with a passphrase for OpenSSL", `${NAME} encrypt -i notes -o notes.enc`],
  ["Decrypt that file with OpenSSL", `openssl enc -d -aes-256-cbc -pbkdf2 -iter ${DEFAULT_ITERATIONS} -in notes.enc`],
  ["Decrypt a file of openssl enc -aes-256-cbc without -pbkdf2", `${NAME} decrypt --kdf evp -i old.enc -o old`],
  [
    "Encrypt a backup with a key from a file and a random IV in front",
    `tar c /home | ${NAME} encrypt -c 'ctr(aes)' --key-file key --iv-prefix -o home.tar.enc`,
  ],
  [
    "The same with a key in the kernel's keyring, which never enters the tool",
    `tar c /home | ${NAME} encrypt -c 'ctr(aes)' --kernel-key logon:kcapi:backup --iv-prefix -o home.tar.enc`,
  ],
  [
    "Decrypt a ciphertext of ctr from byte 1,000,000 on",
    `tail -c +1000001 film.enc | ${NAME} decrypt -c aes-256-ctr --key-file key --iv $IV --position 1000000`,
  ],
  [
    "Decrypt the payload of a LUKS volume (aes-xts-plain64)",
    `tail -c +2097153 volume | ${NAME} decrypt -c 'xts(aes)' --key-file key --sector-size 512 -o payload`,
  ],
];
