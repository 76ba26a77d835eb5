/**
 * AES-GCM of a whole message, as other programs write it.
 *
 * @module
 */

import type { Bytes } from "../bytes.ts";
import type { Direction } from "../engines/engine.ts";
import { KcapiError } from "../errors.ts";
import { BatchTransform } from "../executors/batch_transform.ts";
import type { Transform, TransformFactory } from "../streams/transform.ts";
import { userspaceHasGcm } from "./gcm_cipher.ts";
import { checkGcm, type GcmPlan, refuseOthers } from "./gcm_options.ts";
import { GcmTransform, type GiveTag } from "./gcm_transform.ts";
import { webCryptoRule } from "./gcm_webcrypto.ts";

/** Checks and copies the options of a stream of `gcm(aes)`. */
export function prepareGcm(direction: Direction, options: object): TransformFactory {
  refuseOthers(options as Record<string, unknown>);
  const plan = checkGcm(direction, options);
  const tag = Promise.withResolvers<Bytes>();
  tag.promise.catch(() => {}); // few ask for it
  return {
    signals: plan.signals,
    inPlace: false,
    open: () => open(plan, tag.resolve),
    discard() {
      plan.key.dispose();
      tag.reject(new KcapiError("ECANCELED", "tag", "the stream ended before its tag was known"));
    },
    ...direction === "encrypt" && { tag: tag.promise },
  };
}

/** WebCrypto takes the keys that `node:crypto` does not, unless bytes are wanted as they come. */
function open(plan: GcmPlan, giveTag: GiveTag): Transform {
  const { direction, engine, key, releaseUnverified } = plan;
  const needsWebCrypto = !userspaceHasGcm(key.length) && !(direction === "decrypt" && releaseUnverified);
  if (engine === "webcrypto" || engine === "auto" && needsWebCrypto) {
    return new BatchTransform(webCryptoRule(plan, giveTag), false);
  }
  return new GcmTransform(plan, giveTag);
}
