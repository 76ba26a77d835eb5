/**
 * `ciphers` and `doctor`: the ciphers and engines of this system.
 *
 * @module
 */

import { type CipherInfo, listCiphers, probe } from "../../mod.ts";
import { opensslNames } from "../cipher_names.ts";
import type { Arguments } from "./arguments.ts";
import { print } from "./descriptors.ts";
import { table, wrap } from "./text.ts";

const USES: Readonly<Record<CipherInfo["kind"], string>> = {
  stream: "stream",
  counter: "stream",
  sector: "sectors",
  message: "message",
};

export function ciphers(args: Arguments): Promise<number> {
  probe(); // makes the kernel load the usual modules, because /proc/crypto lists only loaded ones
  // Leaves out ciphers that no engine supports, such as ecb(cipher_null).
  const all = listCiphers().filter(({ engines }) => engines.length > 0);
  if (args.has("json")) {
    const named = all.map((cipher) => ({ ...cipher, opensslNames: opensslNames(cipher.name) }));
    return print(`${JSON.stringify(named, undefined, 2)}\n`);
  }
  // The kernel uses the first implementation of a name.
  const rows = all.filter(({ name }, i) => all[i - 1]?.name !== name).map((cipher) => [
    cipher.name,
    USES[cipher.kind],
    cipher.minKeySize === cipher.maxKeySize
      ? `${8 * cipher.maxKeySize}`
      : `${8 * cipher.minKeySize}-${8 * cipher.maxKeySize}`,
    String(8 * cipher.ivSize),
    cipher.engines.includes("kernel") ? "yes" : "-",
    cipher.engines.includes("userspace") ? "yes" : "-",
    cipher.driver ?? "-",
    opensslNames(cipher.name).join(" "),
  ]);
  return print(
    table([
      ["CIPHER", "USE", "KEY BITS", "IV BITS", "KERNEL", "USERSPACE", "KERNEL'S DRIVER", "OPENSSL'S NAMES"],
      ...rows,
    ]),
  );
}

export async function doctor(args: Arguments): Promise<number> {
  const report = probe();
  const isUsable = report.ciphers.kernel.length > 0;
  if (args.has("json")) {
    await print(`${JSON.stringify(report, undefined, 2)}\n`);
    return isUsable ? 0 : 1;
  }
  const { runtime, platform, arch, kernel, ffi, library, afAlg, netlinkCrypto, afAlgRestrict, privileges } = report;
  const capabilities = [privileges?.netAdmin ? "CAP_NET_ADMIN" : "", privileges?.sysAdmin ? "CAP_SYS_ADMIN" : ""];
  const facts: [string, string | number | null | undefined][] = [
    ["runtime", `${runtime.name} ${runtime.version}, ${platform} ${arch}`],
    ["kernel", kernel],
    ["user", privileges && [`id ${privileges.uid}`, ...capabilities].filter(Boolean).join(", ")],
    ["FFI", ffi],
    ["libkcapi", library ? `${library.version}, ${library.path}` : "not loaded"],
    ["AF_ALG", afAlg],
    ["NETLINK_CRYPTO", netlinkCrypto],
    ["kernel's keyring", report.keyring],
    ["crypto.af_alg_restrict", afAlgRestrict],
    ["window", report.window && `${report.window} bytes`],
    ["kernel engine", report.ciphers.kernel.join(", ") || "no cipher"],
    ["userspace engine", report.ciphers.userspace.join(", ")],
  ];
  const known = facts.filter(([, value]) => value !== null && value !== undefined);
  const problems = report.problems.map(({ what, cause, remedy }) =>
    ["", ...wrap(what, "problem: "), ...wrap(cause, "why:     "), ...wrap(remedy, "remedy:  "), ""].join("\n")
  );
  const verdict = `\nThe kernel engine is ${isUsable ? "usable" : "not usable; the userspace engine is"}.\n`;
  await print([...known.flatMap(([name, value]) => wrap(String(value), `${name}:`.padEnd(24))), ""].join("\n"));
  await print(problems.join("") + verdict);
  return isUsable ? 0 : 1;
}
