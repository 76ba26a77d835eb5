/**
 * Tests on systems that really refuse something: by seccomp filters, limits, missing files in /proc, or a kernel that
 * may not load modules. Each test runs `children/refused.ts`, which checks the output and the open descriptors.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Outcome } from "./children/refused.ts";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  ownsKernel,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { filter, hasSeccomp, numbers, under } from "./support/seccomp.ts";
import { collectGarbage } from "./support/support.ts";

const KERNEL = { engine: "kernel" } as const;

const CHILD = [...runtimeArgv, fileURLToPath(new URL("./children/refused.ts", import.meta.url))];

type Outcomes = Record<"auto" | "kernel" | "userspace", Outcome>;

/** Starts the child through a launcher, and returns its output. */
async function outcomes(launcher: string[], args: string[] = [], env: Record<string, string> = {}): Promise<Outcomes> {
  // Only this process writes the results, because an unprivileged user may not.
  const { code, stdout, stderr } = await spawn([...launcher, ...CHILD, ...args], {
    env: { KCAPI_RESULTS: undefined, ...env },
  });
  assertEquals(code, 0, `${stdout}${stderr}`);
  return JSON.parse(stdout.trim().split("\n").at(-1)!);
}

const ran = (engine: string) => ({ engine });
const WORKS: Outcomes = { auto: ran("kernel"), kernel: ran("kernel"), userspace: ran("userspace") };

function assertRefused(outcome: Outcome, code: string, hint: RegExp): void {
  assert("code" in outcome, JSON.stringify(outcome));
  assertEquals(outcome.code, code);
  assert(hint.test(outcome.hint ?? ""), `the hint: ${outcome.hint}`);
}

// ---- seccomp ----------------------------------------------------------------------------------------------------

const ERRNO = { EPERM: 1, EPROTONOSUPPORT: 93 };
const [AF_NETLINK, AF_ALG, NETLINK_CRYPTO] = [16, 38, 21];

const SECCOMP = { engine: "kernel", needs: { seccomp: hasSeccomp } } as const;

test(
  "socket(AF_ALG) fails with EPERM: auto uses userspace, kernel gives the cause and the remedy",
  SECCOMP,
  async () => {
    const { auto, kernel, userspace } = await outcomes(under(filter(numbers!.socket, ERRNO.EPERM, { first: AF_ALG })));
    assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
    assertRefused(kernel, "EPERM", /seccomp/);
  },
);

test("vmsplice fails with EPERM: everything works, because nothing uses it", SECCOMP, async () => {
  assertEquals(await outcomes(under(filter(numbers!.vmsplice, ERRNO.EPERM))), WORKS);
});

test("no NETLINK_CRYPTO, as without crypto_user: auto uses userspace, kernel names the module", SECCOMP, async () => {
  const program = filter(numbers!.socket, ERRNO.EPROTONOSUPPORT, { first: AF_NETLINK, third: NETLINK_CRYPTO });
  const { auto, kernel, userspace } = await outcomes(under(program));
  assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
  assertRefused(kernel, "EPROTONOSUPPORT", /crypto_user/);
});

// ---- limits -----------------------------------------------------------------------------------------------------

test("a limit of 16 descriptors: kernel and auto throw EMFILE, userspace works", KERNEL, async () => {
  const { auto, kernel, userspace } = await outcomes([], ["ctr(aes)", "limited"]);
  assertRefused(auto, "EMFILE", /limit/);
  assertRefused(kernel, "EMFILE", /limit/);
  assertEquals(userspace, ran("userspace"));
});

/** Returns the launcher for an unprivileged user, and an environment with directories for the runtimes. */
function dropPrivileges(): { launcher: string[]; env: Record<string, string> } {
  const directory = tempDir();
  const launcher = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
  return { launcher, env: { HOME: directory, DENO_DIR: `${directory}/deno`, TMPDIR: directory } };
}

const GUEST = { needs: { "root in a guest": ownsKernel } } as const;

/** Runs `action` with another value in a system file. */
async function whileSet(path: string, value: string, action: () => Promise<void>): Promise<void> {
  const before = readFileSync(path, "utf8");
  writeFileSync(path, value);
  try {
    await action();
  } finally {
    writeFileSync(path, before);
  }
}

test(
  "an unprivileged user with pipe-user-pages-soft exhausted gets the right bytes",
  GUEST,
  () =>
    whileSet("/proc/sys/fs/pipe-user-pages-soft", "1", async () => {
      const { launcher, env } = dropPrivileges();
      await spawn(["chmod", "-R", "a+rwx", env.HOME!]);
      assertEquals(await outcomes(launcher, [], env), WORKS);
    }),
);

test("/proc/crypto and /proc/sys hidden: streams give the right bytes", GUEST, async () => {
  // Not all of /proc, because no runtime starts without /proc/self.
  const hide = "mount --bind /dev/null /proc/crypto && mount -t tmpfs none /proc/sys";
  const launcher = ["unshare", "--mount", "sh", "-c", `${hide} && exec "$@"`, "sh"];
  assertEquals(await outcomes(launcher), WORKS);
});

const MODPROBE = "/proc/sys/kernel/modprobe";

/** The sysctl of Linux 7.3 and later. */
const RESTRICTION = "/proc/sys/crypto/af_alg_restrict";

const modprobe = (...args: string[]) => spawn([readFileSync(MODPROBE, "utf8").trim(), ...args]);

/** Unloads a module that other tests may have used. */
async function unload(module: string): Promise<void> {
  const isLoaded = () => new RegExp(`^${module} `, "m").test(readFileSync("/proc/modules", "utf8"));
  // Unclosed handles use the module until they are collected, and killed processes until they have ended.
  for (let i = 0; i < 50 && isLoaded(); i++) {
    await collectGarbage();
    await modprobe("--remove", "--quiet", module);
  }
  assert(!isLoaded(), `${module} is in use`);
}

test(
  "algif_skcipher missing: auto uses userspace, kernel throws ENOENT and names the module",
  GUEST,
  async () => {
    const restriction = existsSync(RESTRICTION) ? readFileSync(RESTRICTION) : undefined;
    await unload("algif_skcipher");
    await modprobe("af_alg"); // The removal also unloaded af_alg with its sysctl.
    if (restriction) writeFileSync(RESTRICTION, restriction);
    await whileSet(MODPROBE, "/bin/false\n", async () => {
      const { auto, kernel, userspace } = await outcomes([]);
      assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
      assertRefused(kernel, "ENOENT", /modprobe algif_skcipher/);
    });
    assertEquals(await outcomes([]), WORKS);
  },
);

test(
  "modules cannot be loaded: a cipher in a module throws ENOENT with a remedy",
  GUEST,
  async () => {
    await unload("anubis");
    await whileSet(MODPROBE, "/bin/false\n", async () => {
      assertEquals(await outcomes([]), WORKS);
      const { auto, kernel, userspace } = await outcomes([], ["cbc(anubis)"]);
      assertRefused(kernel, "ENOENT", /may not load its module/);
      assertRefused(auto, "ENOENT", /kernel: .*userspace: /);
      assertRefused(userspace, "ENOENT", /./);
      if ("hint" in kernel) assertStringIncludes(kernel.hint!, "modprobe");
    });
  },
);
