// The form that starts a run. Its fields and the JSON input say the same: each follows the other.

import { get, post } from "./api.js";
import { h, settled } from "./dom.js";
import { announce, chip, failure } from "./ui.js";

/** Every field of an input, in the order of the form: how it is read from the form and shown in it. */
const FIELDS = [
  { name: "image", label: "Image", kind: "choice" },
  { name: "ref", label: "Branch or tag", hint: "Empty: the default branch of the source" },
  { name: "commit", label: "Commit", hint: "Empty: the newest of the branch" },
  { name: "platforms", label: "Platforms", kind: "list", hint: "Separated by spaces" },
  { name: "tags", label: "Tags", kind: "list", hint: "Templates, separated by spaces" },
  { name: "publisher", label: "Publisher", kind: "choice", hint: "Who makes the index" },
  { name: "force", label: "Build anew what was built before", kind: "check" },
];

/** The fields that have the image's default where they are left out. */
const DEFAULTED = ["platforms", "tags", "publisher"];

export async function start({ root, query, signal }) {
  root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Start a run")), h("p", { class: "loading" }, "Loading…"));
  try {
    const defaults = await get("start", signal);
    new Form(root, defaults, query.get("input"), signal);
  } catch (error) {
    if (!signal.aborted) root.replaceChildren(failure(error));
  }
}

class Form {
  #controls = new Map();
  #problems = new Map();
  #check = settled(() => this.#ask(), 200);
  #asked = 0;

  constructor(root, defaults, given, signal) {
    this.defaults = defaults;
    this.signal = signal;
    this.json = h("textarea", { id: "json", rows: 9, spellcheck: "false", autocomplete: "off", "aria-describedby": "json-hint json-problem" });
    this.jsonProblem = h("p", { class: "problem", id: "json-problem", role: "alert" });
    this.plan = h("div", { class: "plan", role: "status" });
    this.button = h("button", { class: "primary", type: "submit" }, "Start");
    const form = h(
      "form",
      { class: "start", novalidate: true, "aria-label": "Start a run" },
      h("div", { class: "panel fields" }, FIELDS.map((field) => this.#field(field))),
      h(
        "div",
        { class: "panel fields" },
        h("div", { class: "field" }, h("label", { for: "json" }, "Input, as JSON"), this.json, h("p", { class: "hint", id: "json-hint" }, "What the execution is started with. What is left out has the image's default."), this.jsonProblem),
        this.plan,
        h("div", { class: "actions" }, this.button, h("a", { class: "button", href: "#/runs" }, "Cancel")),
      ),
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#start();
    });
    this.json.addEventListener("input", () => this.#fromJson());
    root.replaceChildren(h("div", { class: "title" }, h("h1", {}, "Start a run")), form);
    this.#show(this.#initial(given));
    this.#check();
    (this.#controls.get("image").disabled ? this.#controls.get("ref") : this.#controls.get("image")).focus();
  }

  #initial(given) {
    const [only, ...others] = this.defaults;
    const own = others.length ? { image: only?.name } : {};
    try {
      const input = JSON.parse(given ?? "null");
      if (input && typeof input === "object" && !Array.isArray(input)) {
        // A run that is started again is started by hand, and is a newer one.
        const { trigger: _, ...rest } = input;
        return { ...rest, trigger: { kind: "console" } };
      }
    } catch {
      // An address that somebody cut short: the form begins with its defaults.
    }
    return { ...own, trigger: { kind: "console" } };
  }

  #of(image) {
    return this.defaults.find((it) => it.name === image) ?? this.defaults[0] ?? { platforms: [], tags: [], publisher: "build" };
  }

  #field({ name, label, hint, kind }) {
    const id = `field-${name}`;
    const described = `${id}-problem${hint ? ` ${id}-hint` : ""}`;
    const attributes = { id, "aria-describedby": described, on: { input: () => this.#fromFields(name) } };
    const options = { image: this.defaults.map((it) => it.name), publisher: ["build", "lambda"] }[name];
    const control =
      kind === "choice" ? h("select", { ...attributes, disabled: name === "image" && options.length < 2 }, options.map((value) => h("option", { value }, value)))
      : kind === "check" ? h("input", { ...attributes, type: "checkbox" })
      : h("input", { ...attributes, type: "text", spellcheck: "false", autocomplete: "off" });
    const problem = h("p", { class: "problem", id: `${id}-problem` });
    this.#controls.set(name, control);
    this.#problems.set(name, problem);
    const text = h("label", { for: id }, label);
    return h("div", { class: kind === "check" ? "field check" : "field" }, kind === "check" ? [control, text] : [text, control], hint && h("p", { class: "hint", id: `${id}-hint` }, hint), problem);
  }

  /** Shows an input in the fields, with the defaults of what it leaves out, and as JSON. */
  #show(input, withJson = true) {
    this.input = input;
    const defaults = this.#of(input.image);
    for (const { name, kind } of FIELDS) {
      const control = this.#controls.get(name);
      const fallback = { image: defaults.name, platforms: defaults.platforms, tags: defaults.tags, publisher: defaults.publisher }[name];
      const value = input[name] ?? fallback;
      if (kind === "check") control.checked = value === true;
      else if (kind === "list") control.value = Array.isArray(value) ? value.join(" ") : String(value ?? "");
      else control.value = value ?? "";
    }
    if (withJson) this.json.value = JSON.stringify(input, null, 2);
  }

  #fromJson() {
    try {
      const input = JSON.parse(this.json.value);
      this.jsonProblem.textContent = "";
      if (input && typeof input === "object" && !Array.isArray(input)) this.#show(input, false);
      else this.input = input;
      this.#check();
    } catch (error) {
      this.input = undefined;
      this.#tell([{ path: "", message: `this is no JSON: ${error.message}` }]);
    }
  }

  /** What is the image's default is left out: a run with everything at its default can be reused. */
  #fromFields(changed) {
    const input = { ...(this.input ?? {}) };
    if (changed === "image") {
      for (const name of DEFAULTED) delete input[name];
      input.image = this.#controls.get("image").value;
    } else {
      const defaults = this.#of(this.#controls.get("image").value);
      const value = this.#value(changed);
      const isDefault = DEFAULTED.includes(changed) && JSON.stringify(value) === JSON.stringify(defaults[changed]);
      if (isDefault || value === "" || value === false) delete input[changed];
      else input[changed] = value;
    }
    const isList = FIELDS.some(({ name, kind }) => name === changed && kind === "list");
    if (isList || changed === "ref" || changed === "commit") {
      // What is typed stays as it is typed.
      this.input = input;
      this.json.value = JSON.stringify(input, null, 2);
    } else {
      this.#show(input);
    }
    this.jsonProblem.textContent = "";
    this.#check();
  }

  #value(name) {
    const control = this.#controls.get(name);
    const { kind } = FIELDS.find((field) => field.name === name);
    if (kind === "check") return control.checked;
    const text = control.value.trim();
    return kind === "list" ? text.split(/[\s,]+/).filter(Boolean) : text;
  }

  async #ask() {
    if (this.input === undefined || this.signal.aborted) return;
    const asked = (this.#asked += 1);
    try {
      const plan = await post("check", { input: this.input }, this.signal);
      if (asked !== this.#asked) return;
      this.#tell([]);
      this.plan.replaceChildren(...planned(plan));
    } catch (error) {
      if (asked === this.#asked && !this.signal.aborted) this.#tell(error.problems?.length ? error.problems : [{ path: "", message: error.message }]);
    }
  }

  /** Each problem stands at its field; those of no field, and of fields without one, at the JSON. */
  #tell(problems) {
    const rest = [];
    const byField = new Map();
    for (const { path, message } of problems) {
      const field = path.split(/[.[]/)[0];
      const text = path === field ? message : `${path}: ${message}`;
      if (this.#controls.has(field)) byField.set(field, [...(byField.get(field) ?? []), text]);
      else rest.push(path && !message.startsWith(path) ? `${path}: ${message}` : message);
    }
    for (const [name, place] of this.#problems) {
      const texts = byField.get(name) ?? [];
      place.textContent = texts.join("; ");
      this.#controls.get(name).setAttribute("aria-invalid", String(texts.length > 0));
    }
    this.jsonProblem.textContent = rest.join("; ");
    this.json.setAttribute("aria-invalid", String(problems.length > 0));
    if (problems.length) this.plan.replaceChildren();
  }

  async #start() {
    if (this.input === undefined) return this.json.focus();
    this.button.disabled = true;
    try {
      const { id } = await post("executions", { input: this.input });
      announce("The run has started");
      location.hash = `#/runs/${id}`;
    } catch (error) {
      this.#asked += 1;
      this.#tell(error.problems?.length ? error.problems : [{ path: "", message: error.message }]);
      const first = [...this.#controls.values(), this.json].find((it) => it.getAttribute("aria-invalid") === "true");
      first?.focus();
      announce("The run was not started", true);
    } finally {
      this.button.disabled = false;
    }
  }
}

function planned({ image, platforms, publisher, repository, fixed_tags, moving_tags, tags_left_out }) {
  const tags = [...fixed_tags.map((tag) => chip(tag)), ...moving_tags.map((tag) => chip(`${tag}, moves`))];
  return [
    h("p", { class: "wrap" }, `Builds ${image} for `, platforms.map((platform) => chip(platform)), ` and pushes to ${repository}. `, publisher === "lambda" ? "A function makes the index." : "A build makes the index."),
    h("p", { class: "wrap" }, tags.length ? ["Tags ", tags] : "No tags but the run's own.", tags_left_out.length > 0 && h("span", { class: "dim" }, ` Left out, as they have no value here: ${tags_left_out.join(", ")}`)),
  ];
}
