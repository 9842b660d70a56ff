// The list of runs.

import { get, live } from "./api.js";
import { h, settled } from "./dom.js";
import { dateTime, duration, fullTime, number, shortCommit } from "./format.js";
import { chip, codeLine, empty, failure, status } from "./ui.js";
import { VirtualList } from "./virtual.js";

const FILTERS = [
  ["", "All"],
  ["RUNNING", "Running"],
  ["SUCCEEDED", "Succeeded"],
  ["FAILED", "Failed"],
  ["ABORTED", "Stopped"],
  ["TIMED_OUT", "Timed out"],
];

export async function runs({ root, query, signal, about }) {
  const filter = { status: query.get("status") ?? "", image: query.get("image") ?? "" };
  const count = h("span", { class: "count" });
  const table = h("div", { class: "table runs", role: "table", "aria-label": "Runs, the newest first" });
  const head = h("div", { class: "row head", role: "row" }, ...["Status", "Image", "Trigger", "Platforms", "Started", "Duration"].map((name) => h("span", { role: "columnheader", class: `cell-${name.toLowerCase()}` }, name)));
  const scroller = h("div", { class: "scroller" });
  table.append(h("div", { role: "rowgroup" }, head), scroller);
  const body = h("div", { class: "fill" }, table);
  root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Runs"), count, h("span", { class: "grow" }), filters(filter, about)), body);

  const rowHeight = () => Number.parseFloat(getComputedStyle(scroller).getPropertyValue("--row")) || 44;
  const list = new VirtualList({
    scroller,
    rowHeight,
    signal,
    render,
    onTotal: (total) => {
      count.textContent = total ? number(total) : "";
      table.setAttribute("aria-rowcount", total + 1);
      table.style.setProperty("--rows", total);
      body.replaceChildren(total ? table : nothing(filter, about));
    },
    onError: (error) => body.replaceChildren(failure(error)),
    fetch: (from, size) => get(`executions?${new URLSearchParams({ from, count: size, ...filter })}`, signal),
  });
  scroller.addEventListener("keydown", (event) => move(event, list), { signal });

  const refresh = settled(() => list.refresh(), 150);
  live.on("execution", (run) => list.update((known) => known?.id === run.id && !filter.status, () => run) || refresh(), signal);
  live.on("resync", refresh, signal);
  const ticking = setInterval(() => list.redraw((run) => run.status === "RUNNING"), 1000);
  signal.addEventListener("abort", () => clearInterval(ticking));

  await list.refresh();
  if (list.total === 0) body.replaceChildren(nothing(filter, about));
  performance.mark("runs");
}

function filters({ status: chosen, image }, about) {
  const go = (name, value) => {
    const query = new URLSearchParams({ status: chosen, image, [name]: value });
    for (const [key, text] of [...query]) if (!text) query.delete(key);
    location.hash = `#/runs${query.size ? `?${query}` : ""}`;
  };
  const select = (name, label, options, value) =>
    h("label", { class: "field-inline" }, h("span", { class: "hidden" }, label), h("select", { on: { change: (event) => go(name, event.target.value) } }, ...options.map(([key, text]) => h("option", { value: key, selected: key === value }, text))));
  return [
    about.images.length > 1 && select("image", "Image", [["", "Every image"], ...about.images.map((name) => [name, name])], image),
    select("status", "Status", FILTERS.map(([key, text]) => [key, key ? text : "Every status"]), chosen),
  ];
}

function render(run, index) {
  if (!run) return h("div", { class: "row loading-row", role: "row", "aria-rowindex": index + 2 }, h("span", { role: "cell" }, "…"));
  const cell = (name, ...content) => h("span", { role: "cell", class: `cell-${name}` }, ...content);
  const ran = (run.ended ?? Date.now()) - run.started;
  const source = [run.ref, run.commit && shortCommit(run.commit)].filter(Boolean).join(" · ");
  return h(
    "div",
    { class: "row", role: "row", "aria-rowindex": index + 2 },
    cell("status", status(run.status)),
    cell("image", h("a", { href: `#/runs/${run.id}` }, run.image ?? run.name), source && h("span", { class: "dim" }, source), run.error && h("span", { class: "error" }, run.error)),
    cell("trigger", run.trigger ?? "by hand", run.actor && h("span", { class: "dim" }, run.actor)),
    cell("platforms", ...run.platforms.map(({ platform, reused }) => chip(platform.replace("linux/", ""), { title: reused ? `${platform}, reused` : platform }))),
    cell("started", h("time", { datetime: new Date(run.started).toISOString(), title: fullTime(run.started) }, dateTime(run.started))),
    cell("duration", duration(ran)),
  );
}

/** The arrow keys go from run to run. */
function move(event, list) {
  const here = event.target.closest("[data-index]");
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!here || !step) return;
  event.preventDefault();
  const next = Math.min(list.total - 1, Math.max(0, Number(here.dataset.index) + step));
  list.reveal(next);
  list.row(next)?.querySelector("a")?.focus({ preventScroll: true });
}

function nothing(filter, about) {
  if (filter.status || filter.image) return empty("No run is like that", h("p", {}, h("a", { href: "#/runs" }, "Show every run")));
  const [machine] = about.machines;
  const { port } = new URL(about.endpoint);
  const start = `aws --endpoint-url ${about.endpoint} --region ${about.region} stepfunctions start-execution --state-machine-arn ${machine?.arn} --input '{}'`;
  return empty(
    "No runs yet",
    h("p", {}, h("a", { class: "button primary", href: "#/start" }, "Start a run"), " here, or from a terminal:"),
    about.git && h("p", {}, "push to this machine's git remote ", codeLine(`git remote add archweld ${about.git} && git push archweld main`, "the git commands")),
    h("p", {}, "start one by name ", codeLine(`archweld start${port === "4577" ? "" : ` --port ${port}`}`, "the command")),
    machine && h("p", {}, "or as on AWS ", codeLine(start, "the AWS command")),
  );
}
