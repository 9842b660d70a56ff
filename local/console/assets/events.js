// What flows between builds, the bus, functions and state machines, as it happens.

import { get, live } from "./api.js";
import { h, oncePerFrame } from "./dom.js";
import { clock, duration, fullTime } from "./format.js";
import { empty, failure } from "./ui.js";

/** Lines that are shown; older ones go. */
const SHOWN_MAX = 400;

const LANES = [
  ["builds", "Builds"],
  ["bus", "Bus"],
  ["functions", "Functions"],
  ["states", "States"],
];

export async function events({ root, signal }) {
  const hidden = new Set(JSON.parse(localStorage.getItem("hidden-lanes") ?? "[]"));
  let isPaused = false;
  let waiting = [];
  const list = h("ol", { class: "flow", "aria-label": "Events, the newest first" });
  const body = h("div", { class: "fill flow-scroll", tabindex: "0", role: "region", "aria-label": "Events" }, list);
  const pause = h("button", { type: "button", "aria-pressed": "false", on: { click: () => setPaused(!isPaused) } }, "Pause");
  const lanes = LANES.map(([lane, name]) => {
    const toggle = h("button", { type: "button", class: `lane lane-${lane}`, "aria-pressed": String(!hidden.has(lane)) }, name);
    toggle.addEventListener("click", () => {
      if (!hidden.delete(lane)) hidden.add(lane);
      localStorage.setItem("hidden-lanes", JSON.stringify([...hidden]));
      toggle.setAttribute("aria-pressed", String(!hidden.has(lane)));
      list.dataset.hidden = [...hidden].join(" ");
    });
    return toggle;
  });
  list.dataset.hidden = [...hidden].join(" ");
  const nothing = empty("Nothing has happened yet", h("p", {}, "Events of builds, rules, functions and state machines appear here by themselves. ", h("a", { href: "#/start" }, "Start a run"), " to see some."));
  root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Events"), h("span", { class: "grow" }), h("div", { class: "lanes", role: "group", "aria-label": "Shown" }, lanes), pause), body);

  const draw = oncePerFrame(() => {
    const lines = waiting.map(line).filter((it) => it && isNew(it)).reverse();
    waiting = [];
    list.prepend(...lines);
    while (list.children.length > SHOWN_MAX) list.lastChild.remove();
    if (list.children.length) nothing.remove();
  });

  /** Two notices of one moment may find the same thing to tell. */
  let said = "";
  function isNew(it) {
    const before = said;
    said = it.querySelector(".event-text").textContent + it.className;
    return said !== before;
  }

  function setPaused(value) {
    isPaused = value;
    pause.setAttribute("aria-pressed", String(value));
    pause.textContent = value ? "Go on" : "Pause";
    if (!value) draw();
  }

  function take(kind, data) {
    waiting.push({ kind, data });
    if (waiting.length > SHOWN_MAX) waiting.shift();
    if (!isPaused) draw();
  }

  for (const kind of ["execution", "history", "build", "bus", "delivery", "function"]) live.on(kind, (data) => take(kind, data), signal);
  try {
    const before = await get("events", signal);
    waiting = [...before.map(({ kind, data }) => ({ kind, data })), ...waiting];
    draw();
    if (waiting.length === 0 && !list.children.length) body.prepend(nothing);
  } catch (error) {
    if (!signal.aborted) body.replaceChildren(failure(error));
  }
}

/** A line of the flow; none for what says nothing of its own. */
function line({ kind, data }) {
  const told = TOLD[kind](data);
  if (!told) return null;
  const { lane, at, what, detail, is = "", execution } = told;
  const name = LANES.find(([id]) => id === lane)[1];
  return h(
    "li",
    { class: `event ${lane}${is && ` is-${is}`}` },
    h("time", { datetime: new Date(at).toISOString(), title: fullTime(at) }, clock(at)),
    h("span", { class: "lane-mark" }, h("span", { class: "lane-name" }, name)),
    h("span", { class: "event-text" }, h("strong", {}, what), detail && h("span", { class: "dim" }, ` ${detail}`), execution && h("a", { href: `#/runs/${execution}` }, execution.split("/").at(-1).slice(0, 12))),
  );
}

const kindOf = (status) => ({ SUCCEEDED: "ok", SUCCESS: "ok", succeeded: "ok", delivered: "ok", FAILED: "bad", FAULT: "bad", failed: "bad", "given up": "bad", TIMED_OUT: "bad", retrying: "warn" })[status] ?? "";

const TOLD = {
  execution: (run) => ({
    lane: "states",
    at: run.ended ?? run.started,
    what: `Run ${run.status === "RUNNING" ? (run.planned ? "planned" : "started") : run.status.toLowerCase().replace("_", " ")}`,
    detail: [run.image, run.platforms.map((it) => it.platform).join(", "), run.error].filter(Boolean).join(" · "),
    is: kindOf(run.status),
    execution: run.id,
  }),
  history: ({ execution, event }) => {
    const { type, state, at, error } = event;
    // Of a state's inner life only what went wrong is of interest in the flow.
    if (!/StateEntered$|^(Task|LambdaFunction)\w*(Failed|TimedOut)$/.test(type)) return null;
    const entered = type.endsWith("Entered");
    return { lane: "states", at, what: entered ? `→ ${state}` : [type, error].filter(Boolean).join(": "), is: entered ? "" : "bad", execution };
  },
  build: (build) => {
    const phase = build.phases.findLast((it) => it.name !== "COMPLETED" || build.ended);
    const isOver = build.ended !== null;
    return {
      lane: "builds",
      at: isOver ? build.ended : (phase?.started ?? build.started),
      what: `${build.target} ${isOver ? build.status.toLowerCase() : (phase?.name ?? "submitted").toLowerCase().replace("_", " ")}`,
      detail: isOver ? duration(build.ended - build.started) : `${build.project} #${build.number}`,
      is: isOver ? kindOf(build.status) : "",
      execution: build.execution,
    };
  },
  bus: (event) => ({ lane: "bus", at: event.at, what: event.detail_type, detail: [event.source, event.subject, event.status].filter(Boolean).join(" · "), is: kindOf(event.status), execution: event.execution }),
  delivery: (it) => ({ lane: "bus", at: it.at, what: `→ ${it.target}`, detail: [it.status, `by rule ${it.rule}`, it.error, it.attempts > 1 && `attempt ${it.attempts}`].filter(Boolean).join(" · "), is: it.status === "delivered" ? "" : kindOf(it.status) }),
  function: (it) =>
    it.status === "began"
      ? null
      : { lane: "functions", at: it.at, what: it.function, detail: [it.status, `${it.ms} ms`, it.error].filter(Boolean).join(" · "), is: it.status === "failed" ? "bad" : "" },
};
