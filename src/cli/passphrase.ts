/**
 * Passphrases: their check, and the prompt on the terminal.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import { ReadStream } from "node:tty";
import type { Bytes } from "../bytes.ts";
import { fill, writeAll } from "./descriptors.ts";
import { Failure, wrongUsage } from "./failures.ts";
import { atEndOrSignal, SIGNALS } from "./signals.ts";

/** OpenSSL truncates longer passphrases without an error. */
const LONGEST_PASSPHRASE = 1023;

export function checkPassphrase(bytes: Bytes): Bytes {
  if (bytes.length === 0) throw wrongUsage("the passphrase is empty");
  if (bytes.length > LONGEST_PASSPHRASE) {
    throw wrongUsage(`the passphrase has more than ${LONGEST_PASSPHRASE} bytes, and OpenSSL would truncate it`);
  }
  if (bytes.includes(0)) throw wrongUsage("the passphrase has a zero byte, and OpenSSL would truncate it there");
  return bytes;
}

/**
 * Asks for a passphrase on the terminal.
 *
 * @param confirm Ask twice, for a new one.
 */
export async function askPassphrase(confirm: boolean, prompt = "Passphrase: "): Promise<Bytes> {
  const passphrase = checkPassphrase(await ask(prompt));
  if (!confirm) return passphrase;
  const again = await ask("The same again: ");
  const isSame = Buffer.compare(passphrase, again) === 0;
  again.fill(0);
  if (!isSame) throw wrongUsage("the passphrases differ");
  return passphrase;
}

/** Reads a line from the terminal, without an echo. */
async function ask(prompt: string): Promise<Bytes> {
  let fd: number;
  try {
    fd = fs.openSync("/dev/tty", "r+");
  } catch {
    throw wrongUsage(
      "no secret: give --key-file, --key-fd, --passphrase-file or --passphrase-fd (there is no terminal to ask)",
    );
  }
  const terminal = new ReadStream(fd);
  const restore = () => {
    terminal.setRawMode(false);
    fs.writeSync(fd, "\n");
    terminal.destroy();
  };
  const unregister = atEndOrSignal(restore);
  terminal.setRawMode(true);
  try {
    await writeAll(fd, Buffer.from(prompt));
    return await readLine(fd);
  } finally {
    unregister();
    restore();
  }
}

/** The control characters that have a meaning in raw mode. */
const KEY = {
  ctrlC: 3,
  ctrlD: 4,
  backspace: 8,
  enter: 13,
  newline: 10,
  ctrlU: 21,
  escape: 27,
  ctrlBackslash: 28,
  delete: 127,
};

/** Reads a line. Rings the bell for a control character without a meaning, which does not become part of the line. */
async function readLine(fd: number): Promise<Bytes> {
  const line = new Uint8Array(LONGEST_PASSPHRASE + 1);
  let length = 0;
  for (let key = await readKey(fd);; key = await readKey(fd)) {
    switch (key) {
      case undefined:
      case KEY.ctrlD:
      case KEY.enter:
      case KEY.newline:
        return line.subarray(0, length);
      case KEY.ctrlC:
        throw new Failure(128 + SIGNALS.SIGINT, "");
      case KEY.ctrlBackslash:
        throw new Failure(128 + SIGNALS.SIGQUIT, "");
      case KEY.ctrlU:
        length = 0;
        break;
      case KEY.backspace:
      case KEY.delete:
        length = withoutLastCharacter(line, length);
        break;
      default:
        if (key < 32) await writeAll(fd, BELL);
        else if (length < line.length) line[length++] = key;
    }
  }
}

const BELL = Uint8Array.of(7);

/**
 * The next byte that was typed; undefined at the end. An arrow or function key sends ESC [ … or ESC O …: the result is
 * one ESC for all of it. Another ESC, as of Esc or Alt, is skipped.
 */
async function readKey(fd: number): Promise<number | undefined> {
  const key = await readByte(fd);
  if (key !== KEY.escape) return key;
  const kind = await readByte(fd);
  if (kind !== 0x5b && kind !== 0x4f) return kind;
  // Parameters, and a final byte from @ to ~ (ECMA-48).
  for (let byte = await readByte(fd); byte !== undefined && byte < 0x40;) byte = await readByte(fd);
  return key;
}

async function readByte(fd: number): Promise<number | undefined> {
  return (await fill(fd, new Uint8Array(1)))[0];
}

/** The length without the last character. In UTF-8, the bytes after the first one of a character are 10xxxxxx. */
function withoutLastCharacter(line: Bytes, length: number): number {
  do length--; while (length > 0 && (line[length]! & 0xc0) === 0x80);
  return Math.max(0, length);
}
