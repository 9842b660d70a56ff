// The schedules, and when they are due.

import { get, live } from "./api.js";
import { h } from "./dom.js";
import { duration, fromNow, fullTime } from "./format.js";
import { chip, empty, failure } from "./ui.js";

/** Timers count to about 24 days. */
const WAIT_MAX = 2 ** 31 - 1;

export async function schedules({ root, signal }) {
  const body = h("div", {}, h("p", { class: "loading" }, "Loading…"));
  root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Schedules")), body);
  let timer = 0;
  let found = [];
  const draw = () => found.length && body.replaceChildren(table(found));
  const read = async () => {
    try {
      found = await get("schedules", signal);
      body.replaceChildren(found.length ? table(found) : nothing());
      // Once one is over, the next one counts.
      const next = Math.min(...found.map((it) => it.next ?? Infinity)) - Date.now();
      clearTimeout(timer);
      if (Number.isFinite(next)) timer = setTimeout(read, Math.min(WAIT_MAX, Math.max(1000, next + 500)));
    } catch (error) {
      if (!signal.aborted) body.replaceChildren(failure(error));
    }
  };
  const ticking = setInterval(draw, 30_000);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    clearInterval(ticking);
  });
  live.on("resync", read, signal);
  await read();
}

function table(found) {
  return h(
    "section",
    { class: "panel scroll-x", tabindex: "0", role: "region", "aria-label": "Schedules" },
    h(
      "table",
      { class: "wide" },
      h("thead", {}, h("tr", {}, ["Schedule", "Expression", "Next", "Images", "Starts"].map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, found.map(row)),
    ),
  );
}

function row(it) {
  const next = it.next
    ? [h("time", { datetime: new Date(it.next).toISOString() }, fullTime(it.next)), h("span", { class: "dim" }, ` ${fromNow(it.next, Date.now())}${it.window_s ? `, within ${duration(it.window_s * 1000)}` : ""}`)]
    : [h("span", { class: "dim" }, it.enabled ? "over" : "disabled")];
  return h(
    "tr",
    {},
    h("td", {}, h("strong", {}, it.name)),
    h("td", {}, h("code", {}, it.expression), h("span", { class: "dim" }, ` ${it.time_zone}`)),
    h("td", {}, next),
    h("td", {}, it.images.length ? it.images.map((name) => chip(name)) : h("span", { class: "dim" }, "none: no image names it")),
    h("td", {}, h("code", {}, it.target)),
  );
}

const nothing = () => empty("No schedule", h("p", {}, "Schedules are resources of the template; an image takes part by ", h("code", {}, 'schedule = "nightly"'), " in archweld.toml."));
