/**
 * How a stream is cut into units: by rule from its mode, for what stands alone in one does not in another (rule F5).
 *
 * @module
 */

import type { Algorithm } from "../algorithms.ts";
import type { Bytes } from "../bytes.ts";
import { type CipherPlan, Cryptor } from "../cipher/cryptor.ts";
import type { CipherWork } from "../cipher/prepare.ts";
import type { Direction, EngineName } from "../engines/engine.ts";
import { resolveKernelKey } from "../engines/keyring.ts";
import { openEngine } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import { cloneKey, disposeKey } from "../kernel_key.ts";
import { Secret } from "../secret.ts";
import type { SealPlan } from "../sealed/options.ts";
import type { SealWork } from "../sealed/sealer.ts";
import { deriveKeys, type Header } from "../sealed/segments.ts";
import { badMessage, engineFor, parseHeader, type UnsealWork } from "../sealed/unsealer.ts";
import type { Order, Place } from "./messages.ts";

/** What a pool can do. */
export type Work = CipherWork | SealWork | UnsealWork;

/** How one stream is cut. Positions count its input's bytes; those of sealed streams as if the header stood in front. */
export interface Cut {
  readonly engine: EngineName;
  /** Whether a unit goes on from the one before: then one Worker does all of them. */
  readonly isChain: boolean;
  /** Bytes in front of the first unit, for {@linkcode begin}. */
  readonly headSize: number;
  /** Where the first unit begins. */
  readonly start: number;
  /** All units but the last end at a multiple of this. */
  readonly step: number;
  /** Keep at least so many bytes for the last unit. */
  readonly hold: 0 | 1;
  /** Whether the end is a unit even where no bytes are left for it. */
  readonly hasEnd: boolean;
  /** Learns the head. */
  begin(head: Bytes): void;
  /** What a Worker needs, with a copy of the key of its own. */
  order(): Order;
  /** What a Worker has to know of the next unit. Called once for each, in order. */
  place(position: number, unit: readonly Bytes[]): Omit<Place, "isLast">;
  /** Forgets the key. */
  close(): void;
}

/**
 * Finds out how `work` is cut. Its stream is opened here, too, and closed again: for the engine's name, and for the errors that
 * it would have.
 */
export function cutOf(work: Work): Cut {
  if (work.of === "cipher") return cipherCut(work);
  return work.of === "seal" ? sealCut(work) : unsealCut(work);
}

const NO_HEAD = { headSize: 0, begin() {} };

function cipherCut({ plan, key: given, choice }: CipherWork): Cut {
  const { algorithm, direction, iv, padding, sectors, inPlace } = plan;
  // Once for all Workers, and before the first of them: what keeps it from being found is this stream's error.
  const key = given instanceof Secret ? given : { serial: resolveKernelKey(given) };
  const trial = new Cryptor({ ...plan, open: () => openEngine(algorithm, cloneKey(key), choice) });
  trial.close();
  const { engine } = trial;
  const isPadded = padding === "pkcs7";
  const places = placesOf(plan);
  const isChain = places === undefined;
  const step = isChain ? 1 : sectors?.sectorSize ?? algorithm.chunkSize;
  return {
    engine,
    isChain,
    ...NO_HEAD,
    start: 0,
    step,
    hold: isPadded && direction === "decrypt" && !isChain ? 1 : 0,
    hasEnd: isChain || isPadded && direction === "encrypt",
    order: () => ({
      of: "cipher",
      isChain,
      algorithm: algorithm.name,
      direction,
      engine,
      padding,
      sectorSize: sectors?.sectorSize,
      inPlace,
      iv,
      key: key instanceof Secret ? key.clone().release() : key,
    }),
    place: (position, unit) => places?.(position, unit) ?? {},
    close: () => disposeKey(key),
  };
}

/** With what a unit begins that stands alone. */
type Places = (position: number, unit: readonly Bytes[]) => { iv?: Bytes | undefined; sector?: bigint };

/** Undefined where none does. */
function placesOf({ algorithm, direction, iv, sectors }: CipherPlan): Places | undefined {
  if (sectors) {
    const { sector, sectorSize } = sectors;
    return (position) => ({ sector: sector + BigInt(position / sectorSize) });
  }
  if (algorithm.oneStreamPerKey || !iv && algorithm.mode !== "ecb") return undefined;
  if (algorithm.kind === "counter") return (position) => ({ iv: littleEndianCounter(algorithm, iv!, position) });
  if (algorithm.kind !== "stream") return undefined;
  if (algorithm.mode === "ecb") return () => ({});
  if (algorithm.mode === "ctr") return (position) => ({ iv: bigEndianCounter(iv!, position / iv!.length) });
  return isFedByCiphertext(algorithm, direction) ? fedByCiphertext(iv!) : undefined;
}

/** SP 800-38A: the whole counter block is a big-endian number. */
function bigEndianCounter(iv: Bytes, blocks: number): Bytes {
  const counter = iv.slice();
  for (let i = counter.length - 1; i >= 0 && blocks > 0; i--) {
    const sum = counter[i]! + blocks % 256;
    counter[i] = sum;
    blocks = Math.floor(blocks / 256) + (sum >> 8);
  }
  return counter;
}

/** A block counter of 32 bits, at whose end the stream ends, too. */
function littleEndianCounter({ name, chunkSize, counterOffset }: Algorithm, iv: Bytes, position: number): Bytes {
  const counter = iv.slice();
  const view = new DataView(counter.buffer);
  const block = view.getUint32(counterOffset, true) + position / chunkSize;
  if (block >= 2 ** 32) {
    throw new KcapiError("EOVERFLOW", "stream", `the block counter of ${name} ends here, after 2^32 blocks`, {
      hint: "use another nonce for what follows",
    });
  }
  view.setUint32(counterOffset, block, true);
  return counter;
}

/** Decryption in these modes needs nothing but the block of ciphertext before. */
function isFedByCiphertext({ mode }: Algorithm, direction: Direction): boolean {
  return direction === "decrypt" && (mode === "cbc" || mode === "cfb");
}

function fedByCiphertext(iv: Bytes): Places {
  let previous = iv;
  return (_, unit) => {
    const place = { iv: previous };
    previous = endOf(unit, iv.length);
    return place;
  };
}

/** The last `length` bytes of a list. */
function endOf(list: readonly Bytes[], length: number): Bytes {
  const end = new Uint8Array(length);
  for (let i = list.length - 1, at = length; i >= 0 && at > 0; i--) {
    const part = list[i]!.subarray(-at);
    end.set(part, at -= part.length);
  }
  return end;
}

function sealCut({ plan, header }: SealWork): Cut {
  const { format, key, associatedData } = plan;
  const keys: Partial<Keys> = {};
  const cut = sealedCut("seal", plan, format.segmentSize - format.tagSize, keys);
  Object.assign(keys, { header, derived: deriveKeys(format, key, header, associatedData) });
  key.dispose();
  return { ...cut, ...NO_HEAD };
}

function unsealCut({ plan }: UnsealWork): Cut {
  const { format, key, associatedData } = plan;
  const keys: Partial<Keys> = {};
  const cut = sealedCut("unseal", plan, format.segmentSize, keys);
  return {
    ...cut,
    headSize: format.headerSize,
    begin(head) {
      const header = head.length === format.headerSize ? parseHeader(format, head) : undefined;
      if (!header) throw badMessage();
      Object.assign(keys, { header, derived: deriveKeys(format, key, header, associatedData) });
      key.dispose();
    },
    close() {
      key.dispose();
      cut.close();
    },
  };
}

/** Known from the beginning, or once the head has come. */
interface Keys {
  readonly header: Header;
  readonly derived: Secret;
}

function sealedCut(
  of: "seal" | "unseal",
  plan: SealPlan,
  step: number,
  keys: Partial<Keys>,
): Omit<Cut, "headSize" | "begin"> {
  const { format } = plan;
  const engine = engineFor(plan);
  return {
    engine,
    isChain: false,
    start: format.headerSize,
    step,
    hold: 1,
    hasEnd: false,
    order: () => ({ of, format, header: keys.header!, engine, key: keys.derived!.clone().release() }),
    place: (position) => ({ index: Math.floor(position / step) }),
    close: () => keys.derived?.dispose(),
  };
}
