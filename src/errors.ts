/**
 * The error class of this module.
 *
 * @module
 */

/** The symbolic name of an errno, such as `"EINVAL"`. */
export type ErrorCode = `E${string}`;

/** The errno numbers by name, as far as sealed streams need them; `errno.ts` adds the kernel's. */
const ERRNOS = new Map<string, number>(Object.entries({
  ENOENT: 2,
  EIO: 5,
  EBADF: 9,
  EACCES: 13,
  EINVAL: 22,
  ENOSYS: 38,
  EBADMSG: 74,
  EOVERFLOW: 75,
  ECANCELED: 125,
}));

/** Adds errno numbers by name. */
export function addErrnos(errnos: Readonly<Record<string, number>>): void {
  for (const [name, errno] of Object.entries(errnos)) ERRNOS.set(name, errno);
}

/** Returns the name of `errno`, or `E` and the number if this module has no name for it. */
export function errorCode(errno: number): ErrorCode {
  for (const [name, known] of ERRNOS) if (known === errno) return name as ErrorCode;
  return `E${errno}`;
}

/** The optional fields of a {@linkcode KcapiError}. */
export interface KcapiErrorOptions extends ErrorOptions {
  /** The likely cause on this system, and how to fix it. */
  hint?: string | undefined;
}

/**
 * An error of the kernel, of libkcapi, of the engine, or of the state of a handle or a stream.
 *
 * An argument of a wrong type or size throws a `TypeError` or a `RangeError` instead. No message contains a key, an IV
 * or data.
 *
 * @example Usage
 * ```ts
 * import { CipherHandle, KcapiError } from "@kcapi/streams";
 * import { assert, assertEquals } from "@std/assert";
 *
 * const handle = CipherHandle.open("cbc(aes)", { key: new Uint8Array(16) });
 * handle.close();
 * try {
 *   handle.streamInitEnc(new Uint8Array(16));
 * } catch (error) {
 *   assert(error instanceof KcapiError);
 *   assertEquals(error.code, "EBADF");
 *   assertEquals(error.errno, 9);
 *   assertEquals(error.operation, "streamInitEnc");
 * }
 * ```
 */
export class KcapiError extends Error {
  /** `"KcapiError"`. */
  override readonly name = "KcapiError";
  /** The errno's symbolic name, such as `"EINVAL"`. */
  readonly code: ErrorCode;
  /** The positive errno, in Linux's numbering on every platform. */
  readonly errno: number;
  /** The call that failed: a libkcapi function, or a method of this module. */
  readonly operation: string;
  /** What happened: the message without the operation, the code and the hint. */
  readonly detail: string;
  /** The likely cause on this system and how to fix it, if that is known. */
  readonly hint?: string;

  /**
   * Creates an error. Applications do not need to: the module creates one when something fails.
   *
   * @param code The errno's name, or its positive number.
   * @param operation The call that failed.
   * @param detail What happened, as a sentence without a final period.
   * @param options The hint and the cause.
   */
  constructor(
    code: ErrorCode | number,
    operation: string,
    detail: string,
    options: KcapiErrorOptions = {},
  ) {
    const { hint, ...rest } = options;
    const [name, errno] = typeof code === "number" ? [errorCode(code), code] : [code, ERRNOS.get(code)!];
    super(`${operation}: ${detail} (${name})${hint ? `: ${hint}` : ""}`, rest);
    this.code = name;
    this.errno = errno;
    this.operation = operation;
    this.detail = detail;
    if (hint !== undefined) this.hint = hint;
  }
}
