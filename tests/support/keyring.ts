/** Keys in the kernel's keyring, added with keyctl(1). */
import { Buffer } from "node:buffer";
import { createDecipheriv, createHash, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { release } from "node:os";
import process from "node:process";
import { CipherHandle, KcapiError, type KernelKey } from "../../mod.ts";
import { parseAlgorithm } from "../../src/algorithms.ts";
import { assert, assertEquals, spawn } from "./deps.ts";
import { type Bytes, bytes } from "./support.ts";

const found = await spawn(["keyctl", "--version"]).catch(() => undefined);
const [major = 0, minor = 0] = release().split(".").map(Number);

/** Whether AF_ALG allows this process to use a cipher. The test uses a key in bytes, not one of the keyring. */
export function isServed(algorithm: string): boolean {
  try {
    CipherHandle.open(algorithm, { key: bytes(keySizeOf(algorithm)), engine: "kernel" }).close();
    return true;
  } catch (error) {
    if (error instanceof KcapiError) return false;
    throw error;
  }
}

export function keySizeOf(algorithm: string): number {
  return parseAlgorithm(algorithm).keySizes?.at(-1) ?? 32;
}

/** The ciphers that every kernel with AF_ALG has. */
export const ALGORITHM = "xts(aes)";

export const isOld: boolean = major < 6 || (major === 6 && minor < 2);
export const hasCipher: boolean = isServed(ALGORITHM);
/** Whether this process can use keys of the keyring, determined without using one. */
export const hasKeys: boolean = found?.code === 0 && hasCipher && !isOld;
export const NO_KEYS = "AF_ALG, Linux 6.2 and keyctl";

/** Runs keyctl and returns its output. */
export async function keyctl(args: readonly string[], input?: Uint8Array): Promise<string> {
  const { code, stdout, stderr } = await spawn(["keyctl", ...args], input ? { input } : {});
  assertEquals([code, stderr], [0, ""], `keyctl ${args[0]}`);
  return stdout.trim();
}

// The kernel searches the session keyring, which does not link to the user keyring in every session.
if (hasKeys) await keyctl(["link", "@u", "@s"]);

/** A key that is in the user keyring until it is disposed. */
export class LoadedKey implements AsyncDisposable {
  readonly serial: number;
  readonly byName: KernelKey;
  readonly bySerial: KernelKey;

  constructor(type: string, description: string, serial: string) {
    this.serial = Number(serial);
    this.byName = { type: type as "logon", description };
    this.bySerial = { serial: this.serial };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await spawn(["keyctl", "unlink", `${this.serial}`, "@u"]);
  }
}

/** Returns a unique description. */
export const newDescription = (): string => `kcapi-test:${process.pid}-${randomBytes(6).toString("hex")}`;

export async function loadKey(type: "logon" | "user", payload: Uint8Array): Promise<LoadedKey> {
  const description = newDescription();
  return new LoadedKey(type, description, await keyctl(["padd", type, description, "@u"], payload));
}

/** Creates a key of the type "encrypted". Returns its content, which the kernel exports only encrypted. */
export async function makeEncryptedKey(size: number): Promise<LoadedKey & { payload: Bytes }> {
  const secret = randomBytes(32);
  await using master = await loadKey("user", secret);
  const { description: masterName } = master.byName as { description: string };
  const description = newDescription();
  const serial = await keyctl(["add", "encrypted", description, `new user:${masterName} ${size}`, "@u"]);
  const payload = decryptKey(await keyctl(["pipe", serial]), secret);
  assertEquals(payload.length, size);
  return Object.assign(new LoadedKey("encrypted", description, serial), { payload });
}

/**
 * Documentation/security/keys/trusted-encrypted.rst: format, master key, length, and in hexadecimal IV, data and HMAC.
 */
function decryptKey(blob: string, master: Uint8Array): Bytes {
  const [, size, digits] = / (\d+) ([0-9a-f]+)$/.exec(blob)!;
  const sealed = Uint8Array.fromHex(digits!);
  // get_derived_key() of security/keys/encrypted-keys/encrypted.c
  const key = createHash("sha256").update("ENC_KEY\0").update(master).update("\0").digest();
  const decipher = createDecipheriv("aes-256-cbc", key, sealed.subarray(0, 16)).setAutoPadding(false);
  // A NUL follows the IV.
  const payload = Buffer.concat([decipher.update(sealed.subarray(17, sealed.length - 32)), decipher.final()]);
  return new Uint8Array(payload.subarray(0, Number(size)));
}

/** Loads the module of a key type, if this process may. */
async function loadModule(name: string): Promise<void> {
  const modprobe = readFileSync("/proc/sys/kernel/modprobe", "utf8").trim();
  await spawn([modprobe || "modprobe", name]).catch(() => undefined);
}

/** Returns why the kernel does not support an encrypted key type, or undefined if it does. */
async function canMake(type: "encrypted" | "trusted"): Promise<boolean> {
  if (!hasKeys) return false;
  await loadModule(`${type}-keys`);
  await loadModule(type);
  await using master = await loadKey("user", randomBytes(32));
  const { description } = master.byName as { description: string };
  const text = type === "encrypted" ? `new user:${description} 32` : "new 32";
  const { code, stdout } = await spawn(["keyctl", "add", type, newDescription(), text, "@u"]);
  if (code === 0) await keyctl(["unlink", stdout.trim(), "@u"]);
  return code === 0;
}

export const hasEncrypted: boolean = await canMake("encrypted");
export const hasTrusted: boolean = await canMake("trusted");

/** Returns the lines of /proc/keys that contain a text. */
export function keysWith(text: string): string[] {
  assert(text.length > 0);
  return readFileSync("/proc/keys", "utf8").split("\n").filter((line) => line.includes(text));
}
