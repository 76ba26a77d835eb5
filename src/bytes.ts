/**
 * Checks of byte arguments, and functions on bytes.
 *
 * The engines get the address of the caller's memory. If a caller could change a length after it was checked, native
 * code would read or write freed memory. So these functions call the built-in getters, which a subclass or an own
 * property cannot replace.
 *
 * @module
 */

/** Bytes of a caller: an ArrayBuffer or any view. Shared and resizable memory is refused at run time. */
export type BytesLike = ArrayBuffer | ArrayBufferView;

/** Bytes in memory that is neither shared nor resizable. */
export type Bytes = Uint8Array<ArrayBuffer>;

/**
 * The getter of a built-in, which no subclass or own property can replace. Use it by `call` at each place, because only
 * then can the runtime inline it.
 */
export function getterOf<T>(prototype: object, name: string | symbol): (this: unknown) => T {
  const getter = Object.getOwnPropertyDescriptor(prototype, name)?.get;
  if (!getter) {
    throw new Error(`@kcapi/streams needs a newer release of this browser or runtime: it has no "${String(name)}"`);
  }
  return getter;
}

const typedArray = Object.getPrototypeOf(Uint8Array.prototype) as object;
const typedBuffer = getterOf<ArrayBufferLike>(typedArray, "buffer");
const typedOffset = getterOf<number>(typedArray, "byteOffset");
const typedLength = getterOf<number>(typedArray, "byteLength");
const tagOf = getterOf<string | undefined>(typedArray, Symbol.toStringTag);
const setBytes = Uint8Array.prototype.set;
const viewBuffer = getterOf<ArrayBufferLike>(DataView.prototype, "buffer");
const viewOffset = getterOf<number>(DataView.prototype, "byteOffset");
const viewLength = getterOf<number>(DataView.prototype, "byteLength");
const bufferLength = getterOf<number>(ArrayBuffer.prototype, "byteLength");
const sharedLength = typeof SharedArrayBuffer === "undefined"
  ? undefined
  : getterOf<number>(SharedArrayBuffer.prototype, "byteLength");
const isResizable = getterOf<boolean>(ArrayBuffer.prototype, "resizable");
const isDetached = getterOf<boolean>(ArrayBuffer.prototype, "detached");

/**
 * Returns `value` as a Uint8Array over the same memory, with a correct `length`.
 *
 * It may be the caller's object, whose methods may be replaced. Use {@linkcode subarray} and {@linkcode scatter} on it,
 * not its methods.
 *
 * @throws {TypeError} If it is not a BufferSource, or its memory is detached, shared or resizable.
 */
export function toUint8Array(name: string, value: unknown): Bytes {
  return isPlainUint8Array(value) ? value : checkedView(name, value);
}

/**
 * Whether `value` is a plain Uint8Array, the usual case. This runs for every chunk. It reads `length` first, because
 * the runtime then knows the shape of the object and can inline the other calls.
 */
function isPlainUint8Array(value: unknown): value is Bytes {
  try {
    const { length } = value as Bytes;
    return length > 0 && typedLength.call(value) === length && Object.getPrototypeOf(value) === Uint8Array.prototype &&
      !Object.hasOwn(value as Bytes, "length") && !isResizable.call(typedBuffer.call(value));
  } catch {
    return false;
  }
}

function checkedView(name: string, value: unknown): Bytes {
  const isTyped = tagOf.call(value) !== undefined;
  const isView = !isTyped && ArrayBuffer.isView(value);
  const buffer = (isTyped ? typedBuffer.call(value) : isView ? viewBuffer.call(value) : value) as ArrayBuffer;
  if (fixedLength(name, value, buffer) === 0 && isDetached.call(buffer)) throw new TypeError(`"${name}" is detached`);
  if (isTyped) return new Uint8Array(buffer, typedOffset.call(value), typedLength.call(value));
  if (isView) return new Uint8Array(buffer, viewOffset.call(value), viewLength.call(value));
  return new Uint8Array(buffer);
}

/** A view of the bytes from `start` to `end`. */
export function subarray(bytes: Bytes, start: number, end: number): Bytes {
  return new Uint8Array(typedBuffer.call(bytes) as ArrayBuffer, typedOffset.call(bytes) + start, end - start);
}

/** The length of `buffer`. @throws {TypeError} If it is not an ArrayBuffer of a fixed length. */
function fixedLength(name: string, value: unknown, buffer: ArrayBuffer): number {
  let resizable: boolean;
  try {
    resizable = isResizable.call(buffer);
  } catch {
    const got = isShared(buffer) ? "shared memory" : describe(value);
    throw new TypeError(`"${name}" expected a Uint8Array or other BufferSource, got ${got}`);
  }
  if (resizable) throw new TypeError(`"${name}" expected memory of a fixed length, got a resizable ArrayBuffer`);
  return bufferLength.call(buffer);
}

/** Whether `value` is an ArrayBuffer or a SharedArrayBuffer, of any realm. */
export function isBuffer(value: unknown): value is ArrayBufferLike {
  return has(bufferLength, value) || isShared(value);
}

function isShared(value: unknown): boolean {
  return sharedLength !== undefined && has(sharedLength, value);
}

function has(getter: (this: unknown) => unknown, value: unknown): boolean {
  try {
    getter.call(value);
    return true;
  } catch {
    return false;
  }
}

/** The kind of a value, without its content. */
export function describe(value: unknown): string {
  if (value === null) return "null";
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : typeof value;
}

/** The error for an argument of a wrong type. */
export function wrongType(name: string, expected: string, value: unknown): TypeError {
  return new TypeError(`"${name}" expected ${expected}, got ${describe(value)}`);
}

/** A copy in new memory. */
export function cloneBytes(bytes: Bytes): Bytes {
  const copy = new Uint8Array(bytes.length);
  copy.set(bytes);
  return copy;
}

/** The bytes of a list in one piece: a view if the list has one entry, otherwise a copy. */
export function inOnePiece(list: readonly Bytes[]): Bytes {
  if (list.length === 1) return subarray(list[0]!, 0, list[0]!.length);
  const whole = new Uint8Array(totalLength(list));
  let at = 0;
  for (const bytes of list) {
    whole.set(bytes, at);
    at += bytes.length;
  }
  return whole;
}

/** The total length of a list. */
export function totalLength(list: readonly Bytes[]): number {
  let size = 0;
  for (let i = 0; i < list.length; i++) size += list[i]!.length;
  return size;
}

/** @throws {RangeError} If two entries of the list share memory. */
export function checkOverlap(list: readonly Bytes[]): void {
  const views = list.filter(({ length }) => length > 0).map((entry) => subarray(entry, 0, entry.length));
  const byBuffer = Map.groupBy(views, ({ buffer }) => buffer);
  for (const entries of byBuffer.values()) {
    entries.sort((a, b) => a.byteOffset - b.byteOffset);
    for (let i = 1; i < entries.length; i++) {
      if (entries[i - 1]!.byteOffset + entries[i - 1]!.length > entries[i]!.byteOffset) {
        throw new RangeError('"buffers" expected entries that do not overlap');
      }
    }
  }
}

/** Copies `from` to the entries of `list`, in order. */
export function scatter(from: Uint8Array, list: readonly Bytes[]): void {
  let offset = 0;
  for (const entry of list) {
    setBytes.call(entry, from.subarray(offset, offset + entry.length));
    offset += entry.length;
  }
}

/** A position in a list of buffers, which moves from the front to the end. */
export class IovCursor {
  /** Bytes left. */
  remaining: number;
  readonly #list: readonly Bytes[];
  #index = 0;
  #offset = 0;

  constructor(list: readonly Bytes[]) {
    this.#list = list;
    this.remaining = totalLength(list);
  }

  /**
   * Views of the next `length` bytes. The position does not move.
   *
   * @param skip The number of bytes to skip before them.
   */
  peek(length: number, skip = 0): readonly Bytes[] {
    if (skip === 0 && length === this.remaining && this.#index === 0 && this.#offset === 0) return this.#list;
    const views: Bytes[] = [];
    let start = this.#offset + skip;
    for (let i = this.#index; length > 0; i++) {
      const bytes = this.#list[i]!;
      const end = Math.min(bytes.length, start + length);
      if (start < end) {
        views.push(start === 0 && end === bytes.length ? bytes : subarray(bytes, start, end));
        length -= end - start;
      }
      start = Math.max(0, start - bytes.length);
    }
    return views;
  }

  /** Moves the position by `length` bytes. */
  advance(length: number): void {
    this.remaining -= length;
    while (length > 0) {
      const left = this.#list[this.#index]!.length - this.#offset;
      if (length < left) {
        this.#offset += length;
        return;
      }
      length -= left;
      this.#index++;
      this.#offset = 0;
    }
  }

  /**
   * Checks that the rest of the list is unchanged, because the caller may detach or resize a buffer while it waits.
   *
   * @throws {TypeError} If bytes are missing.
   */
  verify(): void {
    let left = -this.#offset;
    for (let i = this.#index; i < this.#list.length; i++) left += this.#list[i]!.length;
    if (left !== this.remaining) throw new TypeError("A buffer was detached or resized while it waited to be sent");
  }
}
