/// <reference lib="dom" />
/**
 * The vault's page in a real browser: `node tests/vault/browser.ts RUNTIME [PART [SCREENSHOT]]`
 *
 * Uses Debian's Chromium, headless, and the server of a runtime. PART is "use", "trouble" or "all".
 * Writes a picture of the page to SCREENSHOT, and pictures of its other states next to it.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type BrowserContext, type CDPSession, chromium, type Page } from "playwright-core";
import { CHROMIUM, RUNTIMES, Server, until } from "./server.ts";

const CONTENT = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * i) >> 7));
const WAV = wav(1200);

const [runtime, part = "all", screenshot] = process.argv.slice(2);
const known = RUNTIMES.find((name) => name === runtime);
if (!known || !/^(use|trouble|all)$/.test(part)) {
  throw new Error(`Usage: browser.ts ${RUNTIMES.join("|")} [use|trouble|all [SCREENSHOT]]`);
}
if (!CHROMIUM) throw new Error("Chromium is missing: run tests/vault/install");

const directory = mkdtempSync(join(tmpdir(), "vault-browser-"));
const server = new Server(known, directory);
let context: BrowserContext | undefined;
let network: CDPSession | undefined;
try {
  await server.start();
  context = await chromium.launchPersistentContext(join(directory, "profile"), {
    executablePath: CHROMIUM,
    headless: true,
    viewport: { width: 1100, height: 760 },
    args: [
      "--no-sandbox",
      "--disable-gpu",
      "--disable-quic",
      "--no-first-run",
      "--disable-background-networking",
      "--disable-component-update",
      "--disable-sync",
      "--autoplay-policy=no-user-gesture-required",
    ],
  });
  const page = context.pages()[0]!;
  page.setDefaultTimeout(60_000);
  await run(page);
} finally {
  await context?.close();
  await server.kill();
  rmSync(directory, { recursive: true, maxRetries: 5 });
}

async function run(page: Page): Promise<void> {
  const problems: string[] = [];
  page.on("pageerror", (error) => problems.push(error.message));
  page.on("console", (message) => message.type() === "error" && problems.push(message.text()));

  await page.goto(server.url);
  await page.getByText("No files yet").waitFor();
  if (part !== "trouble") {
    await uploads(page);
    await drops(page);
    await downloads(page);
    await seeks(page);
    await cancels(page);
    await deletes(page);
    await fitsAPhone(page);
    await showsNames(page);
    await showsASmallPicture(page);
    await refreshesOnFocus(page);
    assert.equal(problems.join("\n"), "", "errors of the page, and violations of its policy");
  }
  if (part !== "use") {
    await storesMany(page);
    await asksOnceAboutMany(page);
    await pages(page);
    assert.equal(problems.join("\n"), "", "errors of the page, and violations of its policy");
    // From here on requests fail, which Chromium reports as errors.
    await recoversFromAStaleTab(page);
    await listsDamage(page);
    await survivesWithoutAServer(page);
    assert.equal(problems.filter((problem) => !problem.startsWith("Failed to load resource")).join("\n"), "");
  }
  if (screenshot) await picture(page, screenshot);
}

/** With the file chooser, slowly enough for the progress to be visible. A screen reader hears of the end. */
async function uploads(page: Page): Promise<void> {
  const file = join(directory, "Plans & notes.bin");
  writeFileSync(file, CONTENT);
  writeFileSync(join(directory, "long.wav"), WAV);
  await throttle(page, 2_000_000);
  const chooser = page.waitForEvent("filechooser");
  await page.getByLabel("Choose files to store").click();
  await (await chooser).setFiles([file]);
  const progress = page.getByRole("progressbar", { name: "Plans & notes.bin, stored so far" });
  await progress.waitFor();
  await page.getByText(/ MB of 3\.0 MB · .*B\/s · .* left/).waitFor();
  await throttle(page, -1);
  await page.getByRole("button", { name: "Delete Plans & notes.bin" }).waitFor();
  await page.getByRole("status").getByText("Plans & notes.bin is stored").waitFor({ state: "attached" });
  assert.equal(await progress.count(), 0);

  await page.getByLabel("Choose files to store").setInputFiles([join(directory, "long.wav")]);
  await page.getByRole("button", { name: "Play long.wav" }).waitFor();
  await page.getByRole("heading", { name: "2 files" }).waitFor();
}

/** Stores files that are dropped on the page. Replaces a stored file only if the user agrees. */
async function drops(page: Page): Promise<void> {
  const drop = async (text: string) => {
    const dataTransfer = await page.evaluateHandle((text) => {
      const transfer = new DataTransfer();
      transfer.items.add(new File([text], "dropped.txt"));
      return transfer;
    }, text);
    await page.dispatchEvent("#drop", "drop", { dataTransfer });
  };
  const stored = async () => await (await fetch(`${server.url}/files/dropped.txt`)).text();
  await drop("first");
  await page.getByRole("heading", { name: "3 files" }).waitFor();
  await drop("refused");
  await page.getByRole("dialog", { name: "Replace this file?" }).getByText("5 bytes stored, 7 bytes new").waitFor();
  await page.getByRole("button", { name: "Skip" }).click();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
  assert.equal(await stored(), "first");
  await drop("the second");
  await page.getByRole("button", { name: "Replace" }).click();
  await page.getByText("10 bytes", { exact: true }).waitFor();
  assert.equal(await stored(), "the second");
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete dropped.txt" }).click();
  await page.getByRole("heading", { name: "2 files" }).waitFor();
}

async function downloads(page: Page): Promise<void> {
  const download = page.waitForEvent("download");
  await page.getByRole("link", { name: "Download Plans & notes.bin" }).click();
  const path = await (await download).path();
  assert.equal((await download).suggestedFilename(), "Plans & notes.bin");
  assert.ok(readFileSync(path).equals(CONTENT), "what was downloaded is not what was uploaded");
}

/** Seeks far ahead in twenty minutes of sound: the browser asks for a range, and the server reads only a part. */
async function seeks(page: Page): Promise<void> {
  const ranges: string[] = [];
  let length = 0;
  page.on("request", (request) => request.url().endsWith("/long.wav") && ranges.push(request.headers()["range"] ?? ""));
  page.on("response", (response) => length = Math.max(length, Number(response.headers()["content-length"] ?? 0)));
  await page.getByRole("button", { name: "Play long.wav" }).click();
  const audio = page.getByRole("dialog").locator("audio");
  await audio.evaluate(playing);
  assert.equal(Math.round(await audio.evaluate((media: HTMLMediaElement) => media.duration)), 1200);
  const before = server.readBytes();
  await audio.evaluate((media: HTMLMediaElement) => media.currentTime = 1100);
  await audio.evaluate(playing);
  assert.ok(await audio.evaluate((media: HTMLMediaElement) => media.currentTime) >= 1100);
  const starts = ranges.map((range) => Number(/^bytes=(\d+)-/.exec(range)?.[1] ?? 0));
  const expected = WAV.length * 1100 / 1200;
  assert.ok(starts.some((start) => Math.abs(start - expected) < 2_000_000), `no range near ${expected}: ${ranges}`);
  const read = server.readBytes() - before;
  assert.ok(read > 0 && read < WAV.length / 4, `the server read ${read} of ${WAV.length} bytes`);
  await page.keyboard.press("Escape");
  await page.getByRole("dialog").waitFor({ state: "hidden" });
}

/** Runs in the page. Resolves when the media plays on from its position. */
async function playing(media: HTMLMediaElement): Promise<void> {
  const start = media.currentTime;
  await media.play();
  while (media.seeking || media.currentTime <= start) await new Promise((resolve) => setTimeout(resolve, 50));
}

async function cancels(page: Page): Promise<void> {
  await throttle(page, 200_000);
  const file = join(directory, "cancelled.bin");
  writeFileSync(file, CONTENT);
  await page.getByLabel("Choose files to store").setInputFiles([file]);
  await page.getByText(/kB of 3\.0 MB · /).waitFor();
  await until(() => server.files().length === 3);
  // By keyboard: the button is reached by Tab, and pressed by Enter.
  const cancel = page.getByRole("button", { name: "Cancel cancelled.bin" });
  await page.getByLabel("Choose files to store").focus();
  await page.keyboard.press("Tab");
  assert.ok(await cancel.evaluate((element) => element === document.activeElement));
  await page.keyboard.press("Enter");
  await cancel.waitFor({ state: "detached" });
  // The server keeps nothing of it. The throttle stays until then: without it, the whole file would be sent at once.
  await until(() => server.files().length === 2);
  await throttle(page, -1);
  await page.reload();
  await page.getByRole("heading", { name: "2 files" }).waitFor();
  assert.equal(await page.getByText("cancelled.bin").count(), 0);
}

async function deletes(page: Page): Promise<void> {
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete Plans & notes.bin" }).click();
  await page.getByRole("heading", { name: "1 file," }).waitFor();
  assert.equal(server.files().length, 1);
}

/** On a small phone, in dark mode, the page is not wider than the screen, and the buttons are large enough to touch. */
async function fitsAPhone(page: Page): Promise<void> {
  await page.setViewportSize({ width: 320, height: 640 });
  await page.emulateMedia({ colorScheme: "dark" });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than the screen");
  assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(14, 20, 24)");
  for (const button of await page.getByRole("button").all()) {
    const box = (await button.boundingBox())!;
    assert.ok(box.width >= 44 && box.height >= 44, `${box.width} × ${box.height}`);
  }
  await page.setViewportSize({ width: 1100, height: 760 });
  await page.emulateMedia({ colorScheme: "light" });
}

/** Waits for a condition in the page and on the server. */
async function eventually(condition: () => Promise<boolean>): Promise<void> {
  for (let i = 0; !await condition(); i++) {
    if (i > 1000) throw new Error(`did not come true: ${condition}`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

async function put(name: string, body: string | Buffer<ArrayBuffer>): Promise<void> {
  const response = await fetch(`${server.url}/files/${encodeURIComponent(name)}`, { method: "PUT", body });
  assert.ok(response.ok, `${response.status}`);
  await response.arrayBuffer();
}

async function stored(name: string): Promise<string> {
  return await (await fetch(`${server.url}/files/${encodeURIComponent(name)}`)).text();
}

/** Chooses files of a size, each under its name. */
async function choose(page: Page, names: string[], size = 10): Promise<void> {
  const files = names.map((name) => ({ name, mimeType: "", buffer: Buffer.alloc(size, name) }));
  await page.getByLabel("Choose files to store").setInputFiles(files);
}

/** Empties the vault, and reloads the page. */
async function clear(page: Page): Promise<void> {
  for (const { name } of (await (await fetch(`${server.url}/files`)).json()).files) {
    await fetch(`${server.url}/files/${encodeURIComponent(name)}`, { method: "DELETE" });
  }
  await page.reload();
  await page.getByText("No files yet").waitFor();
}

/** Codes for characters that turn the direction of text; "1 byte"; on a small screen a long name keeps its ending. */
async function showsNames(page: Page): Promise<void> {
  await clear(page);
  const spoof = "photo\u202egnp.exe", long = `${"A very long name of a file ".repeat(5)}final.tar.gz`;
  await put(spoof, "1");
  await put(long, "");
  await page.setViewportSize({ width: 320, height: 640 });
  await page.reload();
  await page.getByText("1 byte", { exact: true }).waitFor();
  const [longName, spoofName] = await page.locator("#files .name").all();
  assert.equal(await spoofName!.textContent(), "photo[U+202E]gnp.exe");
  await page.getByRole("link", { name: "Download photo[U+202E]gnp.exe" }).waitFor();
  assert.equal(
    await page.locator("#files").evaluate((list) =>
      /[\u202a-\u202e]/.test(list.innerHTML.replaceAll(/ (href|download)="[^"]*"/g, ""))
    ),
    false,
  );
  const end = longName!.locator(".end");
  assert.ok((await end.textContent())!.endsWith(".tar.gz"));
  assert.ok(
    await end.evaluate((element) => {
      const box = element.getBoundingClientRect(), row = element.closest("div")!.getBoundingClientRect();
      return box.width > 0 && box.right <= row.right + 1 && box.right <= innerWidth;
    }),
    "the ending of a long name is cut off",
  );
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "wider than the screen");
  let asked = "";
  page.once("dialog", (dialog) => {
    asked = dialog.message();
    return dialog.dismiss();
  });
  await page.getByRole("button", { name: "Delete photo" }).click();
  assert.equal(asked, "Delete photo[U+202E]gnp.exe?");
  if (screenshot) await page.screenshot({ path: beside("narrow") });
  await page.setViewportSize({ width: 1100, height: 760 });
}

/** Shows a picture of 1 × 1 pixels in that size. */
async function showsASmallPicture(page: Page): Promise<void> {
  await put("dot.gif", Buffer.from("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7", "base64"));
  await page.reload();
  await page.getByRole("button", { name: "Show dot.gif" }).click();
  const image = page.getByRole("dialog").locator("img");
  await eventually(() => image.evaluate((element: HTMLImageElement) => element.complete && element.naturalWidth === 1));
  assert.equal((await image.boundingBox())!.width, 1);
  await page.keyboard.press("Escape");
}

/** A file that another tab stored is listed when the window gets the focus, which stays on the same button. */
async function refreshesOnFocus(page: Page): Promise<void> {
  await page.getByRole("button", { name: "Delete dot.gif" }).focus();
  await put("another tab", "x");
  await page.evaluate(() => dispatchEvent(new Event("focus")));
  await page.getByRole("button", { name: "Delete another tab" }).waitFor();
  assert.equal(await page.evaluate(() => document.activeElement!.getAttribute("aria-label")), "Delete dot.gif");
}

/** Many small files need one list, at the end. */
async function storesMany(page: Page): Promise<void> {
  await clear(page);
  let lists = 0;
  const count = (request: { url(): string }) => lists += Number(new URL(request.url()).pathname === "/files");
  page.on("request", count);
  await choose(page, Array.from({ length: 40 }, (_, i) => `small ${i}`));
  await page.getByRole("heading", { name: "40 files" }).waitFor();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
  await eventually(() => Promise.resolve(lists > 0));
  page.off("request", count);
  assert.equal(lists, 1);

  // Progress of the whole, and an end to all of it.
  await throttle(page, 100_000);
  await choose(page, ["big 1", "big 2", "big 3", "big 4"], 1_000_000);
  await page.getByRole("progressbar", { name: "All uploads, stored so far" }).waitFor();
  await page.getByText(/^0 of 4 files · \d+ kB of 4\.0 MB$/).waitFor();
  if (screenshot) await page.screenshot({ path: beside("many") });
  await page.getByRole("button", { name: "Cancel all" }).click();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
  await until(() => server.files().length === 40);
  await throttle(page, -1);
}

async function asksOnceAboutMany(page: Page): Promise<void> {
  await clear(page);
  const names = ["a", "b", "c"];
  for (const name of names) await put(name, "old");
  await page.reload();
  await page.getByRole("heading", { name: "3 files" }).waitFor();
  const dialog = page.getByRole("dialog", { name: "Replace 3 files?" });
  await choose(page, [...names, "new"]);
  await dialog.waitFor();
  assert.deepEqual(await dialog.locator(".name").allTextContents(), names);
  if (screenshot) await page.screenshot({ path: beside("conflicts") });
  await dialog.getByRole("button", { name: "Skip all" }).click();
  await page.getByRole("heading", { name: "4 files" }).waitFor();
  assert.deepEqual(await Promise.all(names.map(stored)), ["old", "old", "old"]);
  await choose(page, names);
  await dialog.getByRole("button", { name: "Replace all" }).click();
  await page.getByRole("heading", { name: "4 files, 40 bytes" }).waitFor();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
  assert.deepEqual(await Promise.all(names.map(stored)), names.map((name) => name.repeat(10)));
}

/** Files that another tab stored, or replaced, are neither overwritten unasked nor a dead end. */
async function recoversFromAStaleTab(page: Page): Promise<void> {
  await clear(page);
  await put("stale", "by another tab");
  await put("large", "by another tab");
  await choose(page, ["stale", "large"], 3_000_000);
  const dialog = page.getByRole("dialog", { name: "Replace 2 files?" });
  await dialog.waitFor();
  assert.equal(await dialog.getByText("14 bytes stored, 3.0 MB new").count(), 2);
  assert.equal(await stored("stale"), "by another tab");
  await dialog.getByRole("button", { name: "Replace all" }).click();
  await page.getByRole("heading", { name: "2 files, 6.0 MB" }).waitFor();
  assert.equal((await stored("large")).length, 3_000_000);

  // What the user agreed to replace is what the page shows, not what came after it.
  await put("stale", "newer");
  await choose(page, ["stale"]);
  const single = page.getByRole("dialog", { name: "Replace this file?" });
  await single.getByText("3.0 MB stored, 10 bytes new").waitFor();
  await page.getByRole("button", { name: "Replace" }).click();
  await single.getByText("5 bytes stored, 10 bytes new").waitFor();
  await page.getByRole("button", { name: "Skip" }).click();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
  assert.equal(await stored("stale"), "newer");

  // Nor is it deleted.
  await put("stale", "newest");
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete stale" }).click();
  await page.getByText("stale was not deleted: another version was stored meanwhile").waitFor();
  assert.equal(await stored("stale"), "newest");
}

/** A list of two pages. */
async function pages(page: Page): Promise<void> {
  await clear(page);
  for (let i = 0; i < 120; i++) await put(`page ${String(i).padStart(3, "0")}`, "x");
  await page.reload();
  await page.getByRole("heading", { name: "120 files, 120 bytes" }).waitFor();
  assert.equal(await page.locator("#files li").count(), 100);
  await page.getByRole("button", { name: "Show more" }).click();
  await page.getByRole("button", { name: "Delete page 119" }).waitFor();
  assert.equal(await page.locator("#files li").count(), 120);
  assert.equal(await page.getByRole("button", { name: "Show more" }).isVisible(), false);
  for (let i = 0; i < 120; i++) {
    await fetch(`${server.url}/files/page%20${String(i).padStart(3, "0")}`, { method: "DELETE" });
  }
}

async function listsDamage(page: Page): Promise<void> {
  await clear(page);
  await put("good", "x");
  const [good] = server.files();
  await put("bad", "x");
  const id = server.files().find((name) => name !== good)!;
  truncateSync(join(server.stored, id), 50);
  await page.reload();
  await page.getByText("Damaged, and cannot be opened").waitFor();
  if (screenshot) await page.screenshot({ path: beside("damaged") });
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: `Delete ${id}` }).click();
  await page.getByText("Damaged, and cannot be opened").waitFor({ state: "detached" });
  assert.deepEqual(server.files(), [good]);
}

/** Without its server the page says so, and goes on when it is back. */
async function survivesWithoutAServer(page: Page): Promise<void> {
  const { port } = server;
  await server.stop();
  page.once("dialog", (dialog) => dialog.accept());
  await page.getByRole("button", { name: "Delete good" }).click();
  await page.getByText("good was not deleted: The server cannot be reached").waitFor();
  await choose(page, ["one", "two"]);
  await page.getByText("The connection broke", { exact: true }).nth(1).waitFor();
  if (screenshot) await page.screenshot({ path: beside("failed") });
  await server.start("--port", String(port));
  await page.getByRole("button", { name: "Retry one" }).click();
  await page.getByRole("heading", { name: "2 files" }).waitFor();
  await page.getByRole("button", { name: "Retry two" }).click();
  await page.getByRole("heading", { name: "3 files" }).waitFor();
  await page.getByRole("heading", { name: "Uploads" }).waitFor({ state: "hidden" });
}

/** The path of another picture. */
function beside(state: string): string {
  return screenshot!.replace(/(\.\w+)?$/, `-${state}$1`);
}

/** The page with files of several kinds, and an upload in progress. */
async function picture(page: Page, path: string): Promise<void> {
  await clear(page);
  await put("long.wav", WAV);
  const names: [string, number][] = [["Interview.mp3", 9_431_040], ["Lecture 3 – Streams.mp4", 48_213_120], [
    "Contract.pdf",
    183_204,
  ]];
  for (const [name, size] of names) {
    const response = await fetch(`${server.url}/files/${encodeURIComponent(name)}`, {
      method: "PUT",
      body: Buffer.alloc(size),
    });
    assert.equal(response.status, 201);
  }
  await page.setViewportSize({ width: 880, height: 830 });
  await page.reload();
  await page.getByRole("heading", { name: "4 files" }).waitFor();
  await throttle(page, 3_000_000);
  const file = join(directory, "Holiday.webm");
  writeFileSync(file, Buffer.alloc(30_000_000));
  await page.getByLabel("Choose files to store").setInputFiles([file]);
  await page.getByText(/^1\d MB of 30 MB/).waitFor();
  await page.evaluate(() => (document.activeElement as HTMLElement).blur());
  await page.screenshot({ path });
  await page.getByRole("button", { name: "Cancel Holiday.webm" }).click();
}

/** Limits what the page sends, in bytes per second; -1: no limit. */
async function throttle(page: Page, uploadThroughput: number): Promise<void> {
  network ??= await page.context().newCDPSession(page); // another session would keep its own limit
  const conditions = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput };
  await network.send("Network.enable");
  await network.send("Network.emulateNetworkConditions", conditions);
}

/** A sound file: a tone of some seconds. */
function wav(seconds: number): Buffer<ArrayBuffer> {
  const rate = 22_050;
  const data = seconds * rate * 2;
  const file = Buffer.alloc(44 + data);
  file.write("RIFF", 0);
  file.writeUInt32LE(36 + data, 4);
  file.write("WAVEfmt ", 8);
  file.writeUInt32LE(16, 16);
  file.writeUInt16LE(1, 20); // PCM
  file.writeUInt16LE(1, 22); // mono
  file.writeUInt32LE(rate, 24);
  file.writeUInt32LE(rate * 2, 28);
  file.writeUInt16LE(2, 32);
  file.writeUInt16LE(16, 34);
  file.write("data", 36);
  file.writeUInt32LE(data, 40);
  for (let i = 0; i < seconds * rate; i++) file.writeInt16LE(Math.round(8000 * Math.sin(i * 0.05)), 44 + 2 * i);
  return file;
}
