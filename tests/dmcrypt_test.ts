/** Volumes that cryptsetup made are decrypted by the API, with Workers and by the tool; what dm-crypt's IVs count. */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { decrypt, encrypt, EncryptionStream, type IVMode, WorkerPool } from "../mod.ts";
import { runEach } from "./support/cli_support.ts";
import { assertEquals, engine, spawn, takes, tempDir, test } from "./support/deps.ts";
import { bytes, collect, concat, cut, fromHex, opens, plain64, reference, streamOf } from "./support/support.ts";

const hasCryptsetup = (await spawn(["cryptsetup", "--version"]).catch(() => ({ code: 1 }))).code === 0;
const SIZE = 3 * 1024 * 1024; // more than what one Worker does at a time

/** Encrypts a plain file in place, which takes neither root nor a device. */
async function makeVolume(cipher: string, keySize: number, sectorSize: number) {
  const directory = tempDir();
  const file = (name: string) => join(directory, name);
  const plaintext = bytes(SIZE, 5);
  writeFileSync(file("volume"), plaintext);
  writeFileSync(file("passphrase"), "hunter2");
  const luks = ["--key-file", file("passphrase"), "--batch-mode", "--disable-locks"];
  const make = ["reencrypt", "--encrypt", "--type", "luks2", "--header", file("header"), "--cipher", cipher];
  const sizes = ["--key-size", `${keySize}`, "--sector-size", `${sectorSize}`];
  const pbkdf = ["--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000"];
  const dump = ["luksDump", "--dump-volume-key", "--volume-key-file", file("key"), file("header")];
  for (const command of [[...make, ...sizes, ...pbkdf, ...luks, file("volume")], [...dump, ...luks]]) {
    const { code, stderr } = await spawn(["cryptsetup", ...command]);
    assertEquals([code, stderr], [0, ""]);
  }
  const key = new Uint8Array(readFileSync(file("key")));
  return { directory, plaintext, key, volume: new Uint8Array(readFileSync(file("volume"))) };
}

const VOLUMES: readonly [mode: string, keySize: number, sectorSize: number, ivMode: IVMode][] = [
  ["xts", 512, 512, "plain64"],
  ["xts", 512, 2048, "plain64"],
  ["xts", 512, 4096, "plain64be"],
  ["cbc", 256, 512, "plain64"],
  ["cbc", 256, 4096, "plain64"],
  ["cbc", 256, 512, "plain64be"],
  ["cbc", 128, 512, "plain"],
  ["xts", 512, 4096, "plain64"],
];

for (const [i, [mode, keySize, sectorSize, ivMode]] of VOLUMES.entries()) {
  if (!takes(i)) continue;
  const needs = { "cryptsetup": hasCryptsetup, [`${mode}(aes)`]: opens(`${mode}(aes)`) };
  test(
    `a volume of cryptsetup, aes-${mode}-${ivMode} in sectors of ${sectorSize} bytes, is decrypted`,
    { needs },
    async () => {
      const { directory, plaintext, key, volume } = await makeVolume(`aes-${mode}-${ivMode}`, keySize, sectorSize);
      const algorithm = `${mode}(aes)`;
      const options = { key, sectorSize, ivMode, engine };
      assertEquals(await collect(decrypt(algorithm, options, volume)), plaintext);
      assertEquals(await collect(encrypt(algorithm, options, streamOf(cut(plaintext, [10_007])))), volume);
      using pool = new WorkerPool(2);
      assertEquals(await collect(decrypt(algorithm, { ...options, pool }, volume)), plaintext);
      const middle = SIZE / 2;
      const sector = middle / 512; // as dm-crypt counts, whatever the size of the sectors
      const half = decrypt(algorithm, { ...options, sector, pool }, volume.subarray(middle));
      assertEquals(await collect(half), plaintext.subarray(middle));
      const cipher = ["-c", algorithm, "--key-file", "key", "--sector-size", `${sectorSize}`, "--iv-mode", ivMode];
      const [result] = await runEach(
        [["decrypt", ...cipher, "--engine", engine, "--in", "volume", "--out", "output"]],
        directory,
      );
      assertEquals([result!.code, result!.stderr], [0, ""]);
      assertEquals(new Uint8Array(readFileSync(join(directory, "output"))), plaintext);
    },
  );
}

for (const algorithm of ["xts(aes)", "cbc(aes)"]) {
  const key = bytes(32, 3);
  const counted = async (sectorSize: number, number: (index: number) => number, rest: { ivLargeSectors?: boolean }) => {
    const input = bytes(1_200_000 - 1_200_000 % sectorSize);
    const expected = concat([...cut(input, [sectorSize])].map((piece, i) => {
      const iv = plain64(BigInt(7 + number(i)));
      return reference("encrypt", algorithm, { key, iv }, piece);
    }));
    const options = { key, sectorSize, sector: 7, engine, ...rest };
    const stream = new EncryptionStream(algorithm, options);
    assertEquals(await collect(streamOf(cut(input, [5000])).pipeThrough(stream)), expected);
    using pool = new WorkerPool(2);
    assertEquals(await collect(encrypt(algorithm, { ...options, pool }, input)), expected);
  };

  test(`${algorithm}: IVs count sectors of 512 bytes, or of sectorSize with ivLargeSectors and odd sizes`, {
    engine: "userspace", // it is about numbers: the volumes below are decrypted on both engines
    needs: { [algorithm]: opens(algorithm) },
  }, async () => {
    await counted(4096, (index) => 8 * index, {});
    await counted(512, (index) => index, {});
    await counted(4096, (index) => index, { ivLargeSectors: true });
    await counted(1040, (index) => index, {});
  });
}

test("the number of a sector is in its IV as dm-crypt's plain64, plain64be and plain write it", {
  engine: "userspace",
}, async () => {
  const [key, sector] = [bytes(32, 3), 0x0102030405060708n];
  const ivs = {
    plain64: "08070605040302010000000000000000",
    plain64be: "00000000000000000102030405060708",
    plain: "08070605000000000000000000000000",
  };
  for (const [ivMode, iv] of Object.entries(ivs) as [keyof typeof ivs, string][]) {
    const expected = reference("encrypt", "cbc(aes)", { key, iv: fromHex(iv) }, bytes(512));
    const options = { key, sectorSize: 512, sector, ivMode, engine };
    assertEquals(await collect(encrypt("cbc(aes)", options, bytes(512))), expected);
  }
});

test("cbc in sectors: a sector is a message without padding, and the last one must be whole", async () => {
  const options = { key: bytes(32), sectorSize: 512, engine };
  const [error] = await Promise.allSettled([collect(encrypt("cbc(aes)", options, bytes(512 + 16)))]);
  assertEquals([error.status, String((error as PromiseRejectedResult).reason)], [
    "rejected",
    "RangeError: The last sector expected 512 bytes for cbc(aes), got 16",
  ]);
});
