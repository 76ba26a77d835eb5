/**
 * The error class of this module, and the errno names it uses.
 *
 * @module
 */

/** The Linux errno numbers (asm-generic) that sockets, the crypto API, the keyring and the loader return. */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,
  ENODEV: 19,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  EPIPE: 32,
  ERANGE: 34,
  ENOSYS: 38,
  EPROTO: 71,
  EBADMSG: 74,
  EOVERFLOW: 75,
  ELIBACC: 79,
  ELIBBAD: 80,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EPROTONOSUPPORT: 93,
  ESOCKTNOSUPPORT: 94,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  ENOBUFS: 105,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EDQUOT: 122,
  ECANCELED: 125,
  ENOKEY: 126,
  EKEYEXPIRED: 127,
  EKEYREVOKED: 128,
  EKEYREJECTED: 129,
} as const;

/** The symbolic name of an errno, such as `"EINVAL"`. */
export type ErrorCode = `E${string}`;

const NAMES = new Map<number, ErrorCode>(
  Object.entries(ERRNO).map(([code, errno]) => [errno, code as ErrorCode]),
);

/** Returns the name of `errno`, or `E` and the number if this module has no name for it. */
export function errorCode(errno: number): ErrorCode {
  return NAMES.get(errno) ?? `E${errno}`;
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
    const errno = typeof code === "number" ? code : ERRNO[code as keyof typeof ERRNO];
    const name = errorCode(errno);
    super(`${operation}: ${detail} (${name})${hint ? `: ${hint}` : ""}`, rest);
    this.code = name;
    this.errno = errno;
    this.operation = operation;
    this.detail = detail;
    if (hint !== undefined) this.hint = hint;
  }
}
