"""Ciphertexts of Python's cryptography, as JSON: a row for each combination. The plaintext is 31 * i + 7."""
import json

import cryptography
from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

rows = []


def plain(size):
    return bytes((31 * i + 7) & 255 for i in range(size))


def key(size):
    return bytes(range(1, size + 1))


def iv(size):
    return bytes(range(0xF0 - size, 0xF0))


def add(cipher, layout, algorithm, size, output, **options):
    options = {name: value.hex() if isinstance(value, bytes) else value for name, value in options.items()}
    row = dict(cipher=cipher, layout=layout, algorithm=algorithm, size=size)
    rows.append(dict(row, options=options, output=output.hex()))


def run(algorithm, mode, data, block=0):
    if block:
        padder = padding.PKCS7(8 * block).padder()
        data = padder.update(data) + padder.finalize()
    encryptor = Cipher(algorithm, mode).encryptor()
    return encryptor.update(data) + encryptor.finalize()


for size, length in ((16, 0), (24, 31), (32, 100)):
    output = run(algorithms.AES(key(size)), modes.CBC(iv(16)), plain(length), 16)
    add(f"AES-{8 * size} CBC", "PKCS7", "cbc(aes)", length, output, key=key(size), iv=iv(16))
output = run(algorithms.AES(key(32)), modes.CBC(iv(16)), plain(100), 16)
add("AES-256 CBC", "PKCS7, IV in front", "cbc(aes)", 100, iv(16) + output, key=key(32), ivPrefix=True)
output = run(algorithms.AES(key(32)), modes.ECB(), plain(50), 16)
add("AES-256 ECB", "PKCS7", "ecb(aes)", 50, output, key=key(32))
for name, mode in (("CTR", modes.CTR), ("CFB", modes.CFB), ("OFB", modes.OFB)):
    output = run(algorithms.AES(key(16)), mode(iv(16)), plain(77))
    add(f"AES-128 {name}", "bare", f"{name.lower()}(aes)", 77, output, key=key(16), iv=iv(16))
output = run(algorithms.AES(key(32)), modes.CTR(b"\xff" * 16), plain(100))
add("AES-256 CTR", "the counter wraps", "ctr(aes)", 100, output, key=key(32), iv=b"\xff" * 16)
add("AES-256 CTR", "from byte 37 on", "ctr(aes)", 63, output[37:], key=key(32), iv=b"\xff" * 16, position=37)
tweak = (9).to_bytes(16, "little")
output = run(algorithms.AES(key(64)), modes.XTS(tweak), plain(512))
add("AES-256 XTS", "one data unit", "xts(aes)", 512, output, key=key(64), iv=tweak)
output = b""
for i in range(2):
    tweak = (9 + i).to_bytes(16, "little")
    output += run(algorithms.AES(key(64)), modes.XTS(tweak), plain(1024)[512 * i:512 * i + 512])
add("AES-256 XTS", "sectors from 9 on", "xts(aes)", 1024, output, key=key(64), sectorSize=512, sector=9)
output = run(algorithms.ChaCha20(key(32), bytes(4) + iv(12)), None, plain(200))
add("ChaCha20", "bare", "chacha20", 200, output, key=key(32), iv=bytes(4) + iv(12))
output = run(algorithms.TripleDES(key(24)), modes.CBC(iv(8)), plain(33), 8)
add("TripleDES CBC", "PKCS7", "cbc(des3_ede)", 33, output, key=key(24), iv=iv(8))
for size in (16, 32):
    output = AESGCM(key(size)).encrypt(iv(12), plain(99), b"name")
    options = dict(key=key(size), iv=iv(12), associatedData=b"name")
    add(f"AESGCM, {8 * size} bits", "tag at the end", "gcm(aes)", 99, output, **options)
output = AESGCM(key(32)).encrypt(iv(12), plain(99), None)
add("AESGCM, 256 bits", "nonce in front", "gcm(aes)", 99, iv(12) + output, key=key(32), ivPrefix=True)
S3 = "AWS S3 encryption client V2 (layout)"
add(S3, "IV in the metadata, tag at the end", "gcm(aes)", 99, output, key=key(32), iv=iv(12))
options = dict(key=key(32), iv=iv(12) + bytes([0, 0, 0, 2]), position=40, counterBits=32)
add(S3, "range from byte 40 on, unverified", "ctr(aes)", 59, output[40:99], **options)

print(json.dumps(dict(by=f"Python cryptography {cryptography.__version__}", rows=rows)))
