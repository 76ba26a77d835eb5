/**
 * Takes the place of `../support/deps.ts` in the bundles for browsers and workerd: the same assertions and
 * `test()`. What that one exports needs files, processes or the kernel is missing here, so that the bundler names
 * a test file that uses it.
 */
import * as std from "@std/assert";
import type { Requirements, TestBody } from "../support/deps.ts";
import { tests } from "./runner.ts";

export {
  assert,
  assertInstanceOf,
  assertNotEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";

declare const navigator: { readonly userAgent?: string };
declare const process: { readonly env: { readonly FC_SEED: string } };

/** The engine of sealed streams. `../support/deps.ts` has "kernel" and "userspace" here. */
export const engine = "webcrypto";

/** `../support/deps.ts` has "deno", "bun" and "node" here. */
export const runtime: "chromium" | "firefox" | "webkit" | "workerd" = nameOf(navigator.userAgent ?? "");

function nameOf(userAgent: string): typeof runtime {
  if (userAgent.includes("Cloudflare-Workers")) return "workerd";
  if (userAgent.includes("Firefox/")) return "firefox";
  return userAgent.includes("Chrome/") ? "chromium" : "webkit";
}

/** As in `../support/leg.ts`: there is no long tier here. */
export const times = (few: number, _many: number): number => few;
export const runs = (few: number, many: number): number => times(few, many);

/** FC_SEED repeats a run: `bundle.mjs` puts it here. */
export const seed = Number(process.env.FC_SEED || Math.floor(Math.random() * 2 ** 31));

/** There are no descriptors. */
export const openFiles = (): number => 0;

/** Deep equality. For byte arrays that differ, the message shows the first difference. */
export function assertEquals<T>(actual: T, expected: T, message?: string): void {
  if (!(actual instanceof Uint8Array && expected instanceof Uint8Array)) {
    return std.assertEquals(actual, expected, message);
  }
  const at = actual.findIndex((byte, i) => byte !== expected[i]);
  if (at === -1 && actual.length === expected.length) return;
  const first = at === -1 ? actual.length : at;
  const show = (bytes: Uint8Array) => `length ${bytes.length}, …${bytes.slice(first, first + 16).join(" ")}…`;
  throw new std.AssertionError(
    `${message ?? "Bytes differ"}: first at offset ${first}\n  actual:   ${show(actual)}\n  expected: ${
      show(expected)
    }`,
  );
}

/** As in `support/deps.ts`. A test that does not depend on the engine has `engine: "userspace"`: it runs here, too. */
export function test(name: string, ...rest: [TestBody] | [Requirements, TestBody]): void {
  const [requirements, body] = rest.length === 1 ? [{}, rest[0]] : rest;
  const reason = reasonToSkip(requirements);
  tests.push(reason ? { name: `${name} # ${reason}`, body: undefined } : { name, body });
}

function reasonToSkip({ engine, runtime: runtimes, needs = {} }: Requirements): string | undefined {
  if (engine === "kernel") return "needs the kernel engine";
  if (runtimes && !([runtimes].flat() as string[]).includes(runtime)) {
    return `is for ${[runtimes].flat().join(" and ")}`;
  }
  const missing = Object.keys(needs).filter((name) => !needs[name]);
  return missing.length > 0 ? `needs ${missing.join(" and ")}` : undefined;
}
