// Usage: node screenshots.mjs FOLDER
//
// Pictures of the console at work, for the README: light, dark and narrow.

import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { browser, Cloud } from "./support.mjs";

const folder = process.argv[2];
const WIDE = { width: 1280, height: 860 };
const PHONE = { width: 390, height: 800 };
const COMMIT = "8f5cf0b7a9b2d1c3e4f5a6b7c8d9e0f1a2b3c4d5";

/** The tests' project under names that a fleet would have. */
async function project() {
  const made = await mkdtemp(join(tmpdir(), "archweld-screenshots-"));
  await cp(join(dirname(fileURLToPath(import.meta.url)), "project"), made, { recursive: true });
  const config = join(made, "archweld.toml");
  const text = await readFile(config, "utf8");
  await writeFile(config, text.replace('"hello"', '"gateway"').replace('"broken"', '"worker"').replace('"slow"', '"api"').replace('"long"', '"batch"'));
  return made;
}

const from = await project();
const cloud = await Cloud.up(from);
const chrome = await browser();
try {
  const push = (image, more = {}) => ({ image, ref: "main", trigger: { kind: "push", actor: "ada" }, ...more });
  await cloud.run(push("gateway"));
  await cloud.run({ ...push("gateway"), force: true, trigger: { kind: "schedule" } });
  const failed = await cloud.run(push("worker"));
  await cloud.run({ image: "gateway", platforms: ["linux/amd64"], tags: ["try-{run}"], trigger: { kind: "console" } });
  const running = await cloud.start(push("api", { commit: COMMIT }));

  const picture = async (name, path, { ready, ...options }) => {
    const context = await chrome.newContext({ viewport: WIDE, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    await page.goto(`${cloud.url}/${path}`);
    await page.locator(ready).first().waitFor();
    await page.evaluate(() => document.fonts.ready.then(() => null));
    await page.screenshot({ path: join(folder, `console-${name}.png`) });
    await context.close();
  };
  await picture("light", `#/runs/${running}`, { colorScheme: "light", ready: '.log-row:has-text("working, second 6")' });
  await picture("narrow", "#/runs", { colorScheme: "light", viewport: PHONE, ready: ".row a" });
  await picture("dark", `#/runs/${failed.id}`, { colorScheme: "dark", ready: '.log-row:has-text("undeclared identifier")' });
  await picture("events", "#/events", { colorScheme: "dark", ready: ".event" });
} finally {
  await chrome.close();
  await cloud.down();
  await rm(from, { recursive: true, force: true });
}
