/** Takes the place of `node:util` in the bundles: what `std_standins.ts` uses of it. */

/** A value in one line. */
export function inspect(value: unknown): string {
  if (value instanceof Error) return `${value}`;
  if (ArrayBuffer.isView(value)) {
    return `${value.constructor.name}(${value.byteLength}) [ ${String(value).slice(0, 60)} ]`;
  }
  const json = JSON.stringify(value, (_, each) => typeof each === "bigint" ? `${each}n` : each);
  return (json ?? String(value)).slice(0, 400);
}

/** Deep equality of primitives, arrays, typed arrays, errors, maps, sets and plain objects. */
export function isDeepStrictEqual(a: unknown, b: unknown): boolean {
  if (Object.is(a, b)) return true;
  if (!(a instanceof Object && b instanceof Object) || Object.getPrototypeOf(a) !== Object.getPrototypeOf(b)) {
    return false;
  }
  if (a instanceof Uint8Array) {
    return a.length === (b as Uint8Array).length && a.every((byte, i) => byte === (b as Uint8Array)[i]);
  }
  if (a instanceof ArrayBuffer) return isDeepStrictEqual(new Uint8Array(a), new Uint8Array(b as ArrayBuffer));
  if (a instanceof Map || a instanceof Set) return isDeepStrictEqual([...a], [...(b as typeof a)]);
  if (a instanceof Error && (a.message !== (b as Error).message || a.name !== (b as Error).name)) return false;
  const [keys, others] = [Reflect.ownKeys(a), Reflect.ownKeys(b)];
  return keys.length === others.length &&
    keys.every((key) => Object.hasOwn(b, key) && isDeepStrictEqual(Reflect.get(a, key), Reflect.get(b, key)));
}
