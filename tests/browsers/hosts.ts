/**
 * The browsers, and workerd: where their programs are, and how each is started on a URL with an empty profile. No
 * driver is needed, because the page reports the results by itself.
 */
import { spawnSync } from "node:child_process";
import { existsSync, globSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** How a host is started. */
export interface Command {
  readonly argv: readonly string[];
  readonly env?: Readonly<Record<string, string>>;
}

/** What runs a bundle of tests. */
export interface Host {
  readonly name: string;
  /** Its programs; `undefined` where one is missing. */
  readonly program: string | undefined;
  /** What is skipped, and why, where there is no program. */
  readonly missing: string;
  /** The name and version of the program. */
  version(): string;
  /** The command for a browser that opens `url`, with `profile`, an empty directory, as its home. */
  command(url: string, profile: string): Command;
}

/** The first of these files that is there. */
const find = (...paths: string[]): string | undefined => paths.find(existsSync);

/** The name and version in the output of `program --version`. */
function versionOf(program: string, env: NodeJS.ProcessEnv = process.env): string {
  const { stdout } = spawnSync(program, ["--version"], { encoding: "utf8", env });
  return /^(?:Mozilla )?(\D+? \d[\d.-]*)/.exec(stdout)?.[1] ?? stdout.trim();
}

const chromium = find("/usr/bin/chromium", "/usr/bin/google-chrome");
const firefox = find("/usr/bin/firefox-esr", "/usr/bin/firefox");
const webkit = globSync("/usr/lib/*/webkit2gtk-4.1/MiniBrowser").find(() => existsSync("/usr/bin/xvfb-run"));
const workerd = globSync(join(root, "node_modules/workerd-linux-*/bin/workerd"))[0];

function webkitPackage(): string {
  return spawnSync("dpkg-query", ["--show", "libwebkit2gtk-4.1-0"], { encoding: "utf8" }).stdout ?? "";
}

/** Preferences that keep Firefox from connecting to anything but the page. */
const FIREFOX: Readonly<Record<string, string | number | boolean>> = {
  "app.normandy.enabled": false,
  "app.update.disabledForTesting": true,
  "browser.aboutwelcome.enabled": false,
  "browser.newtabpage.enabled": false,
  "browser.region.update.enabled": false,
  "browser.safebrowsing.downloads.enabled": false,
  "browser.safebrowsing.malware.enabled": false,
  "browser.safebrowsing.phishing.enabled": false,
  "browser.search.update": false,
  "browser.shell.checkDefaultBrowser": false,
  "browser.startup.homepage_override.mstone": "ignore",
  "browser.topsites.contile.enabled": false,
  "captivedetect.canonicalURL": "",
  "datareporting.healthreport.uploadEnabled": false,
  "datareporting.policy.dataSubmissionEnabled": false,
  "dom.push.connection.enabled": false,
  "extensions.getAddons.cache.enabled": false,
  "extensions.systemAddon.update.enabled": false,
  "extensions.update.enabled": false,
  "media.gmp-manager.updateEnabled": false,
  "network.captive-portal-service.enabled": false,
  "network.connectivity-service.enabled": false,
  "network.dns.disablePrefetch": true,
  "network.dns.forceResolve": "127.0.0.1",
  "network.http.speculative-parallel-limit": 0,
  "network.prefetch-next": false,
  // What these forget meets a proxy that is not there.
  "network.proxy.type": 1,
  "network.proxy.http": "127.0.0.1",
  "network.proxy.http_port": 9,
  "network.proxy.ssl": "127.0.0.1",
  "network.proxy.ssl_port": 9,
  "network.proxy.allow_hijacking_localhost": false,
  "services.settings.server": "data:,", // heeded with MOZ_REMOTE_SETTINGS_DEVTOOLS alone
  "toolkit.telemetry.enabled": false,
  "toolkit.telemetry.server": "",
  "toolkit.telemetry.unified": false,
};

export const HOSTS: readonly Host[] = [
  {
    name: "chromium",
    program: chromium,
    missing: "needs Chromium: tests/browsers/install",
    version: () => versionOf(chromium!),
    command: (url, profile) => ({
      argv: [
        chromium!,
        "--headless=new",
        "--no-sandbox", // it refuses to start as root with one
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-quic",
        "--no-first-run",
        "--no-default-browser-check",
        "--disable-background-networking",
        "--disable-background-timer-throttling",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-domain-reliability",
        "--disable-extensions",
        "--disable-sync",
        "--metrics-recording-only",
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        `--user-data-dir=${profile}`,
        url,
      ],
      env: { HOME: profile },
    }),
  },
  {
    name: "firefox",
    program: firefox,
    missing: "needs Firefox: tests/browsers/install",
    version: () => versionOf(firefox!),
    command(url, profile) {
      const preferences = Object.entries(FIREFOX).map(([name, value]) =>
        `user_pref(${JSON.stringify(name)}, ${JSON.stringify(value)});\n`
      );
      writeFileSync(join(profile, "user.js"), preferences.join(""));
      return {
        argv: [firefox!, "--headless", "--no-remote", "--profile", profile, url],
        env: { HOME: profile, MOZ_CRASHREPORTER_DISABLE: "1", MOZ_REMOTE_SETTINGS_DEVTOOLS: "1" },
      };
    },
  },
  {
    name: "webkit",
    program: webkit,
    missing: "needs WebKitGTK's MiniBrowser and xvfb: tests/browsers/install",
    // MiniBrowser tells its version only where there is a display.
    version: () => `WebKitGTK ${/2\.\d+\.\d+/.exec(webkitPackage())?.[0] ?? "?"}`,
    command: (url, profile) => ({
      argv: ["xvfb-run", "-a", webkit!, "--private", "--ignore-tls-errors", url],
      env: {
        HOME: profile,
        TMPDIR: profile, // xvfb-run leaves a directory there when it is killed
        XDG_RUNTIME_DIR: profile,
        NO_AT_BRIDGE: "1", // no accessibility bus
        WEBKIT_DISABLE_COMPOSITING_MODE: "1",
        WEBKIT_DISABLE_SANDBOX_THIS_IS_DANGEROUS: "1", // its sandbox needs user namespaces
      },
    }),
  },
];

/** Cloudflare's runtime. It opens no page: it answers a request with the results of its tests. */
export const WORKERD = {
  name: "workerd",
  program: workerd,
  missing: "needs workerd: npm ci",
  version: (): string => versionOf(workerd!),
  /** Writes its configuration to `directory`, where the bundle is; it listens on a port that it chooses. */
  command(directory: string): Command {
    const config = join(directory, "workerd.capnp");
    writeFileSync(
      config,
      `using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [
    (name = "tests", worker = (
      modules = [(name = "tests.js", esModule = embed "worker.js")],
      compatibilityDate = "2026-07-01",
      globalOutbound = "nowhere",
    )),
    (name = "nowhere", network = (allow = [])),
  ],
  sockets = [(name = "http", address = "127.0.0.1:0", http = (), service = "tests")],
);
`,
    );
    return { argv: [workerd!, "serve", "--control-fd=3", config] };
  },
};
