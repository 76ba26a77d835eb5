/**
 * Which cuts an algorithm bears: the classification by name (rule F5), and every algorithm that this system can open
 * against the same engine's own result in one op.
 */
import fc from "fast-check";
import { getCipherInfo, getCiphers } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { load } from "../ffi/mod.ts";
import { CipherHandle, DecryptionStream, EncryptionStream, KcapiError } from "../mod.ts";
import { CIPHERS, type Kind, parseAlgorithm } from "../src/algorithms.ts";
import { type Bytes, IovCursor } from "../src/bytes.ts";
import { namedCipher, opensslNames } from "../src/cipher_names.ts";
import type { Direction, Engine } from "../src/engines/engine.ts";
import { chooseEngine, openEngine } from "../src/engines/mod.ts";
import { userspaceNames } from "../src/engines/userspace.ts";
import { EngineStream } from "../src/cipher/engine_stream.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertThrows,
  engine,
  ownsKernel,
  spawn,
  takes,
  test,
} from "./support/deps.ts";
import { bytes, collect, concat, cut, opens, plain64, streamOf, WINDOW } from "./support/support.ts";
import { Secret } from "../src/secret.ts";

test("chooseEngine() returns the engine that openEngine() uses, and throws its error", () => {
  const algorithm = parseAlgorithm("ctr(aes)");
  for (const choice of [engine, "auto", "userspace"] as const) {
    const opened = openEngine(algorithm, Secret.alloc(16), choice);
    opened.close();
    // The second answer is the one that it keeps.
    assertEquals([0, 1].map(() => chooseEngine(algorithm, 16, choice)), [opened.name, opened.name]);
    for (const [name, size] of [["nosuch(aes)", 16], ["cbc(aes)", 15]] as const) {
      const other = parseAlgorithm(name);
      const expected = assertThrows(() => openEngine(other, Secret.alloc(size), choice), KcapiError);
      const error = assertThrows(() => chooseEngine(other, size, choice), KcapiError);
      assertEquals([error.code, error.message], [expected.code, expected.message]);
    }
  }
});

// ---- by name ----------------------------------------------------------------------------------------------------

const KINDS: Readonly<Record<Kind, readonly string[]>> = {
  stream: [
    ...["cbc(aes)", "ctr(aes)", "ecb(aes)", "cfb(aes)", "ofb(aes)", "pcbc(aes)", "lrw(aes)"],
    ...["cbc(des3_ede)", "cbc(camellia)", "ctr(serpent)", "lrw(twofish)", "ecb(arc4)", "pcbc(fcrypt)", "cfb(sm4)"],
    ...["cbc(aes-generic)", "lrw(ecb(aes-generic))", "ecb(arc4)-generic"],
    ...["cbc-aes-aesni", "__cbc-aes-aesni", "cryptd(__cbc-aes-aesni)", "simd(cryptd(ctr-aes-aesni))", "fpu(lrw(aes))"],
    ...["ctr-aes-neonbs", "ecb-serpent-avx2", "cbc-des3_ede-asm"],
  ],
  counter: ["chacha20", "chacha20-generic", "chacha20-simd", "xchacha20", "xchacha20-neon", "xchacha12"],
  sector: [
    ...["xts(aes)", "xts(camellia)", "xts-aes-aesni", "xts(ecb(aes-generic))", "cryptd(__xts-aes-aesni)"],
    ...["essiv(cbc(aes),sha256)", "essiv(cbc-aes-aesni,sha256-generic)", "cryptd(essiv(cbc(aes),sha256))"],
    ...["adiantum(xchacha12,aes)", "adiantum(xchacha20-simd,aes-generic,nhpoly1305-avx2)"],
    ...["hctr2(aes)", "hctr2_base(xctr(aes-generic),polyval-generic)"],
  ],
  message: [
    ...["cts(cbc(aes))", "cts-cbc-aes-ce", "cts(cbc-aes-aesni)", "kw(aes)", "xctr(aes)", "xctr-aes-aesni"],
    ...["rfc3686(ctr(aes))", "rfc3686-ctr-aes-caam", "rfc3686(ctr-aes-aesni)", "cryptd(rfc3686(ctr(aes)))"],
    // Nobody has measured these, whatever their names end in.
    ...["chacha12", "chacha8", "newmode(aes)", "newmode(cbc(aes))", "p8_aes_ctr", "qat_aes_cbc", "xts512-aes-hw"],
    ...["n5_rfc3686(ctr(aes))", "cbc2(aes)", "constructor(aes)", "toString"],
  ],
};

for (const [kind, names] of Object.entries(KINDS)) {
  test(`parseAlgorithm() gives ${names.length} names, such as ${names[0]}, the kind "${kind}"`, () => {
    for (const name of names) assertEquals([name, parseAlgorithm(name).kind], [name, kind]);
  });
}

test("parseAlgorithm() knows the sizes of nested templates and drivers", () => {
  const sizes = (name: string) => {
    const { chunkSize, blockSize, ivSize, keySizes } = parseAlgorithm(name);
    return [chunkSize, blockSize, ivSize, keySizes];
  };
  assertEquals(sizes("cbc(aes)"), [16, 16, 16, [16, 24, 32]]);
  assertEquals(sizes("cryptd(__cbc-aes-aesni)"), sizes("cbc(aes)"));
  assertEquals(sizes("ctr(des3_ede)"), [8, 1, 8, [24]]);
  assertEquals(sizes("xts-camellia-aesni-avx2"), [16, undefined, 16, [32, 48, 64]]);
  assertEquals(sizes("rfc3686(ctr(aes))"), [16, undefined, 8, [20, 28, 36]]);
  assertEquals(sizes("chacha20-simd"), [64, 1, 16, [32]]);
  assertEquals(sizes("xchacha12"), [64, 1, 32, [32]]);
  // Of an unknown one the engine has to tell; a chunk of 64 bytes is a multiple of every true one.
  assertEquals(sizes("newmode(aes)"), [64, undefined, undefined, undefined]);
});

// ---- what this system can open ----------------------------------------------------------------------------------

/** A key for each algorithm that this leg's engine can open. */
let openable: Promise<ReadonlyMap<string, Bytes>> | undefined;

function algorithms(): Promise<ReadonlyMap<string, Bytes>> {
  return openable ??= engine === "kernel"
    ? kernelAlgorithms()
    : Promise.resolve(new Map(userspaceNames().map((name) => [name, keyFor(name)!])));
}

/** From 0 bytes (cipher_null) to 56 (lrw, rfc3686 and xts over a cipher that takes any key take some of these, too). */
const KEY_SIZES = [32, 16, 24, 8, 64, 48, 36, 20, 40, 28, 56, 0];

/** A key that opens `name`; undefined if that takes none of these. */
function keyFor(name: string): Bytes | undefined {
  for (const size of KEY_SIZES) {
    const key = bytes(size, 7);
    try {
      openEngine(parseAlgorithm(name), Secret.from(key), engine).close();
      return key;
    } catch (error) {
      // Another length may do; no other error may hide an algorithm from this test.
      if (!(error instanceof KcapiError && error.code === "EINVAL")) throw error;
    }
  }
  return undefined;
}

/**
 * Whether the kernel has `name` and this module does not refuse it. Calls libkcapi, because this module's error is
 * slow.
 */
function exists(name: string): boolean {
  try {
    parseAlgorithm(name);
  } catch {
    return false;
  }
  const { call, cells } = load();
  const handle = new Uint8Array(new ArrayBuffer(8));
  const result = call.kcapi_cipher_init(handle, new TextEncoder().encode(`${name}\0`), 0);
  if (result === 0) call.kcapi_cipher_destroy(cells(handle.buffer).get(0));
  // ENOENT, ELIBBAD (it failed the kernel's own test); of a template EINVAL where it cannot be made of that, and EEXIST
  // where what it makes has another name. No other error may hide an algorithm from this test.
  const ofTemplates = name.includes("(") ? [-22, -17] : [];
  assert([0, -2, -80, ...ofTemplates].includes(result), `${name}: ${result}`);
  return result === 0;
}

const MODPROBE = "/proc/sys/kernel/modprobe";

/**
 * Every skcipher of this kernel: what is there by itself, and what its templates make of ciphers and of one another.
 */
async function kernelAlgorithms(): Promise<ReadonlyMap<string, Bytes>> {
  const found = new Map<string, Bytes>();
  const find = (name: string): boolean => {
    const key = found.get(name) ?? (exists(name) ? keyFor(name) : undefined);
    if (key) found.set(name, key);
    return key !== undefined;
  };
  find("ctr(aes)"); // loads what AF_ALG itself is made of
  const modprobe = readFileSync(MODPROBE, "utf8").trim();
  const { stdout } = await spawn([modprobe, "--showconfig"]);
  const aliases = [...stdout.matchAll(/^alias crypto[_-](\S+) (\S+)/gm)].map(([, name, module]) => [name!, module!]);
  // tests/kernel's guest is ours to change: load what there is at once, for each name that is missing would start a
  // modprobe, hundreds in all. Elsewhere the kernel loads what it is asked for, as for any user.
  if (ownsKernel) {
    await spawn([modprobe, "--all", "--quiet", ...new Set(aliases.map(([, module]) => module!))]);
    writeFileSync(MODPROBE, "\n");
  }
  try {
    const entries = registered();
    for (const { name } of entries) find(name);
    const known = new Set(entries.flatMap(({ name, driver }) => [name, driver, driver.replaceAll("-", "_")]));
    const templates = new Set([...BUILT_IN, ...aliases.map(([name]) => name!).filter((name) => !known.has(name))]);
    const ciphers = entries.filter(({ type }) => type === "cipher").map(({ name }) => name);
    /** Over any other block cipher, too, what works over AES. */
    const spread = (form: (cipher: string) => string) => find(form("aes")) && ciphers.forEach((c) => find(form(c)));
    for (const template of templates) spread((cipher) => `${template}(${cipher})`);
    const modes = [...templates].filter((template) => found.has(`${template}(aes)`));
    const streams = [...found.keys()].filter((name) => !name.includes("("));
    for (const template of templates) {
      if (modes.includes(template)) continue;
      for (const mode of modes) {
        spread((cipher) => `${template}(${mode}(${cipher}))`);
        spread((cipher) => `${template}(${mode}(${cipher}),sha256)`);
      }
      for (const stream of streams) spread((cipher) => `${template}(${stream},${cipher})`);
    }
  } finally {
    if (ownsKernel) writeFileSync(MODPROBE, `${modprobe}\n`);
  }
  return found;
}

/** Templates that may be no modules, and then have no alias; what others there are tell the aliases. */
const BUILT_IN = ["cbc", "ctr", "ecb", "cfb", "ofb", "pcbc", "lrw", "xts", "kw", "cts", "rfc3686", "essiv", "adiantum"];

interface Entry {
  readonly name: string;
  readonly driver: string;
  readonly type: string;
}

function registered(): Entry[] {
  return readFileSync("/proc/crypto", "utf8").split("\n\n").filter((text) => text.trim() !== "").map((text) => {
    const field = (name: string) => new RegExp(`^${name} *: (.*)$`, "m").exec(text)?.[1] ?? "";
    return { name: field("name"), driver: field("driver"), type: field("type") };
  });
}

const KERNEL = { engine: "kernel" } as const;

test("the search finds algorithms of each kind, and each mode that every kernel has", KERNEL, async () => {
  const found = await algorithms();
  for (
    const name of [
      ...["cbc(aes)", "ctr(aes)", "ecb(aes)", "lrw(aes)", "xts(aes)", "cts(cbc(aes))", "rfc3686(ctr(aes))", "chacha20"],
      ...["essiv(cbc(aes),sha256)", "adiantum(xchacha12,aes)", "xchacha20", "cbc(twofish)", "cbc(des3_ede)"],
    ]
  ) assert(found.has(name), `${name} was not found`);
  const kinds = new Set([...found.keys()].map((name) => parseAlgorithm(name).kind));
  assertEquals([...kinds].sort(), Object.keys(KINDS).sort());
});

test("parseAlgorithm() gives each driver of this kernel the properties of its algorithm", KERNEL, async () => {
  await algorithms();
  const ciphers = registered().filter(({ type }) => /^l?skcipher$/.test(type));
  assert(ciphers.length > 20);
  for (const { name, driver } of ciphers) {
    if (driver.length > 63) continue; // past what AF_ALG can be asked for
    const kind = parseAlgorithm(driver).kind;
    // A driver's name may tell nothing; then it is unsafe to continue.
    if (kind !== "message") assertEquals([driver, kind], [driver, parseAlgorithm(name).kind]);
  }
});

// ---- any cut, or an error ---------------------------------------------------------------------------------------

/** What the engine gives for the whole input in one op; undefined where it refuses it. */
function inOneOp(engine: Engine, direction: Direction, iv: Bytes | null, input: Bytes): Bytes | undefined {
  try {
    engine.init(direction, iv);
    engine.update([input], true);
    return engine.take(input.length);
  } catch (error) {
    assertInstanceOf(error, KcapiError);
    return undefined;
  }
}

interface Task {
  readonly name: string;
  readonly key: Bytes;
  readonly direction: Direction;
  readonly iv: Bytes | undefined;
  readonly input: Bytes;
  readonly cuts: readonly number[];
}

async function throughHandle({ name, key, direction, iv, input, cuts }: Task, maxBytes: number): Promise<Bytes> {
  using handle = CipherHandle.open(name, { key, engine });
  if (direction === "encrypt") handle.streamInitEnc(iv);
  else handle.streamInitDec(iv);
  const produce = async () => {
    for (const piece of cut(input, cuts)) await handle.streamUpdate(piece);
    await handle.streamUpdateLast();
  };
  const [output] = await Promise.all([collect(handle.streamOp({ maxBytes })), produce()]);
  return output;
}

function throughStream({ name, key, direction, iv, input, cuts }: Task, sectorSize?: number): Promise<Bytes> {
  const Stream = direction === "encrypt" ? EncryptionStream : DecryptionStream;
  const layout = sectorSize === undefined ? { iv } : { sectorSize, sector: 3 };
  const stream = new Stream(name, { key, engine, padding: "none", ...layout });
  return collect(streamOf(cut(input, cuts)).pipeThrough(stream));
}

/** The same bytes as `expected`; or, where that is undefined, an error. */
async function assertOutcome(what: string, actual: Promise<Bytes>, expected: Bytes | undefined): Promise<void> {
  if (expected) return assertEquals(await actual, expected, what);
  const error = await actual.then(() => undefined, (error) => error);
  assert(error instanceof KcapiError || error instanceof RangeError, `${what}: expected an error, got ${error}`);
}

const cutsOfAnySize = fc.array(fc.integer({ min: 1, max: 150 }), { minLength: 1, maxLength: 8 });

test("every algorithm gives the bytes of one op, or an error, for any split of its input", async () => {
  for (const [i, [name, key]] of [...await algorithms()].entries()) {
    if (!takes(i)) continue;
    for (const direction of ["encrypt", "decrypt"] as const) {
      // Of whole blocks and of sectors, whatever the algorithm; and of a length that few of them take.
      const property = fc.asyncProperty(fc.integer({ min: 1, max: 8 }), cutsOfAnySize, async (length, cuts) => {
        await assertCuts(name, key, direction, bytes(64 * length), cuts);
        await assertCuts(name, key, direction, bytes(64 * length + cuts[0]! % 61), cuts);
      });
      await fc.assert(property, { numRuns: 1 });
    }
  }
});

async function assertCuts(
  name: string,
  key: Bytes,
  direction: Direction,
  input: Bytes,
  cuts: readonly number[],
): Promise<void> {
  const one = openEngine(parseAlgorithm(name), Secret.from(key), engine);
  try {
    const iv = one.ivSize > 0 ? bytes(one.ivSize, 3) : undefined;
    const expected = inOneOp(one, direction, iv ?? null, input);
    // Key unwrapping alone authenticates, and refuses what was never wrapped.
    const takesAny = input.length % 64 === 0 && !(name.startsWith("kw(") && direction === "decrypt");
    assert(expected || !takesAny, `${name} refuses ${input.length} bytes in one op`);
    const task = { name, key, direction, iv, input, cuts };
    const what = `${name}, ${direction}, ${input.length} bytes in cuts of ${cuts}`;
    await assertOutcome(`CipherHandle: ${what}`, throughHandle(task, 64 + cuts[0]!), expected);
    await assertOutcome(`stream: ${what}`, throughStream(task), expected);
    if (parseAlgorithm(name).kind === "sector") await assertSectors(name, key, task, 64 + 16 * (cuts[0]! % 5));
  } finally {
    one.close();
  }
}

/** Each sector by an op of its own; the last one is short, where `sectorSize` does not divide the input. */
async function assertSectors(name: string, key: Bytes, task: Task, sectorSize: number): Promise<void> {
  const one = openEngine(parseAlgorithm(name), Secret.from(key), engine);
  try {
    const sectors: (Bytes | undefined)[] = [];
    for (const sector of cut(task.input, [sectorSize])) {
      const iv = new Uint8Array(one.ivSize);
      iv.set(plain64(3n + BigInt(sectors.length)).subarray(0, iv.length));
      const isShort = sector.length < sectorSize;
      sectors.push(isShort && name.startsWith("essiv(") ? undefined : inOneOp(one, task.direction, iv, sector));
    }
    const expected = sectors.includes(undefined) ? undefined : concat(sectors as Bytes[]);
    await assertOutcome(
      `sectors of ${sectorSize}: ${name}, ${task.direction}`,
      throughStream(task, sectorSize),
      expected,
    );
  } finally {
    one.close();
  }
}

// ---- the classification matters ---------------------------------------------------------------------------------

/** The core with an algorithm taken for one that carries on, in ops of 64 bytes. */
function naively(name: string, key: Bytes, iv: Bytes | null, input: Bytes): Bytes {
  const algorithm = parseAlgorithm(name);
  const flow = new EngineStream(openEngine(algorithm, Secret.from(key), engine), { ...algorithm, kind: "stream" });
  try {
    flow.start({ direction: "encrypt", iv });
    const output: Bytes[] = [];
    for (const piece of cut(input, [64])) {
      const last = piece.byteOffset + piece.length === input.byteOffset + input.length;
      flow.send(new IovCursor([piece]), last);
      output.push(flow.take(flow.ready));
    }
    return concat(output);
  } finally {
    flow.close();
  }
}

const NAIVE = ["chacha20", "xchacha20", "rfc3686(ctr(aes))", "xts(aes)", "essiv(cbc(aes),sha256)", "cts(cbc(aes))"];

for (const name of NAIVE) {
  test(`${name} with the wrong kind (stream) gives other bytes than one op`, KERNEL, async () => {
    const key = (await algorithms()).get(name)!;
    const one = openEngine(parseAlgorithm(name), Secret.from(key), engine);
    const iv = bytes(one.ivSize, 3);
    const input = bytes(192);
    const expected = inOneOp(one, "encrypt", iv, input)!;
    one.close();
    const naive = naively(name, key, iv, input);
    assertEquals(naive.length, expected.length);
    assertNotEquals(naive, expected);
    // The same cuts, for what the algorithm is.
    assertEquals(await throughHandle({ name, key, direction: "encrypt", iv, input, cuts: [64] }, 64), expected);
  });
}

test("chacha20 with the wrong kind (stream) uses its keystream twice", KERNEL, async () => {
  const key = (await algorithms()).get("chacha20")!;
  const keystream = naively("chacha20", key, bytes(16, 3), new Uint8Array(128));
  assertEquals(keystream.slice(0, 64), keystream.slice(64));
});

test("each algorithm that is not of the kind stream fails with that kind", KERNEL, async () => {
  for (const [name, key] of await algorithms()) {
    // Unknown, and so unsafe until proven: no rule says that it needs this.
    if (parseAlgorithm(name).kind === "stream" || name.includes("cipher_null")) continue;
    const one = openEngine(parseAlgorithm(name), Secret.from(key), engine);
    const iv = one.ivSize > 0 ? bytes(one.ivSize, 3) : null;
    const expected = inOneOp(one, "encrypt", iv, bytes(192))!;
    one.close();
    let naive: Bytes | undefined;
    try {
      naive = naively(name, key, iv, bytes(192));
    } catch (error) {
      assertInstanceOf(error, KcapiError);
    }
    assertNotEquals(naive, expected, name);
  }
});

test(
  "a message longer than the window fails with EMSGSIZE before any output, and the hint names an alternative",
  KERNEL,
  async () => {
    const names = ["xts(aes)", "essiv(cbc(aes),sha256)", "rfc3686(ctr(aes))", "cts(cbc(aes))"];
    if ((await algorithms()).has("kw(aes)")) names.push("kw(aes)"); // newer kernels lack it
    for (const name of names) {
      const key = (await algorithms()).get(name)!;
      using handle = CipherHandle.open(name, { key, engine });
      handle.streamInitEnc(bytes(handle.ivSize));
      const received = collect(handle.streamOp());
      const refusal = received.catch((error) => error);
      const error = await assertRejects(() => handle.streamUpdate(new Uint8Array(WINDOW + 64)), KcapiError);
      assertEquals(error.code, "EMSGSIZE");
      assert(error.hint?.includes(parseAlgorithm(name).kind === "sector" ? "sectorSize" : "ctr(aes)"), `${error.hint}`);
      assertEquals(await refusal, error);
    }
  },
);

// ---- the counter ------------------------------------------------------------------------------------------------

const COUNTERS = (engine === "kernel" ? ["chacha20", "xchacha20", "xchacha12"] : ["chacha20"])
  .filter((name) => engine === "kernel" || userspaceNames().includes(name));

/** An IV whose 32-bit block counter is `counter`. */
function ivAt(name: string, counter: number): Bytes {
  const { ivSize, counter: field } = parseAlgorithm(name);
  const iv = bytes(ivSize!, 3);
  new DataView(iv.buffer).setUint32(field!.offset, counter, true);
  return iv;
}

if (COUNTERS.includes("chacha20")) {
  test("chacha20 over three windows gives the bytes of the openssl command", async () => {
    const key = bytes(32, 7);
    const iv = ivAt("chacha20", 0xfffe);
    const input = bytes(3 * WINDOW + 1000);
    const { code, output, stderr } = await spawn(
      ["openssl", "enc", "-chacha20", "-K", key.toHex(), "-iv", iv.toHex()],
      { input },
    );
    assertEquals([code, stderr], [0, ""]);
    const task = { name: "chacha20", key, direction: "encrypt", iv, input, cuts: [64 * 1024, 17, 100_000] } as const;
    assertEquals(await throughStream(task), new Uint8Array(output));
    assertEquals(await throughHandle(task, 1000), new Uint8Array(output));
  });
}

for (const name of COUNTERS) {
  test(`${name} uses its counter up to the last block, and then fails with EOVERFLOW without a wrong byte`, async () => {
    const key = bytes(32, 7);
    const iv = ivAt(name, 2 ** 32 - 3);
    const input = bytes(192);
    const one = openEngine(parseAlgorithm(name), Secret.from(key), engine);
    const expected = inOneOp(one, "encrypt", iv, input)!;
    one.close();
    const task = { name, key, direction: "encrypt", iv, input, cuts: [50] } as const;
    assertEquals(await throughHandle(task, 64), expected);
    assertEquals(await throughStream(task), expected);

    using handle = CipherHandle.open(name, { key, engine });
    handle.streamInitEnc(iv);
    await handle.streamUpdate(input.subarray(0, 128));
    const output = [...await collectOnce(handle)];
    const error = await assertRejects(async () => {
      await handle.streamUpdate(input.subarray(128));
      output.push(...await collectOnce(handle));
      await handle.streamUpdateLast(new Uint8Array(1));
      output.push(...await collectOnce(handle));
    }, KcapiError);
    assertEquals(error.code, "EOVERFLOW");
    assertEquals(new Uint8Array(output), expected);

    const tooLong = { ...task, input: bytes(193) };
    assertEquals((await assertRejects(() => throughStream(tooLong), KcapiError)).code, "EOVERFLOW");
  });
}

async function collectOnce(handle: CipherHandle): Promise<Bytes> {
  const output = new Uint8Array(256);
  return output.slice(0, await handle.streamOpInto(output));
}

// ---- one key, several streams -----------------------------------------------------------------------------------

test("a second stream of a handle, and one of its reinit(), give the bytes of the first, or an error", async () => {
  for (const [name, key] of await algorithms()) {
    using handle = CipherHandle.open(name, { key, engine });
    const iv = handle.ivSize > 0 ? bytes(handle.ivSize, 3) : undefined;
    const run = async (on: CipherHandle) => {
      on.streamInitEnc(iv);
      await on.streamUpdateLast(bytes(128));
      return await collect(on.streamOp());
    };
    const first = await run(handle);
    const again = async () => {
      using other = handle.reinit();
      return await run(other);
    };
    for (const output of [run(handle), again()]) {
      const outcome = await output.catch((error) => error);
      // What keeps its state in the key (measured: arc4) must refuse; nothing else may.
      if (name.includes("arc4")) assertInstanceOf(outcome, KcapiError);
      else assertEquals(outcome, first, name);
    }
  }
});

const ARC4 = { engine: "kernel", needs: { "ecb(arc4)": opens("ecb(arc4)") } } as const;

test("ecb(arc4) gives the bytes of the openssl command, and a second stream of a handle is refused", ARC4, async () => {
  const key = bytes(16, 7);
  const input = bytes(100);
  const task = { name: "ecb(arc4)", key, direction: "encrypt", iv: undefined, input, cuts: [7] } as const;
  const output = await throughStream(task);
  assertEquals(await throughHandle(task, 64), output);
  const openssl = ["openssl", "enc", "-rc4", "-provider", "legacy", "-provider", "default", "-K", key.toHex()];
  const reference = await spawn(openssl, { input });
  if (reference.code === 0) assertEquals(output, new Uint8Array(reference.output)); // a build of openssl may lack it
  using handle = CipherHandle.open("ecb(arc4)", { key, engine });
  assertThrows(() => new EncryptionStream(handle, { padding: "none" }), KcapiError, "arc4");
});

test("parseAlgorithm() refuses unknown characters, AEADs, hashes and block ciphers without a mode", () => {
  for (const name of ["", " cbc(aes)", "cbc(aes)\0", "gcm(aes)", "sha256", "hmac(sha1)", "aes"]) {
    const error = assertThrows(() => parseAlgorithm(name));
    assert(error instanceof TypeError || error instanceof RangeError, `${JSON.stringify(name)}: ${error}`);
  }
});

test("parseAlgorithm() refuses OpenSSL's and WebCrypto's names with the kernel's name and the key's length", () => {
  const meant: Record<string, string> = {
    "aes-256-ctr": '"ctr(aes)", with a key of 32 bytes',
    "aes256": '"cbc(aes)", with a key of 32 bytes',
    "AES-128-XTS": '"xts(aes)", with a key of 32 bytes',
    "aria-192-cfb128": '"cfb(aria)", with a key of 24 bytes',
    "des3": '"cbc(des3_ede)", with a key of 24 bytes',
    "des-ede3": '"ecb(des3_ede)", with a key of 24 bytes',
    "des-ede3-ofb": '"ofb(des3_ede)", with a key of 24 bytes',
    "sm4-ctr": '"ctr(sm4)", with a key of 16 bytes',
    "bf-cbc": '"cbc(blowfish)", with a key of 16 bytes',
    "ChaCha20": '"chacha20", with a key of 32 bytes',
    "AES-CTR": "WebCrypto's name of a cipher: the kernel's is \"ctr(aes)\"",
    "AES-CBC": '"cbc(aes)"',
    "aes-256-cfb8": "which this module does not support",
  };
  for (const [name, expected] of Object.entries(meant)) {
    const error = assertThrows(() => parseAlgorithm(name), RangeError, expected);
    assert(error.message.startsWith(`"algorithm" ${name} is`) && !error.message.includes("modprobe"), error.message);
  }
});

test("the names of node:crypto's ciphers map to kernel ciphers with the same sizes", () => {
  for (const name of getCiphers()) {
    const { algorithm, keySize } = namedCipher(name) ?? {};
    if (algorithm === undefined) continue;
    const { keySizes, ivSize } = parseAlgorithm(algorithm);
    const { keyLength, ivLength = 0 } = getCipherInfo(name)!;
    assert(keySizes === undefined || keySizes.includes(keyLength), `${name}: ${keyLength}`);
    if (keySize !== undefined) assertEquals(keySize, keyLength, name);
    assertEquals(ivSize, name.endsWith("-ecb") ? 0 : ivLength, name); // Bun says 8 for bf-ecb
  }
});

test("the names in the table of OpenSSL's names are names of OpenSSL", {
  engine: "userspace",
}, async () => {
  const command = ["openssl", "list", "-cipher-algorithms", "-provider", "default", "-provider", "legacy"];
  const theirs = new Set((await spawn(command)).stdout.toLowerCase().match(/[\w-]+/g));
  const names = ["cbc", "cfb", "ctr", "ecb", "ofb", "xts", "gcm"]
    .flatMap((mode) => Object.keys(CIPHERS).map((cipher) => `${mode}(${cipher})`))
    .concat("chacha20").flatMap((algorithm) => opensslNames(algorithm).map((name) => [algorithm, name] as const));
  assert(names.length > 60, `${names.length}`);
  for (const [algorithm, name] of names) {
    assert(theirs.has(name), name);
    if (!name.endsWith("-gcm")) assertEquals(namedCipher(name)!.algorithm, algorithm);
  }
});

test("names of drivers are accepted, also if they look like another library's", () => {
  for (const name of ["cbc-aes-aesni", "adiantum(xchacha12-generic,aes-generic,nhpoly1305-neon)", "xts-aes-ce"]) {
    assertEquals(parseAlgorithm(name).name, name);
  }
});
