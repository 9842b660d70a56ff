// A state machine as it runs, drawn as SVG.

import { s } from "./dom.js";
import { fitted, layout, SIZES } from "./layout.js";
import { sum } from "./history.js";
import { look, markPath } from "./ui.js";

const ROUND = 7;
const MARGIN = 8;

/** The drawing of a graph; `show` lights it as a history has it. */
export class GraphView {
  #nodes = new Map();
  #edges = [];

  constructor(graph) {
    const placed = layout(graph);
    const [width, height] = [placed.width + 2 * MARGIN, placed.height + 2 * MARGIN];
    this.element = s(
      "svg",
      { class: "graph", viewBox: `${-MARGIN} ${-MARGIN} ${width} ${height}`, width, height, role: "img" },
      s("defs", {}, arrow("arrow"), arrow("arrow-lit")),
      this.#draw(placed),
    );
    this.element.setAttribute("aria-label", `State machine ${graph.name}; the table below has the same`);
  }

  /** Lights what was reached. `nameOf` gives iterations' names. */
  show(history) {
    for (const [name, { node, icon, note }] of this.#nodes) {
      const came = sum(history.of(name));
      node.setAttribute("class", `node is-${look(came.status).kind}`);
      icon.setAttribute("d", markPath(look(came.status).kind));
      note.textContent = notes(came, history.of(name)).join(" · ");
    }
    for (const { edge, line } of this.#edges) {
      line.setAttribute("class", `edge edge-${edge.kind}${this.#taken(history, edge) ? " is-lit" : ""}`);
      line.setAttribute("marker-end", this.#taken(history, edge) ? "url(#arrow-lit)" : "url(#arrow)");
    }
  }

  #taken(history, { from, to, kind }) {
    const isCaught = kind === "catch";
    return history.of(to).some((visit) => visit.from?.state === from && (visit.from.status === "caught") === isCaught);
  }

  #draw(placed) {
    const lines = placed.edges.map((edge) => {
      const line = s("path", { class: `edge edge-${edge.kind}`, d: path(edge.points), "marker-end": "url(#arrow)" }, s("title", {}, title(edge)));
      this.#edges.push({ edge, line });
      return line;
    });
    return s("g", {}, lines, placed.nodes.map((it) => this.#drawNode(it)));
  }

  #drawNode({ state, x, y, width, height, inner }) {
    const icon = s("path", { class: "icon", transform: "translate(11 15)" });
    const note = s("text", { class: "note", x: 36, y: 36 });
    const kind = state.runs ? `${state.kind}: ${state.runs}` : state.kind;
    const node = s(
      "g",
      { class: "node", "data-state": state.name, transform: `translate(${x} ${y})` },
      s("title", {}, `${state.name}, ${kind}`),
      s("rect", { class: inner.length ? "box" : "shape", width, height, rx: 8 }),
      icon,
      s("text", { class: "name", x: 36, y: 20 }, fitted(state.name)),
      note,
    );
    let left = SIZES.BOX.padding;
    for (const placed of inner) {
      node.append(s("g", { transform: `translate(${left} ${SIZES.BOX.head})` }, this.#draw(placed)));
      left += placed.width + SIZES.GAP.x;
    }
    note.textContent = kind;
    this.#nodes.set(state.name, { node, icon, note, kind });
    return node;
  }
}

function notes(came, visits) {
  const parts = [look(came.status).text.toLowerCase()];
  if (came.status === "idle") return parts;
  const iterations = visits.at(-1).iterations;
  if (iterations.length) {
    const done = iterations.filter((it) => it.status === "succeeded").length;
    parts.push(`${done} of ${iterations.length}`);
  } else if (came.visits > 1) {
    parts.push(`${visits.filter((visit) => visit.status === "succeeded").length} of ${came.visits}`);
  }
  if (came.retries) parts.push(`${came.retries} ${came.retries === 1 ? "retry" : "retries"}`);
  return parts;
}

function title({ from, to, kind, errors = [] }) {
  const why = { next: "then", choice: "where its condition holds", default: "otherwise", catch: `on ${errors.join(", ")}` };
  return `${from} → ${to}, ${why[kind]}`;
}

const arrow = (id) =>
  s("marker", { id, viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 8, markerHeight: 8, markerUnits: "userSpaceOnUse", orient: "auto" }, s("path", { class: id, d: "M0 .6 7.4 4 0 7.4z" }));

/** A way with rounded corners. */
function path(points) {
  const [[x, y], ...rest] = points;
  let d = `M${x} ${y}`;
  rest.forEach(([toX, toY], at) => {
    const next = rest[at + 1];
    if (!next) {
      d += `L${toX} ${toY}`;
      return;
    }
    const [fromX, fromY] = points[at];
    const before = towards([toX, toY], [fromX, fromY]);
    const after = towards([toX, toY], next);
    d += `L${before}Q${toX} ${toY} ${after}`;
  });
  return d;
}

function towards([x, y], [toX, toY]) {
  const length = Math.hypot(toX - x, toY - y) || 1;
  const step = Math.min(ROUND, length / 2);
  return `${x + ((toX - x) / length) * step} ${y + ((toY - y) / length) * step}`;
}
