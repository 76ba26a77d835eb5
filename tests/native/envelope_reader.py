#!/usr/bin/env python3
"""Opens an envelope by its passphrase, from docs/envelope.md alone: envelope_reader.py FILE <passphrase >plaintext

AES-GCM-HKDF formats. Exit code 1 if anything is wrong.
"""
import base64, json, sys
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.pbkdf2 import PBKDF2HMAC
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap


def decode(text):
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


passphrase = sys.stdin.buffer.read()
magic, header, sealed = open(sys.argv[1], "rb").read().split(b"\n", 2)
assert magic == b"kcapi-sealed/1"
jwe = json.loads(header)
entry = next(each for each in jwe["recipients"] if each["header"]["alg"] == "PBES2-HS512+A256KW")

# RFC 7518, 4.8: the salt is the algorithm's name, a zero byte, and p2s.
salt = b"PBES2-HS512+A256KW\0" + decode(entry["header"]["p2s"])
wrapping = PBKDF2HMAC(hashes.SHA512(), 32, salt, entry["header"]["p2c"]).derive(passphrase)
content_key = aes_key_unwrap(wrapping, decode(entry["encrypted_key"]))
ciphertext = decode(jwe["ciphertext"]) + decode(jwe["tag"])
key = AESGCM(content_key).decrypt(decode(jwe["iv"]), ciphertext, jwe["protected"].encode())

format = json.loads(decode(jwe["protected"]))["format"]
key_size = int(format[3:6]) // 8
segment_size = {"4KB": 4096, "64KB": 65536, "1MB": 1048576}[format.split("_")[-1]]
front = 8 + key_size
assert sealed[0] == front
derived = HKDF(hashes.SHA256(), key_size, sealed[1 : 1 + key_size], b"").derive(key)
starts = [front, *range(segment_size, len(sealed), segment_size)]
for i, start in enumerate(starts):
    nonce = sealed[1 + key_size : front] + i.to_bytes(4, "big") + bytes([i == len(starts) - 1])
    sys.stdout.buffer.write(AESGCM(derived).decrypt(nonce, sealed[start : (i + 1) * segment_size], None))
