/**
 * Tests of sealed streams that browsers cannot run, because they need Node's modules, another program or the kernel.
 */
import { writeFileSync } from "node:fs";
import { getEventListeners } from "node:events";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { inspect } from "node:util";
import {
  KcapiError,
  openSealed,
  seal,
  type SealedFormat,
  type SealOptions,
  SealStream,
  unseal,
  UnsealStream,
} from "../mod.ts";
import type { Calls } from "../ffi/adapter.ts";
import { assert, assertEquals, assertRejects, assertStrictEquals, engine, spawn, tempDir } from "./support/deps.ts";
import { interpose } from "./support/native_calls.ts";
import { contractOf } from "./support/pool.ts";
import { engineOf, FIRST, KEY, NAME, refused, SMALL, STRIDE } from "./support/sealed_support.ts";
import { type Bytes, bytes, caught, collect, fromHex, streamOf } from "./support/support.ts";

const { test, once, pool } = await contractOf(import.meta.url);

function optionsOf(format: SealedFormat = SMALL): SealOptions {
  return { key: KEY, associatedData: NAME, format, engine: engineOf(format, engine), pool };
}

const sealed = (input: Bytes, options = optionsOf()) => collect(seal(options, input));

const hasPython = await spawn(["python3", "-c", ""]).then(({ code }) => code === 0, () => false);

once(
  "a Python reader, written from the specification of the format, opens sealed files",
  { engine: "userspace", needs: { "python3": hasPython } },
  async () => {
    const directory = tempDir();
    const reader = fileURLToPath(new URL("native/sealed_reader.py", import.meta.url));
    writeFileSync(join(directory, "key"), KEY);
    writeFileSync(join(directory, "name"), NAME);
    const named = { keySize: 32, tagSize: 32, segmentSize: 4096 };
    const cases = [[SMALL, FIRST + STRIDE], [SMALL, 0], ["AES256_CTR_HMAC_SHA256_4KB", 10_000]] as const;
    for (const [format, length] of cases) {
      const { keySize, tagSize, segmentSize } = typeof format === "string" ? named : format;
      const numbers = [keySize, tagSize, segmentSize].map(String);
      const command = ["python3", reader, join(directory, "key"), join(directory, "name"), ...numbers];
      const file = await sealed(bytes(length), optionsOf(format));
      const { code, output, stderr } = await spawn(command, { input: file });
      assertEquals(code, 0, stderr);
      assertEquals(new Uint8Array(output), bytes(length));
      file[file.length - 1]! ^= 1;
      assertEquals((await spawn(command, { input: file })).code, 1);
    }
  },
);

test("no listener of a signal remains after any end", async () => {
  const { signal } = new AbortController();
  const options = { ...optionsOf(), signal };
  const file = await sealed(bytes(1000));
  const damaged = file.with(500, file[500]! ^ 1);
  const open = await openSealed(new Blob([file]), options);
  assertEquals(getEventListeners(signal, "abort").length, 1);
  open.close();
  await refused(openSealed(new Blob([file.slice(1)]), options));
  await collect(seal(options, bytes(1000)));
  await refused(collect(unseal(options, damaged)));
  await collect(streamOf([bytes(1000)]).pipeThrough(new SealStream(options)));
  await refused(collect(streamOf([damaged]).pipeThrough(new UnsealStream(options))));
  await new UnsealStream(options).readable.cancel();
  assertEquals(getEventListeners(signal, "abort").length, 0);
});

test(
  "a file whose cipher fails is closed: the next read would get output of this one, or block",
  { engine: "kernel", needs: { "one thread: with a pool, the ciphers are in Workers": !pool } },
  async () => {
    const file = new Blob([await sealed(bytes(1000))]);
    for (const name of ["kcapi_cipher_stream_update_last", "kcapi_cipher_stream_op"] as const) {
      let isFailing = false;
      using _ = interpose((real) => ({
        [name]: (...args: Parameters<Calls[typeof name]>) => isFailing ? -12 : real[name](...args),
      }));
      const open = await openSealed(file, optionsOf());
      isFailing = true;
      const error = await assertRejects(() => open.bytes(0, 10), KcapiError);
      assertEquals([error.code, error.operation], ["ENOMEM", name]);
      isFailing = false;
      assertStrictEquals(await caught(open.bytes(0, 10)), error);
    }
  },
);

test("errors and inspection do not show a key", async () => {
  const secret = "5e5e".repeat(16);
  const key = fromHex(secret);
  const open = await openSealed(new Blob([await sealed(bytes(3), { ...optionsOf(), key })]), { ...optionsOf(), key });
  const shown = inspect([open, new SealStream({ ...optionsOf(), key }), seal({ ...optionsOf(), key }, KEY)], {
    depth: 9,
  });
  assert(!/5e5e|94,\s*94/.test(shown), shown);
  open.close();
});
