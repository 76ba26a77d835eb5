/**
 * Systems that refuse something, for real: by seccomp filters, limits, files of /proc that are not there, a kernel that
 * may load no modules. Each runs `children/refused.ts` there, which checks the bytes and what is left open.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import type { Outcome } from "./children/refused.ts";
import {
  assert,
  assertEquals,
  assertStringIncludes,
  engine,
  ownsKernel,
  runtimeArgv,
  spawn,
  tempDir,
  test,
} from "./support/deps.ts";
import { filter, hasSeccomp, numbers, under } from "./support/seccomp.ts";
import { collectGarbage } from "./support/support.ts";

const onKernel = test.if(engine === "kernel", "is about what the kernel refuses");

const CHILD = [...runtimeArgv, fileURLToPath(new URL("./children/refused.ts", import.meta.url))];

type Outcomes = Record<"auto" | "kernel" | "userspace", Outcome>;

/** What the child says, started by a launcher. */
async function outcomes(launcher: string[], args: string[] = [], env: Record<string, string> = {}): Promise<Outcomes> {
  // The results are this process's to write: a user without privileges may not.
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

const withSeccomp = test.if(engine === "kernel" && hasSeccomp, "needs the kernel engine and a kernel with seccomp");

withSeccomp(
  "socket(AF_ALG) refused with EPERM: auto is userspace, kernel says who refuses and what to do",
  async () => {
    const { auto, kernel, userspace } = await outcomes(under(filter(numbers!.socket, ERRNO.EPERM, { first: AF_ALG })));
    assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
    assertRefused(kernel, "EPERM", /seccomp/);
  },
);

withSeccomp("vmsplice refused with EPERM: nothing is missed, for nothing uses it", async () => {
  assertEquals(await outcomes(under(filter(numbers!.vmsplice, ERRNO.EPERM))), WORKS);
});

withSeccomp("no NETLINK_CRYPTO, as without crypto_user: auto is userspace, kernel names the module", async () => {
  const program = filter(numbers!.socket, ERRNO.EPROTONOSUPPORT, { first: AF_NETLINK, third: NETLINK_CRYPTO });
  const { auto, kernel, userspace } = await outcomes(under(program));
  assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
  assertRefused(kernel, "EPROTONOSUPPORT", /crypto_user/);
});

// ---- limits -----------------------------------------------------------------------------------------------------

onKernel("16 descriptors: EMFILE for who needs the kernel, auto included, and userspace needs none", async () => {
  const { auto, kernel, userspace } = await outcomes([], ["ctr(aes)", "limited"]);
  assertRefused(auto, "EMFILE", /limit/);
  assertRefused(kernel, "EMFILE", /limit/);
  assertEquals(userspace, ran("userspace"));
});

/** The user who may do nothing, with directories of his own for the runtimes. */
function unprivileged(): { launcher: string[]; env: Record<string, string> } {
  const directory = tempDir();
  const launcher = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"];
  return { launcher, env: { HOME: directory, DENO_DIR: `${directory}/deno`, TMPDIR: directory } };
}

const inGuest = test.if(ownsKernel, "changes the system: as root, in a guest of its own");

/** Runs `action` while a file of the system has another value. */
async function whileSet(path: string, value: string, action: () => Promise<void>): Promise<void> {
  const before = readFileSync(path, "utf8");
  writeFileSync(path, value);
  try {
    await action();
  } finally {
    writeFileSync(path, before);
  }
}

inGuest(
  "pipe-user-pages-soft exhausted, for a user without privileges: the right bytes all the same",
  () =>
    whileSet("/proc/sys/fs/pipe-user-pages-soft", "1", async () => {
      const { launcher, env } = unprivileged();
      await spawn(["chmod", "-R", "a+rwx", env.HOME!]);
      assertEquals(await outcomes(launcher, [], env), WORKS);
    }),
);

inGuest("/proc/crypto and /proc/sys hidden: the right bytes all the same", async () => {
  // Not all of /proc: neither runtime starts without /proc/self.
  const hide = "mount --bind /dev/null /proc/crypto && mount -t tmpfs none /proc/sys";
  const launcher = ["unshare", "--mount", "sh", "-c", `${hide} && exec "$@"`, "sh"];
  assertEquals(await outcomes(launcher), WORKS);
});

const MODPROBE = "/proc/sys/kernel/modprobe";

/** From Linux 7.3 on. */
const RESTRICTION = "/proc/sys/crypto/af_alg_restrict";

const modprobe = (...args: string[]) => spawn([readFileSync(MODPROBE, "utf8").trim(), ...args]);

/** Unloads a module that other tests have used. */
async function unload(module: string): Promise<void> {
  const isLoaded = () => new RegExp(`^${module} `, "m").test(readFileSync("/proc/modules", "utf8"));
  // Handles that nobody closed use it until they are collected, and processes that were killed until they are gone.
  for (let i = 0; i < 50 && isLoaded(); i++) {
    await collectGarbage();
    await modprobe("--remove", "--quiet", module);
  }
  assert(!isLoaded(), `${module} is in use`);
}

inGuest(
  "algif_skcipher missing: auto is userspace, kernel is ENOENT and names the module",
  async () => {
    const restriction = existsSync(RESTRICTION) ? readFileSync(RESTRICTION) : undefined;
    await unload("algif_skcipher");
    await modprobe("af_alg"); // which it took with it, and its sysctl
    if (restriction) writeFileSync(RESTRICTION, restriction);
    await whileSet(MODPROBE, "/bin/false\n", async () => {
      const { auto, kernel, userspace } = await outcomes([]);
      assertEquals([auto, userspace], [ran("userspace"), ran("userspace")]);
      assertRefused(kernel, "ENOENT", /modprobe algif_skcipher/);
    });
    assertEquals(await outcomes([]), WORKS);
  },
);

inGuest(
  "modules not to be loaded: ENOENT for what is in one, with what would change that",
  async () => {
    await unload("anubis");
    await whileSet(MODPROBE, "/bin/false\n", async () => {
      assertEquals(await outcomes([]), WORKS);
      const { auto, kernel, userspace } = await outcomes([], ["cbc(anubis)"]);
      assertRefused(kernel, "ENOENT", /may not load the module/);
      assertRefused(auto, "ENOENT", /kernel: .*userspace: /);
      assertRefused(userspace, "ENOENT", /./);
      if ("hint" in kernel) assertStringIncludes(kernel.hint!, "modprobe");
    });
  },
);
