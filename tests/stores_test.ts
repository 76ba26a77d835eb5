/**
 * `httpSource()` with an S3 server that is some milliseconds away. It ignores If-Match. Of signatures of version 4, it
 * checks only the access key and the time. `docs_test.ts` runs the recipes of docs/stores.md.
 */
import { AwsClient } from "aws4fetch";
import { httpSource, KcapiError, openSealed, seal } from "../mod.ts";
import { assert, assertEquals, assertRejects, assertStringIncludes, test } from "./support/deps.ts";
import { type Bytes, bytes, concat } from "./support/bytes.ts";
import { collect } from "./support/support.ts";
import { type StartedStore, startStore } from "./support/stores.ts";

const HERE = { engine: "userspace" } as const;
const key = bytes(32, 1);
const format = "AES128_CTR_HMAC_SHA256_4KB";
const plaintext = bytes(500_000, 2);
const sealed = concat(await Array.fromAsync(seal({ key, format }, plaintext)));

function client({ env }: StartedStore, accessKeyId: string = env.AWS_ACCESS_KEY_ID!): { aws: AwsClient; url: string } {
  const aws = new AwsClient({
    accessKeyId,
    secretAccessKey: env.AWS_SECRET_ACCESS_KEY!,
    region: env.AWS_REGION!,
    service: "s3",
    retries: 0,
  });
  return { aws, url: `${env.S3_ENDPOINT}/${env.S3_BUCKET}/a b.sealed`.replace(" ", "%20") };
}

async function put(aws: AwsClient, url: string, body: Bytes): Promise<void> {
  const { ok, body: answer } = await aws.fetch(url, { method: "PUT", body });
  await answer?.cancel();
  assert(ok);
}

async function presign(aws: AwsClient, url: string, seconds: number, datetime?: string): Promise<string> {
  const options = { signQuery: true, ...datetime !== undefined && { datetime } };
  return (await aws.sign(`${url}?X-Amz-Expires=${seconds}`, { aws: options })).url;
}

test("S3: signed requests and presigned URLs read any range", HERE, async () => {
  await using store = await startStore(5);
  const { aws, url } = client(store);
  await put(aws, url, sealed);
  const sources = [
    httpSource(url, { fetch: (url, init) => aws.fetch(url, init) }),
    httpSource(await presign(aws, url, 60)),
  ];
  for (const source of sources) {
    using file = await openSealed(source, { key, format });
    assertEquals(file.size, plaintext.length);
    await Promise.all(Array.from({ length: 20 }, async () => {
      const [start, end] = [Math.random(), Math.random()].map((at) => Math.floor(at * plaintext.length));
      assertEquals(await file.bytes(start, end), plaintext.slice(start, end));
    }));
    assertEquals(await collect(file.stream()), plaintext);
  }
});

test("S3: an object that is replaced is EIO, although the store ignores If-Match", HERE, async () => {
  await using store = await startStore(5);
  const { aws, url } = client(store);
  await put(aws, url, sealed);
  using file = await openSealed(httpSource(await presign(aws, url, 60)), { key, format });
  await put(aws, url, concat(await Array.fromAsync(seal({ key, format }, plaintext))));
  const { code, detail } = await assertRejects(() => file.bytes(200_000, 200_010), KcapiError);
  assertEquals(code, "EIO");
  assertStringIncludes(detail, "has changed since it was opened: its ETag");
});

test("S3: what the store refuses is an error of its own, without the signature", HERE, async () => {
  await using store = await startStore(0);
  const { aws, url } = client(store);
  await put(aws, url, sealed);
  const { aws: wrong } = client(store, "UNKNOWN");
  const refused = [
    [httpSource(await presign(aws, url, 1, "20200101T000000Z")), "EACCES"], // expired
    [httpSource(url, { fetch: (url, init) => wrong.fetch(url, init) }), "EACCES"],
    [httpSource(await presign(aws, `${url}.missing`, 60)), "ENOENT"],
  ] as const;
  for (const [source, code] of refused) {
    const error = await assertRejects(() => openSealed(source, { key, format }), KcapiError);
    assertEquals([error.code, error.message.includes("X-Amz")], [code, false], error.message);
  }
});
