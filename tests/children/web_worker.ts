/** Web Workers for tests. Node does not have them, so this wraps `node:worker_threads`. */
import * as threads from "node:worker_threads";

type MessageListener = (event: MessageEvent) => void;

class NodeWorker {
  onmessage: MessageListener = () => {};
  onerror: (event: ErrorEvent) => void = () => {};
  readonly #worker: threads.Worker;

  constructor(url: URL) {
    this.#worker = new threads.Worker(url);
    this.#worker.on("message", (data) => this.onmessage({ data } as MessageEvent));
    this.#worker.on("error", ({ message }: Error) => this.onerror({ message, preventDefault() {} } as ErrorEvent));
  }

  postMessage(message: unknown): void {
    this.#worker.postMessage(message);
  }

  terminate(): void {
    void this.#worker.terminate();
  }
}

export const WebWorker = (globalThis.Worker ?? NodeWorker) as typeof Worker;

/** In a Worker, the port to its creator. */
interface Parent {
  listen(listener: MessageListener): void;
  postMessage(message: unknown): void;
}

const scope = globalThis as unknown as { onmessage: MessageListener; postMessage(message: unknown): void };

export const parent: Parent = "postMessage" in globalThis
  ? {
    listen: (listener) => scope.onmessage = listener,
    postMessage: (message) => scope.postMessage(message),
  }
  : {
    listen: (listener) => void threads.parentPort!.on("message", (data) => listener({ data } as MessageEvent)),
    postMessage: (message) => threads.parentPort!.postMessage(message),
  };
