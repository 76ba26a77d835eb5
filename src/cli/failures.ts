/**
 * Errors of the tool: each is a line and an exit code.
 *
 * @module
 */

import { KcapiError } from "../../mod.ts";

export const EXIT_CODES: readonly (readonly [code: string, meaning: string])[] = [
  ["0", "done"],
  ["1", "a file cannot be read or written; doctor: the kernel engine is not usable"],
  ["2", "wrong usage"],
  ["3", "wrong data: wrong key or passphrase, damaged, cut short, or of a wrong length"],
  ["4", "the cipher or the engine is not available, or failed; unseal --rescue: the file is rescued, but damaged"],
  ["129, 130, 131, 143", "ended by SIGHUP, SIGINT (Ctrl-C), SIGQUIT or SIGTERM"],
  ["141", "the reader of the output closed it"],
];

/** An error with its line for the user and its exit code. */
export class Failure extends Error {
  readonly exitCode: number;

  constructor(exitCode: number, message: string) {
    super(message);
    this.exitCode = exitCode;
  }
}

export function wrongUsage(message: string): Failure {
  return new Failure(2, message);
}

export function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | undefined)?.code;
}

/** The error of a file operation as a failure. Takes the system's words out of each runtime's message. */
export function fileFailure(what: string, error: unknown): Failure {
  // If the reader closes the pipe, as head(1) does, the tool prints no error.
  if (codeOf(error) === "EPIPE") return new Failure(141, "");
  const words = String((error as Error)?.message ?? error)
    .replace(/^E[A-Z0-9]+: /, "").replace(/ \(os error \d+\).*/s, "").replace(/, \w+( '.*)?$/s, "");
  return new Failure(1, `${what}: ${words.charAt(0).toLowerCase()}${words.slice(1)}`);
}

/** A thrown value as a failure. */
export function failureOf(error: unknown): Failure {
  if (error instanceof Failure) return error;
  if (error instanceof KcapiError) {
    if (error.code === "EBADMSG" && error.operation === "base64") return new Failure(3, error.detail);
    if (error.code === "EBADMSG" && error.operation === "unseal") {
      return new Failure(
        3,
        "the data does not verify: wrong key, associated data or format, or it is damaged or cut short",
      );
    }
    // What a header says is wrong, or that no identity fits.
    if (error.operation === "open" && (error.code === "EBADMSG" || error.code === "EKEYREJECTED")) {
      return new Failure(3, [error.detail, error.hint].filter(Boolean).join(": "));
    }
    return error.code === "EBADMSG"
      ? new Failure(3, "the data does not decrypt: wrong key or passphrase, or it is damaged or cut short")
      : new Failure(4, error.message);
  }
  return new Failure(1, error instanceof Error ? error.message : String(error));
}
