/**
 * {@linkcode deferStream}: a pair of streams whose cipher is opened asynchronously, when the first bytes are there.
 *
 * @module
 */

import { onAbort, type WeakAbortListener } from "../abort.ts";
import { type Bytes, type BytesLike, toUint8Array } from "../bytes.ts";

/** A readable and a writable side. */
export interface StreamSides {
  readonly readable: ReadableStream<Bytes>;
  readonly writable: WritableStream<BytesLike>;
}

/** The open streams, which process the bytes. */
interface OpenedStream {
  readonly stream: StreamSides;
  /** Output before that of the stream. */
  readonly prefix?: Bytes | undefined;
  /** Bytes that `add` has read and that the stream must process. */
  readonly rest?: Bytes | undefined;
}

/** How a deferred stream is opened. Either function may throw, which errors both sides. */
export interface Opening {
  /** Reads a chunk, in memory of the caller. Returns undefined if it needs more bytes. */
  add(chunk: Bytes): Promise<OpenedStream> | undefined;
  /** Called if the input ends before the stream was opened. */
  end(): Promise<OpenedStream>;
  /** Returns the error that the caller gets in the place of one of the open streams. */
  explain?(error: unknown): unknown;
}

/**
 * Creates a pair of streams that forwards everything to the streams that `opening` opens: bytes, backpressure, errors,
 * abort and cancel. After an abort or cancel before the opening, nothing is opened. After one during the opening, the
 * opened streams are aborted.
 *
 * @param signal Aborts both sides until the streams are open. From then on, the streams must listen to it themselves.
 */
export function deferStream(opening: Opening, signal?: AbortSignal): StreamSides {
  const opened = Promise.withResolvers<{ prefix: Bytes | undefined; reader: ReadableStreamDefaultReader<Bytes> }>();
  opened.promise.catch(() => {}); // the reader gets the error
  let writer: WritableStreamDefaultWriter<BytesLike> | undefined;
  let controller!: WritableStreamDefaultController;
  let output!: ReadableStreamDefaultController<Bytes>;
  let listener: WeakAbortListener<typeof sides> | undefined = undefined;
  let failure: { readonly reason: unknown } | undefined;

  async function open(opening: Promise<OpenedStream>): Promise<void> {
    const { stream, prefix, rest } = await opening;
    if (failure) {
      stream.writable.abort(failure.reason).catch(() => {});
      throw failure.reason;
    }
    listener?.stop();
    writer = stream.writable.getWriter();
    writer.closed.catch(() => {}); // each write and read gets the error
    opened.resolve({ prefix, reader: stream.readable.getReader() });
    if (rest && rest.length > 0) await writer.write(rest);
  }

  function fail(reason: unknown): void {
    failure ??= { reason };
    opened.reject(reason);
    listener?.stop();
  }

  /** Both sides refer to it, and the signal does so weakly. */
  const sides = {
    abort(reason: unknown): void {
      fail(reason);
      controller.error(reason);
      output.error(reason);
    },
  };

  const explain = (error: unknown) => opening.explain?.(error) ?? error;

  async function guard(action: () => Promise<void> | undefined): Promise<void> {
    try {
      await action();
    } catch (error) {
      const failure = explain(error);
      fail(failure);
      throw failure;
    }
  }

  const writable = new WritableStream<BytesLike>({
    start(sink) {
      controller = sink;
      sink.signal.addEventListener("abort", () => {
        fail(sink.signal.reason);
        writer?.abort(sink.signal.reason).catch(() => {});
      });
    },
    write: (chunk) =>
      guard(() => {
        if (writer) return writer.write(chunk);
        const opening_ = opening.add(toUint8Array("chunk", chunk));
        return opening_ && open(opening_);
      }),
    close: () =>
      guard(async () => {
        if (!writer) await open(opening.end());
        await writer!.close();
      }),
  });

  let isFirst = true;
  const readable = new ReadableStream<Bytes>({
    start: (given) => void (output = given),
    async pull(readable) {
      listener?.retain(sides);
      const { prefix, reader } = await opened.promise;
      if (isFirst) {
        isFirst = false;
        if (prefix && prefix.length > 0) return readable.enqueue(prefix);
      }
      const { value, done } = await reader.read().catch((error) => {
        throw explain(error);
      });
      if (done) readable.close();
      else readable.enqueue(value);
    },
    async cancel(reason) {
      fail(reason);
      controller.error(reason);
      const open = await opened.promise.catch(() => undefined);
      await open?.reader.cancel(reason);
    },
  }, { highWaterMark: 0 });
  listener = onAbort(signal ? [signal] : [], sides, abortSides);
  return { readable, writable };
}

function abortSides(sides: { abort(reason: unknown): void }, reason: unknown): void {
  sides.abort(reason);
}
