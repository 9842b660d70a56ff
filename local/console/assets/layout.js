// Where the states of a definition stand. Pure: a graph in, places out; nothing here knows a definition.
//
// What is reached without an error makes the left group, from top to bottom; what only errors lead to
// makes the right one. Within a group, a state is one rank below the last of those that lead to it.

const CHAR = 7.7;
const NODE = { height: 46, widthMin: 148, widthMax: 268, padding: 58 };
const GAP = { x: 26, y: 30, groups: 56, lane: 11 };
const BOX = { padding: 16, head: 46 };

/** A text that fits a node. */
export const fitted = (text) => {
  const most = Math.floor((NODE.widthMax - NODE.padding) / CHAR);
  return text.length > most ? `${text.slice(0, most - 1)}…` : text;
};

/** The places of a graph's states: `{width, height, nodes, edges, boxes}`, in pixels. */
export function layout(graph, workflow = 0) {
  const { start, states } = graph.workflows[workflow];
  const nodes = new Map(states.map((state) => [state.name, node(graph, state)]));
  const edges = states.flatMap((state) => state.edges.map((edge) => ({ ...edge, from: state.name })));
  markBack(start, nodes, edges);
  rank(start, nodes, edges);
  group(start, nodes, edges);
  return place(nodes, edges);
}

function node(graph, state) {
  const inner = (state.workflows ?? []).map((workflow) => layout(graph, workflow));
  const textWidth = Math.max(fitted(state.name).length, state.kind.length + (state.runs?.length ?? 0) * 0.5) * CHAR;
  const own = Math.min(NODE.widthMax, Math.max(NODE.widthMin, textWidth + NODE.padding));
  if (inner.length === 0) return { state, inner, rank: 0, width: own, height: NODE.height };
  const width = inner.reduce((sum, it) => sum + it.width, 0) + GAP.x * (inner.length - 1) + 2 * BOX.padding;
  const height = Math.max(...inner.map((it) => it.height)) + BOX.head + BOX.padding;
  return { state, inner, rank: 0, width: Math.max(own, width), height };
}

/** An edge back to where one comes from is no reason to stand below. */
function markBack(start, nodes, edges) {
  const seen = new Map();
  const visit = (name) => {
    seen.set(name, "open");
    for (const edge of edges) {
      if (edge.from !== name || !nodes.has(edge.to)) continue;
      if (seen.get(edge.to) === "open") edge.isBack = true;
      else if (!seen.has(edge.to)) visit(edge.to);
    }
    seen.set(name, "done");
  };
  for (const name of [start, ...nodes.keys()]) if (!seen.has(name)) visit(name);
}

function rank(start, nodes, edges) {
  // The longest way there; as many rounds as there are states suffice.
  for (let round = 0; round < nodes.size; round += 1) {
    let moved = false;
    for (const { from, to, isBack } of edges) {
      if (isBack || nodes.get(to).rank > nodes.get(from).rank) continue;
      nodes.get(to).rank = nodes.get(from).rank + 1;
      moved = true;
    }
    if (!moved) return;
  }
}

function group(start, nodes, edges) {
  const reached = new Set([start]);
  for (const name of reached) {
    for (const { from, to, kind } of edges) if (from === name && kind !== "catch") reached.add(to);
  }
  for (const [name, it] of nodes) it.group = reached.has(name) ? 0 : 1;
}

function place(nodes, edges) {
  const all = [...nodes.values()];
  const ranks = Array.from({ length: Math.max(...all.map((it) => it.rank)) + 1 }, (_, rank) => all.filter((it) => it.rank === rank));
  // Edges that pass by other states run in lanes of their own, left of the group that they are in.
  const passes = edges.filter((edge) => isPassing(edge, nodes));
  const lanes = [0, 1].map((group) => passes.filter((edge) => nodes.get(edge.from).group === group));
  const widths = [0, 1].map((group) => Math.max(0, ...ranks.map((row) => rowWidth(row.filter((it) => it.group === group)))));
  const catches = [...new Set(edges.filter((edge) => crosses(edge, nodes)).map((edge) => edge.to))];
  const left0 = lanes[0].length * GAP.lane + (lanes[0].length ? 8 : 0);
  const between = widths[1] ? Math.max(GAP.groups, catches.length * GAP.lane + 36) + lanes[1].length * GAP.lane : 0;
  const lefts = [left0, left0 + widths[0] + between];

  let top = 0;
  for (const row of ranks) {
    const height = Math.max(...row.map((it) => it.height));
    for (const [group, left] of lefts.entries()) {
      const members = row.filter((it) => it.group === group).sort((one, other) => pull(one, nodes, edges) - pull(other, nodes, edges));
      let x = left + (widths[group] - rowWidth(members)) / 2;
      for (const it of members) {
        Object.assign(it, { x, y: top });
        x += it.width + GAP.x;
      }
    }
    top += height + GAP.y;
  }
  const lines = edges.map((edge) => ({ ...edge, points: route(edge, nodes, { lefts, widths, lanes, catches }) }));
  return { width: lefts[1] + widths[1], height: top - GAP.y, nodes: all, edges: lines };
}

const rowWidth = (row) => row.reduce((sum, it) => sum + it.width, 0) + GAP.x * Math.max(0, row.length - 1);
const crosses = (edge, nodes) => nodes.get(edge.from).group !== nodes.get(edge.to).group;
const isPassing = (edge, nodes) => !crosses(edge, nodes) && (edge.isBack || nodes.get(edge.to).rank - nodes.get(edge.from).rank > 1);

/** Where those that lead to a state stand: it stands as near to them as its row lets it. */
function pull(it, nodes, edges) {
  const from = edges.filter((edge) => edge.to === it.state.name && !edge.isBack).map((edge) => nodes.get(edge.from));
  const placed = from.filter((other) => other.x !== undefined && other.rank < it.rank);
  return placed.reduce((sum, other) => sum + other.x + other.width / 2, 0) / Math.max(1, placed.length);
}

/** The way of an edge, as points with right angles; the corners are rounded when it is drawn. */
function route(edge, nodes, { lefts, widths, lanes, catches }) {
  const [from, to] = [nodes.get(edge.from), nodes.get(edge.to)];
  const middle = (it) => it.x + it.width / 2;
  if (crosses(edge, nodes)) {
    const lane = lefts[0] + widths[0] + 14 + catches.indexOf(edge.to) * GAP.lane;
    const y = from.y + Math.min(from.height, NODE.height) / 2;
    const end = to.y + Math.min(to.height, NODE.height) / 2;
    return from.group === 0
      ? [[from.x + from.width, y], [lane, y], [lane, end], [to.x, end]]
      : [[from.x, y], [lane, y], [lane, end], [to.x + to.width, end]];
  }
  if (isPassing(edge, nodes)) {
    const lane = lefts[from.group] - 10 - lanes[from.group].indexOf(edge) * GAP.lane;
    const [y, end] = [from, to].map((it) => it.y + Math.min(it.height, NODE.height) / 2);
    return [[from.x, y], [lane, y], [lane, end], [to.x, end]];
  }
  const [start, end] = [from.y + from.height, to.y];
  const turn = end - GAP.y / 2;
  if (Math.abs(middle(from) - middle(to)) < 1) return [[middle(from), start], [middle(to), end]];
  return [[middle(from), start], [middle(from), turn], [middle(to), turn], [middle(to), end]];
}

export const SIZES = { NODE, BOX, GAP };
