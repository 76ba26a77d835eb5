/**
 * Makes a checkout ready to be published: the release workflow runs this before it publishes anything.
 *
 *     GITHUB_REPOSITORY=OWNER/NAME GITHUB_REF_NAME=vX.Y.Z bun scripts/release.ts
 *
 * Checks that the tag is the version of both packages, gives package.json the repository that the release runs in (npm
 * refuses provenance of another one), and makes the documents' relative links absolute, which are dead on npm and JSR.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";

const DOCUMENTS = ["README.md", "SECURITY.md", "CHANGELOG.md"];

/** Links and images of Markdown and HTML: what is before the address, and the address. */
const LINK = /(\]\(|\b(?:href|src)=")([^)\s"]+)/g;

/**
 * The text with its relative links made absolute.
 *
 * @param url Where the repository is.
 * @param ref The tag.
 */
export function absoluteLinks(markdown: string, url: string, ref: string): string {
  return markdown.replace(LINK, (link, start: string, address: string) => {
    if (/^(?:[a-z]+:|#|\/\/)/.test(address)) return link;
    const isImage = /\.(?:svg|png|gif|jpe?g)$/.test(address);
    return `${start}${url}/${isImage ? "raw" : "blob"}/${ref}/${address.replace(/^\.\//, "")}`;
  });
}

function release(): void {
  const { GITHUB_REPOSITORY: repository = "", GITHUB_REF_NAME: ref = "" } = process.env;
  if (!/^[\w.-]+\/[\w.-]+$/.test(repository)) throw new Error(`GITHUB_REPOSITORY is no repository: "${repository}"`);
  const root = process.cwd();
  const read = (file: string) => readFileSync(join(root, file), "utf8");
  for (const file of ["deno.json", "package.json"]) {
    const { version } = JSON.parse(read(file)) as { version: string };
    if (ref !== `v${version}`) throw new Error(`the tag is "${ref}", ${file} has the version ${version}`);
  }
  const url = `https://github.com/${repository}`;
  const manifest = { ...JSON.parse(read("package.json")), repository: { type: "git", url: `git+${url}.git` } };
  writeFileSync(join(root, "package.json"), `${JSON.stringify(manifest, undefined, 2)}\n`);
  for (const file of DOCUMENTS) {
    if (existsSync(join(root, file))) writeFileSync(join(root, file), absoluteLinks(read(file), url, ref));
  }
}

if (import.meta.main) release();
