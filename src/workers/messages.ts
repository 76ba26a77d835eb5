/**
 * What goes to a Worker and comes back: plain values, of which the bytes are moved where nobody else needs them.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { Padding } from "../cipher/options.ts";
import type { Direction, EngineName } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import type { KernelKey } from "../kernel_key.ts";
import type { Format } from "../sealed/format.ts";
import type { Header } from "../sealed/segments.ts";

/** What a Worker opens for a stream. The key's memory is moved there, and owned by a `Secret` there. */
export type Order = CipherOrder | SealedOrder;

/** A bare cipher: for units that stand alone; or with `isChain` for one Worker that does them all. */
export interface CipherOrder {
  readonly of: "cipher";
  readonly isChain: boolean;
  readonly algorithm: string;
  readonly direction: Direction;
  readonly engine: EngineName;
  readonly padding: Padding;
  readonly sectorSize: number | undefined;
  /** Whether output goes into the memory that was moved here; else into new memory. */
  readonly inPlace: boolean;
  /** For a chain. */
  readonly iv: Bytes | undefined;
  readonly key: ArrayBuffer | KernelKey;
}

/** Segments of a sealed stream, under the keys derived for it. */
export interface SealedOrder {
  readonly of: "seal" | "unseal";
  readonly format: Format;
  readonly header: Header;
  readonly engine: EngineName;
  readonly key: ArrayBuffer;
}

/** Where a unit stands in its stream. */
export interface Place {
  readonly isLast: boolean;
  readonly iv?: Bytes | undefined;
  readonly sector?: bigint | undefined;
  /** The number of its first segment. */
  readonly index?: number | undefined;
}

/**
 * Bytes as they are sent: memory that is moved or the number of a block that is known, offset and length. One runtime takes a view
 * apart, element by element.
 */
export type Piece = readonly [memory: ArrayBuffer | number, offset: number, length: number];

/** To a Worker; in the order in which they are posted. */
export type Request =
  | { readonly open: number; readonly order: Order }
  | {
    readonly unit: number;
    readonly of: number;
    /** Blocks that the Worker does not know yet. */
    readonly blocks: readonly ArrayBuffer[];
    readonly pieces: readonly Piece[];
    readonly place: Place;
  }
  | { readonly close: number }
  | { readonly quit: true };

/** What came out of a unit; with a failure, what came out before it. */
export interface Result {
  readonly outputs: readonly Bytes[];
  readonly failure?: Failure | undefined;
}

/** From a Worker. */
export type Reply =
  | { readonly ready: true }
  | { readonly unit: number; readonly pieces: readonly Piece[]; readonly failure: Failure | undefined }
  | { readonly quit: true };

/** An error as plain values: a runtime's own copy of one loses its class. */
export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly errno?: number;
  readonly operation?: string;
  readonly hint?: string | undefined;
}

/** An error, taken apart. */
export function failureOf(error: unknown): Failure {
  if (!(error instanceof KcapiError)) {
    return error instanceof Error ? { name: error.name, message: error.message } : { name: "Error", message: "" };
  }
  const { name, errno, operation, hint, detail } = error;
  return { name, errno, operation, hint, message: detail };
}

/** The same error, put together again; one of this thread as it is. */
export function errorOf(failure: Failure): Error {
  if (failure instanceof Error) return failure;
  const { name, message, errno, operation, hint } = failure;
  if (errno !== undefined) return new KcapiError(errno, operation!, message, { hint });
  if (name === "RangeError") return new RangeError(message);
  if (name === "TypeError") return new TypeError(message);
  return new KcapiError("EIO", "worker", message);
}
