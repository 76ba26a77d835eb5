/**
 * Web servers for tests: Debian's nginx and servers of the tests.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import { type AddressInfo, connect, createServer as createTCPServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";

const NGINX = ["/usr/sbin/nginx", "/usr/bin/nginx"].find(existsSync);

/** The requirement of a test that starts nginx. */
export const needsNginx: Readonly<Record<string, boolean>> = { nginx: NGINX !== undefined };

/** A server that a test started. It is stopped at the end of its block (`await using`). */
export interface StartedServer extends AsyncDisposable {
  /** Without a slash at the end. */
  readonly url: string;
}

/** nginx over a directory of its own. */
export interface Nginx extends StartedServer {
  /** The directory that it serves. */
  readonly root: string;
}

/** Starts nginx. `directives` are more ones of its server block; `ROOT` in them is the directory that it serves. */
export async function startNginx(directives: string = ""): Promise<Nginx> {
  const directory = mkdtempSync(join(tmpdir(), "kcapi-nginx-"));
  const root = join(directory, "root");
  mkdirSync(root);
  const port = await freePort();
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
    .map((name) => `${name}_temp_path ${directory}/${name};`).join(" ");
  const configuration = `
    daemon off; master_process off; pid ${directory}/pid; error_log ${directory}/errors;
    events {}
    http {
      access_log off; ${temporary} default_type application/octet-stream;
      limit_req_zone $binary_remote_addr zone=slow:1m rate=20r/s;
      server { listen 127.0.0.1:${port}; root ${root}; ${directives.replaceAll("ROOT", root)} }
    }`;
  writeFileSync(join(directory, "nginx.conf"), configuration);
  const child = spawn(NGINX!, ["-p", directory, "-c", join(directory, "nginx.conf"), "-e", join(directory, "errors")], {
    stdio: "ignore",
  });
  await answering(port, child);
  return {
    url: `http://127.0.0.1:${port}`,
    root,
    async [Symbol.asyncDispose]() {
      const ended = once(child, "exit");
      child.kill("SIGTERM");
      await ended;
      rmSync(directory, { recursive: true });
    },
  };
}

/** Starts a server of the test itself. */
export async function startServer(
  respond: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<StartedServer> {
  const server = createServer(respond);
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

export async function listen(server: Server): Promise<number> {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return (server.address() as AddressInfo).port;
}

/** A port that nobody uses now. */
export async function freePort(): Promise<number> {
  const server = createTCPServer();
  const port = await listen(server);
  server.close();
  await once(server, "close");
  return port;
}

/** Waits until a program listens. */
async function answering(port: number, child: ChildProcess): Promise<void> {
  while (!await accepts(port)) {
    if (child.exitCode !== null) throw new Error(`the server ended with ${child.exitCode}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function accepts(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1");
    socket.on("connect", () => {
      socket.destroy();
      resolve(true);
    });
    socket.on("error", () => resolve(false));
  });
}
