/**
 * Passphrases: what OpenSSL takes for one, and asking for it on the terminal.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import { ReadStream } from "node:tty";
import type { Bytes } from "../bytes.ts";
import { fill, writeAll } from "./descriptors.ts";
import { Failure, wrongUsage } from "./failures.ts";
import { atEndOrSignal, INTERRUPTED } from "./signals.ts";

/** OpenSSL cuts longer passphrases without a word. */
const LONGEST_PASSPHRASE = 1023;

export function checkPassphrase(bytes: Bytes): Bytes {
  if (bytes.length === 0) throw wrongUsage("the passphrase is empty");
  if (bytes.length > LONGEST_PASSPHRASE) {
    throw wrongUsage(`the passphrase has more than ${LONGEST_PASSPHRASE} bytes, which OpenSSL would cut`);
  }
  if (bytes.includes(0)) throw wrongUsage("the passphrase has a zero byte, at which OpenSSL would cut it");
  return bytes;
}

export async function askPassphrase(confirm: boolean): Promise<Bytes> {
  const passphrase = checkPassphrase(await ask("Passphrase: "));
  if (!confirm) return passphrase;
  const again = await ask("The same again: ");
  const isSame = Buffer.compare(passphrase, again) === 0;
  again.fill(0);
  if (!isSame) throw wrongUsage("the passphrases differ");
  return passphrase;
}

/** A line from the terminal, typed without an echo. */
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

/** In raw mode, the keys that edit a line and end the tool are ours to see to. */
async function readLine(fd: number): Promise<Bytes> {
  const line = new Uint8Array(LONGEST_PASSPHRASE + 1);
  const byte = new Uint8Array(1);
  let length = 0;
  for (;;) {
    const isEnd = (await fill(fd, byte)).length === 0;
    const key = byte[0]!;
    if (key === 3) throw new Failure(INTERRUPTED, ""); // Ctrl-C
    if (isEnd || key === 10 || key === 13 || key === 4) return line.subarray(0, length); // Enter, Ctrl-D
    if (key === 21) length = 0; // Ctrl-U
    else if (key === 8 || key === 127) length = withoutLastCharacter(line, length); // Backspace
    else if (length < line.length) line[length++] = key;
  }
}

/** UTF-8: a character is a first byte and those after it of the form 10xxxxxx. */
function withoutLastCharacter(line: Bytes, length: number): number {
  do length--; while (length > 0 && (line[length]! & 0xc0) === 0x80);
  return Math.max(0, length);
}
