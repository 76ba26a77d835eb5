/**
 * An engine on loan: whoever has it does not close it.
 *
 * @module
 */

import type { Engine } from "../engines/engine.ts";

/** `engine` for one use of many, one after the other. */
export function onLoan(engine: Engine): Engine {
  return {
    name: engine.name,
    blockSize: engine.blockSize,
    ivSize: engine.ivSize,
    get window() {
      return engine.window;
    },
    init: (direction, iv) => engine.init(direction, iv),
    update: (list, last) => engine.update(list, last),
    op: (list) => engine.op(list),
    take: (length) => engine.take(length),
    pass: (bytes, inPlace) => engine.pass(bytes, inPlace),
    capacity: (queued) => engine.capacity(queued),
    reinit: () => engine.reinit(),
    close() {},
  };
}
