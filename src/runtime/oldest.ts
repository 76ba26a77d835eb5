/**
 * Refuses releases of runtimes that are too old, when it is imported. Its declarations need no types of a runtime.
 *
 * @module
 */

/** The globals that identify the runtime. */
export interface RuntimeGlobals {
  readonly Deno?: { readonly version: { readonly deno: string } };
  readonly Bun?: { readonly version: string };
  readonly process?: {
    readonly versions?: Readonly<Record<string, string>>;
    readonly getBuiltinModule?: (name: string) => unknown;
  };
}

/** The oldest supported release of each runtime. `tests/oldest_test.ts` runs them. */
export const OLDEST = { Deno: "2.5.0", Bun: "1.2.20", Node: "22.3.0" } as const;

/**
 * Checks the version of a server runtime. Everything else is a browser or a worker, where `bytes.ts` checks features.
 *
 * @throws {Error} If it is too old.
 */
export function checkRuntime({ Deno, Bun, process }: RuntimeGlobals): void {
  const [name, version] = Deno
    ? ["Deno", Deno.version.deno] as const
    : Bun
    ? ["Bun", Bun.version] as const
    : ["Node", process?.versions?.node] as const;
  if (version === undefined || !isOlder(version, OLDEST[name])) return;
  throw new Error(
    `@kcapi/streams needs Deno ${OLDEST.Deno}, Bun ${OLDEST.Bun} or Node ${OLDEST.Node}, or a later release: this is ` +
      `${name} ${version}`,
  );
}

function isOlder(version: string, oldest: string): boolean {
  const [a, b] = [version, oldest].map((each) => each.split(".").map((part) => parseInt(part, 10))) as [
    number[],
    number[],
  ];
  const differing = b.findIndex((part, i) => part !== a[i]);
  return differing >= 0 && a[differing]! < b[differing]!;
}

checkRuntime(globalThis as unknown as RuntimeGlobals);
