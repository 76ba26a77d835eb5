/**
 * Tests of the allowlist of Linux 7.3 (crypto.af_alg_restrict): the engine that `auto` chooses, the hints, and probe().
 * They use the sysctl and the privileges of this process. `tests/kernel/matrix` runs this file with each combination.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import process from "node:process";
import { loadIfGranted } from "../ffi/mod.ts";
import { CipherHandle, EncryptionStream, KcapiError, probe } from "../mod.ts";
import { parseAlgorithm } from "../src/algorithms.ts";
import { errorCode } from "../src/errors.ts";
import { userspaceNames } from "../src/engines/userspace.ts";
import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertStringIncludes,
  LIBRARY_FLAGS,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes, collect, reference, streamOf } from "./support/support.ts";

/** The processes that may use an algorithm. */
type Served = "everyone" | "privileged" | "nobody";

/** The allowlist while crypto.af_alg_restrict is 1. It also has hctr2(aes), which some kernels lack. */
const ALLOWLIST: Readonly<Record<Served, readonly string[]>> = {
  everyone: [
    "xts(aes)",
    "xts(camellia)",
    "xts(serpent)",
    "xts(twofish)",
    "adiantum(xchacha12,aes)",
    "adiantum(xchacha20,aes)",
  ],
  privileged: [
    "cbc(aes)",
    "ctr(aes)",
    "ecb(aes)",
    "cbc(des)",
    "ecb(des)",
    "cbc(des3_ede)",
  ],
  nobody: [
    "ecb(des3_ede)",
    "chacha20",
    "xchacha20",
    "cts(cbc(aes))",
    "rfc3686(ctr(aes))",
    "lrw(aes)",
    "pcbc(aes)",
    "essiv(cbc(aes),sha256)",
    "cbc(camellia)",
    "ctr(des3_ede)",
  ],
};

// ---- the ciphers for this process, without our own code ----------------------------------------------------------

const BIND = `
  for my $name (@ARGV) {
    my $sock;
    my $ok = socket($sock, 38, 5, 0) && bind($sock, pack("S a14 L L a64", 38, "skcipher", 0, 0, $name));
    print $ok ? 0 : $! + 0, " $name\\n";
  }`;

/** Returns the errno of AF_ALG's bind(2) for each name, 0 if it succeeds. Returns undefined without Perl. */
async function bind(names: readonly string[]): Promise<Map<string, number> | undefined> {
  const result = await spawn(["perl", "-e", BIND, ...names]).catch(() => undefined);
  if (!result) return undefined;
  assertEquals(result.code, 0, result.stderr);
  return new Map(
    result.stdout.trim().split("\n").map((line) => {
      const [, errno, name] = /^(\d+) (.*)$/.exec(line)!;
      return [name!, Number(errno)];
    }),
  );
}

function systemFile(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8").trim();
  } catch {
    return undefined;
  }
}

await bind(["xts(aes)"]); // Loads the module that has the sysctl.
const sysctl = systemFile("/proc/sys/crypto/af_alg_restrict");
/** Only common ciphers if there is no sysctl: for each other cipher the kernel runs modprobe several times. */
const NAMES = sysctl === undefined
  ? ["xts(aes)", "cbc(aes)", "ctr(aes)", "ecb(aes)", "chacha20"]
  : Object.values(ALLOWLIST).flat();
const bound = await bind(NAMES);

const CAPABILITIES = 1n << 12n | 1n << 21n; // CAP_NET_ADMIN, CAP_SYS_ADMIN
const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(systemFile("/proc/self/status") ?? "")?.[1];
const isPrivileged = effective !== undefined && (BigInt(`0x${effective}`) & CAPABILITIES) !== 0n &&
  /^0\s+0\s+4294967295$/.test(systemFile("/proc/self/uid_map") ?? "");

const PERL = { needs: { perl: bound !== undefined } } as const;
const AT_ONE = { needs: { "perl, and crypto.af_alg_restrict = 1": bound !== undefined && sysctl === "1" } } as const;
const AT_TWO = { needs: { "perl, and crypto.af_alg_restrict = 2": bound !== undefined && sysctl === "2" } } as const;

const hasLibrary = !(loadIfGranted() instanceof KcapiError);

function keyFor(name: string): Uint8Array<ArrayBuffer> {
  return bytes(parseAlgorithm(name).keySizes?.at(-1) ?? 32);
}

/** Opens a cipher, and returns the engine or the error. */
function open(name: string, engine: "auto" | "kernel"): string | KcapiError {
  try {
    using handle = CipherHandle.open(name, { key: keyFor(name), engine });
    return handle.engine;
  } catch (error) {
    assertInstanceOf(error, KcapiError, name);
    return error;
  }
}

// ---- the engine --------------------------------------------------------------------------------------------------

test("auto uses the kernel for the ciphers that AF_ALG allows this process, and userspace for the others", PERL, () => {
  for (const name of NAMES) {
    const errno = bound!.get(name)!;
    const opened = open(name, "auto");
    if (errno === 0 && hasLibrary) {
      assertEquals(opened, "kernel", name);
    } else if (userspaceNames().includes(name)) {
      assertEquals(opened, "userspace", name);
    } else {
      assertInstanceOf(opened, KcapiError, name);
      assertEquals(opened.code, hasLibrary ? errorCode(errno) : "ELIBACC", name);
      assertStringIncludes(opened.message, `no engine supports ${name}`);
    }
  }
});

test(
  "kernel opens the ciphers that AF_ALG allows this process, and fails with the kernel's errno for the others",
  PERL,
  () => {
    for (const name of NAMES) {
      const errno = bound!.get(name)!;
      const opened = open(name, "kernel");
      if (errno === 0 && hasLibrary) {
        assertEquals(opened, "kernel", name);
      } else {
        assertInstanceOf(opened, KcapiError, name);
        assertEquals(opened.code, hasLibrary ? errorCode(errno) : "ELIBACC", name);
      }
    }
  },
);

test("auto gives the same bytes with each engine", PERL, async () => {
  const input = bytes(300_000);
  for (const algorithm of ["cbc(aes)", "ctr(aes)", "ecb(aes)", "xts(aes)"]) {
    const options = {
      key: keyFor(algorithm),
      ...(algorithm === "xts(aes)" ? { sectorSize: 4096 } : {}),
      ...(algorithm === "cbc(aes)" || algorithm === "ctr(aes)" ? { iv: bytes(16, 2) } : {}),
    };
    const whole = algorithm === "xts(aes)" ? input.subarray(0, 73 * 4096) : input;
    const stream = new EncryptionStream(algorithm, options);
    assertEquals(stream.engine, bound!.get(algorithm) === 0 && hasLibrary ? "kernel" : "userspace", algorithm);
    const padding = algorithm === "cbc(aes)" || algorithm === "ecb(aes)" ? "pkcs7" as const : "none" as const;
    const expected = reference("encrypt", algorithm, { ...options, padding }, whole);
    assertEquals(await collect(streamOf([whole]).pipeThrough(stream)), expected, algorithm);
  }
});

// ---- the allowlist -----------------------------------------------------------------------------------------------

function isAllowed(served: Served): boolean {
  return served === "everyone" || (served === "privileged" && isPrivileged);
}

test(
  `at 1 the kernel allows a ${isPrivileged ? "privileged" : "common"} process the ciphers of its allowlist`,
  AT_ONE,
  () => {
    for (const served of ["everyone", "privileged", "nobody"] as const) {
      for (const name of ALLOWLIST[served]) assertEquals(bound!.get(name), isAllowed(served) ? 0 : 2, name);
    }
  },
);

test("at 1 hints name the allowlist and the required privileges", AT_ONE, () => {
  for (const served of ["privileged", "nobody"] as const) {
    if (isAllowed(served)) continue;
    for (const name of ALLOWLIST[served]) {
      const { hint = "" } = open(name, "kernel") as KcapiError;
      assertStringIncludes(hint, "crypto.af_alg_restrict is 1", name);
      assertStringIncludes(hint, "sysctl crypto.af_alg_restrict=0", name);
      assertEquals(
        hint.includes("only to processes with CAP_NET_ADMIN or CAP_SYS_ADMIN"),
        served === "privileged",
        hint,
      );
    }
  }
});

test("at 2 the kernel allows no cipher, and hints name the sysctl", AT_TWO, () => {
  for (const name of NAMES) {
    assertEquals(errorCode(bound!.get(name)!), "EAFNOSUPPORT", name);
    const { hint = "" } = open(name, "kernel") as KcapiError;
    assertStringIncludes(hint, "crypto.af_alg_restrict is 2", name);
    assertStringIncludes(hint, "sysctl crypto.af_alg_restrict=1", name);
  }
});

test("probe() returns the actual sysctl, privileges and kernel ciphers", PERL, () => {
  const { afAlgRestrict, privileges, ciphers } = probe();
  assertEquals(afAlgRestrict, sysctl === undefined ? null : Number(sysctl));
  assertEquals(privileges?.uid, process.geteuid!());
  assertEquals(privileges!.netAdmin || privileges!.sysAdmin, isPrivileged);
  // It tries some of these and the ciphers in /proc/crypto. The kernel must allow each that it opened.
  const opened = NAMES.filter((name) => ciphers.kernel.includes(name));
  assertEquals(opened.filter((name) => bound!.get(name) !== 0), []);
  for (const name of ["cbc(aes)", "ctr(aes)", "xts(aes)", "chacha20"]) {
    assertEquals(ciphers.kernel.includes(name), bound!.get(name) === 0 && hasLibrary, name);
  }
});

test("at 1 probe() names the allowlist as the cause, and the ciphers that it denies to this process", AT_ONE, () => {
  const { afAlg, problems } = probe();
  assertEquals(afAlg, "works");
  const problem = problems.find(({ what }) => what.includes("chacha20"));
  assertStringIncludes(problem!.cause, "crypto.af_alg_restrict is 1");
  assertStringIncludes(problem!.remedy, "crypto.af_alg_restrict=0");
  const blamed = problems.find(({ cause }) => cause.includes("CAP_NET_ADMIN"));
  assertEquals(blamed?.what.includes("cbc(aes)") ?? false, !isPrivileged);
  assert(!problems.some(({ what }) => what.includes("xts(aes)")));
});

test("at 2 probe() names the sysctl as the cause", AT_TWO, () => {
  const { afAlg, ciphers, problems } = probe();
  assertEquals([afAlg, ciphers.kernel], ["EAFNOSUPPORT", []]);
  assertStringIncludes(problems[0]!.cause, "crypto.af_alg_restrict is 2");
  assertStringIncludes(problems[0]!.remedy, "crypto.af_alg_restrict=1");
});

test(
  "at 1 the hint names the allowlist as one of several causes if Deno may not read the sysctl",
  { runtime: "deno", needs: { libkcapi: hasLibrary, "crypto.af_alg_restrict = 1": sysctl === "1" } },
  async () => {
    const mod = fileURLToPath(new URL("../mod.ts", import.meta.url));
    const program = join(tempDir(), "main.ts"); // A file, because a data: URL may not import a file.
    writeFileSync(
      program,
      `import { CipherHandle } from ${JSON.stringify(mod)};
      try { CipherHandle.open("chacha20", { key: new Uint8Array(32), engine: "kernel" }); }
      catch (error) { console.log(error.code, error.hint); }`,
    );
    // Deno.Command, because Deno's node:child_process adds `-A` for each Deno.
    const { stdout } = await new Deno.Command(process.execPath, {
      args: ["run", "--no-check", "--allow-ffi", ...LIBRARY_FLAGS, program],
      stderr: "inherit",
    }).output();
    assertStringIncludes(new TextDecoder().decode(stdout), "ENOENT the kernel has no algorithm with this name");
    assertStringIncludes(new TextDecoder().decode(stdout), "crypto.af_alg_restrict (Linux 7.3 and later) denies it");
  },
);
