/**
 * Child programs do not inherit the descriptors of the kernel engine. Otherwise they could encrypt with a key that they
 * were never given.
 */
import { readdirSync, readlinkSync } from "node:fs";
import { load } from "../ffi/mod.ts";
import { CipherHandle, EncryptionStream } from "../mod.ts";
import { assert, assertEquals, engine, runtime, spawn, test } from "./support/deps.ts";
import { bytes } from "./support/support.ts";

const KERNEL = { engine: "kernel" } as const;
const DENO = { engine: "kernel", runtime: "deno" } as const;

/** Lists the open descriptors. Sockets and pipes are identified by inode, which is the same in a child process. */
function listOpen(): Map<string, string> {
  return new Map(
    readdirSync("/proc/self/fd").flatMap((fd): [string, string][] => {
      try {
        return [[fd, readlinkSync(`/proc/self/fd/${fd}`)]];
      } catch {
        return []; // The descriptor of the directory itself is closed by now.
      }
    }),
  );
}

/** The ways of this runtime to start a program. Each returns the program's list of open descriptors. */
const WAYS: Record<string, () => Promise<string>> = {
  "node:child_process": async () => (await spawn(["ls", "-l", "/proc/self/fd"])).stdout,
  ...(runtime === "deno" && {
    "Deno.Command": async () =>
      new TextDecoder().decode((await new Deno.Command("ls", { args: ["-l", "/proc/self/fd"] }).output()).stdout),
  }),
};

/** Opens every kind of descriptor that belongs to a key. */
async function withKey(run: (opened: readonly [string, string][]) => Promise<void>): Promise<void> {
  const before = listOpen();
  using handle = CipherHandle.open("ctr(aes)", { key: bytes(16), engine });
  handle.streamInitEnc(bytes(16));
  using other = handle.reinit();
  other.streamInitDec(bytes(16));
  using unused = handle.reinit();
  const stream = new EncryptionStream(handle, { iv: bytes(16) });
  const opened = [...listOpen()].filter(([fd, what]) => before.get(fd) !== what);
  await run(opened);
  await stream.readable.cancel();
  assertEquals(unused.engine, engine);
}

for (const [way, list] of Object.entries(WAYS)) {
  test(`a program started by ${way} inherits no socket or pipe of a handle, a reinit or a stream`, KERNEL, async () => {
    await withKey(async (opened) => {
      assertEquals(opened.length, 4 + 3 + 2 + 3, `${opened}`);
      const inherited = await list();
      assert(inherited.includes("/proc/"), inherited);
      for (const [fd, what] of opened) assert(!inherited.includes(what), `${fd} is ${what}`);
    });
  });

  test(`a program started by ${way} inherits descriptors without FD_CLOEXEC`, DENO, async () => {
    await withKey(async (opened) => {
      const F_SETFD = 2;
      for (const [fd] of opened) load().call.fcntl(Number(fd), F_SETFD, 0);
      const inherited = await list();
      for (const [fd, what] of opened) assert(inherited.includes(what), `${fd} is ${what}`);
    });
  });
}
