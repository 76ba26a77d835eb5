/**
 * Encrypts and decrypts a file with the file API of each runtime, and compares the result with `openssl enc`.
 */
import { Buffer } from "node:buffer";
import { randomFillSync } from "node:crypto";
import {
  closeSync,
  createReadStream,
  createWriteStream,
  openSync,
  readSync,
  rmSync,
  statSync,
  writeSync,
} from "node:fs";
import { join } from "node:path";
import { Readable, Writable } from "node:stream";
import { DecryptionStream, EncryptionStream } from "../mod.ts";
import { assertEquals, engine, runtime, spawn, tempDir, test, times } from "./support/deps.ts";
import { type Bytes, bytes } from "./support/support.ts";

const MiB = 1 << 20;
const SIZE = times(8, 64) * MiB;
const KEY = bytes(32, 301);
const IV = bytes(16, 302);

// ---- The runtime's own files ------------------------------------------------------------------------------------

interface FileAPI {
  readable(path: string): Promise<ReadableStream<Bytes>>;
  writable(path: string): Promise<WritableStream<Uint8Array>>;
}

const denoFiles: FileAPI = {
  readable: async (path) => (await Deno.open(path)).readable,
  writable: async (path) => (await Deno.open(path, { write: true, create: true })).writable,
};

/** The part of Bun's API that is used here, because the types of Bun and Deno conflict. */
interface BunFile {
  stream(): ReadableStream<Bytes>;
  writer(): { write(chunk: Uint8Array): number | Promise<number>; end(): unknown };
}

const bunFile = (path: string) => (globalThis as unknown as { Bun: { file(path: string): BunFile } }).Bun.file(path);

const bunFiles: FileAPI = {
  readable: (path) => Promise.resolve(bunFile(path).stream()),
  writable: (path) => {
    const writer = bunFile(path).writer();
    return Promise.resolve(
      new WritableStream<Uint8Array>({
        write: async (chunk) => void await writer.write(chunk),
        close: async () => void await writer.end(),
        abort: async () => void await writer.end(),
      }),
    );
  },
};

const nodeFiles: FileAPI = {
  readable: (path) => Promise.resolve(Readable.toWeb(createReadStream(path)) as unknown as ReadableStream<Bytes>),
  writable: (path) => Promise.resolve(Writable.toWeb(createWriteStream(path))),
};

const files = { deno: denoFiles, bun: bunFiles, node: nodeFiles }[runtime];

// ---- Helpers ----------------------------------------------------------------------------------------------------

function writeRandom(path: string): void {
  const file = openSync(path, "w");
  const block = Buffer.alloc(MiB);
  for (let written = 0; written < SIZE; written += MiB) writeSync(file, randomFillSync(block));
  closeSync(file);
}

/** The offset of the first MiB in which two files differ, or -1 if they are equal. */
function difference(one: string, other: string): number {
  const [left, right] = [openSync(one, "r"), openSync(other, "r")];
  const [a, b] = [Buffer.alloc(MiB), Buffer.alloc(MiB)];
  try {
    for (let offset = 0;; offset += MiB) {
      const [count, otherCount] = [readSync(left, a), readSync(right, b)];
      if (count !== otherCount || !a.subarray(0, count).equals(b.subarray(0, count))) return offset;
      if (count === 0) return -1;
    }
  } finally {
    closeSync(left);
    closeSync(right);
  }
}

async function openssl(...args: string[]): Promise<void> {
  const { code, stderr } = await spawn(["openssl", ...args]);
  assertEquals(code, 0, stderr);
}

const hasOpenSSL = await spawn(["openssl", "version"]).then(({ code }) => code === 0, () => false);
const hex = (bytes: Bytes) => Buffer.from(bytes).toString("hex");

// ---- The tests --------------------------------------------------------------------------------------------------

for (
  const [algorithm, cipher, size] of [["cbc(aes)", "aes-256-cbc", SIZE + 16], [
    "ctr(aes)",
    "aes-256-ctr",
    SIZE,
  ]] as const
) {
  test(
    `a file of ${SIZE / MiB} MiB through ${algorithm} equals openssl's output, and decrypts`,
    { needs: { "an openssl command": hasOpenSSL } },
    async () => {
      const directory = tempDir();
      const [plain, encrypted, expected, decrypted] = ["plain", "encrypted", "expected", "decrypted"]
        .map((name) => join(directory, name)) as [string, string, string, string];
      const options = { key: KEY, iv: IV, engine };
      try {
        writeRandom(plain);
        await (await files.readable(plain))
          .pipeThrough(new EncryptionStream(algorithm, options))
          .pipeTo(await files.writable(encrypted));
        assertEquals(statSync(encrypted).size, size);
        await openssl("enc", `-${cipher}`, "-K", hex(KEY), "-iv", hex(IV), "-in", plain, "-out", expected);
        assertEquals(difference(encrypted, expected), -1, "offset of a difference from openssl's");
        await (await files.readable(encrypted))
          .pipeThrough(new DecryptionStream(algorithm, options))
          .pipeTo(await files.writable(decrypted));
        assertEquals(statSync(decrypted).size, SIZE);
        assertEquals(difference(decrypted, plain), -1, "offset of a difference from the plaintext");
        assertEquals(difference(encrypted, plain), 0, "the comparison finds a difference");
      } finally {
        rmSync(directory, { recursive: true });
      }
    },
  );
}
