/**
 * Published test vectors, three ways (in one call, streamed, byte by byte) through all three interfaces.
 */
import { CipherHandle, decrypt, DecryptionStream, encrypt, EncryptionStream } from "../mod.ts";
import { assertEquals, assertStrictEquals, engine, test } from "./support/deps.ts";
import {
  type Bytes,
  collect,
  cut,
  type Direction,
  fromHex,
  hasCipher,
  reference,
  streamOf,
} from "./support/support.ts";

interface Vector {
  source: string;
  algorithm: string;
  key: string;
  iv?: string;
  /** The IV as a sector's number. */
  sector?: bigint;
  plaintext: string;
  ciphertext: string;
}

const SP800_38A = `
  6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51
  30c81c46a35ce411e5fbc1191a0a52ef f69f2445df4f9b17ad2b417be66c3710`;

const AES_128 = "2b7e151628aed2a6abf7158809cf4f3c";
const AES_192 = "8e73b0f7da0e6452c810f32b809079e562f8ead2522c6b7b";
const AES_256 = "603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4";

/** NIST SP 800-38A, appendix F: sections, key and ciphertext. */
function nist(sections: string, algorithm: string, key: string, iv: string | undefined, ciphertext: string): Vector {
  const source = `SP 800-38A ${sections}`;
  return { source, algorithm, key, ...(iv && { iv }), plaintext: SP800_38A, ciphertext };
}

const CBC_IV = "000102030405060708090a0b0c0d0e0f";
const CTR_IV = "f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff";

/** 00, 01 … ff, twice: the data of IEEE 1619's vectors 4 to 14. */
const TWO_RAMPS = Array.from({ length: 512 }, (_, i) => (i % 256).toString(16).padStart(2, "0")).join("");

const VECTORS: Vector[] = [
  nist(
    "F.1.1, F.1.2",
    "ecb(aes)",
    AES_128,
    undefined,
    `3ad77bb40d7a3660a89ecaf32466ef97 f5d3d58503b9699de785895a96fdbaaf
     43b1cd7f598ece23881b00e3ed030688 7b0c785e27e8ad3f8223207104725dd4`,
  ),
  nist(
    "F.1.3, F.1.4",
    "ecb(aes)",
    AES_192,
    undefined,
    `bd334f1d6e45f25ff712a214571fa5cc 974104846d0ad3ad7734ecb3ecee4eef
     ef7afd2270e2e60adce0ba2face6444e 9a4b41ba738d6c72fb16691603c18e0e`,
  ),
  nist(
    "F.1.5, F.1.6",
    "ecb(aes)",
    AES_256,
    undefined,
    `f3eed1bdb5d2a03c064b5a7e3db181f8 591ccb10d410ed26dc5ba74a31362870
     b6ed21b99ca6f4f9f153e7b1beafed1d 23304b7a39f9f3ff067d8d8f9e24ecc7`,
  ),
  nist(
    "F.2.1, F.2.2",
    "cbc(aes)",
    AES_128,
    CBC_IV,
    `7649abac8119b246cee98e9b12e9197d 5086cb9b507219ee95db113a917678b2
     73bed6b8e3c1743b7116e69e22229516 3ff1caa1681fac09120eca307586e1a7`,
  ),
  nist(
    "F.2.3, F.2.4",
    "cbc(aes)",
    AES_192,
    CBC_IV,
    `4f021db243bc633d7178183a9fa071e8 b4d9ada9ad7dedf4e5e738763f69145a
     571b242012fb7ae07fa9baac3df102e0 08b0e27988598881d920a9e64f5615cd`,
  ),
  nist(
    "F.2.5, F.2.6",
    "cbc(aes)",
    AES_256,
    CBC_IV,
    `f58c4c04d6e5f1ba779eabfb5f7bfbd6 9cfc4e967edb808d679f777bc6702c7d
     39f23369a9d9bacfa530e26304231461 b2eb05e2c39be9fcda6c19078c6a9d1b`,
  ),
  nist(
    "F.5.1, F.5.2",
    "ctr(aes)",
    AES_128,
    CTR_IV,
    `874d6191b620e3261bef6864990db6ce 9806f66b7970fdff8617187bb9fffdff
     5ae4df3edbd5d35e5b4f09020db03eab 1e031dda2fbe03d1792170a0f3009cee`,
  ),
  nist(
    "F.5.3, F.5.4",
    "ctr(aes)",
    AES_192,
    CTR_IV,
    `1abc932417521ca24f2b0459fe7e6e0b 090339ec0aa6faefd5ccc2c6f4ce8e94
     1e36b26bd1ebc670d1bd1d665620abf7 4f78a7f6d29809585a97daec58c6b050`,
  ),
  nist(
    "F.5.5, F.5.6",
    "ctr(aes)",
    AES_256,
    CTR_IV,
    `601ec313775789a5b7a7f504bbf3d228 f443e3ca4d62b59aca84e990cacaf5c5
     2b0930daa23de94ce87017ba2d84988d dfc9c58db67aada613c2dd08457941a6`,
  ),
  {
    source: "RFC 8439 2.4.2",
    algorithm: "chacha20",
    key: "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
    // The kernel's IV is the block counter, little-endian, and the nonce.
    iv: "01000000 000000000000004a00000000",
    plaintext: Array.from(
      "Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, sunscreen would be it.",
      (character) => character.charCodeAt(0).toString(16),
    ).join(""),
    ciphertext: `6e2e359a2568f980 41ba0728dd0d6981 e97e7aec1d4360c2 0a27afccfd9fae0b
      f91b65c5524733ab 8f593dabcd62b357 1639d624e65152ab 8f530c359f0861d8
      07ca0dbf500d6a61 56a38e088a22b65e 52bc514d16ccf806 818ce91ab7793736
      5af90bbf74a35be6 b40b8eedf2785e42 874d`,
  },
  {
    source: "IEEE 1619 vector 2",
    algorithm: "xts(aes)",
    key: "11111111111111111111111111111111 22222222222222222222222222222222",
    sector: 0x3333333333n,
    plaintext: "44".repeat(32),
    ciphertext: "c454185e6a16936e39334038acef838b fb186fff7480adc4289382ecd6d394f0",
  },
  {
    source: "IEEE 1619 vector 4",
    algorithm: "xts(aes)",
    key: "27182818284590452353602874713526 31415926535897932384626433832795",
    sector: 0n,
    plaintext: TWO_RAMPS,
    ciphertext: `27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c
      c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412
      328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce
      93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265
      5ea92dc4c4e41a8952c651d33174be51a10c421110e6d81588ede82103a252d8
      a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434
      1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c
      5ccf2a55d705ddcd86d449511ceb7ec30bf12b1fa35b913f9f747a8afd1b130e
      94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc
      1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3
      e7ff72b1e99785ca0a7e7720c5b36dc6d72cac9574c8cbbc2f801e23e56fd344
      b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd
      74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752
      afe656bb3c17256a9f6e9bf19fdd5a38fc82bbe872c5539edb609ef4f79c203e
      bb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d
      eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568`,
  },
  {
    source: "IEEE 1619 vector 10",
    algorithm: "xts(aes)",
    key: `2718281828459045235360287471352662497757247093699959574966967627
      3141592653589793238462643383279502884197169399375105820974944592`,
    sector: 0xffn,
    plaintext: TWO_RAMPS,
    ciphertext: `1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b
      5d31e276f8fe4a8d66b317f9ac683f44680a86ac35adfc3345befecb4bb188fd
      5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0
      c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca
      2a3e7a7d7df7b10355165c8b9a6d0a7de8b062c4500dc4cd120c0f7418dae3d0
      b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f
      93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec
      583e9645e07b8d9670655ba5bbcfecc6dc3966380ad8fecb17b6ba02469a020a
      84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1
      505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae
      9be69a2ffeceb1bec9de244fbe15992b11b77c040f12bd8f6a975a44a0f90c29
      a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac
      6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f
      645e8b7e9bfdef33943054ff84011493c27b3429eaedb4ed5376441a77ed4385
      1ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa
      773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151`,
  },
  ...["6c1625db4671522d3d7599601de7ca09ed", "d069444b7a7e0cab09e24447d24deb1fedbf"].map((ciphertext, i) => ({
    source: `IEEE 1619 vector ${15 + i} (ciphertext stealing)`,
    algorithm: "xts(aes)",
    key: "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0 bfbebdbcbbbab9b8b7b6b5b4b3b2b1b0",
    sector: 0x123456789an,
    plaintext: TWO_RAMPS.slice(0, ciphertext.length),
    ciphertext,
  })),
  {
    source: "NIST XTSVS XTSGenAES128",
    algorithm: "xts(aes)",
    key: "a1b90cba3f06ac353b2c343876081762 090923026e91771815f29dab01932f2f",
    iv: "4faef7117cda59c66e4b92013e768ad5",
    plaintext: "ebabce95b14d3c8d6fb350390790311c",
    ciphertext: "778ae8b43cb98d5a825081d5be471c63",
  },
];

interface Parameters {
  iv?: Bytes;
  sectorSize?: number;
  sector?: bigint;
}

function bytesOf({ key, plaintext, ciphertext }: Vector): [key: Bytes, plaintext: Bytes, ciphertext: Bytes] {
  return [fromHex(key), fromHex(plaintext), fromHex(ciphertext)];
}

/** A sector's number as the IV it stands for, spelt out here for the vectors' sake. */
function littleEndian(sector: bigint): Bytes {
  const digits = sector.toString(16).padStart(32, "0");
  return fromHex(digits).reverse();
}

/** How to give the IV: as bytes, or as a sector's number. */
function parametersOf({ iv, sector, plaintext }: Vector): Parameters[] {
  if (sector === undefined) return [iv === undefined ? {} : { iv: fromHex(iv) }];
  const sectorSize = 16 * Math.ceil(fromHex(plaintext).length / 16);
  return [{ iv: littleEndian(sector) }, { sectorSize, sector }];
}

type Run = (direction: Direction, chunks: Bytes[], parameters: Parameters) => Promise<Bytes>;

/** The interfaces, each from a list of chunks to all of the output. */
function interfaces(algorithm: string, key: Bytes): Record<string, Run> {
  const whole = (parameters: Parameters) => ({ key, engine, padding: "none" as const, ...parameters });
  return {
    stream: (direction, chunks, parameters) => {
      const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
      return collect(streamOf(chunks).pipeThrough(new Stream(algorithm, whole(parameters))));
    },
    iterable: (direction, chunks, parameters) => {
      const crypt = direction === "encrypt" ? encrypt : decrypt;
      return collect(crypt(algorithm, whole(parameters), chunks.length === 1 ? chunks[0]! : chunks));
    },
    handle: async (direction, chunks, { iv }) => {
      using handle = CipherHandle.open(algorithm, { key, engine });
      direction === "encrypt" ? handle.streamInitEnc(iv) : handle.streamInitDec(iv);
      const output = collect(handle.streamOp());
      for (const chunk of chunks.slice(0, -1)) await handle.streamUpdate(chunk);
      await handle.streamUpdateLast(chunks.at(-1)!);
      return await output;
    },
  };
}

const CUTS = { "in one call": Infinity, streamed: 7, "byte by byte": 1 };

for (const vector of VECTORS) {
  const { source, algorithm } = vector;
  const [key, plaintext, ciphertext] = bytesOf(vector);
  const hasAlgorithm = engine === "kernel" || algorithm !== "chacha20" || hasCipher("chacha20");
  test(`${algorithm}: ${source}`, { needs: { chacha20: hasAlgorithm } }, async () => {
    for (const parameters of parametersOf(vector)) {
      for (const [through, run] of Object.entries(interfaces(algorithm, key))) {
        if (through === "handle" && parameters.sectorSize) continue; // a handle knows no sectors
        for (const [how, size] of Object.entries(CUTS)) {
          const encrypted = await run("encrypt", [...cut(plaintext, [size])], parameters);
          assertEquals(encrypted, ciphertext, `${through}, ${how}, encrypted`);
          const decrypted = await run("decrypt", [...cut(ciphertext, [size])], parameters);
          assertEquals(decrypted, plaintext, `${through}, ${how}, decrypted`);
        }
      }
    }
  });
}

test("the reference of the tests gives every vector of AES", () => {
  for (const vector of VECTORS.filter(({ algorithm }) => algorithm.endsWith("(aes)"))) {
    const [key, plaintext, ciphertext] = bytesOf(vector);
    for (const parameters of parametersOf(vector)) {
      const options = { key, ...parameters };
      assertEquals(reference("encrypt", vector.algorithm, options, plaintext), ciphertext, vector.source);
      assertEquals(reference("decrypt", vector.algorithm, options, ciphertext), plaintext, vector.source);
    }
  }
});

test("the streams of the vectors ran on the requested engine", async () => {
  const stream = new EncryptionStream("ecb(aes)", { key: fromHex(AES_128), engine });
  assertStrictEquals(stream.engine, engine);
  await stream.writable.abort();
});
