/**
 * The command line tool, `kcapi-streams`: files through the ciphers of the kernel.
 *
 * One file over the public API. Secrets come from files, descriptors or the terminal, never from the command line or
 * the environment; output appears under its name only when it is complete.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import * as fs from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { isatty, ReadStream } from "node:tty";
import { parseArgs, promisify } from "node:util";
import {
  CipherHandle,
  type CipherInfo,
  type CipherIterable,
  type CipherStreamOptions,
  decrypt,
  encrypt,
  type EngineChoice,
  KcapiError,
  listCiphers,
  type Padding,
  probe,
} from "../mod.ts";

const VERSION = "0.1.0";
const NAME = "kcapi-streams";

type Bytes = Uint8Array<ArrayBuffer>;

// ---- The commands: their help, completions and manual page are made from this --------------------------------------

interface Option {
  readonly name: string;
  readonly short?: string;
  /** What its value is called; absent for a flag. Values called FILE are completed as file names. */
  readonly value?: string;
  readonly choices?: readonly string[];
  /** May be given several times. */
  readonly many?: boolean;
  readonly text: string;
}

interface Command {
  readonly name: string;
  readonly summary: string;
  readonly text?: string;
  readonly options: readonly Option[];
  readonly run: (given: Arguments) => number | Promise<number>;
}

const ENGINES = ["auto", "kernel", "userspace"];
const USUAL_CIPHERS = ["cbc(aes)", "ctr(aes)", "xts(aes)", "ecb(aes)", "chacha20"];
const DEFAULT_CIPHER = "cbc(aes)";
const DEFAULT_ITERATIONS = 600_000;
const DEFAULT_SIZES = ["4096", "65536", "1048576"];

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

const COMMANDS: readonly Command[] = [
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
    run: () => print(completions()),
  },
  {
    name: "man",
    summary: "writes the manual page",
    text: `To read it: ${NAME} man | man -l -`,
    options: [HELP],
    run: () => print(manual()),
  },
];

const EXIT_CODES: readonly (readonly [code: string, meaning: string])[] = [
  ["0", "done"],
  ["1", "a file cannot be read or written; doctor: the kernel engine is not usable"],
  ["2", "wrong usage"],
  ["3", "the data does not fit: wrong key or passphrase, damaged, cut short, or of a wrong length"],
  ["4", "the cipher or the engine is not to be had, or failed"],
  ["129, 130, 143", "ended by SIGHUP, SIGINT (Ctrl-C) or SIGTERM"],
  ["141", "whoever read the output went away"],
];

// ---- Failures ----------------------------------------------------------------------------------------------------

/** What ends the tool: a line for the user and an exit code. */
class Failure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

function wrongUsage(message: string): Failure {
  return new Failure(2, message);
}

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | undefined)?.code;
}

/** A file operation's error as a failure; runtimes word it differently around the system's own words. */
function fileFailure(what: string, error: unknown): Failure {
  // A reader that went away is nobody's mistake.
  if (codeOf(error) === "EPIPE") return new Failure(141, "");
  const words = String((error as Error)?.message ?? error)
    .replace(/^E[A-Z0-9]+: /, "").replace(/ \(os error \d+\).*/s, "").replace(/, \w+( '.*)?$/s, "");
  return new Failure(1, `${what}: ${words.charAt(0).toLowerCase()}${words.slice(1)}`);
}

/** What a thrown value means to the user. */
function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof KcapiError) {
    return error.code === "EBADMSG"
      ? new Failure(3, "the data does not decrypt: wrong key or passphrase, or it is damaged or cut short")
      : new Failure(4, error.message);
  }
  return new Failure(1, error instanceof Error ? error.message : String(error));
}

// ---- Cleaning up, also when a signal ends the tool ------------------------------------------------------------------

/** What is to be undone when the tool ends: temporary files, the terminal's mode. */
const cleanups = new Set<() => void>();

function cleanUp(): void {
  for (const cleanup of cleanups) {
    try {
      cleanup();
    } catch {
      // The others still have to run.
    }
  }
  cleanups.clear();
}

const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;

/** Runs `action` with our signal handlers in place; what whoever started us ignores (nohup), we ignore. */
async function withSignals<T>(action: () => Promise<T>): Promise<T> {
  const ignored = BigInt(`0x${/^SigIgn:\s*([0-9a-f]+)/m.exec(procFile("status"))?.[1] ?? "0"}`);
  const handled = Object.entries(SIGNALS).filter(([, number]) => (ignored >> BigInt(number - 1) & 1n) === 0n);
  const handlers = handled.map(([signal, number]) => {
    const handler = () => {
      cleanUp();
      process.exit(128 + number);
    };
    process.on(signal, handler);
    return () => process.off(signal, handler);
  });
  try {
    return await action();
  } finally {
    cleanUp();
    for (const remove of handlers) remove();
  }
}

// ---- Reading and writing -------------------------------------------------------------------------------------------

const readFrom = promisify(fs.read) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: null,
) => Promise<{ bytesRead: number }>;
const writeTo = promisify(fs.write) as (
  fd: number,
  buffer: Uint8Array,
  offset: number,
  length: number,
  position: null,
) => Promise<{ bytesWritten: number }>;

/** Tries again where a descriptor that some process has set not to block has nothing, or no room. */
async function patiently<T>(action: () => Promise<T>): Promise<T> {
  for (;;) {
    try {
      return await action();
    } catch (error) {
      if (codeOf(error) !== "EAGAIN") throw error;
      await new Promise((resolve) => setTimeout(resolve, 2));
    }
  }
}

/** Where a pipe does not block, it takes so many bytes whole or not at all (PIPE_BUF of limits.h). */
const ATOMIC = 4096;

function isNonblocking(fd: number): boolean {
  const flags = /^flags:\s*([0-7]+)/m.exec(procFile(`fdinfo/${fd}`))?.[1] ?? "0";
  return (parseInt(flags, 8) & fs.constants.O_NONBLOCK) !== 0;
}

/** What /proc tells of this process; nothing where it may not be read. */
function procFile(name: string): string {
  try {
    return fs.readFileSync(`/proc/self/${name}`, "utf8");
  } catch {
    return "";
  }
}

/** Reads into `buffer` until it is full or the input ends; returns the bytes read. */
async function fill(fd: number, buffer: Bytes, atOnce = false): Promise<Bytes> {
  let length = 0;
  while (length < buffer.length) {
    const { bytesRead } = await patiently(() => readFrom(fd, buffer, length, buffer.length - length, null));
    length += bytesRead;
    if (bytesRead === 0 || atOnce) break;
  }
  return buffer.subarray(0, length);
}

/**
 * Writes all bytes. A write that would block must not be tried again unless it was too small to be split: not every
 * runtime tells how much of it was written.
 */
async function writeAll(fd: number, bytes: Uint8Array, nonblocking = false): Promise<void> {
  for (let offset = 0; offset < bytes.length;) {
    const length = Math.min(bytes.length - offset, nonblocking ? ATOMIC : Infinity);
    const write = () => writeTo(fd, bytes, offset, length, null);
    const { bytesWritten } = await (nonblocking ? patiently(write) : write());
    offset += bytesWritten;
  }
}

/** Writes text to standard output. */
async function print(text: string): Promise<number> {
  try {
    await writeAll(1, Buffer.from(text), isNonblocking(1));
  } catch (error) {
    throw fileFailure("cannot write standard output", error);
  }
  return 0;
}

/** Writes text to standard error; that this may fail must not hide why. */
function complain(text: string): void {
  try {
    fs.writeSync(2, text);
  } catch {
    // Nobody listens.
  }
}

/** Not by openSync(): to open a named pipe may take as long as the other end likes. */
async function openFile(path: string, flags: "r" | "w"): Promise<number> {
  try {
    const fd = await promisify(fs.open)(path, flags);
    cleanups.add(() => fs.closeSync(fd));
    return fd;
  } catch (error) {
    throw fileFailure(`cannot open ${path}`, error);
  }
}

interface Input {
  readonly fd: number;
  readonly name: string;
  readonly stats: fs.BigIntStats;
  /** Its length in bytes, where that is known. */
  readonly size: number | undefined;
}

async function openInput(path: string | undefined): Promise<Input> {
  const name = path ?? "standard input";
  const fd = path === undefined ? 0 : await openFile(path, "r");
  let stats;
  try {
    stats = fs.fstatSync(fd, { bigint: true });
  } catch (error) {
    throw fileFailure(`cannot read ${name}`, error);
  }
  if (stats.isDirectory()) throw new Failure(1, `cannot read ${name}: it is a directory`);
  return { fd, name, stats, size: stats.isFile() ? Number(stats.size) : undefined };
}

/** Memory in which input is read and, in place, becomes output. */
const CHUNK = 1 << 20;

/**
 * The input in chunks, one of them read ahead. Three buffers take turns: while one is written and the next one worked
 * on, the third is read. `free` tells when a buffer's output was written.
 */
async function* chunksOf(input: Input, free: (memory: ArrayBuffer) => Promise<void>): AsyncGenerator<Bytes> {
  const buffers = [0, 1, 2].map(() => new Uint8Array(CHUNK));
  const read = (buffer: Bytes) => {
    const reading = fill(input.fd, buffer, true);
    reading.catch(() => {}); // it is awaited below, unless the tool fails first
    return reading;
  };
  let next = read(buffers[0]!);
  for (let turn = 1;; turn = (turn + 1) % buffers.length) {
    let chunk;
    try {
      chunk = await next;
    } catch (error) {
      throw fileFailure(`cannot read ${input.name}`, error);
    }
    if (chunk.length === 0) return;
    await free(buffers[turn]!.buffer);
    next = read(buffers[turn]!);
    yield chunk;
  }
}

/** Where output goes; one write is under way while the next piece is made. */
interface Output {
  write(bytes: Bytes): Promise<void>;
  /** Resolves when nothing is being written from `memory`. */
  free(memory: ArrayBuffer): Promise<void>;
  /** Waits for the last write; a file gets its name. */
  finish(): Promise<void>;
}

function outputTo(fd: number, name: string, publish: () => Promise<void> | void = () => {}): Output {
  let writing: Promise<void> = Promise.resolve();
  let memory: ArrayBuffer | undefined;
  const nonblocking = isNonblocking(fd);
  const settle = async () => {
    try {
      await writing;
    } catch (error) {
      throw fileFailure(`cannot write ${name}`, error);
    }
  };
  return {
    async write(bytes) {
      await settle();
      memory = bytes.buffer;
      writing = writeAll(fd, bytes, nonblocking);
      writing.catch(() => {}); // it is awaited by the next call, unless the tool fails first
    },
    async free(asked) {
      if (asked === memory) await settle();
    },
    async finish() {
      await settle();
      try {
        await publish();
      } catch (error) {
        throw fileFailure(`cannot write ${name}`, error);
      }
    },
  };
}

function isSameFile(a: fs.BigIntStats, b: fs.BigIntStats): boolean {
  if (a.isBlockDevice() && b.isBlockDevice()) return a.rdev === b.rdev;
  return a.isFile() && a.dev === b.dev && a.ino === b.ino;
}

/**
 * Opens the output. A file is written under a temporary name beside its own and gets that at the end; what is no file
 * (a device, a pipe) is written as it is.
 *
 * @param precious What must not be overwritten: the input, and where the secret came from.
 * @param mode Permissions of a new file, less the umask. A file that is replaced hands its own down.
 */
async function openOutput(
  path: string | undefined,
  precious: Readonly<Record<string, fs.BigIntStats>>,
  mode: number,
): Promise<Output> {
  const name = path ?? "standard output";
  try {
    const stats = path === undefined
      ? fs.fstatSync(1, { bigint: true })
      : fs.statSync(path, { bigint: true, throwIfNoEntry: false });
    for (const [what, other] of Object.entries(precious)) {
      if (stats && isSameFile(other, stats)) throw new Failure(1, `cannot write ${name}: it is the ${what}`);
    }
    if (path === undefined) return outputTo(1, name);
    if (stats?.isDirectory()) throw new Failure(1, `cannot write ${name}: it is a directory`);
    if (stats && !stats.isFile()) return outputTo(await openFile(path, "w"), name);
    if (stats) fs.accessSync(path, fs.constants.W_OK); // or a rename would replace what may not be written
    return openTemporary(path, mode, stats && Number(stats.mode & 0o777n));
  } catch (error) {
    throw error instanceof Failure ? error : fileFailure(`cannot write ${name}`, error);
  }
}

function openTemporary(path: string, mode: number, finalMode: number | undefined): Output {
  // Of a symbolic link, the file it leads to is replaced.
  const target = finalMode === undefined ? path : fs.realpathSync(path);
  const directory = dirname(target);
  const suffix = Buffer.from(crypto.getRandomValues(new Uint8Array(6))).toString("hex");
  const temporary = join(directory, `.${NAME}-${suffix}`);
  const fd = fs.openSync(temporary, "wx", finalMode === undefined ? mode : 0o600);
  const discard = () => fs.unlinkSync(temporary);
  const close = () => fs.closeSync(fd);
  cleanups.add(discard).add(close);
  return outputTo(fd, path, async () => {
    if (finalMode !== undefined) fs.fchmodSync(fd, finalMode);
    // Or a crash of the system soon after could leave the name with nothing behind it.
    await promisify(fs.fsync)(fd);
    cleanups.delete(close);
    close();
    fs.renameSync(temporary, target);
    cleanups.delete(discard);
    syncDirectory(directory);
  });
}

/** Makes a rename last; not every file system can, and the file is complete without. */
function syncDirectory(directory: string): void {
  try {
    const fd = fs.openSync(directory, "r");
    try {
      fs.fsyncSync(fd);
    } finally {
      fs.closeSync(fd);
    }
  } catch {
    // As it was before.
  }
}

// ---- Secrets -------------------------------------------------------------------------------------------------------

interface Secret {
  readonly kind: "key" | "passphrase";
  readonly bytes: Bytes;
  /** The file or descriptor it came from; absent for the terminal. */
  readonly stats?: fs.BigIntStats;
}

/** OpenSSL cuts longer passphrases without a word. */
const LONGEST_PASSPHRASE = 1023;
/** More than any cipher takes. */
const LONGEST_KEY = 4096;

async function readSecret(given: Arguments, confirm: boolean): Promise<Secret> {
  const names = ["key-file", "key-fd", "passphrase-file", "passphrase-fd"].filter((name) => given.has(name));
  if (names.length > 1) throw wrongUsage(`--${names[0]} and --${names[1]} are both given: one secret is enough`);
  const [name] = names;
  if (!name) return { kind: "passphrase", bytes: await askPassphrase(confirm) };
  const { bytes, stats } = await readSecretFile(given, name);
  if (name.startsWith("key")) {
    if (bytes.length > LONGEST_KEY) throw wrongUsage(`--${name} has more than ${LONGEST_KEY} bytes, which is no key`);
    return { kind: "key", bytes, stats };
  }
  const end = bytes.indexOf(10);
  return { kind: "passphrase", bytes: checkPassphrase(end < 0 ? bytes : bytes.subarray(0, end)), stats };
}

async function readSecretFile(given: Arguments, name: string): Promise<{ bytes: Bytes; stats: fs.BigIntStats }> {
  const isDescriptor = name.endsWith("-fd");
  const number = isDescriptor ? given.integer(name, 0)! : undefined;
  if (number === 0 && !given.file("in")) throw wrongUsage(`--${name} 0 is standard input, which is the data: use --in`);
  // Opened by name: not every runtime reads a descriptor that it did not open itself.
  const fd = await openFile(isDescriptor ? `/dev/fd/${number}` : given.get(name)!, "r");
  try {
    const stats = fs.fstatSync(fd, { bigint: true });
    return { bytes: await fill(fd, new Uint8Array(LONGEST_KEY + 1)), stats };
  } catch (error) {
    throw fileFailure(`cannot read --${name}`, error);
  }
}

function checkPassphrase(bytes: Bytes): Bytes {
  if (bytes.length === 0) throw wrongUsage("the passphrase is empty");
  if (bytes.length > LONGEST_PASSPHRASE) {
    throw wrongUsage(`the passphrase has more than ${LONGEST_PASSPHRASE} bytes, which OpenSSL would cut`);
  }
  if (bytes.includes(0)) throw wrongUsage("the passphrase has a zero byte, at which OpenSSL would cut it");
  return bytes;
}

async function askPassphrase(confirm: boolean): Promise<Bytes> {
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
  terminal.setRawMode(true);
  cleanups.add(restore);
  try {
    await writeAll(fd, Buffer.from(prompt));
    return await readLine(fd);
  } finally {
    cleanups.delete(restore);
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
    if (key === 3) throw new Failure(128 + SIGNALS.SIGINT, ""); // Ctrl-C
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

// ---- encrypt, decrypt ----------------------------------------------------------------------------------------------

type Direction = "encrypt" | "decrypt";

/** OpenSSL's format: these bytes, a salt, the ciphertext. */
const MAGIC = Buffer.from("Salted__");
const SALT_SIZE = 8;

async function crypt(direction: Direction, given: Arguments): Promise<number> {
  const plan = planOf(given);
  const input = await openInput(given.file("in"));
  if (direction === "encrypt") refuseTerminal(given);
  const secret = await readSecret(given, direction === "encrypt");
  const { header, ...options } = secret.kind === "key"
    ? await keyed(direction, given, plan, secret.bytes, input)
    : await derived(direction, given, plan, secret.bytes, input);
  const precious = { input: input.stats, ...(secret.stats && { [secret.kind]: secret.stats }) };
  // Ciphertext is for everyone the umask admits; plaintext is the user's own until he says otherwise.
  const output = await openOutput(given.file("out"), precious, direction === "encrypt" ? 0o666 : 0o600);
  const start = direction === "encrypt" ? encrypt : decrypt;
  const chunks = chunksOf(input, output.free);
  const pieces = asUsage(() => start(plan.cipher, { ...plan, ...options }, chunks));
  options.key.fill(0);
  secret.bytes.fill(0);
  const size = input.size === undefined ? undefined : input.size - (direction === "decrypt" ? header.length : 0);
  // Plaintext on the same terminal would be garbled.
  const isShown = isatty(2) && (given.file("out") !== undefined || !isatty(1));
  const progress = new Progress(direction, pieces, size, isShown);
  await pump(pieces, output, progress, direction === "encrypt" ? header : undefined);
  return 0;
}

async function pump(pieces: CipherIterable, output: Output, progress: Progress, header: Bytes | undefined) {
  try {
    if (header) await output.write(header);
    for await (const piece of pieces) {
      await output.write(piece);
      progress.add(piece.length);
    }
    await output.finish();
  } catch (error) {
    progress.clear();
    // Only what is wrong with the data shows this late.
    throw error instanceof RangeError ? new Failure(3, error.message) : error;
  }
  progress.finish();
}

/** What the options say of the cipher. */
interface Plan {
  readonly cipher: string;
  /** The key's length in bytes, where it was asked for. */
  readonly keySize: number | undefined;
  readonly engine: EngineChoice;
  readonly padding: Padding | undefined;
  readonly sectorSize: number | undefined;
  readonly sector: bigint | undefined;
  readonly inPlace: true;
}

function planOf(given: Arguments): Plan {
  const sector = given.get("sector");
  if (sector !== undefined && !/^\d{1,20}$/.test(sector)) throw wrongUsage("--sector expects a whole number");
  const keyBits = given.integer("key-bits", 8, 8 * LONGEST_KEY);
  if (keyBits !== undefined && keyBits % 8 !== 0) throw wrongUsage("--key-bits expects a multiple of 8");
  return {
    keySize: keyBits && keyBits / 8,
    ...cipherOf(given.get("cipher") ?? DEFAULT_CIPHER),
    engine: (given.get("engine") ?? "auto") as EngineChoice,
    padding: given.get("padding") as Padding | undefined,
    sectorSize: given.integer("sector-size", 1),
    sector: sector === undefined ? undefined : BigInt(sector),
    inPlace: true,
  };
}

/** The kernel's name; from one of OpenSSL's for AES, the key's length, too. */
function cipherOf(name: string): { cipher: string; keySize?: number } {
  const [, bits, mode] = /^aes-(128|192|256)-(cbc|cfb|ctr|ecb|ofb|xts)$/i.exec(name) ?? [];
  if (!bits || !mode) return { cipher: name };
  return { cipher: `${mode.toLowerCase()}(aes)`, keySize: Number(bits) / 8 * (mode.toLowerCase() === "xts" ? 2 : 1) };
}

function refuseTerminal(given: Arguments): void {
  if (!given.file("out") && isatty(1)) {
    throw wrongUsage("standard output is a terminal, which ciphertext would garble: use --out FILE or a pipe");
  }
}

/** The key and the IV, and what stands in front of the ciphertext. */
interface Keying extends Pick<CipherStreamOptions, "iv"> {
  readonly key: Bytes;
  readonly header: Bytes;
}

const NOTHING: Bytes = new Uint8Array(0);

/** A key from the user: bare ciphertext, or with `--iv-prefix` the IV in front of it. */
async function keyed(direction: Direction, given: Arguments, plan: Plan, key: Bytes, input: Input): Promise<Keying> {
  for (const name of ["iter", "key-bits"]) {
    if (given.has(name)) throw wrongUsage(`--${name} is for passphrases, not for keys`);
  }
  if (given.has("iv") && given.has("iv-prefix")) throw wrongUsage("--iv and --iv-prefix are both given");
  const { cipher, keySize = key.length, sectorSize } = plan;
  if (key.length !== keySize) {
    throw wrongUsage(`the key has ${key.length} bytes, ${given.get("cipher")} takes ${keySize}`);
  }
  const ivSize = ivSizeOf(plan, key);
  const ivHex = given.get("iv");
  if (ivHex !== undefined) return { key, iv: fromHex(ivHex), header: NOTHING };
  if (!given.has("iv-prefix")) {
    if (ivSize > 0 && sectorSize === undefined) {
      throw wrongUsage(`${cipher} needs --iv or --iv-prefix (a sector mode: or --sector-size)`);
    }
    return { key, header: NOTHING };
  }
  if (ivSize === 0) throw wrongUsage(`--iv-prefix is given, but ${cipher} has no IV`);
  const iv = direction === "encrypt"
    ? crypto.getRandomValues(new Uint8Array(ivSize))
    : await readHeader(input, ivSize, "its IV");
  return { key, iv, header: iv };
}

/** A passphrase: OpenSSL's format. PBKDF2 gives the key and behind it the IV. */
async function derived(
  direction: Direction,
  given: Arguments,
  plan: Plan,
  passphrase: Bytes,
  input: Input,
): Promise<Keying> {
  for (const name of ["iv", "iv-prefix"]) {
    if (given.has(name)) throw wrongUsage(`--${name} is for keys: a passphrase gives the IV, too`);
  }
  const iterations = given.integer("iter", 1, 2 ** 31 - 1) ?? DEFAULT_ITERATIONS;
  const { keySize, ivSize } = sizesOf(plan);
  const header = direction === "encrypt"
    ? new Uint8Array([...MAGIC, ...crypto.getRandomValues(new Uint8Array(SALT_SIZE))])
    : await readHeader(input, MAGIC.length + SALT_SIZE, "OpenSSL's header");
  if (!MAGIC.equals(header.subarray(0, MAGIC.length))) {
    throw new Failure(3, `${input.name} does not begin with "Salted__": it was not encrypted with a passphrase`);
  }
  const salt = header.subarray(MAGIC.length);
  const secret = await crypto.subtle.importKey("raw", passphrase, "PBKDF2", false, ["deriveBits"]);
  const parameters = { name: "PBKDF2", hash: "SHA-256", salt, iterations };
  const bytes = new Uint8Array(await crypto.subtle.deriveBits(parameters, secret, 8 * (keySize + ivSize)));
  const key = bytes.slice(0, keySize);
  const iv = bytes.slice(keySize);
  bytes.fill(0);
  return ivSize > 0 ? { key, iv, header } : { key, header };
}

async function readHeader(input: Input, size: number, what: string): Promise<Bytes> {
  let header;
  try {
    header = await fill(input.fd, new Uint8Array(size));
  } catch (error) {
    throw fileFailure(`cannot read ${input.name}`, error);
  }
  if (header.length < size) throw new Failure(3, `${input.name} is cut short: it ends within ${what}`);
  return header;
}

/** The length of the IV that the cipher needs from us: with sectors, none. */
function ivSizeOf({ cipher, engine, sectorSize }: Plan, key: Bytes): number {
  using handle = asUsage(() => CipherHandle.open(cipher, { key, engine }));
  return sectorSize === undefined ? handle.ivSize : 0;
}

/** The lengths to derive. The cipher itself tells which keys it takes, by refusing others. */
function sizesOf(plan: Plan): { keySize: number; ivSize: number } {
  const keySizes = plan.keySize === undefined ? [64, 32, 24, 16, 8] : [plan.keySize];
  let refusal: unknown;
  for (const keySize of keySizes) {
    try {
      return { keySize, ivSize: ivSizeOf(plan, crypto.getRandomValues(new Uint8Array(keySize))) };
    } catch (error) {
      const isLength = error instanceof Failure || codeOf(error) === "EINVAL";
      if (!isLength) throw error;
      refusal = error;
    }
  }
  throw refusal;
}

/** What the API refuses before it begins is an option's fault. */
function asUsage<T>(action: () => T): T {
  try {
    return action();
  } catch (error) {
    throw error instanceof TypeError || error instanceof RangeError ? wrongUsage(error.message) : error;
  }
}

function fromHex(hex: string): Bytes {
  if (!/^(?:[0-9a-f]{2})*$/i.test(hex)) throw wrongUsage("--iv expects an even number of hexadecimal digits");
  return Uint8Array.from(hex.match(/../g) ?? [], (digits) => parseInt(digits, 16));
}

// ---- Progress ------------------------------------------------------------------------------------------------------

/** How far the work is, in one line on standard error that is kept up to date, if it is to be shown. */
class Progress {
  readonly #what: string;
  readonly #pieces: CipherIterable;
  readonly #size: number | undefined;
  readonly #isShown: boolean;
  readonly #start = performance.now();
  #shown = -Infinity;
  #bytes = 0;

  constructor(what: string, pieces: CipherIterable, size: number | undefined, isShown: boolean) {
    this.#isShown = isShown;
    this.#what = what;
    this.#pieces = pieces;
    this.#size = size;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    const now = performance.now();
    if (!this.#isShown || now - this.#shown < 200) return;
    this.#shown = now;
    this.#show(this.#line(now));
  }

  clear(): void {
    if (this.#shown > 0) this.#show("");
  }

  finish(): void {
    if (!this.#isShown) return;
    const seconds = (performance.now() - this.#start) / 1000;
    this.#show(`${this.#what}: ${sizeText(this.#bytes)} in ${seconds.toFixed(1)} s, ${this.#rate(seconds)}\n`);
  }

  #line(now: number): string {
    const seconds = (now - this.#start) / 1000;
    const parts = [`${this.#what}: ${sizeText(this.#bytes)}`];
    if (this.#size) {
      const done = Math.min(1, this.#bytes / this.#size);
      parts.push(`${Math.floor(100 * done)} %`, `${timeText(seconds / done - seconds)} left`);
    }
    return [...parts, this.#rate(seconds)].join(", ");
  }

  #rate(seconds: number): string {
    return `${(this.#bytes / 1e6 / Math.max(seconds, 0.001)).toFixed(0)} MB/s, ${this.#pieces.engine} engine`;
  }

  #show(line: string): void {
    complain(`\r\x1b[K${line}`);
  }
}

function sizeText(bytes: number): string {
  const units = ["bytes", "kB", "MB", "GB", "TB"];
  let unit = 0;
  while (bytes >= 1000 && unit < units.length - 1) {
    bytes /= 1000;
    unit++;
  }
  return `${unit === 0 ? bytes : bytes.toPrecision(3)} ${units[unit]}`;
}

function timeText(seconds: number): string {
  const whole = Math.ceil(seconds);
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  const digits = (n: number) => String(n).padStart(2, "0");
  return `${hours > 0 ? `${hours}:${digits(minutes)}` : minutes}:${digits(whole % 60)}`;
}

// ---- ciphers, doctor -----------------------------------------------------------------------------------------------

const USES: Readonly<Record<CipherInfo["kind"], string>> = {
  stream: "stream",
  counter: "stream",
  sector: "sectors",
  message: "message",
};

function ciphers(given: Arguments): Promise<number> {
  probe(); // has the kernel load the usual modules: it lists no others
  const all = listCiphers();
  if (given.has("json")) return print(`${JSON.stringify(all, undefined, 2)}\n`);
  // The first of a name is the one that is used.
  const rows = all.filter(({ name }, i) => all[i - 1]?.name !== name).map((cipher) => [
    cipher.name,
    USES[cipher.kind],
    cipher.minKeySize === cipher.maxKeySize
      ? `${8 * cipher.maxKeySize}`
      : `${8 * cipher.minKeySize}-${8 * cipher.maxKeySize}`,
    String(8 * cipher.ivSize),
    cipher.engines.includes("kernel") ? "yes" : "-",
    cipher.engines.includes("userspace") ? "yes" : "-",
    cipher.driver ?? "",
  ]);
  return print(table([["CIPHER", "USE", "KEY BITS", "IV BITS", "KERNEL", "USERSPACE", "KERNEL'S DRIVER"], ...rows]));
}

function table(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  return rows.map((row) => `${row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()}\n`).join("");
}

async function doctor(given: Arguments): Promise<number> {
  const report = probe();
  const isUsable = report.ciphers.kernel.length > 0;
  if (given.has("json")) {
    await print(`${JSON.stringify(report, undefined, 2)}\n`);
    return isUsable ? 0 : 1;
  }
  const { runtime, platform, arch, kernel, ffi, library, afAlg, netlinkCrypto, afAlgRestrict, privileges } = report;
  const capabilities = [privileges?.netAdmin ? "CAP_NET_ADMIN" : "", privileges?.sysAdmin ? "CAP_SYS_ADMIN" : ""];
  const facts: [string, string | number | null | undefined][] = [
    ["runtime", `${runtime.name} ${runtime.version}, ${platform} ${arch}`],
    ["kernel", kernel],
    ["user", privileges && [`id ${privileges.uid}`, ...capabilities].filter(Boolean).join(", ")],
    ["FFI", ffi],
    ["libkcapi", library ? `${library.version}, ${library.path}` : "not loaded"],
    ["AF_ALG", afAlg],
    ["NETLINK_CRYPTO", netlinkCrypto],
    ["crypto.af_alg_restrict", afAlgRestrict],
    ["window", report.window && `${report.window} bytes`],
    ["kernel engine", report.ciphers.kernel.join(", ") || "no cipher"],
    ["userspace engine", report.ciphers.userspace.join(", ")],
  ];
  const known = facts.filter(([, value]) => value !== null && value !== undefined);
  const problems = report.problems.map(({ what, cause, cure }) =>
    ["", ...wrap(what, "problem: "), ...wrap(cause, "  why:   "), ...wrap(cure, "  cure:  "), ""].join("\n")
  );
  const verdict = `\nThe kernel engine is ${isUsable ? "usable" : "not usable; the userspace engine is"}.\n`;
  await print([...known.flatMap(([name, value]) => wrap(String(value), `${name}:`.padEnd(24))), ""].join("\n"));
  await print(problems.join("") + verdict);
  return isUsable ? 0 : 1;
}

// ---- speed ---------------------------------------------------------------------------------------------------------

interface Measurement {
  cipher: string;
  size: number;
  engine: "kernel" | "userspace";
  /** 10^6 bytes per second. */
  rate?: number;
  /** Why there is no rate. */
  error?: string;
}

async function speed(given: Arguments): Promise<number> {
  const names = given.has("cipher") ? given.all("cipher") : ["cbc(aes)", "ctr(aes)", "xts(aes)"];
  const sizes = (given.has("size") ? given.all("size") : DEFAULT_SIZES)
    .map((size) => wholeNumber("size", size, 1, 2 ** 28));
  const seconds = Number(given.get("seconds") ?? 0.5);
  if (!(seconds > 0 && seconds <= 60)) throw wrongUsage("--seconds expects a number above 0 and up to 60");
  const all: Measurement[] = [];
  for (const cipher of names) {
    const measured: Measurement[] = [];
    for (const size of sizes) {
      for (const engine of ["kernel", "userspace"] as const) {
        measured.push(await measure({ cipher, size, engine }, 1000 * seconds));
      }
    }
    if (!given.has("json")) await print(chart(cipher, measured));
    all.push(...measured);
  }
  return given.has("json") ? await print(`${JSON.stringify(all, undefined, 2)}\n`) : 0;
}

/** Encrypts one chunk again and again, in place, until the time is up. */
async function measure(what: Pick<Measurement, "cipher" | "size" | "engine">, time: number): Promise<Measurement> {
  const { cipher, size, engine } = what;
  const chunk = crypto.getRandomValues(new Uint8Array(Math.min(size, 65536)));
  const memory = new Uint8Array(size);
  for (let offset = 0; offset < size; offset += chunk.length) memory.set(chunk.subarray(0, size - offset), offset);
  const isSectors = /^(?:xts|essiv|adiantum|hctr2)\b/.test(cipher);
  const plan: Plan = {
    cipher,
    keySize: undefined,
    engine,
    padding: undefined,
    sectorSize: isSectors ? 4096 : undefined,
    sector: undefined,
    inPlace: true,
  };
  try {
    const { keySize, ivSize } = sizesOf(plan);
    const key = crypto.getRandomValues(new Uint8Array(keySize));
    const iv = ivSize > 0 ? crypto.getRandomValues(new Uint8Array(ivSize)) : undefined;
    let end = Infinity;
    const source = (function* () {
      yield memory;
      do yield memory; while (performance.now() < end);
    })();
    const pieces = encrypt(cipher, { ...plan, key, iv }, source);
    await pieces.next(); // opens the cipher and loads what it takes
    const start = performance.now();
    end = start + time;
    let bytes = 0;
    for await (const piece of pieces) bytes += piece.length;
    return { ...what, rate: bytes / 1000 / (performance.now() - start) };
  } catch (error) {
    return { ...what, error: codeOf(error) ?? (error as Error).message };
  }
}

function chart(cipher: string, measured: readonly Measurement[]): string {
  const width = 40;
  const most = Math.max(...measured.map(({ rate = 0 }) => rate));
  const bar = /utf-?8/i.test(process.env.LC_ALL || process.env.LC_CTYPE || process.env.LANG || "") ? "█" : "#";
  const lines = measured.map(({ size, engine, rate, error }, i) => {
    const label = i % 2 === 0 ? binaryText(size) : "";
    const figure = rate === undefined
      ? `not available: ${error}`
      : `${bar.repeat(Math.max(1, Math.round(width * rate / most))).padEnd(width)} ${
        rate.toFixed(rate < 10 ? 1 : 0).padStart(6)
      } MB/s`;
    return `${label.padStart(10)}  ${engine.padEnd(9)}  ${figure}\n`;
  });
  return `${cipher}\n${lines.join("")}\n`;
}

function binaryText(bytes: number): string {
  if (bytes % 2 ** 20 === 0) return `${bytes / 2 ** 20} MiB`;
  return bytes % 1024 === 0 ? `${bytes / 1024} KiB` : `${bytes} B`;
}

// ---- The command line ----------------------------------------------------------------------------------------------

/** The options given. */
class Arguments {
  readonly #values: ReadonlyMap<string, readonly string[]>;

  constructor(values: ReadonlyMap<string, readonly string[]>) {
    this.#values = values;
  }

  has(name: string): boolean {
    return this.#values.has(name);
  }

  get(name: string): string | undefined {
    return this.#values.get(name)?.[0];
  }

  /** A file's name; absent, or `-`, is for standard input or output. */
  file(name: string): string | undefined {
    const value = this.get(name);
    return value === "-" ? undefined : value;
  }

  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  integer(name: string, least: number, most = 2 ** 31 - 1): number | undefined {
    const value = this.get(name);
    return value === undefined ? undefined : wholeNumber(name, value, least, most);
  }
}

function wholeNumber(name: string, text: string, least: number, most: number): number {
  const value = /^\d{1,15}$/.test(text) ? Number(text) : NaN;
  if (value >= least && value <= most) return value;
  throw wrongUsage(`--${name} expects a whole number from ${least} to ${most}`);
}

function parse({ name, options }: Command, args: readonly string[]): Arguments {
  let tokens;
  try {
    ({ tokens } = parseArgs({
      args: [...args],
      options: Object.fromEntries(options.map(({ name, short, value }) => [name, {
        type: value ? "string" as const : "boolean" as const,
        ...(short ? { short } : {}),
      }])),
      tokens: true,
    }));
  } catch (error) {
    throw wrongUsage(`${problemOf(error)} (see ${NAME} ${name} --help)`);
  }
  const values = new Map<string, string[]>();
  for (const token of tokens) {
    if (token.kind !== "option") continue;
    const option = options.find(({ name }) => name === token.name)!;
    const value = token.value ?? "";
    const earlier = values.get(option.name);
    if (earlier && !option.many) throw wrongUsage(`--${option.name} is given twice`);
    if (option.choices && option.value !== "NAME" && !option.choices.includes(value)) {
      throw wrongUsage(`--${option.name} expects ${option.choices.join(" or ")}`);
    }
    values.set(option.name, [...earlier ?? [], value]);
  }
  return new Arguments(values);
}

/** What is wrong with the arguments, without their values: one of them may be a secret in a wrong place. */
function problemOf(error: unknown): string {
  const [sentence = ""] = (error as Error).message.split(/\.\s|\n/);
  switch (codeOf(error)) {
    case "ERR_PARSE_ARGS_UNKNOWN_OPTION":
      return `unknown option ${
        /'-*([^'=]*)/.exec(sentence)?.[1]?.replace(/^(?=.)/, (_) => sentence.includes("'--") ? "--" : "-")
      }`;
    case "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL":
      return "an argument that is no option: files are given with --in and --out";
    default:
      return sentence.charAt(0).toLowerCase() + sentence.slice(1);
  }
}

/**
 * Runs the tool.
 *
 * Standard input, output and error are the process's own; while it runs, so are the handlers of SIGINT, SIGTERM and
 * SIGHUP, which end the process.
 *
 * @param args The arguments, the command's name first, such as `["encrypt", "--in", "a", "--out", "b"]`.
 * @returns The exit code.
 *
 * @example Usage
 * ```ts
 * import { main } from "@kcapi/streams/cli";
 * import { assertEquals } from "@std/assert";
 *
 * assertEquals(await main(["--version"]), 0);
 * ```
 */
export async function main(args: readonly string[]): Promise<number> {
  try {
    return await withSignals(() => dispatch(args));
  } catch (error) {
    const { exitCode, message } = failureOf(error);
    if (message) complain(`${NAME}: ${message.replace(/\s*\n\s*/g, " ")}\n`);
    return exitCode;
  }
}

async function dispatch([name, ...args]: readonly string[]): Promise<number> {
  if (name === "--version") return await print(`${NAME} ${VERSION}\n`);
  if (name === "--help" || name === "-h" || name === "help") return await print(overview());
  const command = COMMANDS.find((command) => command.name === name);
  if (!command) {
    throw wrongUsage(`${name === undefined ? "no command" : "unknown command"} (see ${NAME} --help)`);
  }
  const given = parse(command, args);
  return given.has("help") ? await print(help(command)) : await command.run(given);
}

// ---- Help, manual page, completions --------------------------------------------------------------------------------

const WIDTH = 80;

/** Breaks text into lines; the first begins with `first`, the others with as much space. */
function wrap(text: string, first: string, width = WIDTH): string[] {
  const lines: string[] = [];
  let line = first;
  let isEmpty = true;
  for (const word of text.split(/\s+/)) {
    if (!isEmpty && line.length + 1 + word.length > width) {
      lines.push(line);
      line = " ".repeat(first.length);
      isEmpty = true;
    }
    line += isEmpty ? word : ` ${word}`;
    isEmpty = false;
  }
  return [...lines, line];
}

function list(entries: readonly (readonly [term: string, text: string])[]): string {
  const column = Math.max(...entries.map(([term]) => term.length)) + 4;
  return entries.flatMap(([term, text]) => wrap(text, `  ${term}`.padEnd(column))).join("\n");
}

function termOf({ name, short, value }: Option): string {
  return `${short ? `-${short}, ` : "    "}--${name}${value ? ` ${value}` : ""}`;
}

const PURPOSE =
  "Encrypts and decrypts files with the ciphers of the Linux kernel (AF_ALG, through libkcapi), or of the " +
  "runtime where the kernel has none.";

function overview(): string {
  return [
    `Usage: ${NAME} COMMAND [OPTION…]`,
    "",
    ...wrap(PURPOSE, ""),
    "",
    "Commands:",
    list(COMMANDS.map(({ name, summary }) => [name, summary])),
    "",
    list([["COMMAND --help", "help for a command"], ["--version", "the version"]]),
    "",
    "Exit codes:",
    list(EXIT_CODES),
    "",
  ].join("\n");
}

function help({ name, summary, text, options }: Command): string {
  return [
    `Usage: ${NAME} ${name} [OPTION…]`,
    "",
    ...wrap(`${summary.charAt(0).toUpperCase()}${summary.slice(1)}.`, ""),
    ...(text ? ["", ...wrap(text, "")] : []),
    "",
    "Options:",
    list(options.map((option) => [termOf(option), option.text])),
    "",
  ].join("\n");
}

/** Text as roff: its special characters, and no line that looks like a request. */
function roff(text: string): string {
  return text.replaceAll("\\", "\\e").replaceAll("-", "\\-").replaceAll("…", "...").replace(/^(?=[.'])/gm, "\\&");
}

function manual(): string {
  const options = ({ name, short, value, text }: Option) =>
    `.TP\n${short ? `\\fB\\-${short}\\fR, ` : ""}\\fB\\-\\-${roff(name)}\\fR${value ? ` \\fI${value}\\fR` : ""}\n${
      roff(text)
    }\n`;
  const commands = COMMANDS.map(({ name, summary, text, options: list }) =>
    `.SS ${name}\n${roff(summary)}.\n${text ? `.PP\n${roff(text)}\n` : ""}${list.map(options).join("")}`
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
${commands.join("")}.SH EXIT STATUS
${exitCodes.join("")}.SH ENVIRONMENT
.TP
.B KCAPI_LIBRARY
${roff("The path of libkcapi.so.1, to be tried before the system's.")}
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
  "Output to a file goes to a temporary file in the same directory, which takes the file's name at the " +
  "end: a run that fails or is interrupted leaves what was there before. A file that is replaced hands its permissions " +
  "down; a new one with ciphertext gets those of the umask, one with plaintext is the user's alone. While it works, " +
  "the tool shows its progress if standard error is a terminal.";

const SECURITY_TEXT =
  "Nothing is authenticated: whoever can change the ciphertext can change the plaintext, and a wrong key " +
  "shows only where there is padding, and then not always. Never use an IV twice with the same key. Secrets are never " +
  "taken from the command line or the environment, where other users could see them.";

const COMPATIBILITY: readonly (readonly [tool: string, text: string])[] = [
  [
    "openssl enc",
    "Each reads what the other wrote, with -pbkdf2 -iter N (--iter N) or -K and -iv; -nopad is --padding none. OpenSSL's " +
    "older way to a key, without -pbkdf2, is not supported.",
  ],
  [
    "kcapi-enc 1.4",
    "With a key, it pads as we do where the input is not whole blocks of a block mode; what it makes of whole blocks is " +
    "--padding none, and so are stream modes. Its passphrases are not supported.",
  ],
  [
    "LUKS, dm-crypt",
    "-c 'xts(aes)' --sector-size 512 is aes-xts-plain64 with the volume key, from the payload's beginning on; --sector for " +
    "a later sector.",
  ],
];

const EXAMPLES: readonly (readonly [string, string])[] = [
  ["A file with a passphrase, asked for on the terminal", `${NAME} encrypt -i notes -o notes.enc`],
  ["The same file back, by OpenSSL", `openssl enc -d -aes-256-cbc -pbkdf2 -iter ${DEFAULT_ITERATIONS} -in notes.enc`],
  [
    "A backup with a key from a file, a random IV in front",
    `tar c /home | ${NAME} encrypt -c 'ctr(aes)' --key-file key --iv-prefix -o home.tar.enc`,
  ],
  [
    "The payload of a LUKS volume (aes-xts-plain64)",
    `tail -c +2097153 volume | ${NAME} decrypt -c 'xts(aes)' --key-file key --sector-size 512 -o payload`,
  ],
];

/** A function for bash; cipher names are quoted, for their parentheses mean something to it. */
function completions(): string {
  const words = (options: readonly Option[]) =>
    options.flatMap(({ name, short }) => short ? [`--${name}`, `-${short}`] : [`--${name}`]).join(" ");
  const names = (option: Option) => option.short ? `--${option.name}|-${option.short}` : `--${option.name}`;
  const all = [...new Map(COMMANDS.flatMap(({ options }) => options).map((option) => [option.name, option])).values()];
  const values = all.filter(({ value }) => value).map((option) => {
    if (option.value === "FILE") {
      return `    ${names(option)}) compopt -o filenames; mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;`;
    }
    if (!option.choices) return `    ${names(option)}) return ;;`;
    const quoted = option.choices.map((choice) => `'${choice}'`).join(" ");
    return `    ${names(option)}) choices=(${quoted}) ;;`;
  });
  const commands = COMMANDS.map(({ name, options }) => `    ${name}) options='${words(options)}' ;;`);
  return `# bash completions for ${NAME}: source this
_kcapi_streams() {
  local word=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} choices=() choice options
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '${COMMANDS.map(({ name }) => name).join(" ")} --help --version' -- "$word")
    return
  fi
  case $previous in
${values.join("\n")}
  esac
  if ((\${#choices[@]} > 0)); then
    for choice in "\${choices[@]}"; do
      [[ $choice != "$word"* ]] || COMPREPLY+=("$(printf %q "$choice")")
    done
    return
  fi
  case \${COMP_WORDS[1]} in
${commands.join("\n")}
    *) return ;;
  esac
  mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
}
complete -F _kcapi_streams ${NAME}
`;
}

if (import.meta.main) process.exit(await main(process.argv.slice(2)));
