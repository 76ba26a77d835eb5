/** Fake systems: the content of their files. */
import type { System } from "../../src/system/files.ts";

/** Creates a system on which only these files can be read. */
export function fakeSystem(files: Readonly<Record<string, string>>, platform = "linux"): System {
  return {
    platform,
    read: (path) => Object.hasOwn(files, path) ? files[path]! : new Error(`reading ${path} is not permitted`),
  };
}

/** Creates /proc/self/status with the relevant lines and some others. */
export function processStatus({ uid = 0, capEff = "000001ffffffffff", seccomp = 0 } = {}): string {
  return [
    "Name:\tbun",
    "Umask:\t0022",
    `Uid:\t${uid}\t${uid}\t${uid}\t${uid}`,
    `Gid:\t${uid}\t${uid}\t${uid}\t${uid}`,
    "CapInh:\t0000000000000000",
    "CapPrm:\t000001ffffffffff",
    `CapEff:\t${capEff}`,
    "CapBnd:\t000001ffffffffff",
    "NoNewPrivs:\t0",
    `Seccomp:\t${seccomp}`,
    `Seccomp_filters:\t${seccomp}`,
    "",
  ].join("\n");
}

const UID_MAP = { "/proc/self/uid_map": "         0          0 4294967295\n" };

/** Root outside a container. */
export const PRIVILEGED: Readonly<Record<string, string>> = { "/proc/self/status": processStatus(), ...UID_MAP };

/** An unprivileged user. */
export const UNPRIVILEGED: Readonly<Record<string, string>> = {
  "/proc/self/status": processStatus({ uid: 1000, capEff: "0000000000000000" }),
  ...UID_MAP,
};

/** Creates an entry of /proc/crypto: that of cbc(aes) on Linux 6.1, with another name. */
export function cipherEntry(name: string, fields: Record<string, string> = {}): string {
  const entry = {
    name,
    driver: `${name}-generic`,
    module: "cbc",
    priority: "100",
    refcnt: "1",
    selftest: "passed",
    internal: "no",
    type: "skcipher",
    async: "no",
    blocksize: "16",
    "min keysize": "16",
    "max keysize": "32",
    ivsize: "16",
    chunksize: "16",
    walksize: "16",
    ...fields,
  };
  return Object.entries(entry).map(([key, value]) => `${key.padEnd(13)}: ${value}\n`).join("");
}
