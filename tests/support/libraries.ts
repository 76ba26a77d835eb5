/**
 * Libraries from npm whose files this module reads. They have no types, and gibberish-aes is a script for browsers.
 */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

/** CryptoJS's ciphers under a passphrase. */
interface CryptoJSCipher {
  encrypt(text: string, passphrase: string): { toString(): string };
  decrypt(text: string, passphrase: string): { toString(encoding: unknown): string };
}

const require = createRequire(import.meta.url);

export const CryptoJS: { AES: CryptoJSCipher; TripleDES: CryptoJSCipher; enc: { Utf8: unknown } } = require(
  "crypto-js",
);

const script = new URL("../../node_modules/gibberish-aes/dist/gibberish-aes-1.0.0.js", import.meta.url);

export const GibberishAES: {
  size(bits: number): void;
  enc(text: string, passphrase: string): string;
  dec(text: string, passphrase: string): string;
} = new Function(`${readFileSync(script, "utf8")}; return GibberishAES`)();
