/**
 * `keyset`: makes and changes Tink's keysets.
 *
 * @module
 */

import type { SealedFormatName, SealedParameters } from "../../mod.ts";
import { checkFormat, DEFAULT_FORMAT, FORMAT_NAMES } from "../sealed/format.ts";
import type { Keyset } from "../tink/mod.ts";
import type { Arguments } from "./arguments.ts";
import { print } from "./descriptors.ts";
import { wrongUsage } from "./failures.ts";
import { encodeKeyset, newKeyset, writeKey } from "./keygen.ts";
import { replaceFile } from "./output.ts";
import { asUsage } from "./plan.ts";
import { keysetOf, readKeyFile } from "./sealing_keys.ts";
import { table } from "./text.ts";

/** What `keyset` does to a key. */
const CHANGES = ["promote", "disable", "enable", "remove"] as const;

export const KEYSET_ACTIONS: readonly string[] = ["create", "add", ...CHANGES, "list"];

export async function keyset(args: Arguments): Promise<number> {
  const [action, path, id] = args.operands as [string, string, string | undefined];
  const change = CHANGES.find((each) => each === action);
  if (!change && id !== undefined) throw wrongUsage(`${action} takes no ID`);
  if (action !== "create" && action !== "add" && args.has("format")) throw wrongUsage(`${action} takes no --format`);
  if (action !== "list" && args.has("json")) throw wrongUsage(`${action} takes no --json`);
  if (action === "create") {
    using created = newKeyset(args);
    await writeKey(path, encodeKeyset(created));
    return await print(`${created.primaryKeyId}\n`);
  }
  const number = change && numberOf(action, id);
  const { bytes } = await readKeyFile("keyset", path);
  using keyset = keysetOf(path, bytes);
  if (action === "list") return await list(keyset, args);
  if (change) {
    asUsage(() => keyset[change](number!));
    await write(path, keyset);
    return 0;
  }
  const added = keyset.add((args.get("format") ?? DEFAULT_FORMAT) as SealedFormatName);
  await write(path, keyset);
  return await print(`${added}\n`);
}

function numberOf(action: string, id: string | undefined): number {
  if (id === undefined) throw wrongUsage(`${action} needs the ID of a key (list shows them)`);
  if (/^\d{1,10}$/.test(id)) return Number(id);
  throw wrongUsage("ID expects the number of a key (list shows them)");
}

/** Replaces the file of a keyset as a whole, so that no crash can leave half of it. */
async function write(path: string, keyset: Keyset): Promise<void> {
  const bytes = encodeKeyset(keyset);
  try {
    await replaceFile(path, bytes);
  } finally {
    bytes.fill(0);
  }
}

async function list({ keys }: Keyset, args: Arguments): Promise<number> {
  if (args.has("json")) return await print(`${JSON.stringify(keys, undefined, 2)}\n`);
  const rows = keys.map(({ id, status, isPrimary, format }) => [
    String(id),
    isPrimary ? "PRIMARY" : status,
    format ? formatText(format) : "",
  ]);
  return await print(table([["ID", "STATUS", "FORMAT"], ...rows]));
}

/** The name of a format, or its parameters. */
function formatText(format: SealedParameters): string {
  const text = JSON.stringify(checkFormat(format));
  const name = FORMAT_NAMES.find((name) => JSON.stringify(checkFormat(name)) === text);
  return name ?? Object.entries(format).map(([parameter, value]) => `${parameter} ${value}`).join(", ");
}
