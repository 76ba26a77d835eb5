/**
 * Counts the calls of WebCrypto that have not ended. They cannot be canceled, so a stream that was aborted leaves some
 * behind. Import it before what calls WebCrypto.
 */
const underWay = new Set<Promise<unknown>>();

const prototype = SubtleCrypto.prototype as unknown as Record<string, (...values: unknown[]) => Promise<unknown>>;
for (const name of ["encrypt", "decrypt", "sign", "importKey", "deriveBits", "deriveKey", "exportKey"]) {
  const real = prototype[name]!;
  prototype[name] = function (...values) {
    const call = real.apply(this, values);
    const end = () => void underWay.delete(call);
    underWay.add(call);
    call.then(end, end);
    return call;
  };
}

/** The number of calls that have not ended. */
export const callsUnderWay = (): number => underWay.size;

/** Waits until none is under way. */
export async function callsEnded(): Promise<void> {
  while (underWay.size > 0) await Promise.allSettled(underWay);
}
