/** Tests of the hints for failures on different systems, and of the suggestions for unknown names. */
import type { ErrorCode } from "../src/errors.ts";
import { explain } from "../src/system/hints.ts";
import { diagnoseKey } from "../src/keyring/hints.ts";
import { nearestAlgorithm } from "../src/system/nearest.ts";
import { kernelCiphers, privilegesOf, restriction } from "../src/system/files.ts";
import { assert, assertEquals, assertStringIncludes, test } from "./support/deps.ts";
import { cipherEntry, fakeSystem, PRIVILEGED, processStatus, UNPRIVILEGED } from "./support/fake_system.ts";

const INIT = "kcapi_cipher_init";
const RESTRICTED = { "/proc/sys/crypto/af_alg_restrict": "1\n" };
const NOTHING_READABLE = fakeSystem({});

function hint(
  code: ErrorCode,
  files: Record<string, string>,
  { operation = INIT, algorithm = "cbc(aes)", platform = "linux" } = {},
): string {
  return explain(code, operation, algorithm, fakeSystem(files, platform)) ?? "";
}

test("explain() distinguishes causes of EAFNOSUPPORT: a kernel without AF_ALG, a seccomp filter, the sysctl", () => {
  const plain = hint("EAFNOSUPPORT", PRIVILEGED);
  assertStringIncludes(plain, "modprobe -a af_alg");
  assert(!plain.includes("seccomp"), plain);
  const filtered = hint("EAFNOSUPPORT", { "/proc/self/status": processStatus({ seccomp: 2 }) });
  assertStringIncludes(filtered, "RestrictAddressFamilies");
  assertStringIncludes(hint("EAFNOSUPPORT", {}), "RestrictAddressFamilies");
  const off = hint("EAFNOSUPPORT", { ...PRIVILEGED, "/proc/sys/crypto/af_alg_restrict": "2\n" });
  assertStringIncludes(off, "af_alg_restrict is 2");
  assertStringIncludes(hint("EAFNOSUPPORT", {}, { platform: "darwin" }), "use the userspace engine");
});

test("explain() names seccomp as a cause of EPERM and EACCES only if a filter may be active", () => {
  for (const code of ["EPERM", "EACCES"] as const) {
    assertStringIncludes(hint(code, { "/proc/self/status": processStatus({ seccomp: 2 }) }), "seccomp profile");
    assertStringIncludes(hint(code, {}), "seccomp profile");
    const unfiltered = hint(code, PRIVILEGED);
    assertStringIncludes(unfiltered, "SELinux");
    assert(!unfiltered.includes("seccomp"), unfiltered);
  }
});

test("explain() distinguishes causes of ENOENT: a wrong name, a missing module, the allowlist", () => {
  assertStringIncludes(hint("ENOENT", PRIVILEGED, { algorithm: "cbc(ase)" }), 'did you mean "cbc(aes)"?');
  const missing = hint("ENOENT", { ...PRIVILEGED, "/proc/crypto": "" }, { algorithm: "hctr2(aes)" });
  assertStringIncludes(missing, "module");
  assert(!missing.includes("af_alg_restrict"), missing);
  const listed = hint("ENOENT", { ...PRIVILEGED, "/proc/crypto": cipherEntry("cbc(aes)") });
  assertStringIncludes(listed, "modprobe algif_skcipher");
  assertStringIncludes(explain("ENOENT", INIT, "cbc(aes)", NOTHING_READABLE)!, "af_alg_restrict");
  const fips = hint("ENOENT", { ...PRIVILEGED, "/proc/sys/crypto/fips_enabled": "1\n" }, { algorithm: "chacha20" });
  assertStringIncludes(fips, "FIPS");
});

test("explain() of ENOENT knows which processes Linux 7.3 allows to use an algorithm", () => {
  const ciphers = { "/proc/crypto": ["cbc(aes)", "xts(aes)", "chacha20"].map((name) => cipherEntry(name)).join("\n") };
  const user = { ...UNPRIVILEGED, ...RESTRICTED, ...ciphers };
  const root = { ...PRIVILEGED, ...RESTRICTED, ...ciphers };
  const rootInContainer = { ...root, "/proc/self/uid_map": "         0     100000      65536\n" };
  assertStringIncludes(hint("ENOENT", user), "only to processes with CAP_NET_ADMIN or CAP_SYS_ADMIN");
  assertStringIncludes(hint("ENOENT", rootInContainer), "only to processes with CAP_NET_ADMIN or CAP_SYS_ADMIN");
  assertStringIncludes(hint("ENOENT", root), "algif_skcipher");
  for (const files of [user, root]) {
    assertStringIncludes(hint("ENOENT", files, { algorithm: "chacha20" }), "does not serve this algorithm");
    assertStringIncludes(hint("ENOENT", files, { algorithm: "xts(aes)" }), "algif_skcipher");
  }
  const unrestricted = { ...user, "/proc/sys/crypto/af_alg_restrict": "0\n" };
  assertStringIncludes(hint("ENOENT", unrestricted, { algorithm: "chacha20" }), "algif_skcipher");
});

test("explain() of EINVAL from setkey gives the key lengths if it can read them", () => {
  const files = { "/proc/crypto": cipherEntry("serpent-made-up", { "min keysize": "7", "max keysize": "9" }) };
  const options = { operation: "kcapi_cipher_setkey", algorithm: "serpent-made-up" };
  assertStringIncludes(hint("EINVAL", files, options), "7 to 9 bytes");
  assertStringIncludes(hint("EINVAL", {}, options), "see /proc/crypto for the key lengths");
  assertEquals(hint("EINVAL", files), "");
});

test("explain() of EMFILE gives the limit if it can read it", () => {
  const limits = "Limit                     Soft Limit           Hard Limit           Units     \n" +
    "Max open files            1024                 524288               files     \n";
  assertStringIncludes(hint("EMFILE", { "/proc/self/limits": limits }), "limit of 1024 open descriptors");
  assertStringIncludes(hint("EMFILE", {}), "limit of open descriptors");
});

test("explain() has a cause and a remedy for every other errno of the table", () => {
  assertStringIncludes(hint("EPROTONOSUPPORT", {}), "modprobe crypto_user");
  assertStringIncludes(hint("ELIBBAD", {}), "self-test");
  assertStringIncludes(hint("ENFILE", {}), "fs.pipe-user-pages-hard");
  assertStringIncludes(hint("ENOMEM", {}), "optmem_max");
  assertStringIncludes(hint("ENOBUFS", {}), "optmem_max");
  assertStringIncludes(hint("ENOKEY", {}), "no key");
  assertStringIncludes(hint("EKEYREJECTED", {}), "weak");
  assertEquals(explain("EIO", INIT, "cbc(aes)", NOTHING_READABLE), undefined);
});

test("diagnoseKey() distinguishes calls with the same errno, and gives the known key lengths", () => {
  const set = "setsockopt(ALG_SET_KEY_BY_KEY_SERIAL)";
  assertStringIncludes(diagnoseKey("ENOKEY", "request_key")!.cause, "with this type and description");
  assertStringIncludes(diagnoseKey("ENOKEY", set)!.cause, "with this serial");
  assertStringIncludes(diagnoseKey("EINVAL", set, [16, 24])!.remedy, "16 or 24 bytes");
  assertStringIncludes(diagnoseKey("EINVAL", set)!.remedy, "the cipher's number of bytes");
  assertStringIncludes(diagnoseKey("EPERM", "request_key")!.remedy, "pass its serial");
  assertStringIncludes(diagnoseKey("ENOSYS", "add_key")!.remedy, "allow add_key");
  assertStringIncludes(diagnoseKey("EDQUOT", "add_key")!.cause, "kernel.keys.maxkeys");
  assertStringIncludes(diagnoseKey("EKEYREJECTED", "request_key")!.cause, "rejected");
  for (const code of ["EKEYEXPIRED", "EKEYREVOKED", "EACCES"] as const) {
    assertEquals(diagnoseKey(code, set), diagnoseKey(code, "request_key"));
    assert(diagnoseKey(code, set) !== undefined, code);
  }
  assertEquals([diagnoseKey("EIO", set), diagnoseKey("EINVAL", "request_key")], [undefined, undefined]);
});

test("explain() does not throw or end with a period, for any content of the files", () => {
  const texts = [
    "",
    "\0".repeat(99),
    ":\n:\n\n:",
    "name:x\n\nname",
    "Uid:\nCapEff: zz\nSeccomp: two",
    "1",
    "\ufffd\n\n\n",
  ];
  const codes: ErrorCode[] = ["EAFNOSUPPORT", "EPERM", "ENOENT", "EINVAL", "EMFILE", "ENOMEM", "ELIBBAD"];
  for (const text of texts) {
    const system = { platform: "linux", read: () => text };
    for (const code of codes) {
      for (const operation of [INIT, "kcapi_cipher_setkey"]) {
        const message = explain(code, operation, "xyz", system) ?? "";
        assert(!message.endsWith(".") && !message.includes("undefined") && !message.includes("NaN"), message);
      }
    }
  }
});

test("explain() does not throw on the current system", () => {
  assertEquals(typeof explain("ENOENT", INIT, "cbc(aes)"), "string");
  assertEquals(typeof explain("EAFNOSUPPORT", INIT, "cbc(aes)"), "string");
});

test("nearestAlgorithm() corrects misspelled names", () => {
  const meant: Record<string, string> = {
    "cbc(ase)": "cbc(aes)",
    "cbc(aes": "cbc(aes)",
    "cbcaes": "cbc(aes)",
    "cbd(aes)": "cbc(aes)",
    "xts(ase)": "xts(aes)",
    "xtc(aes)": "xts(aes)",
    "ctr(camelia)": "ctr(camellia)",
    "cbc(serpant)": "cbc(serpent)",
    "cbc(des3)": "cbc(des3_ede)",
    "chacha-20": "chacha20",
    "chaca20": "chacha20",
    "xchaha20": "xchacha20",
    "cts(aes)": "cts(cbc(aes))",
    "rfc3686(aes)": "rfc3686(ctr(aes))",
    "adiantum(aes)": "adiantum(xchacha12,aes)",
    "xts": "xts(aes)",
  };
  for (const [name, expected] of Object.entries(meant)) {
    assertEquals(nearestAlgorithm(name, NOTHING_READABLE), expected, name);
  }
});

test("nearestAlgorithm() understands the names of OpenSSL, WebCrypto and dm-crypt", () => {
  const meant: Record<string, string> = {
    "cbc-aes": "cbc(aes)",
    "aes-128-cbc": "cbc(aes)",
    "AES-CBC": "cbc(aes)",
    "AES-CTR": "ctr(aes)",
    "AES256-CBC": "cbc(aes)",
    "aes_192_ctr": "ctr(aes)",
    "aes-256-xts": "xts(aes)",
    "aes-xts-plain64": "xts(aes)",
    "AES-KW": "kw(aes)",
    "des-ede3-cbc": "cbc(des3_ede)",
    "camellia-256-cfb": "cfb(camellia)",
    "SM4-OFB": "ofb(sm4)",
    "ChaCha20": "chacha20",
    "ecb(rc4)": "ecb(arc4)",
  };
  for (const [name, expected] of Object.entries(meant)) {
    assertEquals(nearestAlgorithm(name, NOTHING_READABLE), expected, name);
  }
});

test("nearestAlgorithm() suggests nothing for known names, other algorithms, and names without a similar one", () => {
  const names = [
    ...["cbc(aes)", "chacha20", "cts(cbc(aes))", "essiv(cbc(aes),sha256)", "xts(serpent)"],
    ...["cts(cbc(camellia))", "cts(cbc(des))", "rfc3686(ctr(des))", "essiv(cbc(aes),sha512)", "xctr(aes)"],
    ...["AES-GCM", "aes-256-gcm", "aes-128-ccm", "aes-128-ocb", "aes-siv", "camellia-256-gcm", "aes-256-cfb8"],
    ...["chacha20-poly1305", "aes-128-cbc-hmac-sha1", "chacha8", "rc2-cbc", "idea-cbc", "aes", "aes256", "sm3"],
    ...["nonsense", "foo(bar)", "", "()", "x", "a".repeat(63), "cbc(cbc(cbc(cbc(aes))))"],
  ];
  for (const name of names) assertEquals(nearestAlgorithm(name, NOTHING_READABLE), undefined, name);
});

test("nearestAlgorithm() also suggests algorithms of /proc/crypto", () => {
  const entry = cipherEntry("newmode(newcipher)", { driver: "newmode-newcipher-special" });
  const system = fakeSystem({ "/proc/crypto": entry });
  assertEquals(nearestAlgorithm("newmoed(newcipher)", system), "newmode(newcipher)");
  assertEquals(nearestAlgorithm("newmoed(newcipher)", NOTHING_READABLE), undefined);
  assertEquals(nearestAlgorithm("newmode-newcipher-special", system), undefined);
});

test("privilegesOf() counts capabilities in the initial user namespace only", () => {
  const privileges = (files: Record<string, string>) => privilegesOf(fakeSystem(files));
  assertEquals(privileges(PRIVILEGED), { uid: 0, netAdmin: true, sysAdmin: true, seccomp: false });
  assertEquals(privileges(UNPRIVILEGED), { uid: 1000, netAdmin: false, sysAdmin: false, seccomp: false });
  const { "/proc/self/status": status = "" } = PRIVILEGED;
  const inContainer = { "/proc/self/status": status, "/proc/self/uid_map": "0 100000 65536\n" };
  assertEquals(privileges(inContainer)?.netAdmin, false);
  const oneOnly = (capEff: string) => privileges({ ...PRIVILEGED, "/proc/self/status": processStatus({ capEff }) });
  assertEquals(oneOnly("0000000000001000"), { uid: 0, netAdmin: true, sysAdmin: false, seccomp: false });
  assertEquals(oneOnly("0000000000200000"), { uid: 0, netAdmin: false, sysAdmin: true, seccomp: false });
  assertEquals(privileges({}), undefined);
  assertEquals(privileges({ "/proc/self/status": "Name: x\n" }), undefined);
});

test("restriction() returns undefined for anything but a digit", () => {
  for (const text of ["", "x", "-1", "10", "1\n1"]) {
    assertEquals(restriction(fakeSystem({ "/proc/sys/crypto/af_alg_restrict": text })), undefined, text);
  }
  assertEquals(restriction(fakeSystem({ "/proc/sys/crypto/af_alg_restrict": "0\n" })), 0);
});

test("kernelCiphers() returns the error if /proc/crypto cannot be read", () => {
  assertEquals(kernelCiphers(NOTHING_READABLE) instanceof Error, true);
});
