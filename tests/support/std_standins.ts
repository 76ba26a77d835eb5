/**
 * Replacements for the functions of `@std/assert` and `@std/streams` that tests and examples use, with the same names,
 * signatures and behavior, because the tests must run without JSR. Import maps choose them (see `deps.ts`).
 */
import { inspect, isDeepStrictEqual } from "node:util";

// deno-lint-ignore no-explicit-any
export type ErrorClass<E extends Error> = new (...args: any[]) => E;

export class AssertionError extends Error {
  override name = "AssertionError";
}

function fail(message: string, detail?: string): never {
  throw new AssertionError(detail === undefined ? message : `${message}: ${detail}`);
}

/** Formats a value in a few lines. */
function show(value: unknown): string {
  return inspect(value, { depth: 4, maxArrayLength: 16, maxStringLength: 400, breakLength: 120 });
}

export function assert(expression: unknown, message = ""): asserts expression {
  if (!expression) fail(message);
}

export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  if (!isDeepStrictEqual(actual, expected)) {
    fail(`Values are not equal: actual ${show(actual)}, expected ${show(expected)}`, message);
  }
}

export function assertNotEquals<T>(actual: T, expected: T, message?: string): void {
  if (isDeepStrictEqual(actual, expected)) fail(`Expected values to differ, both are ${show(actual)}`, message);
}

export function assertStrictEquals<T>(actual: unknown, expected: T, message?: string): asserts actual is T {
  if (!Object.is(actual, expected)) {
    fail(`Values are not strictly equal: actual ${show(actual)}, expected ${show(expected)}`, message);
  }
}

export function assertStringIncludes(actual: string, expected: string, message?: string): void {
  if (!actual.includes(expected)) fail(`Expected ${show(actual)} to include ${show(expected)}`, message);
}

export function assertInstanceOf<E extends Error>(
  actual: unknown,
  // deno-lint-ignore no-explicit-any
  expectedType: abstract new (...args: any[]) => E,
  message?: string,
): asserts actual is E;
export function assertInstanceOf<T>(
  actual: unknown,
  // deno-lint-ignore no-explicit-any
  expectedType: abstract new (...args: any[]) => T,
  message?: string,
): asserts actual is T;
export function assertInstanceOf(
  actual: unknown,
  // deno-lint-ignore no-explicit-any
  expectedType: abstract new (...args: any[]) => unknown,
  message?: string,
): void {
  if (!(actual instanceof expectedType)) {
    const got = actual instanceof Object ? actual.constructor?.name : typeof actual;
    fail(`Expected an instance of ${expectedType.name}, got ${got} (${show(actual)})`, message);
  }
}

function check<E extends Error>(error: unknown, errorClass?: ErrorClass<E>, includes = "", message?: string): void {
  if (errorClass === undefined) return;
  if (!(error instanceof Error)) fail(`Expected an Error, got ${show(error)}`, message);
  if (!(error instanceof errorClass)) {
    fail(`Expected ${errorClass.name}, got ${error.constructor.name}: ${error.message}`, message);
  }
  if (!error.message.includes(includes)) {
    fail(`Expected the error's message to include ${show(includes)}, got ${show(error.message)}`, message);
  }
}

export function assertThrows(fn: () => unknown, message?: string): unknown;
export function assertThrows<E extends Error>(
  fn: () => unknown,
  errorClass: ErrorClass<E>,
  messageIncludes?: string,
  message?: string,
): E;
export function assertThrows(
  fn: () => unknown,
  errorClass?: ErrorClass<Error> | string,
  messageIncludes?: string,
  message?: string,
): unknown {
  if (typeof errorClass === "string") [errorClass, message] = [undefined, errorClass];
  try {
    fn();
  } catch (error) {
    check(error, errorClass, messageIncludes, message);
    return error;
  }
  fail("Expected function to throw", message);
}

export function assertRejects(fn: () => PromiseLike<unknown>, message?: string): Promise<unknown>;
export function assertRejects<E extends Error>(
  fn: () => PromiseLike<unknown>,
  errorClass: ErrorClass<E>,
  messageIncludes?: string,
  message?: string,
): Promise<E>;
export async function assertRejects(
  fn: () => PromiseLike<unknown>,
  errorClass?: ErrorClass<Error> | string,
  messageIncludes?: string,
  message?: string,
): Promise<unknown> {
  if (typeof errorClass === "string") [errorClass, message] = [undefined, errorClass];
  let promise: PromiseLike<unknown>;
  try {
    promise = fn();
  } catch (error) {
    fail(`Function throws when expected to reject (${error})`, message);
  }
  if (typeof promise?.then !== "function") fail("Function returns no promise when expected to reject", message);
  try {
    await promise;
  } catch (error) {
    check(error, errorClass, messageIncludes, message);
    return error;
  }
  fail("Expected function to reject", message);
}

export async function toArrayBuffer(stream: ReadableStream<Uint8Array>): Promise<ArrayBuffer> {
  const chunks: Uint8Array[] = [];
  const reader = stream.getReader();
  for (let read = await reader.read(); !read.done; read = await reader.read()) chunks.push(read.value);
  const bytes = new Uint8Array(chunks.reduce((length, chunk) => length + chunk.length, 0));
  let offset = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, offset);
    offset += chunk.length;
  }
  return bytes.buffer;
}

/** Merges streams. Ends with the last stream, errors with the first error. */
export function mergeReadableStreams<T>(...streams: ReadableStream<T>[]): ReadableStream<T> {
  return new ReadableStream<T>({
    start(controller) {
      let failed = false;
      const copy = async (stream: ReadableStream<T>) => {
        for await (const chunk of stream) {
          if (failed) break;
          controller.enqueue(chunk);
        }
      };
      Promise.all(streams.map(copy)).then(() => controller.close(), (error) => {
        failed = true;
        controller.error(error);
      });
    },
  });
}

/** Passes whole chunks, up to `size` bytes in total. Then it ends or, with `error`, throws. */
export class LimitedBytesTransformStream extends TransformStream<Uint8Array, Uint8Array> {
  constructor(size: number, options: { error?: boolean } = {}) {
    let passed = 0;
    super({
      transform(chunk, controller) {
        if (passed + chunk.byteLength <= size) {
          passed += chunk.byteLength;
          controller.enqueue(chunk);
        } else if (options.error) {
          throw new RangeError(`Exceeded byte size limit of '${size}'`);
        } else {
          controller.terminate();
        }
      },
    });
  }
}
