/** What each runtime seals. */
import { type Bytes, bytes } from "../support/bytes.ts";

export const RUNTIMES = ["deno", "bun", "node", "chromium", "firefox", "webkit", "workerd"];

export const KEY: Bytes = bytes(32, 17);
export const NAME: Bytes = new TextEncoder().encode("a name");

/** Sizes of plaintext: none, one byte, around the ends of segments, and many segments. */
const SIZES = [0, 1, 4024, 4025, 4040, 4041, 20_000];
const LARGE_SIZES = [65_496, 65_497, 200_000];

export const CASES = [
  ...(["AES256_CTR_HMAC_SHA256_4KB", "AES128_GCM_HKDF_4KB"] as const).map((format) => ({ format, sizes: SIZES })),
  ...(["AES128_CTR_HMAC_SHA256_64KB", "AES256_GCM_HKDF_64KB"] as const).map((format) => ({
    format,
    sizes: LARGE_SIZES,
  })),
] as const;

export const plaintextOf = (size: number): Bytes => bytes(size, 18);
