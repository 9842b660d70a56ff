// The console in a browser: what a person does with it, and what it keeps from others.
//
// Each test takes up from a cloud that the ones before have used, as a person would.

import assert from "node:assert/strict";
import { request } from "node:http";
import { createServer } from "node:http";
import { createRequire } from "node:module";
import { after, before, test } from "node:test";
import { browser, Cloud } from "./support.mjs";

const AXE = createRequire(import.meta.url).resolve("axe-core/axe.min.js");
const PHONE = { width: 390, height: 800 };
const WIDE = { width: 1360, height: 860 };

let cloud;
let chrome;
/** What pages said that they should not: errors, refused files. */
const complaints = [];

before(async () => {
  cloud = await Cloud.up();
  chrome = await browser();
});
after(async () => {
  await chrome?.close();
  await cloud?.down();
});

/** A page in a context of its own. */
async function open(path = "", options = {}) {
  const context = await chrome.newContext({ viewport: WIDE, ...options });
  context.setDefaultTimeout(20_000);
  const page = await context.newPage();
  page.on("pageerror", (error) => complaints.push(error.stack));
  page.on("console", (message) => message.type() === "error" && complaints.push(message.text()));
  await page.goto(`${cloud.url}/${path}`);
  return page;
}

const machine = "archweld-multi-arch-build";
const state = (page, name) => page.locator(".states tr", { has: page.locator(`td:first-child:text-is("${name}")`) });

test("an empty console says what to do next", async () => {
  const page = await open();
  await page.getByRole("heading", { name: "No runs yet" }).waitFor();
  const text = await page.locator("main").innerText();
  assert.match(text, /git remote add archweld http:\/\/localhost:\d+\/git\/project\.git/);
  assert.match(text, /stepfunctions start-execution --state-machine-arn arn:aws:states/);
  await page.context().close();
});

test("a run is started from the form, and its graph is followed to the end", async () => {
  const page = await open("#/start");
  await page.getByLabel("Platforms").waitFor();
  assert.equal(await page.getByLabel("Platforms").inputValue(), "linux/amd64 linux/arm64", "defaults are filled in");
  await page.getByLabel("Branch or tag").fill("main");
  await page.getByText("latest, moves").waitFor();
  assert.deepEqual(JSON.parse(await page.getByLabel("Input, as JSON").inputValue()), { image: "hello", ref: "main", trigger: { kind: "console" } });
  await page.getByRole("button", { name: "Start", exact: true }).click();
  await page.waitForURL(/#\/runs\//);

  // The state in which it is is lit while it is there.
  await page.locator('.node.is-running[data-state="Build platform"]').waitFor();
  assert.match(await page.title(), /^\(1\) hello main: running/);
  assert.equal(await page.locator("#icon").getAttribute("href"), "/assets/icon-running.svg");
  await page.locator(".track .phase").first().waitFor();
  await page.locator(".log-row", { hasText: "compile" }).first().waitFor();

  await page.locator('.run-title .status:text("Succeeded")').waitFor();
  assert.equal(await page.locator(".node.is-running").count(), 0);
  for (const name of ["Plan", "Build platforms", "Build platform", "Build manifest", "Publish", "Published"]) {
    assert.match(await state(page, name).innerText(), /Succeeded/, name);
  }
  assert.equal(await page.locator(".build").count(), 3, "two platforms and the manifest");
  await page.locator(".outcome", { hasText: "docker pull localhost:" }).waitFor();
  assert.match(await page.title(), /^hello main: succeeded · archweld$/);
  await page.context().close();
});

test("the image is in the registry's view with its platforms, sizes, tags and pull line", async () => {
  const page = await open("#/images");
  const image = page.getByRole("region", { name: "hello" });
  await image.locator(".indexes li").first().waitFor();
  const text = await image.innerText();
  assert.match(text, /linux\/amd64\s+1\.3 MB/);
  assert.match(text, /linux\/arm64\s+1\.2 MB/);
  assert.match(text, /latest/);
  assert.match(text, new RegExp(`docker pull ${new URL(cloud.url).host}/hello:latest`));
  assert.match(text, /OCI image index/);
  const badge = await (await fetch(`${cloud.url}/badge/hello.svg?ref=main`)).text();
  assert.match(badge, /hello main: published/);
  await page.context().close();
});

test("a failing build's log is read, and its error is seen to be caught", async () => {
  const page = await open("#/start");
  await page.getByLabel("Image").selectOption("broken");
  await page.getByRole("button", { name: "Start", exact: true }).click();
  await page.locator('.run-title .status:text("Failed")').waitFor();
  await page.locator(".outcome", { hasText: "linux/arm64: BUILD failed" }).waitFor();
  // The build that failed is chosen by itself, and its log is shown at its end.
  await page.getByRole("region", { name: "Log of linux/arm64" }).getByText("use of undeclared identifier 'vmull_u32'").last().waitFor();
  assert.match(await state(page, "Build platforms").innerText(), /Error caught/);
  assert.match(await state(page, "Build platform").innerText(), /Failed/);
  assert.equal(await page.locator(".edge-catch.is-lit").count(), 1);
  // By the keyboard to its beginning.
  await page.getByRole("region", { name: "Log of linux/arm64" }).press("Home");
  await page.locator(".log-row", { hasText: "Waiting for agent ping" }).or(page.locator('.log-row[data-index="0"]')).first().waitFor();
  await page.getByRole("button", { name: /linux\/amd64/ }).click();
  await page.getByRole("heading", { name: "Log of linux/amd64" }).waitFor();
  // The cause ends with the address of the log, for those who read it elsewhere.
  const [link] = (await page.locator(".outcome .cause").innerText()).match(/\S+$/);
  await page.goto(link);
  await page.waitForURL(/#\/runs\/.+\?build=/);
  await page.getByRole("heading", { name: "Log of linux/arm64" }).waitFor();
  await page.context().close();
});

test("a run is stopped, and its builds with it", async () => {
  const id = await cloud.start({ image: "slow", ref: "main" });
  const page = await open(`#/runs/${id}`);
  await page.locator(".log-row", { hasText: "working, second 1" }).first().waitFor();
  await page.getByRole("button", { name: "Stop", exact: true }).click();
  await page.locator('.run-title .status:text("Stopped")').waitFor();
  await page.locator(".outcome", { hasText: "stopped in the local console" }).waitFor();
  await page.waitForFunction(() => [...document.querySelectorAll(".build-name .status")].every((it) => it.textContent === "Stopped"));
  assert.equal(await page.getByRole("button", { name: "Stop", exact: true }).count(), 0);
  await page.context().close();
});

test("what is wrong with an input stands at its field, and nothing is started", async () => {
  const page = await open("#/start");
  const before = (await cloud.get("executions?count=1")).total;
  await page.getByLabel("Platforms").fill("linux/amd64 linux/vax");
  await page.getByLabel("Commit").fill("main");
  await page.locator("#field-platforms-problem", { hasText: 'unknown platform "linux/vax"' }).waitFor();
  await page.locator("#field-commit-problem", { hasText: "expected 7 to 64 lower-case hexadecimal digits" }).waitFor();
  assert.equal(await page.getByLabel("Platforms").getAttribute("aria-invalid"), "true");
  await page.getByLabel("Platforms").press("Enter");
  await page.locator(".note.is-bad").waitFor();
  assert.equal(await page.evaluate(() => document.activeElement.id), "field-commit", "the first wrong field has the focus");
  await page.getByLabel("Input, as JSON").fill('{"image": "hello", "plattforms": []}');
  await page.locator("#json-problem", { hasText: "plattforms: unknown field" }).waitFor();
  await page.getByLabel("Input, as JSON").fill('{"image": ');
  await page.locator("#json-problem", { hasText: "this is no JSON" }).waitFor();
  // The fields follow the JSON.
  await page.getByLabel("Input, as JSON").fill('{"image": "hello", "tags": ["a", "b"]}');
  assert.equal(await page.getByLabel("Tags").inputValue(), "a b");
  assert.equal((await cloud.get("executions?count=1")).total, before);
  complaints.splice(0, complaints.length, ...complaints.filter((it) => !it.includes("422")));
  await page.context().close();
});

test("the list follows what happens, and the arrow keys walk it", async () => {
  const page = await open("#/runs");
  await page.locator(".row a").first().waitFor();
  const rows = await page.locator(".runs .rows .row").count();
  const id = await cloud.start({ image: "hello", platforms: ["linux/amd64"], publisher: "lambda", trigger: { kind: "push", actor: "ada" } });
  const row = page.locator(".row", { has: page.locator(`a[href="#/runs/${id}"]`) });
  await row.locator('.status:text("Running")').waitFor();
  await row.locator('.status:text("Succeeded")').waitFor();
  assert.match(await row.innerText(), /push\s+ada/);
  assert.equal(await page.locator(".runs .rows .row").count(), rows + 1);
  await page.locator(".row a").first().focus();
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForURL(/#\/runs\/archweld-multi-arch-build\//);
  assert.ok(!page.url().includes(id.split("/")[1]), "the second run, not the first");
  await page.context().close();
});

test("events flow between builds, bus, functions and state machine", async () => {
  const page = await open("#/events");
  for (const lane of ["builds", "bus", "functions", "states"]) await page.locator(`.event.${lane}`).first().waitFor();
  assert.ok((await page.locator(".event").count()) > 30, "what happened before is there, too");
  await page.getByRole("button", { name: "Bus" }).click();
  assert.equal(await page.locator(".event.bus").first().isVisible(), false);
  await page.getByRole("button", { name: "Bus" }).click();
  const first = await page.locator(".event").first().innerText();
  await cloud.run({ image: "hello", platforms: ["linux/amd64"], publisher: "lambda" });
  await page.waitForFunction((text) => document.querySelector(".event").innerText !== text, first);
  await page.context().close();
});

test("schedules have their next time, and the images that they build", async () => {
  const page = await open("#/schedules");
  await page.locator("tbody tr").first().waitFor();
  const text = await page.locator("main").innerText();
  assert.match(text, /cron\(/);
  assert.match(text, /in \d+ (h|min|d)/);
  assert.match(text, /hello/);
  await page.context().close();
});

test("a page that lost the server goes on where it was", async () => {
  const page = await open("#/runs");
  await page.locator(".connection.is-ok").waitFor();
  await page.context().setOffline(true);
  const id = await cloud.start({ image: "hello", platforms: ["linux/amd64"], publisher: "lambda" });
  await page.context().setOffline(false);
  await page.locator(`a[href="#/runs/${id}"]`).waitFor();
  await cloud.over(id);
  await page.context().close();
});

test("ten tabs follow what happens over one connection, and go on when the first is closed", async () => {
  const first = await open("#/runs");
  const tabs = [first];
  while (tabs.length < 10) {
    const tab = await first.context().newPage();
    await tab.goto(`${cloud.url}/#/runs`);
    tabs.push(tab);
  }
  for (const tab of tabs) await tab.locator(".connection.is-ok").waitFor();
  const seen = async (tabs) => {
    const id = await cloud.start({ image: "hello", platforms: ["linux/amd64"], publisher: "lambda" });
    for (const tab of tabs) await tab.locator(".row", { has: tab.locator(`a[href="#/runs/${id}"]`) }).locator('.status:text("Succeeded")').waitFor();
  };
  await seen(tabs);
  await first.close();
  await seen(tabs.slice(1));
  await tabs[1].context().close();
});

test("no view has a serious problem of accessibility, in light and dark, wide and on a phone", async () => {
  const { items } = await cloud.get("executions?count=50");
  const failed = items.find((run) => run.status === "FAILED");
  const succeeded = items.find((run) => run.image === "hello" && run.status === "SUCCEEDED");
  const views = ["#/runs", "#/events", "#/images", "#/schedules", "#/start", `#/runs/${failed.id}`, `#/runs/${succeeded.id}`, "#/nowhere", `#/runs/${machine}/none`];
  for (const colorScheme of ["light", "dark"]) {
    for (const viewport of [WIDE, PHONE]) {
      const page = await open("", { colorScheme, viewport, reducedMotion: "reduce", bypassCSP: true });
      for (const view of views) {
        await page.goto(`${cloud.url}/${view}`);
        await page.locator("main h1, main h2").first().waitFor();
        await page.waitForFunction(() => !document.querySelector(".loading, .is-loading, .loading-row"));
        await page.addScriptTag({ path: AXE });
        const { violations } = await page.evaluate(() => axe.run(document, { resultTypes: ["violations"] }));
        const serious = violations.filter((it) => ["serious", "critical"].includes(it.impact));
        const told = serious.map((it) => `${it.id}: ${it.help}\n  ${it.nodes.map((node) => `${node.html} ${node.failureSummary}`).join("\n  ")}`);
        assert.deepEqual(told, [], `${view} ${colorScheme} ${viewport.width}`);
        const width = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(width <= viewport.width, `${view} is ${width} wide on ${viewport.width}`);
      }
      await page.context().close();
    }
  }
  complaints.splice(0, complaints.length, ...complaints.filter((it) => !it.includes("404")));
});

test("the theme is the system's until another one is chosen, and that one stays", async () => {
  const page = await open("", { colorScheme: "dark" });
  const background = () => page.evaluate(() => getComputedStyle(document.documentElement).backgroundColor);
  const dark = await background();
  await page.getByRole("button", { name: "Switch to the light theme" }).click();
  const light = await background();
  assert.notEqual(light, dark);
  await page.reload();
  assert.equal(await background(), light);
  await page.context().close();
});

test("no token, secret or environment of a real run is in any view, or in what makes it", async () => {
  const aws = async (target, input) => {
    const answer = await fetch(cloud.url, { method: "POST", headers: { "X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1" }, body: JSON.stringify(input) });
    assert.equal(answer.status, 200, target);
    return answer.json();
  };
  const { items } = await cloud.get("executions?count=50");
  const runs = ["FAILED", "SUCCEEDED", "ABORTED"].map((status) => items.find((run) => run.status === status).id);
  const { ids } = await aws("CodeBuild_20161006.ListBuilds", {});
  const { builds } = await aws("CodeBuild_20161006.BatchGetBuilds", { ids });
  const tokens = builds.flatMap((build) => build.environment.environmentVariables).filter(({ name }) => name === "ARCHWELD_TASK_TOKEN");
  assert.ok(tokens.length >= ids.length / 2, "builds have tokens");
  const { SecretString: webhook } = await aws("secretsmanager.GetSecretValue", { SecretId: "archweld-WebhookSecret" });
  const { authorizationData } = await aws("AmazonEC2ContainerRegistry_V20150921.GetAuthorizationToken", {});
  const [{ authorizationToken }] = authorizationData;
  const password = atob(authorizationToken).split(":")[1];
  const secrets = [...tokens.map(({ value }) => value), authorizationToken, password, webhook, "ARCHWELD_TASK_TOKEN", "IMAGE_REPO_NAME", "ARCHWELD_RETRIES_LEFT"];
  assert.ok(secrets.every((secret) => secret.length >= 8), "all of them are there");

  const page = await open("#/runs");
  const answers = [];
  page.on("response", (response) => !response.url().endsWith("/stream") && answers.push(response.text().catch(() => "")));
  const said = [];
  for (const view of ["#/runs", "#/events", "#/images", "#/schedules", "#/start", ...runs.map((id) => `#/runs/${id}`)]) {
    await page.goto(`${cloud.url}/${view}`);
    await page.locator("main h1").first().waitFor();
    await page.waitForFunction(() => !document.querySelector(".loading, .is-loading, .loading-row"));
    said.push(await page.content());
  }
  said.push(...(await Promise.all(answers)));
  const all = said.join("\n");
  assert.match(all, /linux\/arm64/);
  // A buildspec's own text may name a variable, as this project's does in its log.
  const shown = secrets.filter((secret) => all.includes(secret) && !(secret === "IMAGE_REPO_NAME" && all.includes("building $IMAGE_REPO_NAME")));
  assert.deepEqual(shown, []);
  await page.context().close();
});

/** A request with any headers, which `fetch` does not let one set. */
function ask(method, path, headers, body = "") {
  const { port } = new URL(cloud.url);
  return new Promise((resolve, reject) => {
    const sent = request({ host: "127.0.0.1", port, method, path, headers }, (answer) => {
      answer.resume();
      resolve(answer.statusCode);
    });
    sent.on("error", reject);
    sent.end(body);
  });
}

test("a name that is rebound to this machine is refused", async () => {
  const { host, port } = new URL(cloud.url);
  for (const path of ["/", "/api/executions", "/api/stream", "/badge/hello.svg", "/assets/app.js"]) {
    assert.equal(await ask("GET", path, { Host: `evil.example:${port}` }), 421, path);
  }
  assert.equal(await ask("GET", "/", { Host: host }), 200);
  assert.equal(await ask("POST", "/api/executions", { Host: `evil.example:${port}`, "Content-Type": "application/json" }, "{}"), 421);
});

test("a page of another origin can neither read nor change anything", async () => {
  const before = (await cloud.get("executions?count=1")).total;
  const other = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><title>other</title>"));
  await new Promise((resolve) => other.listen(0, "127.0.0.1", resolve));
  const context = await chrome.newContext();
  try {
    const page = await context.newPage();
    await page.goto(`http://127.0.0.1:${other.address().port}/`);
    const tried = await page.evaluate(async (url) => {
      const body = JSON.stringify({ input: { image: "hello" } });
      const attempt = async (path, options) => {
        try {
          const answer = await fetch(url + path, options);
          return answer.type === "opaque" ? "opaque" : `read ${answer.status}`;
        } catch {
          return "refused";
        }
      };
      const form = (type) => attempt("/api/executions", { method: "POST", mode: "no-cors", headers: { "Content-Type": type }, body });
      const image = new Image();
      const shown = new Promise((resolve) => {
        image.onload = () => resolve(true);
        image.onerror = () => resolve(false);
      });
      image.src = `${url}/badge/hello.svg`;
      return {
        read: await attempt("/api/executions"),
        json: await attempt("/api/executions", { method: "POST", headers: { "Content-Type": "application/json" }, body }),
        plain: await form("text/plain"),
        stop: await attempt("/api/executions/a/b/stop", { method: "POST", mode: "no-cors" }),
        badge: await shown,
      };
    }, cloud.url.replace("localhost", "127.0.0.1"));
    assert.equal(tried.read, "refused");
    assert.equal(tried.json, "refused");
    assert.equal(tried.badge, true, "a page of this machine may show a badge");
    assert.equal((await cloud.get("executions?count=1")).total, before, "nothing was started");
  } finally {
    await context.close();
    other.close();
  }
  for (const site of ["cross-site", "same-site"]) {
    const headers = { Host: new URL(cloud.url).host, "Sec-Fetch-Site": site, "Content-Type": "application/json" };
    assert.equal(await ask("GET", "/api/executions", headers), 403, site);
    assert.equal(await ask("POST", "/api/executions", headers, "{}"), 403, site);
  }
});

test("no page complained", () => {
  const expected = /ERR_INTERNET_DISCONNECTED|ERR_ADDRESS_UNREACHABLE/;
  assert.deepEqual(complaints.filter((it) => !expected.test(it)), []);
});
