/**
 * What the runtimes' profilers look at: 64 KiB chunks through the kernel engine.
 *
 * @module
 */

import { EncryptionStream } from "../mod.ts";
import { chunksOf, iv, key, KiB, MiB, pump } from "./measure.ts";

const size = 64 * KiB;
await pump(chunksOf(size), 512 * MiB / size, new EncryptionStream("cbc(aes)", { key, iv, engine: "kernel" }));
