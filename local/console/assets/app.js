// The shell: which view is shown, the theme, the connection, title and icon.

import { get, live } from "./api.js";
import { h } from "./dom.js";
import { runs } from "./runs.js";
import { announce, failure, look } from "./ui.js";

const main = document.getElementById("main");
const views = {
  runs: () => runs,
  run: async () => (await import("./run.js")).run,
  builds: async () => (await import("./run.js")).build,
  events: async () => (await import("./events.js")).events,
  images: async () => (await import("./images.js")).images,
  schedules: async () => (await import("./schedules.js")).schedules,
  start: async () => (await import("./start.js")).start,
};

let about = { images: [], machines: [], endpoint: location.origin, region: "" };
let shown = new AbortController();
/** How it stands as a whole, for title and icon. */
const overall = { running: 0, last: null, title: "Runs", ofView: null };

async function route(isFirst = false) {
  const [path, search = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first = "runs", ...rest] = path.split("/").filter(Boolean);
  const name = first === "runs" && rest.length ? "run" : first;
  shown.abort();
  shown = new AbortController();
  const { signal } = shown;
  for (const link of document.querySelectorAll(".bar a")) {
    if (link.getAttribute("href") === `#/${first}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  main.dataset.view = name;
  setTitle({ runs: "Runs", run: "Run", builds: "Build", events: "Events", images: "Images", schedules: "Schedules", start: "Start a run" }[name] ?? "Nothing here", null);
  const root = h("div", { class: "view" });
  try {
    if (!Object.hasOwn(views, name)) throw Object.assign(new Error(`There is no page ${path}.`), { status: 404 });
    const view = await views[name]();
    if (signal.aborted) return;
    main.replaceChildren(root);
    // A new page is read from its beginning, as after any link.
    if (!isFirst) main.focus({ preventScroll: true });
    scrollTo(0, 0);
    await view({ root, path: rest, query: new URLSearchParams(search), signal, about, title: setTitle });
  } catch (error) {
    if (!signal.aborted) main.replaceChildren(failure(error));
  }
}

function setTitle(title, status) {
  Object.assign(overall, { title, ofView: status });
  paintTitle();
}

/** A page in the background says by its title and its icon how things stand. */
function paintTitle() {
  const { running, last, title, ofView } = overall;
  const status = ofView ?? (running ? "RUNNING" : last);
  const count = running ? `(${running}) ` : "";
  document.title = `${count}${title}${ofView ? `: ${look(ofView).text.toLowerCase()}` : ""} · archweld`;
  const icon = { running: "running", ok: "ok", bad: "failed", late: "failed", stopped: "stopped" }[status ? look(status).kind : ""] ?? "idle";
  const link = document.getElementById("icon");
  const href = `/assets/icon-${icon}.svg`;
  if (link.getAttribute("href") !== href) link.setAttribute("href", href);
}

async function readOverall() {
  const { running, items } = await get("executions?count=1");
  Object.assign(overall, { running, last: items[0]?.status ?? null });
  paintTitle();
}

function theme() {
  const button = document.getElementById("theme");
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const current = () => document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  const paint = () => {
    const other = current() === "dark" ? "light" : "dark";
    button.setAttribute("aria-label", `Switch to the ${other} theme`);
  };
  button.addEventListener("click", () => {
    const next = current() === "dark" ? "light" : "dark";
    document.documentElement.dataset.theme = next;
    localStorage.setItem("theme", next);
    paint();
  });
  dark.addEventListener("change", paint);
  paint();
}

function connection() {
  const place = document.getElementById("connection");
  live.on("connection", (isUp) => {
    place.textContent = isUp ? "Live" : "Reconnecting…";
    place.className = `connection ${isUp ? "is-ok" : "is-bad"}`;
  });
  live.on("execution", () => readOverall().catch(() => {}));
  live.on("resync", () => readOverall().catch(() => {}));
}

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});
theme();
connection();
addEventListener("hashchange", () => route());
addEventListener("unhandledrejection", ({ reason }) => {
  if (reason?.name !== "AbortError") announce(reason?.message ?? "Something went wrong", true);
});
live.connect();
readOverall().catch(() => {});
get("about").then((answer) => Object.assign(about, answer)).catch(() => {}).finally(() => route(true));
