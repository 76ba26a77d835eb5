/** A thread that streams with handles of its own, as `tests/threads_test.ts` tells it to. */
import { type Order, stream } from "./streaming.ts";

const scope = globalThis as unknown as {
  onmessage: (event: MessageEvent<Order>) => void;
  postMessage(message: unknown): void;
};

scope.onmessage = async ({ data }) => scope.postMessage(await stream(data, () => scope.postMessage("round")));
