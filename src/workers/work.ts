/**
 * What a Worker does: one unit after the other, each as the streams of this module would.
 *
 * @module
 */

import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, sizeOf } from "../bytes.ts";
import { Cryptor } from "../cipher/cryptor.ts";
import { openEngine } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import { MOST_SEGMENTS } from "../sealed/format.ts";
import { headerBytes, overflow } from "../sealed/sealer.ts";
import { openSegments, type Segments } from "../sealed/segments.ts";
import { badMessage } from "../sealed/unsealer.ts";
import { onLoan } from "./loan.ts";
import type { CipherOrder, Order, Place, SealedOrder } from "./messages.ts";

/** One stream's part that is done here. */
export interface Job {
  /** Does a unit: what comes out goes to `outputs`, even where it throws after that, and lies in the unit's own memory. */
  run(list: readonly Bytes[], place: Place, outputs: Bytes[]): void;
  /** Releases everything, and forgets the key. */
  close(): void;
}

/** Opens what an order asks for. */
export function jobOf(order: Order): Job {
  if (order.of === "cipher") return order.isChain ? chain(order) : pieces(order);
  const segments = openSegments(order.format, order.key, order.header, order.engine);
  const run = order.of === "seal" ? seal : unseal;
  return { run: (list, place, outputs) => run(order, segments, list, place, outputs), close: () => segments.close() };
}

/** Units that stand alone: each is a stream of its own, under one keyed cipher. */
function pieces({ algorithm, direction, engine: name, padding, sectorSize, key }: CipherOrder): Job {
  const parsed = parseAlgorithm(algorithm);
  const engine = openEngine(parsed, key, name);
  return {
    run(list, { isLast, iv, sector }, outputs) {
      const cryptor = new Cryptor({
        direction,
        algorithm: parsed,
        iv,
        padding: isLast ? padding : "none",
        sectors: sectorSize === undefined ? undefined : { sectorSize, sector: sector! },
        inPlace: true,
        open: () => onLoan(engine),
      });
      drive(cryptor, list, true, outputs);
    },
    close: () => engine.close(),
  };
}

/** Units each of which goes on from the one before. */
function chain({ algorithm, direction, engine, padding, iv, key }: CipherOrder): Job {
  const parsed = parseAlgorithm(algorithm);
  const open = () => openEngine(parsed, key, engine);
  const plan = { direction, algorithm: parsed, iv, padding, sectors: undefined, inPlace: true };
  const cryptor = new Cryptor({ ...plan, open });
  return {
    run: (list, { isLast }, outputs) => drive(cryptor, list, isLast, outputs),
    close: () => cryptor.close(),
  };
}

function drive(cryptor: Cryptor, list: readonly Bytes[], ends: boolean, outputs: Bytes[]): void {
  const read = () => {
    while (cryptor.pending) {
      const output = cryptor.read();
      if (output) add(outputs, output);
    }
  };
  if (list.length > 0) cryptor.write(list);
  read();
  if (!ends) return;
  cryptor.end();
  read();
}

/** Adds an output; together with the one before, where they are neighbours in memory. */
function add(outputs: Bytes[], output: Bytes): void {
  const last = outputs.at(-1);
  if (last?.buffer === output.buffer && last.byteOffset + last.length === output.byteOffset) {
    outputs[outputs.length - 1] = new Uint8Array(last.buffer, last.byteOffset, last.length + output.length);
  } else {
    outputs.push(output);
  }
}

/** Seals whole segments, of which the last one of all may be shorter: where they are, with room for header and tags. */
function seal(
  { format, header }: SealedOrder,
  segments: Segments,
  [sealed]: readonly Bytes[],
  { isLast, index = 0 }: Place,
  outputs: Bytes[],
): void {
  const { segmentSize, tagSize, headerSize } = format;
  const { length } = sealed!;
  if (index === 0) sealed!.set(headerBytes(format, header));
  for (let i = 0, end = 0; end < length; i++) {
    if (index + i >= MOST_SEGMENTS) throw overflow();
    const start = index + i === 0 ? headerSize : end;
    end = Math.min((i + 1) * segmentSize, length);
    const place = { index: index + i, isLast: isLast && end === length };
    segments.seal([sealed!.subarray(start, end - tagSize)], place, sealed!.subarray(start, end));
    outputs[0] = sealed!.subarray(0, end);
  }
}

/** Unseals whole segments, of which the last one of all may be shorter: where they are, one behind the other. */
function unseal(
  { format }: SealedOrder,
  segments: Segments,
  list: readonly Bytes[],
  { isLast, index = 0 }: Place,
  outputs: Bytes[],
): void {
  const { segmentSize, tagSize, headerSize } = format;
  const sealed = joined(list);
  let opened = 0;
  for (let i = 0, at = 0; i === 0 || at < sealed.length; i++) {
    const size = segmentSize - (index + i === 0 ? headerSize : 0);
    const segment = sealed.subarray(at, at += Math.min(size, sealed.length - at));
    if (segment.length < tagSize || index + i >= MOST_SEGMENTS) throw badMessage();
    const length = segment.length - tagSize;
    const target = sealed.subarray(opened, opened + length);
    const place = { index: index + i, isLast: isLast && at === sealed.length };
    if (!segments.open(segment, place, target)) throw badMessage();
    opened += length;
    if (opened > 0) outputs[0] = sealed.subarray(0, opened);
  }
}

/** A list in one piece. */
function joined(list: readonly Bytes[]): Bytes {
  if (list.length === 1) return list[0]!;
  const whole = new Uint8Array(sizeOf(list));
  let at = 0;
  for (const bytes of list) {
    whole.set(bytes, at);
    at += bytes.length;
  }
  return whole;
}

/** A cipher that is not what it should be here. */
export function unknownJob(): KcapiError {
  return new KcapiError("EBADF", "worker", "the stream is not open in this Worker");
}
