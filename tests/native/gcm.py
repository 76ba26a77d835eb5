"""AES-GCM by Python's cryptography. Reads JSON lines of the file that it is given, and writes one for each, all bytes in base64.

{"key", "iv", "aad", "tagSize", "plaintext"} is encrypted: {"ciphertext", "tag"}.
{"key", "iv", "aad", "tag", "ciphertext"} is decrypted: {"plaintext"}, or {"error"}.
"""
import base64
import json
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes


def encode(data):
    return base64.b64encode(data).decode()


for line in open(sys.argv[1]):
    given = json.loads(line)
    size = given.pop("tagSize", 16)
    task = {name: base64.b64decode(value) for name, value in given.items()}
    if "plaintext" in task:
        context = Cipher(algorithms.AES(task["key"]), modes.GCM(task["iv"])).encryptor()
        context.authenticate_additional_data(task["aad"])
        ciphertext = context.update(task["plaintext"]) + context.finalize()
        print(json.dumps({"ciphertext": encode(ciphertext), "tag": encode(context.tag[:size])}))
        continue
    mode = modes.GCM(task["iv"], task["tag"], min_tag_length=len(task["tag"]))
    context = Cipher(algorithms.AES(task["key"]), mode).decryptor()
    context.authenticate_additional_data(task["aad"])
    try:
        print(json.dumps({"plaintext": encode(context.update(task["ciphertext"]) + context.finalize())}))
    except InvalidTag:
        print(json.dumps({"error": "InvalidTag"}))
