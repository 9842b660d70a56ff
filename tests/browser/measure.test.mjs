// What a thousand past runs and a log of 100 MB do to the page: nothing that one would notice.
//
// The figures are printed, beside those of a page with one word, which takes what any page takes here.
// Of times, the median of several loads is asserted.

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { after, before, test } from "node:test";
import { browser, Cloud } from "./support.mjs";

const RUNS = Number(process.env.RUNS ?? 1_000);
const LOG_BYTES = Number(process.env.LOG_BYTES ?? 100_000_000);
/** Of `long.yml`'s lines, as they are kept. */
const LINE_BYTES = 100;
const AT_ONCE = 24;
const LOADS = 15;

const FIRST_PAINT_MS_MAX = 200;
const HEAP_BYTES_MAX = 24_000_000;
const ELEMENTS_MAX = 3_000;
const SERVER_BYTES_MAX = 400_000_000;

let cloud;
let chrome;

before(async () => {
  const lines = Math.ceil(LOG_BYTES / LINE_BYTES);
  cloud = await Cloud.up(undefined, { env: { LINES_MAX: String(lines) } });
  chrome = await browser();
});
after(async () => {
  await chrome?.close();
  await cloud?.down();
});

const median = (values) => [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)];
const ms = (value) => `${value.toFixed(0)} ms`;
const mb = (value) => `${(value / 1e6).toFixed(1)} MB`;
const told = (values) => `${ms(median(values))} (best ${ms(Math.min(...values))}, worst ${ms(Math.max(...values))}, of ${values.length})`;

/** What a page holds once what can go is gone. */
async function held(page) {
  const session = await page.context().newCDPSession(page);
  await session.send("Performance.enable");
  await session.send("HeapProfiler.collectGarbage");
  const { metrics } = await session.send("Performance.getMetrics");
  const of = (name) => metrics.find((metric) => metric.name === name).value;
  return { heap: of("JSHeapUsedSize"), elements: await page.evaluate(() => document.querySelectorAll("*").length) };
}

/** Loads a page `LOADS` times, each followed by a page with one word; the last one stays open. */
async function loadOften(path, ready, bare) {
  const loads = [];
  const bareFirst = [];
  while (loads.length < LOADS) {
    await loads.at(-1)?.context.close();
    const began = performance.now();
    const loaded = await load(`${cloud.url}/${path}`, ready);
    loads.push({ ...loaded, shown: performance.now() - began });
    const other = await load(bare, "p");
    bareFirst.push(other.first);
    await other.context.close();
  }
  return { loads, first: loads.map((it) => it.first), bareFirst };
}

/** A page with one word. */
async function bareServer() {
  const server = createServer((_, answer) => answer.setHeader("Content-Type", "text/html").end("<!doctype html><p>word"));
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.closeAllConnections() ?? server.close() };
}

/** A load with nothing in the cache. */
async function load(url, ready) {
  const context = await chrome.newContext({ viewport: { width: 1360, height: 860 } });
  const page = await context.newPage();
  await page.goto(url);
  await page.locator(ready).first().waitFor();
  const paint = await page.evaluate(async () => {
    const found = () => performance.getEntriesByName("first-contentful-paint")[0];
    while (!found()) await new Promise(requestAnimationFrame);
    return { first: found().startTime, rows: performance.getEntriesByName("runs")[0]?.startTime };
  });
  return { page, context, ...paint };
}

test(`${RUNS} past runs`, { timeout: 600_000 }, async (context) => {
  const [{ arn }] = (await cloud.get("about")).machines;
  // Each is planned by the real function, which finds a tag that no index can have.
  const input = (number) => JSON.stringify({ image: "hello", ref: `branch-${number % 50}`, tags: ["{arch}"], trigger: { kind: "push", actor: "ada" } });
  let next = 0;
  await Promise.all(
    Array.from({ length: AT_ONCE }, async () => {
      while (next < RUNS) await cloud.states("StartExecution", { stateMachineArn: arn, name: `past-${(next += 1)}`, input: input(next) });
    }),
  );
  const stop = new AbortController();
  const stream = await fetch(`${cloud.url}/api/stream`, { signal: stop.signal });
  if ((await cloud.get("executions?count=1")).running) {
    for await (const _ of stream.body) if ((await cloud.get("executions?count=1")).running === 0) break;
  }
  stop.abort();
  const page = await cloud.get("executions?from=0&count=50");
  assert.equal(page.total, RUNS);

  const bare = await bareServer();
  const { loads, first, bareFirst } = await loadOften("#/runs", ".row a", bare.url);
  bare.close();
  context.diagnostic(`first contentful paint: ${told(first)}; of a page with one word ${told(bareFirst)}`);
  context.diagnostic(`rows of the list are there: ${told(loads.map((it) => it.rows))}`);
  const { page: last } = loads.at(-1);
  await last.evaluate(async () => {
    const scroller = document.querySelector(".runs .scroller");
    for (let at = 0; at <= 40; at += 1) {
      scroller.scrollTop = (scroller.scrollHeight * at) / 40;
      await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
    }
  });
  await last.locator(`.runs [data-index="${RUNS - 1}"] a`).waitFor();
  const { heap, elements } = await held(last);
  context.diagnostic(`after it was scrolled to its end: heap ${mb(heap)}, ${elements} elements; server ${mb(await cloud.memory())}`);
  await loads.at(-1).context.close();
  assert.ok(median(first) < FIRST_PAINT_MS_MAX, `first paint within ${FIRST_PAINT_MS_MAX} ms`);
  assert.ok(heap < HEAP_BYTES_MAX, `heap below ${mb(HEAP_BYTES_MAX)}`);
  assert.ok(elements < ELEMENTS_MAX, `fewer than ${ELEMENTS_MAX} elements`);
});

test(`a log of ${LOG_BYTES / 1e6} MB`, { timeout: 900_000 }, async (context) => {
  const before = await cloud.memory();
  const whole = await cloud.run({ image: "long" });
  assert.equal(whole.status, "SUCCEEDED", whole.cause);
  const [build] = whole.builds;
  const { total, bytes } = await cloud.get(`builds/${encodeURIComponent(build.id)}/log?count=1`);
  assert.ok(bytes >= LOG_BYTES, `${bytes} bytes`);
  const bare = await bareServer();
  const { loads, first, bareFirst } = await loadOften(`#/runs/${whole.id}`, ".log-row:not(.is-loading)", bare.url);
  bare.close();
  context.diagnostic(`first contentful paint: ${told(first)}; of a page with one word ${told(bareFirst)}`);
  context.diagnostic(`lines at the end of ${total} are there, the browser's own start included: ${told(loads.map((it) => it.shown))}`);
  const { page } = loads.at(-1);
  const jumps = await page.evaluate(async () => {
    const scroller = document.querySelector(".log");
    const frame = () => new Promise(requestAnimationFrame);
    const times = [];
    for (const part of [0, 0.5, 0.25, 0.9, 0.1, 0.75, 0.33, 0.66]) {
      const began = performance.now();
      scroller.scrollTop = scroller.scrollHeight * part;
      await frame();
      await frame();
      while (scroller.querySelector(".is-loading")) await frame();
      times.push(performance.now() - began);
    }
    return times;
  });
  context.diagnostic(`a jump to any part: ${told(jumps)}`);
  const { heap, elements } = await held(page);
  const server = await cloud.memory();
  context.diagnostic(`then: heap ${mb(heap)}, ${elements} elements; server ${mb(server)}, ${mb(server - before)} more than before the build`);
  await loads.at(-1).context.close();
  assert.ok(median(first) < FIRST_PAINT_MS_MAX, `first paint within ${FIRST_PAINT_MS_MAX} ms`);
  assert.ok(heap < HEAP_BYTES_MAX, `heap below ${mb(HEAP_BYTES_MAX)}`);
  assert.ok(elements < ELEMENTS_MAX, `fewer than ${ELEMENTS_MAX} elements`);
  assert.ok(server < SERVER_BYTES_MAX, `server below ${mb(SERVER_BYTES_MAX)}`);
});
