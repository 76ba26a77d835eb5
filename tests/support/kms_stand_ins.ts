/**
 * Stand-ins of AWS KMS, Google Cloud KMS and Vault's transit engine, with as much of their interfaces as the recipes of
 * docs/keys.md use. Each keeps its key to itself, as a KMS does, and encrypts with AES-GCM.
 */
import { Buffer } from "node:buffer";
import {
  constants,
  createCipheriv,
  createDecipheriv,
  generateKeyPairSync,
  privateDecrypt,
  randomBytes,
} from "node:crypto";
import { createServer, type Server } from "node:http";

const key = randomBytes(32);

function encrypt(plaintext: Uint8Array): Buffer {
  const iv = randomBytes(12);
  const cipher = createCipheriv("aes-256-gcm", key, iv);
  return Buffer.concat([iv, cipher.update(plaintext), cipher.final(), cipher.getAuthTag()]);
}

function decrypt(ciphertext: Uint8Array): Buffer {
  const decipher = createDecipheriv("aes-256-gcm", key, ciphertext.subarray(0, 12));
  decipher.setAuthTag(ciphertext.subarray(-16));
  return Buffer.concat([decipher.update(ciphertext.subarray(12, -16)), decipher.final()]);
}

function expect(condition: boolean, what: string): void {
  if (!condition) throw new Error(`the stand-in expects ${what}`);
}

// ---- @aws-sdk/client-kms ----

export class EncryptCommand {
  readonly input: { KeyId: string; Plaintext: Uint8Array };

  constructor(input: { KeyId: string; Plaintext: Uint8Array }) {
    this.input = input;
  }
}

export class DecryptCommand {
  readonly input: { KeyId: string; CiphertextBlob: Uint8Array; EncryptionAlgorithm?: string };

  constructor(input: { KeyId: string; CiphertextBlob: Uint8Array; EncryptionAlgorithm?: string }) {
    this.input = input;
  }
}

export class GetPublicKeyCommand {
  readonly input: { KeyId: string };

  constructor(input: { KeyId: string }) {
    this.input = input;
  }
}

interface Answer {
  CiphertextBlob?: Uint8Array;
  Plaintext?: Uint8Array;
  PublicKey?: Uint8Array;
}

export class KMSClient {
  readonly #pair = generateKeyPairSync("rsa", { modulusLength: 2048 });

  send(command: EncryptCommand | DecryptCommand | GetPublicKeyCommand): Promise<Answer> {
    expect(command.input.KeyId.length > 0, "the name of a key");
    if (command instanceof DecryptCommand) return Promise.resolve({ Plaintext: this.#decrypt(command) });
    if (command instanceof GetPublicKeyCommand) {
      return Promise.resolve({ PublicKey: this.#pair.publicKey.export({ type: "spki", format: "der" }) });
    }
    expect(command.input.Plaintext.length <= 4096, "at most 4096 bytes");
    return Promise.resolve({ CiphertextBlob: encrypt(command.input.Plaintext) });
  }

  #decrypt({ input: { CiphertextBlob, EncryptionAlgorithm } }: DecryptCommand): Uint8Array {
    if (EncryptionAlgorithm === undefined) return decrypt(CiphertextBlob);
    expect(EncryptionAlgorithm === "RSAES_OAEP_SHA_256", "the algorithm of the key");
    const padding = { padding: constants.RSA_PKCS1_OAEP_PADDING, oaepHash: "sha256" };
    return privateDecrypt({ key: this.#pair.privateKey, ...padding }, CiphertextBlob);
  }
}

// ---- @google-cloud/kms ----

export class KeyManagementServiceClient {
  cryptoKeyPath(project: string, location: string, ring: string, name: string): string {
    return `projects/${project}/locations/${location}/keyRings/${ring}/cryptoKeys/${name}`;
  }

  encrypt({ name, plaintext }: { name: string; plaintext: Uint8Array }): Promise<[{ ciphertext: Uint8Array }]> {
    expect(name.startsWith("projects/"), "the path of a key");
    return Promise.resolve([{ ciphertext: encrypt(plaintext) }]);
  }

  decrypt({ name, ciphertext }: { name: string; ciphertext: Uint8Array }): Promise<[{ plaintext: Uint8Array }]> {
    expect(name.startsWith("projects/"), "the path of a key");
    return Promise.resolve([{ plaintext: decrypt(ciphertext) }]);
  }
}

// ---- Vault's transit engine ----

/** A server of the two requests that the recipe makes. */
export function vaultStandIn(token: string): Server {
  return createServer(async (request, response) => {
    const { method, url, headers } = request;
    const chunks: Uint8Array[] = [];
    for await (const chunk of request) chunks.push(chunk);
    const action = /^\/v1\/transit\/(encrypt|decrypt)\/[\w-]+$/.exec(url ?? "")?.[1];
    const isAllowed = method === "POST" && headers["x-vault-token"] === token && action !== undefined;
    if (!isAllowed) {
      response.writeHead(403).end();
      return;
    }
    const { plaintext, ciphertext } = JSON.parse(Buffer.concat(chunks).toString());
    const data = action === "encrypt"
      ? { ciphertext: `vault:v1:${encrypt(Buffer.from(plaintext, "base64")).toString("base64")}` }
      : { plaintext: decrypt(Buffer.from(ciphertext.replace("vault:v1:", ""), "base64")).toString("base64") };
    response.end(JSON.stringify({ data }));
  });
}

// ---- the AWS CLI ----

/** A function for bash. It hides nothing, but returns only what it made. */
export const AWS_STAND_IN = `
aws() {
  case "$2" in
    encrypt) echo "stand-in:$(base64 -w 0 "\${6#fileb://}")" ;;
    decrypt) echo "\${4#stand-in:}" ;;
  esac
}`;
