/**
 * The API report, docs/api.txt: every public name with its types and without its documentation, so that a change of the
 * public API is seen in a diff. `npm run check` compares it.
 *
 *     bun scripts/api_report.ts    writes it anew
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ENTRIES } from "./build.ts";
import { ROOT, run } from "./run.ts";

const REPORT = join(ROOT, "docs/api.txt");

/** The parts in use of what `deno doc --json` prints. */
interface Type {
  readonly kind: string;
  readonly repr?: string;
  // deno-lint-ignore no-explicit-any
  readonly value?: any;
}
interface Parameter {
  readonly kind: string;
  readonly name?: string;
  readonly optional?: boolean;
  readonly tsType?: Type;
  readonly arg?: Parameter;
  readonly left?: Parameter;
}
interface Callable {
  readonly params: readonly Parameter[];
  readonly returnType?: Type;
  readonly hasBody?: boolean;
  readonly typeParams?: readonly { readonly name: string; readonly constraint?: Type; readonly default?: Type }[];
}
interface Member extends Partial<Callable> {
  readonly name: string;
  readonly kind?: string;
  readonly tsType?: Type;
  readonly functionDef?: Callable;
  readonly readonly?: boolean;
  readonly optional?: boolean;
  readonly isStatic?: boolean;
  readonly accessibility?: string;
  readonly jsDoc?: { readonly tags?: readonly { readonly kind: string }[] };
}
interface Definition extends Partial<Callable> {
  readonly constructors?: readonly Member[];
  readonly properties?: readonly Member[];
  readonly methods?: readonly Member[];
  readonly tsType?: Type;
  readonly isAbstract?: boolean;
  readonly extends?: string | readonly Type[];
  readonly superTypeParams?: readonly Type[];
  readonly implements?: readonly Type[];
}
interface DocSymbol {
  readonly name: string;
  readonly declarations: readonly { readonly kind: string; readonly def: Definition }[];
}

function type(of: Type | undefined): string {
  if (of === undefined) return "unknown";
  const { kind, repr, value } = of;
  switch (kind) {
    case "keyword":
    case "this":
      return repr!;
    case "literal":
      return literal(value);
    case "typeRef":
      return value.typeName + parameters(value.typeParams);
    case "union":
    case "intersection":
      return value.map(type).join(kind === "union" ? " | " : " & ");
    case "array":
      return `${/[|&]|=>/.test(type(value)) ? `(${type(value)})` : type(value)}[]`;
    case "parenthesized":
      return `(${type(value)})`;
    case "typeOperator":
      return `${value.operator} ${type(value.tsType)}`;
    case "typeLiteral":
      return `{ ${[...members(value)].join("; ")} }`;
    case "fnOrConstructor":
      return `(${value.params.map(parameter).join(", ")}) => ${type(value.tsType)}`;
    default:
      throw new Error(`the API report knows no type of the kind ${kind}: ${JSON.stringify(of)}`);
  }
}

function literal(value: { kind: string; [kind: string]: unknown }): string {
  if (value.kind !== "template") return JSON.stringify(value[value.kind]);
  const parts = (value.tsTypes as Type[]).map((part) =>
    part.kind === "literal" ? part.value.string : `\${${type(part)}}`
  );
  return `\`${parts.join("")}\``;
}

function parameters(types: readonly Type[] = []): string {
  return types.length > 0 ? `<${types.map(type).join(", ")}>` : "";
}

function parameter({ kind, name, optional, tsType, arg, left }: Parameter): string {
  if (kind === "rest") return `...${arg!.name}: ${type(tsType)}`;
  if (kind === "assign") return `${left!.name ?? "options"}?: ${type(left!.tsType)}`;
  return `${name ?? "options"}${optional ? "?" : ""}: ${type(tsType)}`;
}

function call({ params, returnType, typeParams = [] }: Callable): string {
  const generic = typeParams.map((each) =>
    each.name + (each.constraint ? ` extends ${type(each.constraint)}` : "") +
    (each.default ? ` = ${type(each.default)}` : "")
  );
  return `${generic.length > 0 ? `<${generic.join(", ")}>` : ""}(${params.map(parameter).join(", ")})${
    returnType ? `: ${type(returnType)}` : ""
  }`;
}

/** What callers see: an implementation behind overloads is none of it. */
function overloads<T extends Partial<Callable>>(calls: readonly T[]): readonly T[] {
  return calls.some(({ hasBody }) => !hasBody) ? calls.filter(({ hasBody }) => !hasBody) : calls;
}

function* members({ constructors = [], properties = [], methods = [] }: Definition): Generator<string> {
  const isPublic = ({ accessibility, jsDoc }: Member) =>
    accessibility !== "private" && !jsDoc?.tags?.some(({ kind }) => kind === "ignore");
  for (const each of overloads(constructors).filter(isPublic)) yield `constructor${call(each as Callable)}`;
  for (const { name, tsType, readonly, optional, isStatic } of properties.filter(isPublic)) {
    yield `${isStatic ? "static " : ""}${readonly ? "readonly " : ""}${name}${optional ? "?" : ""}: ${type(tsType)}`;
  }
  for (const { name, kind, isStatic, functionDef, ...rest } of methods.filter(isPublic)) {
    const callable = functionDef ?? rest as Callable;
    const isGetter = kind === "getter";
    yield `${isStatic ? "static " : ""}${
      isGetter ? `get ${name}: ${type(callable.returnType)}` : name + call(callable)
    }`;
  }
}

function* declaration(name: string, kind: string, def: Definition): Generator<string> {
  if (kind === "typeAlias") {
    yield `type ${name} = ${type(def.tsType)}`;
  } else if (kind === "function") {
    yield `function ${name}${call(def as Callable)}`;
  } else if (kind === "class" || kind === "interface") {
    const parent = typeof def.extends === "string"
      ? def.extends + parameters(def.superTypeParams)
      : def.extends?.map(type).join(", ");
    const heads = [
      `${def.isAbstract ? "abstract " : ""}${kind} ${name}`,
      ...(parent ? [`extends ${parent}`] : []),
      ...(def.implements?.length ? [`implements ${def.implements.map(type).join(", ")}`] : []),
    ];
    yield heads.join(" ");
    for (const member of members(def)) yield `  ${member}`;
  } else if (kind === "reference") {
    yield `${name}, as in the first entry that has it`;
  } else {
    throw new Error(`the API report knows no declaration of the kind ${kind}`);
  }
}

/** The report, from the sources as they are. */
export function apiReport(): string {
  const { nodes } = JSON.parse(run(["deno", "doc", "--json", ...ENTRIES], { NO_COLOR: "1" })) as {
    nodes: Record<string, { symbols?: readonly DocSymbol[] }>;
  };
  const sections = ENTRIES.map((entry) => {
    const found = Object.entries(nodes).find(([url]) => url.endsWith(`/${entry}`))?.[1];
    const symbols = [...found?.symbols ?? []].sort((a, b) => a.name < b.name ? -1 : 1);
    const declarations = symbols.flatMap(({ name, declarations }) =>
      overloads(declarations.map((each) => ({ ...each, ...each.def }))).map(({ kind, def }) =>
        [...declaration(name, kind, def)].join("\n")
      )
    );
    return [`# ${entry}`, ...declarations].join("\n\n");
  });
  return `The public API. Made by scripts/api_report.ts: do not edit.\n\n${sections.join("\n\n")}\n`;
}

/** @throws {Error} If the API is not as the report has it. */
export function checkApi(): void {
  const [actual, kept] = [apiReport(), readFileSync(REPORT, "utf8")].map((text) => text.split("\n")) as [
    string[],
    string[],
  ];
  const changed = [
    ...kept.filter((line) => !actual.includes(line)).map((line) => `- ${line}`),
    ...actual.filter((line) => !kept.includes(line)).map((line) => `+ ${line}`),
  ];
  if (actual.join("\n") === kept.join("\n")) return;
  throw new Error(`the public API has changed; if it should, run: bun scripts/api_report.ts\n${changed.join("\n")}`);
}

if (import.meta.main) writeFileSync(REPORT, apiReport());
