/**
 * How sealed streams are cut into segments, and the streams that do it.
 *
 * @module
 */

import { BatchTransform } from "../executors/batch_transform.ts";
import type { SplitRule } from "../executors/executor.ts";
import type { TransformFactory } from "../streams/transform.ts";
import {
  createBadMessageError,
  type Header,
  MOST_SEGMENTS,
  parseHeader,
  randomHeader,
  SegmentLayout,
} from "./format.ts";
import type { SealPlan } from "./options.ts";

/**
 * A stream that seals.
 *
 * @param header The header. Only tests pass one: a salt must be random.
 */
export function sealFactory(plan: SealPlan, header: Header = randomHeader(plan.format)): TransformFactory {
  return factoryOf(plan, () => sealRule(plan, header));
}

/** A stream that unseals. */
export function unsealFactory(plan: SealPlan): TransformFactory {
  return factoryOf(plan, () => unsealRule(plan));
}

function factoryOf({ key, signals, inPlace }: SealPlan, makeRule: () => SplitRule): TransformFactory {
  return {
    signals,
    inPlace,
    open() {
      try {
        return new BatchTransform(makeRule(), inPlace);
      } catch (error) {
        key.dispose();
        throw error;
      }
    },
    discard: () => key.dispose(),
  };
}

/**
 * How plaintext is split. Whether a segment is the last one is part of its nonce, so that a full segment waits for
 * another byte, or for the end.
 *
 * @param first The number of the first segment: for tests of the last ones.
 */
export function sealRule(plan: SealPlan, header: Header, first = 0): SplitRule {
  const { plaintext } = new SegmentLayout(plan.format);
  return {
    engine: undefined,
    headSize: 0,
    first,
    lookahead: 1,
    isEager: false,
    hasEnd: false,
    isContiguous: false,
    lengthOf: (index, count) => plaintext.lengthOf(index, count),
    countOf: (index, length) => plaintext.countOf(index, length),
    positionOf: (index, isLast) => ({ index, isLast }),
    open: () => plan.engines.open("seal", plan, header),
    discard: () => plan.key.dispose(),
  };
}

/**
 * How sealed bytes are split. In this thread a full segment is first verified as a non-final one. If that fails, it is
 * kept and verified as the final segment when the input ends.
 */
export function unsealRule(plan: SealPlan, first = 0): SplitRule {
  const { format, executor } = plan;
  const engine = plan.engines.engineFor(plan);
  const isAsync = executor !== undefined || engine === "webcrypto";
  const { sealed } = new SegmentLayout(format);
  return {
    engine,
    headSize: format.headerSize,
    first,
    lookahead: 1,
    isEager: !isAsync,
    hasEnd: !isAsync,
    isContiguous: true,
    lengthOf: (index, count) => sealed.lengthOf(index, count),
    countOf: (index, length) => sealed.countOf(index, length),
    positionOf(index, isLast) {
      if (index >= MOST_SEGMENTS) throw createBadMessageError();
      return { index, isLast };
    },
    open: (head) => plan.engines.open("unseal", plan, parseHeader(format, head)),
    discard: () => plan.key.dispose(),
  };
}
