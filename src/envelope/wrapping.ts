/**
 * Wraps the key of a file for recipients, and unwraps it. Needs the package `jose`.
 *
 * @module
 */

import { flattenedDecrypt, type FlattenedJWE, GeneralEncrypt } from "jose";
import { fromBase64Url } from "../base64url.ts";
import { type Bytes, toUint8Array } from "../bytes.ts";
import { KcapiError } from "../errors.ts";
import { Secret } from "../secret.ts";
import type { SealedFormatName } from "../sealed/format.ts";
import {
  createHeaderError,
  type EnvelopeHeader,
  type EnvelopeRecipient,
  kindOf,
  MAGIC,
  MOST_HEADER,
  MOST_ITERATIONS,
} from "./header.ts";
import { disposeKeys, type JoseKey, type RemoteKey } from "./recipients.ts";

const KEY_SIZE = 32;
const CONTENT_ALGORITHMS = ["A256GCM", "A192GCM", "A128GCM", "A256CBC-HS512", "A192CBC-HS384", "A128CBC-HS256"];

/**
 * Makes a header.
 *
 * @param key The key of the file, which remains the caller's.
 * @param recipients The keys that wrap it. They are disposed of.
 */
export async function makeHeader(
  key: Secret,
  format: SealedFormatName,
  recipients: readonly JoseKey[],
): Promise<Bytes> {
  const jwe = new GeneralEncrypt(key.bytes).setProtectedHeader({ enc: "A256GCM", format });
  for (const { algorithm, kid, key, iterations } of recipients) {
    const recipient = jwe.addRecipient(key instanceof Secret ? key.bytes : key)
      .setUnprotectedHeader({ alg: algorithm, ...(kid !== undefined && { kid }) });
    if (iterations !== undefined) recipient.setKeyManagementParameters({ p2c: iterations });
  }
  let wrapped;
  try {
    wrapped = await jwe.encrypt();
  } catch (cause) {
    throw new TypeError('"recipients" expected keys that can be used, got a public key that is not on its curve', {
      cause,
    });
  } finally {
    disposeKeys(recipients);
  }
  const bytes = new TextEncoder().encode(`${MAGIC}${JSON.stringify(wrapped)}\n`);
  if (bytes.length > MOST_HEADER) {
    throw new RangeError(`"recipients" expected a header of at most ${MOST_HEADER} bytes, got ${bytes.length}`);
  }
  return bytes;
}

/**
 * Unwraps the key of a file.
 *
 * @param identities Each is tried. They are disposed of.
 * @throws {KcapiError} EKEYREJECTED if no identity fits. The message names the kinds of recipients, and not which
 * was close.
 */
export async function unwrapKey({ recipients, jwes }: EnvelopeHeader, identities: readonly JoseKey[]): Promise<Secret> {
  try {
    let budget = MOST_ITERATIONS;
    let cause: unknown;
    for (const [i, jwe] of jwes.entries()) {
      for (const identity of identities.filter((identity) => mayFit(recipients[i]!, identity))) {
        budget -= recipients[i]!.iterations ?? 0;
        if (budget < 0) throw createHeaderError(`the file asks for more than ${MOST_ITERATIONS} iterations of PBKDF2`);
        try {
          const key = await tryUnwrap(jwe, identity);
          if (key) return key;
        } catch (error) {
          cause ??= error;
        }
      }
    }
    throw createNoIdentityError(recipients, cause);
  } finally {
    disposeKeys(identities);
  }
}

function mayFit(recipient: EnvelopeRecipient, identity: JoseKey): boolean {
  const { algorithm, kid } = recipient;
  return identity.algorithm === algorithm && (kid === undefined || identity.kid === undefined || kid === identity.kid);
}

/** @throws What the service of a remote key throws. */
async function tryUnwrap(jwe: FlattenedJWE, identity: JoseKey): Promise<Secret | undefined> {
  const { algorithm, key, unwrap } = identity;
  if (unwrap) {
    const contentKey = await askService(jwe, unwrap);
    try {
      return await decryptKey(withoutWrapping(jwe), "dir", contentKey);
    } finally {
      contentKey.dispose(); // no "using": Safari has no Symbol.dispose
    }
  }
  return await decryptKey(jwe, algorithm, key);
}

async function askService({ encrypted_key = "" }: FlattenedJWE, unwrap: RemoteKey["unwrap"]): Promise<Secret> {
  const bytes = toUint8Array("unwrap", await unwrap(fromBase64Url(encrypted_key)!));
  const contentKey = Secret.from(bytes);
  bytes.fill(0);
  return contentKey;
}

/** The same JWE for readers that have the content key. The header of a recipient is not authenticated. */
function withoutWrapping({ encrypted_key: _, header, ...jwe }: FlattenedJWE): FlattenedJWE {
  return { ...jwe, header: { ...header, alg: "dir" } };
}

async function decryptKey(
  jwe: FlattenedJWE,
  algorithm: string,
  key: CryptoKey | Secret,
): Promise<Secret | undefined> {
  try {
    const { plaintext } = await flattenedDecrypt(jwe, key instanceof Secret ? key.bytes : key, {
      keyManagementAlgorithms: [algorithm],
      contentEncryptionAlgorithms: CONTENT_ALGORITHMS,
      maxPBES2Count: MOST_ITERATIONS,
    });
    const isKey = plaintext.length === KEY_SIZE && plaintext.some((byte) => byte !== 0);
    try {
      return isKey ? Secret.from(plaintext) : undefined;
    } finally {
      plaintext.fill(0);
    }
  } catch {
    return undefined; // an error that names the step would help an attacker who guesses
  }
}

function createNoIdentityError(recipients: readonly EnvelopeRecipient[], cause: unknown): KcapiError {
  const kinds = [...new Set(recipients.map(kindOf))].join(", ");
  return new KcapiError("EKEYREJECTED", "open", "no identity fits this file", {
    hint: `its key is wrapped for: ${kinds}`,
    cause,
  });
}
