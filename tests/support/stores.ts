/**
 * An S3 server (s3rver), and a proxy that adds latency.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { listen, type StartedServer } from "./web_servers.ts";

/** A store, and the variables that lead programs to it. */
export interface StartedStore extends StartedServer {
  readonly env: Readonly<Record<string, string>>;
}

const BUCKET = "bucket";

/** Starts s3rver. Each request and each answer takes some milliseconds more. */
export async function startStore(latency: number): Promise<StartedStore> {
  const directory = mkdtempSync(join(tmpdir(), "kcapi-s3-"));
  const root = fileURLToPath(new URL("../../", import.meta.url));
  const argv = [join(root, "node_modules/s3rver/bin/s3rver.js"), "--directory", directory, "--address", "127.0.0.1"];
  const child = spawn(join(root, "node_modules/.bin/node"), [
    ...[...argv, "--port", "0", "--no-vhost-buckets", "--silent", "--configure-bucket", BUCKET],
  ], { stdio: ["ignore", "pipe", "inherit"] });
  const ended = once(child, "exit");
  let output = "";
  child.stdout.on("data", (text) => output += text);
  while (!/:\d+\s*$/.test(output)) {
    if (child.exitCode !== null) throw new Error(`s3rver ended with ${child.exitCode}: ${output}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const proxy = await startProxy(Number(/:(\d+)\s*$/.exec(output)![1]), latency);
  return {
    url: proxy.url,
    env: {
      S3_ENDPOINT: proxy.url,
      S3_BUCKET: BUCKET,
      AWS_REGION: "us-east-1",
      AWS_ACCESS_KEY_ID: "S3RVER",
      AWS_SECRET_ACCESS_KEY: "S3RVER",
    },
    async [Symbol.asyncDispose]() {
      await proxy[Symbol.asyncDispose]();
      child.kill();
      await ended;
      rmSync(directory, { recursive: true });
    },
  };
}

/** Passes on what comes from either side after some milliseconds. */
async function startProxy(target: number, latency: number): Promise<StartedServer> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const store = connect(target, "127.0.0.1");
    for (const [from, to] of [[client, store], [store, client]] as const) {
      const later = (action: () => void) => setTimeout(() => !to.destroyed && action(), latency);
      sockets.add(from.setNoDelay());
      from.on("data", (chunk) => later(() => to.write(chunk)));
      from.on("error", () => {});
      from.on("close", () => {
        sockets.delete(from);
        later(() => to.destroy());
      });
    }
  });
  const port = await listen(server);
  return {
    url: `http://127.0.0.1:${port}`,
    async [Symbol.asyncDispose]() {
      const closed = once(server, "close");
      const ends = [...sockets].map((socket) => once(socket, "close"));
      server.close();
      for (const socket of sockets) socket.destroy();
      await Promise.all([closed, ...ends]);
      await new Promise((resolve) => setTimeout(resolve, latency + 1)); // the timers of the last bytes
    },
  };
}
