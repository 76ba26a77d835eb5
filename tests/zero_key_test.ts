/**
 * Sealing and unsealing refuse a key of nothing but zero bytes, such as an array that was zeroed too early. Browsers
 * run it, too.
 */
import { openSealed, seal, SealStream, unseal, UnsealStream } from "../mod.ts";
import { assert, assertRejects, assertThrows, test } from "./support/deps.ts";

test(
  "a key of zero bytes is a RangeError in each API that seals or unseals",
  { engine: "userspace" },
  async () => {
    for (const size of [16, 32, 65]) {
      const key = new Uint8Array(size);
      const format = size === 16 ? "AES128_GCM_HKDF_4KB" : "AES256_CTR_HMAC_SHA256_64KB";
      const ways = [
        () => new SealStream({ key, format }),
        () => new UnsealStream({ key, format }),
        () => seal({ key, format }, key),
        () => unseal({ key, format }, key),
      ];
      for (const way of ways) assertThrows(way, RangeError, '"key" expected a random key, got nothing but zero bytes');
      await assertRejects(() => openSealed(new Blob([key]), { key, format }), RangeError, "zero bytes");
      key[size - 1] = 1;
      assert(new SealStream({ key, format }) instanceof SealStream);
    }
  },
);
