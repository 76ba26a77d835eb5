/** A thread that streams with handles of its own, as `tests/threads_test.ts` tells it to. */
import { type Order, stream } from "./streaming.ts";
import { parent } from "./web_worker.ts";

parent.listen(async ({ data }: MessageEvent<Order>) =>
  parent.postMessage(await stream(data, () => parent.postMessage("round")))
);
