/** The files that the runtimes have sealed, as `tests/pairs/run` passes them on. */
import { readFileSync } from "node:fs";
import process from "node:process";
import type { SealedFormatName } from "../../mod.ts";

/** A file that a runtime has sealed. */
export interface SealedFile {
  readonly by: string;
  readonly format: SealedFormatName;
  readonly size: number;
  /** Its bytes in base64. */
  readonly data: string;
}

interface SealedFiles {
  /** The runtimes that are not installed. */
  readonly missing: readonly string[];
  readonly files: readonly SealedFile[];
}

/** In the bundles for browsers, the JSON file takes the place of this module. */
const sealed: SealedFiles = JSON.parse(readFileSync(process.env.KCAPI_PAIRS!, "utf8"));
export default sealed;
