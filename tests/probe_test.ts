/** Tests of probe() and listCiphers(), on the current system and on fake systems. */
import { spawnSync } from "node:child_process";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import process from "node:process";
import type { Calls, Library } from "../ffi/adapter.ts";
import { CipherHandle, KcapiError, listCiphers, probe, type ProbeReport } from "../mod.ts";
import { list, report } from "../src/probe/probe.ts";
import { parseProcCrypto } from "../src/system/files.ts";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  engine,
  LIBRARY_FLAGS,
  openFiles,
  runtime,
  tempDir,
  test,
} from "./support/deps.ts";
import { cipherEntry, fakeSystem, PRIVILEGED, UNPRIVILEGED } from "./support/fake_system.ts";

const KERNEL = { engine: "kernel" } as const;
const MOD = fileURLToPath(new URL("../mod.ts", import.meta.url));

/** Fakes a libkcapi whose kcapi_cipher_init returns the errors of `init`. */
function fakeLibrary(init: (name: string) => number, { afAlg = false } = {}): Library {
  const call: Partial<Calls> = {
    kcapi_cipher_init: (_, name) => init(new TextDecoder().decode(name!).slice(0, -1)),
    kcapi_version: () => 1_050_100,
    getpagesize: () => 4096,
    socket: () => afAlg ? 3 : -1,
    getsockopt(_socket, _level, _option, value) {
      new DataView(value!.buffer, value!.byteOffset).setInt32(0, 65536, true);
      return 0;
    },
    close: () => 0,
  };
  return {
    path: "/somewhere/libkcapi.so.1",
    call: call as Calls,
    word: (value) => value,
    cells: () => ({ get: () => 0, set: () => {} }),
    allocUnsafe: (length) => new Uint8Array(length),
  };
}

/** Fails if any value in `report` would be lost or changed as JSON. */
function assertPlainData(report: unknown): void {
  assertEquals(JSON.parse(JSON.stringify(report)), report);
}

// ---- /proc/crypto -----------------------------------------------------------------------------------------------

test("parseProcCrypto() reads the ciphers of Linux 6.1, and skips other types and internal ones", () => {
  const text = [
    cipherEntry("cbc(aes)"),
    cipherEntry("__cbc(aes)", { driver: "cryptd(__cbc-aes-aesni)", internal: "yes" }),
    "name         : sha256\ndriver       : sha256-generic\nmodule       : kernel\npriority     : 100\n" +
    "refcnt       : 1\nselftest     : passed\ninternal     : no\ntype         : shash\nblocksize    : 64\n" +
    "digestsize   : 32\n",
    cipherEntry("gcm(aes)", { type: "aead" }),
  ].join("\n");
  assertEquals(parseProcCrypto(text), [{
    name: "cbc(aes)",
    driver: "cbc(aes)-generic",
    module: "cbc",
    priority: 100,
    refCount: 1,
    selftest: "passed",
    type: "skcipher",
    async: false,
    blockSize: 16,
    minKeySize: 16,
    maxKeySize: 32,
    ivSize: 16,
    chunkSize: 16,
  }]);
});

test("parseProcCrypto() reads an lskcipher without chunk size and without async", () => {
  const text = "name         : ecb(aes)\ndriver       : ecb(aes-lib)\nmodule       : ecb\npriority     : 100\n" +
    "refcnt       : 1\nselftest     : unknown\ninternal     : no\ntype         : lskcipher\nblocksize    : 16\n" +
    "min keysize  : 16\nmax keysize  : 32\nivsize       : 0\nstatesize    : 0\n\n";
  const [cipher] = parseProcCrypto(text);
  assertEquals(cipher?.chunkSize, 16);
  assertEquals(cipher?.ivSize, 0);
  assertEquals(cipher?.async, false);
  assertEquals(cipher?.selftest, "unknown");
});

test("parseProcCrypto() ignores malformed entries", () => {
  const without = (field: string) => cipherEntry("cbc(aes)").replace(new RegExp(`^${field} *:.*\n`, "m"), "");
  const hostile = [
    ...["", "\n\n\n\n", ":", "name", "name:\ndriver:\ntype: skcipher\n", "\0".repeat(1000), "::::\n::\n"],
    ...["name", "driver", "type", "internal", "blocksize", "min keysize", "max keysize", "ivsize"].map(without),
    ...["-16", "0x10", "1e9", "16 bytes", "99999999999", "", "NaN", "Infinity"].map((blocksize) =>
      cipherEntry("cbc(aes)", { blocksize })
    ),
    ...["", " ", "two words", "\u00e9(aes)", "x".repeat(200), "a\0b"].map((name) => cipherEntry(name)),
    cipherEntry("cbc(aes)", { type: "__proto__" }),
  ];
  for (const text of hostile) assertEquals(parseProcCrypto(text), [], JSON.stringify(text));
  const [cipher] = parseProcCrypto(`__proto__ : x\nconstructor : y\n${cipherEntry("cbc(aes)")}`);
  assertEquals(cipher?.name, "cbc(aes)");
});

// ---- fake systems -----------------------------------------------------------------------------------------------

test("probe() of a system without AF_ALG gives the remedy", () => {
  const { afAlg, library, kernel, problems, ciphers, ...rest } = report({
    system: fakeSystem({ ...PRIVILEGED, "/proc/crypto": "", "/proc/sys/kernel/osrelease": "6.1.0-fake\n" }),
    library: fakeLibrary(() => -97),
  });
  assertEquals(afAlg, "EAFNOSUPPORT");
  assertEquals(library, { path: "/somewhere/libkcapi.so.1", version: "1.5.1" });
  assertEquals(kernel, "6.1.0-fake");
  assertEquals(ciphers.kernel, []);
  assertEquals(problems.length, 1);
  assertStringIncludes(problems[0]!.remedy, "modprobe");
  assertEquals(rest.privileges, { uid: 0, netAdmin: true, sysAdmin: true });
  assertEquals([rest.netlinkCrypto, rest.afAlgRestrict, rest.sendBuffer, rest.window], [null, null, null, null]);
});

test("probe() and listCiphers() accept absurd key sizes in /proc/crypto", () => {
  const absurd = ["65537", "4294967295", "9999999999"].flatMap((size, i) => [
    cipherEntry(`cbc(absurd${i})`, { "max keysize": size }),
    cipherEntry(`ctr(absurd${i})`, { "min keysize": size, "max keysize": size }),
  ]);
  const target = {
    system: fakeSystem({ ...PRIVILEGED, "/proc/crypto": absurd.join("\n") }),
    library: fakeLibrary(() => -2, { afAlg: true }),
  };
  assertStringIncludes(report(target).problems.map(({ what }) => what).join(), "cbc(absurd2)");
  assertEquals(list(target).filter(({ name }) => name.includes("absurd")).length, absurd.length);
});

test("probe() reports one problem for all ciphers that fail for the same reason", () => {
  const { afAlg, netlinkCrypto, sendBuffer, problems } = report({
    system: fakeSystem({ ...PRIVILEGED, "/proc/crypto": cipherEntry("lrw(aes)") }),
    library: fakeLibrary(() => -93, { afAlg: true }),
  });
  assertEquals([afAlg, netlinkCrypto, sendBuffer], ["works", "EPROTONOSUPPORT", 65536]);
  assertEquals(problems.map(({ remedy }) => remedy), ["as root, load its module: modprobe crypto_user"]);
  for (const name of ["cbc(aes)", "xts(aes)", "lrw(aes)"]) assertStringIncludes(problems[0]!.what, name);
});

test("probe() of Linux 7.3 reports which ciphers need privileges and which are denied to all", () => {
  const { afAlgRestrict, problems } = report({
    system: fakeSystem({ ...UNPRIVILEGED, "/proc/crypto": "", "/proc/sys/crypto/af_alg_restrict": "1\n" }),
    library: fakeLibrary((name) => name === "xts(aes)" ? -80 : -2, { afAlg: true }),
  });
  assertEquals(afAlgRestrict, 1);
  const about = (name: string) => problems.find(({ what }) => what.includes(name))!;
  assertStringIncludes(about("cbc(aes)").cause, "CAP_NET_ADMIN");
  assertStringIncludes(about("cbc(aes)").what, "ctr(aes), ecb(aes) (ENOENT)");
  assertStringIncludes(about("chacha20").cause, "does not serve");
  assertStringIncludes(about("xts(aes)").cause, "self-test");
  assertEquals(problems.length, 3);
  const { afAlgRestrict: lifted } = report({
    system: fakeSystem({ ...UNPRIVILEGED, "/proc/sys/crypto/af_alg_restrict": "0\n" }),
    library: fakeLibrary(() => -2, { afAlg: true }),
  });
  assertEquals(lifted, 0);
});

test("probe() reports a missing library, missing FFI and missing /proc, and the userspace engine", () => {
  const options = { hint: "install it" };
  const refused = report({
    system: fakeSystem({}),
    library: new KcapiError("EACCES", "dlopen", "FFI is not permitted", options),
  });
  assertEquals([refused.ffi, refused.afAlg, refused.library, refused.privileges], ["refused", "EACCES", null, null]);
  assertEquals(refused.problems[0], {
    what: "the kernel engine is not available (EACCES)",
    cause: "FFI is not permitted",
    remedy: "install it",
  });
  assertStringIncludes(refused.problems[1]!.cause, "/proc/crypto is not permitted");
  assert(refused.ciphers.userspace.includes("ctr(aes)"));
  assertPlainData(refused);

  const library = new KcapiError("ELIBACC", "dlopen", "libkcapi cannot be loaded", options);
  const missing = report({ system: fakeSystem(PRIVILEGED), library });
  assertEquals([missing.ffi, missing.afAlg, missing.library], ["granted", "ELIBACC", null]);

  const elsewhere = report({ system: fakeSystem({}, "darwin"), library });
  assertEquals(elsewhere.platform, "darwin");
  assertEquals(elsewhere.problems.map(({ cause }) => cause), ["only Linux has AF_ALG"]);
});

test("listCiphers() lists each implementation once, by name and priority, and the userspace engine's ciphers", () => {
  const text = [
    cipherEntry("cbc(twofish)", { priority: "100" }),
    cipherEntry("cbc(twofish)", { driver: "cbc-twofish-fast", priority: "400" }),
    cipherEntry("ctr(aes)", { blocksize: "1" }),
    cipherEntry("rfc7539(chacha20,poly1305)"),
  ].join("\n");
  const system = fakeSystem({ "/proc/crypto": text });
  const ciphers = list({ system, library: fakeLibrary(() => -97) });
  const twofish = ciphers.filter(({ name }) => name === "cbc(twofish)");
  assertEquals(twofish.map(({ driver }) => driver), ["cbc-twofish-fast", "cbc(twofish)-generic"]);
  assertEquals(twofish[0]!.engines, []);
  assertEquals(ciphers.filter(({ name }) => name === "ctr(aes)").map(({ engines }) => engines), [["userspace"]]);
  assertEquals(ciphers.find(({ name }) => name.includes("poly1305")), undefined);
  const xts = ciphers.find(({ name }) => name === "xts(aes)")!;
  assertEquals(xts, {
    name: "xts(aes)",
    kind: "sector",
    engines: ["userspace"],
    blockSize: 16,
    minKeySize: 32,
    maxKeySize: 64,
    ivSize: 16,
    chunkSize: 16,
  });
  assertEquals(ciphers.map(({ name }) => name), ciphers.map(({ name }) => name).sort());
  assertPlainData(ciphers);
});

// ---- the current system -----------------------------------------------------------------------------------------

test("probe() returns plain data that describes this process", () => {
  const found = probe();
  assertPlainData(found);
  assertEquals(found.runtime, { name: runtime, version: process.versions[runtime]! });
  assertEquals(found.platform, process.platform);
  assertEquals(found.privileges?.uid, process.geteuid!());
  assert(found.ciphers.userspace.includes("ctr(aes)"));
  for (const { what, cause, remedy } of found.problems) assert(what && cause && remedy, what);
});

test("probe() lists for each engine the ciphers that it opens", () => {
  const { ciphers } = probe();
  const infos = listCiphers();
  for (const name of ["kernel", "userspace"] as const) {
    for (const algorithm of ciphers[name]) {
      const info = infos.find((each) => each.name === algorithm)!;
      assert(info.engines.includes(name), `${algorithm} on ${name}`);
      const key = crypto.getRandomValues(new Uint8Array(info.maxKeySize));
      using handle = CipherHandle.open(algorithm, { key, engine: name });
      assertEquals(handle.engine, name);
      assertEquals([handle.blockSize, handle.ivSize], [info.blockSize, info.ivSize], `${algorithm} on ${name}`);
    }
  }
});

test("probe() finds the kernel engine, and listCiphers() its ciphers", KERNEL, () => {
  const { afAlg, netlinkCrypto, library, sendBuffer, window, ciphers } = probe();
  assertEquals([afAlg, netlinkCrypto], ["works", "works"]);
  assert(existsSync(library!.path), library!.path);
  assert(/^\d+\.\d+\.\d+$/.test(library!.version), library!.version);
  assert(window! <= sendBuffer! && window! > 0);
  assert(ciphers.kernel.length > 0);
  const infos = listCiphers().filter(({ engines }) => engines.includes("kernel"));
  for (const { name, driver, module, selftest, type } of infos) {
    assert(driver && module && type?.endsWith("skcipher"), name);
    assertEquals(selftest, "passed", name);
  }
});

test("the hint for a misspelled algorithm names the correct one", KERNEL, () => {
  try {
    CipherHandle.open("cbc(ase)", { key: new Uint8Array(16), engine: "kernel" }).close();
  } catch (error) {
    assert(error instanceof KcapiError);
    assertEquals(error.hint, 'there is no algorithm with this name; did you mean "cbc(aes)"?');
    return;
  }
  throw new Error("cbc(ase) opened");
});

test("probe() and listCiphers() leave no descriptors open", () => {
  probe();
  listCiphers();
  const before = openFiles();
  for (let i = 0; i < 20; i++) probe();
  for (let i = 0; i < 5; i++) listCiphers();
  assertEquals(openFiles(), before);
});

// ---- permissions ------------------------------------------------------------------------------------------------

const DENO = { runtime: "deno" } as const;
const PRINT = `import { listCiphers, probe } from ${JSON.stringify(MOD)}; listCiphers(); ` +
  "console.log(JSON.stringify(probe()));";

/** Writes a program to a file. */
function program(code: string): string {
  const file = join(tempDir(), "main.ts");
  writeFileSync(file, code);
  return file;
}

/** Uses Deno.Command, because Deno's node:child_process adds `-A` for each Deno, even in a shell command. */
function command(name: string, ...args: string[]): Deno.Command {
  return new Deno.Command(name, { args, stdin: "null", stdout: "piped", stderr: "inherit" });
}

test(
  "probe() without permissions reports that, and without --allow-all the files that it cannot read",
  DENO,
  async () => {
    const file = program(PRINT);
    async function probeWith(...flags: string[]): Promise<ProbeReport> {
      const { stdout } = await command(process.execPath, "run", "--no-check", ...flags, file).output();
      return JSON.parse(new TextDecoder().decode(stdout));
    }
    const without = await probeWith();
    assertEquals([without.ffi, without.afAlg, without.kernel], ["refused", "EACCES", null]);
    assertStringIncludes(without.problems[0]!.remedy, "--allow-ffi");
    assertStringIncludes(without.problems[1]!.cause, "--allow-all");
    assert(without.ciphers.userspace.includes("ctr(aes)"));

    const { library } = probe();
    for (const flag of ["--allow-ffi", ...(library ? [`--allow-ffi=${library.path}`] : [])]) {
      const partly = await probeWith(flag, ...LIBRARY_FLAGS);
      assertEquals([partly.ffi, partly.kernel, partly.privileges], ["granted", null, null], flag);
      assertEquals(partly.library, library, flag);
      if (engine === "kernel") assert(partly.ciphers.kernel.includes("cbc(aes)"), flag);
    }
  },
);

const terminals = runtime === "deno" && spawnSync("script", ["-qec", "true", "/dev/null"]).status === 0;
test("probe() never prompts", { runtime: "deno", needs: { "script(1) with a terminal": terminals } }, async () => {
  async function outputOnTerminal(code: string): Promise<string> {
    const deno = `${process.execPath} run --no-check ${program(code)}`;
    const child = command("script", "-qc", deno, "/dev/null").spawn();
    let output = "";
    for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
      output += text;
      if (output.includes("Allow?")) child.kill("SIGKILL");
    }
    await child.status;
    return output;
  }
  assertStringIncludes(await outputOnTerminal('Deno.readTextFileSync("/etc/passwd");'), "Allow?");
  assertEquals(JSON.parse(await outputOnTerminal(PRINT)).ffi, "refused");
});
