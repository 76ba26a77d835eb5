#!/usr/bin/env python3
"""Opens what was sealed, from the format's text alone: Python's standard library, and openssl for AES-CTR.

sealed_reader.py KEY ASSOCIATED_DATA KEY_SIZE TAG_SIZE SEGMENT_SIZE <sealed >plaintext   (the first two: files)

AES-CTR-HMAC with HKDF and HMAC over SHA-256. Exit code 1 if anything is wrong.
"""
import hashlib, hmac, subprocess, sys

key, data = (open(path, "rb").read() for path in sys.argv[1:3])
key_size, tag_size, segment_size = map(int, sys.argv[3:])
sealed = sys.stdin.buffer.read()


def hkdf(salt, info, length):
    secret = hmac.new(salt, key, hashlib.sha256).digest()
    block = output = b""
    while len(output) < length:
        block = hmac.new(secret, block + info + bytes([len(output) // 32 + 1]), hashlib.sha256).digest()
        output += block
    return output[:length]


header = 1 + key_size + 7
assert sealed[0] == header, "header"
salt, prefix = sealed[1 : 1 + key_size], sealed[1 + key_size : header]
derived = hkdf(salt, data, key_size + 32)
starts = [header, *range(segment_size, len(sealed), segment_size)]
for i, start in enumerate(starts):
    segment = sealed[start : (i + 1) * segment_size]
    nonce = prefix + i.to_bytes(4, "big") + bytes([i == len(starts) - 1]) + bytes(4)
    text, tag = segment[:-tag_size], segment[-tag_size:]
    expected = hmac.new(derived[key_size:], nonce + text, hashlib.sha256).digest()
    assert hmac.compare_digest(tag, expected[:tag_size]), f"segment {i}"
    openssl = ["openssl", "enc", "-d", f"-aes-{8 * key_size}-ctr", "-K", derived[:key_size].hex(), "-iv", nonce.hex()]
    sys.stdout.buffer.write(subprocess.run(openssl, input=text, stdout=subprocess.PIPE, check=True).stdout)
