/**
 * Opens pages in browsers and takes what they report: for tests of programs that are not part of the suite.
 */
import { spawn as spawnProcess } from "node:child_process";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import process from "node:process";
import type { Host } from "../browsers/hosts.ts";
import { tempDir } from "./deps.ts";

/** The strictest policy under which a page can load its own modules, and report. */
const STRICT = "default-src 'none'; script-src 'self'; connect-src 'self'; require-trusted-types-for 'script'";

/** What a page is served: the content by path, or a function that answers. */
export type Site = Readonly<Record<string, string | Uint8Array | Answerer>>;
export type Answerer = (request: IncomingMessage, response: ServerResponse) => unknown;

const TYPES: Readonly<Record<string, string>> = { html: "text/html", js: "text/javascript" };

/** The page that loads these modules. */
export function pageOf(...modules: string[]): string {
  return `<!doctype html><meta charset="utf-8">${
    modules.map((path) => `<script type="module" src="${path}"></script>`).join("")
  }`;
}

/**
 * Opens `/` of a site in a browser, under a strict content security policy.
 *
 * @param host `127.0.0.1`, which browsers trust, or another address of this machine.
 * @returns What the page posts to `/report`, parsed, in the order of arrival.
 */
export async function reportsOf(browser: Host, site: Site, count: number, host = "127.0.0.1"): Promise<unknown[]> {
  const reports: unknown[] = [];
  const { promise: done, resolve, reject } = Promise.withResolvers<void>();
  const server = createServer(async (request, response) => {
    const path = request.url!.replace(/\?.*/, "");
    if (path === "/report") {
      let text = "";
      for await (const chunk of request.setEncoding("utf8")) text += chunk;
      response.end();
      reports.push(JSON.parse(text));
      if (reports.length === count) resolve();
      return;
    }
    const content = site[path];
    if (typeof content === "function") return void await content(request, response);
    const type = TYPES[path === "/" ? "html" : path.split(".").at(-1)!];
    if (content === undefined) return void response.writeHead(404).end();
    response.writeHead(200, { "content-security-policy": STRICT, ...(type && { "content-type": type }) }).end(content);
  });
  server.listen(0, host);
  await once(server, "listening");
  const { port } = server.address() as { port: number };
  const { argv: [program, ...args], env } = browser.command(`http://${host}:${port}/`, tempDir());
  const child = spawnProcess(program!, args, { detached: true, env: { ...process.env, ...env }, stdio: "ignore" });
  child.on("exit", (code) => reject(new Error(`${browser.name} ended with ${code} after ${JSON.stringify(reports)}`)));
  const limit = setTimeout(() => reject(new Error(`no more than ${JSON.stringify(reports)} was reported`)), 60_000);
  try {
    await done;
    return reports;
  } finally {
    clearTimeout(limit);
    child.removeAllListeners("exit");
    const exited = child.exitCode === null ? once(child, "exit") : undefined;
    process.kill(-child.pid!, "SIGKILL");
    await exited;
    server.closeAllConnections();
    server.close();
  }
}
