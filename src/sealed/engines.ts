/**
 * Which engine runs a sealed stream on a server: the kernel, `node:crypto`, a pool's Workers, or WebCrypto. In a
 * browser there is only the last one.
 *
 * @module
 */

import { parseAlgorithm } from "../algorithms.ts";
import type { CipherEngineName, EngineName } from "../engines/engine.ts";
import { chooseEngine, type EngineChoice } from "../engines/mod.ts";
import { checkPool } from "../executors/executor.ts";
import { checkKernelKey } from "../keyring/kernel_key.ts";
import { oneOf, type OptionNames } from "../options.ts";
import { cryptoBackend, hasNodeModules, requireServer } from "../runtime/mod.ts";
import { openSegments } from "./batches.ts";
import type { Format } from "./format.ts";
import type { SourceKey } from "./key_source.ts";
import { COMMON_OPTIONS, type Engines, type SealOptions, type SealPlan } from "./options.ts";
import { deriveKeys } from "./segment_cipher.ts";
import { openWebCrypto, WEBCRYPTO } from "./webcrypto.ts";

const OPTIONS: OptionNames<SealOptions> = { ...COMMON_OPTIONS, pool: true };

/** The engines of `@kcapi/streams`. */
export const ENGINES: Engines = {
  optionNames: OPTIONS,
  refuseKey(name, key) {
    if (!checkKernelKey(key)) return;
    throw new TypeError(
      `"${name}" expected bytes, got a key of the kernel's keyring: ` +
        "sealed streams derive their keys in this process, which never has that key",
    );
  },
  choose({ engine = "auto", pool }, keys) {
    const choice = oneOf("engine", engine, ["auto", "kernel", "userspace", "webcrypto"]);
    const executor = checkPool(pool);
    const checked = checkEngineFor(keys, choice);
    if (checked !== "webcrypto" || !executor) return { engine: checked, executor };
    throw new TypeError('"pool" expected undefined with WebCrypto, which runs in threads of its own, got a WorkerPool');
  },
  engineFor,
  open(kind, plan, header) {
    if (engineFor(plan) === "webcrypto") {
      return hasNodeModules() ? openWebCrypto(kind, plan, header, deriveKeys) : WEBCRYPTO.open(kind, plan, header);
    }
    const { format, key, associatedData, executor } = plan;
    using _ = key;
    const engine = plan.engine as EngineChoice;
    const derived = deriveKeys(format, key, header, associatedData);
    if (!executor) return openSegments({ kind, format, header, engine }, derived);
    const job = { kind, format, header, engine: cipherEngineFor(format, engine) };
    return executor.open(job, derived);
  },
};

/** One CryptoKey has WebCrypto run all of a list, so that a stream knows its engine before it has chosen a key. */
function checkEngineFor(keys: readonly SourceKey[], choice: SealPlan["engine"]): SealPlan["engine"] {
  if (choice === "kernel" && keys.some(({ format }) => format.cipher === "AES-GCM-HKDF")) {
    throw new TypeError(
      '"engine" expected "auto", "userspace" or "webcrypto" for AES-GCM-HKDF, got "kernel": ' +
        "use a format of AES-CTR-HMAC",
    );
  }
  if (!keys.some(({ cryptoKey }) => cryptoKey)) return choice;
  if (choice === "auto" || choice === "webcrypto") return "webcrypto";
  throw new TypeError(`"engine" expected "auto" or "webcrypto" for a CryptoKey, got "${choice}"`);
}

/**
 * The ciphers for which `"auto"` uses WebCrypto in place of `node:crypto`, because it is faster. MB/s of sealing and
 * unsealing, AES256, segments of 64 KiB, medians of 5 runs of 52 MB on two cores under other load:
 *
 * |               | AES-GCM-HKDF, userspace | webcrypto | AES-CTR-HMAC, userspace | webcrypto |
 * | ------------- | ----------------------- | --------- | ----------------------- | --------- |
 * | Deno 2.9.6    | 31, 41                  | 216, 316  | 94, 128                 | 188, 241  |
 * | Bun 1.4.5     | 913, 425                | 293, 281  | 287, 332                | 206, 226  |
 *
 * Deno keeps `node:crypto` for AES-CTR-HMAC, because it reaches 890 MB/s on an idle machine, and 267 for AES-GCM
 * (docs/performance.md). In Node, userspace reached 665 MB/s for AES-GCM-HKDF and 379 for AES-CTR-HMAC, a loop of
 * WebCrypto calls 452 and 227.
 */
const FASTER_IN_WEBCRYPTO: Readonly<Record<ReturnType<typeof cryptoBackend>, readonly Format["cipher"][]>> = {
  rustcrypto: ["AES-GCM-HKDF"],
  boringssl: [],
  openssl: [],
};

/**
 * `"auto"` uses the kernel if it supports the cipher. Otherwise it uses WebCrypto if it is the only engine or the
 * faster one, and userspace in all other cases. Workers of a pool do not use WebCrypto.
 */
function engineFor(plan: SealPlan): EngineName {
  const { format, engine, executor } = plan;
  if (engine === "webcrypto" || engine === "auto" && !hasNodeModules()) return WEBCRYPTO.engineFor(plan);
  requireServer("open");
  const chosen = cipherEngineFor(format, engine);
  const isFaster = FASTER_IN_WEBCRYPTO[cryptoBackend()].includes(format.cipher);
  const isBetter = engine === "auto" && chosen === "userspace" && isFaster && !executor;
  return isBetter ? WEBCRYPTO.engineFor(plan) : chosen;
}

function cipherEngineFor(format: Format, engine: EngineChoice): CipherEngineName {
  if (format.cipher === "AES-GCM-HKDF") return "userspace";
  return chooseEngine(parseAlgorithm("ctr(aes)"), format.keySize, engine);
}
