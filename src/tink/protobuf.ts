/**
 * The part of Protocol Buffers' wire format that Tink's keysets use: varints and length-delimited fields.
 *
 * @see https://protobuf.dev/programming-guides/encoding/
 *
 * @module
 */

/** A field's value: a uint32 or an enum, or the bytes of a string, a bytes field or a message. */
export type FieldValue = number | Uint8Array<ArrayBuffer>;

const VARINT = 0;
const LENGTH_DELIMITED = 2;
const MAX_UINT32 = 2 ** 32 - 1;

/** A message that was read. A missing field is 0, or empty, as in proto3. */
export interface Message {
  /** A uint32 or an enum. */
  number(field: number): number;
  /** A string, a bytes field or a message. */
  bytes(field: number): Uint8Array<ArrayBuffer>;
  /** Whether the field is there. */
  has(field: number): boolean;
  /** The values of a repeated message field. */
  list(field: number): readonly Uint8Array<ArrayBuffer>[];
}

/**
 * Reads a message that has no other fields than these. A field that this module does not know could change what a key
 * means.
 *
 * @param name What the message is, for errors.
 * @param single The fields that may be there once.
 * @param repeated The fields that may be there any number of times.
 * @returns The message, over the same memory.
 * @throws {TypeError} If `bytes` is not such a message.
 */
export function readMessage(
  name: string,
  bytes: Uint8Array<ArrayBuffer>,
  single: readonly number[],
  repeated: readonly number[] = [],
): Message {
  const fields = readFields(name, bytes);
  for (const [field, values] of fields) {
    if (![...single, ...repeated].includes(field)) {
      throw new TypeError(`${name} has field ${field}, which this module does not know`);
    }
    if (values.length > 1 && !repeated.includes(field)) {
      throw new TypeError(`${name} expected field ${field} once, got it ${values.length} times`);
    }
  }
  const toUint8Array = (field: number, value: FieldValue) => {
    if (typeof value === "number") throw new TypeError(`${name} expected bytes in field ${field}, got a number`);
    return value;
  };
  return {
    number(field) {
      const [value = 0] = fields.get(field) ?? [];
      if (typeof value !== "number") throw new TypeError(`${name} expected a number in field ${field}, got bytes`);
      return value;
    },
    bytes: (field) => toUint8Array(field, fields.get(field)?.[0] ?? new Uint8Array(0)),
    has: (field) => fields.has(field),
    list: (field) => (fields.get(field) ?? []).map((value) => toUint8Array(field, value)),
  };
}

/** The values of each field, in order, as views of `bytes`. */
function readFields(name: string, bytes: Uint8Array<ArrayBuffer>): Map<number, FieldValue[]> {
  const fields = new Map<number, FieldValue[]>();
  let at = 0;
  function varint(): number {
    let value = 0;
    for (let shift = 1; at < bytes.length; shift *= 128) {
      const byte = bytes[at++]!;
      value += (byte & 127) * shift;
      if (value > MAX_UINT32) break;
      if (byte < 128) return value;
    }
    throw new TypeError(`${name} expected a protobuf message, got bytes that are not one`);
  }
  while (at < bytes.length) {
    const tag = varint();
    const [number, type] = [Math.floor(tag / 8), tag % 8];
    if (number === 0 || type !== VARINT && type !== LENGTH_DELIMITED) {
      throw new TypeError(`${name} expected a protobuf message, got field ${number} of wire type ${type}`);
    }
    const value = varint();
    const values = fields.get(number) ?? [];
    fields.set(number, values);
    if (type === VARINT) {
      values.push(value);
    } else {
      if (value > bytes.length - at) throw new TypeError(`${name} expected a protobuf message, got one that is cut`);
      values.push(bytes.subarray(at, at += value));
    }
  }
  return fields;
}

/** Writes fields by ascending number. As in proto3, zeros and empty bytes are left out. */
export function writeFields(
  fields: Readonly<Record<number, FieldValue | readonly FieldValue[]>>,
): Uint8Array<ArrayBuffer> {
  const parts: Uint8Array[] = [];
  for (const [number, given] of Object.entries(fields)) {
    for (const value of Array.isArray(given) ? given as readonly FieldValue[] : [given as FieldValue]) {
      if (typeof value === "number") {
        if (value !== 0) parts.push(varint(8 * Number(number) + VARINT), varint(value));
      } else if (value.length > 0 || Array.isArray(given)) {
        parts.push(varint(8 * Number(number) + LENGTH_DELIMITED), varint(value.length), value);
      }
    }
  }
  const message = new Uint8Array(new ArrayBuffer(parts.reduce((sum, part) => sum + part.length, 0)));
  let at = 0;
  for (const part of parts) {
    message.set(part, at);
    at += part.length;
  }
  return message;
}

function varint(value: number): Uint8Array {
  const bytes: number[] = [];
  for (; value > 127; value = Math.floor(value / 128)) bytes.push(value % 128 + 128);
  return Uint8Array.of(...bytes, value);
}
