// One run: its state machine, its builds, their logs and what was published.

import { get, live, pathOf, post } from "./api.js";
import { h, oncePerFrame } from "./dom.js";
import { bytes, dateTime, duration, fullTime, shortCommit, shortDigest } from "./format.js";
import { GraphView } from "./graph.js";
import { History, sum } from "./history.js";
import { logView } from "./log.js";
import { timeline } from "./timeline.js";
import { announce, chip, codeLine, copyButton, failure, look, status } from "./ui.js";

/** A build by its id alone, as the link to its log has it: a part of its run. */
export async function build({ path, signal }) {
  const { id, execution } = await get(`builds/${encodeURIComponent(decodeURIComponent(path[0]))}`, signal);
  if (!execution) throw Object.assign(new Error(`The build ${id} is not of a run.`), { status: 404 });
  location.replace(`#/runs/${pathOf(execution)}?${new URLSearchParams({ build: id })}`);
}

export async function run({ root, path, query, signal, title }) {
  const id = path.map(decodeURIComponent).join("/");
  let view = null;
  const read = async () => {
    try {
      const [whole, graph] = await Promise.all([get(`executions/${pathOf(id)}`, signal), view?.graph ?? get(`machines/${encodeURIComponent(path[0])}`, signal)]);
      view?.close();
      view = new RunView(root, whole, graph, signal, title, query.get("build"));
    } catch (error) {
      if (!signal.aborted) root.replaceChildren(failure(error));
    }
  };
  live.on("resync", read, signal);
  live.on("execution", (summary) => summary.id === id && view?.summarize(summary), signal);
  live.on("history", ({ execution, event }) => execution === id && view && !view.follow(event) && read(), signal);
  live.on("build", (build) => build.execution === id && view?.build(build), signal);
  await read();
}

class RunView {
  #draw = oncePerFrame(() => this.#paint());
  #closed = new AbortController();
  #log = null;
  /** Whether a person chose the build whose log is shown. */
  #isChosen = false;
  #chosen = null;

  constructor(root, whole, graph, signal, title, build) {
    this.graph = graph;
    this.whole = whole;
    this.history = new History(whole.history);
    this.builds = new Map(whole.builds.map((build) => [build.id, build]));
    // The server's clock may be another one than this machine's.
    this.ahead = whole.now - Date.now();
    this.setTitle = title;
    this.signal = AbortSignal.any([signal, this.#closed.signal]);
    this.graphView = new GraphView(graph);
    this.head = h("div", { class: "title run-title" });
    this.facts = h("dl", { class: "facts" });
    this.outcome = h("div", {});
    this.states = h("div", {});
    this.timeline = h("div", {});
    this.logPlace = h("div", {});
    this.input = h("div", {});
    root.replaceChildren(
      this.head,
      this.facts,
      this.outcome,
      h(
        "div",
        { class: "run" },
        h("div", { class: "run-machine" }, panel("State machine", h("div", { class: "graph-scroll", tabindex: "0", role: "group", "aria-label": "Drawing of the state machine" }, this.graphView.element), this.states)),
        h("div", { class: "run-builds" }, panel("Builds", this.timeline), this.logPlace, this.input),
      ),
    );
    const ticking = setInterval(() => this.isRunning && this.#draw(), 1000);
    this.signal.addEventListener("abort", () => clearInterval(ticking));
    this.#showInput();
    if (this.builds.has(build)) this.#choose(build, true);
    this.#paint();
  }

  close() {
    this.#closed.abort();
    this.#log?.abort();
  }

  get isRunning() {
    return this.whole.status === "RUNNING";
  }

  get now() {
    return Date.now() + this.ahead;
  }

  async summarize(summary) {
    const wasRunning = this.isRunning;
    Object.assign(this.whole, summary);
    this.#draw();
    if (wasRunning && !this.isRunning) {
      announce(`The run ${look(summary.status).text.toLowerCase()}`);
      const { output, cause, error } = await get(`executions/${pathOf(summary.id)}`, this.signal);
      Object.assign(this.whole, { output, cause, error });
      this.#draw();
    }
  }

  /** False for an event that does not follow on the last one that is known. */
  follow(event) {
    const follows = this.history.add(event);
    if (follows) this.#draw();
    return follows;
  }

  build(build) {
    this.builds.set(build.id, build);
    this.#draw();
  }

  #paint() {
    if (this.signal.aborted) return;
    this.#paintHead();
    this.graphView.show(this.history);
    this.states.replaceChildren(stateTable(this.graph, this.history, this.now));
    this.outcome.replaceChildren(...[outcome(this.whole)].filter(Boolean));
    this.#paintBuilds();
  }

  #paintHead() {
    const { whole } = this;
    const name = [whole.image ?? whole.name, whole.ref].filter(Boolean).join(" ");
    this.setTitle(name, whole.status);
    // Painted anew only where something changed: a focused button stays focused.
    const key = JSON.stringify([whole.status, whole.platforms, whole.image, whole.ref]);
    if (key !== this.headKey) {
      this.headKey = key;
      const stop = this.isRunning && h("button", { class: "danger", type: "button", on: { click: (event) => this.#stop(event.target) } }, "Stop");
      const again = h("a", { class: "button", href: `#/start?${new URLSearchParams({ input: JSON.stringify(whole.input ?? {}) })}` }, "Run again");
      this.head.replaceChildren(h("h1", {}, name), status(whole.status), h("span", { class: "grow" }), ...[stop, again].filter(Boolean));
    }
    const ran = duration((whole.ended ?? this.now) - whole.started);
    this.runTime ??= h("dd", {});
    this.runTime.textContent = ran;
    const factsKey = JSON.stringify([whole.platforms, whole.commit, whole.trigger]);
    if (factsKey === this.factsKey) return;
    this.factsKey = factsKey;
    const fact = (label, ...value) => h("div", {}, h("dt", {}, label), h("dd", {}, ...value));
    this.facts.replaceChildren(
      ...[
        fact("Trigger", whole.trigger ?? "by hand", whole.actor && ` by ${whole.actor}`),
        whole.commit && fact("Commit", h("code", { title: whole.commit }, shortCommit(whole.commit))),
        fact("Platforms", ...whole.platforms.map(({ platform, reused }) => chip(reused ? `${platform}, reused` : platform))),
        fact("Started", h("time", { title: fullTime(whole.started) }, dateTime(whole.started))),
        h("div", {}, h("dt", {}, "Duration"), this.runTime),
        fact("ARN", h("code", { class: "arn", title: whole.arn }, whole.name), copyButton(whole.arn, "the ARN")),
      ].filter(Boolean),
    );
  }

  #paintBuilds() {
    const builds = [...this.builds.values()].sort((one, other) => one.started - other.started);
    if (builds.length === 0) {
      const reused = this.whole.platforms.some((it) => it.reused);
      const text = this.isRunning ? "No build has started yet." : reused ? "Nothing was built: the images of an earlier run of this source stand for it." : "No build was started.";
      this.timeline.replaceChildren(h("p", { class: "dim pad" }, text));
      return;
    }
    this.#chooseByItself(builds);
    const focused = document.activeElement?.dataset?.build;
    this.timeline.replaceChildren(timeline(builds, { now: this.now, chosen: this.#chosen, choose: (id) => this.#choose(id, true) }));
    if (focused) this.timeline.querySelector(`[data-build="${CSS.escape(focused)}"]`)?.focus({ preventScroll: true });
  }

  /** A build that failed is what people came for; without one, the newest. */
  #chooseByItself(builds) {
    if (this.#isChosen) return;
    const failed = builds.find((build) => ["FAILED", "FAULT", "TIMED_OUT"].includes(build.status));
    this.#choose((failed ?? (this.#chosen ? this.builds.get(this.#chosen) : builds[0])).id, false);
  }

  #choose(id, byHand) {
    this.#isChosen ||= byHand;
    if (this.#chosen === id) return;
    this.#chosen = id;
    this.#log?.abort();
    this.#log = new AbortController();
    this.logPlace.replaceChildren(logView(this.builds.get(id), AbortSignal.any([this.signal, this.#log.signal])));
    if (byHand) this.#draw();
  }

  async #stop(button) {
    button.disabled = true;
    try {
      await post(`executions/${pathOf(this.whole.id)}/stop`, {});
    } catch (error) {
      button.disabled = false;
      announce(error.message, true);
    }
  }

  #showInput() {
    const input = JSON.stringify(this.whole.input ?? {}, null, 2);
    this.input.replaceChildren(panel("Input", h("pre", { class: "json", tabindex: "0" }, input)));
  }
}

const panel = (title, ...content) => h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, title)), ...content);

/** What came of a run, once it is over. */
function outcome({ status: how, error, cause, output }) {
  if (output) return published(output);
  if (!error && !cause) return null;
  return h("section", { class: `panel outcome is-${look(how).kind}`, "aria-label": "Why it ended" }, h("p", {}, h("strong", {}, error ?? look(how).text)), cause && h("p", { class: "cause", tabindex: "0" }, cause));
}

function published({ repository_uri, digest, tags, tags_kept, tags_ahead, platforms }) {
  const tag = tags.includes("latest") ? "latest" : [...tags].sort((one, other) => one.length - other.length)[0];
  return h(
    "section",
    { class: "panel outcome is-ok", "aria-label": "What was published" },
    h("p", { class: "wrap" }, h("strong", {}, "Published"), tags.map((name) => chip(name)), tags_kept.map((name) => chip(`${name}, kept`)), tags_ahead.map((name) => chip(`${name}, of a newer run`))),
    h("p", {}, codeLine(`docker pull ${pullable(repository_uri)}:${tag}`, "the pull line")),
    h(
      "table",
      { class: "small" },
      h("thead", {}, h("tr", {}, ["Platform", "Image", "Size", "Program"].map((name) => h("th", { scope: "col" }, name)))),
      h(
        "tbody",
        {},
        platforms.map((it) =>
          h("tr", {}, h("td", {}, it.platform), h("td", {}, h("code", { title: it.digest }, shortDigest(it.digest))), h("td", {}, bytes(it.size_bytes)), h("td", {}, it.reused ? "reused" : "built", it.executable?.confirmed && `, ${it.executable.confirmed}`)),
        ),
      ),
    ),
    h("p", { class: "dim" }, "Index ", h("code", { class: "break" }, digest), copyButton(digest, "the digest")),
  );
}

/** ECR's name is the local registry's here. */
const pullable = (uri) => uri.replace(/^[^/]+\.amazonaws\.com(?=\/)/, location.host);

/** The graph in words: for whoever does not see it, and for what has no room in it. */
function stateTable(graph, history, now) {
  const names = graph.workflows.flatMap((workflow) => workflow.states.map((state) => state.name));
  const reached = names
    .map((name) => ({ name, ...sum(history.of(name)) }))
    .filter((it) => it.status !== "idle")
    .sort((one, other) => one.started - other.started);
  return h(
    "table",
    { class: "states small" },
    h("caption", { class: "hidden" }, "States that were reached"),
    h("thead", {}, h("tr", {}, ["State", "Status", "Retries", "Time"].map((name) => h("th", { scope: "col" }, name)))),
    h(
      "tbody",
      {},
      reached.map((it) => [
        h("tr", {}, h("td", {}, it.name), h("td", {}, status(it.status)), h("td", {}, it.retries || ""), h("td", { class: "nowrap" }, duration((it.ended ?? now) - it.started))),
        it.errors.map(({ error, cause }) => h("tr", { class: "error-row" }, h("td", { colspan: "4" }, h("span", { class: "error" }, error), cause && h("span", { class: "dim clamp", title: short(cause) }, short(cause))))),
      ]),
    ),
  );
}

/** A function's error is JSON, of which the message is for people. */
function short(cause) {
  try {
    return JSON.parse(cause).errorMessage ?? cause;
  } catch {
    return cause;
  }
}
