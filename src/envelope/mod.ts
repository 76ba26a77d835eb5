/**
 * Envelopes: sealed streams that carry their own key, wrapped for passphrases and public keys. Needs the package
 * `jose`.
 *
 * A file is the line `kcapi-sealed/1`, a line with a JWE (RFC 7516), and the sealed stream. The JWE's plaintext is the
 * 32-byte key of the stream, and its protected header names the stream's `format`. Any JOSE library can unwrap the key.
 *
 * @module
 */

import "../runtime/oldest.ts"; // first: it refuses runtimes that are too old

export {
  type EnvelopeOpenOptions,
  envelopeRecipients,
  type EnvelopeSealOptions,
  EnvelopeSealStream,
  EnvelopeUnsealStream,
  openEnvelope,
  rewrap,
  type RewrapOptions,
} from "./envelope.ts";
export type { EnvelopeRecipient } from "./header.ts";
export type { Identity, JWK, Passphrase, Recipient, RemoteKey } from "./recipients.ts";
