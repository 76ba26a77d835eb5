/** A Worker that streams with its own handles, controlled by `tests/threads_test.ts`. */
import { type Order, stream } from "./streaming.ts";
import { parent } from "./web_worker.ts";

parent.listen(async ({ data }: MessageEvent<Order>) =>
  parent.postMessage(await stream(data, () => parent.postMessage("round")))
);
