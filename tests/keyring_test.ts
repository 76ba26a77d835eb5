/**
 * Keys of the kernel's keyring: the same bytes as with the key itself, which never enters the process; and why a key
 * cannot be used, each cause provoked for real. `tests/kernel/matrix` runs this on kernels that take such keys (from
 * 6.2 on).
 */
import { randomBytes } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { spawn as spawnProcess } from "node:child_process";
import { Buffer } from "node:buffer";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { loadIfGranted } from "../ffi/mod.ts";
import {
  CipherHandle,
  type CipherStreamOptions,
  decrypt,
  DecryptionStream,
  encrypt,
  EncryptionStream,
  KcapiError,
  type KernelKey,
  probe,
  seal,
  WorkerPool,
} from "../mod.ts";
import { resolveKernelKey, serialOf } from "../src/keyring/syscalls.ts";
import type { Outcome } from "./children/keyring.ts";
import type { Task } from "./children/keyring_worker.ts";
import { WebWorker } from "./children/web_worker.ts";
import { runEach } from "./support/cli_support.ts";
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
  assertThrows,
  LIBRARY_FLAGS,
  openFiles,
  ownsKernel,
  runtimeArgv,
  spawn,
  tempDir,
  test,
  times,
} from "./support/deps.ts";
import {
  ALGORITHM,
  hasCipher,
  hasEncrypted,
  hasKeys,
  hasTrusted,
  isOld,
  isServed,
  keyctl,
  keySizeOf,
  keysWith,
  loadKey,
  makeEncryptedKey,
  newDescription,
  NO_KEYS,
} from "./support/keyring.ts";
import { interpose } from "./support/native_calls.ts";
import { findInMemory } from "./support/process_memory.ts";
import { filter, hasSeccomp, numbers, under } from "./support/seccomp.ts";
import { type Bytes, bytes, collect, collectGarbage, cut, streamOf } from "./support/support.ts";

const KEYS = { needs: { [NO_KEYS]: hasKeys } } as const;
const AF_ALG = { needs: { AF_ALG: hasCipher } } as const;
const SIZE = keySizeOf(ALGORITHM);
/** Calls that fail, each of which must have its own errno. */
const ERRORS = times(500, 2000);
const SECTORS = { sectorSize: 512 };

/** Keys for a cipher have no two equal halves. */
const newKey = (size = SIZE): Bytes => new Uint8Array(randomBytes(size));

/** What opening a cipher with a key fails with. */
function refusal(key: KernelKey, algorithm = ALGORITHM): KcapiError {
  return assertThrows(() => CipherHandle.open(algorithm, { key }).close(), KcapiError);
}

function assertRefused(key: KernelKey, code: string, ...hints: string[]): void {
  const error = refusal(key);
  assertEquals(error.code, code, error.message);
  for (const hint of hints) assertStringIncludes(error.hint ?? "", hint);
}

// ---- arguments ----

const WAYS: Record<string, (key: unknown, options?: object) => unknown> = {
  "CipherHandle.open": (key, options) => CipherHandle.open(ALGORITHM, { key, ...options } as never),
  EncryptionStream: (key, options) => new EncryptionStream(ALGORITHM, { key, ...SECTORS, ...options } as never),
  DecryptionStream: (key, options) => new DecryptionStream(ALGORITHM, { key, ...SECTORS, ...options } as never),
  encrypt: (key, options) => encrypt(ALGORITHM, { key, ...SECTORS, ...options } as never, bytes(512)),
  decrypt: (key, options) => decrypt(ALGORITHM, { key, ...SECTORS, ...options } as never, bytes(512)),
};

const description = "kcapi:x";
const BAD: [key: unknown, error: typeof TypeError, message: string][] = [
  [{ type: "logon" }, TypeError, '"key.description" expected a string, got undefined'],
  [{ description }, TypeError, '"key.type" expected "logon" or "user" or "encrypted" or "trusted", got undefined'],
  [{ type: "Logon", description }, TypeError, "got another string"],
  [{ type: ["logon"], description }, TypeError, "got an array"],
  [{ type: "toString", description }, TypeError, '"key.type"'],
  [{ type: "user", description: new String("x") }, TypeError, "got an object"],
  [{ type: "user", description: "" }, RangeError, "expected 1 to 4095 bytes, got 0"],
  [{ type: "user", description: "x".repeat(4096) }, RangeError, "got 4096"],
  [{ type: "user", description: "\u20ac".repeat(1366) }, RangeError, "got 4098"],
  [{ type: "user", description: "a\0b" }, TypeError, "without NUL"],
  [{ type: "user", description: "a\ud800" }, TypeError, "lone surrogates"],
  [{ serial: "1" }, TypeError, '"key.serial" expected a number, got string'],
  [{ serial: 1n }, TypeError, "got bigint"],
  [{ serial: null }, TypeError, "got null"],
  ...[0, -1, 1.5, NaN, Infinity, 2 ** 31].map((serial): [unknown, typeof TypeError, string] => {
    return [{ serial }, RangeError, `"key.serial" expected an integer from 1 to 2^31 - 1, got ${serial}`];
  }),
  [{ serial: 1, type: "user", description }, TypeError, "got both"],
  [{ serial: 1, description }, TypeError, "got both"],
  [{}, TypeError, '"key" expected a Uint8Array or other BufferSource, got an object'],
  [{ serial: undefined }, TypeError, "BufferSource"],
  [{ type: "secret", extractable: true }, TypeError, "BufferSource"], // a CryptoKey has such members
];

for (const [way, open] of Object.entries(WAYS)) {
  test(`${way} refuses invalid kernel keys, and the userspace engine for valid ones`, () => {
    for (const [key, type, message] of BAD) {
      const error = assertThrows(() => open(key), type, message);
      assert(!error.message.includes(description), error.message);
    }
    for (const key of [{ type: "user", description }, { serial: 1 }]) {
      assertThrows(
        () => open(key, { engine: "userspace" }),
        TypeError,
        '"engine" expected "auto" or "kernel"',
      );
    }
  });
}

test("bytes with properties of a kernel key are bytes, and each property of a key is read once", () => {
  const named = Object.assign(bytes(SIZE), { serial: 1, type: "user", description });
  using handle = CipherHandle.open(ALGORITHM, { key: named, engine: "userspace" });
  assertEquals(handle.engine, "userspace");
  const asked: string[] = [];
  const key = new Proxy({ type: "Nothing", description }, {
    get: (target, name) => (asked.push(String(name)), Reflect.get(target, name)),
  });
  assertThrows(() => CipherHandle.open(ALGORITHM, { key: key as unknown as KernelKey }), TypeError, "key.type");
  assertEquals(asked.sort(), ["description", "serial", "type"]);
});

test("sealed streams refuse a kernel key with the reason", () => {
  const key = { serial: 1 } as unknown as Bytes;
  assertThrows(() => seal({ key }, bytes(1)), TypeError, "sealed streams derive their keys in this process");
});

// ---- no falling back ----

for (const algorithm of [ALGORITHM, "ctr(aes)"]) {
  test(
    `without ${algorithm} in AF_ALG, auto with a kernel key fails like the kernel engine`,
    { needs: { [`an AF_ALG without ${algorithm}`]: !isServed(algorithm) } },
    async () => {
      const key = bytes(keySizeOf(algorithm));
      const expected = assertThrows(() => CipherHandle.open(algorithm, { key, engine: "kernel" }), KcapiError);
      const { code, operation, hint } = refusal({ serial: 1 }, algorithm);
      assertEquals([code, operation, hint], [expected.code, expected.operation, expected.hint]);
      const sector = algorithm === ALGORITHM ? SECTORS : { iv: bytes(16) };
      const iterable = encrypt(algorithm, { key: { serial: 1 }, ...sector }, bytes(512));
      assertEquals((await assertRejects(() => iterable.next(), KcapiError)).code, code);
    },
  );
}

test(
  "before Linux 6.2 any kernel key is ENOPROTOOPT, and probe() reports that",
  { needs: { "AF_ALG before Linux 6.2": hasCipher && isOld } },
  async () => {
    for (const key of [{ serial: 1 }, { type: "user", description } as const]) {
      assertRefused(key, "ENOPROTOOPT", "older than Linux 6.2");
    }
    const { keyring, problems } = probe();
    assertEquals(keyring, "ENOPROTOOPT");
    const { cause } = problems.find(({ what }) => what.includes("keyring"))!;
    assertStringIncludes(cause, "Linux 6.2");
    await until(() => keysWith("kcapi-streams:probe").length === 0); // the kernel collects keys when it likes
  },
);

// ---- faults that cannot be provoked ----

test(
  "a libkcapi before 1.1.0, or an unexpected descriptor, is EOPNOTSUPP, and no key is set",
  AF_ALG,
  () => {
    const set: unknown[] = [];
    const SO_DOMAIN = 39;
    const faults: Record<string, Parameters<typeof interpose>[0]> = {
      "an old version": () => ({ kcapi_version: () => 1_000_200 }),
      "a socket of another family": (real) => ({
        getsockopt(socket, level, option, value, length) {
          const result = real.getsockopt(socket, level, option, value, length);
          if (option === SO_DOMAIN) value![0] = 2; // AF_INET
          return result;
        },
      }),
      "no socket": (real) => ({
        getsockopt: (socket, level, option, value, length) =>
          option === SO_DOMAIN ? -1 : real.getsockopt(socket, level, option, value, length),
      }),
    };
    for (const [what, fault] of Object.entries(faults)) {
      using _ = interpose((real) => ({ ...fault(real), setsockopt: (...args) => set.push(args) }));
      const error = refusal({ serial: 1 });
      assertEquals([error.code, set], ["EOPNOTSUPP", []], what);
      assertStringIncludes(error.hint ?? "", "libkcapi 1.1.0");
    }
  },
);

const library = loadIfGranted();
const hasLibrary = !(library instanceof KcapiError);
const ABSENT = { type: "user", description: newDescription() } as const;

/** request_key(2), on x86-64 and arm64. */
const REQUEST_KEY = [249, 218];

/** Searches for a key that is not there. */
function searchAbsent(): string {
  assert(hasLibrary);
  return assertThrows(() => serialOf(library, ABSENT), KcapiError).code;
}

const canSearch = hasLibrary && searchAbsent() === "ENOKEY";
const SEARCH = { needs: { "libkcapi, and request_key(2), which containers block": canSearch } } as const;

test(
  "an errno counts if it comes twice, so that an errno of the runtime is not used",
  SEARCH,
  () => {
    assert(hasLibrary);
    for (let disturbed = 0; disturbed < 4; disturbed++) {
      let reads = 0;
      let searches = 0;
      using _ = interpose((real) => ({
        syscall(...args) {
          if (REQUEST_KEY.includes(Number(args[0]))) searches++; // other searches are in the session keyring
          return real.syscall(...args);
        },
        memmove(to, from, length) {
          const result = real.memmove(to, from, length);
          if (Number(length) === 4 && reads++ < disturbed) to![0] = disturbed + reads; // another errno, and another
          return result;
        },
      }));
      assertEquals([searchAbsent(), searches], ["ENOKEY", disturbed + 2]);
    }
  },
);

test(
  `an errno is the right one ${ERRORS} times, while the runtime collects garbage, compiles and opens files`,
  SEARCH,
  async () => {
    const garbage: unknown[] = [];
    for (let i = 0; i < ERRORS; i++) {
      if (i % (ERRORS / 4) === 0) await collectGarbage();
      garbage.push(new Uint8Array(50_000), { i }, `${i}`);
      if (garbage.length > 300) garbage.splice(0);
      assertThrows(() => readFileSync("/nonexistent/file")); // leaves ENOENT
      assertEquals(searchAbsent(), "ENOKEY");
    }
  },
);

// ---- the same bytes ----

type Options = Omit<CipherStreamOptions, "key" | "engine">;

const MODES: [algorithm: string, kind: string, options: Options, length: number][] = [
  ["ctr(aes)", "stream", { iv: bytes(16) }, 300_001],
  ["cbc(aes)", "stream", { iv: bytes(16), padding: "pkcs7" }, 300_001],
  ["cbc(aes)", "stream", { iv: bytes(16), padding: "none" }, 160_000],
  ["ecb(aes)", "stream", { padding: "pkcs7" }, 70_001],
  ["cbc(camellia)", "stream", { iv: bytes(16) }, 70_001],
  ["chacha20", "counter", { iv: bytes(16) }, 300_001],
  ["xts(aes)", "sector", { sectorSize: 4096, sector: 7 }, 70 * 4096],
  ["xts(aes)", "message", { iv: bytes(16) }, 100_001],
  ["adiantum(xchacha20,aes)", "sector", { sectorSize: 4096 }, 9 * 4096],
  ["cts(cbc(aes))", "message", { iv: bytes(16) }, 100_001],
  ["rfc3686(ctr(aes))", "message", { iv: bytes(8) }, 100_001],
];

/** What comes out in every way there is. */
async function outputsOf(
  algorithm: string,
  key: Bytes | KernelKey,
  options: Options,
  input: Bytes,
): Promise<Record<string, Bytes>> {
  const pieces = () => streamOf(cut(input, [17, 65_529, 7, 130_000]));
  const all = { ...options, key };
  const stream = new EncryptionStream(algorithm, all);
  assertEquals(stream.engine, "kernel");
  const ciphertext = await collect(pieces().pipeThrough(stream));
  using handle = CipherHandle.open(algorithm, { key });
  using other = handle.reinit();
  const outputs: Record<string, Bytes> = {
    EncryptionStream: ciphertext,
    DecryptionStream: await collect(streamOf([ciphertext]).pipeThrough(new DecryptionStream(algorithm, all))),
    encrypt: await collect(encrypt(algorithm, { ...all, inPlace: true }, cut(input, [100_000], { copied: true }))),
    decrypt: await collect(decrypt(algorithm, all, ciphertext)),
    "a stream on a handle": await collect(pieces().pipeThrough(new EncryptionStream(handle, options))),
    "a stream on its reinit": await collect(streamOf([ciphertext]).pipeThrough(new DecryptionStream(other, options))),
  };
  if (options.sectorSize === undefined && options.padding !== "pkcs7" && algorithm !== "cbc(camellia)") {
    other.streamInitEnc(options.iv);
    const send = async () => {
      for (const piece of cut(input, [50_000])) await other.streamUpdate(piece);
      await other.streamUpdateLast();
    };
    [outputs.streamOp] = await Promise.all([collect(other.streamOp()), send()]);
  }
  return outputs;
}

for (const [algorithm, kind, options, length] of MODES) {
  const what = [kind, options.padding, options.sectorSize && "in sectors"].filter(Boolean).join(", ");
  test(
    `${algorithm} (${what}) gives the same bytes as with the key's bytes, through each API`,
    { needs: { [NO_KEYS]: hasKeys, [algorithm]: isServed(algorithm) } },
    async () => {
      const payload = newKey(keySizeOf(algorithm));
      await using key = await loadKey("logon", payload);
      const input = bytes(length);
      const expected = await outputsOf(algorithm, payload, options, input);
      assertEquals([expected.decrypt, expected.DecryptionStream], [input, input]);
      for (const named of [key.byName, key.bySerial]) {
        const outputs = await outputsOf(algorithm, named, options, input);
        assertEquals(Object.keys(outputs), Object.keys(expected));
        for (const [way, output] of Object.entries(outputs)) assertEquals(output, expected[way]!, way);
      }
    },
  );
}

const encrypted = (key: Bytes | KernelKey) => collect(encrypt(ALGORITHM, { key, ...SECTORS }, bytes(5120)));

async function assertSameKey({ byName, bySerial }: { byName: KernelKey; bySerial: KernelKey }, payload: Bytes) {
  const expected = await encrypted(payload);
  assertEquals(await encrypted(byName), expected);
  assertEquals(await encrypted(bySerial), expected);
}

test(
  "keys of the types user and logon give the bytes of the loaded key",
  KEYS,
  async () => {
    for (const type of ["user", "logon"] as const) {
      const payload = newKey();
      await using key = await loadKey(type, payload);
      await assertSameKey(key, payload);
      const { code } = await spawn(["keyctl", "pipe", `${key.serial}`]);
      assertEquals(code === 0, type === "user");
    }
  },
);

test(
  "a key of the type encrypted gives the bytes of the key that its master key decrypts",
  { needs: { [`${NO_KEYS}, also of the type encrypted`]: hasEncrypted } },
  async () => {
    await using key = await makeEncryptedKey(SIZE);
    await assertSameKey(key, key.payload);
  },
);

test(
  "a key of the type trusted encrypts what it decrypts",
  { needs: { [`${NO_KEYS}, also of the type trusted (a TPM)`]: hasTrusted } },
  async () => {
    const name = newDescription();
    const serial = Number(await keyctl(["add", "trusted", name, `new ${SIZE}`, "@u"]));
    const keys: KernelKey[] = [{ serial }, { type: "trusted", description: name }];
    const [one, two] = await Promise.all(keys.map(encrypted));
    assertEquals(one, two);
    assertEquals(await collect(decrypt(ALGORITHM, { key: { serial }, ...SECTORS }, one!)), bytes(5120));
    await keyctl(["unlink", `${serial}`, "@u"]);
  },
);

test("resolveKernelKey() returns the serial, and the serial finds the key", KEYS, async () => {
  await using key = await loadKey("logon", newKey());
  assertEquals([resolveKernelKey(key.byName), resolveKernelKey(key.bySerial)], [key.serial, key.serial]);
});

test("descriptions of 4,095 bytes and outside of ASCII are found", KEYS, async () => {
  for (const long of [`${newDescription()}${"\u20ac".repeat(1400)}`, `${newDescription()}\u20ac \ud83d\ude00`]) {
    const exact = Buffer.from(long).subarray(0, 4095).toString().replace(/\ufffd+$/, "");
    const name = exact + "x".repeat(long.length > 1000 ? 4095 - Buffer.byteLength(exact) : 0);
    const serial = await keyctl(["padd", "user", name, "@u"], newKey());
    assertEquals(resolveKernelKey({ type: "user", description: name }), Number(serial));
    await keyctl(["unlink", serial, "@u"]);
  }
});

// ---- each failure, for real ----

test("ENOKEY: no key with this name, with this serial, or in another session", KEYS, async () => {
  await using key = await loadKey("logon", newKey());
  const { description } = key.byName as { description: string };
  assertRefused({ type: "logon", description: newDescription() }, "ENOKEY", "session keyring", "keyctl link @u @s");
  assertRefused({ type: "user", description }, "ENOKEY", "KeyringMode=shared");
  await using gone = await loadKey("user", newKey());
  await keyctl(["unlink", `${gone.serial}`, "@u"]);
  await until(() => refusal(gone.bySerial).code === "ENOKEY");
  assertRefused(gone.bySerial, "ENOKEY", "/proc/keys");
  const { code, hint } = await outcome(["keyctl", "session", "-"], key.byName);
  assertEquals(code, "ENOKEY");
  assertStringIncludes(hint ?? "", "keyctl link @u @s");
});

test("EACCES: a key that this process may not search, by name and by serial", KEYS, async () => {
  probe(); // gives the thread a keyring, which hides the reason from request_key(2)
  for (const type of ["user", "logon"] as const) {
    await using key = await loadKey(type, newKey());
    await keyctl(["setperm", `${key.serial}`, "0x21210000"]); // its possessor may see it, and set this anew
    for (const each of [key.byName, key.bySerial]) assertRefused(each, "EACCES", "permission to search");
    await keyctl(["setperm", `${key.serial}`, "0x3f080000"]);
    for (const each of [key.byName, key.bySerial]) CipherHandle.open(ALGORITHM, { key: each }).close();
  }
});

test(
  "EKEYEXPIRED and EKEYREVOKED: an expired key is not found by name, a revoked one is",
  KEYS,
  async () => {
    await using expired = await loadKey("logon", newKey());
    await keyctl(["timeout", `${expired.serial}`, "1"]);
    await until(() => {
      try {
        CipherHandle.open(ALGORITHM, { key: expired.bySerial }).close();
        return false;
      } catch {
        return true;
      }
    });
    assertRefused(expired.bySerial, "EKEYEXPIRED", "load it again");
    assertRefused(expired.byName, "ENOKEY", "has expired"); // request_key(2) passes it over
    await using revoked = await loadKey("logon", newKey());
    await keyctl(["revoke", `${revoked.serial}`]);
    for (const each of [revoked.byName, revoked.bySerial]) assertRefused(each, "EKEYREVOKED", "revoked");
  },
);

test(
  "EINVAL: a key of a wrong length is refused only when it is set, and the hint has the right lengths",
  KEYS,
  async () => {
    await using key = await loadKey("logon", newKey(33));
    assertRefused(key.bySerial, "EINVAL", "this process cannot check that", "32 or 48 or 64 bytes");
  },
);

test("ENOPROTOOPT: a keyring in place of a key, and the hint does not name the kernel as the cause", KEYS, async () => {
  const serial = Number(await keyctl(["newring", newDescription(), "@u"]));
  const { code, hint = "" } = refusal({ serial });
  await keyctl(["unlink", `${serial}`, "@u"]);
  assertEquals(code, "ENOPROTOOPT");
  assertStringIncludes(hint, "not a key of the type logon");
  assert(!hint.includes("6.2"), hint);
});

/** What a process of its own comes to with a key, started by a launcher. */
async function outcome(launcher: string[], key: KernelKey): Promise<Outcome> {
  const child = fileURLToPath(new URL("./children/keyring.ts", import.meta.url));
  const command = [...launcher, ...runtimeArgv, child, ALGORITHM, JSON.stringify(key)];
  const { code, stdout, stderr } = await spawn(command);
  assertEquals(code, 0, `${stdout}${stderr}`);
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

const ERRNO = { EPERM: 1, ENOSYS: 38 };

test(
  "EPERM and ENOSYS of request_key and add_key, as in containers: the hint names the filter, and a serial works",
  { needs: { [NO_KEYS]: hasKeys, seccomp: hasSeccomp } },
  async () => {
    await using key = await loadKey("logon", newKey());
    for (const [code, errno] of Object.entries(ERRNO)) {
      const refused = under(filter(numbers!.request_key, errno));
      const byName = await outcome(refused, key.byName);
      assertEquals([byName.code, byName.operation, byName.probed], [code, "request_key", "works"]);
      assertStringIncludes(byName.hint ?? "", "seccomp filter refuses request_key");
      assertEquals((await outcome(refused, key.bySerial)).engine, "kernel");
      const { engine, probed, problem } = await outcome(under(filter(numbers!.add_key, errno)), key.byName);
      assertEquals([engine, probed], ["kernel", code]);
      assertStringIncludes(problem ?? "", "seccomp filter refuses add_key");
    }
  },
);

async function until(condition: () => boolean): Promise<void> {
  for (const end = Date.now() + 60_000; !condition();) {
    assert(Date.now() < end, `waited in vain for ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

// ---- what becomes of handles ----

test(
  "streams and reinits of a key that is revoked and unlinked continue, and new handles fail",
  KEYS,
  async () => {
    const payload = newKey();
    const key = await loadKey("logon", payload);
    using handle = CipherHandle.open(ALGORITHM, { key: key.byName });
    const input = bytes(100 * 5120);
    const stream = new EncryptionStream(ALGORITHM, { key: key.byName, ...SECTORS });
    const halves = async function* () {
      yield input.subarray(0, 50 * 5120);
      await keyctl(["revoke", `${key.serial}`]);
      yield input.subarray(50 * 5120);
    };
    const output = collect(encrypt(ALGORITHM, { key: key.byName, ...SECTORS }, halves()));
    const streamed = collect(streamOf(cut(input, [5120])).pipeThrough(stream));
    const expected = await collect(encrypt(ALGORITHM, { key: payload, ...SECTORS }, input));
    assertEquals([await output, await streamed], [expected, expected]);
    assertEquals(refusal(key.byName).code, "EKEYREVOKED");
    await key[Symbol.asyncDispose]();
    assertEquals(await collect(streamOf([input]).pipeThrough(new EncryptionStream(handle, SECTORS))), expected);
  },
);

test("1,000 handles, and 1,000 refused ones, leave no descriptor open", KEYS, async () => {
  await using key = await loadKey("logon", newKey());
  await using short = await loadKey("logon", newKey(3));
  CipherHandle.open(ALGORITHM, { key: key.byName }).close();
  const files = openFiles();
  const handles: CipherHandle[] = [];
  for (let i = 0; i < 250; i++) {
    for (const each of [key.byName, key.bySerial]) {
      const handle = CipherHandle.open(ALGORITHM, { key: each });
      handles.push(handle, handle.reinit());
    }
    for (const each of [short.byName, short.bySerial, ABSENT, { serial: 1 }]) refusal(each);
  }
  assertEquals([handles.length, openFiles() > files + 1000], [1000, true]);
  for (const handle of handles) handle.close();
  assert(openFiles() <= files); // fewer where the runtime closed its own of earlier
});

test("a Worker encrypts with a key by name, and by serial", KEYS, async () => {
  const payload = newKey();
  await using key = await loadKey("logon", payload);
  const input = bytes(100 * 512);
  const expected = await collect(encrypt(ALGORITHM, { key: payload, ...SECTORS }, input));
  for (const each of [key.byName, { serial: resolveKernelKey(key.byName) }]) {
    const worker = new WebWorker(new URL("./children/keyring_worker.ts", import.meta.url), { type: "module" });
    const output = await new Promise<Bytes>((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = (event) => (event.preventDefault(), reject(new Error(event.message)));
      worker.postMessage({ algorithm: ALGORITHM, key: each, input } satisfies Task);
    });
    worker.terminate();
    assertEquals(output, expected);
  }
});

test(
  "with --allow-ffi=PATH and no other permission Deno finds keys, uses them and tries the keyring",
  { runtime: "deno", needs: { [NO_KEYS]: hasKeys } },
  async () => {
    assert(hasLibrary);
    await using key = await loadKey("logon", newKey());
    const child = fileURLToPath(new URL("./children/keyring.ts", import.meta.url));
    const args = [
      "run",
      "--no-check",
      "--no-prompt",
      `--allow-ffi=${library.path}`,
      ...LIBRARY_FLAGS,
      child,
      ALGORITHM,
    ];
    for (const each of [key.byName, key.bySerial]) {
      // By exec of a shell: node:child_process, where it starts Deno itself, would add `-A`.
      const command = ["sh", "-c", 'exec "$@"', "sh", runtimeArgv[0]!, ...args, JSON.stringify(each)];
      const { code, stdout, stderr } = await spawn(command);
      assertEquals([code, stderr], [0, ""]);
      assertEquals(JSON.parse(stdout), { engine: "kernel", probed: "works" });
    }
  },
);

/** Those whose parts stand alone, which all Workers do, and one whose parts go on from each other, which one does. */
const SHARED: [algorithm: string, options: Options][] = [
  ["xts(aes)", SECTORS],
  ["ctr(aes)", { iv: bytes(16) }],
  ["cbc(aes)", { iv: bytes(16) }],
];

for (const [algorithm, options] of SHARED) {
  test(
    `a WorkerPool runs ${algorithm} with a kernel key, which this thread finds`,
    { needs: { [NO_KEYS]: hasKeys, [algorithm]: isServed(algorithm) } },
    async () => {
      const payload = newKey(keySizeOf(algorithm));
      await using key = await loadKey("logon", payload);
      const input = bytes(512 * 3000);
      const expected = await collect(encrypt(algorithm, { ...options, key: payload }, input));
      using pool = new WorkerPool(2);
      for (const each of [key.byName, key.bySerial]) {
        const all = { ...options, key: each, pool };
        const stream = new EncryptionStream(algorithm, all);
        assertEquals(stream.engine, "kernel");
        assertEquals(await collect(streamOf(cut(input, [100_000])).pipeThrough(stream)), expected);
        const back = streamOf([expected]).pipeThrough(new DecryptionStream(algorithm, all));
        assertEquals(await collect(back), input);
      }
      const absent = { ...options, key: ABSENT, pool };
      assertEquals(assertThrows(() => new EncryptionStream(algorithm, absent), KcapiError).code, "ENOKEY");
    },
  );
}

// ---- probe() and the tool ----

test("probe() tries a key, reports that it works, and leaves no key", KEYS, async () => {
  using spy = spyOnSyscalls();
  const report = probe();
  assertEquals([report.keyring, report.problems.filter(({ what }) => what.includes("keyring"))], ["works", []]);
  assertEquals(spy.numbers.length, 2); // add_key and keyctl
  // The kernel collects it a moment later.
  await until(() => keysWith("kcapi-streams:probe").length === 0);
});

function spyOnSyscalls(): { numbers: number[] } & Disposable {
  const numbers: number[] = [];
  const library = interpose((real) => ({
    syscall: (...args) => (numbers.push(Number(args[0])), real.syscall(...args)),
  }));
  return { numbers, [Symbol.dispose]: () => library[Symbol.dispose]() };
}

test(
  "the tool encrypts with --kernel-key and decrypts with --key-serial, with the bytes of --key-file",
  KEYS,
  async () => {
    const directory = tempDir();
    const payload = newKey();
    await using key = await loadKey("logon", payload);
    const { description } = key.byName as { description: string };
    writeFileSync(join(directory, "key"), payload);
    writeFileSync(join(directory, "in"), bytes(5120));
    const files = (from: string, to: string) => ["-c", ALGORITHM, "--sector-size", "512", "-i", from, "-o", to];
    const results = await runEach([
      ["encrypt", ...files("in", "one"), "--kernel-key", `logon:${description}`],
      ["encrypt", ...files("in", "two"), "--key-file", "key"],
      ["decrypt", ...files("two", "back"), "--key-serial", `${key.serial}`],
      ["decrypt", ...files("two", "not"), "--key-serial", "1"],
      ["doctor"],
    ], directory);
    assertEquals(results.map(({ code }) => code), [0, 0, 0, 4, 0], results.map(({ stderr }) => stderr).join());
    const read = (name: string) => new Uint8Array(readFileSync(join(directory, name)));
    assertEquals(read("one"), read("two"));
    assertEquals(read("back"), bytes(5120));
    assertStringIncludes(results[3]!.stderr, "ENOKEY");
    assert(/^kernel's keyring: +works$/m.test(results[4]!.stdout), results[4]!.stdout);
  },
);

test("the tool refuses wrong --kernel-key and --key-serial and a second key, and never shows a value", async () => {
  const encrypt = (...args: string[]) => ["encrypt", "-c", "ctr(aes)", "--iv-prefix", ...args];
  const cases: [string[], string][] = [
    [encrypt("--kernel-key", "logon:hunter2", "--key-serial", "7"), "--kernel-key and --key-serial exclude each other"],
    [encrypt("--kernel-key", "logon:hunter2", "--key-file", "x"), "--key-file and --kernel-key exclude each other"],
    [encrypt("--key-serial", "7", "--passphrase-fd", "3"), "--key-serial and --passphrase-fd exclude each other"],
    [encrypt("--kernel-key", "hunter2"), "--kernel-key expects logon, user, encrypted or trusted"],
    [encrypt("--kernel-key", "keyring:hunter2"), "--kernel-key expects logon"],
    [encrypt("--kernel-key", "user:"), "--kernel-key expects logon"],
    [encrypt("--key-serial", "0"), "--key-serial expects a whole number from 1"],
    [encrypt("--key-serial", "0x10"), "--key-serial expects a whole number"],
    [
      encrypt("--kernel-key", "user:hunter2", "--engine", "userspace"),
      '"engine" expected "auto" or "kernel"',
    ],
    [encrypt("--kernel-key", "user:hunter2", "--iter", "9"), "--iter is for passphrases"],
    [encrypt("--kernel-key", "user:hunter2", "-c", "aes-128-ctr").toSpliced(1, 2), "use ctr(aes), not aes-128-ctr"],
    [["seal", "--kernel-key", "user:hunter2"], "unknown option"],
  ];
  const results = await runEach(cases.map(([args]) => args), tempDir());
  results.forEach(({ code, stderr }, i) => {
    assertEquals(code, 2, stderr);
    assertStringIncludes(stderr, cases[i]![1]);
    assert(!stderr.includes("hunter2"), stderr);
  });
});

// ---- nothing of the key in the process ----

/** Runs `children/keyed.ts`, and searches its memory for `needle` in the midst of its work. */
async function searchChild(args: string[], needle: Uint8Array): Promise<{ found: number; searched: number }> {
  const child = fileURLToPath(new URL("./children/keyed.ts", import.meta.url));
  const [program, ...rest] = [...runtimeArgv, child, ...args];
  const running = spawnProcess(program!, rest, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = new Promise((resolve) => running.on("close", resolve));
  const lines = createInterface(running.stdout)[Symbol.asyncIterator]();
  try {
    assertEquals((await lines.next()).value, "ready");
    const result = findInMemory(running.pid!, needle);
    running.stdin.end();
    assertEquals((await lines.next()).value, "done");
    return result;
  } finally {
    running.kill("SIGKILL");
    await ended;
  }
}

test(
  "a process that streams with a logon key does not have the key in its memory, and one with the bytes has",
  KEYS,
  async () => {
    // Another process makes and loads the key. It is never in the process that is searched, nor in its parent.
    const file = join(tempDir(), "key");
    const name = newDescription();
    const make = 'umask 077; head -c 64 /dev/urandom >"$1" && keyctl padd logon "$2" @u <"$1"';
    const { code, stdout } = await spawn(["sh", "-c", make, "sh", file, name]);
    assertEquals(code, 0);
    const needle = new Uint8Array(readFileSync(file));
    const byKernel = await searchChild(["kernel", name], needle);
    const control = await searchChild(["bytes", file], needle);
    await keyctl(["unlink", stdout.trim(), "@u"]);
    assert(control.found > 0, "the control has the key, and it was found");
    assert(
      byKernel.searched > control.searched / 2,
      `${byKernel.searched} and ${control.searched} bytes were searched`,
    );
    assertEquals(byKernel.found, 0);
  },
);

// ---- the documentation ----

const EXAMPLE = fileURLToPath(new URL("../examples/keyring.ts", import.meta.url));

test(
  "examples/keyring.ts decrypts sectors with a loaded key, and says what to do without one",
  KEYS,
  async () => {
    await using key = await loadKey("logon", newKey());
    const { description } = key.byName as { description: string };
    const { code, stdout, stderr } = await spawn([...runtimeArgv, EXAMPLE, description]);
    assertEquals([code, stderr], [0, ""]);
    assertStringIncludes(stdout, "65536 bytes by the engine kernel\nthe bytes came back");
    const without = await spawn([...runtimeArgv, EXAMPLE, newDescription()]);
    assertEquals([without.code, without.stdout], [1, ""]);
    assertStringIncludes(without.stderr, "ENOKEY");
    assertStringIncludes(without.stderr, "keyctl padd logon DESCRIPTION @u");
  },
);

test(
  "with the permissions of docs/keyring.md, a process can use a logon key, but not read, change or revoke it",
  KEYS,
  async () => {
    await using key = await loadKey("logon", newKey());
    await keyctl(["setperm", `${key.serial}`, "0x08080000"]);
    for (const each of [key.byName, key.bySerial]) CipherHandle.open(ALGORITHM, { key: each }).close();
    for (const command of ["describe", "pipe", "revoke", "timeout 9", "setperm 0x3f3f0000", "update x"]) {
      const [name, ...rest] = command.split(" ");
      const { code, stderr } = await spawn(["keyctl", name!, `${key.serial}`, ...rest]);
      assert(code !== 0 && /denied|not supported/.test(stderr), `${command}: ${code} ${stderr}`);
    }
  },
);

test(
  "the user of a service finds the key that root loads from a file that the user cannot read, as in docs/keyring.md",
  { needs: { [NO_KEYS]: hasKeys, "root in a guest": ownsKernel } },
  async () => {
    const directory = tempDir();
    const file = join(directory, "backup.key");
    const description = newDescription();
    writeFileSync(file, newKey(), { mode: 0o600 });
    const drop = "setpriv --reuid=65534 --regid=65534 --clear-groups";
    const load = `exec ${drop} keyctl padd logon ${description} @u <${file}`;
    assertEquals((await spawn(["sh", "-c", load])).code, 0);
    const read = await spawn(["sh", "-c", `${drop} cat ${file}`]);
    assert(read.code !== 0 && read.stdout === "");
    // As KeyringMode=shared has it: a session of its own, with the user's keyring in it.
    await spawn(["chmod", "-R", "a+rwx", directory]);
    await spawn(["chmod", "600", file]);
    const env = { HOME: directory, DENO_DIR: join(directory, "deno"), TMPDIR: directory, KCAPI_RESULTS: undefined };
    const start = (link: string) =>
      spawn(
        [
          "keyctl",
          "session",
          "-",
          ...drop.split(" "),
          "sh",
          "-c",
          `${link} "$@"`,
          "sh",
          ...runtimeArgv,
          EXAMPLE,
          description,
        ],
        { env },
      );
    const shared = await start("keyctl link @u @s &&");
    assertEquals(shared.code, 0, shared.stderr);
    assertStringIncludes(shared.stdout, "the bytes came back");
    const isolated = await start("");
    assertEquals(isolated.code, 1, isolated.stdout);
    assertStringIncludes(isolated.stderr, "ENOKEY");
  },
);
