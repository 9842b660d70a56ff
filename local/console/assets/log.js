// A build's log, of any length: only what is looked at is fetched and drawn.

import { get, live } from "./api.js";
import { h } from "./dom.js";
import { bytes, clock, number, plain } from "./format.js";
import { VirtualList } from "./virtual.js";

/** The part of a line that is drawn, in characters. */
const LINE_MAX = 4_000;

/** The log of a build, until `signal` aborts. */
export function logView(build, signal) {
  const scroller = h("div", { class: "scroller log", tabindex: "0", role: "region", "aria-label": `Log of ${build.target}` });
  const size = h("span", { class: "dim" });
  const follow = h("button", { type: "button", class: "quiet", "aria-pressed": "true" }, "Follow");
  let follows = true;
  let isOpen = build.ended === null;

  const list = new VirtualList({
    scroller,
    signal,
    rowsRole: "presentation",
    rowHeight: () => Number.parseFloat(getComputedStyle(scroller).getPropertyValue("--row")) || 18,
    render: (line) => row(line),
    onError: (error) => (size.textContent = error.message),
    fetch: async (from, count) => {
      const log = await get(`builds/${encodeURIComponent(build.id)}/log?first=${from}&count=${count}`, signal);
      tell(log.total, log.bytes);
      isOpen = log.open;
      return { total: log.total, items: log.lines };
    },
    onTotal: () => {
      if (follows) queueMicrotask(() => toEnd());
    },
  });

  function tell(lines, length) {
    size.textContent = lines ? `${number(lines)} lines, ${bytes(length)}` : isOpen ? "No line yet" : "It has no lines";
  }

  let moving = false;
  function toEnd() {
    moving = true;
    list.toEnd();
    requestAnimationFrame(() => (moving = false));
  }

  function setFollow(value) {
    follows = value;
    follow.setAttribute("aria-pressed", String(value));
    if (value) toEnd();
  }

  follow.addEventListener("click", () => setFollow(!follows));
  // Whoever scrolls up reads, and is left alone; whoever comes to the end follows again.
  scroller.addEventListener("scroll", () => {
    if (moving) return;
    if (follows !== list.atEnd) {
      follows = list.atEnd;
      follow.setAttribute("aria-pressed", String(follows));
    }
  }, { passive: true, signal });
  const keys = { Home: () => (scroller.scrollTop = 0), End: () => setFollow(true) };
  scroller.addEventListener("keydown", (event) => {
    if (!keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }, { signal });

  live.on("log", (grown) => {
    if (grown.build !== build.id) return;
    tell(grown.lines, grown.bytes);
    list.grow(grown.lines);
  }, signal);
  live.on("resync", () => list.refresh(), signal);
  list.refresh();

  return h(
    "section",
    { class: "panel log-panel", "aria-label": "Log" },
    h("div", { class: "panel-head" }, h("h2", {}, "Log of ", build.target), size, h("span", { class: "grow" }), follow),
    scroller,
  );
}

function row(line) {
  if (!line) return h("div", { class: "log-row is-loading" }, "…");
  const [at, written] = line;
  const text = plain(written);
  const cut = text.length > LINE_MAX ? `${text.slice(0, LINE_MAX)}… (${number(text.length)} characters)` : text;
  return h("div", { class: `log-row${kind(text)}` }, at && h("time", { title: new Date(at).toISOString() }, clock(at)), h("span", {}, cut));
}

/** What CodeBuild itself writes, and what failed, stand out. */
function kind(text) {
  if (/^\[Container\].*(Running command|Entering phase)/.test(text)) return " is-command";
  if (/^\[Container\]/.test(text)) return /fail|error/i.test(text) ? " is-bad" : " is-own";
  return /\b(error|failed|fatal|panicked)\b/i.test(text) ? " is-bad" : "";
}
