/**
 * The messages to and from a Worker, as plain values. The name of its first property tells the kind of a message.
 *
 * @module
 */

import { KcapiError } from "../errors.ts";
import type { KernelKey } from "../keyring/kernel_key.ts";
import type { BatchPosition, Job } from "./executor.ts";
import type { TransferredView } from "./shared_buffers.ts";

/** Opens a stream. The memory of the key is moved. In the Worker, a `Secret` owns it. */
export interface OpenMessage {
  readonly open: number;
  readonly job: Job;
  readonly key: ArrayBuffer | KernelKey;
}

/** Runs a batch of the stream with the number `of`. */
export interface BatchMessage {
  readonly batch: number;
  readonly of: number;
  /** Shared buffers that the Worker does not know yet. */
  readonly buffers: readonly ArrayBuffer[];
  readonly pieces: readonly TransferredView[];
  readonly position: BatchPosition;
}

/** A message to a Worker. `quit` closes all streams. */
export type Request = OpenMessage | BatchMessage | { readonly close: number } | { readonly quit: true };

/** A message from a Worker. `quit` confirms that all streams are closed. */
export type Reply =
  | { readonly ready: true }
  | {
    readonly batch: number;
    readonly pieces: readonly TransferredView[];
    readonly failure: SerializedError | undefined;
  }
  | { readonly quit: true };

/** An error as plain values, because structured clone loses the class of an error. */
export interface SerializedError {
  readonly name: string;
  readonly message: string;
  readonly errno?: number;
  readonly operation?: string;
  readonly hint?: string | undefined;
}

/** Turns an error into plain values. */
export function serializeError(error: unknown): SerializedError {
  if (!(error instanceof KcapiError)) {
    return error instanceof Error ? { name: error.name, message: error.message } : { name: "Error", message: "" };
  }
  const { name, detail, errno, operation, hint } = error;
  return { name, message: detail, errno, operation, hint };
}

/** Turns plain values into the error again. */
export function deserializeError({ name, message, errno, operation, hint }: SerializedError): Error {
  if (errno !== undefined) return new KcapiError(errno, operation!, message, { hint });
  if (name === "RangeError") return new RangeError(message);
  if (name === "TypeError") return new TypeError(message);
  return new KcapiError("EIO", "worker", message);
}
