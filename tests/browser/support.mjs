// What browser tests, screenshots and measurements share: a local cloud of their own, and a browser.

import { spawn } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";

const HERE = dirname(fileURLToPath(import.meta.url));
const ROOT = join(HERE, "../..");
const ARCHWELD = process.env.ARCHWELD ?? join(ROOT, "target/quick/archweld");
const START_MS_MAX = 30_000;
const END_MS_MAX = 10_000;

/** Debian's Chromium; it reaches for nothing but this machine. */
export function browser() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync", "--js-flags=--expose-gc"],
  });
}

/** `archweld up` with a project, on a port that is free and a state folder of its own. */
export class Cloud {
  static async up(project = join(HERE, "project"), { env = {} } = {}) {
    const cloud = new Cloud();
    cloud.folder = await mkdtemp(join(tmpdir(), "archweld-browser-"));
    const options = ["--config", join(project, "archweld.toml"), "--state", join(cloud.folder, "state"), "--port", "0"];
    cloud.process = spawn(ARCHWELD, ["up", ...options], { cwd: ROOT, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] });
    cloud.ended = new Promise((resolve) => cloud.process.once("exit", resolve));
    let said = "";
    cloud.url = await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`no address within ${START_MS_MAX} ms: ${said}`)), START_MS_MAX);
      const listen = (data) => {
        said += data;
        const found = said.match(/^console\s+(\S+?)\/?$/m);
        if (found) resolve(found[1]);
        if (found) clearTimeout(timer);
      };
      cloud.process.stdout.on("data", listen);
      cloud.process.stderr.on("data", listen);
      cloud.process.once("error", reject);
      cloud.process.once("exit", (code) => reject(new Error(`${ARCHWELD} ended with ${code}: ${said}`)));
    });
    return cloud;
  }

  async get(path) {
    const answer = await fetch(`${this.url}/api/${path}`);
    if (!answer.ok) throw new Error(`${path}: ${answer.status} ${await answer.text()}`);
    return answer.json();
  }

  async start(input) {
    const answer = await fetch(`${this.url}/api/executions`, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ input }) });
    if (!answer.ok) throw new Error(`${answer.status} ${await answer.text()}`);
    return (await answer.json()).id;
  }

  /** An operation of Step Functions, past the console. */
  async states(operation, input) {
    const answer = await fetch(this.url, { method: "POST", headers: { "X-Amz-Target": `AWSStepFunctions.${operation}`, "Content-Type": "application/x-amz-json-1.0" }, body: JSON.stringify(input) });
    if (!answer.ok) throw new Error(`${operation}: ${await answer.text()}`);
    return answer.json();
  }

  /** Waits until an execution is over: by the stream of what happens, not by asking again and again. */
  async over(id) {
    const stop = new AbortController();
    const stream = await fetch(`${this.url}/api/stream`, { signal: stop.signal });
    const isOver = async () => {
      const whole = await this.get(`executions/${id}`);
      return whole.status === "RUNNING" ? null : whole;
    };
    try {
      let found = await isOver();
      for await (const _ of found ? [] : stream.body) if ((found = await isOver())) break;
      return found;
    } finally {
      stop.abort();
    }
  }

  async run(input) {
    return this.over(await this.start(input));
  }

  /** Bytes of memory that the server has. */
  async memory() {
    const status = await readFile(`/proc/${this.process.pid}/status`, "utf8");
    return Number(status.match(/^VmRSS:\s+(\d+) kB$/m)[1]) * 1024;
  }

  async down() {
    this.process.kill("SIGINT");
    const late = setTimeout(() => this.process.kill("SIGKILL"), END_MS_MAX);
    await this.ended;
    clearTimeout(late);
    await rm(this.folder, { recursive: true, force: true });
  }
}
