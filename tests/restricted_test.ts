/**
 * The allowlist of Linux 7.3 (crypto.af_alg_restrict), and who is refused what by it: which engine `auto` takes, and
 * what hints and probe() say. The sysctl and the privileges are those of this very process: `tests/kernel/matrix` runs
 * this file under each.
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
  runtime,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { bytes, collect, reference, streamOf } from "./support/support.ts";

type Served = "everyone" | "privileged" | "nobody";

/** Whom the kernel serves what while crypto.af_alg_restrict is 1. (hctr2(aes), too; some kernels lack it.) */
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

// ---- what this process is served, asked without our code ---------------------------------------------------------

const BIND = `
  for my $name (@ARGV) {
    my $sock;
    my $ok = socket($sock, 38, 5, 0) && bind($sock, pack("S a14 L L a64", 38, "skcipher", 0, 0, $name));
    print $ok ? 0 : $! + 0, " $name\\n";
  }`;

/** The errno of AF_ALG's bind(2) for each name, 0 where it is served; undefined without Perl. */
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

await bind(["xts(aes)"]); // loads the module that the sysctl belongs to
const sysctl = systemFile("/proc/sys/crypto/af_alg_restrict");
/** Where there is no such sysctl, the usual ones do: each of the others costs the kernel several runs of modprobe. */
const NAMES = sysctl === undefined
  ? ["xts(aes)", "cbc(aes)", "ctr(aes)", "ecb(aes)", "chacha20"]
  : Object.values(ALLOWLIST).flat();
const bound = await bind(NAMES);

const CAPABILITIES = 1n << 12n | 1n << 21n; // CAP_NET_ADMIN, CAP_SYS_ADMIN
const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(systemFile("/proc/self/status") ?? "")?.[1];
const isPrivileged = effective !== undefined && (BigInt(`0x${effective}`) & CAPABILITIES) !== 0n &&
  /^0\s+0\s+4294967295$/.test(systemFile("/proc/self/uid_map") ?? "");

const withPerl = test.if(bound !== undefined, "no perl to ask the kernel with");
const atOne = test.if(bound !== undefined && sysctl === "1", "crypto.af_alg_restrict is not 1 here");
const atTwo = test.if(bound !== undefined && sysctl === "2", "crypto.af_alg_restrict is not 2 here");

const hasLibrary = !(loadIfGranted() instanceof KcapiError);

function keyFor(name: string): Uint8Array<ArrayBuffer> {
  return bytes(parseAlgorithm(name).keySizes?.at(-1) ?? 32);
}

/** What opening gives: the engine that runs, or the error. */
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

withPerl("auto takes the kernel for what AF_ALG serves this process, and userspace for the rest", () => {
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
      assertStringIncludes(opened.message, `no engine can serve ${name}`);
    }
  }
});

withPerl("kernel opens what AF_ALG serves this process, and is refused the rest with the kernel's own errno", () => {
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
});

withPerl("auto gives the same bytes whichever engine it takes", async () => {
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

atOne(`at 1 the kernel serves a ${isPrivileged ? "privileged" : "common"} process what its allowlist has`, () => {
  for (const served of ["everyone", "privileged", "nobody"] as const) {
    for (const name of ALLOWLIST[served]) assertEquals(bound!.get(name), isAllowed(served) ? 0 : 2, name);
  }
});

atOne("at 1 hints name the allowlist, and whom it lets in", () => {
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

atTwo("at 2 nothing is served, and hints name the sysctl", () => {
  for (const name of NAMES) {
    assertEquals(errorCode(bound!.get(name)!), "EAFNOSUPPORT", name);
    const { hint = "" } = open(name, "kernel") as KcapiError;
    assertStringIncludes(hint, "crypto.af_alg_restrict is 2", name);
    assertStringIncludes(hint, "sysctl crypto.af_alg_restrict=1", name);
  }
});

withPerl("probe() has the sysctl, the privileges and the kernel's ciphers as they are", () => {
  const { afAlgRestrict, privileges, ciphers } = probe();
  assertEquals(afAlgRestrict, sysctl === undefined ? null : Number(sysctl));
  assertEquals(privileges?.uid, process.geteuid!());
  assertEquals(privileges!.netAdmin || privileges!.sysAdmin, isPrivileged);
  // It asks for a few of these, and else for what /proc/crypto lists: what it opened, the kernel serves.
  const opened = NAMES.filter((name) => ciphers.kernel.includes(name));
  assertEquals(opened.filter((name) => bound!.get(name) !== 0), []);
  for (const name of ["cbc(aes)", "ctr(aes)", "xts(aes)", "chacha20"]) {
    assertEquals(ciphers.kernel.includes(name), bound!.get(name) === 0 && hasLibrary, name);
  }
});

atOne("at 1 probe() names the allowlist as the cause, with what it keeps from this process", () => {
  const { afAlg, problems } = probe();
  assertEquals(afAlg, "works");
  const problem = problems.find(({ what }) => what.includes("chacha20"));
  assertStringIncludes(problem!.cause, "crypto.af_alg_restrict is 1");
  assertStringIncludes(problem!.remedy, "crypto.af_alg_restrict=0");
  const blamed = problems.find(({ cause }) => cause.includes("CAP_NET_ADMIN"));
  assertEquals(blamed?.what.includes("cbc(aes)") ?? false, !isPrivileged);
  assert(!problems.some(({ what }) => what.includes("xts(aes)")));
});

atTwo("at 2 probe() names the sysctl as the cause", () => {
  const { afAlg, ciphers, problems } = probe();
  assertEquals([afAlg, ciphers.kernel], ["EAFNOSUPPORT", []]);
  assertStringIncludes(problems[0]!.cause, "crypto.af_alg_restrict is 2");
  assertStringIncludes(problems[0]!.remedy, "crypto.af_alg_restrict=1");
});

test.if(runtime === "deno" && hasLibrary && sysctl === "1", "needs Deno and crypto.af_alg_restrict = 1")(
  "at 1 the hint names the allowlist as one cause of several where Deno may not read the sysctl",
  async () => {
    const mod = fileURLToPath(new URL("../mod.ts", import.meta.url));
    const program = join(tempDir(), "main.ts"); // a file: what comes from elsewhere may not import one
    writeFileSync(
      program,
      `import { CipherHandle } from ${JSON.stringify(mod)};
      try { CipherHandle.open("chacha20", { key: new Uint8Array(32), engine: "kernel" }); }
      catch (error) { console.log(error.code, error.hint); }`,
    );
    // Not by node:child_process: in Deno, that gives all permissions to another Deno.
    const { stdout } = await new Deno.Command(process.execPath, {
      args: ["run", "--no-check", "--allow-ffi", ...LIBRARY_FLAGS, program],
      stderr: "inherit",
    }).output();
    assertStringIncludes(new TextDecoder().decode(stdout), "ENOENT the kernel has no algorithm of this name");
    assertStringIncludes(new TextDecoder().decode(stdout), "crypto.af_alg_restrict keeps it from this process");
  },
);
