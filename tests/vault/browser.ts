/// <reference lib="dom" />
/**
 * The vault's page in a real browser: `node tests/vault/browser.ts RUNTIME [SCREENSHOT]`
 *
 * Debian's Chromium, without a head, against the server of a runtime. With a SCREENSHOT it leaves a picture of the page.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { type BrowserContext, type CDPSession, chromium, type Page } from "playwright-core";
import { CHROMIUM, RUNTIMES, Server, until } from "./server.ts";

const CONTENT = Buffer.from(Array.from({ length: 3_000_000 }, (_, i) => (i * i) >> 7));
const WAV = wav(1200);

const [runtime, screenshot] = process.argv.slice(2);
const known = RUNTIMES.find((name) => name === runtime);
if (!known) throw new Error(`Usage: browser.ts ${RUNTIMES.join("|")} [SCREENSHOT]`);
if (!CHROMIUM) throw new Error("There is no Chromium: tests/vault/install");

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
  await page.getByText("Nothing here yet").waitFor();
  await uploads(page);
  await drops(page);
  await downloads(page);
  await seeks(page);
  await cancels(page);
  await deletes(page);
  await fitsAPhone(page);
  assert.deepEqual(problems, [], "what the page, or the policy, complained about");
  if (screenshot) await picture(page, screenshot);
}

/** By the file chooser, slowly enough for the progress to be seen, and a screen reader told. */
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

/** What is dropped on the page is stored; under a name that is there, only if one says so. */
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
  page.once("dialog", (dialog) => dialog.dismiss());
  await drop("refused");
  assert.equal(await stored(), "first");
  page.once("dialog", (dialog) => dialog.accept());
  await drop("the second");
  await page.getByText("10 bytes").waitFor();
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

/** Far ahead in twenty minutes of sound: the server is asked for a range, and reads some of the file, not all that lies before. */
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

/** Runs in the page: until the media plays on from where it is. */
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
  // The server keeps nothing of it. Before that the rest would go out at once, were it no longer held back.
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

/** Nothing is wider than a small phone, in the dark, and what is to be touched is large enough. */
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

/** The page with what people have, and an upload that goes on. */
async function picture(page: Page, path: string): Promise<void> {
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

/** Bytes per second of what the page sends; -1: as fast as it goes. */
async function throttle(page: Page, uploadThroughput: number): Promise<void> {
  network ??= await page.context().newCDPSession(page); // what another session asked for would go on
  const conditions = { offline: false, latency: 0, downloadThroughput: -1, uploadThroughput };
  await network.send("Network.enable");
  await network.send("Network.emulateNetworkConditions", conditions);
}

/** A tone of so many seconds. */
function wav(seconds: number): Buffer {
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
