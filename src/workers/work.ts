/**
 * What a Worker does: one unit after the other, each as the streams of this module would.
 *
 * @module
 */

import { allocUnsafe } from "../runtime/mod.ts";
import { parseAlgorithm } from "../algorithms.ts";
import { type Bytes, Scatter, sizeOf } from "../bytes.ts";
import { Cryptor } from "../cipher/cryptor.ts";
import { openEngine } from "../engines/mod.ts";
import { KcapiError } from "../errors.ts";
import type { Key } from "../kernel_key.ts";
import { MOST_SEGMENTS } from "../sealed/format.ts";
import { headerBytes, overflow } from "../sealed/sealer.ts";
import { openSegments, type Segments } from "../sealed/segments.ts";
import { badMessage } from "../sealed/unsealer.ts";
import { onLoan } from "./loan.ts";
import { Secret } from "../secret.ts";
import type { CipherOrder, Order, Place, SealedOrder } from "./messages.ts";

/** One stream's part that is done here. */
export interface Job {
  /** Does a unit: what comes out goes to `outputs`, even where it throws after that. */
  run(list: readonly Bytes[], place: Place, outputs: Bytes[]): void;
  /** Releases everything, and forgets the key. */
  close(): void;
}

/** Opens what an order asks for. */
export function jobOf(order: Order): Job {
  if (order.of === "cipher") return order.isChain ? chain(order) : pieces(order);
  const segments = openSegments(order.format, Secret.adopt(order.key), order.header, order.engine);
  const run = order.of === "seal" ? seal : unseal;
  return { run: (list, place, outputs) => run(order, segments, list, place, outputs), close: () => segments.close() };
}

/** Units that stand alone: each is a stream of its own, under one keyed cipher. */
function pieces({ algorithm, direction, engine: name, padding, sectorSize, inPlace, key }: CipherOrder): Job {
  const parsed = parseAlgorithm(algorithm);
  const engine = openEngine(parsed, keyOf(key), name);
  return {
    run(list, { isLast, iv, sector }, outputs) {
      const cryptor = new Cryptor({
        direction,
        algorithm: parsed,
        iv,
        padding: isLast ? padding : "none",
        sectors: sectorSize === undefined ? undefined : { sectorSize, sector: sector! },
        inPlace,
        open: () => onLoan(engine),
      });
      drive(cryptor, list, true, outputs);
    },
    close: () => engine.close(),
  };
}

/** Units each of which goes on from the one before. */
function chain({ algorithm, direction, engine, padding, inPlace, iv, key }: CipherOrder): Job {
  const parsed = parseAlgorithm(algorithm);
  const open = () => openEngine(parsed, keyOf(key), engine);
  const plan = { direction, algorithm: parsed, iv, padding, sectors: undefined, inPlace };
  const cryptor = new Cryptor({ ...plan, open });
  return {
    run: (list, { isLast }, outputs) => drive(cryptor, list, isLast, outputs),
    close: () => cryptor.close(),
  };
}

function keyOf(key: CipherOrder["key"]): Key {
  return key instanceof ArrayBuffer ? Secret.adopt(key) : key;
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

/** Seals whole segments, of which the last one of all may be shorter. */
function seal(
  { format, header }: SealedOrder,
  segments: Segments,
  list: readonly Bytes[],
  { isLast, index = 0 }: Place,
  outputs: Bytes[],
): void {
  const { segmentSize, tagSize, headerSize } = format;
  const front = index === 0 ? headerSize : 0;
  const input = new Scatter(list);
  const count = Math.max(1, Math.ceil((front + input.remaining) / (segmentSize - tagSize)));
  const sealed = allocUnsafe(front + input.remaining + count * tagSize);
  if (front > 0) sealed.set(headerBytes(format, header));
  let end = 0;
  try {
    for (let i = 0; i < count; i++) {
      if (index + i >= MOST_SEGMENTS) throw overflow();
      const target = sealed.subarray(end || front, (i + 1) * segmentSize);
      const length = target.length - tagSize;
      segments.seal(input.peek(length), { index: index + i, isLast: isLast && i === count - 1 }, target);
      input.advance(length);
      end = (end || front) + target.length;
    }
  } finally {
    addWritten(outputs, sealed, end);
  }
}

/** Unseals whole segments, of which the last one of all may be shorter. */
function unseal(
  { format }: SealedOrder,
  segments: Segments,
  list: readonly Bytes[],
  { isLast, index = 0 }: Place,
  outputs: Bytes[],
): void {
  const { segmentSize, tagSize, headerSize } = format;
  const sealed = joined(list);
  const wholeSize = (i: number) => index + i === 0 ? segmentSize - headerSize : segmentSize;
  const parts: Bytes[] = [];
  for (let at = 0; parts.length === 0 || at < sealed.length;) {
    const size = wholeSize(parts.length);
    parts.push(sealed.subarray(at, at + size));
    at += size;
  }
  const lengths = parts.map(({ length }) => Math.max(0, length - tagSize));
  const opened = allocUnsafe(lengths.reduce((sum, length) => sum + length));
  let end = 0;
  try {
    parts.forEach((segment, i) => {
      if (segment.length < tagSize || index + i >= MOST_SEGMENTS) throw badMessage();
      const target = opened.subarray(end, end + lengths[i]!);
      const isEnd = isLast && i === parts.length - 1;
      const open = (isLast: boolean) => segments.open(segment, { index: index + i, isLast }, target) !== undefined;
      const isGood = open(isEnd);
      // A stream that was cut at a segment's end: what there is of it is good, but no end.
      if (isGood || isEnd && segment.length === wholeSize(i) && open(false)) end += target.length;
      if (!isGood) throw badMessage();
    });
  } finally {
    addWritten(outputs, opened, end);
  }
}

/** Adds the first `length` bytes of new memory. Where they are not all, the others may be anybody's. */
function addWritten(outputs: Bytes[], memory: Bytes, length: number): void {
  if (length > 0) outputs.push(length === memory.length ? memory : memory.slice(0, length));
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
