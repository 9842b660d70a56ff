// The phases of several builds over one time axis.

import { h } from "./dom.js";
import { duration } from "./format.js";
import { status } from "./ui.js";

/** What phases are drawn alike. */
const GROUPS = {
  SUBMITTED: "wait",
  QUEUED: "wait",
  PROVISIONING: "wait",
  DOWNLOAD_SOURCE: "prepare",
  INSTALL: "prepare",
  PRE_BUILD: "prepare",
  BUILD: "build",
  POST_BUILD: "finish",
  UPLOAD_ARTIFACTS: "finish",
  FINALIZING: "finish",
};
const LEGEND = [
  ["wait", "Waiting"],
  ["prepare", "Source, install, pre-build"],
  ["build", "Build"],
  ["finish", "Post-build"],
];
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400].map((seconds) => seconds * 1000);

const words = (name) => name.toLowerCase().replace("_", " ").replace("pre build", "pre-build").replace("post build", "post-build");

/** `choose(id)` is called for the build whose log is wanted. */
export function timeline(builds, { now, chosen, choose }) {
  const from = Math.min(...builds.map((build) => build.started));
  const to = Math.max(from + 1000, ...builds.map((build) => build.ended ?? now));
  const percent = (ms) => `${((ms - from) / (to - from)) * 100}%`;
  return h(
    "div",
    { class: "timeline" },
    h("div", { class: "axis", "aria-hidden": "true" }, ticks(to - from).map((ms) => h("span", { style: { left: percent(from + ms) } }, duration(ms)))),
    h("ol", {}, builds.map((build) => h("li", {}, row(build, { now, percent, isChosen: build.id === chosen, choose })))),
    h("div", { class: "legend", "aria-hidden": "true" }, LEGEND.map(([group, text]) => h("span", {}, h("i", { class: `phase-${group}` }), text))),
  );
}

function row(build, { now, percent, isChosen, choose }) {
  const phases = build.phases.filter((phase) => phase.name !== "COMPLETED");
  const failed = phases.find((phase) => phase.message);
  const told = phases.map((phase) => `${words(phase.name)} ${duration((phase.ended ?? now) - phase.started)}`).join(", ");
  return h(
    "div",
    { class: isChosen ? "build is-chosen" : "build" },
    h(
      "button",
      { class: "build-name", type: "button", "aria-pressed": String(isChosen), "data-build": build.id, title: "Show its log", on: { click: () => choose(build.id) } },
      h("strong", {}, build.target),
      status(build.status),
      h("span", { class: "dim" }, duration((build.ended ?? now) - build.started)),
    ),
    h("div", { class: "track", role: "img", "aria-label": `Phases of ${build.target}: ${told}` }, phases.map((phase) => bar(phase, { now, percent }))),
    failed && h("p", { class: "error" }, `${words(failed.name)}: ${failed.message}`),
  );
}

function bar(phase, { now, percent }) {
  const end = phase.ended ?? now;
  const isBad = phase.status && !["SUCCEEDED", "IN_PROGRESS"].includes(phase.status);
  const classes = ["phase", `phase-${GROUPS[phase.name] ?? "finish"}`, isBad && (phase.status === "STOPPED" ? "is-stopped" : "is-bad"), phase.ended === null && "is-open"];
  const element = h("span", { class: classes.filter(Boolean).join(" "), title: `${words(phase.name)}: ${duration(end - phase.started)}` }, h("span", { "aria-hidden": "true" }, words(phase.name)));
  element.style.setProperty("left", percent(phase.started));
  element.style.setProperty("width", `max(2px, calc(${percent(end)} - ${percent(phase.started)}))`);
  return element;
}

function ticks(total) {
  const step = STEPS.find((it) => total / it <= 6) ?? STEPS.at(-1);
  const count = Math.floor((total * 0.93) / step);
  return Array.from({ length: count + 1 }, (_, at) => at * step);
}
