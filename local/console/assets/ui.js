// What several views are made of.

import { h, s } from "./dom.js";

const MARKS = {
  ok: "M3.5 8.5 6.5 11.5 12.5 4.5",
  bad: "M4 4l8 8M12 4l-8 8",
  stopped: "M4.5 4.5h7v7h-7z",
  late: "M8 3.5a4.5 4.5 0 1 0 .01 0M8 5.5V8l1.8 1.4",
  running: "M8 2.5a5.5 5.5 0 1 0 5.5 5.5",
  waiting: "M3.5 8h9",
  caught: "M8 2.5 14 13H2zM8 6.5v3M8 11.2v.1",
  again: "M12.5 8a4.5 4.5 0 1 1-1.4-3.2M12.5 2.5v3h-3",
};

const STATUSES = {
  RUNNING: ["running", "Running"],
  PENDING_REDRIVE: ["running", "Pending"],
  SUCCEEDED: ["ok", "Succeeded"],
  FAILED: ["bad", "Failed"],
  FAULT: ["bad", "Fault"],
  TIMED_OUT: ["late", "Timed out"],
  ABORTED: ["stopped", "Stopped"],
  STOPPED: ["stopped", "Stopped"],
  IN_PROGRESS: ["running", "In progress"],
  active: ["running", "Running"],
  retrying: ["again", "Waits to retry"],
  succeeded: ["ok", "Succeeded"],
  failed: ["bad", "Failed"],
  caught: ["caught", "Error caught"],
  aborted: ["stopped", "Stopped"],
  idle: ["waiting", "Not reached"],
};

/** The look of a status, of executions, builds and states alike: a shape, a colour and a word. */
export function look(status) {
  const [kind, text] = STATUSES[status] ?? ["waiting", status ?? "Unknown"];
  return { kind, text };
}

export function mark(kind) {
  return s("svg", { class: `mark mark-${kind}`, viewBox: "0 0 16 16", "aria-hidden": "true" }, s("path", { d: MARKS[kind] ?? MARKS.waiting }));
}

export const markPath = (kind) => MARKS[kind] ?? MARKS.waiting;

export function status(name, text = look(name).text) {
  const { kind } = look(name);
  return h("span", { class: `status is-${kind}` }, mark(kind), text);
}

/** A button that puts a text on the clipboard. */
export function copyButton(text, what, label = "Copy") {
  const button = h("button", { class: "copy", type: "button", "aria-label": `Copy ${what}`, title: `Copy ${what}` }, label);
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
      announce(`Copied ${what}`);
      setTimeout(() => (button.textContent = label), 1500);
    } catch {
      announce(`This browser does not let ${what} be copied`);
    }
  });
  return button;
}

/** A line to copy. */
export function codeLine(text, what) {
  return h("span", { class: "line-to-copy" }, h("code", { tabindex: "0" }, text), copyButton(text, what));
}

export const chip = (text, attributes = {}) => h("span", { class: "chip", ...attributes }, text);

/** What stands where there is nothing yet: what to do next. */
export function empty(title, ...more) {
  return h("section", { class: "empty" }, h("h2", {}, title), ...more);
}

export function failure(error) {
  const gone = error.status === 404;
  return empty(gone ? "Nothing is here" : "This could not be read", h("p", {}, error.message), h("p", {}, h("a", { href: "#/runs" }, "To the runs")));
}

/** Says something without taking the focus. */
export function announce(text, isError = false) {
  const place = document.getElementById("announcements");
  const note = h("p", { class: isError ? "note is-bad" : "note" }, text);
  place.append(note);
  setTimeout(() => note.remove(), isError ? 10_000 : 4_000);
}
