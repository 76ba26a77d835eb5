/**
 * What is the userspace engine's own: the modes it builds, the memory it hands out, the end of keys, refusals.
 */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import process from "node:process";
import { inspect } from "node:util";
import { parseAlgorithm } from "../src/algorithms.ts";
import type { Engine } from "../src/engines/engine.ts";
import { inputMemory, maskMemory } from "../src/engines/scratch.ts";
import { openUserspace, userspaceHas, userspaceNames } from "../src/engines/userspace.ts";
import { KcapiError } from "../src/errors.ts";
import { assert, assertEquals, assertStrictEquals, assertThrows, test } from "./support/deps.ts";
import { type Bytes, bytes, concat, cut, type Direction, fromHex, reference, WINDOW } from "./support/support.ts";
import { Secret } from "../src/secret.ts";

const USERSPACE = { engine: "userspace" } as const;

function withEngine<T>(name: string, key: Bytes, use: (engine: Engine) => T): T {
  const engine = openUserspace(parseAlgorithm(name), Secret.from(key));
  try {
    return use(engine);
  } finally {
    engine.close();
  }
}

function inOneOp(engine: Engine, direction: Direction, iv: Bytes | null, input: Bytes): Bytes {
  engine.init(direction, iv);
  engine.update([input], true);
  return engine.take(input.length);
}

/** Every algorithm of this runtime, by every key length of it. */
const EVERYTHING = userspaceNames().flatMap((name) =>
  parseAlgorithm(name).keySizes!.map((size) => ({ name, key: bytes(size, 7) }))
);

function ivOf(engine: Engine): Bytes | null {
  return engine.ivSize > 0 ? bytes(engine.ivSize, 3) : null;
}

// ---- the right bytes --------------------------------------------------------------------------------------------

/**
 * What Linux 6.1.176 gave through AF_ALG, in one op each, for each key length: the beginning of the SHA-256 of the
 * encryptions, then the decryptions, of `bytes(n)` for each n from 1 to 48 that the mode takes, and for the window.
 */
const KERNEL: Readonly<Record<string, string>> = {
  "cbc(aes)": "6583fd5149e75b0b 0f97eb76f591afc7 ce35436c18cf00b2",
  "cbc(camellia)": "8d33fa7275472a68 5e8affc83b9c7058 ad5ead8541ce1f13",
  "cbc(des)": "14eb38958057f863",
  "cbc(des3_ede)": "c191d28c27d39187",
  "cfb(aes)": "9a3825d046d0a8cf 635d8922fb303cba 2e558d8c3b48204b",
  "cfb(camellia)": "a9b9712f4c263189 f795cd85a9aefe4c e88291043d520e0f",
  "cfb(des)": "fa8c8f0929956d66",
  "cfb(des3_ede)": "e32ecd68924620ed",
  "chacha20": "9dbb94cae0b3507d",
  "ctr(aes)": "5a1b75d1ff61cac9 03317e8ab460b4d6 3c379163c3f87842",
  "ctr(camellia)": "8033aa88f526345e 0c97df7ff391f2d7 8b544ccdf73f81cc",
  "ecb(aes)": "36049585988c3e6d c6a7d7bb9594b94b cccf5264bea68601",
  "ecb(camellia)": "eeb6cf95bfeec582 f715a6d9b6634d64 8b2a980772acee6b",
  "ecb(des)": "bdf76b84342f8d62",
  "ecb(des3_ede)": "7632738c9885e5e1",
  "ofb(aes)": "44cdf0f7365b74a8 b84aac84f0249566 bc4f2cf3cd09547a",
  "ofb(camellia)": "81a63152cd155e1f 3ca18fbc7ff04f25 fea6ddf21b427cf8",
  "ofb(des)": "3e65c654d22bbb78",
  "ofb(des3_ede)": "9d5279c338dfa44d",
  "rfc3686(ctr(aes))": "2b238d5d433ed266 28765b1c5d18e166 5914ded5207dba48",
  "rfc3686(ctr(camellia))": "38b283d26b2177b4 040bbf4794da4500 d7f02870fc8c2645",
  "xts(aes)": "548a041b319f729b 09ff95ad989af792 2e7ba7d770441b1b",
  "xts(camellia)": "1615a1063274e183 6fb8f98dbc857c8f 0f8cfe7d56025870",
};

/** No kernel that these tests have boots with them: they are proven by vectors, and their modes by their ECB. */
const UNRECORDED = /\((?:aria|sm4)\)/;

for (const name of userspaceNames().filter((name) => !UNRECORDED.test(name))) {
  test(
    `${name} gives the recorded bytes of the kernel, for all lengths up to 48 bytes and for a window`,
    USERSPACE,
    () => {
      const { blockSize = 1, shortestSector, keySizes } = parseAlgorithm(name);
      const lengths = Array.from({ length: 48 }, (_, i) => i + 1).concat(WINDOW)
        .filter((length) => length % blockSize === 0 && length >= shortestSector);
      const digests = keySizes!.map((size) =>
        withEngine(name, bytes(size, 7), (engine) => {
          const hash = createHash("sha256");
          for (const direction of ["encrypt", "decrypt"] as const) {
            for (const length of lengths) hash.update(inOneOp(engine, direction, ivOf(engine), bytes(length)));
          }
          return hash.digest("hex").slice(0, 16);
        })
      );
      assertEquals(digests.join(" "), KERNEL[name]);
    },
  );
}

for (
  const [cipher, source, key, input, output] of [
    [
      "aria",
      "RFC 5794, A.1",
      "000102030405060708090a0b0c0d0e0f",
      "00112233445566778899aabbccddeeff",
      "d718fbd6ab644c739da95f3be6451778",
    ],
    [
      "aria",
      "RFC 5794, A.2",
      "000102030405060708090a0b0c0d0e0f1011121314151617",
      "00112233445566778899aabbccddeeff",
      "26449c1805dbe7aa25a468ce263a9e79",
    ],
    [
      "aria",
      "RFC 5794, A.3",
      "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
      "00112233445566778899aabbccddeeff",
      "f92bd7c79fb72e2f2b8f80c1972d24fc",
    ],
    [
      "sm4",
      "GB/T 32907-2016, A.1",
      "0123456789abcdeffedcba9876543210",
      "0123456789abcdeffedcba9876543210",
      "681edf34d206965e86b3e94f536e4246",
    ],
  ] as const
) {
  const name = `ecb(${cipher})`;
  test(
    `${name} gives the vector of ${source}`,
    { ...USERSPACE, needs: { [name]: userspaceNames().includes(name) } },
    () => {
      const run = (direction: "encrypt" | "decrypt", block: string) =>
        withEngine(name, fromHex(key), (engine) => inOneOp(engine, direction, null, fromHex(block)));
      assertEquals(run("encrypt", input), fromHex(output));
      assertEquals(run("decrypt", output), fromHex(input));
    },
  );
}

// Ciphers with recordings are among them: what is expected is right for these, and the others have the same modes.
for (const name of userspaceNames().filter((name) => /\((?:aes|aria|camellia|sm4)\)/.test(name))) {
  const { cipher = "", keySizes } = parseAlgorithm(name);
  test(`${name} is the mode over the blocks of ecb(${cipher})`, {
    ...USERSPACE,
    needs: { [`ecb(${cipher})`]: userspaceNames().includes(`ecb(${cipher})`) },
  }, () => {
    for (const size of keySizes!) {
      const key = bytes(size, 7);
      for (const length of [16, 48, 160]) {
        withEngine(name, key, (engine) => {
          const iv = ivOf(engine);
          const ciphertext = inOneOp(engine, "encrypt", iv, bytes(length));
          assertEquals(ciphertext, overBlocks(name, cipher, key, iv, bytes(length)));
          assertEquals(inOneOp(engine, "decrypt", iv, ciphertext), bytes(length));
        });
      }
    }
  });
}

/** An encryption of whole blocks, one by one. */
function overBlocks(name: string, cipher: string, key: Bytes, iv: Bytes | null, input: Bytes): Bytes {
  const [mode = ""] = name.split("(");
  const keyLength = mode === "xts" ? key.length / 2 : mode === "rfc3686" ? key.length - 4 : key.length;
  const blocksOf = (key: Bytes) => (block: Bytes) =>
    withEngine(`ecb(${cipher})`, key.slice(), (engine) => inOneOp(engine, "encrypt", null, block));
  const encrypted = blocksOf(key.slice(0, keyLength));
  const xor = (a: Bytes, b: Bytes) => a.map((byte, i) => byte ^ b[i]!);
  let state = iv ?? new Uint8Array(16);
  if (mode === "xts") state = blocksOf(key.slice(keyLength))(state);
  if (mode === "rfc3686") state = Uint8Array.of(...key.slice(keyLength), ...state, 0, 0, 0, 1);
  const output = [...cut(input, [16])].map((block) => {
    if (mode === "ecb") return encrypted(block);
    if (mode === "cbc") return state = encrypted(xor(block, state));
    if (mode === "cfb") return state = xor(block, encrypted(state));
    if (mode === "ofb") return xor(block, state = encrypted(state));
    const before = state;
    state = mode === "xts" ? doubled(state) : increased(state);
    return mode === "xts" ? xor(encrypted(xor(block, before)), before) : xor(block, encrypted(before));
  });
  return concat(output);
}

/** A counter, big-endian, and the next one. */
function increased(counter: Bytes): Bytes {
  const next = counter.slice();
  for (let i = 15; i >= 0; i--) {
    next[i]!++; // modulo 256
    if (next[i] !== 0) break;
  }
  return next;
}

/** Twice a tweak, in GF(2^128). */
function doubled(tweak: Bytes): Bytes {
  const carry = tweak[15]! >> 7;
  return tweak.map((byte, i) => (byte << 1) ^ (i === 0 ? 0x87 * carry : tweak[i - 1]! >> 7));
}

test("the modes that every runtime has are supported", USERSPACE, () => {
  const aes = ["cbc(aes)", "cfb(aes)", "ctr(aes)", "ecb(aes)", "ofb(aes)", "rfc3686(ctr(aes))", "xts(aes)"];
  assertEquals(aes.filter((name) => !userspaceHas(parseAlgorithm(name))), []);
});

test("cfb and ofb of aes give the vectors of SP 800-38A, F.3.17 and F.4.5", USERSPACE, () => {
  const key = fromHex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4");
  const iv = fromHex("000102030405060708090a0b0c0d0e0f");
  const input = fromHex("6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51");
  for (
    const [name, output] of [
      ["cfb(aes)", "dc7e84bfda79164b7ecd8486985d3860 39ffed143b28b1c832113c6331e5407b"],
      ["ofb(aes)", "dc7e84bfda79164b7ecd8486985d3860 4febdc6740d20b3ac88f6ad82a4fb08d"],
    ] as const
  ) {
    assertEquals(withEngine(name, key, (engine) => inOneOp(engine, "encrypt", iv, input)), fromHex(output));
    assertEquals(withEngine(name, key, (engine) => inOneOp(engine, "decrypt", iv, fromHex(output))), input);
  }
});

test("rfc3686 gives vectors 1, 5 and 9 of RFC 3686", USERSPACE, () => {
  const ramp = bytes(36).map((_, i) => i);
  for (
    const [key, iv, input, output] of [
      [
        "ae6852f8121067cc4bf7a5765577f39e 00000030",
        "0000000000000000",
        fromHex("53696e676c6520626c6f636b206d7367"),
        "e4095d4fb7a7b3792d6175a3261311b8",
      ],
      [
        "7c5cb2401b3dc33c19e7340819e0f69c678c3db8e6f6a91a 0096b03b",
        "020c6eadc2cb500d",
        ramp.slice(0, 32),
        "453243fc609b23327edfaafa7131cd9f8490701c5ad4a79cfc1fe0ff42f4fb00",
      ],
      [
        "ff7a617ce69148e4f1726e2f43581de2aa62d9f805532edff1eed687fb54153d 001cc5b7",
        "51a51d70a1c11148",
        ramp,
        "eb6c52821d0bbbf7ce7594462aca4faab407df866569fd07f48cc0b583d6071f1ec0e6b8",
      ],
    ] as const
  ) {
    withEngine("rfc3686(ctr(aes))", fromHex(key), (engine) => {
      assertEquals(inOneOp(engine, "encrypt", fromHex(iv), input), fromHex(output));
      assertEquals(inOneOp(engine, "decrypt", fromHex(iv), fromHex(output)), input);
    });
  }
});

for (const bits of [32, 64, 128]) {
  test(`ctr's counter carries at 2^${bits}, like ECB of the counter blocks`, USERSPACE, () => {
    const first = (1n << BigInt(bits)) - 2n;
    const counters = Array.from({ length: 5 }, (_, i) => {
      const counter = ((bits < 128 ? 0xabn << 120n : 0n) + first + BigInt(i)) % (1n << 128n);
      return fromHex(counter.toString(16).padStart(32, "0"));
    });
    for (const size of [16, 24, 32]) {
      const key = bytes(size, 7);
      const keyStream = withEngine("ecb(aes)", key, (ecb) => inOneOp(ecb, "encrypt", null, concat(counters)));
      const zeros = new Uint8Array(80);
      withEngine("ctr(aes)", key, (ctr) => {
        assertEquals(inOneOp(ctr, "encrypt", counters[0]!, zeros), keyStream);
        ctr.init("decrypt", counters[0]!);
        for (const block of cut(zeros, [16])) ctr.update([block], false);
        assertEquals(ctr.take(80), keyStream);
      });
    }
  });
}

// ---- cuts, and whose memory it is -------------------------------------------------------------------------------

/**
 * Sends `input` in updates of whole chunks, a message in one. Each is a list of odd pieces that is overwritten at once.
 */
function* sent(engine: Engine, name: string, input: Bytes): Generator<number> {
  const { kind, chunkSize } = parseAlgorithm(name);
  const sizes = kind === "stream" || kind === "counter" ? [1, 7, 2, 40].map((n) => n * chunkSize) : [input.length];
  for (const part of cut(input, sizes)) {
    // Buffers, because their slice() gives a view where an array's gives a copy; at odd addresses.
    const list = [...cut(part, [1, 30, 5, 17, 64])].map((piece) =>
      Buffer.from(concat([piece, piece])).subarray(piece.length)
    );
    engine.update(list, part.byteOffset + part.length === input.length);
    for (const piece of list) piece.fill(0xaa);
    yield part.length;
  }
}

test("every algorithm gives the bytes of one op, for any split of its input and output", USERSPACE, () => {
  for (const { name, key } of EVERYTHING) {
    for (const direction of ["encrypt", "decrypt"] as const) {
      withEngine(name, key, (engine) => {
        const input = bytes(parseAlgorithm(name).blockSize === 1 ? 1999 : 2000);
        const expected = inOneOp(engine, direction, ivOf(engine), input);
        for (const wanted of [1, 16, 33, 500, 2000]) {
          const output: Bytes[] = [];
          let queued = 0;
          engine.init(direction, ivOf(engine));
          for (const length of sent(engine, name, input)) {
            for (queued += length; queued >= wanted; queued -= wanted) {
              const list = [new Uint8Array(0), new Uint8Array(wanted >> 1), new Uint8Array(wanted - (wanted >> 1))];
              if (queued % 2 === 0) engine.op(list);
              output.push(...queued % 2 === 0 ? list : [engine.take(wanted)]);
            }
          }
          output.push(engine.take(queued));
          assertEquals(
            concat(output),
            expected,
            `${name}, ${8 * key.length} bits, ${direction}, received by ${wanted}`,
          );
        }
      });
    }
  }
});

test("op() can fill the memory that was sent, also at an odd address", USERSPACE, () => {
  for (const { name, key } of EVERYTHING) {
    for (const direction of ["encrypt", "decrypt"] as const) {
      withEngine(name, key, (engine) => {
        const expected = inOneOp(engine, direction, ivOf(engine), bytes(4096));
        const memory = new Uint8Array(4097).subarray(1);
        memory.set(bytes(4096));
        engine.init(direction, ivOf(engine));
        engine.update([memory], true);
        engine.op([memory]);
        assertEquals(memory, expected, name);
      });
    }
  }
});

test("take() of the length of one update's output, from two of them", USERSPACE, () => {
  withEngine("ecb(aes)", bytes(16), (engine) => {
    const expected = inOneOp(engine, "encrypt", null, bytes(64));
    engine.init("encrypt", null);
    for (const half of cut(bytes(64), [32])) engine.update([half], false);
    assertEquals([16, 32, 16].map((length) => engine.take(length)), [...cut(expected, [16, 32, 16])]);
  });
});

test(
  "pass() gives the output of update() and op(), in the memory that was sent or in new memory",
  USERSPACE,
  () => {
    for (const { name, key } of EVERYTHING) {
      for (const inPlace of [true, false]) {
        withEngine(name, key, (engine) => {
          const expected = inOneOp(engine, "encrypt", ivOf(engine), bytes(4096));
          const memory = new Uint8Array(4097).subarray(1);
          memory.set(bytes(4096));
          engine.init("encrypt", ivOf(engine));
          const output = engine.pass(memory, inPlace);
          assertEquals(output === memory, inPlace);
          assertEquals(output, expected, name);
          if (!inPlace) assertEquals(memory, bytes(4096));
        });
      }
    }
  },
);

test(
  "take() and pass() return plain arrays over memory that nothing else uses, without old content",
  USERSPACE,
  () => {
    for (const { name, key } of EVERYTHING) {
      withEngine(name, key, (engine) => {
        const outputs = [16, 64, 1024, 65536].flatMap((length) =>
          Array.from({ length: 8 }, (_, i) => {
            if (i % 2 > 0) return inOneOp(engine, "decrypt", ivOf(engine), bytes(length));
            engine.init("decrypt", ivOf(engine));
            return engine.pass(bytes(length), false);
          })
        );
        for (const { buffer, byteOffset, length, constructor } of outputs) {
          assertStrictEquals(constructor, Uint8Array);
          assertEquals(byteOffset, 0);
          assert(buffer.byteLength - length <= 16, `${name}: ${buffer.byteLength} bytes for ${length}`);
          assertEquals(new Uint8Array(buffer, length), new Uint8Array(buffer.byteLength - length));
        }
        assertEquals(new Set(outputs.map(({ buffer }) => buffer)).size, outputs.length);
      });
    }
  },
);

// Only Deno shows at once that memory was freed.
test(
  "memory of the runtime's cipher is freed when its bytes are copied, not by the garbage collector",
  { ...USERSPACE, runtime: "deno" },
  () => {
    // A cipher that is the runtime's own: below what is built over ECB, the runtime copies its input.
    withEngine("chacha20", bytes(32), (engine) => {
      const memory = bytes(65536);
      const passes = {
        pass: () => engine.pass(memory, true),
        op() {
          engine.update([memory], false);
          engine.op([memory.subarray(0, 16), memory.subarray(16)]);
        },
      };
      engine.init("encrypt", bytes(16));
      for (const [name, pass] of Object.entries(passes)) {
        const before = process.memoryUsage().external;
        let most = 0;
        for (let i = 0; i < 256; i++) {
          pass();
          most = Math.max(most, process.memoryUsage().external - before);
        }
        assert(most < 2 ** 20, `${name}: ${most} bytes of 16 MiB pile up`);
      }
    });
  },
);

test("a new stream begins without the output of the last one", USERSPACE, () => {
  withEngine("cbc(aes)", bytes(16), (engine) => {
    const expected = inOneOp(engine, "encrypt", ivOf(engine), bytes(64));
    engine.init("decrypt", bytes(16, 9));
    engine.update([bytes(96, 9)], false);
    engine.take(33);
    assertEquals(inOneOp(engine, "encrypt", ivOf(engine), bytes(64)), expected);
  });
});

// ---- keys -------------------------------------------------------------------------------------------------------

/** The memory of all clones of secrets that are made before it is disposed of. */
function watchClones(): { copies: Bytes[] } & Disposable {
  const copies: Bytes[] = [];
  const { clone } = Secret.prototype;
  Secret.prototype.clone = function (...args) {
    const made = clone.apply(this, args);
    copies.push(made.bytes);
    return made;
  };
  return { copies, [Symbol.dispose]: () => void (Secret.prototype.clone = clone) };
}

test("each engine zeroes its own copy of the key when it is closed, and the others still work", USERSPACE, () => {
  for (const { name, key } of EVERYTHING) {
    using clones = watchClones();
    const { copies } = clones;
    const secret = Secret.from(key);
    copies.push(secret.bytes);
    const first = openUserspace(parseAlgorithm(name), secret);
    const expected = inOneOp(first, "encrypt", ivOf(first), bytes(64));
    const second = first.reinit();
    const third = second.reinit();
    assertEquals(copies, [key, key, key]);
    first.close();
    third.close();
    const zeros = new Uint8Array(key.length);
    assertEquals(copies, [zeros, key, zeros]);
    assertEquals(inOneOp(second, "encrypt", ivOf(second), bytes(64)), expected);
    second.close();
    assertEquals(copies, [zeros, zeros, zeros]);
  }
});

test("the streams of engines with one key are independent", USERSPACE, () => {
  withEngine("cbc(aes)", bytes(24), (one) => {
    const other = one.reinit();
    const expected = inOneOp(one, "encrypt", bytes(16), bytes(4096));
    const streams = [one, other].map((engine) => ({ engine, output: [] as Bytes[] }));
    for (const { engine } of streams) engine.init("encrypt", bytes(16));
    for (const piece of cut(bytes(4096), [16, 160])) {
      for (const { engine, output } of streams) {
        engine.update([piece], false);
        output.push(engine.take(piece.length));
      }
    }
    for (const { output } of streams) assertEquals(concat(output), expected);
    other.close();
  });
});

test("inspection of an engine does not show the key, the IV or data", USERSPACE, () => {
  const engine = openUserspace(parseAlgorithm("xts(aes)"), Secret.from(new Uint8Array(32).fill(0xc3)));
  engine.init("encrypt", new Uint8Array(16).fill(0xc3));
  engine.update([new Uint8Array(32).fill(0xc3)], true);
  const shown = inspect(engine, { depth: 20, showHidden: true }) + JSON.stringify(engine);
  assert(!/195|c3/i.test(shown), shown);
  engine.close();
});

// ---- refusals ---------------------------------------------------------------------------------------------------

function refusal(name: string, key: Bytes): KcapiError {
  const secret = Secret.from(key);
  const memory = secret.bytes;
  const error = assertThrows(() => openUserspace(parseAlgorithm(name), secret), KcapiError);
  assertEquals(memory, new Uint8Array(key.length), "A key that was refused is zeroed");
  return error;
}

test("a cipher that this runtime does not have is ENOENT, and the message lists its ciphers", USERSPACE, () => {
  // Drivers are the kernel's; of the other algorithms no runtime has any.
  for (
    const name of ["cbc-aes-aesni", "xts(ecb(aes-generic))", "cryptd(__cbc-aes-aesni)", "cbc(serpent)", "lrw(aes)"]
  ) {
    assert(!userspaceHas(parseAlgorithm(name)), name);
    const { code, errno, operation, message } = refusal(name, bytes(32));
    assertEquals([code, errno, operation], ["ENOENT", 2, "createCipheriv"]);
    assert(message.includes(`has no ${name}`) && message.includes("cbc(aes), "), message);
  }
});

test("a key of a length that the cipher does not accept is EINVAL", USERSPACE, () => {
  const { code, operation, message } = refusal("cbc(aes)", bytes(17));
  assertEquals([code, operation], ["EINVAL", "setkey"]);
  assert(message.includes("16 or 24 or 32 bytes, got 17"), message);
});

test("a length that the mode does not accept is EINVAL, and the engine continues", USERSPACE, () => {
  for (const [name, length] of [["xts(aes)", 15], ["cbc(aes)", 17], ["ecb(aes)", 8]] as const) {
    withEngine(name, bytes(32), (engine) => {
      const expected = inOneOp(engine, "encrypt", ivOf(engine), bytes(32));
      const error = assertThrows(() => inOneOp(engine, "encrypt", ivOf(engine), bytes(length)), KcapiError);
      assertEquals(error.code, "EINVAL");
      assertEquals(inOneOp(engine, "encrypt", ivOf(engine), bytes(32)), expected);
    });
  }
});

test("ctr carries between the words of its counter, with chunks of any size", USERSPACE, () => {
  const key = bytes(32, 9);
  for (
    const digits of [
      "00000000000000000000000000000000",
      "000000000000000000000000fffffff0",
      "0000000000000000ffffffffffffff01",
      "00112233fffffffffffffffffffffffe",
      "ffffffffffffffffffffffffffffffff",
      "80000000800000007fffffff7fffff00",
    ]
  ) {
    const iv = fromHex(digits);
    const input = bytes(20_000, 3);
    const expected = reference("encrypt", "ctr(aes)", { key, iv }, input);
    for (const sizes of [[20_000], [4096, 16], [16, 4096], [1024, 1040], [1_008, 2_000]]) {
      for (const direction of ["encrypt", "decrypt"] as const) {
        const stream = openUserspace(parseAlgorithm("ctr(aes)"), Secret.from(key));
        stream.init(direction, iv);
        const output: Bytes[] = [];
        for (const piece of cut(input, sizes)) {
          stream.update([piece], false);
          output.push(stream.take(piece.length));
        }
        stream.close();
        assertEquals(concat(output), expected, `${digits}, ${sizes}`);
      }
    }
  }
});

test("the memory that ciphers share is zeroed at the end of a stream", USERSPACE, () => {
  const input = bytes(100_000, 4).subarray(3);
  for (const name of ["ctr(aes)", "cbc(aes)", "ofb(aes)", "cfb(aes)", "xts(aes)"]) {
    if (!userspaceNames().includes(name)) continue;
    const { ivSize, keySizes } = parseAlgorithm(name);
    const stream = openUserspace(parseAlgorithm(name), Secret.from(bytes(keySizes![0]!, 5)));
    stream.init("encrypt", bytes(ivSize!, 6));
    stream.update([input.subarray(0, 16), input.subarray(16, 96_016)], false);
    stream.close();
    for (const { bytes } of [inputMemory(), maskMemory()]) assert(bytes.every((byte) => byte === 0), name);
  }
});
